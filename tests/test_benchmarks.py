"""What the benchmarks make of their measurements; the measuring itself is `python tests/benchmarks/run_all.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench_ex_04  # noqa: E402
import bench_growth  # noqa: E402
import run_all  # noqa: E402
from assistant.turn import GUIDE  # noqa: E402
from utils import checkpoints  # noqa: E402


@pytest.mark.parametrize("power, faster", [(0, "no"), (1, "no"), (1.3, "YES"), (2, "YES")])
def test_growth_is_the_exponent_between_the_two_largest_sizes(power, faster):
    moods = (1, 3, 0.5)  # the machine's, which a whole round shares
    seconds = {size: [mood * size ** power for mood in moods] for size in (400, 100)} | {1: [7, 7, 7]}
    exponent = bench_growth.growth(seconds)
    assert exponent == pytest.approx({"median": power, "low": power, "high": power})
    assert bench_growth.verdict("loading_by_rows", exponent) == faster


def test_each_curve_has_a_panel_and_the_work_is_timed_from_small_to_large_and_back(tmp_path):
    done = []
    seconds = bench_growth.timed(done.append, [1, 2, 4], quick=False, rounds=2)
    assert done == [1, 1, 2, 4, 4, 2, 1] and {size: len(times) for size, times in seconds.items()} == {1: 2, 2: 2, 4: 2}
    curves = {"loading_by_rows": {10: [1.0], 100: [10.0]}, "encoding_by_rows": {10: [2.0], 100: [20.0]}}
    figure = bench_growth.draw([(f"panel {i}", "rows", curves) for i in range(6)])
    legend = [text.get_text() for text in figure.axes[5].get_legend().get_texts()]
    assert legend == ["loading by rows: 1.00", "encoding by rows: 1.00", "twice the work, twice the time: 1"]


def test_all_numbers_and_ratios_of_a_last_line_become_rows():
    spread = {"median": 2.0, "low": 1.5, "high": 2.5}
    rows = run_all.figures("bench", {"generation_speedup": spread, "by": {"0": spread, "n": 3}, "device": "cpu",
                                     "fast": True, "first_seconds": 0.25})
    assert [(row["name"], row["value"], row["spread"]) for row in rows] == [
        ("generation_speedup", 2.0, [1.5, 2.5]), ("by: 0", 2.0, [1.5, 2.5]), ("by: n", 3, None),
        ("first_seconds", 0.25, None)]
    table = run_all.table(rows, {"cores": 2})
    assert "| bench | generation_speedup | 2 | 1.5 to 2.5 | > 10 |" in table and "cores 2" in table


def test_retrieval_can_still_be_measured(tmp_path):
    curves = bench_growth.retrieval(True, tmp_path)
    assert {name: list(seconds) for name, seconds in curves.items()} == {
        "indexing_by_sections": [32, 128], "searching_by_sections": [32, 128]}
    results = bench_ex_04.retrieval(checkpoints.fetch("embedder", "tiny"), GUIDE / "worked_maths.md")
    assert min(results.values()) > 0 and "search_ms" in results


def test_each_goal_is_measured_by_a_benchmark():
    source = "".join(path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("bench_*.py"))
    assert not [goal for goal in run_all.GOALS if f'"{goal.removeprefix("growth_of_")}"' not in source]
