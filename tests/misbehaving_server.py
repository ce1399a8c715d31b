"""A chat server on 127.0.0.1 that answers well, oddly, or not at all, over real sockets.

    with serve("cut midway") as base_url:           # base_url is a str: http://127.0.0.1:PORT/v1
        base_url.requests                      # what came in: dicts with path, headers, body
        base_url.behaviour = "whole"           # from the next request on
        base_url.gone.wait(2)                  # set once a client has left before its answer's end

Each behaviour is named after its kind and stands beside what a client must make of it: in FAULTS
the words that its sentence must have, in ANSWERS the text and how it ended.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["Paris", " is", " the", " capital", "."]
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
MODELS = ["good-model", "other-model"]
LINGER = "hh" if sys.platform == "win32" else "ii"
PAGE = "<html><body><h1>Please log in</h1></body></html>"


class BaseUrl(str):
    """The address to give to a client, with what the server behind it knows."""

    behaviour: str
    requests: list[dict]
    gone: threading.Event  # a client went away while it was being answered
    over: threading.Event  # the `with` block has ended: stop waiting


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    base_url: BaseUrl

    def log_message(self, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": name} for name in MODELS]})

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.base_url.requests.append({"path": self.path, "headers": dict(self.headers.items()),
                                       "body": self.body})
        try:
            BEHAVIOURS[self.base_url.behaviour](self)
        except OSError:  # the client has closed the connection
            self.base_url.gone.set()
            self.close_connection = True

    def reply(self, status: int, body: object, kind: str = "application/json", **headers) -> None:
        """A whole answer: body as JSON, or as it is if it is text."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)),
                            **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None,
              **headers) -> None:
        """An error as OpenAI words it."""
        self.reply(status, {"error": {"message": message, "code": code, "param": param}}, **headers)

    def begin(self, *contents: object, kind: str | None = "text/event-stream") -> None:
        self.send_response(200)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for content in contents:
            self.chunk(content)

    def raw(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))

    def event(self, *data: object) -> None:
        for item in data:
            self.raw(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n")

    def chunk(self, content: object = None, finish_reason: str | None = None, usage: object = None,
              **delta) -> None:
        self.event({"choices": [{"index": 0, "delta": {"content": content, **delta},
                                 "finish_reason": finish_reason}], "usage": usage})

    def end(self, finish_reason: str | None = "stop", usage: object = None) -> None:
        if finish_reason:
            self.chunk(None, finish_reason, usage)
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def wait(self) -> None:
        """Stay silent until the client leaves, or the test ends."""
        self.connection.settimeout(0.05)
        while not self.base_url.over.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    raise ConnectionResetError

    def reset(self) -> None:
        """Close with RST instead of a proper end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(LINGER, 1, 0))
        self.connection.close()
        self.close_connection = True


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Clients that leave are part of the game; anything else is a fault in this file."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


Behaviour = Callable[[Handler], None]


def says(*contents: object, finish_reason: str | None = "stop", usage: object = None,
         kind: str | None = "text/event-stream") -> Behaviour:
    """A stream with these contents, and its end."""
    return lambda h: (h.begin(*contents, kind=kind), h.end(finish_reason, usage))


def error(status: int, message: str, *more, **headers) -> Behaviour:
    return lambda h: h.error(status, message, *more, **headers)


def reply(status: int, body: object, kind: str = "application/json", **headers) -> Behaviour:
    return lambda h: h.reply(status, body, kind, **headers)


def events(*data: object) -> Behaviour:
    """A stream of just these events."""
    return lambda h: (h.begin(), h.event(*data), h.end(None))


def midway(last: Behaviour) -> Behaviour:
    return lambda h: (h.begin(*WORDS[:2]), last(h))


def once(fault: Behaviour) -> Behaviour:
    """The fault for the first request, then good answers."""
    return lambda h: (fault if len(h.base_url.requests) == 1 else good)(h)


def refusing(field: str, message: str, status: int = 400, param: bool = False) -> Behaviour:
    """An error while `field` is in the request, then good answers."""
    return lambda h: (h.error(status, message, None, field if param else None)
                      if h.body.get(field) else good(h))


def whole(message: object, finish_reason: str = "stop") -> Behaviour:
    """One answer in one piece, whatever was asked for."""
    return reply(200, {"object": "chat.completion", "usage": USAGE, "choices": [
        {"index": 0, "message": {"role": "assistant", "content": message},
         "finish_reason": finish_reason}]})


def part(kind: str, text: object) -> list[dict]:
    return [{"type": kind, kind: text}]


def cut(h: Handler) -> None:
    h.wfile.write(b"40\r\ndata: {\"choi")  # a chunk of 64 bytes that never comes
    h.close_connection = True


def endless(h: Handler) -> None:
    h.begin()
    while not h.base_url.over.wait(0.01):
        h.chunk("word ")


good = says("", *WORDS, usage=USAGE)
CONTEXT = "This model's maximum context length is 64 tokens. However, "
LLAMA = 'error: {"code":500,"message":"failed to decode"}\n\n'

# After these nothing may enter a history. The sentence must contain all of these words.
FAULTS: dict[str, tuple[Behaviour, str]] = {
    # statuses
    "key missing or wrong": (error(401, "Incorrect API key provided"), "key|--key-env"),
    "access refused": (error(403, "Country not supported"), "refuses access|Country not supported"),
    "model unknown": (error(404, "The model `m` does not exist"),
                      "no model 'm'|--model|good-model"),
    "model pinned": (reply(400, {"detail": "Server is pinned to '/a'; requested 'm'."}),
                     "no model 'm'|pinned to '/a'|--model"),
    "path unknown": (reply(404, {"detail": "Not Found"}), "nothing at this address|--base-url"),
    "path unknown, dressed as 200": (reply(200, {"error": "Unexpected endpoint or method. (POST)"}),
                                     "Unexpected endpoint|--base-url"),
    "shape refused": (reply(422, {"detail": [{"loc": ["body"], "msg": "wrong shape"}]}),
                      "rejected the request|wrong shape|--model"),
    "system role refused": (error(400, "System role not supported"), "System role not supported"),
    "rate limit": (error(429, "Rate limit reached"), "too many requests|in a moment"),
    "rate limit with a long wait": (error(429, "Slow down", Retry_After="90"), "in 90 s"),
    "quota": (error(429, "You exceeded your current quota", "insufficient_quota"),
              "quota|will not help|add credit"),
    "failure inside": (error(500, "list index out of range"),
                       "failed inside (500)|list index out of range|try again"),
    "failure with a page": (reply(502, PAGE, "text/html"), "failed inside (502)|try again"),
    "still loading": (error(503, "Loading model"), "still loading its model after 0.8 s|--timeout"),
    "redirect": (reply(301, "", Location="https://example.com/v1"), "points elsewhere|--base-url"),
    "question filtered": (error(400, "triggering content management policy"), "content filter"),
    "temperature refused": (error(400, "Unsupported value: 'temperature' does not support 0.7",
                                  None, "temperature"), "leave out --temperature"),
    "key repeated": (lambda h: h.error(400, f"bad {h.headers['Authorization']} \x1b[31m\r\nin it"),
                     "rejected the request|bad Bearer"),
    # the context
    "too large": (reply(413, "too large", "text/plain"), "longer than the context|shorten"),
    "too long": (error(400, CONTEXT + "your messages resulted in 99 tokens."),
                 "longer than the context|shorten|/reset"),
    "too long, llama.cpp": (error(400, "request (99 tokens) exceeds the available context size"),
                            "longer than the context|/reset"),
    "too long, in an event": (events({"error": {"message": CONTEXT}}), "longer than the context"),
    "too long with its answer": (error(400, CONTEXT + "you requested 65 tokens (45 in the messages,"
                                       " 20 in the completion)."), "20 tokens|--max-new-tokens"),
    "too long an answer": (error(400, "'max_tokens' is too large: 20. This model's maximum context "
                                 "length is 8 tokens"), "--max-new-tokens"),
    # connections
    "reset": (Handler.reset, "failed instead of|try again"),
    "silence": (Handler.wait, "nothing for 0.8 s|--timeout"),
    "no http": (lambda h: (h.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), h.reset()), "--base-url"),
    "cut midway": (midway(cut), "failed in the middle|try again"),
    "reset midway": (midway(Handler.reset), "failed in the middle|try again"),
    "silence midway": (midway(Handler.wait), "0.8 s in the middle"),
    # what is no answer
    "page": (reply(200, PAGE, "text/html"), "web page|--base-url|log in"),
    "page without a label": (reply(200, PAGE, "application/octet-stream"), "web page"),
    "error as 200": (reply(200, {"error": {"message": "the GPU is on fire"}}), "GPU is on fire"),
    "broken JSON": (reply(200, '{"choices": [{'), "unreadable|--base-url"),
    "broken JSON midway": (midway(lambda h: (h.event('{"choices": ['), h.end())), "unreadable in"),
    "deep JSON midway": (midway(lambda h: (h.event("[" * 100_000), h.end())), "unreadable in"),
    "null": (reply(200, "null"), "no answer|--base-url"),
    "nothing": (reply(200, ""), "empty answer"),
    "error event midway": (midway(lambda h: (h.event({"error": {"message": "no memory"}}),
                                             h.end())), "error in the middle|no memory|try again"),
    "error field": (lambda h: (h.begin(), h.raw(LLAMA), h.end(None)), "failed to decode"),
    "error field midway": (midway(lambda h: (h.raw(LLAMA), h.end(None))), "failed to decode"),
    "odd shapes": (events([], "1", "null", '"x"', {}, {"choices": {"a": 1}}, {"choices": [None]},
                          {"choices": ["x"]}, {"choices": [{"delta": None}]},
                          {"choices": [{"delta": {"content": ["x", {}, None]}}]}), "empty answer"),
    # answers without a word
    "blank": (says("", "\n"), "empty answer|try again"),
    "blank at the limit": (says("", finish_reason="length"), "20 tokens|--max-new-tokens"),
    "answer filtered": (says("", finish_reason="content_filter"), "content filter|other words"),
    "thoughts only": (says("<th", "ink>\nLong", finish_reason="length"), "20 tokens|--max-new"),
    "thoughts only, beside the content": (
        lambda h: (h.begin(), h.chunk(None, reasoning_content="hm"), h.end("length")), "20 tokens"),
    "refusal": (lambda h: (h.begin(), h.chunk(None, refusal="I cannot "), h.chunk(refusal="help."),
                           h.end()), "declined to answer|I cannot help"),
    "tool call": (lambda h: (h.begin(), h.chunk(None, tool_calls=[
        {"index": 0, "function": {"name": "search", "arguments": "{}"}}]), h.end("tool_calls")),
        "tool|search"),
}

# These end in an answer: its text, and its finish_reason.
ANSWERS: dict[str, tuple[Behaviour, str, str | None]] = {
    "good": (good, TEXT, "stop"),
    "length": (says(*WORDS[:2], finish_reason="length"), "Paris is", "length"),
    "filtered midway": (says(*WORDS[:2], finish_reason="content_filter"), "Paris is",
                        "content_filter"),
    **{f"ended by {reason}": (says("Paris", finish_reason=reason), "Paris", "stop")
       for reason in ("eos", "eos_token", "end_turn", "stop_sequence", "STOP")},
    "ended by max_tokens": (says("Paris", finish_reason="max_tokens"), "Paris", "length"),
    "unknown end": (says(*WORDS[:2], finish_reason="abort"), "Paris is", None),
    "no end": (says(*WORDS, finish_reason=None), TEXT, None),
    "no [DONE]": (midway(lambda h: (h.chunk("!", "stop"), h.wfile.write(b"0\r\n\r\n"))),
                  "Paris is!", "stop"),
    "no space, no line feed": (lambda h: (h.begin(), h.raw(
        'data:{"choices":[{"delta":{"content":"Paris"},"finish_reason":"stop"}]}\r\n\r\n'
        "data:[DONE]"), h.wfile.write(b"0\r\n\r\n")), "Paris", "stop"),
    "comments": (lambda h: (h.begin(), h.raw(": PROCESSING\n\n"), h.chunk("Paris"), h.end()),
                 "Paris", "stop"),
    "slow": (midway(lambda h: (time.sleep(0.3), h.chunk("!"), h.end())), "Paris is!", "stop"),
    "labelled JSON": (says(*WORDS, kind="application/json"), TEXT, "stop"),
    "labelled text": (says(*WORDS, kind="text/plain; charset=utf-8"), TEXT, "stop"),
    "no label": (says(*WORDS, kind=None), TEXT, "stop"),
    "whole": (whole("Paris"), "Paris", "stop"),
    "whole with thoughts": (whole("<think>7?</think>Paris"), "Paris", "stop"),
    "whole in parts": (whole(part("thinking", part("text", "7?")) + part("text", "Paris")),
                       "Paris", "stop"),
    "stream refused": (lambda h: (h.error(400, "Your organization must be verified to stream this "
                                          "model.", "unsupported_value", "stream")
                                  if h.body.get("stream") else whole("Paris")(h)), "Paris", "stop"),
    "stream refused, and a page": (lambda h: (h.error(400, "stream is not supported") if
                                              h.body.get("stream") else
                                              reply(200, json.dumps({"choices": [{"message": {
                                                  "content": "Paris"}}]}), "text/plain")(h)),
                                   "Paris", None),
    "thoughts": (says("<think>", "\n7 or 9?\n", "</think>", "\n\n", "Paris"), "Paris", "stop"),
    "thoughts, cut": (says("<th", "ink>7?</th", "ink>", "Pa", "ris"), "Paris", "stop"),
    "thoughts in a field": (lambda h: (h.begin(), h.chunk(None, reasoning_content="7?"),
                                       h.chunk("Paris"), h.end()), "Paris", "stop"),
    "thoughts in parts": (says(part("thinking", part("text", "7?")), part("text", "Pa"),
                               part("text", "ris"), ""), "Paris", "stop"),
    "chunks without choices": (lambda h: (h.begin(), h.event({"choices": []}), h.chunk("Paris"),
                                          h.end(), ), "Paris", "stop"),
    "odd usage": (says("Paris", usage={"prompt_tokens": "many", "completion_tokens": -3}), "Paris",
                  "stop"),
    "text as usage": (says("Paris", usage="a lot"), "Paris", "stop"),
    "half a character": (says("a\ud83d", "b"), "a\ufffdb", "stop"),
    "rate limit once": (once(error(429, "Rate limit reached", Retry_After="1")), TEXT, "stop"),
    "failure once": (once(error(500, "a bad moment")), TEXT, "stop"),
    "reset once": (once(Handler.reset), TEXT, "stop"),
    "loading for a while": (lambda h: (h.error(503, "Loading model") if len(h.base_url.requests) < 5
                                       else good(h)), TEXT, "stop"),
    "max_tokens refused": (refusing("max_tokens", "Unsupported parameter: 'max_tokens'",
                                    param=True), TEXT, "stop"),
    "max_tokens refused in words": (refusing("max_tokens", "max_tokens is not supported, use "
                                             "max_completion_tokens"), TEXT, "stop"),
    "seed refused": (refusing("seed", "seed: Extra inputs are not permitted", 422), TEXT, "stop"),
    "our temperature refused": (refusing("temperature", "Unsupported value: 'temperature' does not "
                                         "support 0.7 with this model.", param=True), TEXT, "stop"),
    "stream_options refused": (refusing("stream_options", "unknown field stream_options"), TEXT,
                               "stop"),
}
BEHAVIOURS = {name: row[0] for name, row in {**FAULTS, **ANSWERS}.items()} | {
    "endless": endless, "thoughts that nobody opened": says("7 or 9?\n", "</think>\n", "Paris")}


@contextlib.contextmanager
def serve(behaviour: str = "good", path: str = "/v1") -> Iterator[BaseUrl]:
    """Run the server, give its address; "refused" is a closed port, "dns" a host that is none."""
    server = QuietServer(("127.0.0.1", 0), Handler)
    host = "no-such-host.invalid" if behaviour == "dns" else f"127.0.0.1:{server.server_port}"
    base_url = BaseUrl(f"http://{host}{path}")
    base_url.behaviour, base_url.requests = behaviour, []
    base_url.gone, base_url.over = threading.Event(), threading.Event()
    server.RequestHandlerClass = type("BoundHandler", (Handler,), {"base_url": base_url})
    if behaviour in ("refused", "dns"):
        server.server_close()
        yield base_url
        return
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield base_url
    finally:
        base_url.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
