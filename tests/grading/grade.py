"""Grade one submission of an exercise, or a folder of them.

    python tests/grading/grade.py ex_01 submissions/anna.py --out grades
    python tests/grading/grade.py ex_01 submissions/ --out grades --seed 7 -j 2

FILE_OR_FOLDER: a .py file, a zip, or a folder with a file, a zip or a folder for each student, also as Moodle, Canvas
and Gradescope give it. In --out afterwards: grades.csv, a report for each submission in reports/, JUnit XML in junit/,
Gradescope's results.json in gradescope/, and records/, which let an interrupted run go on where it stopped. Graded
again, whoever has another score than before is listed in changes.md, with why. Students' code runs in a cage; each
report says of what it is made on this computer.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "code")]

from cases import draw  # noqa: E402
from reports import changes, gradescope, report, spreadsheet  # noqa: E402
from submissions import Submission, find_submissions  # noqa: E402
from tasks import EXERCISES, read_tasks, script_of  # noqa: E402
from values import decode, encode  # noqa: E402

from utils.runtime import OneLineParser, UserError, run, whole_number  # noqa: E402
from utils.session import write_whole  # noqa: E402

# Grading one


def empty_record(submission: Submission, seed: int) -> dict:
    """The record of a submission that was not run."""
    return {"submission": submission.name, "note": submission.note, "state": "missing", "score": 0.0, "max_score": 100,
            "seed": seed, "measures": {}, "cases": []}


class Grader:
    """A sandbox, the reference solution, and the cases of an exercise with their right values."""

    def __init__(self, exercise: str, seed: int, folder: Path | None = None) -> None:
        from sandbox import Sandbox

        self.exercise, self.seed = exercise, seed
        self.tasks = read_tasks(script_of(exercise).read_text(encoding="utf-8"))
        self.cases = draw(exercise, seed)
        unknown = {case.function for case in self.cases} ^ {task.function for task in self.tasks}
        if unknown or sum(task.points for task in self.tasks) != 100:
            raise ValueError(f"tasks and cases of {exercise} do not match, or make not 100 points: {unknown}")
        self.expected = self.expect(exercise, self.cases)
        self.sandbox = Sandbox(folder=folder).__enter__()
        self.measures = self.sandbox.measures()

    @staticmethod
    def expect(exercise: str, cases: list) -> list:
        """What the reference solution returns for each case, on arguments that have travelled as the student's do."""
        import fixtures
        import torch

        reference, objects, expected = importlib.import_module(script_of(exercise).stem), fixtures.build(), []
        for case in cases:
            torch.manual_seed(0)
            arguments = [decode(encode(value), objects, torch.from_numpy) for value in case.arguments]
            expected.append(getattr(reference, case.function)(*arguments))
        return [decode(encode(value)) for value in expected]

    def close(self) -> None:
        self.sandbox.__exit__()

    def points(self, case) -> float:
        """What a case is worth: its share of its task's points."""
        task = next(task for task in self.tasks if task.function == case.function)
        return task.points * case.weight / sum(c.weight for c in self.cases if c.function == case.function)

    def grade(self, submission: Submission, junit: Path) -> dict:
        """The record of one submission: state, score, and what each case gave."""
        record = empty_record(submission, self.seed) | {"measures": self.measures}
        answers = {}
        for task in self.tasks:
            numbers = [i for i, case in enumerate(self.cases) if case.function == task.function]
            reply = self.sandbox.run(submission.file, [
                {"function": task.function, "arguments": [encode(value) for value in self.cases[i].arguments],
                 "forbidden": self.cases[i].forbidden} for i in numbers])
            answers |= {number: (place, reply) for place, number in enumerate(numbers)}
            if reply.import_error:
                return record | {"state": "import error", "note": reply.import_error, "printed": reply.printed}
        outcomes = self.judge(answers, junit)
        record["cases"] = [
            {"task": task.number, "function": task.function, "case": case.name, "points": self.points(case),
             "passed": outcomes.get(i) == "", "problem": outcomes.get(i, "pytest gave no result"), "hint": case.hint,
             "public": case.public}
            for task in self.tasks for i, case in enumerate(self.cases) if case.function == task.function]
        for task in self.tasks:  # edge cases are worth something to whoever has the idea itself
            first, *others = (row for row in record["cases"] if row["task"] == task.number)
            for row in others:
                if row["passed"] and not first["passed"]:
                    row |= {"passed": False, "problem": f"counts when {first['case']!r} is right"}
        record["score"] = round(sum(row["points"] for row in record["cases"] if row["passed"]), 2)
        record["printed"] = next((reply.printed for _, reply in answers.values() if reply.printed), "")
        return record | {"state": "graded" if len(outcomes) == len(self.cases) else "grader error"}

    def judge(self, answers: dict, junit: Path) -> dict[int, str]:
        """Run pytest over the values that came back: number of the case -> "" for a pass, or what is wrong."""
        import pytest

        grader, outcomes = self, {}

        class Plugin:
            def pytest_generate_tests(self, metafunc):
                rows = [(case, grader.expected[i], answers[i], round(grader.points(case), 3))
                        for i, case in enumerate(grader.cases)]
                metafunc.parametrize("case, expected, answers, points", rows, ids=[
                    f"{i} {case.title}" for i, case in enumerate(grader.cases)])

            def pytest_runtest_logreport(self, report):
                if report.when == "call":  # a fault in setting up is ours: no outcome, which is a grader error
                    number = int(re.search(r"\[(\d+) ", report.nodeid)[1])
                    outcomes[number] = "" if report.outcome == "passed" else str(report.longrepr or "skipped")

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pytest.main([str(HERE / "judge.py"), "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest",
                         "-p", "no:unraisableexception", "-p", "no:threadexception",
                         "-c", os.devnull, "--rootdir", str(HERE), "-o", "junit_family=xunit1", f"--junitxml={junit}"],
                        plugins=[Plugin()])
        return outcomes


# Grading all


grader_of = functools.cache(Grader)  # one for each process


def grade_one(submission: Submission, exercise: str, seed: int, out: Path, scratch: Path, identity: str) -> dict:
    """Grade a submission and keep its record; whatever goes wrong, there is a row."""
    start, record = time.monotonic(), empty_record(submission, seed)
    try:
        if submission.file:
            record = grader_of(exercise, seed, scratch).grade(submission, out / "junit" / f"{submission.name}.xml")
    except Exception as error:  # a fault of ours must not cost the others their grades
        record |= {"state": "grader error", "note": f"{type(error).__name__}: {error}"}
    record |= {"identity": identity, "seconds": time.monotonic() - start}
    write_whole(out / "records" / f"{submission.name}.json",
                lambda p: p.write_text(json.dumps(record, indent=1), encoding="utf-8"))
    return record


def identity_of(submission: Submission, exercise: str, seed: int) -> str:
    """What a record depends on: the submission, the seed, the grader and the reference solution."""
    digest = hashlib.sha256(f"{seed} {submission.name} {submission.note}".encode())
    for file in (submission.file, script_of(exercise), *sorted(HERE.glob("*.py"))):
        digest.update(file.read_bytes() if file else b"")
    return digest.hexdigest()


def grade_all(exercise: str, submissions: list[Submission], out: Path, seed: int, jobs: int,
              scratch: Path) -> list[dict]:
    """Grade what has no record yet, in several processes; returns all records in the order of the submissions."""
    from tqdm import tqdm

    for name in ("records", "junit", "reports", "gradescope"):
        (out / name).mkdir(parents=True, exist_ok=True)
    records, todo = {}, []
    for submission in submissions:
        before, identity = read_record(out, submission.name), identity_of(submission, exercise, seed)
        if before and before.get("identity") == identity and before["state"] != "grader error":
            records[submission.name] = before
        else:
            todo.append((submission, exercise, seed, out, scratch, identity))
    if records:
        print(f"{len(records)} of {len(submissions)} were graded before, and nothing has changed.")
    if todo:
        with ProcessPoolExecutor(min(jobs, len(todo)), multiprocessing.get_context("spawn")) as pool:
            graded = as_completed(pool.submit(grade_one, *job) for job in todo)
            for future in tqdm(graded, total=len(todo), desc="grading", unit="file", disable=None):
                records[future.result()["submission"]] = future.result()
    return [records[submission.name] for submission in submissions]


def read_record(out: Path, name: str) -> dict | None:
    """The record of an earlier run, or None."""
    try:
        return json.loads((out / "records" / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# The command


def main(argv: list[str] | None = None) -> dict:
    """Grade, write everything, print a table; returns {"records": [...]}. Raises UserError."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercise", choices=EXERCISES)
    parser.add_argument("what", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for grades and reports")
    parser.add_argument("--seed", type=whole_number, default=1, help="hidden inputs are drawn from it; keep it to "
                        "yourself, and the same for all (default: %(default)s)")
    parser.add_argument("--single", action="store_true", help="the folder is one student's, whatever lies in it")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    args = parser.parse_args(argv)
    if not 1 <= args.jobs <= 64:
        raise UserError("-j: give a number from 1 to 64")
    out = args.out.expanduser()
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        submissions = find_submissions(args.what.expanduser(), args.exercise, Path(scratch), args.single)
        before = {s.name: record for s in submissions if (record := read_record(out, s.name))}
        try:
            records = grade_all(args.exercise, submissions, out, args.seed, args.jobs, Path(scratch))
        except BrokenProcessPool:
            raise UserError("a grading process was ended from outside (is there too little memory for -j?); start "
                            "again: what was graded is kept") from None
        except OSError as error:
            raise UserError(f"--out {out}: cannot write there ({error.strerror})") from None
    files = {"grades.csv": spreadsheet(records), "changes.md": changes(before, records)}
    for record in records:
        name = record["submission"]
        files[f"reports/{name}.md"] = report(record, args.exercise)
        (out / "gradescope" / name).mkdir(exist_ok=True)
        files[f"gradescope/{name}/results.json"] = json.dumps(gradescope(record), indent=1)
    for name, text in files.items():
        if text:
            write_whole(out / name, lambda p, text=text: p.write_text(text, encoding="utf-8", newline="\n"))
    for record in records:
        print(f"{record['score']:6.4g} of 100  {record['state']:12}  {record['submission']}"
              + (f"  ({record['note']})" if record["note"] else ""))
    print(f"Grades are in {out / 'grades.csv'}, reports beside it"
          + (", and what changed in changes.md." if files["changes.md"] else "."))
    return {"records": records}


if __name__ == "__main__":
    run(main)
