"""The drawings of the exercises: numbers in, a matplotlib figure out. `OutputFolder.save_figure` writes it as PNG."""

from __future__ import annotations


def figure(*args, **options):
    """`plt.subplots(...)` drawn without a screen: returns (figure, axes)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(*args, layout="constrained", **options)


def heat_maps(panels: list[tuple], **options):
    """Labelled matrices side by side, each with a colour bar.

    panels: (title, values, row names, column names), values of shape (rows, columns). options: for imshow.
    """
    fig, all_axes = figure(1, len(panels), figsize=(6 * len(panels), 4.6), squeeze=False)
    for axes, (title, values, rows, columns) in zip(all_axes[0], panels, strict=True):
        image = axes.imshow(values, aspect="auto", **options)
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set_title(title, fontsize=10)
        fig.colorbar(image, ax=axes)
    return fig


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


def confusion_matrix(labels, predicted, names):
    """Counts of true against predicted labels. labels, predicted: (n,) indices into names."""
    from sklearn.metrics import ConfusionMatrixDisplay

    fig, axes = figure(figsize=(4.2, 3.6))
    ConfusionMatrixDisplay.from_predictions(labels, predicted, labels=range(len(names)), display_labels=names,
                                            cmap="Blues", ax=axes)
    return fig


def calibration(confidence, right, bins: int = 5):
    """How often predictions of a given confidence were right, above a histogram of the confidences.

    confidence: (n,) probability of the predicted one of two labels, 0.5 to 1; right: (n,) booleans.
    """
    import numpy as np

    fig, (top, bottom) = figure(2, 1, figsize=(4.6, 5), height_ratios=(3, 1), sharex=True)
    edges = np.linspace(0.5, 1, bins + 1)
    bin_of = np.digitize(confidence, edges[1:-1])
    filled = [b for b in range(bins) if (bin_of == b).any()]
    top.plot([0.5, 1], [0.5, 1], "--", color="grey", label="perfectly calibrated")
    top.plot([confidence[bin_of == b].mean() for b in filled], [right[bin_of == b].mean() for b in filled], "o-",
             label="this model")
    top.set(ylabel="share that was right", title="Calibration on the test split")
    top.legend()
    bottom.hist(confidence, bins=edges)
    bottom.set(xlabel="confidence in the predicted label", ylabel="reviews")
    return fig


def sense_maps(words: dict[str, tuple]):
    """Each word's vectors in two dimensions (PCA), marked by sense. words: word -> (vectors (n, d), n sense names)."""
    from sklearn.decomposition import PCA

    fig, all_axes = figure(1, len(words), figsize=(3.6 * len(words), 3.4), squeeze=False)
    for axes, (word, (vectors, senses)) in zip(all_axes[0], words.items(), strict=True):
        points = PCA(2).fit_transform(vectors)
        for marker, sense in zip("os^Dv", dict.fromkeys(senses), strict=False):
            chosen = [i for i, name in enumerate(senses) if name == sense]
            axes.scatter(points[chosen, 0], points[chosen, 1], marker=marker, label=sense)
        axes.set(title=f"{word}: its sentences", xticks=[], yticks=[])
        axes.legend(fontsize=8)
    return fig
