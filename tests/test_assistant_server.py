"""Exercise 4's client against a server that misbehaves: what the user reads, what is sent, and who sees the key."""

from __future__ import annotations

import logging
import socket
import sys
import time
import traceback
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from assistant import server as module
from assistant.backends import BackendError, Options
from assistant.server import Server, choose_key, parse_address
from misbehaving_server import ANSWERS, FAULTS, MODELS, WORDS, serve
from utils.runtime import UserError

KEY = "sk-SeCrEt-0123456789"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]
QUICK = {"timeout": 0.8, "limit": 0.5}  # where the waiting itself is tested
AFTER_WORDS = {"bad_json_event", "deep_json_event", "cut", "reset_midway", "stall", "error_event", "error_event_text"}

# What each fault's sentence must say: what happened, and what to do.
MEANING = {
    "refused": ("no server is running", "start it"),
    "dns": ("not known", "--base-url"),
    "reset": ("broke off", "try again"),
    "timeout": ("sent nothing for 0.8 s", "try again later"),
    "401": ("wants a key", "--key-env"),
    "403": ("refuses access", "Country not supported"),
    "404_model": ("no model 'wrong'", "--model", "good-model"),
    "404_path": ("nothing at this address", "--base-url"),
    "400_pinned": ("no model 'wrong'", "pinned to '/a'", "--model"),
    "413": ("longer than the context", "shorten"),
    "422": ("rejected the request", "wrong shape", "--model"),
    "429": ("too many requests", "try again in a minute"),
    "429_wait_90": ("too many requests", "try again in 90 s"),
    "429_wait_90_retry": ("too many requests", "try again in 90 s"),
    "quota": ("quota", "will not help", "add credit"),
    "500": ("failed inside (500)", "list index out of range", "try again later"),
    "502_html": ("failed inside (502)", "try again later"),
    "503_wait_900": ("(503)", "try again in 15 minutes"),
    "redirect": ("no longer the right address", "--base-url"),
    "html": ("web page", "--base-url", "log in"),
    "html_unmarked": ("empty answer", "--base-url"),
    "bad_json": ("unreadable", "--base-url"),
    "empty_object": ("no streamed answer", "--base-url"),
    "error_200": ("no streamed answer", "the GPU is on fire"),
    "null": ("no streamed answer", "--base-url"),
    "not_http": ("broke off", "--base-url"),
    "no_choices": ("empty answer", "try again"),
    "odd_shapes": ("empty answer", "try again"),
    "none_content": ("empty answer", "try again"),
    "empty": ("empty answer", "try again"),
    "empty_length": ("20 tokens", "--max-new-tokens"),
    "content_filter": ("content filter", "other words"),
    "filtered_question": ("content filter", "other words"),
    "bad_json_event": ("unreadable in the middle", "try again"),
    "deep_json_event": ("unreadable in the middle", "try again"),
    "cut": ("broke off in the middle", "try again"),
    "reset_midway": ("broke off in the middle", "try again"),
    "stall": ("stalled for 0.8 s", "try again"),
    "error_event": ("error in the middle", "out of memory", "try again"),
    "error_event_text": ("error in the middle", "out of memory", "try again"),
    "error_event_too_long": ("longer than the context", "/reset"),
    "comments_only": ("longer than 0.5 s", "--max-new-tokens"),
    "endless": ("longer than 0.5 s", "--max-new-tokens"),
    "too_long": ("longer than the context", "/reset"),
    "too_long_llama": ("longer than the context", "/reset"),
    "too_long_vllm": ("longer than the context", "/reset"),
    "no_temperature": ("temperature", "leave out --temperature"),
    "echo_key": ("rejected the request", "bad request with Bearer"),
}


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


def posts(base_url):
    return [request for request in base_url.requests if request["method"] == "POST"]


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
def patient(base_url):
    """A back end without retries that waits as long as a busy test machine needs."""
    return Server(base_url, "wrong", max_retries=0)


@pytest.fixture(scope="module")
def hasty(base_url):
    """For each fault that consists in waiting, the same with the limit that ends it."""
    silence = Server(base_url, "wrong", max_retries=0, timeout=QUICK["timeout"])
    length = Server(base_url, "wrong", max_retries=0, limit=QUICK["limit"])
    return {"timeout": silence, "stall": silence, "comments_only": length, "endless": length}


def behave(base_url, name):
    base_url.requests.clear()
    base_url.behaviour = name


# Faults


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_is_a_sentence_that_says_what_to_do_and_the_next_question_is_answered(
        name, base_url, patient, hasty):
    behave(base_url, name)
    pieces, fault = answer(hasty.get(name, patient), Options(20, temperature=0.7))
    assert isinstance(fault, BackendError), f"{name} ended as if it were an answer: {fault}"
    for meaning in MEANING[name]:
        assert meaning.lower() in str(fault).lower(), f"{name}: the sentence does not say {meaning!r}: {fault}"
    assert 20 < len(str(fault)) < 400 and str(fault).isprintable(), f"not one printable line: {str(fault)!r}"
    assert str(fault).endswith("."), f"no sentence: {fault}"
    assert fault.too_long == (name.startswith("too_long") or name in ("413", "error_event_too_long"))
    if name in AFTER_WORDS:
        assert pieces == WORDS[:2], "the text that came before the fault was not passed on"
    assert len(posts(base_url)) == 1, "max_retries=0, and yet it asked again"
    behave(base_url, "good")
    assert answer(patient)[0] == WORDS, f"after {name} the same back end no longer answers"


@pytest.mark.parametrize("name", ["refused", "dns"])
def test_no_server_at_all(name):
    with serve(name) as nowhere:
        server = Server(nowhere, "m", max_retries=0)
        fault = answer(server)[1]
        assert isinstance(fault, BackendError)
        assert all(meaning in str(fault).lower() for meaning in MEANING[name]), str(fault)


def test_a_server_that_was_not_running_answers_once_it_is_started():
    with serve("refused") as nowhere:
        server = Server(nowhere, "m", max_retries=0)
        assert isinstance(answer(server)[1], BackendError)
    with serve() as running:  # what started meanwhile; only the port differs
        server._client.base_url = str(running)
        assert answer(server)[0] == WORDS


def test_an_unreachable_certificate_or_a_server_without_https_is_named():
    with serve() as plain:
        fault = answer(Server(plain.replace("http://", "https://"), "m", max_retries=0))[1]
        assert "https" in str(fault) and "http://" in str(fault), str(fault)


def test_a_missing_v1_is_suspected():
    with serve("404_path", path="") as bare:
        assert "/v1" in str(answer(Server(bare, "m", max_retries=0))[1])


def test_every_fault_of_the_server_has_its_sentence():
    assert set(FAULTS) | {"refused", "dns"} == set(MEANING)


# Answers


@pytest.mark.parametrize(("name", "text", "finish"), [
    ("good", "".join(WORDS), "stop"), ("length", "Paris is", "length"), ("slow", "Paris is!", "stop"),
    ("filtered_midway", "Paris is", "content_filter"), ("unknown_finish", "Paris is", None),
    ("no_finish", "".join(WORDS), None), ("no_done", "Paris is", "stop"), ("closed_midway", "Paris is", None),
    ("surrogates", "a\U0001f600b\ufffdc", "stop"), ("odd_usage", "".join(WORDS), "stop"),
    ("text_usage", "".join(WORDS), "stop"), ("usage_last", "Paris is!", "stop"),
])
def test_answers_keep_their_text_and_say_how_they_ended(name, text, finish, base_url, patient):
    behave(base_url, name)
    pieces, reply = answer(patient)
    assert (reply.text, reply.finish_reason) == (text, finish)
    assert "".join(pieces) == text, "what was shown is not what is remembered"
    text.encode("utf-8")
    tokens = {"good": (11, 7, 0), "usage_last": (5, 3, 4)}.get(name, (None, None, 0))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reused_tokens) == tokens
    assert set(ANSWERS) >= {name}


@pytest.mark.parametrize(("name", "tries"), [("429_once", 2), ("500_once", 2), ("reset_once", 2), ("quota", 1),
                                             ("429_wait_90", 1), ("429_wait_90_retry", 1), ("401", 1), ("too_long", 1)])
def test_only_what_may_help_is_tried_again(name, tries):
    with serve(name) as base_url:
        begun = time.monotonic()
        end = answer(Server(base_url, "m"))[1]
        assert len(posts(base_url)) == tries
        assert isinstance(end, BackendError) == (tries == 1), end
        assert time.monotonic() - begun < 60, "it slept through a long Retry-After"


def test_a_stopped_answer_stops_the_server():
    with serve("endless") as base_url:
        running = Server(base_url, "m").stream(QUESTION, Options(20))
        assert [next(running), next(running)] == ["word ", "word "]
        assert not base_url.gone.is_set()
        running.close()
        assert base_url.gone.wait(10), "the generator was closed, and the server still generates"


# What is sent


def test_few_fields_are_sent(base_url, patient):
    behave(base_url, "good")
    answer(patient, Options(33, seed=7))
    answer(patient, Options(33, temperature=0.0, seed=7))
    answer(patient, Options(33, temperature=0.9, seed=7))
    plain = {"model": "wrong", "messages": QUESTION, "stream": True, "max_tokens": 33}
    assert [request["body"] for request in base_url.requests] == [
        plain, plain | {"temperature": 0.0}, plain | {"temperature": 0.9, "seed": 7}]


@pytest.mark.parametrize(("name", "first", "then"), [
    ("refuses_max_tokens", "max_tokens", "max_completion_tokens"),
    ("refuses_max_tokens_in_words", "max_tokens", "max_completion_tokens"), ("refuses_seed", "seed", None)])
def test_a_refused_field_is_renamed_or_left_out_once_and_for_all(name, first, then):
    with serve(name) as base_url:
        server, options = Server(base_url, "m", max_retries=0), Options(9, temperature=1.0, seed=7)
        assert answer(server, options)[0] == answer(server, options)[0] == WORDS
        bodies = [request["body"] for request in base_url.requests]
        assert [first in body for body in bodies] == [True, False, False], "it should learn, and remember"
        if then:
            assert bodies[1][then] == bodies[2][then] == 9


def test_lone_surrogates_are_sent_as_text_that_utf8_can_hold(base_url, patient):
    behave(base_url, "good")
    assert answer(patient, messages=[{"role": "user", "content": "a\ud83d\ude00 b\udc80"}])[0] == WORDS
    assert base_url.requests[0]["body"]["messages"][0]["content"] == "a\U0001f600 b\ufffd"


def test_the_token_count_is_an_estimate_that_grows_with_the_text():
    server = Server("http://127.0.0.1:1/v1", "m", context=4096)
    assert not server.exact and server.context == 4096 and server.where == "127.0.0.1:1" and server.name == "m"
    counts = [server.count_tokens([{"role": "user", "content": text}]) for text in ("", "hi", "hi there", "1234567890")]
    assert counts == [8, 9, 11, 18]
    assert server.count_tokens(QUESTION) > server.count_tokens(QUESTION[1:])
    assert server.count_tokens([{"role": "user", "content": "\U0001f600\ud83d"}]) == 8 + 4 + 3


# The key, and where it goes


@pytest.mark.parametrize(("url", "key_env", "expected"), [
    ("https://api.openai.com/v1", None, "for-openai"), ("https://API.OpenAI.com:443/v1", None, "for-openai"),
    ("https://api.openai.com.evil.example/v1", None, None), ("https://example.com/api.openai.com", None, None),
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

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Server("https://api.openai.com/v1", "m", ask_key=ask)
    assert not asked, "it asked where nobody can answer"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    Server("http://127.0.0.1:1/v1", "m", ask_key=ask)
    assert not asked, "a server of one's own needs no key"
    server = Server("https://api.openai.com/v1", "m", ask_key=ask)
    assert len(asked) == 1 and server._client.api_key == KEY

    def leave(prompt):
        raise EOFError

    with pytest.raises(UserError, match="needs a key"):
        Server("https://api.openai.com/v1", "m", ask_key=leave)


@pytest.mark.parametrize("url", [
    "", "localhost:8000", "127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http:///v1", "http://127.0.0.1:x/v1",
    "http://127.0.0.1:99999/v1", "http://127.0.0.1:0/v1", "http://[::1/v1", "http://a b/v1", "http://a\n.example/v1",
    "https://api.openai.com\\.evil.example/v1", "https://api.openai.com;evil.example", "http://b\u00fccher.example/v1",
    f"http://user:{KEY}@127.0.0.1/v1", f"https://api.openai.com@{KEY}.example/v1", f"https://example.com/v1?key={KEY}",
    f"https://example.com/v1#{KEY}", "http://127.0.0.1/v1/chat/completions",
])
def test_an_address_that_is_none_is_one_line_that_repeats_no_secret(url):
    with pytest.raises(UserError, match="--base-url") as caught:
        Server(url, "m")
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["", "  "])
def test_a_model_must_be_named(model):
    with pytest.raises(UserError, match="--model"):
        Server("http://127.0.0.1:1/v1", model)


def test_the_key_is_sent_and_nowhere_to_be_read(monkeypatch, caplog, capfd):
    """Not in texts, objects, logs or tracebacks, whatever the server does; some repeat the key in their error."""
    monkeypatch.setenv("COURSE_TEST_KEY", KEY)
    for name in ("openai", "httpx2", "httpcore2", "httpcore"):  # OPENAI_LOG=debug does this for the first
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    seen = []
    with serve() as base_url:
        server = Server(base_url, "wrong", "COURSE_TEST_KEY", max_retries=0, **QUICK)
        for name in ("good", "echo_key", "401", "403", "404_model", "reset", "timeout", "bad_json", "html", "endless",
                     "bad_json_event", "cut"):
            base_url.behaviour = name
            end = answer(server)[1]
            seen += [repr(end), str(end)]
            if isinstance(end, BackendError):
                assert end.__cause__ is None and end.__context__ is None, "it drags the request along, and its key"
                seen += traceback.format_exception(end)
                seen += traceback.TracebackException.from_exception(end, capture_locals=True).format()
        assert {request["headers"]["Authorization"] for request in base_url.requests} == {f"Bearer {KEY}"}
    seen += [repr(server), str(vars(server)), caplog.text, *capfd.readouterr()]
    assert "HTTP" in caplog.text, "the libraries logged nothing, so this test shows nothing"
    assert "Bearer ***" in "".join(seen), "the server's words were to be shown, without the key"
    for text in seen:
        assert KEY not in text, f"the key can be read in {text[:200]!r}"


def test_a_wrong_key_is_called_wrong(monkeypatch):
    monkeypatch.setenv("COURSE_TEST_KEY", KEY)
    with serve("401") as base_url:
        assert "does not accept the key" in str(answer(Server(base_url, "m", "COURSE_TEST_KEY", max_retries=0))[1])


def test_the_environment_neither_redirects_nor_adds_to_what_is_sent(monkeypatch):
    for name, value in {"OPENAI_API_KEY": KEY, "OPENAI_ADMIN_KEY": KEY, "OPENAI_BASE_URL": "http://192.0.2.1/v1",
                        "OPENAI_ORG_ID": "org-private", "OPENAI_PROJECT_ID": "proj-private",
                        "OPENAI_CUSTOM_HEADERS": f"Authorization: Bearer {KEY}\nX-Private: 1\nHost: evil.example",
                        "HTTP_PROXY": "http://192.0.2.1:3128", "HTTPS_PROXY": "http://192.0.2.1:3128",
                        "ALL_PROXY": "http://192.0.2.1:3128"}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serve() as base_url:
        assert answer(Server(base_url, "m", max_retries=0))[0] == WORDS, "a loopback server must not need a proxy"
        headers = {name.lower(): value for name, value in base_url.requests[0]["headers"].items()}
    assert headers["authorization"] == "Bearer not-needed"
    assert headers["host"] == base_url.split("/")[2]
    assert set(headers) <= module.SENT_HEADERS | {"host", "authorization"}, "more is sent than is needed"


def test_other_hosts_are_reached_through_the_proxy_and_its_failing_is_named(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://user:{KEY}@127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        fault = answer(Server("http://models.example/v1", "m", max_retries=0))[1]
    assert "proxy" in str(fault) and KEY not in str(fault), str(fault)


def test_a_proxy_that_is_none_is_one_line(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"nonsense://user:{KEY}@127.0.0.1:1")
    with pytest.raises(UserError, match="HTTPS_PROXY") as caught:
        Server("https://models.example/v1", "m")
    assert KEY not in str(caught.value)


def test_a_redirect_is_not_followed():
    with serve("redirect") as base_url:
        answer(Server(base_url, "m"))
        assert len(base_url.requests) == 1


def test_the_models_on_offer_are_listed_with_a_wrong_name(base_url, patient):
    behave(base_url, "404_model")
    assert all(name in str(answer(patient)[1]) for name in MODELS)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0.5", 0.5), ("", None), ("soon", None), ("-3", None),
                                                ("inf", None), ("nan", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)])
def test_retry_after_is_read_as_the_standard_says(value, seconds):
    assert module.retry_after({"retry-after": value}) == seconds


def test_retry_after_may_be_a_date():
    assert 25 < module.retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
