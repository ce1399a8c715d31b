"""The page: what its buttons do with a scripted model, and the real server on a free port, asked as a browser asks."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
import uuid

import pytest

import ex_04_ai_assistant as ex
from assistant import page
from assistant.backends import BackendError, Options, Scripted
from assistant.conversation import Conversation
from assistant.retrieval import Hit, Section
from utils import course_data
from utils.runtime import UserError

DATA = course_data.load_conversations()


class Guide:
    """An index that has one section, and finds it always."""

    threshold = 0.4

    def search(self, question, k, rank):
        return [Hit(Section("7.2 Top-p <b>", "7. Decoding > 7.2 Top-p", "text"), 0.9, "The nucleus.")]


def page_of(*answers, **more) -> tuple[page.Page, Scripted]:
    backend = Scripted(answers, 1000)
    return page.Page(lambda: ex.Assistant(backend, DATA, Options(50), open_tutor=Guide, **more)), backend


def texts(picture: list[dict]) -> list[str]:
    """The messages on the page, each with what stands below it."""
    return ["\n".join(part["text"] for part in message["content"]) for message in picture]


def ask(the_page, session, question, technique="plain", persona="") -> list[str]:
    """What the page shows when the answer has ended."""
    return texts([*the_page.answer(session, question, technique, persona)][-1])


def turns(session) -> list[tuple]:
    return [(t.user, t.assistant, t.finish_reason) for t in session.assistant.conversation.turns]


@pytest.fixture(autouse=True)
def each_piece_is_shown(monkeypatch):
    monkeypatch.setattr(page, "PAUSE", 0.001)


# Text


@pytest.mark.parametrize(("text", "shown"), [
    ("**bold** and a < b", "**bold** and a < b"),
    ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
    ("<IMG SRC=x onerror=y> <!-- c -->", "&lt;IMG SRC=x onerror=y> &lt;!-- c -->"),
    ("![p](http://e/x.png) ![p][1]", "!\\[p](http://e/x.png) !\\[p][1]"),
    ("code `<b> ![x](y)` <b>", "code `<b> ![x](y)` &lt;b>"),
    ("```html\n<b>\n```\n<b>", "```html\n<b>\n```\n&lt;b>"),
    ("```\n<b> and no end", "```\n<b> and no end"),
    ("a ``` <b>", "a ``` &lt;b>"),
    ("bell\x07 \x1b[31m", "bell [31m"),
])
def test_html_and_pictures_in_an_answer_stay_text(text, shown):
    assert page.guarded(text) == shown


def test_what_is_said_about_an_answer_is_neither_markdown_nor_html():
    shown = page.literal("<b> *x* [a](b) `c`\n# 'plain'")
    assert not re.search(r"[<>*\[\]()`']", shown) and "&#60;b&#62;" in shown and "plain" in shown


@pytest.mark.parametrize(("hosts", "origins", "expected"), [
    (["127.0.0.1:7860"], [], True), (["localhost"], [], True), (["localhost:9000"], ["http://localhost:9000"], True),
    (["evil.example"], [], False), (["evil.example:7860"], ["http://evil.example:7860"], False),
    (["127.0.0.1.evil.example"], [], False), (["localhost:7860", "evil.example"], [], False), ([], [], False),
    (["127.0.0.1:7860"], ["http://evil.example"], False), (["127.0.0.1:7860"], ["null"], False),
    (["127.0.0.1:7860"], ["http://127.0.0.1:1"], False), (["127.0.0.1:7860@evil"], [], False),
])
def test_only_this_computer_is_answered(hosts, origins, expected):
    assert page.is_local(hosts, origins) is expected


# The buttons


def test_an_answer_grows_and_ends_with_what_is_known_about_it():
    the_page, _ = page_of("One two three four.")
    session = the_page.begin()
    seen = []
    for picture in the_page.answer(session, "Count", "plain", ""):
        seen.append(texts(picture)[-1])
        time.sleep(0.002)
    assert seen[0] == "…" and "One two " in seen and len(seen) > 4, "it should be shown as it grows"
    assert all(later.startswith(earlier) for earlier, later in zip(seen[1:], seen[2:], strict=False)), seen
    assert seen[-1].startswith("One two three four.\n<span") and "plain · 4 tokens after 5 · 0" in seen[-1].replace(
        "&#46;", ".")


def test_stop_ends_the_model_and_keeps_what_was_said():
    the_page, backend = page_of("One two three four.", "Later.")
    session = the_page.begin()
    for picture in the_page.answer(session, "Count", "plain", ""):
        time.sleep(0.002)
        if "two" in texts(picture)[-1]:
            session.stop.set()
    assert backend.stopped == 1 and turns(session) == [("Count", "One two three ", "stopped")], turns(session)
    assert "stopped by you" in texts(picture)[-1]
    assert ask(the_page, session, "And now?")[-1].startswith("Later.")


def test_a_closed_tab_ends_the_model_and_frees_it_for_others():
    the_page, backend = page_of("One two three four.", "For another.")
    answer = the_page.answer(the_page.begin(), "Count", "plain", "")
    while "two" not in texts(next(answer))[-1]:
        time.sleep(0.002)
    answer.close()
    assert backend.stopped == 1 and not the_page.model.locked()
    assert ask(the_page, the_page.begin(), "Hi")[-1].startswith("For another.")


def test_who_waits_for_another_tab_can_stop_and_retry():
    the_page, backend = page_of("An answer.")
    session = the_page.begin()
    the_page.model.acquire()
    answer = the_page.answer(session, "Hi", "plain", "")
    next(answer)
    session.stop.set()
    shown = texts([*answer][-1])
    assert shown[0] == "Hi" and "Stopped before the answer began" in shown[1] and backend.sent == []
    the_page.model.release()
    assert ask(the_page, session, None)[-1].startswith("An answer.") and len(turns(session)) == 1


def test_tabs_share_the_model_one_after_the_other_and_no_history():
    class Watched(Scripted):
        now = most = 0

        def stream(self, messages, options):
            self.now += 1
            self.most = max(self.most, self.now)
            yield "You said "
            time.sleep(0.02)
            yield messages[-1]["content"]
            self.now -= 1
            return (yield from Scripted([""]).stream(messages, options))

    backend = Watched([], 1000)
    the_page = page.Page(lambda: ex.Assistant(backend, DATA, Options(50)))
    sessions = [the_page.begin() for _ in range(4)]
    threads = [threading.Thread(target=ask, args=(the_page, session, f"number {i}"))
               for i, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [turns(s)[0][:2] for s in sessions] == [(f"number {i}", f"You said number {i}") for i in range(4)]
    assert all(len(turns(s)) == 1 for s in sessions) and backend.most == 1, "answers should not overlap"


def test_a_fault_is_said_in_the_page_and_harms_nothing():
    the_page, backend = page_of("Fine.", ("Half an ", BackendError("The server <b>is gone</b>: start it.")), "Whole.")
    session = the_page.begin()
    ask(the_page, session, "one")
    shown = ask(the_page, session, "two")
    assert shown[2] == "two" and "The server &#60;b&#62;is gone" in shown[3] and "Retry asks again" in shown[3]
    assert turns(session) == [("one", "Fine.", "stop")]
    assert ask(the_page, session, None)[3].startswith("Whole.")
    assert backend.sent[1] == backend.sent[2] and [turn[0] for turn in turns(session)] == ["one", "two"]


def test_a_bug_shows_its_traceback_in_the_terminal_and_not_in_the_page(capsys):
    the_page, _ = page_of(ZeroDivisionError("secret detail"))
    shown = ask(the_page, the_page.begin(), "Hi")
    assert "failed inside the program" in shown[-1] and "secret" not in "".join(shown)
    assert "secret detail" in capsys.readouterr().err and not the_page.model.locked()


def test_retry_by_another_technique_replaces_the_answer():
    the_page, backend = page_of("Hm.", "Step by step.")
    session = the_page.begin()
    ask(the_page, session, "2 + 2?")
    pictures = [texts(picture) for picture in the_page.answer(session, None, "chain-of-thought", "")]
    assert pictures[0] == ["2 + 2?", "…"], "the old answer should give way on the page"
    assert len(pictures[-1]) == 2 and pictures[-1][1].startswith("Step by step.")
    assert "chain&#45;of&#45;thought" in pictures[-1][1]
    assert "step by step" in backend.sent[1][-1]["content"]
    assert "nothing to ask again" in ask(the_page, the_page.begin(), None)[-1]


def test_personas_can_be_taken_and_left():
    the_page, backend = page_of("a", "b", "c")
    session = the_page.begin()
    for persona in ("socratic", "", "tutor"):
        ask(the_page, session, "Hi", persona=persona)
    first = [sent[0]["content"] for sent in backend.sent]
    assert first == [DATA["personas"]["socratic"]["system"], "Hi", DATA["personas"]["tutor"]["system"]]


def test_a_system_prompt_given_at_the_start_is_the_choice_beside_the_personas():
    backend = Scripted(["a", "b"], 1000)

    def make():
        assistant = ex.Assistant(backend, DATA, Options(50))
        assistant.conversation = Conversation("Be brief.", "a persona that is no more")
        return assistant

    the_page = page.Page(make)
    session = the_page.begin()
    ask(the_page, session, "Hi", persona="socratic")
    ask(the_page, session, "Hi")
    assert backend.sent[1][0]["content"] == "Be brief." and session.assistant.conversation.persona is None


def test_the_tutor_names_its_sources():
    the_page, backend = page_of("The nucleus <i>is</i>", "```python\nan open fence")
    session = the_page.begin()
    shown = ask(the_page, session, "What is top-p?", "retrieval")[-1]
    assert "**Sources in the guide:** 7&#46;2 Top&#45;p &#60;b&#62;" in shown and "The nucleus &lt;i>" in shown
    assert "The nucleus." in backend.sent[0][-1]["content"]
    last = [*the_page.answer(session, "And?", "retrieval", "")][-1][-1]["content"]
    assert len(last) == 3 and "Sources" in last[1]["text"], "an open fence must not swallow the sources"


def test_a_guide_that_is_missing_is_a_sentence():
    def nothing():
        raise UserError("guide.md: no such file; fetch the course again")

    the_page = page.Page(lambda: ex.Assistant(Scripted(["Fine."], 1000), DATA, Options(50), open_tutor=nothing))
    session = the_page.begin()
    assert "no such file" in ask(the_page, session, "Hi", "retrieval")[-1]
    assert ask(the_page, session, "Hi", "plain")[-1].startswith("Fine.")


def test_clear_forgets_also_the_answer_that_is_being_written():
    the_page, backend = page_of("One two three four.")
    session = the_page.begin()
    answer = the_page.answer(session, "Count", "plain", "")
    while "two" not in texts(next(answer))[-1]:
        time.sleep(0.002)
    the_page.clear(session)
    assert [*answer][-1] == [] and backend.stopped == 1 and turns(session) == []


# Starting it


def test_a_port_in_use_or_no_gradio_is_one_line(monkeypatch):
    with page.listen(0) as listener:
        taken = listener.getsockname()[1]
        assert listener.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UserError, match=rf"^port {taken} is in use.*--port$"):
            ex.main(["--web", "--port", str(taken), "--model", "no/such-model"])
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        page.listen(0)


class Echo(Scripted):
    """Says what it was asked; asked to count, it counts slowly."""

    def stream(self, messages, options):
        said = messages[-1]["content"]
        words = [f"{i} " for i in range(1000)] if said == "count" else ["You said ", said, f" ({len(messages)})"]
        self.sent.append(messages)
        try:
            for word in words:
                yield word
                time.sleep(0.02 if said == "count" else 0)
        except GeneratorExit:
            self.stopped += 1
            raise
        return (yield from Scripted([""]).stream(messages, options))


@pytest.fixture(scope="module")
def server():
    """(port, model, names that were looked up) of a real page."""
    looked_up, getaddrinfo = [], socket.getaddrinfo

    def record(host, *args, **kwargs):
        looked_up.append(host)
        return getaddrinfo(host, *args, **kwargs)

    socket.getaddrinfo = record
    backend, listener = Echo([], 9000), page.listen(0)
    running = page.prepare_server(page.build(lambda: ex.Assistant(backend, DATA, Options(2000)),
                                             ex.Assistant.techniques))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1], backend, looked_up
    running.should_exit = True
    thread.join(20)
    listener.close()
    socket.getaddrinfo = getaddrinfo
    assert not thread.is_alive(), "the server should end although streams are open"


def get(port: int, path: str = "/", method: str = "GET", body: object = None, **headers: str) -> tuple:
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json"} if content else {}
    connection.request(method, path, content, {**sent, **headers})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.getheaders()), text


class Tab:
    """A tab of a browser, as far as the server can tell."""

    def __init__(self, port: int) -> None:
        self.port, self.session = port, uuid.uuid4().hex
        config = json.loads(get(port, "/config")[2])
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.events = {(names.get(target), event): number["id"] for number in config["dependencies"]
                       for target, event in number["targets"]}
        self.load()

    def load(self) -> None:
        number = next(i for (_, event), i in self.events.items() if event == "load")
        self.join(number, [])
        self.wait()

    def join(self, number: int, data: list) -> None:
        status, _, text = get(self.port, "/gradio_api/queue/join", "POST", {
            "data": data, "fn_index": number, "session_hash": self.session, "trigger_id": None})
        assert status == 200, text

    def press(self, name: str, *data) -> None:
        self.join(self.events[name, "submit" if name == "box" else "click"], [None, *data])

    def listen(self):
        """The messages of the server, until nothing is under way."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        try:
            for line in connection.getresponse():
                if line.startswith(b"data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "close_stream":
                        return
                    yield message
        finally:
            connection.close()

    def wait(self) -> str:
        """Everything that the server says until it is done, as JSON."""
        messages = [*self.listen()]
        assert messages[-1]["msg"] == "process_completed" and messages[-1]["success"], messages[-1]
        return json.dumps(messages)


def test_the_page_is_served_with_its_policy_and_fetches_nothing_from_elsewhere(server):
    status, headers, text = get(server[0])
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in {name.lower() for name in headers}
    fetched = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="(https?:[^"]+)"', text)
    assert not [url for url in fetched if "127.0.0.1" not in url], fetched


def test_foreign_hosts_and_origins_are_refused(server):
    for headers in ({"Host": "evil.example"}, {"Host": "evil.example:7860", "Origin": "http://evil.example:7860"},
                    {"Origin": "http://evil.example"}):
        for method, path in (("GET", "/"), ("POST", "/gradio_api/queue/join"), ("OPTIONS", "/gradio_api/queue/join")):
            status, sent, text = get(server[0], path, method, **headers)
            assert status == 403, (headers, method, path)
            assert "evil" not in text + str(sent)


def test_it_listens_here_only_and_offers_nothing_but_the_page(server):
    port = server[0]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=2)
    assert json.loads(get(port, "/gradio_api/info")[2]) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    for path in ("/docs", "/openapi.json", "/redoc", "/monitoring", "/gradio_api/file=/etc/hostname"):
        assert get(port, path)[0] in (403, 404), path


def test_two_tabs_and_a_reload_share_no_history(server):
    first, second = Tab(server[0]), Tab(server[0])
    for tab, question in ((first, "apples"), (second, "pears"), (first, "more")):
        tab.press("box", question, "plain", "")
        answer = tab.wait()
        assert "You said" in answer and question in answer
    assert [m["content"] for m in server[1].sent[-1]] == ["apples", "You said apples (1)", "more"]
    assert "pears" not in answer
    reloaded = Tab(server[0])
    reloaded.press("box", "cherries", "plain", "")
    assert "apples" not in reloaded.wait()


def test_an_empty_question_asks_nothing(server):
    tab, before = Tab(server[0]), len(server[1].sent)
    tab.press("send", "  \n", "plain", "")
    tab.wait()
    assert len(server[1].sent) == before


def test_stop_works_while_an_answer_streams(server):
    tab, backend = Tab(server[0]), server[1]
    before = backend.stopped
    tab.press("send", "count", "plain", "")
    pressed, last = False, ""
    for message in tab.listen():
        last = json.dumps(message)
        if message["msg"] == "process_generating" and "3 " in last and not pressed:
            tab.press("stop")
            pressed = True
    assert pressed and backend.stopped == before + 1


def test_a_tab_that_is_closed_stops_its_answer_and_the_next_one_is_served(server):
    tab, backend = Tab(server[0]), server[1]
    before = backend.stopped
    tab.press("send", "count", "plain", "")
    stream = tab.listen()
    while "3 " not in json.dumps(next(stream)):
        pass
    stream.close()
    other = Tab(server[0])
    other.press("send", "hello", "plain", "")
    assert "You said" in other.wait() and backend.stopped == before + 1


def test_no_name_was_looked_up_outside(server):
    assert not [host for host in server[2] if host not in (None, "127.0.0.1", "localhost")], server[2]
