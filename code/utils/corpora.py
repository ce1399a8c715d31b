"""Documents of plain text for a language model, from a file, a folder or a data set's name."""

from __future__ import annotations

import hashlib
import random
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from utils import hub
from utils.runtime import UserError, user_path, well_formed
from utils.text import read_utf8

TEXT_FILES = (".txt", ".md", ".rst", ".tex", ".py", ".c", ".h", ".cpp", ".java", ".js", ".ts",
              ".go", ".rs", ".r", ".sql", ".html", ".css")
# Where a text may be cut, best first: at empty lines, line ends, sentences, spaces, anywhere.
CUTS = (r"\n\s*\n", r"\n", r"[.!?]\s+|[。！？]\s*", r"\s+", r"(?s).")


@dataclass(frozen=True)
class Corpus:
    """Plain text in documents; no paragraph is in two of them, unless they are cut from one."""

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

    name: a file, a folder of text files (TEXT_FILES), a data set of the Hub (owner/name, or
    owner/name:configuration), or None or "python" for Python's own language reference.
    <|endoftext|> ends a document. seed and limit: which documents are taken when there are more
    than `limit` characters; None takes all. Raises UserError when it cannot be had, or is no text.
    """
    if name in (None, "python"):
        name, source, found = "Python language reference", "python", python_reference()
    else:
        path = user_path(name)
        try:
            source = "folder" if path.is_dir() else "file" if path.is_file() else "hub"
        except OSError as error:
            raise UserError(f"--corpus {name}: cannot be read ({error.strerror})") from None
        if source == "hub":
            found = _hub_documents(name, seed, limit)
        else:
            files = [path] if source == "file" else _text_files(path)
            found = [read_utf8(file, "--corpus") for file in files]
    lines = [re.sub("\r\n?|\u2028|\x85", "\n", well_formed(text)) for text in found]
    whole = [document for text in lines for document in text.split("<|endoftext|>")]
    documents, notes = without_repeats(whole), []
    if not documents:
        raise UserError(f"--corpus {name}: it holds no text; give some pages of it")
    before, after = (sum(len(text.split()) for text in texts) for texts in (whole, documents))
    if after < before:
        notes.append(f"{1 - after / before:.1%} of its words left out: other documents have them")
    if len(documents) < 3:  # one each to train, to validate and to test is the least
        documents = sections("\n\n".join(documents))
        notes.append("cut into sections that count as documents")
    return Corpus(name, source, _at_most(documents, seed, limit), "; ".join(notes))


def without_repeats(documents: list[str]) -> list[str]:
    """The documents without the paragraphs that a shorter one has already; empty ones go.

    Text that stands in two documents would let a model be tested on what it was trained on: in the
    Python reference, "compound" repeats all of "if", "for" and "with". Paragraphs of less than 40
    characters stay, and so does a refrain, which is repeated within one document.
    """
    seen: set[str] = set()
    kept = {}
    for i in sorted(range(len(documents)), key=lambda i: (len(documents[i]), i)):
        paragraphs = re.split(r"\n\s*\n", documents[i])
        keys = [" ".join(paragraph.split()) for paragraph in paragraphs]
        fresh = [p.rstrip() for p, key in zip(paragraphs, keys, strict=True) if key not in seen]
        kept[i] = "\n\n".join(fresh).strip()
        seen.update(key for key in keys if len(key) >= 40)
    return list(dict.fromkeys(kept[i] for i in range(len(documents)) if kept[i]))


def sections(text: str, parts: int = 20) -> list[str]:
    """Cut a text into about `parts` sections of similar length, at the first of CUTS that can."""
    size = len(text) / parts
    for pattern in CUTS:
        ends = [match.end() for match in re.finditer(pattern, text)] + [len(text)]
        places = {0, len(text)} | {ends[bisect_left(ends, i * size)] for i in range(1, parts)}
        result = [text[start:end].strip() for start, end in pairwise(sorted(places))]
        if max(map(len, result)) <= 2 * size:
            break
    return [section for section in result if section]


def _at_most(documents: list[str], seed: int, limit: int | None) -> list[str]:
    """Documents in an order that the seed decides, as many as fit into `limit` characters."""
    shuffled, total, taken = random.Random(seed).sample(documents, len(documents)), 0, []
    for document in shuffled:
        if limit is None or total + len(document) <= limit:
            taken.append(document)
            total += len(document)
    if limit is None or len(taken) > 2:
        return taken
    return [document[:limit // len(shuffled)] for document in shuffled]


def python_reference() -> list[str]:
    """The topics of Python's `help("topics")`, without the rules under their headings."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError("this Python comes without its language reference (pydoc_data): name a "
                        "text of your own with --corpus FILE") from None
    rule = re.compile(r"\s*([*=~^-])\1{2,}\s*")
    return ["\n".join(line.rstrip() for line in text.splitlines() if not rule.fullmatch(line))
            for _, text in sorted(topics.items())]


def _text_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*")
                   if path.suffix.lower() in TEXT_FILES and path.is_file()
                   and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not files:
        raise UserError(f"--corpus {folder}: this folder holds no text files "
                        f"({', '.join(TEXT_FILES)})")
    return files


def _hub_documents(name: str, seed: int, limit: int | None) -> list[str]:
    """The rows of a data set's training split: its column text, or its first column of strings."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[^/\\]+)?", name) or name.endswith(TEXT_FILES):
        raise UserError(f"--corpus {name}: there is no such file or folder; for a data set of the "
                        "Hub give owner/name, or owner/name:configuration")
    repository, _, config = name.partition(":")
    try:
        published = hub.load_dataset(repository, config or None)
    except hub.HubError as error:  # whose advice for want of a network is not for corpora
        reason = error.why if "cannot be reached" in error.why else error
        raise UserError(f"--corpus {name}: there is no such file or folder here, and as a data set "
                        f"of the Hub (owner/name, owner/name:configuration): {reason}") from None
    rows = published["train"] if "train" in published else next(iter(published.values()))
    columns = [column for column, kind in rows.features.items()
               if getattr(kind, "dtype", "") in ("string", "large_string", "string_view")]
    if not columns:
        raise UserError(f"--corpus {name}: this data set has no column of strings; choose another")
    column = "text" if "text" in columns else columns[0]
    documents, total = [], 0
    for row in rows.select_columns([column]).shuffle(seed=seed):
        documents.append(row[column] or "")
        total += len(documents[-1])
        if limit is not None and total > limit:
            break
    return documents
