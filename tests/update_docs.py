"""Make everything anew in README and guide that a run produced: outputs and pictures. One command, minutes on a CPU.

    python tests/update_docs.py                 all of it
    python tests/update_docs.py ex_01           README blocks and pictures of exercise 1 (ex_02, ex_03, ex_04 likewise)
    python tests/update_docs.py guide           what the guide's Python prints, on the packaged weights (a minute)
    python tests/update_docs.py pictures        the guide's own pictures, by guides/draw_pictures.py (seconds)

README: a block stands between `<!-- output of: COMMAND -->` and `<!-- end of output -->`. Exercises' pictures are those
that README or guide show as images/ex_0N_NAME.png: outputs/ex_0N/NAME.png, copied after the exercise ran.
Guide: see guide_runner.py. Exit status 1 when something in the guide is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import guide_runner
from guide_runner import GUIDE, REPOSITORY

README = REPOSITORY / "README.md"
IMAGES = REPOSITORY / "guides" / "images"
BLOCK = re.compile(r"(<!-- output of: (?P<command>.+?) -->\n).*?(<!-- end of output -->)", re.DOTALL)
EXERCISES = ("ex_01", "ex_02", "ex_03", "ex_04")
PARTS = (*EXERCISES, "pictures", "guide")
# The runs that draw each exercise's pictures; one that README shows the output of is not run twice.
DRAWN_BY = {
    "ex_01": ["python code/ex_01_bert_classification.py"],
    "ex_02": ["python code/ex_02_gpt2_generation.py"],
    "ex_03": ["python code/ex_03_gpt2_finetuning.py", "python code/ex_03_gpt2_finetuning.py --method lora"],
    "ex_04": [],
}


def run(command: str) -> str:
    """What a command prints, run from the repository's root. Stops everything if it fails."""
    print(f"running: {command}", flush=True)
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    result = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, encoding="utf-8",
                            env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "96"})  # what GitHub shows whole
    if result.returncode:
        sys.exit(f"error: exit status {result.returncode} from: {command}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def write(path: Path, text: str) -> None:
    """Write a text beside the file, then put it in its place."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    fresh.replace(path)


def update_exercise(exercise: str) -> None:
    """Run an exercise for its README blocks and for its pictures in README and guide."""
    ran = set()

    def renew(match: re.Match) -> str:
        command = match["command"]
        if exercise not in command:
            return match[0]
        ran.add(command)
        return f"{match[1]}\n```text\n{run(command)}\n```\n\n{match[3]}"

    readme = README.read_text(encoding="utf-8")
    renewed = BLOCK.sub(renew, readme)
    shown = readme + (GUIDE.read_text(encoding="utf-8") if GUIDE.is_file() else "")
    names = sorted(set(re.findall(rf"images/{exercise}_(\w+\.png)", shown)))
    for command in DRAWN_BY[exercise] if names else []:
        if command not in ran:
            run(command)
    for name in names:
        image = IMAGES / f"{exercise}_{name}"
        fresh = image.with_name(image.name + ".new")
        shutil.copyfile(REPOSITORY / "outputs" / exercise / name, fresh)
        fresh.replace(image)
    if renewed != readme:
        write(README, renewed)


def parse_arguments(argv: list[str] | None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PART", help=", ".join(PARTS) + " (default: all)")
    args = parser.parse_args(argv)
    if unknown := set(args.what) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(PARTS)}")
    return args


def main(argv: list[str] | None = None) -> int:
    wanted = parse_arguments(argv).what or PARTS
    for exercise in EXERCISES:
        if exercise in wanted:
            update_exercise(exercise)
    if "pictures" in wanted:
        run("python guides/draw_pictures.py")
    wrong = []
    if "guide" in wanted:
        print(f"running: the Python of {GUIDE.name}", flush=True)
        wrong = guide_runner.renew(GUIDE)
        print("\n".join(f"{GUIDE.name}: {problem}" for problem in wrong) or "The guide is as it should be.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
