"""Movie reviews, from a data set's name or an own file to disjoint splits."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING

from utils import hub, packaged, tiny
from utils.runtime import UserError, user_path
from utils.text import clean, read_utf8, same

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

LABELS = ("negative", "positive")
SPELLINGS = {"0": 0, "neg": 0, "negative": 0, "1": 1, "pos": 1, "positive": 1}
COLUMNS = {"text": ("text", "review"), "label": ("label", "sentiment")}  # as own files name them
HUB_REVIEWS = {
    "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes",
    "imdb": "stanfordnlp/imdb",
}
NOTES = {
    "packaged": "snippets from Rotten Tomatoes, each rated by 20 people",
    "tiny": "sentences made from a template",
}
FEWEST_PER_CLASS = 20

Rows = list[tuple[str, int]]  # texts and labels


@dataclass(frozen=True)
class Reviews:
    """Movie reviews with labels 0 (negative) and 1 (positive), in splits that share no text."""

    name: str
    source: str  # "hub", "packaged", "file" or "tiny"
    splits: DatasetDict  # train, validation, test; columns "text" (string), "label" (ClassLabel)
    note: str = ""


def load_reviews(name: str | None, seed: int, sizes: dict[str, int | None],
                 text_column: str | None = None, label_column: str | None = None) -> Reviews:
    """Movie reviews as train, validation and test splits: no duplicates, shuffled, stratified.

    name: "rotten_tomatoes", "imdb", "packaged", "tiny", an own file (see `read_labelled_file`), or
    None for rotten_tomatoes from the Hub with "packaged" as the fall-back. seed: for shuffling and
    splitting. sizes: how many reviews each split has at the most, None for all. text_column,
    label_column: their names in an own file. Raises UserError when it cannot be had or is no good.
    """
    source = "hub" if name in (None, *HUB_REVIEWS) else name if name in NOTES else "file"
    if source != "file" and (text_column or label_column):
        raise UserError("--text-column and --label-column are for your own file: name it with "
                        "--data FILE, or leave them out")
    instead = ""
    if name is None:
        name = "rotten_tomatoes"
        try:
            parts = _from_hub(name)
        except hub.HubError as error:
            instead = f"instead of {HUB_REVIEWS[name]}, because {error.why}"
            name = source = "packaged"
            try:
                parts = _packaged()
            except UserError as another:
                raise UserError(f"{error}; and {another}") from None
    elif source == "hub":
        parts = _from_hub(name)
    elif source == "packaged":
        parts = _packaged()
    elif source == "tiny":
        parts = {"train": list(zip(*tiny.reviews(seed), strict=True))}
    else:
        parts = {"train": read_labelled_file(user_path(name), text_column, label_column)}
    keys = [same(text) for rows in parts.values() for text, _ in rows]
    repeated = len(keys) - len(set(keys))
    notes = (NOTES.get(source), instead, f"{repeated} repeated texts are left out" * bool(repeated))
    return Reviews(name, source, split(parts, seed, sizes), ", ".join(filter(None, notes)))


def split(parts: dict[str, Rows], seed: int, sizes: dict[str, int | None]) -> DatasetDict:
    """Cut reviews into disjoint, shuffled, stratified train, validation and test splits.

    parts: rows of (text, label) by the split they were published in, "train" or "all" where there
    was none. A text that occurs twice is kept once, in the later split. sizes: see `plan`.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    pick, seen = random.Random(seed), set()
    pools: dict[str, tuple[list[str], list[str]]] = {}  # by part, negative and positive
    for part in ("test", "validation", "train", "all"):
        for text, label in parts.get(part, []):
            if (key := same(text)) and key not in seen:
                seen.add(key)
                name = part if part in ("test", "validation") else "train"
                pools.setdefault(name, ([], []))[label].append(clean(text))
    for texts in (texts for pool in pools.values() for texts in pool):
        pick.shuffle(texts)
    counts = {part: [len(texts) for texts in pool] for part, pool in pools.items()}
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(LABELS))})
    result = {}
    for part, wanted in plan(counts, sizes).items():
        pool = pools.get(part, pools["train"])
        rows = [(pool[label].pop(), label) for label in (0, 1) for _ in range(wanted[label])]
        pick.shuffle(rows)
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        result[part] = Dataset.from_dict(columns, features)
    return DatasetDict({part: result[part] for part in ("train", "validation", "test")})


def plan(counts: dict[str, list[int]], sizes: dict[str, int | None]) -> dict[str, list[int]]:
    """How many negative and positive rows each split takes.

    counts: [negative, positive] rows by split, of which "train" gives up 15 % for a test split and
    10 % for a validation split where they are missing. sizes: the most rows of each split, None or
    missing for all. plan({"train": [500, 300]}, {"train": 40}) is
    {"test": [75, 45], "validation": [50, 30], "train": [25, 15]}.
    """
    left, result = dict(counts), {}
    for part, share in (("test", 0.15), ("validation", 0.1), ("train", 1)):
        source = part if part in counts else "train"
        size = sum(left[part]) if part in counts else round(share * sum(counts["train"]))
        result[part] = in_proportion(left[source], min(size, sizes.get(part) or size))
        left[source] = [had - n for had, n in zip(left[source], result[part], strict=True)]
    return result


def in_proportion(counts: Sequence[int], size: int) -> list[int]:
    """How many rows of each label are among `size`: in proportion, and at least one of both.

    in_proportion([300, 100], 8) is [6, 2], and in_proportion([3000, 20], 84) is [83, 1].
    """
    positive = min(max(round(size * counts[1] / sum(counts)), 1, size - counts[0]), size - 1)
    return [size - positive, positive]


def balance(dataset: Dataset) -> str:
    """For the banner: "8000 (4056 negative, 3944 positive)"."""
    counts = Counter(dataset["label"])
    shares = ", ".join(f"{counts[i]} {label}" for i, label in enumerate(LABELS))
    return f"{len(dataset)} ({shares})"


def _from_hub(name: str) -> dict[str, Rows]:
    published = hub.load_dataset(HUB_REVIEWS[name])
    return {part: list(zip(rows["text"], rows["label"], strict=True))
            for part, rows in published.items() if part in ("train", "validation", "test")}


def _packaged() -> dict[str, Rows]:
    """Snippets that 20 people rated from -4 to 4: the sign is the label; the 37 rated 0 are out."""
    file = packaged.fetch("reviews") / "movieReviewSnippets_GroundTruth.txt"
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return {"train": [(text, int(float(rating) > 0)) for _, rating, text in rows if float(rating)]}


def read_labelled_file(path: Path, text_column: str | None = None,
                       label_column: str | None = None) -> Rows:
    """Rows of (text, label) from an own .jsonl, .csv or .tsv file with commas, semicolons or tabs.

    Columns: text or review, and label or sentiment, unless other names are given; case and spaces
    around them do not matter. Labels: 0, neg or negative, and 1, pos or positive. Raises UserError
    naming file and line, also where one text has two labels, or a label too few texts.
    """
    reader = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"--data {path}: give rotten_tomatoes, imdb, packaged, or a file that ends "
                        "in .csv, .tsv or .jsonl")
    columns = {"text": text_column, "label": label_column}
    rows: Rows = []
    first: dict[str, tuple[int, int | None]] = {}  # a text -> its line and label
    content = read_utf8(path, "--data")
    try:
        for line, text, label in reader(content, columns):
            key = same(text) if isinstance(text, str) else ""
            value = SPELLINGS.get(str(label).strip().casefold())
            other, expected = first.setdefault(key, (line, value))
            if value is None:
                raise UserError(f"line {line}: label {short(label)} is none of "
                                f"{', '.join(SPELLINGS)}")
            if not key:
                raise UserError(f"line {line}: the text is empty, or not in quotes; mend or delete "
                                "the line")
            if value != expected:
                raise UserError(f"line {line}: the same text as in line {other}, which has another "
                                "label; delete one of them")
            rows.append((clean(text), value))
    except UserError as error:
        raise UserError(f"{path.name}, {error}") from None
    counts = Counter(value for _, value in first.values())
    for value, label in enumerate(LABELS):
        if counts[value] < FEWEST_PER_CLASS:
            raise UserError(f"{path.name}: {counts[value]} different {label} reviews, and at least "
                            f"{FEWEST_PER_CLASS} of each label are needed to train and to test")
    return rows


def _csv_rows(content: str, columns: dict[str, str | None]) -> Iterator[tuple]:
    """(line, text, label) of each row that is not blank; line: where it begins."""
    csv.field_size_limit(max(len(content), csv.field_size_limit()))  # else 131,072 characters
    delimiter = max(",;\t", key=content.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter,
                        skipinitialspace=True, strict=True)
    header: list[str] = []
    line = 1
    try:
        for row in reader:
            if not header and any(row):
                header, (text, label) = row, _places(row, columns, line)
            elif any(row) and len(row) != len(header):
                raise UserError(f"line {line}: the header has {len(header)} columns, and this row "
                                f"{len(row)}; put the text in quotes")
            elif any(row):
                yield line, row[text], row[label]
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"line {line}: the row that begins here is not valid csv ({error}); put "
                        'the whole text in quotes, and write a quote within it twice: ""') from None


def _json_rows(content: str, columns: dict[str, str | None]) -> Iterator[tuple]:
    """(line, text, label) of each object; only \\n ends a line, not U+2028 within a text."""
    for line, row in enumerate(content.split("\n"), 1):
        if not row.strip():
            continue
        try:
            pairs = json.loads(row, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            fault = getattr(error, "msg", "a number is too long, or the brackets are too deep")
            raise UserError(f"line {line}, column {getattr(error, 'colno', 1)}: not valid JSON "
                            f"({fault}); each line is one object") from None
        if not isinstance(pairs, tuple):  # which only an object becomes
            raise UserError(f"line {line}: should be an object, such as "
                            '{"text": "Lovely.", "label": 1}')
        text, label = _places([name for name, _ in pairs], columns, line)
        yield line, pairs[text][1], pairs[label][1]


def _places(names: list[str], columns: dict[str, str | None], line: int) -> list[int]:
    """The places of text and label among the names of a file's columns."""
    plain, places = [name.strip().casefold() for name in names], []
    for column, chosen in columns.items():
        wanted = (chosen.strip().casefold(),) if chosen else COLUMNS[column]
        found = [name for name in wanted if name in plain]
        if not found:
            raise UserError(f"line {line}: no column is called {' or '.join(wanted)}, only "
                            f"{short(names)}; name the right one with --{column}-column")
        if plain.count(found[0]) > 1:
            raise UserError(f"line {line}: two columns are called {found[0]}; rename one of them")
        places.append(plain.index(found[0]))
    return places
