"""The history of a chat: whole turns only, and how it is saved and loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from assistant.backends import Message
from utils import course_data
from utils.runtime import UserError, well_formed
from utils.session import write_whole

STRICT = {"extra": "forbid"}  # pydantic, which checks what is loaded, takes no unknown names


@dataclass
class Source:
    """A section of the guide: its heading, a link to it, and the sentences quoted, if any."""

    __pydantic_config__ = STRICT
    heading: str
    link: str
    quote: str = ""


@dataclass
class Turn:
    """A question, its answer, and what is known about it. Tokens are None where nobody counted.

    assistant: what the model said, which is all that later turns are told of the answer. sources:
    what the guide says, shown in front of that, the best sentences quoted. finish_reason: as in
    backends.Reply, or "stopped" by the user. left_out: how many of the oldest turns did not fit.
    notes: what else the screen says.
    """

    __pydantic_config__ = STRICT
    user: str
    assistant: str = ""
    technique: str = "plain"
    finish_reason: Literal["stop", "length", "content_filter", "stopped"] | None = "stop"
    sources: list[Source] = field(default_factory=list)
    left_out: int = 0
    notes: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Conversation:
    """A system prompt and the turns after it. Only whole turns enter.

    failed: the question whose answer failed, if nothing was answered since.
    """

    __pydantic_config__ = STRICT
    system: str = ""
    persona: str | None = None
    failed: str | None = None
    turns: list[Turn] = field(default_factory=list)
    version: Literal[2] = 2  # of the saved files

    def due(self, question: str | None) -> tuple[str, list[Turn]]:
        """The question to ask and the turns before it. None: the one that failed, or else the last
        one, whose turn gives way. Raises UserError if there is none."""
        if question is not None:
            return well_formed(question).strip(), self.turns
        if self.failed is not None:
            return self.failed, self.turns
        if not self.turns:
            raise UserError("there is nothing to ask again yet")
        return self.turns[-1].user, self.turns[:-1]

    def opening(self, question: str) -> list[Message]:
        """The system message, if there is a system prompt, and the question."""
        system = [{"role": "system", "content": self.system}] * bool(self.system)
        return [*system, {"role": "user", "content": question}]

    def reset(self) -> None:
        """Forget all turns; the system prompt and the persona stay."""
        self.turns, self.failed = [], None

    def save(self, path: Path) -> None:
        """Write it as JSON, readable by its owner only. Raises UserError if that cannot be."""
        def write(fresh: Path) -> None:
            fresh.touch(mode=0o600)
            text = json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"
            fresh.write_text(well_formed(text), encoding="utf-8", newline="\n")

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, write)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror or error}): the conversation is "
                            "not saved; free some space or choose another --output") from None

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read what `save` wrote. Raises UserError with file and entry if it is something else."""
        from pydantic import TypeAdapter, ValidationError

        try:
            value = course_data.read_json(path)
            if isinstance(value, dict):
                value.setdefault("version", None)  # has a default for us, not for a file
            text = json.dumps(value)
            return TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}"
                            for part in first["loc"]).lstrip(".") or "top level"
            complaint = f"{where}: {first['msg']}; name a file that this version's /save wrote"
        except UserError as error:
            complaint = str(error)
        raise UserError(f"{path.name or path}: {' '.join(complaint.split())}")


def messages_of(turns: list[Turn]) -> list[Message]:
    """Turns as messages, user and assistant alternately."""
    return [{"role": role, "content": getattr(turn, role)}
            for turn in turns for role in ("user", "assistant")]
