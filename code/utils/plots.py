"""The drawings of the exercises: numbers in, a matplotlib figure out.

`reporting.save_figure` writes it as PNG.
"""

from __future__ import annotations

import contextlib
import os
import sys


def figure(rows: int = 1, columns: int = 1, figsize: tuple[float, float] | None = None, **options):
    """(figure, axes) as from `plt.subplots`, but without pyplot: a notebook's own plots stay
    as they are."""
    drawing = _figure_class()(figsize=figsize, layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def _figure_class():
    """matplotlib's Figure. Its first import fails if $MPLBACKEND is of another environment, as
    a notebook's may be."""
    backend = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    if backend:
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            rcParams["backend"] = backend
    return Figure


def learning_curves(history: list[dict], metrics: dict[str, str]):
    """A figure of training and validation loss by step, and of other validation metrics beside it.

    history: the Trainer's log_history. metrics: key in the history -> label of its curve.
    Returns the figure.
    """
    fig, (left, right) = figure(1, 2, figsize=(10, 3.6))
    curves = [(left, "loss", "training loss"), (left, "eval_loss", "validation loss"),
              *((right, key, label) for key, label in metrics.items())]
    for axes, key, label in curves:
        points = [(row["step"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend()
        axes.grid(alpha=0.3)
    return fig


def bar_groups(panels: list[tuple]):
    """Panels of grouped bars with their values on them: (title, series name -> values, names of
    the groups)."""
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


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def shortened(text: str, width: int = 50) -> str:
    """The end of a text, on one line, for a title."""
    text = " ".join(text.split())
    return plain(text if len(text) <= width else "... " + text[-width:].split(" ", 1)[-1])
