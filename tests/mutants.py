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


def place(source: str, old: str) -> re.Match:
    """Where the old lines stand in a script, whatever their indentation. Raises ValueError unless they occur once."""
    pattern = "".join(rf"(?m:^)(?P<i{i}> *){re.escape(line)}\n" for i, line in enumerate(old.splitlines()))
    found = list(re.finditer(pattern, source))
    if len(found) != 1:
        raise ValueError(f"these lines occur {len(found)} times, not once:\n{old}")
    return found[0]


def apply(source: str, old: str, new: str) -> str:
    """The script with the old lines replaced, at the indentation of the first of them."""
    found = place(source, old)
    changed = "".join(f"{found['i0']}{line}\n" for line in new.splitlines())
    return source[:found.start()] + changed + source[found.end():]


def is_killed(job: tuple) -> bool:
    """Whether the exercise's tests fail on a mutant, in a copy of the course. Runs in a process of its own.

    job: (exercise, what is wrong, whether it may survive, old lines, new lines); no old lines for the script as it is.
    """
    import pytest

    exercise, name, _, old, new = job
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "course"
        left_out = shutil.ignore_patterns(".*", "outputs", "images", "__pycache__", "venv")
        shutil.copytree(REPOSITORY, copy, ignore=left_out)
        script = next((copy / "code").glob(f"{exercise}_*.py"))
        if old:
            script.write_text(apply(script.read_text(encoding="utf-8"), old, new), encoding="utf-8")
        os.chdir(copy)
        sys.path.remove(str(REPOSITORY / "tests"))
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        code = pytest.main(["-x", "-q", "-n", "0", "-m", "not real", "-p", "no:cacheprovider",
                            f"tests/test_{exercise}.py",
                            "-W", "ignore::pytest.PytestAssertRewriteWarning"])  # of what is imported already
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
        for exercise in args.exercises:
            if pool.apply(is_killed, ((exercise, "the script as it is", True, "", ""),)):
                sys.exit(f"{exercise}: its tests fail without a mutant, so that nothing can be told")
        killed = []
        for job, dead in zip(jobs, pool.imap(is_killed, jobs), strict=True):
            killed.append(dead)
            print(f"{job[0]}, {job[1]}: {'killed' if dead else 'SURVIVED' + ', as expected' * job[2]}", flush=True)
    counted = [(job, dead) for job, dead in zip(jobs, killed, strict=True) if not job[2]]
    for exercise in args.exercises:
        mine = [dead for job, dead in counted if job[0] == exercise]
        print(f"{exercise}: {sum(mine)} of {len(mine)} killed")
    share = sum(dead for _, dead in counted) / len(counted)
    print(f"{share:.1%} of {len(counted)} mutants killed")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
