"""Answers from an OpenAI-compatible server: OpenAI, Ollama, vLLM, llama.cpp's server, `transformers serve`.

Only chat.completions is used, streamed, which all of them have. Every fault ends here as one BackendError whose text
says what happened and what to do. The key leaves this file in one header, to one host, and in nothing else.
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import json
import math
import os
import re
import socket
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from assistant.backends import BackendError, Message, Options, Reply, well_formed
from utils.reporting import printable
from utils.runtime import UserError

OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"
CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 10.0  # a longer Retry-After is told to the user, not slept through
SENT_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"}
TOO_LONG = re.compile(r"context[ _](size|length|window)|too many tokens|prompt is too long", re.I)
NO_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing_hard_limit", re.I)
FILTERED = re.compile(r"content[ _](filter|policy|management)", re.I)
NO_MODEL = re.compile(r"(invalid|unknown|no such) model|model.*not (found|exist|available)|pinned to", re.I)
REFUSED = re.compile(r"unsupported|not supported|unrecognized|unknown|unexpected|extra|not permitted", re.I)


# The address and the key


def parse_address(base_url: str) -> SplitResult:
    """The parts of --base-url. Raises UserError, which never repeats the address: it may hold a password."""
    try:
        parts = urlsplit(base_url.strip())
        if "@" in parts.netloc:
            raise UserError("--base-url: leave out user:password@; name the variable that holds the key with --key-env")
        # A plain host only, so that no two parsers can disagree about which it is.
        usable = (parts.scheme in ("http", "https") and re.fullmatch(r"[a-z0-9._:-]+", parts.hostname or "", re.A)
                  and parts.port != 0 and re.fullmatch(r"[!-~]+", base_url.strip()))
    except ValueError:  # the port is no number, or an IPv6 address lacks its bracket
        usable = False
    if not usable:
        raise UserError("--base-url: not an address of a server; write it like http://127.0.0.1:8000/v1")
    if "?" in base_url or "#" in base_url:
        raise UserError("--base-url: leave out what follows ? or #; a key belongs into a variable (--key-env)")
    if parts.path.rstrip("/").endswith("/completions"):
        raise UserError("--base-url: end the address before /chat/completions, usually with /v1")
    return parts


def is_loopback(host: str) -> bool:
    """Whether the host is this computer: localhost, 127.*, ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_key(address: SplitResult, environment: Mapping[str, str], key_env: str | None = None,
               ask: Callable[[str], str] | None = None) -> str | None:
    """The key for a server, or None for none. Raises UserError.

    key_env: the variable that the user named for this server. Without it only OpenAI's own host gets a key: that in
    OPENAI_API_KEY, or what `ask` (a hidden prompt, or None where nobody can answer) returns. So a key that lies in
    the environment for OpenAI is never sent to anyone else.
    """
    variable = key_env or (OPENAI_KEY if address.hostname == OPENAI_HOST else None)
    if variable is None:
        return None
    if address.scheme == "http" and not is_loopback(address.hostname):
        raise UserError("--base-url: a key is sent over http:// to this computer only; use https://")
    key, source = environment.get(variable, "").strip(), "the key in the environment variable"
    if not key and key_env:  # its name is not repeated: some people type the key here
        raise UserError("--key-env: the environment has no such variable, or it is empty; name the one that holds "
                        "the server's key")
    if not key and ask:
        try:
            key, source = ask(f"Key for {OPENAI_HOST} (it is not shown): ").strip(), "the key"
        except EOFError:  # Ctrl-D
            pass
    if not key:
        raise UserError(f"{OPENAI_HOST} needs a key: put it into the environment variable {OPENAI_KEY}")
    if not all("!" <= character <= "~" for character in key):
        raise UserError(f"{source} has a space or another character that no key has: copy it again")
    return key


# What is sent


def parameters(options: Options, refused: set[str]) -> dict[str, object]:
    """The options as fields of a request: few, because many servers reject (or ignore) what they do not know.

    refused: fields that this server has refused. OpenAI's reasoning models refuse max_tokens and want
    max_completion_tokens, which older servers ignore. The seed goes only along with a temperature above 0, where it
    does something, and is left out where it is refused: it makes runs repeatable, no answer depends on it.
    """
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    fields: dict[str, object] = {limit: options.max_new_tokens}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
        if options.temperature > 0 and options.seed is not None and "seed" not in refused:
            fields["seed"] = options.seed
    return fields


def estimate_tokens(text: str) -> int:
    """Tokens in a text, estimated to the safe side: 3 ASCII letters or spaces make one, and so does any other byte.

    By SmolLM2's tokenizer, whose vocabulary is small and English, this is 1.6 times the truth for English and for
    Python, 1.0 for digits, 1.5 for Chinese, 0.9 for Dutch (a plain third of the bytes: 1.4, 1.3, 0.3, 0.5, 0.8).
    """
    cheap = sum(character.isascii() and (character.isalpha() or character.isspace()) for character in text)
    return math.ceil(cheap / 3) + len(well_formed(text).encode()) - cheap


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the Retry-After header (a number or a date, RFC 9110), None if it says nothing usable."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def make_client(address: SplitResult, key: str | None, timeout: float, max_retries: int):
    """The openai client for one server, deaf to what the environment says about other servers."""
    import httpx2
    import openai

    kept = SENT_HEADERS | ({"openai-organization", "openai-project"} if address.hostname == OPENAI_HOST else set())

    def send_no_more(request) -> None:
        """OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS and so on put headers into every request: only ours are sent."""
        for name in set(request.headers) - kept:
            del request.headers[name]
        request.headers["Host"] = request.url.netloc.decode("ascii")
        request.headers["Authorization"] = f"Bearer {key or 'not-needed'}"  # the client demands a key; most ignore it

    def try_in_vain_no_more(response) -> None:
        """The client retries by itself; tell it where that is pointless, or a longer silence than people bear."""
        if (retry_after(response.headers) or 0) > PATIENCE_SECONDS or (
                response.status_code == 429 and NO_QUOTA.search(response.read().decode("utf-8", "replace"))):
            response.headers["x-should-retry"] = "false"

    try:
        http = openai.DefaultHttpxClient(  # no proxy to this computer; no redirect to where nobody sent the key
            trust_env=not is_loopback(address.hostname), follow_redirects=False,
            event_hooks={"request": [send_no_more], "response": [try_in_vain_no_more]})
    except (ValueError, ImportError, OSError):
        raise UserError("the network settings in the environment (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) cannot be "
                        "used: correct or unset them") from None
    return openai.OpenAI(api_key=key or "not-needed", base_url=address.geturl(), max_retries=max_retries,
                         timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)), http_client=http)


# The back end


class Server:
    """A model behind an OpenAI-compatible server. Raises UserError for an address or a key that cannot be used.

    ask_key: a hidden prompt such as getpass.getpass, called only at a terminal. timeout: seconds of silence. limit:
    seconds that one answer may take in all. A try that failed is repeated max_retries times, by the client alone.
    """

    exact = False

    def __init__(self, base_url: str, model: str, key_env: str | None = None,
                 ask_key: Callable[[str], str] | None = None, context: int | None = None, *,
                 timeout: float = 60.0, limit: float = 300.0, max_retries: int = 2) -> None:
        if not model or not model.strip():
            raise UserError("--model: name the model that the server shall use")
        self._address = parse_address(base_url)
        terminal = sys.stdin is not None and sys.stdin.isatty()
        key = choose_key(self._address, os.environ, key_env, ask_key if terminal else None)
        self.name, self.where, self.context = well_formed(model.strip()), self._address.netloc, context
        self._timeout, self._limit = timeout, limit
        self._model = repr(printable(self.name))  # as sentences name it
        self._client = make_client(self._address, key, timeout, max_retries)
        self._has_key, self._hide = key is not None, lambda text: text.replace(key, "***") if key else text
        self._refused: set[str] = set()  # fields that this server refuses, see `parameters`

    def __repr__(self) -> str:
        return f"Server({self.name!r} at {self.where})"

    def count_tokens(self, messages: list[Message]) -> int:
        """An estimate, as only the server has the tokenizer: `estimate_tokens` of each, 5 for the role, 3 to begin."""
        return 3 + sum(5 + estimate_tokens(message["content"]) for message in messages)

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        """Yield the answer in pieces, return the Reply. Raises BackendError, also after some pieces."""
        import httpx2
        import openai

        deadline = time.monotonic() + self._limit
        # held: half of a character whose other half comes with the next chunk, or never, and then is dropped
        text, held, finish_reason, usage, chunks, fault = "", "", None, None, None, None
        try:
            chunks = self._open(messages, options)
            self._check_stream(chunks.response, deadline)
            for chunk in chunks:
                piece, reason = read_chunk(chunk)
                finish_reason, usage = reason or finish_reason, getattr(chunk, "usage", None) or usage
                piece, held = held + piece, ""
                if piece and "\ud800" <= piece[-1] <= "\udbff":
                    piece, held = piece[:-1], piece[-1]
                if piece:
                    piece = well_formed(piece)
                    text += piece
                    yield piece
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError, ValueError,
                RecursionError) as error:  # the last two: what is no JSON, or thousands of brackets deep
            fault = self._explain(error, begun=bool(text))
        finally:
            if chunks is not None:
                with contextlib.suppress(httpx2.HTTPError, OSError):
                    chunks.close()  # the server notices, and stops
        if fault is None and not text.strip():
            fault = self._nothing(finish_reason, options)
        if fault is not None:
            raise fault  # out here it has no context: the errors above hold the request, and that the key
        return Reply(text, finish_reason, count(usage, "prompt_tokens"), count(usage, "completion_tokens"),
                     count(getattr(usage, "prompt_tokens_details", None), "cached_tokens") or 0)

    def _open(self, messages: list[Message], options: Options):
        """Send the request. A field that the server refuses by name is renamed or left out, and not sent again."""
        import openai

        clean = [{"role": message["role"], "content": well_formed(message["content"])} for message in messages]
        while True:
            fields = parameters(options, self._refused)
            try:
                return self._client.chat.completions.create(model=self.name, messages=clean, stream=True, **fields)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = refused_field(error, fields)
                if name not in ("max_tokens", "seed"):  # each leaves `fields` for good, so this ends
                    raise
                self._refused.add(name)

    def _check_stream(self, response, deadline: float) -> None:
        """Let the stream end at the deadline; raise BackendError if it is none (the client would see an empty one)."""
        response.stream = watched(response.stream, deadline, BackendError(
            f"The answer from {self.where} took longer than {self._limit:g} s and was given up: try again, or ask for "
            "a shorter one with --max-new-tokens."))
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise BackendError(f"{self.where} sent a web page instead of an answer: check --base-url{self._v1_hint()}, "
                               "and whether this network wants you to log in first.")
        if "json" in kind:
            body = json.loads(b"".join(first_bytes(response.iter_bytes(), 100_000)))
            said = self._quote(body)
            raise BackendError(f"{self.where} sent no streamed answer{said or '.'} Check that --base-url is the "
                               "address of an OpenAI-compatible server.")

    def _nothing(self, finish_reason: str | None, options: Options) -> BackendError:
        if finish_reason == "content_filter":
            return BackendError(f"The content filter of {self.where} withheld the answer: ask in other words.")
        if finish_reason == "length":
            return BackendError(f"The model {self._model} used up its {options.max_new_tokens} tokens before the first "
                                "word of its answer: allow more with --max-new-tokens.")
        return BackendError(f"{self.where} sent an empty answer: try again, or check --model and --base-url.")

    # From faults to sentences

    def _explain(self, error: Exception, begun: bool) -> BackendError:
        """The one place where a fault becomes a sentence. begun: whether a part of the answer has come."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._explain_status(error)
        chain = causes(error)
        if any(type(cause).__module__.startswith(("httpx", "httpcore")) for cause in chain):
            return BackendError(self._connection_sentence(chain, begun))
        if isinstance(error, openai.APIError):  # an error event in the stream
            if TOO_LONG.search(str(error.body)):
                return self._too_long()
            when = "in the middle of" if begun else "instead of"
            return BackendError(f"{self.where} reported an error {when} the answer{self._quote(error.body) or '.'} "
                                "Try again; if it stays, look at the server's log.")
        return BackendError(f"{self.where} sent something unreadable{' in the middle of the answer' if begun else ''}: "
                            "try again; if it stays, check that --base-url names an OpenAI-compatible server.")

    def _connection_sentence(self, chain: list[BaseException], begun: bool) -> str:
        import httpx2

        def find(kind) -> BaseException | None:
            return next((cause for cause in chain if isinstance(cause, kind)), None)

        if find(httpx2.ProxyError):
            return (f"The proxy on the way to {self.where} refused the connection: check HTTPS_PROXY and HTTP_PROXY, "
                    "or name the host in NO_PROXY.")
        if find(httpx2.ConnectTimeout):
            return f"{self.where} cannot be reached (no connection in time): check --base-url and the network."
        if find(httpx2.TimeoutException):
            if begun:
                return f"The answer from {self.where} stalled for {self._timeout:g} s and was given up: try again."
            return (f"{self.where} sent nothing for {self._timeout:g} s: it may be busy or loading the model; try "
                    "again later, or ask for less.")
        if find(socket.gaierror) and not self._proxied():
            return f"The host {self._address.hostname} is not known: check --base-url and the network."
        if find(ConnectionRefusedError) and not self._proxied():
            return f"No server is running at {self.where}: start it, or check --base-url."
        if find(ssl.SSLError):
            if "CERTIFICATE" in str(find(ssl.SSLError)):
                return (f"The certificate of {self.where} is not trusted here: check --base-url; behind a company's "
                        "proxy, name its certificates in SSL_CERT_FILE.")
            return f"{self.where} does not speak https as expected: check whether --base-url should begin with http://."
        if find(httpx2.ConnectError):
            return (f"{self.where} cannot be reached: check --base-url and the network"
                    f"{', and the proxy named in the environment (HTTPS_PROXY)' if self._proxied() else ''}.")
        if begun:
            return f"The connection to {self.where} broke off in the middle of the answer: try again."
        return (f"{self.where} broke off the connection before it answered: try again; if it stays, look at the "
                "server's log, and whether --base-url needs https://.")

    def _explain_status(self, error) -> BackendError:
        status, said, where = error.status_code, str(error.body), self.where
        if status == 413 or (status < 500 and TOO_LONG.search(said)):
            return self._too_long()
        if status == 402 or NO_QUOTA.search(said):
            return BackendError(f"The account's quota at {where} is used up, and trying again will not help: add "
                                "credit there, or use another server or the local model.")
        if status == 401:
            if self._has_key:
                return BackendError(f"{where} does not accept the key (401): check the variable that holds it.")
            return BackendError(f"{where} wants a key (401): put it into an environment variable and name that with "
                                "--key-env.")
        if status == 403:
            return BackendError(f"{where} refuses access (403){self._quote(error.body) or '.'} Check that your key and "
                                f"your place may use {self._model}.")
        if status == 400 and FILTERED.search(said):
            return BackendError(f"The content filter of {where} rejected the question: ask in other words.")
        if status in (404, 405) or (status == 400 and NO_MODEL.search(words(error.body))):
            return self._not_found(status, error.body)
        if status == 429 or (status == 503 and retry_after(error.response.headers)):
            wait = retry_after(error.response.headers)
            when = f"in {spell(wait)}" if wait else "in a minute"
            return BackendError(f"{where} has too many requests just now ({status}): try again {when}.")
        if 300 <= status < 400:
            return BackendError(f"{where} is no longer the right address ({status}), it points elsewhere: correct "
                                "--base-url (often https:// instead of http://).")
        if status >= 500:
            return BackendError(f"{where} failed inside ({status}){self._quote(error.body) or '.'} Try again later; if "
                                "it stays, look at the server's log.")
        if refused_field(error, {"temperature": None}):
            return BackendError(f"The model {self._model} does not take this temperature: leave out --temperature.")
        return BackendError(f"{where} rejected the request ({status}){self._quote(error.body) or '.'} Check --model, "
                            "--base-url and the other options.")

    def _not_found(self, status: int, body: object) -> BackendError:
        """A wrong model name or a wrong path: which, only the server's words tell."""
        if status == 400 or re.search("model", str(body), re.I):
            return BackendError(f"{self.where} has no model {self._model}{self._quote(body) or '.'} Check --model."
                                f"{self._offered()}")
        return BackendError(f"{self.where} has nothing at this address ({status}): check --base-url{self._v1_hint()}, "
                            f"and --model.{self._offered()}")

    def _offered(self) -> str:
        """The models that the server lists, as a sentence; "" if it does not, for whatever reason."""
        try:
            listed = self._client.with_options(max_retries=0, timeout=min(self._timeout, CONNECT_SECONDS)).models.list()
            names = [self._clean(str(model.id), 60) for model in listed.data]
        except Exception:  # many servers list nothing, or fail: this must not hide the fault that is being explained
            return ""
        return f" It offers: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}." if names else ""

    def _too_long(self) -> BackendError:
        return BackendError(f"This is longer than the context of {self._model} at {self.where}: shorten the message, "
                            "or forget earlier turns with /reset.", too_long=True)

    def _proxied(self) -> bool:
        """Whether the environment (on Windows and macOS also the system) puts a proxy before this server."""
        proxies, host = urllib.request.getproxies(), self._address.hostname
        return (not is_loopback(host) and not urllib.request.proxy_bypass(host)
                and bool(proxies.get(self._address.scheme) or proxies.get("all")))

    def _v1_hint(self) -> str:
        return "" if self._address.path.rstrip("/").endswith("/v1") else " (does it lack /v1 at its end?)"

    def _clean(self, text: str, length: int = 200) -> str:
        """A server's words as part of our sentence: one line, printable, not long, and never the key."""
        text = self._hide(" ".join(printable(well_formed(text)).split()))
        return text if len(text) <= length else text[:length - 3] + "..."

    def _quote(self, body: object) -> str:
        """': "what the server said".', or "" if that was nothing a reader could use (a web page, for one)."""
        said = self._clean(words(body)).rstrip(".")
        return f': "{said}".' if said and not said.startswith("<") else ""


def read_chunk(chunk) -> tuple[str, str | None]:
    """Text and finish_reason of a chunk, whatever its shape: servers send chunks without choices or content."""
    choices = getattr(chunk, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    text = getattr(getattr(choice, "delta", None), "content", None)
    reason = getattr(choice, "finish_reason", None)
    return (text if isinstance(text, str) else "",
            reason if isinstance(reason, str) and reason in ("stop", "length", "content_filter") else None)


def count(usage: object, name: str) -> int | None:
    """A number of tokens as the server reports it, or None if it is no such number."""
    value = getattr(usage, name, None)
    return value if type(value) is int and value >= 0 else None


def refused_field(error, fields: Mapping[str, object]) -> str | None:
    """Which of the fields sent the server refuses by name, if any."""
    said = str(error.body)
    if not REFUSED.search(said):
        return None
    return next((name for name in fields if error.param == name or re.search(rf"\b{name}\b", said)), None)


def words(body: object) -> str:
    """The words in an error body: OpenAI's {"message"}, FastAPI's {"detail": [{"msg"}]}, {"error"}, [any], or text."""
    if isinstance(body, dict):
        return words(next((body[name] for name in ("message", "detail", "error", "msg") if body.get(name)), ""))
    if isinstance(body, list):
        return words(body[0]) if body else ""
    return body if isinstance(body, str) else ""


def causes(error: BaseException | None) -> list[BaseException]:
    """An exception and what it was raised from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def spell(seconds: float) -> str:
    """A wait in words: 12 s, 15 minutes, 3 hours."""
    unit, name = (1, "s") if seconds <= 120 else (60, "minutes") if seconds <= 7200 else (3600, "hours")
    return f"{math.ceil(seconds / unit)} {name}"


def first_bytes(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """The pieces until there are `most` bytes."""
    for piece in pieces:
        yield piece
        most -= len(piece)
        if most <= 0:
            return


def watched(stream, deadline: float, fault: BackendError):
    """The byte stream, which raises `fault` when bytes come after the deadline (comments keep a stream alive)."""
    import httpx2

    class Watched(httpx2.SyncByteStream):
        def __iter__(self):
            for piece in stream:
                if time.monotonic() > deadline:
                    raise fault
                yield piece

        def close(self) -> None:
            stream.close()

    return Watched()
