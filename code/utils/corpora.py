"""From a data set's name to disjoint splits of real text."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
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
TEXT_FILES = (".txt", ".md", ".rst", ".tex", ".py", ".c", ".h", ".cpp", ".java", ".js", ".ts", ".go", ".rs", ".r",
              ".sql", ".html", ".css")


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
        except hub.HubError as hub_error:
            try:
                parts, name = _packaged(), "packaged"
            except UserError as error:
                raise UserError(f"{hub_error}; and {error}") from None
            note = f", instead of {HUB_REVIEWS['rotten_tomatoes']}, because {hub_error.why}"
    elif name in HUB_REVIEWS:
        parts = _from_hub(name)
    elif name == "packaged":
        parts = _packaged()
    elif name == "tiny":
        parts = {"all": list(zip(*tiny.reviews(seed), strict=True))}
    else:
        parts = {"all": read_labelled_file(Path(name).expanduser())}
    source = name if name in ("packaged", "tiny") else "hub" if name in HUB_REVIEWS else "file"
    if source == "packaged":
        note = "snippets from Rotten Tomatoes, each rated by 20 people" + note
    elif source == "tiny":
        note = "sentences made from a template"
    return Reviews(name, source, split(parts, seed, sizes), note)


def split(parts: dict[str, list[tuple[str, int]]], seed: int, sizes: dict[str, int | None]) -> DatasetDict:
    """Cut rows of (text, label) into disjoint, shuffled, stratified train, validation and test splits.

    parts: rows by the split they were published in; a published "test" stays the test split, and what is missing
    (15 % for test, 10 % for validation) is cut from the rest. A text that occurs twice is kept once, in the later one.
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
    for part, share in (("test", 0.15), ("validation", 0.1 / 0.85)):  # the second is a share of what the first leaves
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
    text = read_utf8(path, "--data")
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


def read_utf8(path: Path, option: str) -> str:
    """The text of a utf-8 file. Raises UserError with the file, and the line of the first byte that is none."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # some Windows editors put a byte order mark in front
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path.name}, line {line}: not utf-8 text; save the file again with encoding utf-8") from None
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror})") from None
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        raise UserError(f"{path.name}, line {line}: holds a zero byte, so it is not text; name a text file")
    return text


# Plain text, for a language model


@dataclass(frozen=True)
class Corpus:
    """Documents of plain text on one subject; no paragraph occurs in two of them."""

    name: str
    source: str  # "python", "file", "folder" or "hub"
    documents: list[str]
    note: str = ""

    @property
    def digest(self) -> str:
        """A few hexadecimal digits that tell its text from another one's."""
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()[:8]


def load_corpus(name: str | None, seed: int, limit: int | None = None) -> Corpus:
    """Documents of plain text.

    name: a file, a folder of text files (TEXT_FILES), a data set of the Hub, or None or "python" for the Python
    language reference that comes with Python. seed and limit: which documents are taken when there are more than
    `limit` characters; None takes all. Raises UserError when it cannot be had, holds no text, or is not text.
    """
    path = Path(name).expanduser() if name else None
    if name in (None, "python"):
        name, source, documents = "Python language reference", "python", python_reference()
    elif path.is_dir():
        source, documents = "folder", _folder_documents(path)
    elif path.is_file():
        source, documents = "file", [read_utf8(path, "--corpus")]
    else:
        source, documents = "hub", _hub_documents(name, seed, limit)
    documents = without_repeats(documents)
    if not documents:
        raise UserError(f"--corpus {name}: it holds no text; give a file or folder with some pages of text")
    note = ""
    if len(documents) < 3:  # one each to train, to validate and to test is the least
        documents, note = sections("\n\n".join(documents)), "cut at empty lines into sections that count as documents"
    return Corpus(name, source, _at_most(documents, seed, limit), note)


def without_repeats(documents: list[str]) -> list[str]:
    """The documents without the paragraphs (of 40 characters or more) that a shorter one has already; empty ones go.

    Text that stands in two documents would let a model be tested on what it was trained on: in the Python reference,
    "compound" repeats all of "if", "for" and "with".
    """
    seen: set[str] = set()
    kept = {}
    for i in sorted(range(len(documents)), key=lambda i: (len(documents[i]), i)):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", documents[i].replace("\r\n", "\n")):
            key = " ".join(paragraph.split())
            if len(key) < 40 or key not in seen:
                paragraphs.append(paragraph.rstrip())
                seen.add(key)
        kept[i] = "\n\n".join(paragraphs).strip()
    return list(dict.fromkeys(kept[i] for i in range(len(documents)) if kept[i]))


def sections(text: str, parts: int = 20) -> list[str]:
    """Cut a text at empty lines, or else at line ends, into about `parts` sections of similar length."""
    separator = "\n\n" if text.count("\n\n") >= parts else "\n"
    result, size = [""], len(text) / parts
    for piece in text.split(separator):
        if len(result[-1]) >= size:
            result.append("")
        result[-1] += separator * bool(result[-1]) + piece
    return [section for section in result if section.strip()]


def _at_most(documents: list[str], seed: int, limit: int | None) -> list[str]:
    """Documents in an order that the seed decides, without those that would bring more than `limit` characters."""
    shuffled, total, taken = random.Random(seed).sample(documents, len(documents)), 0, []
    for document in shuffled:
        if limit is None or total + len(document) <= limit:
            taken.append(document)
            total += len(document)
    return taken if limit is None or len(taken) > 2 else [document[:limit // len(shuffled)] for document in shuffled]


def python_reference() -> list[str]:
    """The topics of Python's `help("topics")`, without the rules under their headings."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError("this Python comes without its language reference (pydoc_data): name a text of your own with "
                        "--corpus FILE") from None
    rule = re.compile(r"\s*([*=~^-])\1{2,}\s*")
    return ["\n".join(line.rstrip() for line in topics[name].splitlines() if not rule.fullmatch(line))
            for name in sorted(topics)]


def _folder_documents(folder: Path) -> list[str]:
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in TEXT_FILES and path.is_file()
                       and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    except OSError as error:
        raise UserError(f"--corpus {folder}: cannot be read ({error.strerror})") from None
    if not files:
        raise UserError(f"--corpus {folder}: this folder holds no text files ({', '.join(TEXT_FILES)})")
    return [read_utf8(path, "--corpus") for path in files]


def _hub_documents(name: str, seed: int, limit: int | None) -> list[str]:
    """The rows of a data set's training split: its column text, or its first column of strings."""
    if name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name or name.endswith(TEXT_FILES):
        raise UserError(f"--corpus {name}: there is no such file or folder; for a data set of the Hub give owner/name")
    try:
        found = hub.folder(name, "dataset")
    except hub.HubError as error:
        raise UserError(f"--corpus {name}: there is no such file or folder here, and as a data set of the Hub it "
                        f"cannot be had: {error.why}; check the name, or leave out --corpus") from None
    from datasets import Value, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        published = load_dataset(str(found))
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(f"--corpus {name}: this data set cannot be read ({hub.one_line(error)})") from None
    rows = published["train"] if "train" in published else next(iter(published.values()))
    columns = sorted((c for c, kind in rows.features.items() if kind == Value("string")), key=lambda c: c != "text")
    if not columns:
        raise UserError(f"--corpus {name}: this data set has no column of strings; choose another")
    documents, total = [], 0
    for row in rows.select_columns(columns[:1]).shuffle(seed=seed):
        documents.append(row[columns[0]] or "")
        total += len(documents[-1])
        if limit is not None and total > limit:
            break
    return documents
