"""Exercise 4's history: what is saved comes back whole, whatever happens meanwhile; a wrong file is named exactly."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time

import pytest

from assistant.conversation import Conversation, Turn, well_formed
from utils.runtime import UserError

TEXTS = ("Plain.", "naïve 日本語 🙂", 'quotes " and \\ and\nlines', "<|im_end|>", "\x1b[31m\x00", "{}", " ")


def talk(seed: int = 0, turns: int = 3) -> Conversation:
    """A conversation with every kind of text in it."""
    pick = random.Random(seed)
    return Conversation(pick.choice(TEXTS), pick.choice(["tutor", None]), [
        Turn(pick.choice(TEXTS), pick.choice(TEXTS), pick.choice(["stop", "length", "stopped", None]),
             sources=pick.sample(TEXTS, 2), notes=pick.sample(TEXTS, 1), prompt_tokens=pick.choice([None, 7]),
             seconds=pick.choice([None, 0.25])) for _ in range(turns)], pick.choice([None, "What failed"]))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_saved_comes_back(tmp_path, seed):
    conversation = talk(seed, turns=seed % 5)
    conversation.save(tmp_path / "new" / "chat.json")
    assert Conversation.load(tmp_path / "new" / "chat.json") == conversation


def test_only_the_owner_can_read_it_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "chat.json"
    talk().save(path)
    talk(1).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"], "a temporary file was left behind"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600, "other people can read the conversation"


def test_a_file_touched_by_a_windows_editor_still_loads(tmp_path):
    path = tmp_path / "chat.json"
    talk().save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Conversation.load(path) == talk()


def test_halves_of_characters_are_mended():
    assert well_formed("a\ud83d\ude42b") == "a🙂b", "two halves make one character"
    assert well_formed("a\ud83db") == "a\ufffdb"
    assert well_formed("\ufeffnaïve 日本語 🙂\x00") == "\ufeffnaïve 日本語 🙂\x00"


def test_a_lone_half_of_a_character_can_be_saved(tmp_path):
    Conversation("system", None, [Turn("half \ud83d", "answer")]).save(tmp_path / "chat.json")
    assert Conversation.load(tmp_path / "chat.json").turns[0].user == "half ?"


def test_reset_keeps_the_system_prompt():
    conversation = talk()
    conversation.reset()
    assert conversation == Conversation(talk().system, talk().persona)


GOOD = {"version": 1, "system": "", "persona": None, "messages": [
    {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}


def edited(**changes):
    """The good file with one message changed: edited(at=2, role="system")."""
    data = json.loads(json.dumps(GOOD))
    data["messages"][changes.pop("at")].update(changes)
    return data


@pytest.mark.parametrize(("content", "expected"), [
    ("", "chat.json: line 1, column 1: "),
    ('{"version": 1,\n"system": "", oops', "chat.json: line 2, column 15: "),
    (b"\xff\xfe", "chat.json: byte 0 is not UTF-8"),
    ("[" * 100_000, "chat.json: a number is too long or the brackets are nested too deep"),
    ([1], "chat.json: top level: this is not a saved conversation"),
    ({"messages": []}, "chat.json: top level: this is not a saved conversation"),
    ({**GOOD, "version": 2}, "chat.json: version: 2 is another version"),
    ({**GOOD, "system": 3}, "chat.json: system: has the wrong type"),
    ({"version": 1, "system": "", "persona": None}, "chat.json: messages: is missing"),
    (edited(at=2, role="assistant"), "chat.json: line 14, messages[2].role: should be user"),
    (edited(at=1, role="tool"), "chat.json: line 10, messages[1].role: should be assistant"),
    (edited(at=0, role="system"), "chat.json: line 6, messages[0].role: should be user"),
    (edited(at=3, content=["x"]), "chat.json: line 18, messages[3].content: should be text"),
    (edited(at=1, finish_reason="tired"), "chat.json: line 10, messages[1].finish_reason: should be one of"),
    (edited(at=1, notes="x"), "chat.json: line 10, messages[1].notes: should be a list"),
    (edited(at=1, seconds="fast"), "chat.json: line 10, messages[1].seconds: should be a number"),
    ({**GOOD, "messages": GOOD["messages"][:3]}, "chat.json: line 14, messages[2]: is a question without its answer"),
    ({**GOOD, "messages": [*GOOD["messages"], 5]}, "chat.json: line 22, messages[4]: should be an object"),
])
def test_a_wrong_file_is_named_with_line_and_entry(tmp_path, content, expected):
    path = tmp_path / "chat.json"
    data = content if isinstance(content, (str, bytes)) else json.dumps(content, indent=1)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError) as caught:
        Conversation.load(path)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="^none.json: cannot read .*none.json"):
        Conversation.load(tmp_path / "none.json")


def test_where_nothing_can_be_written_one_line_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write .* the conversation is not saved"):
        talk().save(tmp_path / "file" / "chat.json")


def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "chat.json"
    talk().save(path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        talk(1, 50).save(path)
    assert Conversation.load(path) == talk()
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
def test_killed_while_saving_never_leaves_a_torn_file(tmp_path):
    path = tmp_path / "chat.json"
    for attempt in range(5):
        before = path.stat().st_mtime_ns if path.exists() else 0
        child = os.fork()
        if child == 0:
            try:
                while True:
                    Conversation(str(attempt), None, [Turn("question", "x" * 100_000)] * 10).save(path)
            finally:
                os._exit(1)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(0.003 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        saved = Conversation.load(path)
        assert (saved.system, len(saved.turns)) == (str(attempt), 10), "the file is torn"
