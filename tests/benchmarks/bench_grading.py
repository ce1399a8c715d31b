"""What the grader is worth: a table of (a) to (g), by running it. Minutes on two cores.

    python tests/benchmarks/bench_grading.py                      all exercises, 25 minutes
    python tests/benchmarks/bench_grading.py ex_02 --only abe     one exercise, some rows
    python tests/benchmarks/bench_grading.py --quick              (a), (c) and (e) in part, (b) on the first exercise

Writes what it measured into the table of guides/instructors_guide.md.

(a) points of the student version and of the reference   (b) points that hostile submissions gain, and harm done
(c) realistic mistakes that lose points, and only on the right task   (d) generated mutants that lose points
(e) points of other right solutions   (f) scores of the same submission graded 20 times, at both precisions
(g) minutes for 30 submissions on two processes

Exit status 1 when a row is not as it should be.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GRADING = REPOSITORY / "tests" / "grading"
GUIDE = REPOSITORY / "guides" / "instructors_guide.md"
sys.path[:0] = [str(GRADING), str(REPOSITORY / "code"), str(REPOSITORY / "tests")]

import grade  # noqa: E402
import hostile  # noqa: E402
from grade import Grader  # noqa: E402
from submissions import Submission  # noqa: E402
from tasks import EXERCISES, blank, read_tasks, script_of  # noqa: E402

import mutants  # noqa: E402

SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
           ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
           ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.BitAnd: ast.BitOr}


LIMITS = {"import_seconds": 15, "call_seconds": 3}


class Bench:
    """A grader for one exercise, and a folder to write submissions to."""

    def __init__(self, exercise: str, folder: Path, quick: bool = False) -> None:
        self.exercise, self.folder, self.quick = exercise, folder, quick
        self.script = script_of(exercise)
        self.source = self.script.read_text(encoding="utf-8")
        self.tasks = read_tasks(self.source)
        self.grader = Grader(exercise, seed=1)
        self.grader.sandbox.limits |= LIMITS

    def grade(self, source: str, grader: Grader | None = None) -> dict:
        file = self.folder / "submission.py"
        file.write_text(source, encoding="utf-8")
        return (grader or self.grader).grade(Submission("bench", file), self.folder / "junit.xml")

    def of_task(self, function: str) -> Grader:
        """A grader for one task alone, which is faster."""
        one = copy.copy(self.grader)
        rows = [row for row in zip(one.cases, one.expected, strict=True) if row[0].function == function]
        one.tasks, (one.cases, one.expected) = [t for t in one.tasks if t.function == function], zip(*rows, strict=True)
        return one

    def lost(self, record: dict) -> set[str]:
        """The functions in which points were lost."""
        return {row["function"] for row in record["cases"] if not row["passed"]}

    def function_of(self, old: str) -> str:
        """The task's function in which these lines of the script stand, or ""."""
        line = self.source.count("\n", 0, mutants.place(self.source, old).start()) + 1
        return next((f.name for f in ast.parse(self.source).body if isinstance(f, ast.FunctionDef)
                     and f.lineno <= line <= f.end_lineno and f.name in {t.function for t in self.tasks}), "")

    # The rows

    def a(self) -> tuple[str, bool]:
        empty, full = (self.grade(source)["score"] for source in (blank(self.source, self.script.name), self.source))
        return f"student version {empty:g}, reference {full:g}", (empty, full) == (0, 100)

    def b(self) -> tuple[str, bool]:
        harm = self.folder / "harm"
        harm.mkdir(exist_ok=True)
        (harm / "kept").write_text("kept", encoding="utf-8")
        before = fingerprint(harm), fingerprint(REPOSITORY / "code"), fingerprint(GRADING)
        rows = hostile.submissions(blank(self.source, self.script.name), [t.function for t in self.tasks],
                                   self.exercise, str(REPOSITORY), str(harm))
        self.grader.sandbox.limits |= {"import_seconds": 5, "call_seconds": 1}
        shorter = self.of_task(self.tasks[0].function) if self.quick else None  # for what runs into the limits
        gained = [name for name, source in rows.items()
                  if self.grade(source, shorter if name.startswith("harmed") else None)["score"]]
        self.grader.sandbox.limits |= LIMITS
        time.sleep(1)
        whole = before == (fingerprint(harm), fingerprint(REPOSITORY / "code"), fingerprint(GRADING))
        planted = [p for p in (Path("/tmp"), Path.home(), REPOSITORY, Path("/dev/shm"))
                   if (p / "planted-by-a-submission").exists()]
        after = self.grade(self.source)["score"]
        good = not gained and whole and not planted and after == 100
        return ", ".join([f"{len(rows)} submissions, {len(gained)} gained points", *gained, "files outside "
                          + ("untouched" if whole and not planted else "TOUCHED"),
                          f"the next right one got {after:g}"]), good

    def c(self) -> tuple[str, bool]:
        lost, right, survivors = 0, 0, []
        rows = [row for row in self.mistakes() if row[1]][::6 if self.quick else 1]
        for name, function, changed in rows:
            where = self.lost(self.grade(changed))
            lost, right = lost + bool(where), right + (where == {function})
            if not where:
                survivors.append(name)
        text = f"{lost} of {len(rows)} lose points, {right} on the right task only {survivors or ''}"
        return text.strip(), len(rows) >= (6 if self.quick else 20) and lost == len(rows) and right >= 0.9 * len(rows)

    def mistakes(self):
        """(name, function, source) of each hand-written mistake in tests/mutants."""
        for name, allowed, old, new in mutants.read(self.exercise):
            if not allowed:
                yield name, self.function_of(old), mutants.apply(self.source, old, new)

    def d(self) -> tuple[str, bool]:
        known = equivalents(self.exercise)
        rows = list(generated(self.source, {task.function for task in self.tasks}))
        alive = [label for label, function, changed in rows
                 if not self.lost(self.grade(changed, self.of_task(function)))]
        survivors = [label for label in alive if label not in known]
        counted = len(rows) - (len(alive) - len(survivors))
        share = 1 - len(survivors) / counted
        text = f"{share:.1%} of {counted} lose points, {len(rows) - counted} change nothing {survivors or ''}"
        return text.strip(), share >= 0.95

    def e(self) -> tuple[str, bool]:
        scores = {}
        for file in sorted((GRADING / "alternatives").glob(f"{self.exercise}_*.py")):
            record = self.grade(self.source + "\n\n" + file.read_text(encoding="utf-8"))
            scores[file.stem] = record["score"]
        wrong = {name: score for name, score in scores.items() if score != 100}
        return f"{len(scores)} solutions, {len(scores) - len(wrong)} got 100 {wrong or ''}".strip(), \
            len(scores) >= 5 and not wrong

    def f(self) -> tuple[str, bool]:
        half = next(changed for _, function, changed in self.mistakes() if function)
        scores = {str([row["passed"] for row in self.grade(half)["cases"]]) for _ in range(20)}
        both = {subprocess.run([sys.executable, __file__, self.exercise, "--only", "a"], capture_output=True,
                               env={**os.environ, "TRANSFORMERS_COURSE_PRECISION": precision}).returncode
                for precision in ("fp32", "bf16")}
        return f"20 gradings, {len(scores)} outcome{'s' * (len(scores) > 1)}; row (a) at fp32 and bf16: " + \
            ("the same" if both == {0} else "NOT the same"), len(scores) == 1 and both == {0}

    def g(self) -> tuple[str, bool]:
        folder = self.folder / "class"
        folder.mkdir(exist_ok=True)
        sources = [self.source, blank(self.source, self.script.name), *(s for *_, s in self.mistakes())]
        for i in range(30):
            (folder / f"student {i:02}.py").write_text(sources[i % len(sources)], encoding="utf-8")
        start = time.monotonic()
        subprocess.run([sys.executable, str(GRADING / "grade.py"), self.exercise, str(folder), "-j", "2",
                        "--out", str(self.folder / "grades")], check=True, capture_output=True)
        seconds = time.monotonic() - start
        return f"30 submissions in {seconds:.0f} s", seconds < 180


def fingerprint(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of all files in a folder."""
    return sorted((str(p), p.stat().st_size) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def equivalents(exercise: str) -> set[str]:
    """Labels of generated mutants that change nothing that can be measured; above each in the file, with #, is why."""
    file = REPOSITORY / "tests" / "mutants" / f"{exercise}_equivalent.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {line for line in lines if line and not line.startswith("#")}


def generated(source: str, functions: set[str], most: int = 80):
    """(label, function, source) of mutants: in a task's function one operator is swapped, or one number moved by one.

    The label is the function and the changed line.
    """
    places = []
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef) and function.name in functions:
            for node in ast.walk(function):
                operators = [node.op] if isinstance(node, (ast.BinOp, ast.BoolOp)) else getattr(node, "ops", [])
                places += [(function.name, node, i) for i, op in enumerate(operators) if type(op) in SWAPPED]
                if isinstance(node, ast.Constant) and type(node.value) is int:
                    places.append((function.name, node, -1))
                if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
                    places.append((function.name, node, -2))
    random.Random(0).shuffle(places)
    for name, node, i in places[:most]:
        text = ast.get_source_segment(source, node)
        tree = ast.parse(text.strip(), mode="eval") if text else None
        if tree is None:
            continue
        change = tree.body
        if i == -1:
            change.value += 1
        elif i == -2:
            change = change.operand
        elif isinstance(change, ast.Compare):
            change.ops[i] = SWAPPED[type(change.ops[i])]()
        else:
            change.op = SWAPPED[type(change.op)]()
        lines = source.splitlines(keepends=True)
        start = sum(map(len, lines[:node.lineno - 1])) + len(lines[node.lineno - 1].encode()[:node.col_offset].decode())
        mutated = source[:start] + f"({ast.unparse(change)})" + source[start + len(text):]
        try:
            compile(mutated, "mutant", "exec")
            yield f"{name}: {mutated.splitlines()[node.lineno - 1].strip()}", name, mutated
        except SyntaxError:
            continue


def write_table(rows: list[str], measures: list[str]) -> None:
    """Put these rows into the guide's table, between its two marks; those of other exercises and letters stay."""
    text, mark = GUIDE.read_text(encoding="utf-8"), "<!-- bench_grading -->\n"
    before, table, after = text.split(mark)
    new = {row[:len("| ex_01 | (a)")] for row in rows}
    kept = [row for row in table.splitlines() if row.startswith("| ex_") and row[:len("| ex_01 | (a)")] not in new]
    table = "\n".join(["", "| exercise | row | as it should be | measured |", "|---|---|---|---|", *sorted(kept + rows),
                       "", f"In force there: {', '.join(measures)}.", "", ""])
    grade.write_whole(GUIDE, lambda p: p.write_text(mark.join([before, table, after]), encoding="utf-8", newline="\n"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercises", nargs="*", default=list(EXERCISES))
    parser.add_argument("--only", default="abcdefg")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    rows, good = [], True
    for exercise in args.exercises:
        with tempfile.TemporaryDirectory(prefix="bench-grading-") as folder:
            Path(folder).chmod(0o755)
            bench = Bench(exercise, Path(folder), args.quick)
            letters = args.only if not args.quick else "abce" if exercise == args.exercises[0] else "ace"
            try:
                for letter in letters:
                    start = time.monotonic()
                    text, held = getattr(bench, letter)()
                    good &= held
                    rows.append(f"| {exercise} | ({letter}) | {'yes' if held else '**no**'} | {text} |")
                    print(f"{rows[-1]} {time.monotonic() - start:.0f} s", flush=True)
            finally:
                bench.grader.close()
    if not args.quick:
        write_table(rows, [name for name, held in bench.grader.measures.items() if held])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
