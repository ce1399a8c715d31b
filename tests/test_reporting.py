"""Output folders: nothing half-written, nothing of somebody else's touched, one run at a time."""

from __future__ import annotations

import json

import pytest

from utils import reporting
from utils.reporting import OutputFolder
from utils.runtime import UserError

SETTINGS = {"seed": 1}


def test_a_failed_write_leaves_the_earlier_file_whole(tmp_path):
    output = OutputFolder(tmp_path / "out", "ex_01", SETTINGS)
    output.save_results({"accuracy": 0.5})

    def fails_half_way(path):
        path.write_text('{"accuracy": 0.', encoding="utf-8")
        raise OSError("no room")

    with pytest.raises(OSError):
        output.write("results.json", fails_half_way)
    assert json.loads((output.path / "results.json").read_text(encoding="utf-8")) == {"accuracy": 0.5}
    assert not list(output.path.glob("partial-*")), "half a file was left behind"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    output = OutputFolder(tmp_path / "out", "ex_01", SETTINGS)
    for name in ("old", "new"):
        output.write("model", lambda p, name=name: (p.mkdir(), (p / name).touch()))
    assert [p.name for p in (output.path / "model").iterdir()] == ["new"]


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    first = OutputFolder(tmp_path / "out", "ex_01", SETTINGS)
    with pytest.raises(UserError, match="another run is writing"):
        OutputFolder(tmp_path / "out", "ex_01", SETTINGS)
    first.release()
    OutputFolder(tmp_path / "out", "ex_01", SETTINGS).release()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="did not write"):
        OutputFolder(tmp_path, "ex_01", SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_exercise_s_folder_is_left_alone(tmp_path):
    OutputFolder(tmp_path / "out", "ex_01", SETTINGS).release()
    with pytest.raises(UserError, match="belongs to ex_01"):
        OutputFolder(tmp_path / "out", "ex_03", SETTINGS)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write there"):
        OutputFolder(tmp_path / "file" / "out", "ex_01", SETTINGS)


def test_resume_wants_a_run_with_the_same_settings(tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        OutputFolder(tmp_path / "out", "ex_01", SETTINGS, resume=True)
    OutputFolder(tmp_path / "out", "ex_01", SETTINGS).release()
    with pytest.raises(UserError, match="had seed 1, this command has 2"):
        OutputFolder(tmp_path / "out", "ex_01", {"seed": 2}, resume=True)
    OutputFolder(tmp_path / "out", "ex_01", SETTINGS, resume=True).release()


def test_too_little_room_is_said_before_the_work(tmp_path):
    output = OutputFolder(tmp_path / "out", "ex_01", SETTINGS)
    output.check_room(0.1)
    with pytest.raises(UserError, match="free some space"):
        output.check_room(1e12)
    output.release()


@pytest.mark.parametrize("text", ["a[:x:]", "12:a:3", "[bold]x[/bold]", "[/]"])
def test_text_is_taken_literally(text, capsys):
    reporting.say(text)
    assert capsys.readouterr().out == text + "\n"
