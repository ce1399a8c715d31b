"""The history of a chat: whole turns only, and how it is saved and loaded."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assistant.backends import Message, well_formed
from utils import course_data
from utils.runtime import UserError

VERSION = 1  # of the saved files
FINISH_REASONS = ("stop", "length", "content_filter", "stopped", None)


@dataclass
class Turn:
    """A question, its answer, and what is known about it. Numbers are None where nobody counted.

    finish_reason: "stop", "length", "content_filter", "stopped" (by the user), or None if the answer may be incomplete.
    sources: headings of the guide's sections that were sent along. notes: what the screen says below the answer.
    """

    user: str
    assistant: str
    finish_reason: str | None = "stop"
    technique: str = "plain"
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int | None = None
    first_token_seconds: float | None = None
    seconds: float | None = None


@dataclass
class Conversation:
    """A system prompt and the turns after it. Only whole turns enter, so that the history never holds a half one.

    failed: the question whose answer failed, if nothing was answered since. left_out: how many of the oldest turns did
    not fit into the newest prompt. summary: of the first `summarised` turns, for when they are left out.
    """

    system: str = ""
    persona: str | None = None
    turns: list[Turn] = field(default_factory=list)
    failed: str | None = None
    left_out: int = 0
    summary: str = ""
    summarised: int = 0

    def messages(self, turns: list[Turn] | None = None) -> list[Message]:
        """The turns (default: all) as messages: user and assistant alternately, without the system prompt."""
        return [{"role": role, "content": getattr(turn, role)}
                for turn in (self.turns if turns is None else turns) for role in ("user", "assistant")]

    def reset(self) -> None:
        """Forget all turns; the system prompt and the persona stay."""
        self.__init__(self.system, self.persona)

    def save(self, path: Path) -> None:
        """Write all of it as JSON (UTF-8, readable by its owner only), in one step: the file is never half written.

        Raises UserError if it cannot be written.
        """
        messages = []
        for turn in self.turns:
            about = {name: value for name, value in asdict(turn).items() if name not in ("user", "assistant")}
            messages += [{"role": "user", "content": turn.user},
                         {"role": "assistant", "content": turn.assistant, **about}]
        saved = {"version": VERSION, "system": self.system, "persona": self.persona, "failed": self.failed,
                 "messages": messages}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, json.dumps(saved, ensure_ascii=False, indent=1).encode("utf-8", "replace") + b"\n")
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror or error}): the conversation is not saved; free "
                            "some space or choose another folder with --output") from None

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read what `save` wrote. Raises UserError with file, line and entry if it is something else, or damaged."""
        try:
            value = course_data.read_json(path)
            for holds, where, complaint in _rules(value):
                if not holds:
                    line = _line(path, where)
                    raise UserError(f"{f'line {line}, ' if line else ''}{where or 'top level'}: {complaint}")
        except UserError as error:
            raise UserError(" ".join(f"{path.name or path}: {error}".split())) from None
        turns = []
        for user, answer in zip(value["messages"][::2], value["messages"][1::2], strict=True):
            about = {name: answer[name] for name in ABOUT if name in answer}
            turns.append(Turn(well_formed(user["content"]), well_formed(answer["content"]), **about))
        return cls(well_formed(value["system"]), value["persona"], turns, value.get("failed"))


def _replace(path: Path, content: bytes) -> None:
    """Write beside the place, then move there: whoever reads the file finds the old one or the new one, whole."""
    handle, fresh = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".partial", dir=path.parent)  # mode 600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


# What an answer may say about itself: name -> (whether a value is right, what it should be).
ABOUT = {
    "finish_reason": (lambda v: v in FINISH_REASONS, "should be one of stop, length, content_filter, stopped, null"),
    "technique": (lambda v: isinstance(v, str), "should be text"),
    **dict.fromkeys(("sources", "notes"), (
        lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v), "should be a list of texts")),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reused_tokens"), (
        lambda v: v is None or type(v) is int, "should be a whole number or null")),
    **dict.fromkeys(("first_token_seconds", "seconds"), (
        lambda v: v is None or type(v) in (int, float), "should be a number or null")),
}


def _rules(value: Any) -> course_data.Rules:
    """Each rule of a saved file: whether it holds, the entry it is about, and the complaint where it does not."""
    known = isinstance(value, dict) and "version" in value
    yield known, "", "this is not a saved conversation; name a file that /save wrote"
    yield (value["version"] == VERSION, "version", f"{value['version']!r} is another version of saved conversations "
           f"than the {VERSION} that this script reads; open it with the version of the course that wrote it")
    for name, kinds in (("system", str), ("persona", (str, type(None))), ("messages", list)):
        yield name in value, name, "is missing"
        yield isinstance(value[name], kinds), name, "has the wrong type"
    yield isinstance(value.get("failed"), (str, type(None))), "failed", "has the wrong type"
    for i, message in enumerate(value["messages"]):
        where, due = f"messages[{i}]", ("user", "assistant")[i % 2]
        yield isinstance(message, dict), where, 'should be an object with "role" and "content"'
        yield message.get("role") == due, f"{where}.role", f"should be {due}; they take turns, user first"
        yield isinstance(message.get("content"), str), f"{where}.content", "should be text"
        for name in message.keys() & ABOUT.keys():
            holds, complaint = ABOUT[name]
            yield i % 2 and holds(message[name]), f"{where}.{name}", complaint
    yield len(value["messages"]) % 2 == 0, where if value["messages"] else "", "is a question without its answer"


def _line(path: Path, where: str) -> int | None:
    """The line at which the entry messages[i] begins, or None for other entries."""
    if not where.startswith("messages["):
        return None
    text = path.read_bytes().decode("utf-8-sig")
    place = text.index("[", text.index('"messages"')) + 1
    for _ in range(int(where[len("messages["):where.index("]")])):
        place = json.JSONDecoder().raw_decode(text, _skip(text, place))[1]
    return text.count("\n", 0, _skip(text, place)) + 1


def _skip(text: str, place: int) -> int:
    """The next place that holds neither white space nor a comma."""
    while text[place] in " \t\r\n,":
        place += 1
    return place
