"""The guide, cut into sections that can be searched: by sentence vectors, or by words where no encoder can be had.

The vectors are computed once and kept in a file, until the guide or the encoder changes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.runtime import UserError

if TYPE_CHECKING:
    from utils.checkpoints import Checkpoint

PASSAGE_WORDS = 110  # the encoder was trained on short texts: longer ones blur
# A best score below this means that the guide has nothing on the question. Both were chosen on the questions marked
# "tuning" in data/tutor_questions.json; `--evaluate` shows the error rates on those and on others.
THRESHOLDS = {"embeddings": 0.38, "words": 0.17}

Rank = Callable[[np.ndarray, np.ndarray, int], list[tuple[int, float]]]


@dataclass(frozen=True)
class Section:
    """heading: "7.2 Top-p"; path: the headings above it too, "7. Decoding > 7.2 Top-p"; text: as in the guide."""

    heading: str
    path: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A section found, its score, and the passage of it that fits best."""

    section: Section
    score: float
    passage: str


def read_sections(markdown: str) -> list[Section]:
    """Cut a guide at its headings of levels 2 and 3, those inside code aside. Sections without prose are left out.

    What closes a chapter, from "Try it" or "Common mistakes" on, belongs to the chapter and not to its last section.
    """
    texts: dict[str, list[str]] = {}  # path -> lines
    chapter, path, fenced = "", "", False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        found = None if fenced else re.match(r"(#{2,3}) (.+)", line)
        if found:
            chapter = found[2].strip() if found[1] == "##" else chapter
            path = chapter if found[1] == "##" else f"{chapter} > {found[2].strip()}"
        elif line.startswith(("**Try it", "**Common mistakes")):
            path = chapter
        if not found:
            texts.setdefault(path, []).append(line)
    sections = [Section(path.split(" > ")[-1], path, "\n".join(lines).strip()) for path, lines in texts.items() if path]
    return [section for section in sections if prose(section.text)]


def prose(markdown: str) -> str:
    """What a reader reads of a section: no code, pictures, comments, folded answers, sources or link targets."""
    text = re.sub(r"```.*?```|<!--.*?-->|<details>.*?</details>", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^\*\*(Sources|Try it):?\*\*.*?(\n\n|\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[*`]|^\|[-:| ]+\|$", "", text, flags=re.MULTILINE)).strip()


def passages(section: Section) -> list[str]:
    """A section's prose in pieces of whole paragraphs, of about PASSAGE_WORDS words each where paragraphs allow it."""
    pieces: list[str] = []
    for paragraph in prose(section.text).split("\n\n"):
        if pieces and len(pieces[-1].split()) + len(paragraph.split()) <= PASSAGE_WORDS:
            pieces[-1] += "\n" + paragraph
        elif paragraph.strip():
            pieces.append(paragraph.strip())
    return pieces


class Encoder:
    """Texts to vectors of length 1: mean over the tokens' last hidden states (Reimers and Gurevych 2019)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from transformers import AutoModel, AutoTokenizer

        from utils import checkpoints

        self.tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
        self.model = checkpoints.load(AutoModel, checkpoint, dtype="float32").eval()

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(texts, hidden)."""
        import torch

        vectors = []
        with torch.inference_mode():
            for start in range(0, len(texts), 16):
                batch = self.tokenizer(texts[start:start + 16], padding=True, truncation=True,
                                       max_length=min(256, self.tokenizer.model_max_length), return_tensors="pt")
                mask = batch["attention_mask"][..., None]
                total = (self.model(**batch).last_hidden_state * mask).sum(1)
                vectors.append((total / total.norm(dim=-1, keepdim=True).clamp(min=1e-9)).numpy())
        return np.concatenate(vectors)


class Words:
    """Texts to TF-IDF vectors of length 1, when there is no encoder: finds shared words, not shared meaning.

    It counts pieces of words, of 3 to 5 letters, so that "pickled" finds "pickle".
    """

    def __init__(self, texts: list[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5)).fit(texts)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.vectorizer.transform(texts).toarray()


class GuideIndex:
    """Sections of a guide, ready to be searched. Make it with `open`."""

    def __init__(self, sections: list[Section], checkpoint: Checkpoint | None, cache: Path) -> None:
        self.sections, self.checkpoint, self._encoder = sections, checkpoint, None
        self.method = "embeddings" if checkpoint else "words"
        self.threshold = THRESHOLDS[self.method]
        pieces = [(i, piece) for i, section in enumerate(sections) for piece in passages(section)]
        self.owner, self.passages = [i for i, _ in pieces], [piece for _, piece in pieces]
        self.texts = [f"{sections[i].path}. {piece}" for i, piece in pieces]  # a passage alone may not name its subject
        self.built = False  # whether the vectors were computed now, and not read from the cache
        self.vectors = self._cached(cache) if checkpoint else self.encode(self.texts)

    @classmethod
    def open(cls, guide: Path, checkpoint: Checkpoint | None, cache: Path) -> GuideIndex:
        """Read the guide and its vectors, from the folder `cache` if they are there and still right.

        checkpoint: the sentence encoder, or None to compare words. Raises UserError if the guide cannot be read.
        """
        try:
            sections = read_sections(guide.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the guide {guide} cannot be read ({getattr(error, 'strerror', 'not UTF-8')}): restore it "
                            "with git checkout, or run without --tutor") from None
        if not sections:
            raise UserError(f"the guide {guide} has no sections (headings that begin with ##): restore it")
        return cls(sections, checkpoint, cache)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(texts, dimensions), of length 1. The encoder is loaded when it is first needed."""
        if self._encoder is None:
            self._encoder = Encoder(self.checkpoint) if self.checkpoint else Words(self.texts)
        return self._encoder(texts)

    def _cached(self, cache: Path) -> np.ndarray:
        weights = self.checkpoint.folder / "model.safetensors"
        size = weights.stat().st_size if weights.exists() else 0
        key = "\0".join([self.checkpoint.name, self.checkpoint.source, str(size), *self.texts])
        path = cache / f"guide-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
        try:
            vectors = np.load(path, allow_pickle=False)
            if vectors.ndim == 2 and len(vectors) == len(self.texts):
                return vectors
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or damaged: computed anew
        vectors, self.built = self.encode(self.texts), True
        if self.checkpoint.source == "tiny":
            return vectors  # random weights, gone with the process
        try:
            cache.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"partial-{path.name}")
            np.save(fresh, vectors)
            fresh.replace(path)
            for old in set(cache.glob("guide-*.npy")) - {path}:
                old.unlink(missing_ok=True)
        except OSError:
            pass  # a cache that cannot be written costs seconds, nothing else
        return vectors

    def search(self, question: str, k: int = 3, rank: Rank | None = None) -> list[Hit]:
        """The k sections that fit best, each with its best passage; the best comes first.

        rank: (query vector, vectors, how many) -> [(index, score)], best first; default: by cosine similarity.
        """
        query = self.encode([question])[0]
        hits: dict[int, Hit] = {}
        for index, score in (rank or by_cosine)(query, self.vectors, len(self.vectors)):
            owner = self.owner[index]
            hits.setdefault(owner, Hit(self.sections[owner], float(score), self.passages[index]))
            if len(hits) == k:
                break
        return list(hits.values())


def by_cosine(query: np.ndarray, vectors: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k vectors with the highest cosine similarity to the query; all have length 1."""
    scores = vectors @ query
    return [(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]]
