"""All benchmarks, one after the other, with one table and one JSON. Best on a machine that does nothing else.

    python tests/benchmarks/run_all.py                  about three quarters of an hour on two cores
    python tests/benchmarks/run_all.py bench_ex_02      some of them

The last line that a benchmark prints is JSON: {name: number, or {"median", "low", "high"} of a ratio}. This collects
them, with machine and versions, into guides/outputs/benchmarks.json and benchmarks.md, which shows growth.png, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "code"))

from utils.runtime import precision  # noqa: E402
from utils.session import write_whole  # noqa: E402

OUTPUTS = REPOSITORY / "guides" / "outputs"
BENCHMARKS = {"bench_ex_01": ["--accuracy", "2"], "bench_ex_02": [], "bench_ex_03": [], "bench_ex_04": [],
              "bench_growth": [], "bench_limits": [], "bench_start": []}  # with their arguments


def machine() -> dict:
    """What the figures depend on."""
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "precision": precision("cpu"), "python": platform.python_version(), "system": platform.system(),
            **{name: version(name) for name in ("torch", "transformers")}}


# What each figure should at least (>) or at most (<) be.
GOALS = {
    "times_as_fast_as_padding_to_512": "> 60", "times_as_fast_as_a_plain_trainer": "> 2.4 with bf16, > 1.8 without",
    "accuracy_gained": "> -0.01", "generation_speedup": "> 10", "bf16_times_as_fast_as_fp32": "> 1.4",
    "lora_memory_over_full": "< 0.7", "decoding_times_as_fast_as_fp32_generate": "> 3",
    "first_token_of_turn_10_over_turn_1": "< 1", "help_seconds": "< 0.3", "import_seconds": "< 0.1",
    # 1: twice the work takes twice the time.
    "growth_of_training_by_examples": "< 1.1", "growth_of_loading_by_rows": "< 1.1",
    "growth_of_encoding_by_rows": "< 1.1", "growth_of_generation_by_batch": "< 1.1",
    "growth_of_generation_by_length": "< 1.1, or up to 2 where attention takes most of the time",
    "growth_of_first_token_by_turns": "< 1", "growth_of_first_token_by_turns_anew": "< 1.1, as above",
    "growth_of_indexing_by_sections": "< 1.1", "growth_of_searching_by_sections": "< 1.1",
    "growth_of_grading_by_submissions": "< 1.1", "growth_of_grading_on_two_processes": "< 1.1",
}


def run(name: str) -> list[dict]:
    """The figures of one benchmark; everything it prints is shown as it comes."""
    file = REPOSITORY / "tests" / "benchmarks" / f"{name}.py"
    last, command = "", [sys.executable, "-u", str(file), *BENCHMARKS[name]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=REPOSITORY) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
    if process.returncode:
        sys.exit(f"error: exit status {process.returncode} from {name}")
    return figures(name, json.loads(last))


def figures(name: str, results: dict) -> list[dict]:
    """The rows of a benchmark's last line: its numbers and ratios, also those of a dictionary inside; no texts."""
    rows = []
    for key, value in results.items():
        if isinstance(value, dict) and "median" not in value:
            rows += figures(name, {f"{key}: {inner}": number for inner, number in value.items()})
        elif isinstance(value, dict) or type(value) in (int, float):
            spread = [value["low"], value["high"]] if isinstance(value, dict) else None
            rows.append({"benchmark": name, "name": key, "value": value["median"] if spread else value,
                         "spread": spread, "goal": GOALS.get(key, "")})
    return rows


def table(rows: list[dict], facts: dict) -> str:
    """Markdown."""
    on = ", ".join(f"{key} {value}" for key, value in facts.items())
    lines = ["# Benchmarks", "", f"Written by `python tests/benchmarks/run_all.py`, on {on}. Ratios are medians over "
             "rounds in which the recipes take turns; beside them the middle half of the rounds.", "",
             *["![How cost grows with the work: six panels](growth.png)", ""] * (OUTPUTS / "growth.png").is_file(),
             "| benchmark | measured | value | middle half | goal |", "|---|---|---|---|---|"]
    for row in rows:
        spread = " to ".join(f"{x:.3g}" for x in row["spread"]) if row.get("spread") else ""
        lines.append(f"| {row['benchmark']} | {row['name']} | {row['value']:.3g} | {spread} | {row['goal']} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", choices=[*BENCHMARKS, []], metavar="BENCHMARK")
    wanted, facts = parser.parse_args().benchmarks or BENCHMARKS, machine()
    file = OUTPUTS / "benchmarks.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    for name in wanted:  # each is kept at once, whatever becomes of the next
        rows = sorted([row for row in rows if row["benchmark"] != name] + run(name), key=lambda row: row["benchmark"])
        text = json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n"
        for path, content in ((file, text), (file.with_suffix(".md"), table(rows, facts))):
            write_whole(path, lambda p, content=content: p.write_text(content, encoding="utf-8", newline="\n"))
    print(f"The table is in {file.with_suffix('.md')}")


if __name__ == "__main__":
    main()
