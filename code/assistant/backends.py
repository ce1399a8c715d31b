"""What stands behind the assistant: messages in, text out piece by piece. Here the interface, and a
scripted one; `assistant.local` runs a model in this process, `assistant.server` asks a server.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from utils.runtime import UserError, well_formed  # noqa: F401  (what comes from outside passes it)

Message = dict[str, str]  # {"role": "system", "user" or "assistant", "content": text}


class BackendError(Exception):
    """No answer, or no whole one. Its text is a sentence or two: what happened, and what to do.

    too_long: whether the messages did not fit into the model's context. empty: whether the model
    was reached, but said nothing that can be used. Either counts as a wrong answer in scored tasks.
    """

    def __init__(self, text: str, too_long: bool = False, empty: bool = False) -> None:
        super().__init__(text)
        self.too_long, self.empty = too_long, empty


@dataclass(frozen=True)
class Options:
    """How to answer. temperature None: the model's default; 0: the likeliest token each time."""

    max_new_tokens: int = 256
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """What is known when an answer has ended.

    text: the answer without thoughts, which is what is kept, voted on and scored. It is less than
    what was yielded where thoughts were recognised at their end only.
    finish_reason: "stop" (the model ended it), "length" (max_new_tokens reached), "content_filter",
    or None where the server did not say, so that the text may be incomplete. Tokens are None where
    nobody counted them.
    """

    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int = 0  # of the prompt, whose keys and values were kept from the turn before
    notes: tuple[str, ...] = ()  # what else the user should know, such as a refused setting


class Backend(Protocol):
    """A model that answers. Closing the generator of `stream` stops it, wherever it computes."""

    name: str  # the model's
    where: str  # "on this computer", or the server's host
    context: int | None  # tokens for messages and answer together; None if unknown
    exact: bool  # whether count_tokens is exact, by the model's chat template, or an estimate

    def count_tokens(self, messages: list[Message]) -> int:
        """How many tokens the messages have when they are sent."""

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        """Yield the answer in pieces, return the Reply. Raises BackendError."""


class Scripted:
    """Answers from a list, for tests and demonstrations; it remembers what it was sent.

    answers: texts, or exceptions to raise; a pair (text, exception) breaks off after the text.
    """

    name, where, exact = "scripted", "from a list", False

    def __init__(self, answers: Iterable[str | BaseException | tuple[str, BaseException]],
                 context: int | None = None) -> None:
        self.answers, self.context = iter(answers), context
        self.sent: list[list[Message]] = []
        self.stopped = 0  # how many answers were closed before their end

    def count_tokens(self, messages: list[Message]) -> int:
        return sum(4 + len(message["content"].split()) for message in messages)

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        self.sent.append([dict(message) for message in messages])
        answer = next(self.answers)
        text, error = (answer if isinstance(answer, tuple) else
                       (answer, None) if isinstance(answer, str) else ("", answer))
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        try:
            yield from words[:options.max_new_tokens]
        except GeneratorExit:
            self.stopped += 1
            raise
        if error:
            raise error
        whole = len(words) <= options.max_new_tokens
        return Reply("".join(words[:options.max_new_tokens]), "stop" if whole else "length",
                     self.count_tokens(messages), min(len(words), options.max_new_tokens))


def find(settings) -> tuple[Backend, str]:
    """The model that settings.model and settings.base_url name, and a note on it. Raises UserError.

    The first call of a model fetches it: half a gigabyte for the default one.
    """
    if settings.base_url:
        import getpass

        from assistant.server import Server

        return Server(settings.base_url, settings.model, settings.key_env, getpass.getpass,
                      settings.context, timeout=settings.timeout,
                      temperature=settings.temperature), ""
    from assistant.local import Local
    from utils import checkpoints, runtime

    device = runtime.start(settings)
    name = settings.model or ("tiny" if settings.preset == "smoke" else None)
    checkpoint = checkpoints.fetch("chat", name)
    backend = Local(checkpoint, device)
    if settings.context and backend.context and settings.context > backend.context:
        raise UserError(f"--context {settings.context}: {backend.name} takes {backend.context} "
                        "tokens at most")
    return backend, checkpoint.note
