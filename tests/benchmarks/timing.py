"""Comparing the speed of recipes on a machine whose own speed changes: they take turns, and each
turn is compared with the others of the same round."""

from __future__ import annotations

import time
from collections.abc import Callable


def alternate(recipes: dict[str, Callable[[], object]], rounds: int,
              warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each recipe in each round: {name: [seconds, ...]}.

    recipes: name -> what is timed, such as one training step. Every round runs all of them, in
    turned order, so that none is always first. The warm_up rounds before are not kept.
    """
    seconds = {name: [] for name in recipes}
    order = list(recipes)
    for i in range(warm_up + rounds):
        for name in order:
            start = time.perf_counter()
            recipes[name]()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - start)
        order.reverse()
    return seconds


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """How many times as long a takes as b, round by round: the median, and the middle half's ends.

    ratio([2, 4, 6], [1, 1, 2]) compares 2, 4 and 3: {"median": 3, "low": 2.5, "high": 3.5}.
    """
    import numpy as np

    low, median, high = np.percentile(np.divide(a, b), [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}
