"""A run: what is complete is on the disk at once, nothing is half-written, and a resumed run does not repeat it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from utils import session as sessions
from utils.runtime import UserError
from utils.session import Session, write_whole


def settings(folder, **changes):
    return argparse.Namespace(**{"output": folder, "resume": False, "device": "cpu", "seed": 1, "preset": "smoke",
                                 **changes})


def run(folder, parts, run=None, exercise="ex_01", **changes):
    """A run of the given parts, {name: value or exception}; returns the results."""
    def computing(value):
        def compute():
            computed.append(value)
            if isinstance(value, BaseException):
                raise value
            return value
        return compute

    computed = []
    with Session(exercise, settings(folder, **changes)) as session:
        session.open("Exercise", {"model": "tiny"} if run is None else run, {})
        for name, value in parts.items():
            session.part(name, name, "", computing(value))
        return session.close() | {"computed": computed}


def on_disk(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_each_part_is_on_the_disk_when_the_next_one_fails(tmp_path):
    with pytest.raises(ZeroDivisionError) as bug:
        run(tmp_path / "out", {"one": {"a": 1}, "two": ZeroDivisionError("a bug")})
    results = on_disk(tmp_path / "out")
    assert results["parts"] == {"one": {"a": 1}} and not results["finished"]
    assert "in part 'two'" in bug.value.last_words and ": one. " in bug.value.last_words
    assert "--resume" in bug.value.last_words


def test_a_resumed_run_computes_only_what_is_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", {"one": {"a": 1}, "two": KeyboardInterrupt()})
    results = run(tmp_path / "out", {"one": {"a": "again"}, "two": {"b": 2}}, resume=True)
    assert results["computed"] == [{"b": 2}] and results["finished"]
    assert results["parts"] == on_disk(tmp_path / "out")["parts"] == {"one": {"a": 1}, "two": {"b": 2}}


def test_a_finished_run_is_shown_again_and_not_repeated(tmp_path):
    run(tmp_path / "out", {"one": {"a": 1}})
    assert run(tmp_path / "out", {"one": {"a": 2}}, resume=True)["computed"] == []
    assert run(tmp_path / "out", {"one": {"a": 2}})["parts"] == {"one": {"a": 2}}, "without --resume it starts afresh"


@pytest.mark.parametrize("changes, run_facts, says", [
    ({"seed": 2}, {"model": "tiny"}, "had seed 1, this command has 2"),
    ({}, {"model": "other"}, "had model tiny, this command has other")])
def test_resume_wants_the_same_settings_and_model(tmp_path, changes, run_facts, says):
    run(tmp_path / "out", {"one": {}})
    with pytest.raises(UserError, match=says):
        run(tmp_path / "out", {"one": {}}, run_facts, resume=True, **changes)


def test_resume_of_nothing_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        run(tmp_path / "out", {}, resume=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_named_without_guessing_why_and_earlier_parts_stay(tmp_path, number):
    with pytest.raises(UserError, match="part 'two' .* in map: ") as error:
        run(tmp_path / "out", {"one": {"a": 1}, "two": {"right": [1.0], "map": [{"x": [0.5, number]}]}})
    assert "learning rate" not in str(error.value)
    assert on_disk(tmp_path / "out")["parts"] == {"one": {"a": 1}}


def test_arrays_become_lists(tmp_path):
    import numpy as np
    import torch

    value = {"a": np.arange(2), "b": (torch.ones(1), np.float32(0.5)), 3: tmp_path}
    assert run(tmp_path / "out", {"one": value})["parts"]["one"] == {"a": [0, 1], "b": [[1.0], 0.5], "3": str(tmp_path)}


def test_the_home_of_nobody_is_a_folder_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Path("~nobody_here"), {"one": {}})
    assert on_disk(tmp_path / "~nobody_here")["finished"]


def test_texts_that_utf8_cannot_hold_are_written_and_compared_as_it_can(tmp_path):
    facts = {"data": Path("caf\udce9.csv")}  # a byte of another encoding in a file's name
    run(tmp_path / "out", {"one": {"text": "cut \ud83d"}}, facts)
    assert run(tmp_path / "out", {}, facts, resume=True)["parts"] == {"one": {"text": "cut \ufffd"}}
    with pytest.raises(UserError, match="no UTF-8; choose another folder"):
        run(tmp_path / "caf\udce9", {}, facts)


def test_views_get_what_the_file_holds(tmp_path):
    seen = []
    with Session("ex_01", settings(tmp_path)) as session:
        session.open("Exercise", {}, {})
        session.part("one", "one", "", lambda: {"a": (1,)}, lambda numbers, folder: seen.append((numbers, folder)))
    assert seen == [({"a": [1]}, tmp_path)]


def test_a_second_run_into_the_same_folder_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    with pytest.raises(ZeroDivisionError) as kept:  # as a notebook keeps the traceback, and all that hangs on it
        with Session("ex_01", settings(tmp_path)) as session:
            session.open("Exercise", {}, {})
            with pytest.raises(UserError, match="another run is writing"):
                run(tmp_path, {})
            raise ZeroDivisionError
    run(tmp_path, {})
    assert kept


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="did not write"):
        run(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_exercises_folder_is_left_alone(tmp_path):
    run(tmp_path, {"one": {}})
    with pytest.raises(UserError, match="belongs to ex_01"):
        run(tmp_path, {}, exercise="ex_03")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"exercise": "ex_01"}'])
def test_damaged_results_are_one_line(tmp_path, damage):
    (tmp_path / "results.json").write_text(damage, encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        run(tmp_path, {})


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write there"):
        run(tmp_path / "file" / "out", {})


@pytest.mark.parametrize("short, says", [({"disk_mb": 1e12}, "free some space"), ({"memory_mb": 1e12}, "of memory")])
def test_what_is_short_is_said_before_the_work(tmp_path, short, says):
    with Session("ex_01", settings(tmp_path)) as session, pytest.raises(UserError, match=says):
        session.open("Exercise", {}, {}, **short)


def test_a_failed_write_leaves_the_earlier_file_whole(tmp_path):
    def fails_half_way(path):
        path.write_text("ha", encoding="utf-8")
        raise OSError("no room")

    file = write_whole(tmp_path / "file", lambda path: path.write_text("whole", encoding="utf-8"))
    with pytest.raises(OSError):
        write_whole(file, fails_half_way)
    assert [(p.name, p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()] == [("file", "whole")]


def test_a_folder_is_replaced_as_a_whole_and_put_back_after_a_kill(tmp_path):
    for name in ("old", "new"):
        write_whole(tmp_path / "model", lambda p, name=name: (p.mkdir(), (p / name).touch()))
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["new"]
    (tmp_path / "model").rename(tmp_path / "partial-old-model")  # killed between the two renames
    with pytest.raises(OSError):
        write_whole(tmp_path / "model", lambda p: (_ for _ in ()).throw(OSError()))
    assert (tmp_path / "model" / "new").exists() and len(list(tmp_path.iterdir())) == 1


def test_only_torchruns_first_process_writes(tmp_path, monkeypatch):
    run(tmp_path, {"one": {"a": 1}})
    monkeypatch.setenv("RANK", "1")
    with Session("ex_01", settings(tmp_path)) as session:
        session.open("Exercise", {}, {})
        assert session.part("two", "two", "", lambda: {"b": 2}) == {}
        assert session.part("train", "train", "", lambda: {"c": 3}, everywhere=True) == {"c": 3}
        session.close()
    assert on_disk(tmp_path)["parts"] == {"one": {"a": 1}} and sessions.is_main_process() is False


def test_parts_that_need_an_unwritten_task_are_left_out_and_the_others_run(tmp_path):
    def missing():
        raise NotImplementedError("Task 1.1 is missing: write encode")

    with Session("ex_01", settings(tmp_path)) as session:
        session.open("Exercise", {}, {})
        one = session.part("one", "one", "", missing)
        assert session.part("two", "two", "", lambda: {"b": one["a"] + 1}) == {}
        assert session.part("three", "three", "", lambda: {"c": 3}) == {"c": 3}
        with pytest.raises(UserError, match="left out until their tasks are written: one, two$"):
            session.close()
    assert on_disk(tmp_path)["parts"] == {"three": {"c": 3}} and not on_disk(tmp_path)["finished"]


def test_a_library_that_does_not_implement_something_is_no_task(tmp_path):
    with pytest.raises(NotImplementedError):
        run(tmp_path, {"one": NotImplementedError("not implemented for this tensor")})
