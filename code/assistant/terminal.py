"""The chat in the terminal: prompt, streamed answers, commands."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from assistant.backends import BackendError, well_formed
from assistant.conversation import Conversation, Turn
from assistant.turn import Chat, Turns, about
from utils import reporting
from utils.runtime import UserError

PROMPT = "you> "
WIDTH = 100  # of lines, where no terminal says its own
# A name of a saved chat: no path, nothing hidden, and none that Windows keeps for devices.
NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[a-z0-9][a-z0-9_-]{0,63}", re.IGNORECASE)
COMMANDS = {  # name: (what may follow, what it does)
    "help": ("", "this list"),
    "system": ("[TEXT]", "show the system prompt, or set it"),
    "persona": ("[NAME]", "list the personas, or take one's system prompt"),
    "technique": ("[NAME ...]", "list the prompting techniques, or choose one"),
    "reset": ("", "forget the conversation; the system prompt stays"),
    "history": ("", "show the conversation"),
    "retry": ("", "ask the last question again, or the one that failed"),
    "save": ("NAME [--force]", "save the conversation; --force replaces an earlier one"),
    "load": ("[NAME]", "list the saved conversations, or go on with one"),
    "quit": ("", "leave; so do Ctrl-C and Ctrl-D at the prompt"),
}


def is_interactive() -> bool:
    """Whether somebody types, so that prompts and hints are wanted."""
    return sys.stdin is not None and sys.stdin.isatty()


def as_text(turn: Turn, width: int = WIDTH) -> str:
    """What the guide says, in lines of a width, and then, marked as such, the model's own words."""
    if not turn.sources:
        return turn.assistant
    lines: list[str] = []
    for source in sorted(turn.sources, key=lambda source: not source.quote):  # those quoted first
        begin = "See also" if not source.quote else "and in" if lines else "The guide says in"
        lines.append(f"{begin} {source.heading} (guides/{source.link}){':' * bool(source.quote)}")
        lines += textwrap.wrap(source.quote, width - 2, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, "", "In the model's own words:", turn.assistant])


def folded(text: str, width: int) -> str:
    """The text, as long as before, with a line's end for the last space that fits into each line.
    folded("one two three", 8) is "one two\nthree".
    """
    return re.sub(rf"(.{{1,{width}}})( |$)", lambda line: line[1] + "\n" * len(line[2]), text,
                  flags=re.M)


def settled(text: str) -> str:
    """The text without its last word, which may grow too long for its line. That may be a part of
    30 letters, as not every language puts spaces between words."""
    return re.sub(r"\s*\S{0,30}\Z", "", text)


def write_turn(turns: Turns) -> Turn:
    """Print a turn as it grows and return it whole. Whatever ends it early is passed on.

    What a model writes must not steer the terminal: control characters are left out. Lines end
    between words there; what goes to a file or a pipe stays as it is.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    written = text = ""

    def write(part: str) -> None:
        nonlocal written
        part = folded(part, width) if width else part
        sys.stdout.write(part[len(written):])
        sys.stdout.flush()
        written = max(written, part, key=len)

    try:
        with closing(turns):
            for turn in turns:
                text = reporting.printable(as_text(turn, width or WIDTH))
                write(settled(text) if width else text)
    finally:
        write(text)
        if written:
            print(flush=True)
    return turn


def ask_once(turns: Turns) -> dict:
    """--ask: the answer on standard output, what is to be said about it on standard error."""
    try:
        turn = write_turn(turns)
    except BackendError as error:
        raise UserError(str(error)) from None
    for note in turn.notes:
        print(f"note: {reporting.printable(note)}", file=sys.stderr)
    return asdict(turn)


class Terminal:
    """One chat, from the first prompt to /quit or the end of the input."""

    def __init__(self, chat: Chat, ask: Callable[..., Turns], folder: Path,
                 interactive: bool | None = None) -> None:
        """ask: (chat, question, or None for the last one again) -> the turn as it grows. folder: of
        the saved chats. interactive: None asks the terminal; else lines come from a pipe."""
        self.chat, self.ask, self.folder = chat, ask, folder
        self.interactive = is_interactive() if interactive is None else interactive
        self.own: str | None = None  # the name of this chat's file, free to be replaced

    def run(self) -> dict:
        """Read lines until their end, /quit, or Ctrl-C at the prompt. Raises UserError in the end
        if lines of a pipe failed. From a pipe, Ctrl-C ends all of it: KeyboardInterrupt passes."""
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # a byte of another encoding becomes U+FFFD
        if self.interactive:
            try:
                import readline  # noqa: F401  (lets input() edit and recall lines; Windows can)
            except ImportError:
                pass
            reporting.say("Type a question, or /help.", style="dim")
        failures = 0
        try:
            for line in iter(self.read, None):
                failures += not self.handle(line)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            print()
        if failures and not self.interactive:
            raise UserError(f"{failures} of the lines could not be answered or obeyed; see above")
        return {"model": self.chat.backend.name, "turns": len(self.chat.conversation.turns)}

    def read(self) -> str | None:
        """The next line; None at the end of the input (also where there is none) and for /quit."""
        if self.interactive:
            print()
        try:
            line = input(PROMPT if self.interactive else "") if sys.stdin else "/quit"
        except (EOFError, NotImplementedError):  # the latter in a notebook that nobody sits before
            print(end="\n" * self.interactive)
            return None
        line = well_formed(line).strip()
        return None if line.lower() in ("/quit", "/exit") else line

    def handle(self, line: str) -> bool:
        """Obey one line: a question, a command after a slash, or after two slashes a question that
        begins with one. Returns whether that went well; if not, it was said what was wrong."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                self.command(line)
            elif line:
                self.answer(line[1:] if line.startswith("//") else line)
            return True
        except UserError as error:
            self.tell(str(error), "red")
        except BackendError as error:
            self.tell(f"{error} Nothing of this turn is kept; /retry asks again.", "red")
        return False

    def command(self, line: str) -> None:
        """Call the method of a command. An unknown one is not sent to the model."""
        name, _, rest = line[1:].partition(" ")
        if name.lower() not in COMMANDS:
            raise UserError(f"there is no command /{name}: see /help; to send text that begins "
                            "with a slash, type //")
        getattr(self, name.lower())(rest.strip())

    def tell(self, text: str, style: str) -> None:
        """Say something that is no part of an answer: from a pipe, on standard error."""
        if self.interactive:
            reporting.say(text, style=style)
        else:
            print(reporting.printable(text), file=sys.stderr)

    def answer(self, question: str | None) -> None:
        """Print an answer with what is to be said about it; Ctrl-C stops it, the chat goes on."""
        conversation = self.chat.conversation
        before = conversation.turns
        try:
            turn = write_turn(self.ask(self.chat, question))
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            kept = conversation.turns is not before
            return self.tell("(stopped; kept as far as it went)" if kept else
                             "(stopped before it began; not kept, /retry asks again)", "dim")
        if turn.notes or self.interactive and about(turn):
            self.tell(f"({about(turn)})", "dim")
        print(end="\n" * (not self.interactive))

    # The commands; each gets what follows its name

    def help(self, _: str) -> None:
        reporting.table("", ["command", "what it does"], [
            [f"/{name} {what}".strip(), does] for name, (what, does) in COMMANDS.items()])
        reporting.say("Ctrl-C during an answer stops the answer.")

    def system(self, text: str) -> None:
        conversation = self.chat.conversation
        if text:
            conversation.system, conversation.persona = text, None
        reporting.say(f"System prompt: {conversation.system or '(none)'}")

    def persona(self, name: str) -> None:
        if name:
            self.chat.set_persona(name)
            return self.system("")
        reporting.table("", ["persona", ""], [
            [name, about["description"]] for name, about in self.chat.data["personas"].items()])

    def technique(self, text: str) -> None:
        if text:
            self.chat.set_technique(*text.split())
            return reporting.say(f"Technique: {text}")
        reporting.table("", ["technique", ""], [
            [("* " if name == self.chat.technique else "  ") + name, technique.description]
            for name, technique in self.chat.techniques.items()])
        reporting.say("few-shot may be followed by one of "
                      f"{', '.join(self.chat.data['few_shot'])}; json by keys.")

    def reset(self, _: str) -> None:
        self.chat.conversation.reset()
        self.own = None  # another conversation, which must not replace the saved one
        reporting.say("The conversation is forgotten; the system prompt stays.")

    def history(self, _: str) -> None:
        conversation = self.chat.conversation
        if not conversation.turns and not conversation.system:
            reporting.say("Nothing was said yet.")
        if conversation.system:
            reporting.say(f"system: {conversation.system}", style="dim")
        for turn in conversation.turns:
            reporting.say(f"\nyou: {turn.user}", style="bold")
            reporting.say(as_text(turn, reporting.console().width))
            if turn.notes:
                reporting.say(f"({'; '.join(turn.notes)})", style="dim")

    def retry(self, _: str) -> None:
        self.answer(None)

    def save(self, text: str) -> None:
        words = text.split()
        names = [word for word in words if word != "--force"]
        if len(names) > 1 or not names and self.own is None:
            raise UserError("/save takes a name, such as /save monday")
        name = checked(names[0]) if names else self.own
        path = self.folder / f"{name}.json"
        if path.exists() and name != self.own and "--force" not in words:
            raise UserError(f"there is a saved conversation {name} already: choose another name, "
                            f"or replace it with /save {name} --force")
        self.chat.conversation.save(path)
        self.own = name
        reporting.say(f"Saved in {reporting.shown(path)}")

    def load(self, name: str) -> None:
        there = sorted(path.stem for path in self.folder.glob("*.json"))
        listed = f"saved conversations: {', '.join(there)}" if there else "none is saved yet"
        if not name:
            return reporting.say(f"{listed[0].upper()}{listed[1:]}")
        name = checked(name)
        if name not in there:
            raise UserError(f"there is no saved conversation {name}; {listed}")
        self.chat.conversation, self.own = Conversation.load(self.folder / f"{name}.json"), name
        turns = len(self.chat.conversation.turns)
        reporting.say(f"Loaded {name}: {turns} turn{'s' * (turns != 1)}; /history shows them.")


def checked(name: str) -> str:
    """The name of a saved chat, if it is one. Raises UserError."""
    name = name.removesuffix(".json")
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the name of a saved conversation: use up to 64 "
                        "letters a-z, digits, - and _")
    return name
