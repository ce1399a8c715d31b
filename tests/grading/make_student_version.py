"""Write the course as students get it: solutions taken out, data, guide, examples as tests, a README.

    python tests/grading/make_student_version.py FOLDER

The same course gives the same bytes. FOLDER must be new or empty.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(REPOSITORY / "code")]

from cases import draw, guide_section  # noqa: E402
from tasks import EXERCISES, blank, read_tasks, script_of  # noqa: E402
from values import encode  # noqa: E402

from utils.runtime import OneLineParser, UserError, run  # noqa: E402

COPIED = ("code/utils", "code/views", "code/assistant", "data", "guides", "requirements.txt", "LICENSE", ".gitignore")
FOR_INSTRUCTORS = ("instructors_guide.md", "draw_pictures.py", "outputs")
PYTEST = '[tool.pytest.ini_options]\ntestpaths = ["tests"]\npythonpath = ["code", "tests"]\naddopts = "-q"\n'


def make(folder: Path) -> None:
    """Write everything into an empty folder. Raises UserError if it is not empty or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty; give a new folder")
        for name in COPIED:
            source, target = REPOSITORY / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, copy_function=shutil.copyfile,
                                ignore=shutil.ignore_patterns("__pycache__", *FOR_INSTRUCTORS))
            else:
                shutil.copyfile(source, target)
        files = {"pyproject.toml": PYTEST, "tests/examples.json": json.dumps(examples(), indent=1) + "\n",
                 "README.md": (HERE / "student" / "README.md").read_text(encoding="utf-8").replace("TASKS\n", table())}
        for exercise in EXERCISES:
            script = script_of(exercise)
            files[f"code/{script.name}"] = blank(script.read_text(encoding="utf-8"), f"code/{script.name}")
        for source in (HERE / "student" / "test_tasks.py", HERE / "values.py", HERE / "fixtures.py"):
            files[f"tests/{source.name}"] = source.read_text(encoding="utf-8")
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror})") from None


def examples() -> list[dict]:
    """The public cases of all exercises, with the right values as the reference solution gives them."""
    from grade import Grader

    rows = []
    for exercise in EXERCISES:
        cases, expected = draw(exercise, 0), Grader.expect(exercise, draw(exercise, 0))
        rows += [{"exercise": exercise, "script": script_of(exercise).stem, "function": case.function,
                  "name": case.name, "arguments": [encode(value) for value in case.arguments],
                  "expected": encode(value), "tolerance": case.tolerance, "hint": case.hint,
                  "guide": guide_section(exercise, case.function)}
                 for case, value in zip(cases, expected, strict=True) if case.public]
    return rows


def table() -> str:
    """A row of Markdown for each task."""
    return "".join(f"| {task.number} | {task.points} | `{task.function}` | `code/{script_of(exercise).name}` |\n"
                   for exercise in EXERCISES
                   for task in read_tasks(script_of(exercise).read_text(encoding="utf-8")))


def main(argv: list[str] | None = None) -> dict:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args(argv).folder.expanduser()
    make(folder)
    print(f"The student version is in {folder}: look at its README.md, then hand out the folder.")
    return {"folder": str(folder)}


if __name__ == "__main__":
    run(main)
