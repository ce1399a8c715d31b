"""All benchmarks, one after the other, with one table and one JSON. Best on a machine that does nothing else.

    python tests/benchmarks/run_all.py                  about half an hour on two cores
    python tests/benchmarks/run_all.py bench_ex_02      some of them

The last line that a benchmark prints is JSON: {name: number, or {"median", "low", "high"} of a ratio}. This collects
them, with machine and versions, into guides/outputs/benchmarks.json and benchmarks.md.
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
BENCHMARKS = ("bench_ex_01", "bench_ex_02", "bench_ex_03", "bench_ex_04")


def machine() -> dict:
    """What the figures depend on."""
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "precision": precision("cpu"), "python": platform.python_version(), "system": platform.system(),
            **{name: version(name) for name in ("torch", "transformers")}}


# What each figure should at least (>) or at most (<) be.
GOALS = {
    "times_as_fast_as_padding_to_512": "> 60", "times_as_fast_as_a_plain_trainer": "> 2.4 with bf16, > 1.8 without",
    "accuracy_gained": "> -0.01", "times_as_fast_as_one_by_one": "> 10", "bf16_times_as_fast_as_fp32": "> 1.4",
    "lora_memory_over_full": "< 0.7", "decoding_times_as_fast_as_fp32_generate": "> 3",
    "first_token_of_turn_10_over_turn_1": "< 1",
}


def run(name: str) -> list[dict]:
    """The figures of one benchmark; everything it prints is shown as it comes."""
    last, command = "", [sys.executable, "-u", str(REPOSITORY / "tests" / "benchmarks" / f"{name}.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=REPOSITORY) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
    if process.returncode:
        sys.exit(f"error: exit status {process.returncode} from {name}")
    rows = []
    for key, value in json.loads(last).items():
        spread = [value["low"], value["high"]] if isinstance(value, dict) else None
        if isinstance(value, dict) or type(value) in (int, float):
            rows.append({"benchmark": name, "name": key, "value": value["median"] if spread else value,
                         "spread": spread, "goal": GOALS.get(key, "")})
    return rows


def table(rows: list[dict], facts: dict) -> str:
    """Markdown."""
    on = ", ".join(f"{key} {value}" for key, value in facts.items())
    lines = ["# Benchmarks", "", f"Written by `python tests/benchmarks/run_all.py`, on {on}. Ratios are medians over "
             "rounds in which the recipes take turns; beside them the middle half of the rounds.", "",
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
    before = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    rows = [row for row in before if row["benchmark"] not in wanted]
    rows = sorted(rows + [row for name in wanted for row in run(name)], key=lambda row: row["benchmark"])
    text = json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n"
    write_whole(file, lambda p: p.write_text(text, encoding="utf-8", newline="\n"))
    write_whole(OUTPUTS / "benchmarks.md", lambda p: p.write_text(table(rows, facts), encoding="utf-8", newline="\n"))
    print(f"The table is in {OUTPUTS / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
