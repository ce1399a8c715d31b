"""What a task is called with, and how much each call counts."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One call of a student's function. The reference solution says what is right, at the same precision.

    The first case of a task is the idea itself: the others count when it is right.
    """

    function: str
    name: str  # what is tried, for people: "more tokens than the vocabulary has"
    arguments: list
    weight: int = 1  # share of the task's points, beside the task's other cases
    hint: str = ""  # the likeliest cause of a mistake here
    tolerance: float = 1e-4  # see tests/benchmarks/bench_grading.py for the spread of right solutions
    public: bool = False  # whether students get this case, too
    check: Callable | None = None  # (expected, value) -> what is wrong, where several values are right
    forbidden: tuple[str, ...] = ()  # library functions that do the whole task

    @property
    def title(self) -> str:
        return f"{self.function}: {self.name}"


def draw(exercise: str, seed: int) -> list[Case]:
    """The cases of an exercise, their inputs drawn from the seed: the same seed, the same inputs."""
    module = importlib.import_module(f"cases_{exercise}")
    return module.draw(random.Random(f"{exercise} {seed}"))


def guide_section(exercise: str, function: str) -> str:
    """Where the guide explains what a task is about: "guides/FILE.md, SECTION"."""
    section = importlib.import_module(f"cases_{exercise}").GUIDE[function]
    file = "pretrained_transformers_guide" if section[0].isdigit() else "evaluation_and_safety"
    return f"guides/{file}.md, {section}"
