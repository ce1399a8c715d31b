"""The drawings of the exercises: numbers in, a matplotlib figure out. `OutputFolder.save_figure` writes it as PNG."""

from __future__ import annotations

import os


def figure(rows: int = 1, columns: int = 1, figsize: tuple[float, float] | None = None, **options):
    """(figure, axes) as from `plt.subplots`, but without pyplot: a notebook's own plots stay as they are."""
    try:
        from matplotlib.figure import Figure
    except ValueError:  # $MPLBACKEND names a backend of another environment, such as the notebook's that called us
        os.environ.pop("MPLBACKEND")
        from matplotlib.figure import Figure
    drawing = Figure(figsize=figsize, layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def learning_curves(history: list[dict], metrics: dict[str, str]):
    """A figure of training and validation loss by step, and of other validation metrics beside it.

    history: the Trainer's log_history. metrics: key in the history -> label of its curve. Returns the figure.
    """
    fig, (left, right) = figure(1, 2, figsize=(10, 3.6))
    for key, label in (("loss", "training loss"), ("eval_loss", "validation loss")):
        points = [(row["step"], row[key]) for row in history if key in row]
        left.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label) if points else None
    for key, label in metrics.items():
        points = [(row["step"], row[key]) for row in history if key in row]
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label) if points else None
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend()
        axes.grid(alpha=0.3)
    return fig


def bar_groups(panels: list[tuple]):
    """Panels of grouped bars with their values on them: (title, series name -> values, names of the groups)."""
    fig, all_axes = figure(1, len(panels), figsize=(5.4 * len(panels), 3.8), squeeze=False)
    for axes, (title, series, groups) in zip(all_axes[0], panels, strict=True):
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            places = [group + (i - (len(series) - 1) / 2) * width for group in range(len(groups))]
            axes.bar_label(axes.bar(places, values, width, label=name), fmt="%.3g", fontsize=8)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.15)
        axes.legend(fontsize=8)
    return fig


def next_token(panels: list[tuple]):
    """The likeliest next tokens as bars, at several temperatures.

    panels: (prompt, tokens, temperature -> their probabilities), one panel each.
    """
    fig, all_axes = figure(1, len(panels), figsize=(5.6 * len(panels), 4.6), squeeze=False)
    for axes, (prompt, tokens, series) in zip(all_axes[0], panels, strict=True):
        height = 0.8 / len(series)
        for i, (temperature, values) in enumerate(series.items()):
            axes.barh([place + i * height for place in range(len(tokens))], values, height, label=f"T = {temperature}")
        axes.set_yticks([place + 0.4 - height / 2 for place in range(len(tokens))], [plain(token) for token in tokens])
        axes.invert_yaxis()
        axes.set(title=shortened(prompt), xlabel="probability of the next token")
        axes.legend(loc="lower right")
    return fig


def sampling_cuts(panels: list[tuple]):
    """Probability by rank, both logarithmic, and where each filter cuts.

    panels: (prompt, probabilities in descending order, filter's name -> tokens that it keeps), one panel each.
    """
    fig, all_axes = figure(1, len(panels), figsize=(5.6 * len(panels), 3.8), squeeze=False, sharey=True)
    for axes, (prompt, probabilities, kept) in zip(all_axes[0], panels, strict=True):
        axes.loglog(range(1, len(probabilities) + 1), probabilities, color="black")
        for colour, style, (name, count) in zip(("C0", "C1", "C2"), ("-", "--", ":"), kept.items(), strict=True):
            axes.axvline(count + 0.5, color=colour, linestyle=style, label=f"{name}: keeps {count}")
        axes.set(title=shortened(prompt), xlabel="rank of the token", ylim=(1e-7, 1.5))
        axes.legend(loc="lower left")
    all_axes[0][0].set_ylabel("probability")
    return fig


def few_shot(by_shots: dict[str, dict], by_order: dict[str, dict], baselines: dict[str, float]):
    """Accuracy with its interval by number of examples, and the share of "positive" answers by number and by order.

    by_shots, by_order: name -> {"plain" and "calibrated": {"accuracy", "interval", "positive_share"}}.
    """
    fig, (left, *others) = figure(1, 3, figsize=(13, 3.8), width_ratios=(1.4, 1, 1))
    for shift, kind in ((-0.06, "plain"), (0.06, "calibrated")):
        rows = [result[kind] for result in by_shots.values()]
        left.errorbar([i + shift for i in range(len(rows))], [row["accuracy"] for row in rows], fmt="o-", capsize=3,
                      yerr=list(zip(*((row["accuracy"] - row["interval"][0], row["interval"][1] - row["accuracy"])
                                      for row in rows), strict=True)), label=kind)
        for axes, results in zip(others, (by_shots, by_order), strict=True):
            axes.plot(list(results), [result[kind]["positive_share"] for result in results.values()],
                      "o-" if results is by_shots else "o", label=kind)
    for style, (name, value) in zip(("--", ":"), baselines.items(), strict=False):
        left.axhline(value, linestyle=style, color="grey", label=name)
    left.set_xticks(range(len(by_shots)), list(by_shots))
    left.set(xlabel="examples in the prompt", ylabel="accuracy", title="Accuracy and its 95 % interval")
    left.margins(y=0.15)
    for axes, name in zip(others, ("examples in the prompt", "order of the examples"), strict=True):
        axes.axhline(0.5, linestyle=":", color="grey")
        axes.set(xlabel=name, ylim=(-0.03, 1.03), title='Share of "positive" answers')
    for axes in (left, *others):
        axes.legend(fontsize=8)
    return fig


def diversity(points: dict[str, tuple[float, float]]):
    """Diversity against perplexity. points: strategy -> (perplexity, distinct-2)."""
    fig, axes = figure(figsize=(6.4, 4.4))
    for i, (name, (x, y)) in enumerate(points.items()):
        axes.scatter(x, y, marker="os^Dv<>p*X"[i % 10], s=60, label=name)
    axes.set(xscale="log", xlabel="perplexity under the model (median, log scale)", ylabel="distinct-2",
             title="Diversity and predictability of generated text")
    low, high = axes.get_xlim()
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= tick <= high]
    axes.set_xticks(ticks, ticks, minor=False)
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return fig


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def shortened(text: str, width: int = 50) -> str:
    """The end of a text, on one line, for a title."""
    text = " ".join(text.split())
    return plain(text if len(text) <= width else "... " + text[-width:].split(" ", 1)[-1])
