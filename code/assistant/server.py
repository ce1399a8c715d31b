"""Answers from an OpenAI-compatible server: OpenAI, Ollama, vLLM, llama.cpp, `transformers serve`.

Only chat.completions is used, which all of them have, by the openai client. What a server refuses
that we added ourselves is left out; every other fault ends here as one BackendError, whose text
comes from the table in `assistant.faults`. The key leaves this file in one header, to one host,
and in nothing else.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from types import SimpleNamespace
from urllib.parse import SplitResult, urlsplit

from assistant import faults
from assistant.backends import BackendError, Message, Options, Reply, well_formed
from assistant.thoughts import without_thoughts
from utils.reporting import printable
from utils.runtime import UserError

OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"
SECONDS, LOCAL_SECONDS = 120.0, 300.0  # of silence; a server on this computer may load its model
CONNECT_SECONDS, RETRY_SECONDS = 5.0, 10.0  # a longer Retry-After is told to the user, not slept
SENT_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type",
                "user-agent"}
FINISHED = {"stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "end": "stop",
            "stop_sequence": "stop", "stop_token": "stop", "complete": "stop",
            "length": "length", "max_tokens": "length", "max_length": "length",
            "content_filter": "content_filter", "safety": "content_filter"}
REFUSED = re.compile(r"unsupported|not supported|unrecognized|unknown|unexpected|extra|"
                     r"not permitted|must be verified", re.IGNORECASE)
# What is said where a field that we added was refused; the others are no loss to anyone.
DROPPED = {
    "temperature": "the model takes no temperature, so that its own was used",
    "seed": "the server takes no seed, so that another run may differ",
    "max_completion_tokens": "the server takes no limit, so that its own was used",
    "stream": "the server does not stream, so that the answer came in one piece"}


def parse_address(base_url: str) -> SplitResult:
    """The parts of --base-url. Raises UserError, which never repeats the address: it may hold a
    password. Only plain hosts pass, so that no two parsers can disagree about which one it is."""
    try:
        parts = urlsplit(base_url.strip())
        usable = (parts.scheme in ("http", "https") and parts.port != 0
                  and re.fullmatch(r"[a-z0-9._:-]+", parts.hostname or "", re.ASCII)
                  and re.fullmatch(r"[!-~]+", base_url.strip()))
    except ValueError:  # the port is no number, or an IPv6 address lacks its bracket
        usable = False
    if not usable or re.search(r"[@?#]|/completions/?$", base_url):
        raise UserError("--base-url: not an address of a server; write it like "
                        "http://127.0.0.1:8000/v1, without user:password@, ?, # and "
                        "/chat/completions; a key belongs into a variable (--key-env)")
    return parts


def is_loopback(host: str | None) -> bool:
    """Whether the host is this computer: localhost, 127.*, ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def choose_key(address: SplitResult, environment: Mapping[str, str], key_env: str | None = None,
               ask: Callable[[str], str] | None = None) -> str | None:
    """The key for a server, or None for none. Raises UserError.

    key_env: the variable that the user named for this server. Without it only OpenAI's own host
    gets a key: that in OPENAI_API_KEY, or what `ask` (a hidden prompt, or None where nobody can
    answer) returns. So a key that lies in the environment for OpenAI is never sent to anyone else.
    """
    variable = key_env or (OPENAI_KEY if address.hostname == OPENAI_HOST else None)
    if variable is None:
        return None
    if address.scheme == "http" and not is_loopback(address.hostname):
        raise UserError("--base-url: a key is sent over http:// to this computer only; use "
                        "https://")
    key = environment.get(variable, "").strip()
    source = "the key in the environment variable"
    if not key and key_env:  # its name is not repeated: some people type the key here
        raise UserError("--key-env: the environment has no such variable, or it is empty; name the "
                        "one that holds the server's key")
    if not key and ask:
        try:
            key, source = ask(f"Key for {OPENAI_HOST} (it is not shown): ").strip(), "the key"
        except EOFError:  # Ctrl-D
            pass
    if not key:
        raise UserError(f"{OPENAI_HOST} needs a key: put it into the environment variable "
                        f"{OPENAI_KEY}")
    if not all("!" <= character <= "~" for character in key):
        raise UserError(f"{source} has a space or another character that no key has: copy it again")
    return key


def make_client(address: SplitResult, key: str | None, seconds: float):
    """The openai client for one server, deaf to what the environment says about other servers."""
    import openai

    def send_no_more(request) -> None:
        """OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS and so on add to every request: only ours go."""
        ours = {"openai-organization", "openai-project"} if address.hostname == OPENAI_HOST else ()
        for name in set(request.headers) - SENT_HEADERS.union(ours):
            del request.headers[name]
        request.headers["Host"] = request.url.netloc.decode("ascii")
        request.headers["Authorization"] = f"Bearer {key or 'not-needed'}"  # most servers ignore it

    try:  # no proxy to this computer; no redirect to where nobody sent the key
        http = openai.DefaultHttpxClient(trust_env=not is_loopback(address.hostname),
                                         follow_redirects=False,
                                         event_hooks={"request": [send_no_more]})
    except (ValueError, ImportError, OSError):
        raise UserError("the network settings in the environment (HTTPS_PROXY, ALL_PROXY, "
                        "SSL_CERT_FILE) cannot be used: correct or unset them") from None
    return openai.OpenAI(
        api_key=key or "not-needed", base_url=address.geturl(), max_retries=0, http_client=http,
        timeout=openai.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)))


class Server:
    """A model behind an OpenAI-compatible server. Raises UserError for an unusable address or key.

    ask_key: a hidden prompt such as getpass.getpass, called only at a terminal. timeout: seconds of
    silence after which an answer is given up; default: LOCAL_SECONDS on this computer, else
    SECONDS. temperature: what the user asked for; one of ours is left out where it is refused.
    tries: how often a request is sent that fails for a reason which may pass.
    """

    exact = False

    def __init__(self, base_url: str, model: str, key_env: str | None = None,
                 ask_key: Callable[[str], str] | None = None, context: int | None = None, *,
                 timeout: float | None = None, temperature: float | None = None,
                 tries: int = 3) -> None:
        if not model or not model.strip():
            raise UserError("--model: name the model that the server shall use")
        self._address = parse_address(base_url)
        terminal = sys.stdin is not None and sys.stdin.isatty()
        key = choose_key(self._address, os.environ, key_env, ask_key if terminal else None)
        self.name, self.where = well_formed(model.strip()), self._address.netloc
        self.context, self._temperature, self._tries = context, temperature, tries
        local = is_loopback(self._address.hostname)
        self._seconds = timeout or (LOCAL_SECONDS if local else SECONDS)
        self._client = make_client(self._address, key, self._seconds)
        self._v1 = self._address.path.rstrip("/").endswith("/v1")
        self._hide = lambda text: text.replace(key, "***") if key else text
        self._refused: set[str] = set()  # fields that this server has refused so far

    def count_tokens(self, messages: list[Message]) -> int:
        """An estimate, as only the server has the tokenizer: `estimate_tokens` of each message, 5
        for its role, and 3 to begin the answer."""
        return 3 + sum(5 + estimate_tokens(message["content"]) for message in messages)

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        """Yield the answer in pieces, return the Reply. Raises BackendError, also after some."""
        import openai

        seen = SimpleNamespace(text="", finish_reason=None, usage=None, refusal="", tool="",
                               notes=[])
        pieces, fault, answer = self._pieces(messages, options, seen), None, ""
        try:
            answer = yield from without_thoughts(pieces)
        except (openai.OpenAIError, ValueError, RecursionError) as error:  # the last two: no JSON
            fault = self._fault(*faults.cause_of(error, late=bool(seen.text)), options,
                                faults.seconds_to_wait(error))
        finally:
            pieces.close()  # ends the request, so that the server stops, too
        if fault is None and not answer.strip():
            cause = ("refusal" if seen.refusal else "tool" if seen.tool
                     else f"empty {seen.finish_reason or ''}")
            fault = self._fault(cause, seen.refusal or seen.tool, options)
        if fault is not None:
            raise fault  # here it has no context: the error above holds the request, and the key
        return Reply(answer, seen.finish_reason, count(seen.usage, "prompt_tokens"),
                     count(seen.usage, "completion_tokens"),
                     count(getattr(seen.usage, "prompt_tokens_details", None), "cached_tokens")
                     or 0, tuple(seen.notes))

    def _pieces(self, messages: list[Message], options: Options,
                seen) -> Generator[str, None, None]:
        """The text of an answer, thoughts and all; what else comes is noted in `seen`."""
        for chunk in self._chunks(messages, options, seen):
            choices = getattr(chunk, "choices", None)
            choice = choices[0] if isinstance(choices, list) and choices else None
            said = getattr(choice, "delta", None) or getattr(choice, "message", None)
            reason = str(getattr(choice, "finish_reason", None)).lower()
            seen.finish_reason = FINISHED.get(reason) or seen.finish_reason
            seen.usage = getattr(chunk, "usage", None) or seen.usage
            seen.refusal += str(getattr(said, "refusal", None) or "")
            for call in getattr(said, "tool_calls", None) or []:
                seen.tool += str(getattr(getattr(call, "function", None), "name", None) or "")
            piece = well_formed(content(getattr(said, "content", None)))
            seen.text += piece
            yield piece

    def _chunks(self, messages: list[Message], options: Options, seen) -> Iterator[object]:
        """What the server sends, as the client's objects: events, or one whole answer."""
        import openai
        from openai.types.chat import ChatCompletion

        reply = self._request(messages, options, seen.notes)
        if isinstance(reply, openai.Stream):
            body, read, chunk = bytearray(), reply.response.iter_bytes, None

            def remember() -> Iterator[bytes]:
                for block in read():
                    body.extend(block)
                    yield block

            # The client drops in silence what is no event. Set on this object alone.
            reply.response.iter_bytes = remember  # type: ignore[method-assign, assignment]
            with reply:
                for chunk in reply:
                    yield chunk
            text = body.decode("utf-8", "replace").strip()
            error = re.search(r"^error:(.*)", text, re.MULTILINE)  # llama.cpp before autumn 2025
            if error and not seen.finish_reason:
                raise openai.APIError("", reply.response.request, body=json.loads(error[1]))
            if chunk is not None or not text:
                return
            seen.notes.append(DROPPED["stream"])
            reply = text
        if isinstance(reply, str):  # no JSON by its label, or no stream
            if reply.lstrip().startswith("<"):
                raise self._fault("page", "", options)
            value = json.loads(reply)
            reply = ChatCompletion.construct(**value) if isinstance(value, dict) else None
        if not getattr(reply, "choices", None):
            raise self._fault("no answer", getattr(reply, "model_extra", None), options)
        yield reply

    def _request(self, messages: list[Message], options: Options, notes: list[str]):
        """Send the question. A field that we added and the server refuses is left out for good."""
        import openai

        clean = [{"role": message["role"], "content": well_formed(message["content"])}
                 for message in messages]
        failures, end = 0, time.monotonic() + self._seconds
        while True:
            fields = parameters(options, self._refused)
            try:
                return self._client.chat.completions.create(model=self.name, messages=clean,
                                                            **fields)
            except openai.OpenAIError as error:
                name = refused_field(error, fields)
                asked_for = name == "temperature" and options.temperature == self._temperature
                if name is None or asked_for:
                    wait = faults.seconds_to_wait(error)
                    loading = faults.is_loading(error) and time.monotonic() < end
                    failures += not loading
                    if wait is None or wait > RETRY_SECONDS or failures >= self._tries:
                        raise
                    time.sleep(wait)
                else:
                    self._refused.add(name)  # each name leaves `fields`, so this ends
                    notes += [DROPPED[name]] if name in DROPPED else []

    def _fault(self, cause: str, said: object, options: Options,
               wait: float | None = None) -> BackendError:
        """The sentence for a cause, as one printable line without the key."""
        sentence = faults.sentence_for(cause, said)
        quoted = self._clean(faults.words(said)).rstrip(".")
        text = sentence.format(
            where=self.where, model=repr(printable(self.name)), seconds=self._seconds,
            tokens=options.max_new_tokens, cause=cause, later=faults.later(wait),
            said=f': "{quoted}".' if quoted and not quoted.startswith("<") else ".",
            when="in the middle of" if cause.startswith("late") else "instead of",
            v1="" if self._v1 else " (does it lack /v1 at its end?)",
            offered=self._offered() if "{offered}" in sentence else "")
        return BackendError(text, too_long=sentence in faults.TOO_LONG,
                            empty=cause.startswith(("refusal", "tool", "empty")))

    def _offered(self) -> str:
        """The models that the server lists, as a sentence; "" if it does not, for any reason."""
        try:
            listed = self._client.with_options(timeout=CONNECT_SECONDS).models.list()
            return f" It offers: {self._clean(', '.join(model.id for model in listed.data))}."
        except Exception:  # many list nothing, or fail: this must not hide the fault itself
            return ""

    def _clean(self, text: str) -> str:
        text = self._hide(" ".join(printable(well_formed(text)).split()))
        return text if len(text) <= 200 else text[:197] + "..."


# Pure helpers


def parameters(options: Options, refused: set[str]) -> dict[str, object]:
    """The options as fields of a request, without those that this server has refused.

    Few, as many servers reject what they do not know. OpenAI's reasoning models refuse max_tokens
    and want max_completion_tokens, which older servers ignore. The seed goes along only with a
    temperature above 0, where it does something.
    """
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    fields: dict[str, object] = {limit: options.max_new_tokens, "stream": True}
    if "stream" not in refused:
        fields["stream_options"] = {"include_usage": True}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
        if options.temperature > 0 and options.seed is not None:
            fields["seed"] = options.seed
    return {name: value for name, value in fields.items() if name not in refused}


def refused_field(error: Exception, fields: Mapping[str, object]) -> str | None:
    """Which of the fields sent the server refuses by name, if any."""
    said = str(getattr(error, "body", None))
    if getattr(error, "status_code", None) not in (400, 422) or not REFUSED.search(said):
        return None
    return next((name for name in fields if getattr(error, "param", None) == name
                 or re.search(rf"\b{name}\b", said)), None)


def content(value: object) -> str:
    """The text of a message's content: a string, or a list of parts, whose thoughts are left out.

    content([{"type": "thinking", "thinking": []}, {"type": "text", "text": "Paris"}]) is "Paris".
    """
    if isinstance(value, list):
        texts = (part.get("text") for part in value
                 if isinstance(part, dict) and part.get("type") == "text")
        return "".join(text for text in texts if isinstance(text, str))
    return value if isinstance(value, str) else ""


def count(usage: object, name: str) -> int | None:
    """A number of tokens as the server reports it, or None if it is no such number."""
    value = getattr(usage, name, None)
    return value if type(value) is int and value >= 0 else None


def estimate_tokens(text: str) -> int:
    """Tokens in a text, estimated to the safe side: 3 ASCII letters or spaces make one, and so does
    any other byte.

    By SmolLM2's tokenizer, whose vocabulary is small and English, this is 1.6 times the truth for
    English and for Python, 1.0 for digits, 1.5 for Chinese, 0.9 for Dutch (a plain third of the
    bytes: 1.4, 1.3, 0.3, 0.5, 0.8).
    """
    cheap = sum(letter.isascii() and (letter.isalpha() or letter.isspace()) for letter in text)
    return math.ceil(cheap / 3) + len(well_formed(text).encode()) - cheap
