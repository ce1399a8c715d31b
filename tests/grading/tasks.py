"""Tasks as the exercise scripts mark them, and the scripts with their solutions taken out.

    # Task 2.1 (15 points)
    def keep_top_k(...):
        \"\"\"What is to be done.\"\"\"
        # BEGIN SOLUTION
        ...
        # END SOLUTION
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CODE = Path(__file__).resolve().parents[2] / "code"
EXERCISES = ("ex_01", "ex_02", "ex_03", "ex_04")
TASK = re.compile(r"^# Task (\d\.\d) \((\d+) points\)\n(?:@.*\n)*def (\w+)", re.MULTILINE)
SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n(.*?)^ *# END SOLUTION\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Task:
    """One function to write."""

    number: str  # "2.1": exercise and task
    points: int
    function: str


def script_of(exercise: str) -> Path:
    """The script of an exercise, "ex_01" to "ex_04"."""
    return next(CODE.glob(f"{exercise}_*.py"))


def read_tasks(source: str) -> list[Task]:
    """The tasks that a script marks. Raises ValueError if tasks and solutions do not go together one to one."""
    tasks, marks = [], list(TASK.finditer(source))
    ends = [*(mark.start() for mark in marks[1:]), len(source)][:len(marks)]
    for mark, end in zip(marks, ends, strict=True):
        if len(SOLUTION.findall(source, mark.end(), end)) != 1:
            raise ValueError(f"task {mark[1]} needs one BEGIN SOLUTION and END SOLUTION")
        tasks.append(Task(mark[1], int(mark[2]), mark[3]))
    if len(SOLUTION.findall(source)) != len(tasks) or source.count("BEGIN SOLUTION") != len(tasks):
        raise ValueError("there is a solution without a task")
    return tasks


def blank(source: str, name: str) -> str:
    """The script as students get it: each solution gives way to a line that says which task is missing.

    name: of the script's file.
    """
    for task in read_tasks(source):
        start = next(mark for mark in TASK.finditer(source) if mark[1] == task.number).end()
        solution = SOLUTION.search(source, start)
        indent = solution[1]
        missing = f"Task {task.number} is missing: write {task.function} in {name}"
        source = (f"{source[:solution.start()]}{indent}# YOUR CODE HERE\n"
                  f"{indent}raise NotImplementedError(\"{missing}\")\n{source[solution.end():]}")
    return source


def solutions(source: str) -> list[str]:
    """The lines of all solutions of a script."""
    return [line for _, body in SOLUTION.findall(source) for line in body.splitlines()]
