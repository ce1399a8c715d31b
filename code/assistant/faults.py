"""What the user reads when a server fails: one table from causes to sentences."""

from __future__ import annotations

import math
import re

NO_QUOTA = r"insufficient_quota|exceeded your current quota|billing_hard_limit"
FULL = r"context[ _](size|length|window)|too many tokens|prompt is too long"
ASKED = r"max_(completion_)?tokens|completion|requested \d+"
TOO_LONG = ("The question and an answer of {tokens} tokens exceed the context of {model} at "
            "{where}{said} Ask for a shorter answer with --max-new-tokens, or forget earlier turns "
            "with /reset.",
            "This is longer than the context of {model} at {where}{said} Shorten the message, or "
            "forget earlier turns with /reset.")

# The first row whose pattern fits counts. A cause is the status or the name of an error ("late" in
# front where a part of the answer had come), then what was said about it, which {said} quotes.
CAUSES = [
    (rf"402|4.*({NO_QUOTA})", "The account's quota at {where} is used up, and trying again will "
     "not help: add credit there, or use another server or the local model."),
    (rf"(4|(late )?API).*(({ASKED}).*({FULL})|({FULL}).*({ASKED}))", TOO_LONG[0]),
    (rf"413|(4|(late )?API).*({FULL})", TOO_LONG[1]),
    (r"4.*content[ _](filter|policy|management)", "The content filter of {where} rejected the "
     "question: ask in other words."),
    (r"401", "{where} does not accept the key, or wants one (401): put it into an environment "
     "variable and name that with --key-env."),
    (r"403", "{where} refuses access (403){said} Check that your key and your place may use "
     "{model}."),
    (r"40[45].*model|400.*((invalid|unknown|no such) model|model.*not (found|exist|available)|"
     r"pinned to)", "{where} has no model {model}{said} Check --model.{offered}"),
    (r"40[45]", "{where} has nothing at this address ({cause}): check --base-url{v1}, and "
     "--model."),
    (r"429", "{where} has too many requests just now (429): try again {later}."),
    (r"4(00|22).*\btemperature\b", "The model {model} does not take this temperature{said} Leave "
     "out --temperature."),
    (r"3", "{where} is no longer the right address ({cause}), it points elsewhere: correct "
     "--base-url (often https:// instead of http://)."),
    (r"4", "{where} rejected the request ({cause}){said} Check --model, --base-url and the other "
     "options."),
    (r"503.*loading", "{where} is still loading its model after {seconds:g} s: ask again {later}, "
     "or give it longer with --timeout."),
    (r"5", "{where} failed inside ({cause}){said} Try again {later}; if it stays, look at the "
     "server's log."),
    (r".*APIConnectionError.*refused", "No server is running at {where}, as the connection was "
     "refused: start it, or check --base-url and the proxy, if there is one."),
    (r".*APIConnectionError.*SSL", "{where} and this computer do not agree on https{said} Begin "
     "--base-url with http:// for a server without it; behind a company's proxy, name its "
     "certificates in SSL_CERT_FILE."),
    (r".*(APIConnectionError|APITimeoutError ConnectTimeout)", "The connection to {where} failed "
     "{when} the answer{said} Try again; if it stays, check --base-url, the network and the proxy "
     "(HTTPS_PROXY), and look at the server's log."),
    (r".*APITimeoutError", "{where} sent nothing for {seconds:g} s {when} the answer: it may be "
     "busy or loading its model; give it longer with --timeout, or ask for less."),
    (r".*APIError", "{where} reported an error {when} the answer{said} Try again; if it stays, "
     "look at the server's log."),
    (r".*unreadable", "{where} sent something unreadable {when} the answer: try again; if it "
     "stays, check that --base-url names an OpenAI-compatible server."),
    (r"page", "{where} sent a web page instead of an answer: check --base-url{v1}, and whether "
     "this network wants you to log in first."),
    (r"no answer", "{where} sent no answer{said} Check that --base-url is the address of an "
     "OpenAI-compatible server{v1}."),
    (r"refusal", "The model {model} declined to answer{said} Ask in other words."),
    (r"tool", "The model {model} wanted to call a tool{said} There is none here: ask in other "
     "words."),
    (r"empty content_filter", "The content filter of {where} withheld the answer: ask in other "
     "words."),
    (r"empty length", "The model {model} used up its {tokens} tokens before the first word of its "
     "answer: allow more with --max-new-tokens."),
    (r"empty", "{where} sent an empty answer: try again, or check --model and --base-url."),
]


def sentence_for(cause: str, said: object) -> str:
    """The sentence of CAUSES, with its {places} still open, for a cause and the words about it."""
    known = f"{cause} {' '.join(str(said).split())}"
    return next(text for pattern, text in CAUSES if re.match(pattern, known, re.IGNORECASE))


def cause_of(error: Exception, late: bool) -> tuple[str, object]:
    """An error's cause as CAUSES knows it, and what the server, or the system, said about it.

    error: of the openai client, or else one from reading JSON. late: whether a part of the answer
    had come. A refused key gives ("401", {"message": ...}).
    """
    import openai

    front = "late " * late
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code), error.body
    if isinstance(error, openai.APIConnectionError):  # its own text never says why
        reason = error.__cause__
        return f"{front}{type(error).__name__} {type(reason).__name__}", str(reason)
    if isinstance(error, openai.APIError):  # an event of the stream
        return f"{front}APIError", error.body
    return f"{front}unreadable", ""


def seconds_to_wait(error: Exception) -> float | None:
    """Seconds after which the same request may succeed, None where it will not.

    A server that is silent is not asked again: it may be loading its model, and would begin anew.
    The header Retry-After counts where it is a number.
    """
    import openai

    if not isinstance(error, openai.APIStatusError):
        lost = isinstance(error, openai.APIConnectionError)
        return 0.5 if lost and not isinstance(error, openai.APITimeoutError) else None
    status = error.status_code
    if status not in (408, 409, 429) and status < 500 or re.search(NO_QUOTA, str(error.body)):
        return None
    header = error.response.headers.get("retry-after", "")
    return float(header) if re.fullmatch(r"\d{1,9}(\.\d+)?", header) else 1.0


def is_loading(error: Exception) -> bool:
    """Whether a server says that it is loading its model, as llama.cpp's does, so one waits."""
    said = str(getattr(error, "body", None)).lower()
    return getattr(error, "status_code", None) == 503 and "loading" in said


def words(body: object) -> str:
    """The words in an error: {"message"}, FastAPI's {"detail": [{"msg"}]}, {"error"}, or text."""
    if isinstance(body, dict):
        keys = ("message", "detail", "error", "msg")
        return words(next((body[key] for key in keys if body.get(key)), ""))
    if isinstance(body, list):
        return words(body[0]) if body else ""
    return body if isinstance(body, str) else ""


def later(seconds: float | None) -> str:
    """When to try again: later(90) is "in 90 s", later(None) is "in a moment"."""
    return f"in {math.ceil(seconds):,} s" if seconds and seconds > 1 else "in a moment"
