"""Exercise 4's client against a server that misbehaves: what is read, sent, who sees the key."""

from __future__ import annotations

import logging
import socket
import sys
import traceback
from types import SimpleNamespace

import pytest

from assistant import faults
from assistant import server as module
from assistant.backends import BackendError, Options
from assistant.server import Server, choose_key, parse_address
from misbehaving_server import ANSWERS, FAULTS, TEXT, serve
from utils.runtime import UserError

KEY = "sk-SeCrEt-0123456789"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}]


def answer(server, options=None, messages=QUESTION):
    """The answer's pieces and the Reply or BackendError that ended it."""
    pieces, running = [], server.stream(messages, options or Options(20))
    try:
        while True:
            pieces.append(next(running))
    except StopIteration as end:
        return pieces, end.value
    except BackendError as error:
        return pieces, error


def behave(base_url, name):
    base_url.requests.clear()
    base_url.behaviour = name


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The client's first answer takes a second: modules are imported, and schemas built."""
    with serve() as base_url:
        answer(Server(base_url, "m"))


@pytest.fixture(scope="module")
def base_url():
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def server(base_url):
    """A back end that asks once, and waits as long as a busy test machine needs."""
    return Server(base_url, "m", tries=1, temperature=0.7)


# Faults and answers, one row for each kind


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_sentence_and_the_next_question_is_answered(name, base_url, server):
    behave(base_url, name)
    slow = "silence" in name or "loading" in name
    asked = Server(base_url, "m", tries=1, timeout=0.8) if slow else server
    pieces, fault = answer(asked, Options(20, temperature=0.7))
    assert isinstance(fault, BackendError), f"{name} ended as if it were an answer: {fault}"
    for meaning in FAULTS[name][1].split("|"):
        assert meaning.lower() in str(fault).lower(), f"it does not say {meaning!r}: {fault}"
    assert 20 < len(str(fault)) < 420 and str(fault).isprintable(), f"no line: {str(fault)!r}"
    assert str(fault).endswith("."), f"no sentence: {fault}"
    assert fault.too_long == name.startswith("too l")
    shown = "Paris is" if "midway" in name else ""
    assert "".join(pieces).strip() == shown, "what came before the fault is passed on, no more"
    assert len(base_url.requests) == 1 or "loading" in name, "it was told to ask once"
    behave(base_url, "good")
    assert answer(server)[1].text == TEXT, f"after {name} the same back end no longer answers"


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_keeps_its_text_and_says_how_it_ended(name):
    text, finish_reason = ANSWERS[name][1:]
    with serve(name) as base_url:
        pieces, reply = answer(Server(base_url, "m"), Options(20, temperature=0.7, seed=7))
    assert not isinstance(reply, BackendError), reply
    assert (reply.text, reply.finish_reason) == (text, finish_reason)
    assert "".join(pieces) == text, "what was shown is not what is remembered"
    has_usage = text == TEXT and finish_reason and "label" not in name or name.startswith("whole")
    tokens = (11, 5, 4) if has_usage or name == "stream refused" else (None, None, 0)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reused_tokens) == tokens


def test_every_sentence_is_reached_by_a_fault(base_url, server, monkeypatch):
    """So that no row of the table is dead, or hidden behind a broader one before it."""
    used = set()
    monkeypatch.setattr(faults, "sentence_for", lambda *cause, ask=faults.sentence_for: (
        used.add(ask(*cause)) or ask(*cause)))
    for name in FAULTS:
        behave(base_url, name)
        answer(Server(base_url, "m", tries=1, timeout=0.3), Options(20, temperature=0.7))
    for nowhere in ("refused", "dns"):
        with serve(nowhere) as address:
            answer(Server(address, "m", tries=1))
    answer(Server(base_url.replace("http:", "https:"), "m", tries=1))
    assert {text for _, text in faults.CAUSES} == used


@pytest.mark.parametrize(("name", "says"), [("refused", "No server is running.*start it"),
                                            ("dns", "failed instead of .*--base-url.*network")])
def test_no_server_at_all(name, says):
    with serve(name) as nowhere, pytest.raises(BackendError, match=says):
        next(Server(nowhere, "m", tries=1).stream(QUESTION, Options(20)))


def test_a_server_without_https_is_named(base_url):
    fault = answer(Server(base_url.replace("http://", "https://"), "m", tries=1))[1]
    assert "https" in str(fault) and "http://" in str(fault), str(fault)


@pytest.mark.parametrize("name", ["path unknown", "path unknown, dressed as 200", "page"])
def test_a_missing_v1_is_suspected_where_it_is_missing(name):
    for path, suspected in (("", True), ("/v1", False)):
        with serve(name, path) as bare:
            fault = str(answer(Server(bare, "m", tries=1))[1])
            assert ("lack /v1" in fault) == suspected, fault


def test_thoughts_that_nobody_opened_are_not_kept():
    with serve("thoughts that nobody opened") as base_url:
        assert answer(Server(base_url, "m"))[1].text == "Paris"


def test_an_answer_comes_in_pieces_and_stopping_it_stops_the_server():
    with serve("endless") as base_url:
        running = Server(base_url, "m").stream(QUESTION, Options(20))
        assert [next(running), next(running)] == ["word ", "word "]
        assert not base_url.gone.is_set()
        running.close()
        assert base_url.gone.wait(10), "the generator was closed, and the server still generates"


@pytest.mark.parametrize(("name", "requests"), [
    ("rate limit once", 2), ("failure once", 2), ("reset once", 2), ("loading for a while", 5),
    ("failure inside", 3),
    ("quota", 1), ("rate limit with a long wait", 1), ("key missing or wrong", 1), ("silence", 1)])
def test_only_what_may_pass_is_asked_again(name, requests, monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    with serve(name) as base_url:
        end = answer(Server(base_url, "m", timeout=0.8 if name == "silence" else None))[1]
        assert len(base_url.requests) == requests
    assert isinstance(end, BackendError) == ("once" not in name and "while" not in name), end
    assert len(slept) == requests - 1 and all(0 < seconds <= 10 for seconds in slept)


@pytest.mark.parametrize(("url", "timeout", "seconds"), [
    ("http://127.0.0.1:1/v1", None, 300), ("http://localhost:1/v1", None, 300),
    ("https://example.com/v1", None, 120), ("http://127.0.0.1:1/v1", 7.0, 7)])
def test_a_server_on_this_computer_may_load_its_model_for_minutes(url, timeout, seconds):
    limits = Server(url, "m", timeout=timeout)._client.timeout
    assert (limits.read, limits.connect) == (seconds, 5)


# What is sent


def test_few_fields_are_sent(base_url, server):
    behave(base_url, "good")
    for temperature in (None, 0.0, 0.9):
        answer(server, Options(33, temperature, seed=7))
    plain = {"model": "m", "messages": QUESTION, "max_tokens": 33, "stream": True,
             "stream_options": {"include_usage": True}}
    assert [request["body"] for request in base_url.requests] == [
        plain, plain | {"temperature": 0.0}, plain | {"temperature": 0.9, "seed": 7}]


@pytest.mark.parametrize(("name", "field", "note"), [
    ("max_tokens refused", "max_tokens", None), ("seed refused", "seed", "takes no seed"),
    ("max_tokens refused in words", "max_tokens", None), ("stream refused", "stream", "one piece"),
    ("our temperature refused", "temperature", "takes no temperature"),
    ("stream_options refused", "stream_options", None)])
def test_a_field_of_ours_that_is_refused_is_left_out_for_good_and_said_once(name, field, note):
    with serve(name) as base_url:
        server, options = Server(base_url, "m", tries=1), Options(9, temperature=0.7, seed=7)
        first, second = answer(server, options)[1], answer(server, options)[1]
        bodies = [request["body"] for request in base_url.requests]
    assert first.text == second.text
    assert [field in body for body in bodies] == [True, False, False], "it should learn, once"
    assert [note in text for text in first.notes] == [True] if note else not first.notes
    assert not second.notes
    if field == "max_tokens":
        assert bodies[1]["max_completion_tokens"] == bodies[2]["max_completion_tokens"] == 9


def test_an_answer_in_one_piece_is_said_to_be_one(base_url, server):
    behave(base_url, "whole")
    assert answer(server)[1].notes == (module.DROPPED["stream"],)


def test_lone_surrogates_are_sent_as_text_that_utf8_can_hold(base_url, server):
    behave(base_url, "good")
    answer(server, messages=[{"role": "user", "content": "a\ud83d\ude00 b\udc80"}])
    assert base_url.requests[0]["body"]["messages"][0]["content"] == "a\U0001f600 b\ufffd"


def test_the_token_count_is_an_estimate_that_grows_with_the_text():
    server = Server("http://127.0.0.1:1/v1", "m", context=4096)
    assert not server.exact and server.context == 4096
    assert (server.where, server.name) == ("127.0.0.1:1", "m")
    texts = ("", "hi", "hi there", "1234567890", "\U0001f600\ud83d")
    counts = [server.count_tokens([{"role": "user", "content": text}]) for text in texts]
    assert counts == [8, 9, 11, 18, 15]
    assert server.count_tokens(QUESTION) > server.count_tokens(QUESTION[1:])


# The key, and where it goes


@pytest.mark.parametrize(("url", "key_env", "expected"), [
    ("https://api.openai.com/v1", None, "for-openai"),
    ("https://API.OpenAI.com:443/v1", None, "for-openai"),
    ("https://api.openai.com.evil.example/v1", None, None),
    ("https://example.com/api.openai.com", None, None),
    ("http://127.0.0.1:8000/v1", None, None), ("https://example.com/v1", "OTHER", "other"),
    ("http://localhost:8000/v1", "OTHER", "other"), ("http://[::1]:8000/v1", "OTHER", "other"),
    ("http://127.8.9.1/v1", "OTHER", "other"), ("https://api.openai.com/v1", "OTHER", "other"),
    ("https://example.com/v1", "OPENAI_API_KEY", "for-openai"),
])
def test_which_key_goes_where(url, key_env, expected):
    environment = {"OPENAI_API_KEY": " for-openai\n", "OTHER": "other"}
    assert choose_key(parse_address(url), environment, key_env) == expected


@pytest.mark.parametrize(("url", "key_env", "environment", "says"), [
    ("https://example.com/v1", "NONE", {}, "--key-env"),
    ("https://example.com/v1", "NONE", {"NONE": "  "}, "--key-env"),
    ("https://example.com/v1", KEY, {}, "--key-env"),
    ("https://api.openai.com/v1", None, {}, "OPENAI_API_KEY"),
    ("http://example.com/v1", "K", {"K": KEY}, "https://"),
    ("http://127.0.0.1.evil.example/v1", "K", {"K": KEY}, "https://"),
    ("http://localhost.evil.example/v1", "K", {"K": KEY}, "https://"),
    ("http://api.openai.com/v1", None, {"OPENAI_API_KEY": KEY}, "https://"),
    ("https://example.com/v1", "K", {"K": KEY + " x"}, "copy it again"),
    ("https://example.com/v1", "K", {"K": KEY + "\n" + KEY}, "copy it again"),
    ("https://example.com/v1", "K", {"K": KEY + "\u2026"}, "copy it again"),
])
def test_a_key_that_cannot_be_used_is_one_line_without_it(url, key_env, environment, says):
    with pytest.raises(UserError, match=says) as caught:
        choose_key(parse_address(url), environment, key_env)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_the_key_for_openai_is_asked_for_at_a_terminal_only(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return f" {KEY} "

    def leave(prompt):
        raise EOFError

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Server("https://api.openai.com/v1", "m", ask_key=ask)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Server("https://api.openai.com/v1", "m", ask_key=ask)
    assert not asked, "it asked where nobody can answer"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    Server("http://127.0.0.1:1/v1", "m", ask_key=ask)
    assert not asked, "a server of one's own needs no key"
    server = Server("https://api.openai.com/v1", "m", ask_key=ask)
    assert len(asked) == 1 and server._client.api_key == KEY
    with pytest.raises(UserError, match="needs a key"):
        Server("https://api.openai.com/v1", "m", ask_key=leave)


@pytest.mark.parametrize("url", [
    "", "localhost:8000", "127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http:///v1",
    "http://127.0.0.1:x/v1", "http://127.0.0.1:99999/v1", "http://127.0.0.1:0/v1", "http://[::1/v1",
    "http://a b/v1", "http://a\n.example/v1", "https://api.openai.com\\.evil.example/v1",
    "https://api.openai.com;evil.example", "http://b\u00fccher.example/v1",
    f"http://user:{KEY}@127.0.0.1/v1", f"https://api.openai.com@{KEY}.example/v1",
    f"https://example.com/v1?key={KEY}", f"https://example.com/v1#{KEY}",
    "http://127.0.0.1/v1/chat/completions",
])
def test_an_address_that_is_none_is_one_line_that_repeats_no_secret(url):
    with pytest.raises(UserError, match="--base-url") as caught:
        Server(url, "m")
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_must_be_named():
    with pytest.raises(UserError, match="--model"):
        Server("http://127.0.0.1:1/v1", "  ")


def test_the_key_is_sent_and_nowhere_to_be_read(monkeypatch, caplog, capfd):
    """Not in texts, objects, logs or tracebacks; some servers repeat the key in their error."""
    monkeypatch.setenv("COURSE_TEST_KEY", KEY)
    for name in ("openai", "httpx2", "httpcore2", "httpcore"):  # OPENAI_LOG=debug does the first
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    seen, sent = [], set()
    with serve() as base_url:
        server = Server(base_url, "m", "COURSE_TEST_KEY", tries=1, timeout=0.8)
        for name in ("good", *FAULTS):
            behave(base_url, name)
            end = answer(server)[1]
            sent |= {request["headers"]["Authorization"] for request in base_url.requests}
            seen += [repr(end), str(end)]
            if isinstance(end, BackendError):
                assert end.__cause__ is None and end.__context__ is None, "it drags the request in"
                trace = traceback.TracebackException.from_exception(end, capture_locals=True)
                seen += [*traceback.format_exception(end), *trace.format()]
    assert sent == {f"Bearer {KEY}"}
    seen += [repr(server), str(vars(server)), caplog.text, *capfd.readouterr()]
    assert "HTTP" in caplog.text, "the libraries logged nothing, so this test shows nothing"
    assert "Bearer ***" in "".join(seen), "the server's words were to be shown, without the key"
    for text in seen:
        assert KEY not in text, f"the key can be read in {text[:200]!r}"


def test_the_environment_neither_redirects_nor_adds_to_what_is_sent(monkeypatch):
    proxy = "http://192.0.2.1:3128"
    for name, value in {
            "OPENAI_API_KEY": KEY, "OPENAI_ADMIN_KEY": KEY, "OPENAI_ORG_ID": "org-private",
            "OPENAI_BASE_URL": "http://192.0.2.1/v1", "OPENAI_PROJECT_ID": "proj-private",
            "OPENAI_CUSTOM_HEADERS": f"Authorization: Bearer {KEY}\nX-Private: 1\nHost: evil.org",
            "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as base_url:
        assert answer(Server(base_url, "m", tries=1))[1].text == TEXT, "loopback needs no proxy"
        headers = {name.lower(): value
                   for name, value in base_url.requests[0]["headers"].items()}
    assert headers["authorization"] == "Bearer not-needed"
    assert headers["host"] == base_url.split("/")[2]
    assert set(headers) <= module.SENT_HEADERS | {"host", "authorization"}, "more than is needed"


def test_other_hosts_are_reached_through_the_proxy_and_its_failing_is_named(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://user:{KEY}@127.0.0.1:{closed.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        fault = answer(Server("http://models.example/v1", "m", tries=1))[1]
    assert "proxy" in str(fault) and KEY not in str(fault), str(fault)


@pytest.mark.parametrize("scheme", ["nonsense", "socks", "socks5"])
def test_a_proxy_that_is_none_is_one_line_and_does_not_touch_this_computer(scheme, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"{scheme}://user:{KEY}@127.0.0.1:1")
    with pytest.raises(UserError, match="HTTPS_PROXY") as caught:
        Server("https://models.example/v1", "m")
    assert KEY not in str(caught.value)
    with serve() as base_url:
        assert answer(Server(base_url, "m"))[1].text == TEXT
