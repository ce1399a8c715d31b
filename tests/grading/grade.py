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
import csv
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "code")]

import cases as case_tables  # noqa: E402
from tasks import EXERCISES, read_tasks, script_of  # noqa: E402
from values import decode, encode  # noqa: E402

from utils.runtime import OneLineParser, UserError, run, whole_number  # noqa: E402
from utils.session import write_whole  # noqa: E402

LARGEST_FILE, LARGEST_ZIP = 2_000_000, 50_000_000  # bytes
STATES = "graded, missing (no file), import error (the file does not even load), grader error (look at it yourself)"


@dataclass(frozen=True)
class Submission:
    """A student's name, as the folder tells it, and the file to grade; None where there is none."""

    name: str
    file: Path | None
    note: str = ""


# Finding the submissions


def find_submissions(where: Path, exercise: str, scratch: Path) -> list[Submission]:
    """One submission for each student. Raises UserError if there is nothing to grade.

    A .py file is one submission. Of a folder or zip each entry is a student's, unless the exercise's own script lies
    directly in it. scratch: where zips are unpacked to.
    """
    if not where.exists():
        raise UserError(f"{where}: there is no such file or folder")
    if where.is_file():
        if where.suffix.lower() == ".py":
            return [Submission(where.stem, where)]
        if where.suffix.lower() != ".zip":
            raise UserError(f"{where}: give a .py file, a zip, or a folder of them")
        where = unpack(where, scratch / "all")
    entries = sorted(p for p in where.iterdir() if not p.name.startswith((".", "__MACOSX")))
    folders = [p for p in entries if p.is_dir()]
    if len(entries) == len(folders) == 1 and any(p.is_dir() for p in folders[0].iterdir()):
        return find_submissions(folders[0], exercise, scratch)  # the one folder of an unpacked download
    if (where / script_of(exercise).name).is_file() and not folders:
        return [Submission(where.resolve().name, where / script_of(exercise).name)]
    found = []
    for entry in entries:
        if entry.is_dir():
            found.append(choose(entry.name, entry, exercise, scratch))
        elif entry.suffix.lower() == ".py":
            found.append(Submission(entry.stem, entry))
        elif entry.suffix.lower() == ".zip":
            try:
                found.append(choose(entry.stem, unpack(entry, scratch / safe_name(entry.stem)), exercise, scratch))
            except UserError as error:
                found.append(Submission(entry.stem, None, str(error)))
    if not found:
        raise UserError(f"{where}: there is no .py file, zip or folder of a student in it")
    return found


def choose(name: str, folder: Path, exercise: str, scratch: Path) -> Submission:
    """The file of one student's folder: the script by its name, or else one that looks like it."""
    files = sorted(p for p in folder.rglob("*.py") if "__MACOSX" not in p.parts and not p.name.startswith("."))
    zips = sorted(folder.glob("*.zip"))
    if not files and len(zips) == 1:
        try:
            return choose(name, unpack(zips[0], scratch / safe_name(name)), exercise, scratch)
        except UserError as error:
            return Submission(name, None, str(error))
    right = script_of(exercise).name
    for rule, note in ((lambda p: p.name == right, ""),
                       (lambda p: exercise in p.name.lower().replace("-", "_"), "misnamed: it should be " + right),
                       (lambda p: len(files) == 1, "misnamed: it should be " + right)):
        chosen = [p for p in files if rule(p)]
        if len(chosen) == 1:
            return Submission(name, chosen[0], note and f"{chosen[0].name} is {note}")
        if chosen:
            return Submission(name, None, f"{len(chosen)} files could be meant: " + ", ".join(p.name for p in chosen))
    return Submission(name, None, f"no {right} among {', '.join(p.name for p in files) or 'no .py files'}")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip. Raises UserError if it is damaged or too large; no file leaves the folder."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [m for m in zipped.infolist() if not m.is_dir()]
            if sum(m.file_size for m in members) > LARGEST_ZIP * 20 or len(members) > 20_000:
                raise UserError(f"{archive.name}: unpacked it is too large")
            for member in members:
                parts = [safe_name(p) for p in PurePosixPath(member.filename.replace("\\", "/")).parts]
                target = folder.joinpath(*parts)
                if member.file_size > LARGEST_ZIP or not parts:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{archive.name}: cannot be unpacked ({error})") from None
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def safe_name(name: str) -> str:
    """A name that is a file name everywhere: no separators, no dots alone, not too long."""
    name = re.sub(r"[^\w.,@+=() -]", "_", name).strip(". ")[:100]
    return name or "_"


# Grading one


class Grader:
    """A sandbox, the reference solution, and the cases of an exercise with their right values."""

    def __init__(self, exercise: str, seed: int) -> None:
        from sandbox import Sandbox

        self.exercise, self.seed = exercise, seed
        self.tasks = read_tasks(script_of(exercise).read_text(encoding="utf-8"))
        self.cases = case_tables.draw(exercise, seed)
        unknown = {case.function for case in self.cases} ^ {task.function for task in self.tasks}
        if unknown or sum(task.points for task in self.tasks) != 100:
            raise SystemExit(f"tasks and cases of {exercise} do not match, or make not 100 points: {unknown}")
        self.expected = self.expect(exercise, self.cases)
        self.sandbox = Sandbox().__enter__()
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
        record = {"submission": submission.name, "note": submission.note, "state": "missing", "score": 0.0,
                  "max_score": 100, "seed": self.seed, "measures": self.measures, "cases": []}
        if submission.file is None:
            return record
        if submission.file.is_symlink() or submission.file.stat().st_size > LARGEST_FILE:
            return record | {"state": "grader error", "note": "the file is a link, or larger than 2 MB"}
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
                if report.when == "call" or report.failed:
                    number = int(re.search(r"\[(\d+) ", report.nodeid)[1])
                    outcomes[number] = "" if report.outcome == "passed" else str(report.longrepr or "skipped")

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pytest.main([str(HERE / "judge.py"), "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest",
                         "-c", os.devnull, "--rootdir", str(HERE), f"--junitxml={junit}"], plugins=[Plugin()])
        return outcomes


# Grading all


_grader: Grader | None = None  # of this process


def start_worker(exercise: str, seed: int) -> None:
    """Called once in each process of the pool."""
    global _grader
    _grader = Grader(exercise, seed)


def grade_one(job: tuple[Submission, Path, str]) -> dict:
    """Grade a submission and keep its record; whatever goes wrong, there is a row."""
    submission, out, identity = job
    name, start = safe_name(submission.name), time.monotonic()
    try:
        record = _grader.grade(submission, out / "junit" / f"{name}.xml")
    except Exception as error:  # a fault of ours must not cost the others their grades
        record = {"submission": submission.name, "state": "grader error", "score": 0.0, "max_score": 100, "cases": [],
                  "note": f"{type(error).__name__}: {error}", "seed": _grader.seed, "measures": _grader.measures}
    record |= {"identity": identity, "seconds": time.monotonic() - start}
    write_whole(out / "records" / f"{name}.json",
                lambda p: p.write_text(json.dumps(record, indent=1), encoding="utf-8"))
    return record


def identity_of(submission: Submission, exercise: str, seed: int) -> str:
    """What a record depends on: the submission, the seed, the grader and the reference solution."""
    digest = hashlib.sha256(f"{seed} {submission.name} {submission.note}".encode())
    for file in (submission.file, script_of(exercise), *sorted(HERE.glob("*.py"))):
        digest.update(file.read_bytes() if file else b"")
    return digest.hexdigest()


def grade_all(exercise: str, submissions: list[Submission], out: Path, seed: int, jobs: int) -> list[dict]:
    """Grade what has no record yet, in several processes; returns all records in the order of the submissions."""
    from tqdm import tqdm

    for name in ("records", "junit", "reports", "gradescope"):
        (out / name).mkdir(parents=True, exist_ok=True)
    records, todo = {}, []
    for submission in submissions:
        before = read_record(out, submission.name)
        identity = identity_of(submission, exercise, seed)
        if before and before.get("identity") == identity and before["state"] != "grader error":
            records[submission.name] = before
        else:
            todo.append((submission, out, identity))
    if len(todo) < len(submissions):
        print(f"{len(submissions) - len(todo)} of {len(submissions)} were graded before, and nothing has changed.")
    if todo:
        pool = multiprocessing.get_context("spawn").Pool(min(jobs, len(todo)), start_worker, (exercise, seed))
        with pool:
            for record in tqdm(pool.imap_unordered(grade_one, todo), total=len(todo), desc="grading", unit="file",
                               disable=None):
                records[record["submission"]] = record
    return [records[submission.name] for submission in submissions]


def read_record(out: Path, name: str) -> dict | None:
    """The record of an earlier run, or None."""
    try:
        return json.loads((out / "records" / f"{safe_name(name)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# What instructors and students read


def report(record: dict, exercise: str) -> str:
    """A student's report in Markdown: what each task gave and why; neither inputs nor right values of hidden cases."""
    lines = [f"# {exercise}: {record['submission']}", "",
             f"**{record['score']:g} of {record['max_score']} points** ({record['state']})", ""]
    if record["note"]:
        lines += [f"Note: {record['note']}", ""]
    by_task: dict[str, list[dict]] = {}
    for row in record["cases"]:
        by_task.setdefault(row["task"], []).append(row)
    for task, rows in by_task.items():
        got, of = (sum(row["points"] for row in rows if row["passed"] or all_) for all_ in (False, True))
        lines += [f"## Task {task}, `{rows[0]['function']}`: {got:g} of {of:g} points".replace(".0 ", " "), ""]
        for row in rows:
            lines.append(f"- {'passed' if row['passed'] else '**not passed**'}: {row['case']}"
                         + ("" if row["passed"] else f": {row['problem']}.")
                         + (f" Likely cause: {row['hint']}." if row["hint"] and not row["passed"]
                            and row["problem"] != "not written yet" else ""))
        if got < of:
            lines.append(f"- read: {case_tables.guide_section(exercise, rows[0]['function'])}")
        lines.append("")
    if record.get("printed"):
        printed = record["printed"].replace("```", "'''")
        lines += ["What the file printed, shortened:", "", "```text", printed, "```", ""]
    cage = ", ".join(f"{name}: {'yes' if held else 'no'}" for name, held in record["measures"].items()) \
        if record.get("measures") else ""
    return "\n".join([*lines, f"Inputs were drawn with seed {record['seed']}. The cage on this computer: {cage}.", ""])


def gradescope(record: dict, exercise: str) -> dict:
    """results.json as Gradescope's documentation describes it: a score for each test, none at the top."""
    if not record["cases"]:
        return {"score": 0.0, "output": f"{record['state']}: {record['note']}", "visibility": "visible", "tests": []}
    return {"output": record["note"], "visibility": "visible", "tests": [
        {"name": f"Task {row['task']}, {row['function']}: {row['case']}", "number": row["task"],
         "score": round(row["points"], 3) if row["passed"] else 0.0, "max_score": round(row["points"], 3),
         "status": "passed" if row["passed"] else "failed",
         "output": "" if row["passed"] else row["problem"] + (f" Likely cause: {row['hint']}." if row["hint"] else ""),
         "visibility": "visible"} for row in record["cases"]]}


def changes(before: dict[str, dict], records: list[dict]) -> str:
    """Who has another score than before, and which cases made the difference; "" if nobody."""
    lines = []
    for record in records:
        old = before.get(record["submission"])
        if old and (old["score"], old["state"]) != (record["score"], record["state"]):
            passed = {(row["function"], row["case"]): row["passed"] for row in old["cases"]}
            why = [f"{row['function']}: {row['case']} is {'passed now' if row['passed'] else 'no longer passed'}"
                   for row in record["cases"] if passed.get((row["function"], row["case"])) != row["passed"]]
            lines.append(f"- {record['submission']}: {old['score']:g} ({old['state']}) is now {record['score']:g} "
                         f"({record['state']}). " + ("; ".join(why) or record["note"]))
    return "# Changed scores\n\n" + "\n".join(lines) + "\n" if lines else ""


def spreadsheet(records: list[dict]) -> str:
    """grades.csv: a row for each submission, with points by task."""
    tasks = sorted({row["task"] for record in records for row in record["cases"]})
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["submission", "score", "max_score", "state", "note", *(f"task {task}" for task in tasks)])
    for record in records:
        # A cell that begins with one of these is a formula to a spreadsheet.
        name, note = (("'" + text if text[:1] in "=+-@" and text else text)
                      for text in (record["submission"], record["note"]))
        writer.writerow([name, f"{record['score']:g}", record["max_score"], record["state"], note, *(
            f"{sum(row['points'] for row in record['cases'] if row['task'] == task and row['passed']):g}"
            for task in tasks)])
    return file.getvalue()


def main(argv: list[str] | None = None) -> dict:
    """Grade, write everything, print a table; returns {"records": [...]}. Raises UserError."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercise", choices=EXERCISES)
    parser.add_argument("what", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for grades and reports")
    parser.add_argument("--seed", type=whole_number, default=1, help="hidden inputs are drawn from it; keep it to "
                        "yourself, and the same for all (default: %(default)s)")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    args = parser.parse_args(argv)
    if not 1 <= args.jobs <= 64:
        raise UserError("-j: give a number from 1 to 64")
    with tempfile.TemporaryDirectory(prefix="submissions-") as scratch:
        submissions = find_submissions(args.what.expanduser(), args.exercise, Path(scratch))
        before = {s.name: record for s in submissions if (record := read_record(args.out, s.name))}
        try:
            records = grade_all(args.exercise, submissions, args.out.expanduser(), args.seed, args.jobs)
        except OSError as error:
            raise UserError(f"--out {args.out}: cannot write there ({error.strerror})") from None
    files = {"grades.csv": spreadsheet(records), "changes.md": changes(before, records)}
    for record in records:
        name = safe_name(record["submission"])
        files[f"reports/{name}.md"] = report(record, args.exercise)
        (args.out / "gradescope" / name).mkdir(exist_ok=True)
        files[f"gradescope/{name}/results.json"] = json.dumps(gradescope(record, args.exercise), indent=1)
    for name, text in files.items():
        if text:
            write_whole(args.out / name, lambda p, text=text: p.write_text(text, encoding="utf-8", newline="\n"))
    for record in records:
        print(f"{record['score']:6.4g} of 100  {record['state']:12}  {record['submission']}"
              + (f"  ({record['note']})" if record["note"] else ""))
    print(f"Grades are in {args.out / 'grades.csv'}, reports beside it"
          + (", and what changed in changes.md." if files["changes.md"] else "."))
    return {"records": records}


if __name__ == "__main__":
    run(main)
