"""What exercise 1 prints and draws: numbers in, nothing out."""

from __future__ import annotations

from pathlib import Path

from utils import movie_reviews, plots, reporting, runtime
from utils.reporting import save_figure, say, table

BASELINES = {"majority": "the majority label", "tfidf": "TF-IDF, logistic regression"}


def facts(checkpoint, model, reviews, device: str) -> dict[str, object]:
    """The lines of the banner."""
    trained = model.num_parameters(only_trainable=True)
    return {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "parameters": f"{model.num_parameters():,}, {trained:,} of them trained",
        "device": f"{device}, training in {runtime.precision(device)}, {runtime.threads()} threads",
        "reviews": ": ".join(filter(None, (reviews.name, reviews.note))),
        **{f"  {part}": movie_reviews.balance(split) for part, split in reviews.splits.items()},
    }


def tokens(part: dict, folder: Path) -> None:
    sentences = zip(part["tokens"], part["input_ids"], part["attention_mask"], strict=True)
    columns = [column for sentence in sentences for column in sentence]
    table("One batch of two sentences", ["token", "id", "attention mask"] * 2,
          [list(row) for row in zip(*columns, strict=True)])
    say(f"The vocabulary has {part['vocabulary']:,} entries. A rare word is cut into pieces; "
        f"{part['pad_token']} fills the shorter sentence, and a mask of 0 tells the model to look "
        "away from it.")
    if part["guesses"]:
        table(part["masked"], ["guess", "probability"], part["guesses"])
    else:
        say("No guesses for a masked word: the head that makes them in pre-training was not saved "
            "with this checkpoint, and a new one would guess at random.")


def baselines(part: dict, folder: Path) -> None:
    impossible = "not possible: no text has a word of two letters"
    table("", ["baseline", "test accuracy"],
          [[BASELINES[name], impossible if value is None else value]
           for name, value in part.items()])


def training(part: dict, folder: Path) -> None:
    since = f" since step {part['resumed_from_step']}" if part["resumed_from_step"] else ""
    say(f"{part['seconds']:.0f} s{since}, best validation accuracy "
        f"{part['best_validation_accuracy']:.3f} at step {part['best_step']}, which is the model "
        "kept.")
    curves = {"eval_accuracy": "validation accuracy", "eval_f1": "validation F1"}
    save_figure(plots.learning_curves(part["history"], curves), folder / "learning_curves.png")


def evaluation(part: dict, folder: Path) -> None:
    low, high = part["interval"]
    say(f"accuracy {part['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), "
        f"F1 {part['f1']:.3f}, mean confidence {part['mean_confidence']:.3f}, "
        f"calibration error {part['calibration_error']:.3f}")
    save_figure(confusion_matrix(part["confusion"]), folder / "confusion_matrix.png")
    save_figure(calibration(part["calibration"]), folder / "calibration.png")
    table("Accuracy by length, from the shortest quarter to the longest",
          ["words", "reviews", "accuracy", "95 % interval"],
          [[f"{row['from']} to {row['to']}", row["reviews"], row["accuracy"],
            "{:.3f} to {:.3f}".format(*row["interval"])] for row in part["by_length"]])
    if part["mistakes"]:
        table("The most confident mistakes", ["text", "label", "predicted", "confidence"],
              [[row["text"], movie_reviews.LABELS[row["label"]],
                movie_reviews.LABELS[row["predicted"]], row["confidence"]]
               for row in part["mistakes"]])
    say("Which words moved the prediction, leaving each out? Green towards positive, red towards "
        "negative.")
    for words in part["influences"]:
        influence(words)


def influence(words: list[tuple[str, float]]) -> None:
    """A text with its words coloured: green pushed towards positive, red towards negative."""
    from rich.text import Text

    strongest = max((abs(value) for _, value in words), default=0) or 1
    line = Text("  ")
    for word, value in words:
        faded = 255 - int(200 * abs(value) / strongest)
        colour = (faded, 255, faded) if value > 0 else (255, faded, faded)
        style = "black on rgb({},{},{})".format(*colour) if faded < 215 else None
        line.append(reporting.printable(word), style=style).append(" ")
    reporting.console().print(line)
    top = sorted(words, key=lambda pair: -abs(pair[1]))[:3]
    say("    strongest: " + ", ".join(f"{word} {value:+.2f}" for word, value in top))


def words(part: dict, folder: Path) -> None:
    import numpy as np

    before, after = part["before"], part["after"]
    rows = [np.mean([item["by_layer"] for item in encoder.values()], axis=0).tolist()
            for encoder in (before, after)]
    table("Cosine similarity of " + ", ".join(before) + " between sentences, by layer",
          ["layer", "same sense", "other sense", "same, tuned", "other, tuned"],
          [[layer, *old, *new] for layer, (old, new) in enumerate(zip(*rows, strict=True))])
    first = next(iter(before))
    senses = before[first]["senses"]
    save_figure(heat_maps([
        (f"'{first}', last layer, {name} fine-tuning", part[name][first]["cosines"], senses, senses)
        for name in ("before", "after")], vmin=0, vmax=1), folder / "word_similarity.png")
    save_figure(sense_maps({word: (item["map"], item["senses"]) for word, item in before.items()}),
                folder / "word_map.png")


def attention(part: dict, folder: Path) -> None:
    import numpy as np

    word, names = part["word"], part["tokens"]
    weights = np.array(part["weights"])  # (layers, heads, tokens)
    others = weights * ~np.array(part["aside"])
    layer, head, token = np.unravel_index(others.argmax(), others.shape)
    say(f"'{word}' looks most at "
        + ", ".join(f"{name} {value:.2f}" for name, value in part["most_attended"])
        + " (mean of all heads; itself and special tokens aside). The most decided is head "
        f"{head + 1} of layer {layer + 1}, with {others.max():.2f} at {names[token]}. See "
        "attention.png. Attention shows where information may flow, not why the model decides.")
    save_figure(heat_maps([
        (f"Where '{word}' looks, mean of each layer's heads", weights.mean(1),
         [f"layer {i + 1}" for i in range(len(weights))], names),
        (f"Where '{word}' looks, the heads of layer {layer + 1}", weights[layer],
         [f"head {i + 1}" for i in range(weights.shape[1])], names)]), folder / "attention.png")


def comparison(model: str, parts: dict) -> None:
    """The last table: the baselines and the tuned model, on the same reviews."""
    from utils.stats import accuracy_interval

    if not {"baselines", "evaluation"} <= set(parts):  # left out: a task is not written yet
        return
    number, tuned = parts["evaluation"]["reviews"], parts["evaluation"]["accuracy"]
    rows = []
    for name, accuracy in {**parts["baselines"], "tuned": tuned}.items():
        if accuracy is not None:
            interval = accuracy_interval(round(accuracy * number), number)["interval"]
            rows.append([{**BASELINES, "tuned": f"fine-tuned {model}"}[name], accuracy,
                         "{:.3f} to {:.3f}".format(*interval)])
    reporting.heading("Done")
    table(f"Accuracy on the same {number} test reviews", ["method", "accuracy", "95 % interval"],
          rows)


def predictions(texts: list[str], probs) -> None:
    """The answers of --predict. probs: (texts, 2)."""
    table("", ["text", "label", "probability"],
          [[text, movie_reviews.LABELS[row.argmax()], float(row.max())]
           for text, row in zip(texts, probs, strict=True)])


# Drawings


def heat_maps(panels: list[tuple], **options):
    """Labelled matrices side by side, each with a colour bar.

    panels: (title, values, row names, column names), values of shape (rows, columns). options: for
    imshow.
    """
    fig, all_axes = plots.figure(1, len(panels), figsize=(6 * len(panels), 4.6), squeeze=False)
    for axes, (title, values, rows, columns) in zip(all_axes[0], panels, strict=True):
        image = axes.imshow(values, aspect="auto", **options)
        axes.set_xticks(range(len(columns)), map(plots.plain, columns), rotation=60, ha="right",
                        fontsize=8)
        axes.set_yticks(range(len(rows)), map(plots.plain, rows), fontsize=8)
        axes.set_title(plots.plain(title), fontsize=10)
        fig.colorbar(image, ax=axes)
    return fig


def confusion_matrix(counts: list[list[int]]):
    """True against predicted labels. counts: rows are the true ones."""
    import numpy as np
    from sklearn.metrics import ConfusionMatrixDisplay

    fig, axes = plots.figure(figsize=(4.2, 3.6))
    matrix = ConfusionMatrixDisplay(np.array(counts), display_labels=movie_reviews.LABELS)
    matrix.plot(cmap="Blues", ax=axes)
    return fig


def calibration(groups: list[tuple[int, float, float]]):
    """Share of right answers by confidence. groups: (number of reviews, confidence, accuracy)."""
    fig, (top, bottom) = plots.figure(2, 1, figsize=(4.6, 5), height_ratios=(3, 1), sharex=True)
    numbers, confidence, accuracy = zip(*groups, strict=True)
    top.plot([0.5, 1], [0.5, 1], "--", color="grey", label="perfectly calibrated")
    top.plot(confidence, accuracy, "o-", label="this model")
    top.set(ylabel="share that was right", title="Calibration on the test split")
    top.legend()
    bottom.bar(confidence, numbers, width=0.05)
    bottom.set(xlabel="confidence in the predicted label", ylabel="reviews")
    return fig


def sense_maps(words: dict[str, tuple]):
    """Each word's sentences in two dimensions. words: word -> (n points, n sense names)."""
    columns, rows = min(2, len(words)), (len(words) + 1) // 2
    fig, all_axes = plots.figure(rows, columns, figsize=(4.6 * columns, 3.6 * rows), squeeze=False)
    for axes in all_axes.flat[len(words):]:
        axes.remove()
    for axes, (word, (points, senses)) in zip(all_axes.flat, words.items(), strict=False):
        for marker, sense in zip("os^Dv", dict.fromkeys(senses), strict=False):
            chosen = [point for point, name in zip(points, senses, strict=True) if name == sense]
            axes.scatter(*zip(*chosen, strict=True), marker=marker, label=sense)
        axes.set(title=plots.plain(f"{word}: its sentences"), xticks=[], yticks=[])
        axes.legend(fontsize=10)
    return fig
