"""Tasks that have one right answer, made up from a seed."""

from __future__ import annotations

import json
import random


def arithmetic_tasks(seed: int, n: int = 32) -> list[dict]:
    """Questions with one number as their answer; the same seed gives the same ones.

    The first half has numbers of one digit, which the smallest models get right here and there.
    [{"id", "category", "question", "accept": [the number as text]}, ...]
    """
    pick, tasks = random.Random(seed), []
    for i in range(n):
        a, b = sorted((pick.randint(2, 9 if i < n // 2 else 60), pick.randint(2, 9)), reverse=True)
        question, answer = [
            (f"What is {a} + {b}?", a + b), (f"What is {a} - {b}?", a - b),
            (f"What is {a} times {b}?", a * b),
            (f"A ticket costs {a} pounds. How many pounds do {b} tickets cost?", a * b),
        ][i % 4]
        tasks.append({"id": f"arithmetic-{i}", "category": "arithmetic", "question": question,
                      "accept": [str(answer)]})
    return tasks


def format_tasks(seed: int, n: int = 32) -> list[dict]:
    """Requests for a small JSON object, with one key or two; "accept" holds it as text."""
    pick, tasks = random.Random(seed), []
    for i in range(n):
        values = [pick.choice(["cat", "blue", "rice", "tea"]), pick.randint(2, 99),
                  pick.choice([True, False]), [pick.randint(1, 9), pick.randint(1, 9)]]
        names = pick.sample(["thing", "count", "done", "marks", "price", "state"], 1 + i % 2)
        wanted = {name: json.dumps(pick.choice(values)) for name in names}
        listed = " and ".join(f'the key "{name}" with the value {value}'
                              for name, value in wanted.items())
        accept = "{" + ", ".join(f'"{name}": {value}' for name, value in wanted.items()) + "}"
        tasks.append({"id": f"format-{i}", "category": "format", "accept": [accept],
                      "question": f"Reply with only a JSON object that has {listed}."})
    return tasks
