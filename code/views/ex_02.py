"""What exercise 2 prints and draws: numbers in, nothing out."""

from __future__ import annotations

import statistics
from pathlib import Path

from utils import movie_reviews, runtime
from utils.plots import figure, plain, shortened
from utils.reporting import printable, save_figure, say, table


def facts(checkpoint, model, reviews, coherence: str, device: str) -> dict[str, object]:
    """The lines of the banner."""
    return {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "parameters": f"{model.num_parameters():,}",
        "device": f"{device}, fp32, {runtime.threads()} threads",
        "reviews": ": ".join(filter(None, (reviews.name, reviews.note))),
        "  test": movie_reviews.balance(reviews.splits["test"]),
        "coherence": coherence,
    }


# Part 1


def next_token(part: dict, folder: Path) -> None:
    steps = part["prompts"]
    for step in steps:
        temperatures = step["temperatures"]
        columns = [map(repr, step["tokens"]), *(at["probs"] for at in temperatures.values())]
        table(f"After {step['prompt']!r}", ["next token", *(f"T = {t}" for t in temperatures)],
              [list(row) for row in zip(*columns, strict=True)])
        table("", ["temperature", "entropy in bits"],
              [[t, at["entropy"]] for t, at in temperatures.items()])
        table("", ["filter", "tokens kept", "their probability"],
              [[name, *kept.values()] for name, kept in step["filters"].items()])
    say("Top-k keeps as many tokens whether the model is sure or not; top-p and min-p adapt. See "
        "cuts.png.")
    save_figure(likeliest_tokens(steps), folder / "next_token.png")
    save_figure(cuts(steps), folder / "cuts.png")


def likeliest_tokens(steps: list[dict]):
    """The likeliest next tokens as bars, at several temperatures, a panel for each prompt."""
    fig, panels = figure(1, len(steps), figsize=(5.6 * len(steps), 4.6), squeeze=False)
    for axes, step in zip(panels[0], steps, strict=True):
        tokens = [plain(repr(token)) for token in step["tokens"]]
        height = 0.8 / len(step["temperatures"])
        for i, (t, at) in enumerate(step["temperatures"].items()):
            places = [place + i * height for place in range(len(tokens))]
            axes.barh(places, at["probs"], height, label=f"T = {t}")
        axes.set_yticks([place + 0.4 - height / 2 for place in range(len(tokens))], tokens)
        axes.invert_yaxis()
        axes.set(title=shortened(step["prompt"]), xlabel="probability of the next token")
        axes.legend(loc="lower right")
    return fig


def cuts(steps: list[dict]):
    """Probability by rank, both logarithmic, and where filters cut, a panel for each prompt."""
    fig, panels = figure(1, len(steps), figsize=(5.6 * len(steps), 3.8), squeeze=False, sharey=True)
    for axes, step in zip(panels[0], steps, strict=True):
        axes.loglog(step["ranks"], step["prob_at_rank"], color="black")
        looks = (("C0", "-"), ("C1", "--"), ("C2", ":"))
        for (colour, style), (name, kept) in zip(looks, step["filters"].items(), strict=True):
            axes.axvline(kept["tokens"] + 0.5, color=colour, linestyle=style,
                         label=f"{name}: keeps {kept['tokens']}")
        axes.set(title=shortened(step["prompt"]), xlabel="rank of the token", ylim=(1e-7, 1.5))
        axes.legend(loc="lower left")
    panels[0][0].set_ylabel("probability")
    return fig


# Part 2


def strategies(prompts: dict[str, list[str]], part: dict, folder: Path) -> None:
    flat = sum(prompts.values(), [])
    for category, (first, *_) in prompts.items():
        i = flat.index(first)
        table(f"{category}: {first} ...", ["strategy", "continuation"],
              [[name, one_line(row["texts"][i])] for name, row in part.items()])
    say(f"Tokens per second for {len(flat)} prompts at once: "
        + ", ".join(f"{name} {row['tokens_per_second']:.0f}" for name, row in part.items()))


def one_line(text: str) -> str:
    return " ".join(text.split())


def own_text(checkpoint, device: str, decoding: dict, seed: int) -> None:
    say(f"{checkpoint.name} ({checkpoint.source}) on {device}, {decoding}, seed {seed}")


def own_prompt(category: str, prompt: str) -> None:
    say(f"\n{category}", style="bold")
    print(printable(prompt), end="", flush=True)


def own_continuation(rest: str) -> None:
    """rest: what the streamer has not printed."""
    print(printable(rest), flush=True)


def streamer(tokenizer):
    """Prints a text as model.generate makes it, without its prompt."""
    from transformers import TextStreamer

    class Terminal(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            print(printable(text), end="", flush=True)

    return Terminal(tokenizer, skip_prompt=True, skip_special_tokens=True)


# Part 3


def sentiment(part: dict, folder: Path) -> None:
    for kind, title, column in (
            ("by_shots", f"{part['queries']} reviews, by number of examples", "shots"),
            ("by_order", "Four examples in several orders (+ positive, - negative)", "order"),
            ("by_words", "Four examples, other label words", "words")):
        rows = [[name, *answers(row["plain"]), *answers(row["calibrated"])]
                for name, row in part[kind].items()]
        table(title, [column, "accuracy", "95 % interval", "says positive",
                      "calibrated", "95 % interval", "says positive"], rows)
        if kind == "by_order":
            last_example(part["by_order"])
    best = max(part["by_shots"], key=lambda k: part["by_shots"][k]["calibrated"]["accuracy"])
    low, high = part["by_shots"][best]["calibrated"]["interval"]
    say(f"The majority label alone reaches {part['majority']:.3f}. The best calibrated prompt "
        f"({best}-shot, interval {low:.2f} to {high:.2f}) "
        + ("beats it. It was picked on these very reviews: expect less on others."
           if low > part["majority"] else
           "cannot be told from it: this model cannot do the task."))
    save_figure(few_shot(part), folder / "few_shot.png")


def answers(row: dict) -> list:
    return [row["accuracy"], interval(row), f"{row['says_positive']:.0%}"]


def interval(row: dict) -> str:
    return "{:.2f} to {:.2f}".format(*row["interval"])


def last_example(by_order: dict[str, dict]) -> None:
    """How the last example before the question pulls at the answer."""
    if {order[-1] for order in by_order} == {"+", "-"}:
        shares = (statistics.fmean(row[way]["says_positive"] for order, row in by_order.items()
                                   if order[-1] == last)
                  for way in ("plain", "calibrated") for last in "+-")
        say("The model says positive {:.0%} of the time after a positive last example and {:.0%} "
            "after a negative one; calibrated {:.0%} and {:.0%}.".format(*shares))


def few_shot(part: dict):
    """Accuracy with its interval by number of examples, and how often each prompt says positive."""
    fig, (left, middle, right) = figure(1, 3, figsize=(13, 3.8), width_ratios=(1.4, 1, 1))
    for i, way in enumerate(("plain", "calibrated")):
        rows = [row[way] for row in part["by_shots"].values()]
        places = [place + 0.12 * i - 0.06 for place in range(len(rows))]
        errors = [[abs(row["accuracy"] - row["interval"][end]) for row in rows] for end in (0, 1)]
        left.errorbar(places, [row["accuracy"] for row in rows], yerr=errors, fmt="o-", capsize=3,
                      label=way)
        for axes, style, kind in ((middle, "o-", "by_shots"), (right, "o", "by_order")):
            shares = [row[way]["says_positive"] for row in part[kind].values()]
            axes.plot(list(part[kind]), shares, style, markersize=(9, 5)[i], label=way)
    left.axhline(part["majority"], linestyle="--", color="grey", label="majority label")
    left.set_xticks(range(len(part["by_shots"])), list(part["by_shots"]))
    left.set(xlabel="examples in the prompt", ylabel="accuracy",
             title="Accuracy and its 95 % interval")
    left.margins(y=0.15)
    middle.set(xlabel="examples in the prompt, in one order")
    right.set(xlabel="order of the same four examples")
    for axes in (middle, right):
        axes.axhline(0.5, linestyle=":", color="grey")
        axes.set(ylim=(-0.03, 1.03), title='Share of "positive" answers')
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    return fig


def capitals(part: dict, folder: Path) -> None:
    rows = [[shots, row["chosen"]["accuracy"], interval(row["chosen"]),
             row["said"]["accuracy"], interval(row["said"]),
             "; ".join(f"{country}: {answer!r}" for country, answer in row["missed"][:2])]
            for shots, row in part.items()]
    table("Capitals, chosen among all that are asked for, or said freely",
          ["shots", "chosen", "95 % interval", "said", "95 % interval", "not said, for instance"],
          rows)


# Part 4


def quality(prompts: list[str], texts: dict, part: dict, folder: Path) -> None:
    columns = list(next(iter(part.values()))["all"])
    table(f"{len(prompts)} continuations by strategy", ["strategy", *columns],
          [[name, *row["all"].values()] for name, row in part.items()])
    say("Perplexity is the median, distinct-n is over all texts of a row together, the others are "
        "means; repetition is the share of repeated 4-grams. Low perplexity is no praise: what "
        "repeats itself is easy to predict, what people write is not (a rough yardstick: their "
        "prompts were others).")
    columns = [name for name in ("perplexity", "repetition", "similarity") if name in columns]
    table(f"One prompt: {prompts[0]} ...", ["strategy", *columns, "continuation"],
          [[name, *(part[name]["each"][column][0] for column in columns), one_line(row["texts"][0])]
           for name, row in texts.items()])
    points = {name: row["all"] for name, row in part.items()}
    save_figure(diversity(points), folder / "diversity.png")


def diversity(points: dict[str, dict]):
    """Diversity against perplexity, every point with its name beside it."""
    fig, axes = figure(figsize=(6.8, 4.6))
    from_left = sorted(points, key=lambda name: points[name]["perplexity"])
    for i, name in enumerate(from_left):  # names above and below in turn, for neighbours' sake
        place = points[name]["perplexity"], points[name]["distinct_2"]
        axes.scatter(*place, marker="os^Dv<>p*X"[i % 10], s=60)
        axes.annotate(name, place, (0, (8, -15)[i % 2]), textcoords="offset points", ha="center",
                      fontsize=8)
    axes.set(xscale="log", xlabel="perplexity under the model (median, log scale)",
             ylabel="distinct-2", title="Diversity and predictability of generated text")
    axes.margins(x=0.15, y=0.15)
    low, high = axes.get_xlim()
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= t <= high]
    axes.set_xticks(ticks, ticks, minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    return fig
