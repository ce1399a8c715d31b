"""The chat in the terminal: prompt, streamed answers, commands. It knows the assistant by its methods only."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator
from pathlib import Path

from assistant.backends import BackendError, well_formed
from assistant.conversation import Conversation, Turn
from utils import reporting
from utils.runtime import UserError

PROMPT = "you> "
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
    "tokens": ("", "how much of the context is used, and what was read and written"),
    "quit": ("", "leave; so do Ctrl-C and Ctrl-D at the prompt (Ctrl-C during an answer stops the answer)"),
}


def write_answer(answer: Generator[str, None, Turn]) -> Turn:
    """Print an answer as it comes, and its sources, and return its Turn. Whatever ends it early is passed on.

    What a model writes must not steer the terminal: control characters are left out.
    """
    written = False
    try:
        while True:
            piece = reporting.printable(next(answer))
            sys.stdout.write(piece)
            sys.stdout.flush()
            written = written or bool(piece)
    except StopIteration as end:
        turn: Turn = end.value
    finally:
        answer.close()
        if written:
            print(flush=True)
    if turn.sources:
        reporting.say("Sources in the guide: " + "; ".join(turn.sources))
    return turn


class Terminal:
    """One chat, from the first prompt to /quit or the end of the input."""

    def __init__(self, assistant, folder: Path, claim: Callable[[], None] | None = None,
                 interactive: bool = True) -> None:
        """folder: of the saved chats; claim: makes sure that it may be written (UserError) before the first save.
        interactive: whether somebody types, so that prompts and hints are wanted; else lines come from a pipe."""
        self.assistant, self.folder, self.claim = assistant, folder, claim
        self.interactive = interactive
        self.own: str | None = None  # the name under which this chat was saved or loaded, free to be replaced

    def run(self) -> int:
        """Read lines until the end of the input, /quit, or Ctrl-C at the prompt; returns how many of them failed.

        From a pipe, Ctrl-C ends all of it: KeyboardInterrupt is passed on.
        """
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # a byte that is not in the encoding becomes U+FFFD
        if self.interactive:
            try:
                import readline  # noqa: F401  (lets input() edit and recall lines; Windows does so by itself)
            except ImportError:
                pass
            reporting.say("Type a question, or /help.", style="dim")
        failures = 0
        try:
            while True:
                if self.interactive:
                    print()
                line = well_formed(input(PROMPT if self.interactive else "")).strip()
                if line.lower() in ("/quit", "/exit"):
                    return failures
                failures += not self.handle(line)
        except EOFError:
            pass
        except KeyboardInterrupt:
            if not self.interactive:
                raise
        if self.interactive:
            print()
        return failures

    def handle(self, line: str) -> bool:
        """Obey one line: a question, a command after a slash, or after two slashes a question that begins with one.

        Returns whether that went well; if not, it was said what was wrong.
        """
        try:
            if line.startswith("/") and not line.startswith("//"):
                self.command(line)
            elif line:
                self.answer(self.assistant.ask(line[1:] if line.startswith("//") else line))
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
            raise UserError(f"there is no command /{name}: see /help; to send text that begins with a slash, type //")
        getattr(self, name.lower())(rest.strip())

    def tell(self, text: str, style: str) -> None:
        """Say something that is no part of an answer: where lines come from a pipe, on standard error."""
        if self.interactive:
            reporting.say(text, style=style)
        else:
            print(reporting.printable(text), file=sys.stderr)

    def answer(self, generator: Generator[str, None, Turn]) -> None:
        """Print an answer with what is to be said about it; Ctrl-C stops it, and the chat goes on."""
        conversation = self.assistant.conversation
        before = conversation.turns
        try:
            turn = write_answer(generator)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            kept = conversation.turns is not before
            return self.tell("(stopped; kept as far as it went)" if kept else
                             "(stopped before it began; not kept, /retry asks again)", "dim")
        about = [*turn.notes]
        if turn.completion_tokens is not None:
            reused = f", {turn.reused_tokens} of them reused" if turn.reused_tokens else ""
            read = "" if turn.prompt_tokens is None else f" after {turn.prompt_tokens}{reused}"
            about.insert(0, f"{turn.completion_tokens} tokens{read}, {turn.seconds:.1f} s")
        if turn.completion_tokens and before and (before[-1].user, before[-1].assistant) == (turn.user, turn.assistant):
            about.append("the same again, as the likeliest words are taken; --temperature 0.7 varies them")
        if about and (self.interactive or turn.notes):
            self.tell(f"({'; '.join(about)})", "dim")
        if not self.interactive:
            print()

    # The commands; each gets what follows its name

    def help(self, _: str) -> None:
        reporting.table("", ["command", "what it does"], [
            [f"/{name} {what}".strip(), does] for name, (what, does) in COMMANDS.items()])

    def system(self, text: str) -> None:
        conversation = self.assistant.conversation
        if text:
            conversation.system, conversation.persona = text, None
        reporting.say(f"System prompt: {conversation.system or '(none)'}")

    def persona(self, name: str) -> None:
        if name:
            self.assistant.set_persona(name)
            return self.system("")
        reporting.table("", ["persona", ""], [[name, about["description"]]
                                              for name, about in self.assistant.data["personas"].items()])

    def technique(self, text: str) -> None:
        if text:
            self.assistant.set_technique(*text.split())
            return reporting.say(f"Technique: {text}")
        reporting.table("", ["technique", ""], [
            [("* " if name == self.assistant.technique else "  ") + name, does]
            for name, does in self.assistant.techniques.items()])
        reporting.say(f"few-shot may be followed by one of {', '.join(self.assistant.data['few_shot'])}; json by keys.")

    def reset(self, _: str) -> None:
        self.assistant.conversation.reset()
        reporting.say("The conversation is forgotten; the system prompt stays.")

    def history(self, _: str) -> None:
        conversation = self.assistant.conversation
        if not conversation.turns and not conversation.system:
            reporting.say("Nothing was said yet.")
        if conversation.system:
            reporting.say(f"system: {conversation.system}", style="dim")
        for turn in conversation.turns:
            reporting.say(f"you: {turn.user}", style="bold")
            reporting.say(turn.assistant)
            if turn.sources or turn.notes:
                reporting.say(f"({'; '.join([*turn.sources, *turn.notes])})", style="dim")

    def retry(self, _: str) -> None:
        self.answer(self.assistant.retry())

    def save(self, text: str) -> None:
        words = text.split()
        force = "--force" in words
        names = [word for word in words if word != "--force"]
        if len(names) > 1 or not names and self.own is None:
            raise UserError("/save takes a name, such as /save monday")
        name = self._checked(names[0]) if names else self.own
        path = self.folder / f"{name}.json"
        if path.exists() and name != self.own and not force:
            raise UserError(f"there is a saved conversation {name} already: choose another name, or replace it with "
                            f"/save {name} --force")
        try:
            if self.claim:
                self.claim()
        except OSError as error:  # a full disk
            raise UserError(f"cannot write {self.folder} ({error.strerror}): nothing is saved") from None
        self.assistant.conversation.save(path)
        self.own = name
        reporting.say(f"Saved in {reporting.shown(path)}")

    def load(self, name: str) -> None:
        there = sorted(path.stem for path in self.folder.glob("*.json"))
        listed = f"saved are: {', '.join(there)}" if there else "none is saved yet"
        if not name:
            return reporting.say(f"Of conversations, {listed}.")
        name = self._checked(name)
        if name not in there:
            raise UserError(f"there is no saved conversation {name}; {listed}")
        self.assistant.conversation, self.own = Conversation.load(self.folder / f"{name}.json"), name
        turns = len(self.assistant.conversation.turns)
        reporting.say(f"Loaded {name}: {turns} turn{'s' * (turns != 1)}; /history shows them.")

    def tokens(self, _: str) -> None:
        assistant, conversation = self.assistant, self.assistant.conversation
        messages = conversation.messages()
        if conversation.system:
            messages.insert(0, {"role": "system", "content": conversation.system})
        used = assistant.backend.count_tokens(messages) if messages else 0
        how = "" if assistant.backend.exact else ", by an estimate"
        limit = f" of {assistant.budget} that fit beside an answer" if assistant.budget else ""
        read, written, reused = (sum(getattr(turn, f"{name}_tokens") or 0 for turn in conversation.turns)
                                 for name in ("prompt", "completion", "reused"))
        reporting.say(f"The conversation has {used} tokens{limit}{how}. Its turns read {read} tokens, of which "
                      f"{reused} were reused, and wrote {written}.")

    @staticmethod
    def _checked(name: str) -> str:
        name = name.removesuffix(".json")
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot be the name of a saved conversation: use up to 64 letters a-z, digits, "
                            "- and _")
        return name
