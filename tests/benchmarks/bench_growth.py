"""How cost grows with the work: training, loading, generating, chatting, retrieving, grading.

    python tests/benchmarks/bench_growth.py          minutes; writes guides/outputs/growth.png
    python tests/benchmarks/bench_growth.py --quick  the two smallest sizes once, to see that it runs; writes nothing

Each curve times the course's own functions at several sizes, which take turns. Its growth is the exponent between the
two largest: 1 where twice the work takes twice the time, 2 where it takes four times, and less where some of the time
goes into what any work needs, such as starting. Models are the packaged ones where the seconds mean something to a
user, and tiny random ones where only their growth does. Last comes one JSON object: the exponents, as medians.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import functools
import io
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from bench_ex_04 import QUESTIONS, SYSTEM, finish
from timing import alternate, ratio
from utils.runtime import REPOSITORY

Seconds = dict[int, list[float]]  # by size: one number a round
Curves = dict[str, Seconds]

# Each token looks back at all before it, so the work itself grows by up to the square of the length.
ATTENTION = ("generation_by_length", "first_token_by_turns_anew")


def timed(work: Callable[[int], object], sizes: list[int], quick: bool, rounds: int = 3) -> Seconds:
    """Seconds of work(size), by size. The smallest is done once before: imports and caches do not count."""
    sizes, rounds = (sizes[:2], 1) if quick else (sizes, rounds)
    work(sizes[0])
    return alternate({size: functools.partial(work, size) for size in sizes}, rounds, warm_up=0)


def growth(seconds: Seconds) -> dict[str, float]:
    """The exponent between the two largest sizes, round by round: its median, and the middle half's ends.

    growth({10: [1, 1], 20: [4, 4]}) has a median of 2.
    """
    *_, small, large = sorted(seconds)
    return {key: math.log(times) / math.log(large / small)
            for key, times in ratio(seconds[large], seconds[small]).items()}


def verdict(name: str, exponent: dict[str, float]) -> str:
    """Whether cost grows faster than the work; a tenth is left to the machine's moods."""
    if exponent["low"] <= 1.1:
        return "no"
    return "yes, as attention may" if name in ATTENTION else "YES"


def made_reviews(count: int) -> list[tuple[str, int]]:
    """Rows of (text, label), all different."""
    from utils import tiny

    rows = list(zip(*tiny.reviews(0), strict=True))
    return [(f"{text} {i}", label) for i in range(count) for text, label in [rows[i % len(rows)]]]


# The curves. quick: see `timed`. folder: an empty one, for files.


def training(quick: bool, folder: Path) -> Curves:
    """Exercise 1's training, whole: encoding, steps, validations, checkpoints."""
    import ex_01_bert_classification as ex
    from utils import checkpoints, movie_reviews, training

    settings = ex.parse(["--preset", "smoke"])
    settings.epochs = 1
    tokenizer, model = ex.load_classifier(checkpoints.fetch("encoder", "tiny"), settings)
    splits = movie_reviews.split({"train": made_reviews(8128)}, 0, {"validation": 64, "test": 64})

    def train(examples: int) -> None:
        session = SimpleNamespace(settings=settings, device="cpu", checkpoints=folder / "checkpoints")
        parts = {"train": splits["train"].select(range(examples)), "validation": splits["validation"]}
        trainer = ex.make_trainer(session, copy.deepcopy(model), tokenizer, SimpleNamespace(splits=parts))
        with contextlib.redirect_stdout(io.StringIO()):  # a line for each validation
            training.train(trainer, session)
        shutil.rmtree(session.checkpoints)

    return {"training_by_examples": timed(train, [500, 2000, 8000], quick)}


def loading(quick: bool, folder: Path) -> Curves:
    """From an own csv to splits, and from texts to tokens, as exercise 1 does before it trains."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    import ex_01_bert_classification as ex
    from utils import checkpoints, movie_reviews

    tokenizer = AutoTokenizer.from_pretrained(checkpoints.fetch("encoder", "packaged").folder)
    sizes = [1000, 10_000] if quick else [1000, 10_000, 100_000, 1_000_000]
    rows = made_reviews(sizes[-1])
    for size in sizes:
        with (folder / f"{size}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows[:size]])

    def load(size: int) -> None:
        movie_reviews.load_reviews(str(folder / f"{size}.csv"), 0, {})

    texts = {size: Dataset.from_dict({"text": [text for text, _ in rows[:size]]}) for size in sizes}
    del rows  # a million objects, through which the garbage collector would look again and again

    def encode(size: int) -> None:
        texts[size].map(lambda some: ex.encode(tokenizer, some["text"], 128), batched=True)

    return {"loading_by_rows": timed(load, sizes, quick, rounds=2),
            "encoding_by_rows": timed(encode, sizes, quick, rounds=2)}


def generation(quick: bool, folder: Path) -> Curves:
    """Exercise 2's greedy generation: 16 tokens for many prompts, and many tokens for one."""
    import ex_02_gpt2_generation as ex
    from utils import checkpoints

    tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", "packaged"))

    def generate(prompts: int, tokens: int) -> None:
        to_the_end = {"do_sample": False, "min_new_tokens": tokens}
        ex.generate(model, tokenizer, (4 * QUESTIONS)[:prompts], to_the_end, tokens, seed=0)

    return {"generation_by_length": timed(lambda n: generate(1, n), [16, 64, 256], quick, rounds=2),
            "generation_by_batch": timed(lambda n: generate(n, 16), [1, 2, 8, 32], quick)}


def chat(quick: bool, folder: Path) -> Curves:
    """Exercise 4's time to the first token, with what is kept from turn to turn, and all read anew."""
    from assistant.backends import Options
    from assistant.local import Local
    from utils import checkpoints

    checkpoint, options = checkpoints.fetch("chat", "packaged"), Options(max_new_tokens=8, temperature=0)
    backends = {"first_token_by_turns_anew": Local(checkpoint, reuse=False), "first_token_by_turns": Local(checkpoint)}
    turns, rounds = ([1, 2], 1) if quick else ([1, 2, 8, 32], 3)
    seconds = {name: {turn: [] for turn in turns} for name in backends}
    for i in range(rounds):
        # Another first word, so that nothing is reused of the round before.
        messages = [{"role": "system", "content": f"Class {i}. {SYSTEM}"}]
        for turn in range(1, turns[-1] + 1):
            messages.append({"role": "user", "content": QUESTIONS[turn % len(QUESTIONS)]})
            for name, backend in backends.items():
                if turn in turns or backend.reuse:  # which needs the turns between
                    start = time.perf_counter()
                    answer = backend.stream(messages, options)
                    next(piece for piece in answer if piece)
                    seconds[name].get(turn, []).append(time.perf_counter() - start)
                    text = finish(answer).text
            messages.append({"role": "assistant", "content": text})
    return seconds


def retrieval(quick: bool, folder: Path) -> Curves:
    """The tutor's index, built, and asked ten questions: the guide's sections, again and again."""
    from assistant.retrieval import GuideIndex, read_sections
    from assistant.turn import GUIDE
    from utils import checkpoints

    page = GUIDE / "pretrained_transformers_guide.md"
    guide = read_sections(page.read_text(encoding="utf-8"))
    sections = [replace(guide[i % len(guide)], link=str(i)) for i in range(2048)]
    encoder, indices = checkpoints.fetch("embedder", "tiny"), {}

    def build(count: int) -> None:
        indices[count] = GuideIndex(sections[:count], encoder, folder)

    def search(count: int) -> None:
        for question in QUESTIONS:
            indices[count].search(question)

    sizes = [32, 128, 512, 2048]
    return {"indexing_by_sections": timed(build, sizes, quick), "searching_by_sections": timed(search, sizes, quick)}


def grading(quick: bool, folder: Path) -> Curves:
    """The grader's whole command, on copies of exercise 1's solution."""
    script = REPOSITORY / "code" / "ex_01_bert_classification.py"

    def grade(submissions: int, processes: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            students = Path(scratch, "students")
            students.mkdir()
            for i in range(submissions):
                shutil.copyfile(script, students / f"student {i}.py")
            subprocess.run([sys.executable, REPOSITORY / "tests" / "grading" / "grade.py", "ex_01", students, "-j",
                            str(processes), "--out", Path(scratch, "grades")], check=True, capture_output=True)

    return {"grading_by_submissions": timed(lambda n: grade(n, 1), [1, 2, 8], quick, rounds=1),
            "grading_on_two_processes": timed(lambda n: grade(n, 2), [1, 2, 8], quick, rounds=1)}


PANELS = [("Training (tiny model)", "examples", training), ("Loading and encoding", "rows", loading),
          ("Generation", "prompts, or new tokens", generation), ("Chat, to the first token", "turn", chat),
          ("Retrieval (tiny model)", "sections", retrieval), ("Grading", "submissions", grading)]


def draw(panels: list[tuple[str, str, Curves]]):
    """A figure of panels (title, unit, curves): medians, log-log, and a line of slope 1 to compare with."""
    from matplotlib.ticker import LogLocator

    from utils import plots

    figure, axes = plots.figure(2, 3, figsize=(8.8, 5.2))
    for ax, (title, unit, curves) in zip(axes.flat, panels, strict=True):
        for name, seconds in curves.items():
            medians = [statistics.median(times) for times in seconds.values()]
            ax.plot(list(seconds), medians, marker="o", markersize=4,
                    label=f"{name.replace('_', ' ')}: {growth(seconds)['median']:.2f}")
        first = {size: statistics.median(times) for size, times in next(iter(curves.values())).items()}
        largest = max(first)
        ax.plot(list(first), [first[largest] * size / largest for size in first], "--", color="grey", linewidth=1,
                zorder=0, label="twice the work, twice the time: 1")
        ax.set(xscale="log", yscale="log")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(unit, fontsize=8)
        ax.set_ylabel("seconds", fontsize=8)
        sizes = sorted({size for seconds in curves.values() for size in seconds})
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=6.5)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="does it run?")
    quick = parser.parse_args().quick

    from utils import reporting, runtime

    runtime.start(SimpleNamespace(device="cpu", seed=0))
    panels, rows, results = [], [], {}
    for title, unit, curves in PANELS:
        with tempfile.TemporaryDirectory() as folder:
            panels.append((title, unit, curves(quick, Path(folder))))
        for name, seconds in panels[-1][2].items():
            results[f"growth_of_{name}"] = exponent = growth(seconds)
            ends = [x for size in sorted(seconds)[-2:] for x in (size, statistics.median(seconds[size]))]
            rows.append([name.replace("_", " "), *ends, exponent["median"], verdict(name, exponent)])
        reporting.say(f"{title}: measured")
    reporting.table("How cost grows between the two largest sizes", [
        "", "from", "seconds", "to", "seconds", "exponent", "faster than the work?"], rows)
    if not quick:
        reporting.save_figure(draw(panels), REPOSITORY / "guides" / "outputs" / "growth.png")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
