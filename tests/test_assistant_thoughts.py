"""Thoughts inside of a model's text, wherever its pieces cut them."""

from __future__ import annotations

import pytest

from assistant.thoughts import answer_start, without_thoughts

# text -> answer, with the prompt having opened the thoughts or not
TEXTS = [
    ("Paris", False, "Paris"),
    ("\n Paris", False, "\n Paris"),
    ("<think>\n7 or 9?\n</think>\n\nParis is <b>it</b>.", False, "Paris is <b>it</b>."),
    ("\n<THINK></THINK>\n<think>again</think>Paris", False, "Paris"),
    ("[THINK]hm [/THINK]Paris", False, "Paris"),
    ("<thinking>so</think> no</thinking>\nParis", False, "Paris"),
    ("<think>never ends", False, ""),
    ("never ends", True, ""),
    ("hm\n</think>\nParis", True, "Paris"),
    ("<thi", False, "<thi"),
    ("<", False, "<"),
    ("<this> is no thought</this>", False, "<this> is no thought</this>"),
    ("The tags are <think> and </think>.", False, "The tags are <think> and </think>."),
    ("It ends with `</think>`.", False, "It ends with `</think>`."),
    (" \n", False, " \n"),
    ("", False, ""),
]


def run(pieces, thinking):
    yielded, running = [], without_thoughts(pieces, thinking)
    while True:
        try:
            yielded.append(next(running))
        except StopIteration as end:
            return "".join(yielded), end.value


@pytest.mark.parametrize(("text", "thinking", "answer"), TEXTS)
def test_thoughts_are_no_answer_wherever_they_are_cut(text, thinking, answer):
    cuts = [[text], list(text), *([text[:cut], text[cut:]] for cut in range(len(text)))]
    for pieces in cuts:
        assert run(pieces, thinking) == (answer, answer), f"cut as {pieces}"


def test_thoughts_that_nobody_announced_are_not_returned():
    assert run(["It is 7, or ", "9.\n</think>\n\n", "Paris"], False)[1] == "Paris"


def test_the_answer_comes_as_soon_as_it_is_sure():
    assert [*without_thoughts(["<thi", "nk>hm</think>", "Pa", "ris"])] == ["", "", "Pa", "ris"]
    assert [*without_thoughts(["Pa", "ris <th"])] == ["Pa", "ris <th"], "nothing to wait for"
    assert answer_start("Paris") == 0 and answer_start("<think>hm</think> Paris") == 18
    assert answer_start("<th") is None and answer_start("<think>hm") is None
