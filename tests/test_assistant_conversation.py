"""Exercise 4's history: what is saved comes back whole; a wrong file is named with its entry."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from assistant.conversation import Conversation, Source, Turn, messages_of
from utils.runtime import UserError

TEXTS = ("Plain.", "naïve 日本語 🙂", 'quotes " and \\ and\nlines', "<|im_end|>", "\x1b[31m\x00", "{}", " ")


def talk(seed: int = 0, turns: int = 3) -> Conversation:
    """A conversation with every kind of text in it."""
    pick = random.Random(seed)
    return Conversation(pick.choice(TEXTS), pick.choice(["tutor", None]), pick.choice([None, "Failed"]), [
        Turn(pick.choice(TEXTS), pick.choice(TEXTS),
             finish_reason=pick.choice(["stop", "length", "stopped", None]),
             sources=[Source(*pick.sample(TEXTS, 3))], notes=pick.sample(TEXTS, 1),
             prompt_tokens=pick.choice([None, 7]), seconds=pick.choice([0.0, 0.25]))
        for _ in range(turns)])


@pytest.mark.parametrize("seed", range(8))
def test_what_is_saved_comes_back(tmp_path, seed):
    path, conversation = tmp_path / "new" / "chat.json", talk(seed, turns=seed % 5)
    conversation.save(path)
    assert Conversation.load(path) == conversation
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Conversation.load(path) == conversation, "a Windows editor's marks should not matter"


def test_only_the_owner_can_read_it_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "chat.json"
    talk().save(path)
    talk(1).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"], "a temporary file was left behind"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600, "other people can read the conversation"


def test_a_lone_half_of_a_character_can_be_saved(tmp_path):
    Conversation("half \ud83d", turns=[Turn("half \ud83d", "answer")]).save(tmp_path / "chat.json")
    assert Conversation.load(tmp_path / "chat.json").turns[0].user == "half \ufffd"


def test_reset_keeps_the_system_prompt_and_turns_become_messages():
    conversation = talk()
    assert [m["role"] for m in messages_of(conversation.turns)] == ["user", "assistant"] * 3
    conversation.reset()
    assert conversation == Conversation(talk().system, talk().persona)


GOOD = {"version": 2, "system": "", "persona": None, "failed": None,
        "turns": [{"user": "a", "assistant": "b"}, {"user": "c", "assistant": "d"}]}


def edited(**changes):
    """The good file with its second turn changed."""
    data = json.loads(json.dumps(GOOD))
    data["turns"][1].update(changes)
    return data


@pytest.mark.parametrize(("content", "expected"), [
    ("", "chat.json: line 1, column 1: "),
    ('{"version": 2,\n"system": "", oops', "chat.json: line 2, column 15: "),
    (b"\xff\xfe", "chat.json: byte 0 is not UTF-8"),
    ("[" * 100_000, "chat.json: a number is too long or the brackets are nested too deep"),
    ([1], "chat.json: top level: "),
    ({}, "chat.json: version: "),
    ({**GOOD, "version": 1}, "chat.json: version: "),
    ({**GOOD, "system": 3}, "chat.json: system: "),
    ({**GOOD, "messages": []}, "chat.json: messages: "),
    (edited(user=None), "chat.json: turns[1].user: "),
    (edited(assistant=["x"]), "chat.json: turns[1].assistant: "),
    (edited(finish_reason="tired"), "chat.json: turns[1].finish_reason: "),
    (edited(notes=["fine", 1]), "chat.json: turns[1].notes[1]: "),
    (edited(prompt_tokens="7"), "chat.json: turns[1].prompt_tokens: "),
    (edited(sources=[{"heading": "x"}]), "chat.json: turns[1].sources[0].link: "),
])
def test_a_wrong_file_is_named_with_its_entry(tmp_path, content, expected):
    path = tmp_path / "chat.json"
    data = content if isinstance(content, (str, bytes)) else json.dumps(content)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError) as caught:
        Conversation.load(path)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_where_nothing_can_be_written_one_line_says_so_and_the_earlier_file_stays(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write .* the conversation is not saved"):
        talk().save(tmp_path / "file" / "chat.json")
    path = tmp_path / "chat.json"
    talk().save(path)

    def full(self, text, **_):
        with self.open("w", encoding="utf-8") as file:
            file.write(text[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        talk(1, 50).save(path)
    assert Conversation.load(path) == talk()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chat.json", "file"]
