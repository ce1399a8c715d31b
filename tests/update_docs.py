"""Make everything anew that a run produced: logs, README's excerpts, pictures, the guides' outputs.

    python tests/update_docs.py                 all of it (the four exercises in full: about half an hour)
    python tests/update_docs.py ex_01           exercise 1: its log, README's excerpts, its pictures
    python tests/update_docs.py guide           what the guides' Python prints, on the packaged weights
    python tests/update_docs.py pictures        the guides' own pictures, by guides/draw_pictures.py (seconds)

A log is guides/outputs/ex_0N.md: each command whole, between `<!-- output of: COMMAND -->` and
`<!-- end of output -->`. README shows excerpts of the logs, between
`<!-- excerpt of: COMMAND | FIRST | LAST -->` and `<!-- end of excerpt -->`: the lines from the one
that holds FIRST to the next one that holds LAST. Exercises' pictures are those that README or a guide
shows as images/ex_0N_NAME.png: outputs/ex_0N/NAME.png, copied after the exercise ran. For the guides'
outputs see guide_runner.py. Exit status 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import guide_runner
from guide_runner import GUIDES, REPOSITORY

README = REPOSITORY / "README.md"
IMAGES = REPOSITORY / "guides" / "images"
LOGS = REPOSITORY / "guides" / "outputs"
BLOCK = re.compile(r"(<!-- output of: (?P<command>.+?) -->\n).*?(<!-- end of output -->)", re.DOTALL)
EXCERPT = re.compile(r"(<!-- excerpt of: (?P<command>.+?) \| (?P<first>.+?) \| (?P<last>.+?) -->\n).*?"
                     r"(<!-- end of excerpt -->)", re.DOTALL)
MINUTES = re.compile(r"(<!-- minutes -->\n).*?(<!-- end of minutes -->)", re.DOTALL)
EXERCISES = ("ex_01", "ex_02", "ex_03", "ex_04")
PARTS = (*EXERCISES, "pictures", "guide")


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
    """Run all commands of an exercise's log, and copy the pictures that README and guides show."""
    log = LOGS / f"{exercise}.md"
    write(log, BLOCK.sub(lambda m: f"{m[1]}\n```text\n{run(m['command'])}\n```\n\n{m[3]}",
                         log.read_text(encoding="utf-8")))
    shown = "".join(path.read_text(encoding="utf-8") for path in (README, *GUIDES))
    for name in sorted(set(re.findall(rf"images/{exercise}_(\w+\.png)", shown))):
        image = IMAGES / f"{exercise}_{name}"
        fresh = image.with_name(image.name + ".new")
        drawn = (REPOSITORY / "outputs" / exercise).rglob(name)  # exercise 3 has a folder for each method
        shutil.copyfile(max(drawn, key=lambda path: path.stat().st_mtime), fresh)
        fresh.replace(image)


def excerpt(command: str, first: str, last: str) -> str:
    """Lines of a logged run, from the one that holds `first` to the next that holds `last`, both included."""
    for log in sorted(LOGS.glob("*.md")):
        for block in BLOCK.finditer(log.read_text(encoding="utf-8")):
            if block["command"] == command:
                lines = block[0].split("```text\n")[1].split("\n```")[0].split("\n")
                begin = next(i for i, line in enumerate(lines) if first in line)
                end = next(i for i, line in enumerate(lines) if i >= begin and last in line)
                return "\n".join(lines[begin:end + 1])
    raise KeyError(f"no log holds a run of {command!r}")


def with_excerpts(text: str) -> str:
    """A text with its excerpts as the logs have them now. Raises KeyError or StopIteration for one not there."""
    return EXCERPT.sub(lambda m: f"{m[1]}\n```text\n{excerpt(*m.group('command', 'first', 'last'))}\n```\n\n"
                                 "<!-- end of excerpt -->", text)


def keep_figures(exercise: str) -> None:
    """Take the default runs' minutes and memory from results.json into guides/outputs/minutes.json."""
    file = LOGS / "minutes.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for path in sorted((REPOSITORY / "outputs" / exercise).rglob("results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        method = results["settings"].get("method")
        figures[f"{exercise} {method}" if method else exercise] = {
            "model": results["run"]["model"], "precision": results["run"]["precision"],
            "minutes": results["minutes"], "peak_memory_mb": results["peak_memory_mb"]}
    write(file, json.dumps(figures, indent=1) + "\n")


def minutes_table() -> str:
    """README's table of exercises: what a run takes with the stand-ins and with models of the Hub's sizes."""
    lines = ["| exercise | model | minutes | memory | training in |", "|---|---|---|---|---|"]
    rows = [(key, figure) for name in ("minutes.json", "real_size.json") if (LOGS / name).is_file()
            for key, figure in json.loads((LOGS / name).read_text(encoding="utf-8")).items()]
    for key, figure in sorted(rows, key=lambda row: row[0][:5]):  # stand-ins first, by exercise
        exercise, _, method = key.partition(" ")
        name = f"{int(exercise[3:])}" + {"lora": ", LoRA", "full": ""}.get(method, "")
        name += ", `--evaluate`" * (exercise == "ex_04")
        training = figure["precision"] if exercise in ("ex_01", "ex_03") else "-"
        lines.append(f"| {name} | {figure['model']} | {figure['minutes']:.1f} | "
                     f"{figure['peak_memory_mb'] / 1000:.1f} GB | {training} |")
    return "\n".join(lines)


def with_minutes(text: str) -> str:
    """A text with the table of minutes as the figures are now."""
    return MINUTES.sub(lambda m: f"{m[1]}\n{minutes_table()}\n\n{m[2]}", text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PART", help=", ".join(PARTS) + " (default: all)")
    wanted = parser.parse_args(argv).what or PARTS
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(PARTS)}")
    for exercise in EXERCISES:
        if exercise in wanted:
            update_exercise(exercise)
            keep_figures(exercise)
    write(README, with_minutes(with_excerpts(README.read_text(encoding="utf-8"))))
    wrong = []
    if "guide" in wanted:
        print("running: the Python of the guides", flush=True)
        wrong = guide_runner.renew(GUIDES)
        print("\n".join(wrong) or "The guides are as they should be.")
    if "pictures" in wanted:  # one of them shows numbers that a guide prints
        run("python guides/draw_pictures.py")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
