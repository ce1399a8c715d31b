"""Wrong lessons, one at a time: is there a test that says so? Minutes, on Linux; not part of the suite.

    python tests/mutants.py                 all mutants; a table, and exit status 1 below 95 %
    python tests/mutants.py ex_01 -j 2      those of one exercise, two at once

A mutant is an exercise's script with one idea turned wrong: swapped, transposed, shifted, fitted on the wrong split,
counted twice. It is killed when that exercise's tests fail. tests/mutants/ex_0N.txt holds them:

    # the prompt is counted in the perplexity
    - the line, or lines, as in the script
    + what stands there in the mutant

A mutant that may survive, since nothing that is measured changes, begins with `#=` and says why.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = REPOSITORY / "tests" / "mutants"
SLOW_IMPORTS = ("torch", "transformers", "datasets", "sklearn.linear_model", "scipy.stats", "matplotlib", "pytest")
MUTANT = re.compile(r"^(#=?) (.+)\n((?:- ?.*\n)+)((?:\+ ?.*\n?)*)", re.MULTILINE)


def read(exercise: str) -> list[tuple[str, bool, str, str]]:
    """The mutants of an exercise: (what is wrong, whether it may survive, old lines, new lines)."""
    def lines(block: str) -> str:
        return "".join(line[2:] + "\n" for line in block.splitlines())

    text = (TABLES / f"{exercise}.txt").read_text(encoding="utf-8")
    return [(name, mark == "#=", lines(old), lines(new)) for mark, name, old, new in MUTANT.findall(text)]


def apply(source: str, old: str, new: str) -> str:
    """The script with the old lines, whatever their indentation, replaced. Raises ValueError unless they occur once."""
    pattern = "".join(rf"(?m:^)(?P<i{i}> *){re.escape(line)}\n" for i, line in enumerate(old.splitlines()))
    found = list(re.finditer(pattern, source))
    if len(found) != 1:
        raise ValueError(f"these lines occur {len(found)} times, not once:\n{old}")
    indent = found[0]["i0"]
    changed = "".join(f"{indent}{line}\n" for line in new.splitlines())
    return source[:found[0].start()] + changed + source[found[0].end():]


def is_killed(job: tuple) -> bool:
    """Whether the exercise's tests fail on a mutant, in a copy of the course. Runs in a process of its own.

    job: (exercise, what is wrong, whether it may survive, old lines, new lines).
    """
    import pytest

    exercise, name, _, old, new = job
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "course"
        shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".git", "outputs", "images", "__pycache__",
                                                                        ".venv", "venv"))
        script = next((copy / "code").glob(f"{exercise}_*.py"))
        script.write_text(apply(script.read_text(encoding="utf-8"), old, new), encoding="utf-8")
        os.chdir(copy)
        sys.path.remove(str(REPOSITORY / "tests"))
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        code = pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/test_{exercise}.py"])
        os.chdir(REPOSITORY)
    if code not in (0, 1):
        raise RuntimeError(f"{name}: pytest ended with {code}")
    return code == 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercises", nargs="*", default=["ex_01", "ex_02", "ex_03", "ex_04"])
    parser.add_argument("-j", "--jobs", type=int, default=2)
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in SLOW_IMPORTS:  # once, here: each mutant is a fork of this process
        importlib.import_module(name)
    jobs = [(exercise, *mutant) for exercise in args.exercises for mutant in read(exercise)]
    with multiprocessing.get_context("fork").Pool(args.jobs, maxtasksperchild=1) as pool:
        killed = pool.map(is_killed, jobs, chunksize=1)
    counted = [(job, dead) for job, dead in zip(jobs, killed, strict=True) if not job[2]]
    for exercise in args.exercises:
        mine = [dead for job, dead in counted if job[0] == exercise]
        print(f"{exercise}: {sum(mine)} of {len(mine)} killed")
    for (exercise, name, allowed, *_), dead in zip(jobs, killed, strict=True):
        if not dead:
            print(f"  survived, {exercise}: {name}" + " (as expected)" * allowed)
    share = sum(dead for _, dead in counted) / len(counted)
    print(f"{share:.1%} of {len(counted)} mutants killed")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
