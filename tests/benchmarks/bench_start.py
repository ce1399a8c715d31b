"""How long a script takes before it does anything: `--help`, and `import` as tests and the grader do it.

    python tests/benchmarks/bench_start.py    seconds; prints a table and, last, one JSON object

Fresh processes take turns, Python alone among them, whose own start is in the figures of --help and not in those of
import. The slowest of the four scripts counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[2] / "code"
sys.path.insert(0, str(CODE))

from timing import alternate  # noqa: E402
from utils import reporting  # noqa: E402

IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
__import__(sys.argv[2])
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    scripts = sorted(CODE.glob("ex_0*.py"))
    imports: dict[str, list[float]] = {script.name: [] for script in scripts}

    def python(*arguments: object) -> str:
        return subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True, text=True,
                              encoding="utf-8").stdout

    for _ in range(rounds):
        for script in scripts:
            imports[script.name].append(float(python("-c", IMPORT, CODE, script.stem)))
    recipes = {script.name: (lambda script=script: python(script, "--help")) for script in scripts}
    seconds = alternate({"Python alone": lambda: python("-c", "pass"), **recipes}, rounds)
    reporting.table("Seconds before anything is done (medians)", ["script", "--help", "import"], [
        [name, statistics.median(times), f"{statistics.median(imports[name]):.3f}" if name in imports else "-"]
        for name, times in seconds.items()])
    print(json.dumps({"help_seconds": max(statistics.median(seconds[name]) for name in recipes),
                      "import_seconds": max(map(statistics.median, imports.values())),
                      "python_alone_seconds": statistics.median(seconds["Python alone"])}))


if __name__ == "__main__":
    main()
