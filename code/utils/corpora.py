"""From a data set's name to disjoint splits of real text."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils import hub, packaged, tiny
from utils.runtime import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

LABELS = ("negative", "positive")
HUB_REVIEWS = {"rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes", "imdb": "stanfordnlp/imdb"}
SPELLINGS = {"0": 0, "neg": 0, "negative": 0, "1": 1, "pos": 1, "positive": 1}
FEWEST_PER_CLASS = 20


@dataclass(frozen=True)
class Reviews:
    """Movie reviews with labels 0 (negative) and 1 (positive), in three splits that share no text."""

    name: str
    source: str  # "hub", "packaged", "file" or "tiny"
    splits: DatasetDict  # train, validation, test; columns "text" (string) and "label" (ClassLabel)
    note: str = ""


def load_reviews(name: str | None, seed: int, sizes: dict[str, int | None]) -> Reviews:
    """Movie reviews as train, validation and test splits: no duplicates, shuffled, stratified by label.

    name: "rotten_tomatoes", "imdb", "packaged", "tiny", a .csv or .jsonl file with columns text and label, or None for
    rotten_tomatoes from the Hub with "packaged" as the fall-back. seed: for shuffling and splitting. sizes: how many
    reviews each split has at the most, None for all. Raises UserError when the data cannot be had or is no good.
    """
    note = ""
    if name is None:
        try:
            parts, name = _from_hub("rotten_tomatoes"), "rotten_tomatoes"
        except hub.HubError as reason:
            try:
                parts, name = _packaged(), "packaged"
            except UserError as error:
                raise UserError(f"{reason}; and {error}") from None
            note = f"instead of {HUB_REVIEWS['rotten_tomatoes']}, since the Hub cannot be had"
    elif name in HUB_REVIEWS:
        parts = _from_hub(name)
    elif name == "packaged":
        parts = _packaged()
    elif name == "tiny":
        parts = {"all": list(zip(*tiny.reviews(seed), strict=True))}
    else:
        parts = {"all": read_labelled_file(Path(name).expanduser())}
    source = name if name in ("packaged", "tiny") else "hub" if name in HUB_REVIEWS else "file"
    return Reviews(name, source, split(parts, seed, sizes), note)


def split(parts: dict[str, list[tuple[str, int]]], seed: int, sizes: dict[str, int | None]) -> DatasetDict:
    """Cut rows of (text, label) into disjoint, shuffled, stratified train, validation and test splits.

    parts: rows by the split they were published in; a published "test" stays the test split, and what is missing
    (10 % each of validation and test) is cut from the rest. A text that occurs twice is kept once, in the later split.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from sklearn.model_selection import train_test_split

    seen: set[str] = set()
    unique = {}
    for part in ("test", "validation", "train", "all"):
        rows = []
        for text, label in parts.get(part, []):
            text = " ".join(text.replace("<br />", " ").split())
            if text and text.casefold() not in seen:
                seen.add(text.casefold())
                rows.append((text, label))
        unique[part] = rows
    rest = unique["train"] + unique["all"]
    for part, share in (("test", 0.1), ("validation", 1 / 9)):  # 1/9 of the remaining nine tenths
        if not unique[part]:
            rest, unique[part] = train_test_split(
                rest, test_size=share, random_state=seed, stratify=[label for _, label in rest])
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(LABELS))})
    result = {}
    for part, rows in (("train", rest), ("validation", unique["validation"]), ("test", unique["test"])):
        whole = Dataset.from_dict({"text": [t for t, _ in rows], "label": [y for _, y in rows]}, features=features)
        result[part] = stratified_sample(whole, sizes.get(part), seed)
    return DatasetDict(result)


def stratified_sample(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    """At most `size` shuffled rows, with the labels in the same proportion as in the whole."""
    if size is None or size >= len(dataset):
        return dataset.shuffle(seed=seed)
    return dataset.train_test_split(train_size=size, stratify_by_column="label", seed=seed)["train"]


def balance(dataset: Dataset) -> str:
    """For the banner: "8000 (4056 negative, 3944 positive)"."""
    counts = Counter(dataset["label"])
    return f"{len(dataset)} (" + ", ".join(f"{counts[i]} {label}" for i, label in enumerate(LABELS)) + ")"


def _from_hub(name: str) -> dict[str, list[tuple[str, int]]]:
    from datasets import load_dataset

    published = load_dataset(str(hub.folder(HUB_REVIEWS[name], "dataset")))
    return {part: list(zip(published[part]["text"], published[part]["label"], strict=True))
            for part in ("train", "validation", "test") if part in published}


def _packaged() -> dict[str, list[tuple[str, int]]]:
    """Snippets rated by 20 people each from -4 to 4: the sign is the label, and the 37 rated exactly 0 are left out."""
    file = packaged.fetch("reviews") / "movieReviewSnippets_GroundTruth.txt"
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return {"all": [(text, int(float(rating) > 0)) for _, rating, text in rows if float(rating) != 0]}


def read_labelled_file(path: Path) -> list[tuple[str, int]]:
    """Rows of (text, label) from a student's own .csv or .jsonl file.

    Columns text and label; labels 0, neg or negative, and 1, pos or positive. Raises UserError naming file and line.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--data {path}: give rotten_tomatoes, imdb, packaged, or a file that ends in .csv or .jsonl")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path.name}, line {line}: not utf-8 text; save the file again with encoding utf-8") from None
    except OSError as error:
        raise UserError(f"--data {path}: cannot be read ({error.strerror})") from None
    rows = [(number, str(row.get("text") or "").strip(), str(row.get("label")).strip().lower())
            for number, row in (_csv_rows if path.suffix == ".csv" else _jsonl_rows)(path.name, text)]
    for number, review, label in rows:
        if not review:
            raise UserError(f"{path.name}, line {number}: the text is empty; fill it in or delete the line")
        if label not in SPELLINGS:
            raise UserError(f"{path.name}, line {number}: label {label!r} is none of {', '.join(SPELLINGS)}")
    counts = Counter({review.casefold(): SPELLINGS[label] for _, review, label in rows}.values())  # duplicates once
    for value, label in enumerate(LABELS):
        if counts[value] < FEWEST_PER_CLASS:
            raise UserError(f"{path.name}: {counts[value]} different {label} reviews, and at least {FEWEST_PER_CLASS} "
                            "of each label are needed to train and to test")
    return [(review, SPELLINGS[label]) for _, review, label in rows]


def _csv_rows(name: str, text: str):
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise UserError(f"{name}, line 1: the header must name the columns text and label, "
                            f"but it reads {','.join(reader.fieldnames or ()) or 'nothing at all'!r}")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not valid csv ({error}); mind the quotes") from None


def _jsonl_rows(name: str, text: str):
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{name}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict) or not {"text", "label"} <= set(row):
            raise UserError(f"{name}, line {number}: must be an object with the keys text and label")
        yield number, row
