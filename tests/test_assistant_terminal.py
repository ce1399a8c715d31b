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
from assistant.backends import BackendError, Options, Scripted
from assistant.terminal import Terminal
from utils import course_data, reporting
from utils.runtime import REPOSITORY

DATA = course_data.load_conversations()


@pytest.fixture
def chat(tmp_path, monkeypatch, capfd):
    """chat(lines, answers) types the lines; returns (what is on the screen, the back end, the assistant, failures).

    A line may be an exception, which the prompt then raises.
    """
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(reporting, "_console", None)  # an earlier one has another width

    def play(lines, answers=(), interactive=True, assistant=None, claim=None):
        assistant = assistant or ex.Assistant(Scripted(answers, 1000), DATA, Options(50, seed=1))
        queue = iter(lines)

        def typed(prompt=""):
            print(prompt, end="")
            line = next(queue, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typed)
        terminal = Terminal(assistant, tmp_path / "chats", claim, interactive)
        failures = terminal.run()
        captured = capfd.readouterr()
        return captured.out + captured.err, assistant.backend, assistant, failures

    return play


def test_a_conversation(chat):
    screen, backend, assistant, failures = chat(["My name is Priya.", "  ", "What is my name?"], ["Hello.", "Priya."])
    assert "Hello." in screen and "Priya." in screen and failures == 0
    assert [m["content"] for m in backend.sent[1]] == ["My name is Priya.", "Hello.", "What is my name?"]
    assert len(assistant.conversation.turns) == 2, "the empty line should not be sent"


@pytest.mark.parametrize("end", [EOFError(), KeyboardInterrupt(), "/quit", "/QUIT"])
def test_leaving_is_quiet(chat, end):
    screen, *_ = chat(["Hi", end, "never reached"], ["Hello."])
    assert "Hello." in screen and "Traceback" not in screen


def test_system_prompt_and_persona_survive_a_reset(chat):
    _, backend, assistant, _ = chat(["/system Be brief.", "Hi", "/reset", "Hi"], ["a", "b"])
    assert [m["content"] for m in backend.sent[1]] == ["Be brief.", "Hi"]
    screen, backend, assistant, _ = chat(["/persona socratic", "/reset", "Hi", "/persona"], ["a"])
    assert backend.sent[0][0] == {"role": "system", "content": DATA["personas"]["socratic"]["system"]}
    assert assistant.conversation.persona == "socratic"
    assert all(name in screen for name in DATA["personas"])


def test_commands_that_are_unknown_or_wrong_reach_no_model(chat):
    lines = ["/frobnicate", "/", "/ hello", "/retry", "/persona pirate", "/technique magic", "/technique plain x",
             "/technique few-shot nothing", "/technique retrieval", "/save", "/save ../up", "/save a b", "/save con",
             "/load nobody", "/load ../../etc/passwd", "/save .hidden"]
    screen, backend, _, failures = chat(lines)
    assert backend.sent == [] and failures == len(lines), screen
    for said in ("no command /frobnicate", "nothing to ask again", "no persona 'pirate'", "no technique 'magic'",
                 "takes a name", "'../up' cannot be the name", "none is saved yet", "'con' cannot be"):
        assert said in screen, f"{said!r} is missing"


def test_two_slashes_send_a_text_that_begins_with_one(chat):
    _, backend, *_ = chat(["//etc is a folder?"], ["Yes."])
    assert backend.sent[0][0]["content"] == "/etc is a folder?"


def test_the_list_of_commands_is_what_there_is(chat):
    screen, *_ = chat(["/help"])
    for name in "help system persona technique reset history retry save load tokens quit".split():
        assert f"/{name}" in screen


def test_a_fault_is_one_sentence_and_retry_asks_again(chat):
    answers = ["First.", BackendError("The server is not running: start it."),
               ("Half an ans", BackendError("Cut off.")), "Whole."]
    screen, backend, assistant, failures = chat(["one", "two", "/history", "/retry", "/retry"], answers)
    assert "The server is not running: start it. Nothing of this turn is kept; /retry asks again." in screen
    assert "Cut off." in screen and "Whole." in screen and failures == 2
    assert [turn.user for turn in assistant.conversation.turns] == ["one", "two"]
    assert backend.sent[1] == backend.sent[2] == backend.sent[3], "/retry should send the same messages"


def test_retry_of_a_good_answer_replaces_it(chat):
    screen, backend, assistant, _ = chat(["Hi", "/retry"], ["Hello.", "Good day."])
    assert [turn.assistant for turn in assistant.conversation.turns] == ["Good day."]
    screen, *_ = chat(["Hi", "/retry"], ["Hello.", "Hello."])
    assert "--temperature" in screen, "it should say why the answer is the same again"


@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_during_an_answer_stops_only_the_answer(chat, after):
    class Twice(Scripted):
        def stream(self, messages, options):
            if not self.sent:
                self.sent.append(messages)
                yield from ["One ", "two "][:after]
                raise KeyboardInterrupt
            return (yield from super().stream(messages, options))

    assistant = ex.Assistant(Twice(["Later."], 1000), DATA, Options(50))
    screen, _, _, failures = chat(["count", "go on"], assistant=assistant)
    turns = [(turn.user, turn.assistant, turn.finish_reason) for turn in assistant.conversation.turns]
    kept = [("count", "One two ", "stopped")] if after else []
    assert turns == [*kept, ("go on", "Later.", "stop")], screen
    assert ("(stopped; kept" if after else "(stopped before it began") in screen and failures == 0


def test_what_the_model_writes_cannot_steer_the_terminal(chat):
    class Split(Scripted):
        def stream(self, messages, options):
            yield from ("safe \x1b", "]0;title\x07", "\x9b31m", "\u202egnp.exe", "\r\x08 end")
            return (yield from Scripted([""]).stream(messages, options))

    screen, *_ = chat(["Hi", "/history"], assistant=ex.Assistant(Split([]), DATA, Options(50)))
    assert screen.count("safe ]0;title31mgnp.exe end") == 2, screen
    assert not set(screen) & set("\x07\x9b\u202e\x08\r"), "a control character reached the terminal"


def test_what_was_left_out_or_cut_is_said_below_the_answer(chat):
    assistant = ex.Assistant(Scripted(["a " * 60, "b", "c " * 100], 210), DATA, Options(90))
    screen, *_ = chat(["word " * 30, "word " * 60, "more"], assistant=assistant)
    assert "left out the oldest 1 turn, which did not fit" in screen
    assert "stopped at the length limit of 90 tokens" in screen
    assert "tokens after" in screen


def test_a_message_longer_than_the_context_is_refused_and_harms_nothing(chat):
    screen, backend, assistant, _ = chat(["Hi", "word " * 2000, "Bye"], ["Hello.", "Bye."])
    assert "does not fit into the model's context" in screen and len(backend.sent) == 2
    assert [turn.user for turn in assistant.conversation.turns] == ["Hi", "Bye"]


def test_save_and_load(chat, tmp_path):
    screen, _, first, _ = chat(["/system Be brief.", "Hi", "/save monday", "More", "/save"], ["a", "b"])
    assert (tmp_path / "chats" / "monday.json").exists()
    screen, _, second, failures = chat(["/load", "/load monday", "/tokens", "/history"])
    assert second.conversation == first.conversation and "saved are: monday" in screen and "Loaded monday" in screen
    assert failures == 0


def test_another_chat_is_not_overwritten_without_force(chat, tmp_path):
    chat(["Hi", "/save x"], ["first"])
    screen, *_, failures = chat(["Hi", "/save x", "/save X.json"], ["second"])
    assert failures >= 1 and "there is a saved conversation x already" in screen
    assert "first" in (tmp_path / "chats" / "x.json").read_text(encoding="utf-8")
    chat(["Hi", "/save x --force"], ["third"])
    assert "third" in (tmp_path / "chats" / "x.json").read_text(encoding="utf-8")


def test_a_damaged_chat_or_a_full_disk_is_one_line_and_the_chat_goes_on(chat, tmp_path):
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "torn.json").write_text('{"version": 1, "mess', encoding="utf-8")

    def full():
        raise OSError(28, "No space left on device")

    screen, _, assistant, failures = chat(["Hi", "/load torn", "/save x", "Bye"], ["a", "b"], claim=full)
    assert "torn.json: line 1, column" in screen and "No space left on device" in screen and failures == 2
    assert len(assistant.conversation.turns) == 2


def test_a_lone_half_of_a_character_is_no_trouble(chat):
    _, backend, *_ = chat(["caf\udce9", "/system \udce9"], ["ok \ud83d", ""])
    assert backend.sent[0][0]["content"] == "caf\ufffd"


def test_lines_from_a_pipe_give_answers_without_prompts(chat, capfd):
    screen, *_, failures = chat(["Hi", "/nonsense", "Bye"], ["Hello.", "Bye."], interactive=False)
    assert "you>" not in screen and failures == 1
    assert screen.startswith("Hello.\n\nBye.\n\n"), "standard output should hold the answers and nothing else"


# The script as a process of its own, with a scripted model, which needs no torch

MODEL = """if True:
    import sys, time
    sys.path.insert(0, {code!r})
    import ex_04_ai_assistant as ex
    from assistant.backends import Scripted

    class Slow(Scripted):
        def stream(self, messages, options):
            for piece in super().stream(messages, options):
                yield piece
                time.sleep({pause})
            return (yield from Scripted([""]).stream(messages, options))

    ex.make_backend = lambda args: (Slow({answers!r}, 5000), "")
    ex.run(ex.main)
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
