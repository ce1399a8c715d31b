"""The page: what it shows with a scripted model, and its real server on a free port."""

from __future__ import annotations

import http.client
import json
import re
import socket

import pytest

import ex_04_ai_assistant as ex
from assistant import page
from assistant.backends import BackendError, Options, Scripted
from assistant.conversation import Source, Turn
from assistant.turn import Chat
from utils import course_data
from utils.runtime import UserError

DATA = course_data.load_conversations()


class Tab:
    """A browser's tab, as far as `converse` can tell: what is on the page, and its own turns."""

    def __init__(self, chat: Chat) -> None:
        self.chat, self.history, self.turns = chat, [], {}

    def start(self, question: str, technique="plain", persona=""):
        return page.converse(self.chat, ex.ask, question, list(self.history), technique, persona,
                             self.turns)

    def ask(self, question: str, *choices) -> str:
        """What stands on the page when the answer has ended."""
        *_, (message, self.sent) = self.start(question, *choices)
        self.history += [{"role": "user", "content": question}, message]
        return text_of(message)

    def retry(self, *choices) -> str:
        question = self.history[-2]["content"]
        del self.history[-2:]
        return self.ask(question, *choices)


def text_of(message: dict) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def chat_with(*answers, **more) -> Chat:
    return Chat(Scripted(answers, 1000), DATA, ex.TECHNIQUES, Options(50), **more)


def contents(chat: Chat) -> list[list[str]]:
    return [[message["content"] for message in sent] for sent in chat.backend.sent]


@pytest.mark.parametrize(("text", "shown"), [
    ("**bold** and a < b", "**bold** and a < b"),
    ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
    ("<IMG SRC=x onerror=y> <!-- c -->", "&lt;IMG SRC=x onerror=y> &lt;!-- c -->"),
    ("![p](http://e/x.png) ![p][1]", "!\\[p](http://e/x.png) !\\[p][1]"),
    ("code `<b> ![x](y)` <b>", "code `<b> ![x](y)` &lt;b>"),
    ("```html\n<b>\n```\n<b>", "```html\n<b>\n```\n&lt;b>"),
    ("```\n<b> and no end", "```\n<b> and no end"),
    ("bell\x07 \x1b[31m", "bell [31m"),
])
def test_html_and_pictures_in_an_answer_stay_text(text, shown):
    assert page.guarded(text) == shown


def test_what_is_said_about_an_answer_is_neither_markdown_nor_html():
    shown = page.literal("<b> *x* [a](b) `c`\n# 'plain'")
    assert not re.search(r"[<>*\[\]()`']", shown) and "&#60;b&#62;" in shown and "plain" in shown


def test_an_answer_grows_and_ends_with_what_is_known_about_it(monkeypatch):
    monkeypatch.setattr(page, "PAUSE", 0)
    tab = Tab(chat_with("One two three."))
    seen = [text_of(message).splitlines() for message, _ in tab.start("Count")]
    assert [lines[0] for lines in seen][:3] == ["…", "One ", "One two "]
    assert seen[-1][0] == "One two three." and "plain" in seen[-1][-1] and "3 tokens" in seen[-1][-1]


def test_history_retry_and_clear_follow_what_is_on_the_page():
    tab = Tab(chat_with("a", "b", "c", "d", "e"))
    tab.ask("one")
    tab.ask("two")
    assert "chain&#45;of&#45;thought" in tab.retry("chain-of-thought") and "step by step" in tab.sent
    tab.history.clear()
    tab.ask("afresh", "plain", "socratic")
    tab.ask("and on")
    assert [sent[:-1] for sent in contents(tab.chat)] == [
        [], ["one", "a"], ["one", "a"], [DATA["personas"]["socratic"]["system"]], ["afresh", "d"]]


def test_a_stopped_answer_or_a_closed_tab_ends_the_model_and_keeps_what_was_said(monkeypatch):
    monkeypatch.setattr(page, "PAUSE", 0)
    tab = Tab(chat_with("One two three.", "Later."))
    answer = tab.start("Count")
    while "two" not in text_of(next(answer)[0]):
        pass
    answer.close()
    assert tab.chat.backend.stopped == 1 and tab.turns[0].finish_reason == "stopped"
    tab.history = [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "One two "}]
    tab.ask("And now?")
    assert contents(tab.chat)[1] == ["Count", "One two ", "And now?"]


def test_stop_leaves_a_mark_below_the_answer():
    history = [{"role": "user", "content": "Count"}, page.shown(Turn("Count", "One two"))]
    shown, kept = page.stopped(history)
    assert shown == kept and text_of(shown[-1]).startswith("One two") and "(stopped)" in text_of(shown[-1])
    assert page.stopped([{"role": "user", "content": "Count"}])[0] == [{"role": "user", "content": "Count"}]


def test_tabs_share_no_history():
    chat = chat_with("a", "b", "c")
    first, second = Tab(chat), Tab(chat)
    first.ask("apples")
    second.ask("pears")
    first.ask("more")
    assert contents(chat) == [["apples"], ["pears"], ["apples", "a", "more"]]


def test_a_fault_is_said_on_the_page_and_is_no_part_of_the_history(capsys):
    tab = Tab(chat_with("Fine.", ("Half an ", BackendError("It <b>is gone</b>.")), "Whole.",
                        ZeroDivisionError("secret detail"), "Good."))
    tab.ask("one")
    assert "It &#60;b&#62;is gone" in tab.ask("two")
    assert tab.ask("three").startswith("Whole.")
    shown = tab.ask("four")
    assert "failed inside the program" in shown and "secret" not in shown
    assert "secret detail" in capsys.readouterr().err
    assert tab.retry().startswith("Good.")
    assert contents(tab.chat)[-1] == ["one", "Fine.", "three", "Whole.", "four"]


def test_the_guides_words_and_links_come_before_the_models():
    turn = Turn("q", "```\nopen fence", sources=[Source("7.2 Top-p <b>", "g.md#72-top-p", "The *nucleus*."),
                                                 Source("7.1 Top-k", "g.md#71-top-k")])
    guide, mark, model, known = (part["text"] for part in page.shown(turn)["content"])
    assert "[7&#46;2 Top&#45;p &#60;b&#62;](/guide/g.md#72-top-p)" in guide
    assert "The &#42;nucleus&#42;" in guide and "(/guide/g.md#71-top-k)" in guide
    assert "model" in mark and model == "```\nopen fence" and "plain" in known


def test_a_guide_that_is_missing_is_a_sentence():
    def nothing():
        raise UserError("guide.md: no such file; fetch the course again")

    tab = Tab(chat_with("Fine.", open_tutor=nothing))
    assert "no such file" in tab.ask("Hi", "retrieval") and tab.ask("Hi").startswith("Fine.")


# Its server


def test_a_port_in_use_or_no_gradio_is_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--port {port}: cannot be opened"):
            ex.main(["--web", "--port", str(port), "--model", "no/such-model"])
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        page.check_port(0)


@pytest.fixture(scope="module")
def server():
    """(port, names that were looked up) of a real page, beside a proxy that Gradio cannot use."""
    with pytest.MonkeyPatch.context() as patch:
        looked_up, getaddrinfo = [], socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", lambda host, *args, **more: (
            looked_up.append(host), getaddrinfo(host, *args, **more))[1])
        for name in ("ALL_PROXY", "HTTP_PROXY"):
            patch.setenv(name, "socks://127.0.0.1:1")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        chat = chat_with()
        chat.conversation.turns.append(Turn("loaded question", "loaded answer"))
        with page.no_proxies():
            demo = page.build(chat, ex.ask)
            page.launch(demo, port)
        assert page.os.environ["ALL_PROXY"]
        yield port, looked_up
        demo.close(verbose=False)


def get(port: int, path: str = "/", **headers: str) -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    return reply.status, reply.read().decode(errors="replace")


def test_the_page_asks_nobody_else_for_anything(server):
    status, text = get(server[0])
    assert status == 200 and "AI assistant" in text and "loaded answer" in text
    fetched = re.findall(r"""(?:src|href)=["'](https?://[^"']+)""", text)
    assert not [url for url in fetched if "127.0.0.1" not in url], fetched
    assert not [host for host in server[1] if host not in (None, "127.0.0.1", "localhost")], server[1]


def test_it_listens_here_only_and_offers_nothing_but_the_page(server):
    port = server[0]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=2)
    for host in ("evil.example", f"evil.example:{port}"):
        assert get(port, Host=host)[0] == 400
    assert json.loads(get(port, "/gradio_api/info")[1])["named_endpoints"] == {}
    for path in ("/docs", "/redoc", "/monitoring", "/gradio_api/file=/etc/hostname",
                 "/guide/nothing.md", "/guide/..%2FREADME.md", "/guide/images/..%2F..%2FREADME.md"):
        assert get(port, path)[0] in (403, 404), path


def test_links_to_the_guide_open_the_section(server):
    from assistant.retrieval import read_sections

    for path in page.GUIDE.glob("*.md"):
        status, text = get(server[0], f"/guide/{path.name}")
        assert status == 200
        links = [s.link for s in read_sections(path.read_text(encoding="utf-8"), path.name)]
        missing = [link for link in links if f'id="{link.partition("#")[2]}"' not in text]
        assert links and not missing, missing
        for picture in re.findall('<img src="([^"]+)', text):
            assert get(server[0], f"/guide/{picture}")[0] == 200, picture
