"""Grading: the student version, what is wrong in words, submissions as they are downloaded, and grades."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from utils.runtime import REPOSITORY, UserError

GRADING = REPOSITORY / "tests" / "grading"
sys.path.insert(0, str(GRADING))

import cases  # noqa: E402
import grade  # noqa: E402
import make_gradescope_zip  # noqa: E402
import make_student_version  # noqa: E402
import reports  # noqa: E402
from sandbox import Sandbox  # noqa: E402
from submissions import Submission, find_submissions  # noqa: E402
from tasks import EXERCISES, TASK, blank, read_tasks, script_of, solutions  # noqa: E402
from values import Other, decode, difference, encode, plain  # noqa: E402

SCRIPT = script_of("ex_01")
SOURCE = SCRIPT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("without fork each task imports torch anew: minutes")
    made = grade.Grader("ex_01", 1, tmp_path_factory.mktemp("cage"))
    made.sandbox.limits |= {"import_seconds": 5, "call_seconds": 5}
    yield made
    made.close()


@pytest.fixture(scope="module")
def student_version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "course"
    make_student_version.make(folder)
    return folder


# Tasks


@pytest.mark.parametrize("exercise", EXERCISES)
def test_tasks_make_100_points_and_each_has_cases_examples_and_a_section_of_the_guide(exercise):
    tasks, drawn = read_tasks(script_of(exercise).read_text(encoding="utf-8")), cases.draw(exercise, 3)
    assert 5 <= len(tasks) <= 7 and sum(task.points for task in tasks) == 100
    assert [task.number for task in tasks] == [f"{exercise[-1]}.{i + 1}" for i in range(len(tasks))]
    assert {task.function for task in tasks} == {case.function for case in drawn}
    for task in tasks:
        assert any(case.public for case in drawn if case.function == task.function), task
        file, _, section = cases.guide_section(exercise, task.function).partition(", ")
        assert f"# {section}\n" in (REPOSITORY / file).read_text(encoding="utf-8"), (file, section)


def test_cases_are_drawn_from_the_seed():
    first, again, other = (json.dumps([encode(case.arguments) for case in cases.draw("ex_02", seed)])
                           for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("source", [
    "# Task 1.1 (100 points)\ndef f():\n    return 1\n",
    "def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION\n",
    "# Task 1.1 (9 points)\ndef f():\n    # BEGIN SOLUTION\n    x = 1\n    # END SOLUTION\n"
    "    # BEGIN SOLUTION\n    return x\n    # END SOLUTION\n"])
def test_a_task_without_one_solution_is_refused(source):
    with pytest.raises(ValueError, match="solution|SOLUTION"):
        read_tasks(source)


# The student version


def test_the_student_version_holds_no_solution(student_version):
    for exercise in EXERCISES:
        source = script_of(exercise).read_text(encoding="utf-8")
        text = (student_version / "code" / script_of(exercise).name).read_text(encoding="utf-8")
        functions = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
        for task in read_tasks(source):
            docstring, missing = functions[task.function].body
            assert isinstance(docstring, ast.Expr) and isinstance(missing, ast.Raise)
            assert f"Task {task.number} is missing" in ast.unparse(missing)
        assert len(TASK.findall(text)) == len(read_tasks(source))
        telling = {line.strip() for line in solutions(source) if len(line.strip()) > 45}
        for path in student_version.rglob("*.py"):
            lines = set(map(str.strip, path.read_text(encoding="utf-8").splitlines()))
            assert not telling & lines, path
    assert not {"test_ex_01.py", "grading", "mutants"} & {path.name for path in student_version.rglob("*")}


def test_the_student_version_is_the_same_bytes_each_time(student_version, tmp_path):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    make_student_version.make(tmp_path / "again")
    assert content(tmp_path / "again") == content(student_version)


@pytest.mark.slow
def test_examples_say_in_words_what_is_wrong(student_version, tmp_path):
    """Exercise 1 with one mistake, exercise 2 blank, the others solved: run as a student runs them."""
    mistaken = SOURCE.replace("key=lambda i: -probs[i].max()", "key=lambda i: probs[i].max()")
    scripts = {exercise: script_of(exercise).read_text(encoding="utf-8") for exercise in EXERCISES} | {
        "ex_01": mistaken, "ex_02": blank(script_of("ex_02").read_text(encoding="utf-8"), "ex_02.py")}
    originals = {name: (student_version / "code" / script_of(name).name) for name in EXERCISES}
    kept = {name: path.read_text(encoding="utf-8") for name, path in originals.items()}
    for name, text in scripts.items():
        originals[name].write_text(text, encoding="utf-8")
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], cwd=student_version,
                              capture_output=True, text=True, encoding="utf-8")
    finally:
        for name, text in kept.items():
            originals[name].write_text(text, encoding="utf-8")
    examples = json.loads((student_version / "tests" / "examples.json").read_text(encoding="utf-8"))
    blanks = sum(example["exercise"] == "ex_02" for example in examples)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("FAILED") and "ex_02" not in line]
    assert len(wrong) == 1 and "confident_mistakes" in wrong[0], done.stdout
    assert f"{blanks + 1} failed, {len(examples) - blanks - 1} passed" in done.stdout
    for words in ("Task 2.1 is missing: write keep_top_k in", "the result is wrong in", "expected: [", "got:      [",
                  "likely cause: a mistake:", "read: guides/"):
        assert words in done.stdout


def test_an_occupied_folder_is_refused(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(UserError, match="give a new folder"):
        make_student_version.make(tmp_path)


# What is wrong, in words


@pytest.mark.parametrize("expected, got, words", [
    (1.0, 1.00001, ""), (3, np.float16(3), ""), ([1.0, 2.0], np.array([1, 2]), ""), ((1, "a"), [1, "a"], ""),
    ([], np.zeros(0), ""), ({"a": None}, {"a": None}, ""), ([[1, 2.0]], [(1, np.float32(2))], ""),
    (1.0, 1.1, "the result is 1.1, which is not right, by 0.1"),
    ([1, 2], [2, 1], "the result is wrong in 2 of 2 numbers; one is 2"),
    ([1.0, 2.0], [1.0, 2.5], "wrong in 1 of 2 numbers, by up to 0.5; one is 2.5"),
    (np.zeros((2, 3)), np.zeros((3, 2)), "the shape (3, 2), and should have (2, 3)"),
    (np.zeros(2), np.array([0, np.nan]), "contains nan"),
    (np.array([0, -np.inf]), np.array([-np.inf, 0]), "1 infinite numbers"),
    (1.0, "1.0", "should be a number, and is a str"), (1.0, True, "should be a number, and is a bool"),
    ("a", "b", "is 'b', which is not right"), ("a", None, "should be a str, and is None"),
    (["a", "b"], ["a"], "has 1 entries, and should have 2"), (["a"], "a", "should be a list or tuple"),
    ({"a": 1}, {"b": 1}, "has the keys ['b'], and should have ['a']"),
    ({"a": [("x", 1.0)]}, {"a": [("x", 2.0)]}, "the result['a'][0][1] is 2, which is not right, by 1"),
    (1.0, Other("Equal"), "is a Equal, which is no plain value"), (None, 0, "should be None, and is an int"),
])
def test_a_difference_is_told_in_words(expected, got, words):
    found = difference(expected, got)
    assert words in found and bool(words) == bool(found)


def test_values_travel_as_json_and_arrive_the_same():
    import torch

    value = {"a": [1, 2.5, None, True, "x"], "b": (float("inf"), np.arange(6).reshape(2, 3)), 3: torch.ones(2)}
    back = decode(json.loads(json.dumps(encode(value))), tensor=torch.from_numpy)
    assert back["a"] == value["a"] and back["b"][0] == float("inf") and torch.equal(back[3], value[3])
    assert back["b"][1].tolist() == value["b"][1].tolist()
    assert decode(encode(object())).kind == "object"


@pytest.mark.parametrize("line", [
    "", "nonsense", "[]", "3", "null", '{"call": "0", "value": 1}', '{"call": true, "value": 1}', '{"call": 1.0}',
    '{"call": [], "value": 1}', '{"call": 0}', '{"passed": true, "score": 100}', "[" * 100_000])
def test_lines_that_mean_nothing_answer_nothing(line):
    answers = Sandbox._understand({"lines": ['{"imported": true}', line], "printed": "", "state": "ended"})
    assert not answers.values and not answers.errors and not answers.import_error


def test_the_first_line_of_a_call_counts_and_its_text_can_be_written():
    lines = ['{"call": 0, "error": "x\\ud800\\u0000"}', '{"call": 0, "value": 1}', '{"imported": true}',
             '{"import_error": "late"}']
    answers = Sandbox._understand({"lines": lines, "printed": "\x1b[2J\n", "state": "ended"})
    assert answers.errors == {0: "x  "} and not answers.values and not answers.import_error
    assert answers.printed == " [2J\n" and plain("a\x00" + "b" * 500) == "a " + "b" * 298


@pytest.mark.parametrize("value", [
    {"$": "array", "dtype": "object", "shape": [1], "data": ""}, {"$": "array", "dtype": "float32", "shape": [9**9],
     "data": ""}, {"$": "list"}, {"$": "dict", "items": [[[], 1]]}, {"$": "float", "value": "x"}, [1], {"no": 1}])
def test_values_that_encode_does_not_write_are_no_pass(value):
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(value)


# Submissions, as they come


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as zipped:
                zipped.writestr(f"__MACOSX/._{SCRIPT.name}", "")
                zipped.writestr(f"work/{SCRIPT.name}", "x = 1\n")
        else:
            path.write_text("x = 1\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("names, found", [
    ([f"Anna Müller_12345_assignsubmission_file_/{SCRIPT.name}", "Ben O'Hara_12346_assignsubmission_file_/ex 1.py"],
     {"Anna Müller_12345_assignsubmission_file_": "", "Ben O_Hara_12346_assignsubmission_file_": "misnamed"}),
    (["mullerann_12_34_ex_01_bert_classification-1.py", "ohara_LATE_13_35_homework.zip", "x_14_36_notes.docx"],
     {"mullerann_12_34_ex_01_bert_classification-1": "", "ohara_LATE_13_35_homework": "",
      "x_14_36_notes": "there is no"}),
    (["assignment_1_export/submission_metadata.yml", f"assignment_1_export/submission_77/{SCRIPT.name}",
      f"assignment_1_export/submission_78/code/{SCRIPT.name}"], {"submission_77": "", "submission_78": ""}),
    (["anna 2026-11-25 10:30/a.py", "anna 2026-11-25 10_30/a.py"],
     {"anna 2026-11-25 10_30": "misnamed", "anna 2026-11-25 10_30+": "misnamed"}),
    (["anna/work.zip", ".DS_Store", "ben/ex-01.py", "ben/helper.py", "cleo/a.py", "cleo/b.py"],
     {"anna": "", "ben": "misnamed", "cleo": "2 files could be meant"}),
])
@pytest.mark.parametrize("zipped", [False, True])
def test_each_student_is_one_submission(names, found, zipped, tmp_path):
    folder = write(tmp_path / "in", *names)
    if zipped:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in folder.rglob("*"):
                archive.write(path, path.relative_to(folder))
    (tmp_path / "scratch").mkdir()
    rows = find_submissions(tmp_path / "all.zip" if zipped else folder, "ex_01", tmp_path / "scratch")
    assert {row.name for row in rows} == set(found)
    for row in rows:
        assert found[row.name] in row.note and bool(found[row.name]) == bool(row.note)
        assert (row.file is None) == ("there is no" in row.note or "could be" in row.note)


def test_one_file_or_one_student_s_folder_is_one_submission(tmp_path):
    folder = write(tmp_path / "anna", SCRIPT.name, "extra/one.py")
    for what, single in ((folder / SCRIPT.name, False), (folder, True)):
        (row,) = find_submissions(what, "ex_01", tmp_path, single)
        assert row.file == folder / SCRIPT.name and not row.note


def test_a_zip_cannot_write_outside_of_its_folder(tmp_path):
    for name in ("scratch", "in"):
        (tmp_path / name).mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "eve.zip", "w") as zipped:
        zipped.writestr("../../../evil.py", "x = 1\n")
        zipped.writestr("/tmp/evil.txt", "")
    (row,) = find_submissions(tmp_path / "in", "ex_01", tmp_path / "scratch")
    assert tmp_path / "scratch" in row.file.parents and ".." not in row.file.parts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "scratch"]


def test_a_damaged_zip_and_a_link_are_rows_and_an_empty_folder_is_one_line(tmp_path):
    folder = write(tmp_path / "in", "ben.py")
    (folder / "anna.zip").write_bytes(b"PK no zip")
    try:
        (folder / "cleo.py").symlink_to(folder / "ben.py")
    except OSError:  # Windows wants a right for it
        (folder / "cleo.txt").touch()
    rows = {row.name: row for row in find_submissions(folder, "ex_01", tmp_path)}
    assert "cannot be unpacked" in rows["anna"].note and rows["cleo"].file is None and rows["ben"].file
    (tmp_path / "empty").mkdir()
    for what, words in ((tmp_path / "empty", "no .py file"), (tmp_path / "none", "no such file")):
        with pytest.raises(UserError, match=words):
            find_submissions(what, "ex_01", tmp_path)


# Grading


BREAKS = {
    "right": (SOURCE, "graded", 100), "blank": (blank(SOURCE, SCRIPT.name), "graded", 0),
    "half": (SOURCE.replace("-probs[i].max()", "probs[i].max()"), "graded", 90),
    "broken": ("def find_word(:\n", "import error", 0),
    "looping": (SOURCE + "\n\ndef sense_similarity(*a):\n    while True: pass\n", "graded", 85),
    "endless": ("while True: pass\n", "import error", 0),
    "leaving": (SOURCE + "\nimport os\ndef sense_similarity(*a): os._exit(0)\n", "graded", 85),
    "hostile": (blank(SOURCE, SCRIPT.name) + """
import os, sys
for handle in range(3, 64):
    try: os.write(handle, b'{"call": 0, "value": 1, "passed": true}\\n')
    except OSError: pass
def baselines(*a): os.kill(os.getppid(), 9)
def find_word(*a): raise ValueError("\\ud800 ``` <b>")
""", "graded", 0)}


@pytest.fixture(scope="module")
def graded(grader, tmp_path_factory):
    """A folder with all kinds of submissions, graded: (records by name, folder of the grades, function that grades)."""
    folder, out = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("grades")
    for name, (source, *_) in BREAKS.items():
        (folder / f"={name}").mkdir()
        (folder / f"={name}" / SCRIPT.name).write_text(source, encoding="utf-8")
    (folder / "nothing").mkdir()

    def again() -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grade, "grader_of", lambda *key: grader)
            patch.setattr(grade, "ProcessPoolExecutor", lambda jobs, context: ThreadPoolExecutor(1))
            records = grade.main(["ex_01", str(folder), "--out", str(out)])["records"]
        return {record["submission"].strip("="): record for record in records}

    return again(), out, folder, again


@pytest.mark.slow
def test_whatever_breaks_there_is_one_row(graded):
    records, out, *_ = graded
    assert {name: (r["state"], r["score"]) for name, r in records.items()} == {
        **{name: row[1:] for name, row in BREAKS.items()}, "nothing": ("missing", 0)}
    rows = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text(encoding="utf-8"))))
    assert len(rows) == len(records) and {row["max_score"] for row in rows} == {"100"}
    assert all(row["submission"][0] in "'n" for row in rows)  # "=" would begin a formula
    assert {row["submission"]: row["task 1.4"] for row in rows}["'=half"] == "0"


@pytest.mark.slow
def test_a_report_says_what_was_wrong_and_not_what_is_right(graded):
    _, out, *_ = graded
    texts = {path.stem.strip("="): path.read_text(encoding="utf-8") for path in (out / "reports").iterdir()}
    assert "**90 of 100 points** (graded)" in texts["half"]
    assert "Task 1.4, `confident_mistakes`: 0 of 10 points" in texts["half"]
    assert "counts when 'twelve reviews' is right" in texts["half"] and "Likely cause: a mistake" in texts["half"]
    assert "not written yet" in texts["blank"] and "a person should look" in texts["broken"]
    assert "invalid syntax (line 1 of your file)" in texts["broken"]
    assert "did not end within the time limit" in texts["looping"]
    assert "while it was loaded: it did not end within the time limit" in texts["endless"]
    assert "does it call exit?" in texts["leaving"] and "it was not tried" in texts["leaving"]
    assert "time is limited: yes" in texts["right"] and "seed" not in texts["right"]


@pytest.mark.slow
def test_results_are_as_gradescope_documents_them(graded):
    records, out, *_ = graded
    top = {"score": float, "output": str, "visibility": str, "tests": list}
    each = {"name": str, "number": str, "score": float, "max_score": float, "status": str, "output": str,
            "visibility": str}
    for name, record in records.items():
        result = json.loads((out / "gradescope" / record["submission"] / "results.json").read_text(encoding="utf-8"))
        assert all(type(value) is top[key] for key, value in result.items())
        assert ("score" in result) != bool(result["tests"])  # a score at the top would override those of the tests
        for test in result["tests"]:
            assert set(test) == set(each) and all(type(value) is each[key] for key, value in test.items())
            assert test["status"] in ("passed", "failed") and test["score"] in (0.0, test["max_score"])
        if result["tests"]:
            assert sum(test["score"] for test in result["tests"]) == pytest.approx(record["score"], abs=0.02), name
            assert sum(test["max_score"] for test in result["tests"]) == pytest.approx(100, abs=0.02)


@pytest.mark.slow
def test_junit_names_each_case_with_its_points(graded):
    from xml.etree import ElementTree

    suite = ElementTree.parse(graded[1] / "junit" / "=half.xml").getroot().find("testsuite")
    assert suite.get("failures") == "2" and int(suite.get("tests")) == len(cases.draw("ex_01", 1))
    points = [float(p.get("value")) for p in suite.iter("property") if p.get("name") == "points"]
    assert sum(points) == pytest.approx(100, abs=0.02)


@pytest.mark.slow
def test_graded_again_only_what_changed_is_run_and_told(graded, capsys):
    _, out, folder, again = graded
    again()
    assert f"{len(BREAKS) + 1} of {len(BREAKS) + 1} were graded before" in capsys.readouterr().out
    assert not (out / "changes.md").exists()
    (folder / "=half" / SCRIPT.name).write_text(SOURCE, encoding="utf-8")
    assert again()["half"]["score"] == 100
    changes = (out / "changes.md").read_text(encoding="utf-8")
    assert "=half: 90 (graded) is now 100 (graded). confident_mistakes: twelve reviews is passed now" in changes
    assert changes.count("\n- ") == 1


def test_a_fault_of_the_grader_is_a_row_to_look_at(monkeypatch, tmp_path):
    def fault(*key):
        raise OSError("no space")

    monkeypatch.setattr(grade, "grader_of", fault)
    (tmp_path / "records").mkdir()
    record = grade.grade_one(Submission("anna", SCRIPT), "ex_01", 1, tmp_path, tmp_path, "x")
    assert record["state"] == "grader error" and "no space" in record["note"]
    assert "a person should look" in reports.report(record, "ex_01")


@pytest.mark.slow
def test_points_only_for_a_recorded_pass(grader, tmp_path, monkeypatch):
    monkeypatch.setattr(grader, "judge", lambda answers, junit: {})
    record = grader.grade(Submission("anna", SCRIPT), tmp_path / "x.xml")
    assert (record["state"], record["score"]) == ("grader error", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Gradescope runs Linux")
def test_the_autograder_s_zip_grades_what_lies_where_gradescope_puts_it(tmp_path):
    make_gradescope_zip.main(["ex_01", str(tmp_path / "a.zip"), "--seed", "7"])
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert {"setup.sh", "run_autograder"} <= set(zipped.namelist())
        assert {name.split("/")[0] for name in zipped.namelist()} == {"setup.sh", "run_autograder", "course"}
        assert zipped.getinfo("run_autograder").external_attr >> 16 == 0o755
        zipped.extractall(tmp_path / "source")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    (tmp_path / "venv" / "bin" / "python").chmod(0o755)
    write(tmp_path / "submission", "one.py", "deep/two.py")  # grading a right file takes longer: see the benchmark
    for script in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", str(tmp_path / "source" / script)], check=True)
    subprocess.run(["bash", str(tmp_path / "source" / "run_autograder")], check=True, capture_output=True,
                   env={**os.environ, "AUTOGRADER": str(tmp_path)})
    result = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert result["score"] == 0 and result["output"] == "missing: 2 files could be meant: two.py, one.py"
