"""The chat in the terminal: commands, faults, Ctrl-C, pipes. Mostly with a scripted model, at the end as a process."""

from __future__ import annotations

import builtins
import os
import select
import signal
import subprocess
import sys
import time

import pytest

import ex_04_ai_assistant as ex
from assistant.backends import BackendError, Options, Reply, Scripted
from assistant.conversation import Source, Turn
from assistant.terminal import COMMANDS, Terminal, as_text, folded, is_interactive, settled
from assistant.turn import Chat
from utils import course_data, reporting
from utils.runtime import REPOSITORY, UserError

DATA = course_data.load_conversations()


def chat_with(backend) -> Chat:
    return Chat(backend, DATA, ex.TECHNIQUES, Options(50, seed=1))


@pytest.fixture
def play(tmp_path, monkeypatch, capfd):
    """play(lines, answers) types the lines; returns (what is on the screen, the back end, the chat).

    A line may be an exception, which the prompt then raises. Failures of a pipe are in `play.error`.
    """
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(reporting, "_console", None)  # an earlier one has another width

    def run(lines, answers=(), interactive=True, chat=None):
        chat, run.error = chat or chat_with(Scripted(answers, 1000)), ""
        queue = iter(lines)

        def typed(prompt=""):
            print(prompt, end="")
            line = next(queue, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typed)
        try:
            Terminal(chat, ex.ask, tmp_path / "chats", interactive).run()
        except UserError as error:
            run.error = str(error)
        captured = capfd.readouterr()
        return captured.out + captured.err, chat.backend, chat

    return run


def test_a_conversation(play):
    screen, backend, chat = play(["My name is Priya.", "  ", "My name?"], ["Hello.", "Priya."])
    assert "Hello." in screen and "Priya." in screen and "tokens after a prompt of" in screen
    assert [m["content"] for m in backend.sent[1]] == ["My name is Priya.", "Hello.", "My name?"]
    assert len(chat.conversation.turns) == 2, "the empty line should not be sent"


@pytest.mark.parametrize("end", [EOFError(), NotImplementedError(), KeyboardInterrupt(), "/quit", "/EXIT"])
def test_leaving_is_quiet(play, end):
    screen, *_ = play(["Hi", end, "never reached"], ["Hello."])
    assert "Hello." in screen and not play.error


def test_system_prompt_and_persona_survive_a_reset(play):
    _, backend, _ = play(["/system Be brief.", "Hi", "/reset", "Hi"], ["a", "b"])
    assert [m["content"] for m in backend.sent[1]] == ["Be brief.", "Hi"]
    screen, backend, chat = play(["/persona socratic", "/reset", "Hi", "/persona"], ["a"])
    assert backend.sent[0][0]["content"] == DATA["personas"]["socratic"]["system"]
    assert chat.conversation.persona == "socratic" and all(name in screen for name in DATA["personas"])


@pytest.mark.parametrize(("line", "expected"), [
    ("/frobnicate", "no command /frobnicate"), ("/", "no command /"), ("/ hello", "no command /"),
    ("/retry", "nothing to ask again"), ("/persona pirate", "no persona 'pirate'"),
    ("/technique magic", "no technique 'magic'"), ("/technique plain x", "plain takes no 'x'"),
    ("/technique few-shot nothing", "no set of examples 'nothing'"), ("/technique retrieval", "no guide"),
    ("/save", "takes a name"), ("/save ../up", "'../up' cannot be the name"), ("/save a b", "takes a name"),
    ("/save con", "'con' cannot be"), ("/save .hidden", "'.hidden' cannot be"),
    ("/load nobody", "none is saved yet"), ("/load ../../etc/passwd", "cannot be the name")])
def test_commands_that_are_unknown_or_wrong_reach_no_model(play, line, expected):
    screen, backend, _ = play([line], interactive=False)
    assert backend.sent == [] and expected in screen and play.error.startswith("1 of the lines")


def test_two_slashes_send_a_text_that_begins_with_one(play):
    _, backend, _ = play(["//etc is a folder?"], ["Yes."])
    assert backend.sent[0][0]["content"] == "/etc is a folder?"


def test_every_command_is_listed_and_there(play):
    screen, *_ = play(["/help", *(f"/{name}" for name in COMMANDS if name not in ("quit", "save", "retry"))])
    assert all(f"/{name}" in screen for name in COMMANDS) and "there is no" not in screen


def test_a_fault_is_one_sentence_and_retry_asks_again(play):
    answers = ["First.", BackendError("Not running: start it."),
               ("Half an ans", BackendError("Cut off.")), "Whole."]
    screen, backend, chat = play(["one", "two", "/history", "/retry", "/retry", "x " * 2000], answers)
    assert "Not running: start it. Nothing of this turn is kept; /retry asks again." in screen
    assert "Cut off." in screen and "Whole." in screen and "does not fit" in screen
    assert [turn.user for turn in chat.conversation.turns] == ["one", "two"]
    assert backend.sent[1] == backend.sent[2] == backend.sent[3], "/retry should send the same"


@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_during_an_answer_stops_only_the_answer(play, after):
    class Stopped(Scripted):
        def stream(self, messages, options):
            if not self.sent:
                self.sent.append(messages)
                yield from ["One ", "two "][:after]
                raise KeyboardInterrupt
            return (yield from super().stream(messages, options))

    screen, _, chat = play(["count", "go on"], chat=chat_with(Stopped(["Later."], 1000)))
    turns = [(turn.user, turn.assistant, turn.finish_reason) for turn in chat.conversation.turns]
    kept = [("count", "One two ", "stopped")] if after else []
    assert turns == [*kept, ("go on", "Later.", "stop")], screen
    assert ("(stopped; kept" if after else "(stopped before it began") in screen


def test_what_the_model_writes_cannot_steer_the_terminal(play):
    class Split(Scripted):
        def stream(self, messages, options):
            pieces = ("safe \x1b", "]0;title\x07", "\x9b31m", "\u202egnp.exe", "\r\x08 end")
            yield from pieces
            return Reply("".join(pieces), "stop")

    screen, *_ = play(["Hi", "/history"], chat=chat_with(Split([])))
    assert screen.count("safe ]0;title31mgnp.exe end") == 2, screen
    assert not set(screen) & set("\x07\x9b\u202e\x08\r"), "a control character reached the terminal"


@pytest.mark.parametrize(("text", "lines"), [
    ("one two three\n\nfour", "one two\nthree\n\nfour"), ("12345678 9", "12345678\n9"),
    ("guide.md#a-long-link two", "guide.md#a-long-link\ntwo"), ("  a\n    b", "  a\n    b")])
def test_lines_end_between_words(text, lines):
    assert folded(text, 8) == lines


def test_a_growing_text_only_gets_longer_on_the_screen():
    text = "It was the best of times,  it was the worst of times.\n\n- one\n- " + "two three " * 9
    shown = [folded(settled(text[:n]), 12) for n in range(len(text))]
    assert all(after.startswith(before) for before, after in zip(shown, shown[1:], strict=False))
    assert max(map(len, shown[-1].split("\n"))) <= 12
    assert len(settled("\u6c34" * 100)) == 70, "a language without spaces should not wait for one"


def test_the_guides_words_are_told_from_the_models():
    turn = Turn("q", "Mine.", sources=[Source("7.2 Top-p", "g.md#72-top-p", "The nucleus."),
                                       Source("7.1 Top-k", "g.md#71-top-k")])
    text = as_text(turn)
    places = [text.index(part) for part in (
        "The guide says in 7.2 Top-p (guides/g.md#72-top-p)", "The nucleus.", "7.1 Top-k",
        "In the model's own words:", "Mine.")]
    assert places == sorted(places) and as_text(Turn("q", "Mine.")) == "Mine."


def test_save_and_load(play, tmp_path):
    _, _, first = play(["/system Be brief.", "Hi", "/save monday", "More", "/save"], ["a", "b"])
    screen, _, second = play(["/load", "/load monday", "/history"])
    assert second.conversation == first.conversation and "Saved conversations: monday" in screen
    assert "Loaded monday: 2 turns" in screen
    play(["Hi", "/save x"], ["first"])
    screen, *_ = play(["Hi", "/save x"], ["second"])
    assert "there is a saved conversation x already" in screen
    assert "first" in (tmp_path / "chats" / "x.json").read_text(encoding="utf-8")
    play(["Hi", "/save x --force"], ["third"])
    assert "third" in (tmp_path / "chats" / "x.json").read_text(encoding="utf-8")
    screen, *_ = play(["Hi", "/save y", "/reset", "Hi", "/save y", "/save"], ["kept", "another"])
    assert "there is a saved conversation y already" in screen and "/save takes a name" in screen
    assert "kept" in (tmp_path / "chats" / "y.json").read_text(encoding="utf-8")


def test_a_damaged_chat_is_one_line_and_the_chat_goes_on(play, tmp_path):
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "torn.json").write_text('{"version": 2, "tur', encoding="utf-8")
    screen, _, chat = play(["Hi", "/load torn", "Bye"], ["a", "b"])
    assert "torn.json: line 1, column" in screen and len(chat.conversation.turns) == 2


def test_lines_from_a_pipe_give_answers_without_prompts(play):
    screen, *_ = play(["Hi", "/nonsense", "caf\udce9"], ["Hello.", "Bye."], interactive=False)
    assert "you>" not in screen and play.error.startswith("1 of the lines")
    assert screen.startswith("Hello.\n\nBye.\n\n"), "standard output should hold answers only"


def test_a_closed_standard_input_is_its_end(play, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert not is_interactive()
    _, backend, _ = play(["never read"], interactive=None)
    assert backend.sent == [] and not play.error


# The script as a process of its own, with a scripted model, which needs no torch

MODEL = """if True:
    import sys, time
    sys.path.insert(0, {code!r})
    import ex_04_ai_assistant as ex
    from assistant import backends
    from assistant.backends import Scripted

    class Slow(Scripted):
        def stream(self, messages, options):
            pieces = super().stream(messages, options)
            while True:
                try:
                    yield next(pieces)
                except StopIteration as end:
                    return end.value
                time.sleep({pause})

    backends.find = lambda settings: (Slow({answers!r}, 5000), "")
    ex.runtime.run(ex.main)
"""


def command(answers, pause, folder) -> list[str]:
    code = MODEL.format(code=str(REPOSITORY / "code"), answers=answers, pause=pause)
    return [sys.executable, "-c", code, "--output", str(folder)]


def test_a_pipe_on_a_cp1252_console(tmp_path):
    typed = "Hello 🙂\r\nna\u00efve\n/system \u2192\n\n/frob\n/save x".encode()
    done = subprocess.run(command(["A \U0001f642 \u2192 \u00ef.", "Two."], 0, tmp_path / "out"), input=typed,
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[:4] == [b"A ? ? \xef.", b"", b"Two.", b""], "the answers, one below the other"
    assert b"no command /frob" in done.stderr and b"error: 1 of the lines" in done.stderr
    assert b"Traceback" not in done.stderr and b"scripted, from a list" in done.stderr
    assert (tmp_path / "out" / "chats" / "x.json").exists()
    done = subprocess.run(command(["Yes."], 0, tmp_path / "out"), input=b"Hi", capture_output=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, [b"Yes."])


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_ctrl_c_at_a_real_terminal(tmp_path):
    import pty

    parent, child = pty.openpty()
    process = subprocess.Popen(command([" ".join(map(str, range(200))), "Short."], 0.1, tmp_path / "out"), stdin=child,
                               stdout=child, stderr=child, env={**os.environ, "TERM": "dumb"})
    os.close(child)
    screen = b""

    def until(*texts: bytes) -> None:
        """Read on until all these texts were seen, one after the other; they are then done with."""
        nonlocal screen
        deadline = time.monotonic() + 100
        for text in texts:
            while text not in screen:
                assert time.monotonic() < deadline and process.poll() is None, f"{text} did not come: {screen!r}"
                if select.select([parent], [], [], 1)[0]:
                    screen += os.read(parent, 4096)
            screen = screen[screen.index(text) + len(text):]

    try:
        until(b"Exercise 4", b"you> ")
        os.write(parent, b"count\n")
        until(b"0 1 2 ")
        process.send_signal(signal.SIGINT)
        until(b"(stopped; kept as far as it went)", b"you> ")
        os.write(parent, b"and now\n")
        until(b"Short.", b"you> ")
        os.write(parent, b"/history\n")
        until(b"stopped by you", b"Short.", b"you> ")
        time.sleep(1)  # readline first shows its prompt, then waits; a signal in between is seen at the next key only
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, "Ctrl-C at the prompt should leave with status 0"
        assert b"Traceback" not in screen
    finally:
        process.kill()
        process.wait()
        os.close(parent)
