"""A chat server on 127.0.0.1 that answers well or fails in one named way, over real sockets.

    with serve("stall") as base_url:           # base_url is a str: http://127.0.0.1:PORT/v1
        ...
        base_url.requests                      # what came in: dicts with method, path, headers, body
        base_url.behaviour = "good"            # from the next request on
        base_url.gone.wait(2)                  # set once a client has left before its answer's end

`FAULTS` are all behaviours after which no answer must enter a history; `serve` knows also "refused" and "dns", where no
server is reached at all. A behaviour answers POST; GET /v1/models lists MODELS, unless it is "404_path".
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

WORDS = ["Paris", " is", " the", " capital", " of", " France", "."]
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
        self.note(None)
        if self.path.endswith("/v1/models") and self.base_url.behaviour != "404_path":
            self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        self.note(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        try:
            BEHAVIOURS[self.base_url.behaviour](self)
        except OSError:  # the client has closed the connection
            self.base_url.gone.set()
            self.close_connection = True

    def note(self, body: bytes | None) -> None:
        self.base_url.requests.append({"method": self.command, "path": self.path, "headers": dict(self.headers.items()),
                                       "body": json.loads(body) if body else None})

    def posts(self) -> int:
        return sum(request["method"] == "POST" for request in self.base_url.requests)

    # Ways to answer

    def reply(self, status: int, body: object, kind: str = "application/json", **headers: str) -> None:
        """A whole answer: body as JSON, or as it is if it is text."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None, **headers) -> None:
        """An error as OpenAI words it."""
        self.reply(status, {"error": {"message": message, "type": "error", "code": code, "param": param}}, **headers)

    def open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, data: object) -> None:
        self.send(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    def chunk(self, content: object = None, finish_reason: str | None = None, **more) -> None:
        self.event({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
            {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}], **more})

    def end(self, done: bool = True) -> None:
        if done:
            self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def stream(self, *pieces: object, finish_reason: str | None = "stop", **more) -> None:
        self.open_stream()
        for piece in pieces:
            self.chunk(piece)
        self.chunk(None, finish_reason, **more)
        self.end()

    def begin(self) -> None:
        """The first two words of an answer."""
        self.open_stream()
        for word in WORDS[:2]:
            self.chunk(word)

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


# Behaviours


def good(handler: Handler) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": len(WORDS), "total_tokens": 18}
    handler.stream("", *WORDS, usage=usage)


def endless(handler: Handler) -> None:
    handler.open_stream()
    while not handler.base_url.over.wait(0.01):
        handler.chunk("word ")


def comments_only(handler: Handler) -> None:
    handler.open_stream()
    while not handler.base_url.over.wait(0.02):
        handler.send(": still working\n\n")


def once(fault: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """The fault for the first POST, then good answers."""
    return lambda handler: fault(handler) if handler.posts() == 1 else good(handler)


def cut(handler: Handler) -> None:
    handler.begin()
    handler.wfile.write(b"40\r\ndata: {\"choi")  # a chunk of 64 bytes that never comes
    handler.close_connection = True


def closed_midway(handler: Handler) -> None:
    """HTTP/1.0 style: the end of the connection is the end of the answer, so a crash looks like an end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()
    for word in WORDS[:2]:
        handler.wfile.write(f'data: {json.dumps({"choices": [{"index": 0, "delta": {"content": word}}]})}\n\n'.encode())
    handler.close_connection = True


def after_words(last: Callable[[Handler], None]) -> Callable[[Handler], None]:
    def behaviour(handler: Handler) -> None:
        handler.begin()
        last(handler)
    return behaviour


def events(*data: object) -> Callable[[Handler], None]:
    """A stream of just these events."""
    def behaviour(handler: Handler) -> None:
        handler.open_stream()
        for item in data:
            handler.event(item)
        handler.end()
    return behaviour


def refusing(field: str, code: str | None, status: int = 400) -> Callable[[Handler], None]:
    """An error while `field` is in the request, then good answers."""
    def behaviour(handler: Handler) -> None:
        if field in handler.base_url.requests[-1]["body"]:
            handler.error(status, f"Unsupported parameter: '{field}' is not supported with this model. "
                          "Use 'max_completion_tokens' instead.", code, field if code else None)
        else:
            good(handler)
    return behaviour


def echo_key(handler: Handler) -> None:
    """Servers that repeat the key in their error message exist."""
    handler.error(400, f"bad request with {handler.headers['Authorization']} \x1b[31m\r\nin it")


# Nothing must enter a history after these.
FAULTS: dict[str, Callable[[Handler], None]] = {
    "reset": Handler.reset,
    "timeout": Handler.wait,
    "401": lambda h: h.error(401, f"Incorrect API key provided: {h.headers['Authorization']}", "invalid_api_key"),
    "403": lambda h: h.error(403, "Country not supported", "unsupported_country"),
    "404_model": lambda h: h.error(404, "The model `wrong` does not exist", "model_not_found"),
    "404_path": lambda h: h.reply(404, {"detail": "Not Found"}),
    "400_pinned": lambda h: h.reply(400, {"detail": "Server is pinned to '/a'; requested 'wrong'."}),
    "413": lambda h: h.reply(413, "too large", "text/plain"),
    "422": lambda h: h.reply(422, {"detail": [{"loc": ["body", "messages"], "msg": "wrong shape"}]}),
    "429": lambda h: h.error(429, "Rate limit reached", "rate_limit_exceeded"),
    "429_wait_90": lambda h: h.error(429, "Rate limit reached", "rate_limit_exceeded", Retry_After="90"),
    "429_wait_90_retry": lambda h: h.error(429, "Slow down", None, Retry_After="90", x_should_retry="true"),
    "quota": lambda h: h.error(429, "You exceeded your current quota", "insufficient_quota"),
    "500": lambda h: h.error(500, "list index out of range"),
    "502_html": lambda h: h.reply(502, PAGE, "text/html"),
    "503_wait_900": lambda h: h.error(503, "Loading model", None, Retry_After="900"),
    "redirect": lambda h: h.reply(301, "", "text/plain", Location="https://example.com/v1/chat/completions"),
    "html": lambda h: h.reply(200, PAGE, "text/html; charset=utf-8"),
    "html_unmarked": lambda h: h.reply(200, PAGE, "application/octet-stream"),
    "bad_json": lambda h: h.reply(200, '{"choices": [{'),
    "empty_object": lambda h: h.reply(200, {}),
    "error_200": lambda h: h.reply(200, {"error": {"message": "the GPU is on fire"}}),
    "null": lambda h: h.reply(200, "null"),
    "not_http": lambda h: h.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n") and h.reset(),
    "no_choices": events({"choices": []}, {"choices": None}, {}),
    "odd_shapes": events([], "1", "null", '"x"', {"choices": {"a": 1}}, {"choices": [None, 1]}, {"choices": ["x"]},
                         {"choices": [{"delta": None}]}, {"choices": [{"delta": {"content": ["x", {}]}}]}),
    "none_content": lambda h: h.stream(None, None),
    "empty": lambda h: h.stream("", "\n"),
    "empty_length": lambda h: h.stream("", finish_reason="length"),
    "content_filter": lambda h: h.stream("", finish_reason="content_filter"),
    "filtered_question": lambda h: h.error(400, "triggering content management policy", "content_filter"),
    "bad_json_event": after_words(lambda h: (h.event('{"choices": [{"del'), h.end())),
    "deep_json_event": after_words(lambda h: (h.event('{"choices":' + "[" * 100_000), h.end())),
    "cut": cut,
    "reset_midway": after_words(Handler.reset),
    "stall": after_words(Handler.wait),
    "error_event": after_words(lambda h: (h.event({"error": {"message": "out of memory"}}), h.end())),
    "error_event_text": after_words(lambda h: (h.event({"error": "out of memory"}), h.end())),
    "error_event_too_long": events({"error": {"message": "too long", "code": "context_length_exceeded"}}),
    "comments_only": comments_only,
    "endless": endless,
    "too_long": lambda h: h.error(400, "This model's maximum context length is 64 tokens. However, your messages "
                                  "resulted in 99 tokens.", "context_length_exceeded"),
    "too_long_llama": lambda h: h.error(400, "the request exceeds the available context size, try increasing it"),
    "too_long_vllm": lambda h: h.reply(400, {"message": "'max_tokens' is too large: 9. This model's maximum context "
                                             "length is 8 tokens"}),
    "no_temperature": lambda h: h.error(400, "Unsupported value: 'temperature' does not support 0.7 with this model.",
                                        "unsupported_value", "temperature"),
    "echo_key": echo_key,
}
# These end in an answer, whole or marked.
ANSWERS: dict[str, Callable[[Handler], None]] = {
    "good": good,
    "length": lambda h: h.stream(*WORDS[:2], finish_reason="length"),
    "filtered_midway": lambda h: h.stream(*WORDS[:2], finish_reason="content_filter"),
    "unknown_finish": lambda h: h.stream(*WORDS[:2], finish_reason="abort"),
    "no_finish": lambda h: h.stream(*WORDS, finish_reason=None),
    "no_done": after_words(lambda h: (h.chunk(None, "stop"), h.end(done=False))),
    "closed_midway": closed_midway,
    "usage_last": after_words(lambda h: (h.chunk("!", "stop"), h.event(
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {
            "cached_tokens": 4}}}), h.end())),
    "odd_usage": lambda h: h.stream(*WORDS, usage={"prompt_tokens": "many", "completion_tokens": -3}),
    "text_usage": lambda h: h.stream(*WORDS, usage="a lot"),
    "surrogates": lambda h: h.stream("a\ud83d", "\ude00b\ud83dc", "\ud83d"),
    "slow": after_words(lambda h: (time.sleep(0.3), h.chunk("!", "stop"), h.end())),
    "429_once": once(lambda h: h.error(429, "Rate limit reached", None, Retry_After="1")),
    "500_once": once(lambda h: h.error(500, "a bad moment")),
    "reset_once": once(Handler.reset),
    "refuses_max_tokens": refusing("max_tokens", "unsupported_parameter"),
    "refuses_max_tokens_in_words": refusing("max_tokens", None),
    "refuses_seed": refusing("seed", None, 422),
}
BEHAVIOURS = FAULTS | ANSWERS


@contextlib.contextmanager
def serve(behaviour: str = "good", path: str = "/v1") -> Iterator[BaseUrl]:
    """Run the server and give its address; "refused" is a closed port, "dns" a host that does not exist."""
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
