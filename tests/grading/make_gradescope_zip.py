"""Write an autograder for Gradescope: a zip to upload when you set up a programming assignment.

    python tests/grading/make_gradescope_zip.py ex_01 ex_01_autograder.zip --seed 7

In it are setup.sh, which installs the requirements, run_autograder, which grades what a student uploads, and the
course. Choose a base image of Gradescope's with Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(REPOSITORY / "code")]

from tasks import EXERCISES  # noqa: E402

from utils.runtime import OneLineParser, UserError, run, whole_number  # noqa: E402
from utils.session import write_whole  # noqa: E402

COURSE = ("code/**/*.py", "data/**/*", "tests/grading/*.py", "requirements.txt", "LICENSE")
SETUP = """#!/usr/bin/env bash
set -eu
root="${AUTOGRADER:-/autograder}"
python3 -m venv "$root/venv"
"$root/venv/bin/python" -m pip install -q -r "$root/source/course/requirements.txt"
"""
RUN = """#!/usr/bin/env bash
# Without a results.json Gradescope tells its staff that the autograder failed: better than 0 points for the student.
set -eu
root="${AUTOGRADER:-/autograder}"
out="$(mktemp -d)"
"$root/venv/bin/python" "$root/source/course/tests/grading/grade.py" EXERCISE "$root/submission" --single \\
    --seed SEED --out "$out"
mkdir -p "$root/results"
cp "$out"/gradescope/*/results.json "$root/results/results.json"
"""


def make(exercise: str, seed: int, file: Path) -> None:
    """Write the zip. The same course gives the same bytes. Raises UserError if it cannot be written."""
    files = {path.relative_to(REPOSITORY).as_posix(): path.read_bytes() for pattern in COURSE
             for path in sorted(REPOSITORY.glob(pattern)) if path.is_file() and "__pycache__" not in path.parts}
    scripts = {"setup.sh": SETUP, "run_autograder": RUN.replace("EXERCISE", exercise).replace("SEED", str(seed))}

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in [*((name, text.encode()) for name, text in scripts.items()),
                               *((f"course/{name}", data) for name, data in files.items())]:
                info = zipfile.ZipInfo(name)  # of 1980, whenever that is now
                info.external_attr = (0o755 if name in scripts else 0o644) << 16
                zipped.writestr(info, data)

    try:
        write_whole(file, write)
    except OSError as error:
        raise UserError(f"{file}: cannot write there ({error.strerror})") from None


def main(argv: list[str] | None = None) -> dict:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercise", choices=EXERCISES)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=whole_number, default=1, help="hidden inputs are drawn from it (default: "
                        "%(default)s)")
    args = parser.parse_args(argv)
    make(args.exercise, args.seed, args.file.expanduser())
    print(f"The autograder is in {args.file}: upload it as it is.")
    return {"file": str(args.file)}


if __name__ == "__main__":
    run(main)
