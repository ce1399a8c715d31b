"""The guide in sections, found by words and by sentence vectors together, and quoted.

A question's everyday words are joined by the guide's own (data/everyday_words.json). The score of a
passage is the cosine of its vector with the question's, plus how much of the question's words it
has, plus how close the question is to what readers ask about the section and not to what they ask
elsewhere (data/readers_questions.json). Vectors are computed once, in fp32, and kept in a file
until a page or the encoder changes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.runtime import REPOSITORY, UserError
from utils.stats import accuracy_interval

if TYPE_CHECKING:
    from utils.checkpoints import Checkpoint
    from utils.embedding import Embedder

Rank = Callable[[np.ndarray, np.ndarray, int], list[tuple[int, float]]]

PASSAGE_WORDS = 110  # the encoder was trained on short texts: longer ones blur
QUOTED_PAIRS = 3  # of sentences, of the sections found, together
# How much words weigh beside vectors, how much readers' questions do, and the score below which the
# guide has nothing on a question. Chosen on the "tuning" questions of data/tutor_questions.json;
# --evaluate shows both splits. (Reciprocal rank fusion found no more, and has no score to refuse
# by.)
WORDS_WEIGHT = 0.5
QUESTIONS_WEIGHT = 0.4
K1 = 0.4  # of BM25: near 0, whether a passage has a word counts, hardly how often
THRESHOLDS = {"embeddings": 0.47, "words": 0.31}
STOP_WORDS = frozenset(
    "a about an and are as at be been between but by can could did do does each for from get give "
    "go had has have here how i if in into is it its made make many may me might must my no not of "
    "on one or our should so than that the their them then there these they this to was we were "
    "what when where which while who whom whose why will with without would you your".split())
ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ers", "ies", "er", "ed", "es", "ly", "s", "e")


# Reading the guide


@dataclass(frozen=True)
class Section:
    """heading: "7.2 Top-p"; path: with the heading above, "7. Decoding > 7.2 Top-p"; text: what a
    reader reads of it; link: as the web pages of the repository have it, "guide.md#72-top-p"."""

    heading: str
    path: str
    text: str
    link: str = ""


def read_sections(markdown: str, page: str = "") -> list[Section]:
    """Cut a page at its headings, those inside code aside. Sections without prose are left out.

    What closes a chapter or a page, from "Try it" or "Common mistakes" on, belongs to that and not
    to its last section. page: the name of the file, for links.
    """
    lines: dict[str, list[str]] = {}  # path -> lines
    links: dict[str, str] = {}
    anchors: list[str] = []
    headings, path, fenced, closing = [""] * 7, "", False, False
    for line in markdown.split("\n"):
        fenced ^= line.startswith("```")
        found = None if fenced else re.match(r"(#+) (.+)", line)
        if found:
            level, heading, closing = len(found[1]), found[2].strip(), False
            headings[level:] = [heading] * (7 - level)
            path = f"{headings[2]} > {headings[3]}" if level > 2 else heading
            anchor = github_anchor(heading)
            again = anchors.count(anchor)
            anchors.append(anchor)
            links.setdefault(path, f"{page}#{anchor}{f'-{again}' if again else ''}")
        elif line.startswith(("**Try it", "**Common mistakes")) and not closing:
            path, closing = headings[2] if " > " in path else headings[1], True
        if not found and path:
            lines.setdefault(path, []).append(line)
    sections = [Section(path.split(" > ")[-1], path, prose("\n".join(text)), links.get(path, page))
                for path, text in lines.items()]
    return [section for section in sections if section.text]


def github_anchor(heading: str) -> str:
    """What GitHub makes of a heading in links: "7.2 `Top-p`, or not?" gives "72-top-p-or-not"."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(markdown: str) -> str:
    """What a reader reads of a section: no code, pictures, comments, folded answers, sources, link
    targets or lists of links. Rows of tables become paragraphs: "BERT (layers: 12; width: 768)"."""
    def rows(table: re.Match) -> str:
        (_, *heads), *others = ([cell.strip() for cell in line.strip()[1:-1].split("|")]
                                for line in (table[1], *table[2].strip().split("\n")))
        return "".join(
            f"\n{first} ("
            + "; ".join(f"{head}: {cell}".removeprefix(": ")
                        for head, cell in zip(heads, cells, strict=False) if cell)
            + ")\n" for first, *cells in others)

    text = re.sub(r"```.*?```|<!--.*?-->|<details>.*?</details>", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^\*\*(Sources|Try it):?\*\*.*?(\n\n|\Z)", "", text, flags=re.DOTALL | re.M)
    text = re.sub(r"^\s*[-*] \[[^\]]*\]\([^)]*\)\s*$|^\*Printed by .*\*$", "", text, flags=re.M)
    text = re.sub(r"!\[.*?\]\([^)]*\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^(\|.*\|)\n\|[-:| ]+\|\n((?:\|.*\|(?:\n|\Z))+)", rows,
                  re.sub(r"\*\*?|`", "", text), flags=re.M)
    text = re.sub(r"^(?=- |\d+\. )", "\n", text, flags=re.M)  # a paragraph for each of a list
    return re.sub(r"\n\s*\n", "\n\n", text).strip()


def passages(text: str) -> list[str]:
    """A section in pieces of whole paragraphs, of about PASSAGE_WORDS words where that is possible.
    """
    pieces: list[str] = []
    for paragraph in text.split("\n\n"):
        if pieces and len(pieces[-1].split()) + len(paragraph.split()) <= PASSAGE_WORDS:
            pieces[-1] += "\n\n" + paragraph
        else:
            pieces.append(paragraph)
    return pieces


def sentences(text: str) -> list[str]:
    """The sentences of a section, less its scraps and the marks of its lists, whose entries end
    one, as rows of tables do."""
    paragraphs = (re.sub(r"^(- |\d+\. )", "", " ".join(p.split())) for p in text.split("\n\n"))
    found = [sentence for paragraph in paragraphs
             for sentence in re.split(r"(?<=[.!?]) (?=[A-Z\"(\[])", paragraph)]
    return [sentence for sentence in found if len(sentence.split()) > 3]


# Ranking


def words(text: str) -> list[str]:
    """The words that say what a text is about, less their endings and in one spelling: "Padding
    the texts" gives ["padd", "text"], "organize" and "organise" give the same."""
    def stem(word: str) -> str:
        ending = next((e for e in ENDINGS if word.endswith(e) and len(word) > len(e) + 3), "")
        return word.removesuffix(ending)

    found = re.findall(r"[^\W_]+(?:-[^\W_]+)*", text.lower().replace("iz", "is"))
    return [stem(word) for word in found if word not in STOP_WORDS]


def inverse_frequency(word: str, texts: list[Counter[str]]) -> float:
    """How much a word tells: ln(1 + (N - n + 0.5) / (n + 0.5)), for a word in n of N texts."""
    n = sum(word in text for text in texts)
    return float(np.log(1 + (len(texts) - n + 0.5) / (n + 0.5)))


def bm25_scores(query: list[str], texts: list[Counter[str]], k1: float = 1.5,
                b: float = 0.75) -> np.ndarray:
    """How well each text, as counts of its words, answers a query, by the words they share:
    (texts,). Robertson and Zaragoza 2009.

    The sum over the query's different words of idf * f * (k1 + 1) / (f + k1 * (1 - b + b * L)):
    idf is the inverse frequency, f how often the text has the word, L the text's length over the
    mean length. So a rare word counts more, a second occurrence less, and a long text is no better.
    bm25_scores(["cat"], [Counter(["cat"]), Counter(["dog"])]) is [0.69, 0].
    """
    lengths = np.array([text.total() for text in texts])
    scores = np.zeros(len(texts))
    for word in dict.fromkeys(query):
        counts = np.array([text[word] for text in texts])
        norm = k1 * (1 - b + b * lengths / max(lengths.mean(), 1))
        scores += inverse_frequency(word, texts) * counts * (k1 + 1) / (counts + norm)
    return scores


def share_of_words(query: list[str], texts: list[Counter[str]], k1: float = K1) -> np.ndarray:
    """bm25_scores over the most that any text could reach, so that 1 means all of the query."""
    most = sum(inverse_frequency(word, texts) * (k1 + 1) for word in set(query))
    return bm25_scores(query, texts, k1) / most if most else np.zeros(len(texts))


def joined(texts: list[str], chosen: list[int]) -> str:
    """The sentences chosen, in their order; "..." where some are left out between them.
    joined(["A.", "B.", "C.", "D."], [3, 1]) is "B. ... D."
    """
    first = min(chosen, default=0)
    return " ".join("... " * (i - 1 not in chosen and i != first) + texts[i]
                    for i in sorted(chosen))


def refers_back(question: str) -> bool:
    """Whether a question gets its subject from the one before: "And why?", "How large is it?"

    At most two words of its own, beside a pronoun; more would be a question on something else.
    """
    own = words(question)
    pronoun = re.search(r"\b(it|its|that|this|these|those|they|them|their)\b", question.lower())
    return not own or len(own) <= 2 and bool(pronoun)


def expanded(question: str, everyday: dict[str, list[str]]) -> str:
    """The question, followed by the guide's words for what it says in everyday words.

    everyday: the guide's words -> beginnings of what people say instead.
    expanded("Why does it lie?", {"hallucination": ["lie"]}) is "Why does it lie? hallucination".
    """
    meant = [term for term, phrases in everyday.items()
             if any(re.search(rf"\b{re.escape(phrase)}", question.lower()) for phrase in phrases)]
    return f"{question} {', '.join(meant)}".strip()


# The index


@dataclass(frozen=True)
class Hit:
    """A section found, and its score: that of its best passage."""

    section: Section
    score: float


class GuideIndex:
    """The guide, ready to be searched. Make it with `open`.

    method: "embeddings" (with words), or "words" where there is no encoder. threshold: a best score
    below it means that the guide has nothing on the question.
    """

    def __init__(self, sections: list[Section], checkpoint: Checkpoint | None, cache: Path) -> None:
        from utils import course_data

        self.sections, self.checkpoint = sections, checkpoint
        self._embedder: Embedder | None = None
        self.method = "embeddings" if checkpoint else "words"
        self.threshold = THRESHOLDS[self.method]
        self.everyday = course_data.load_prompts_file(REPOSITORY / "data" / "everyday_words.json")
        asked = course_data.load_prompts_file(REPOSITORY / "data" / "readers_questions.json")
        self.asked = [(link, question) for link, group in asked.items() for question in group]
        pieces = [(section, piece) for section in sections for piece in passages(section.text)]
        self.owners = [section for section, _ in pieces]
        # A passage alone may not name its subject.
        self.texts = [f"{section.path}. {piece}" for section, piece in pieces]
        self.words = [Counter(words(text)) for text in self.texts]
        self.asked_words = [Counter(words(question)) for _, question in self.asked]
        self.vectors: np.ndarray | None = None
        if checkpoint:
            vectors = self._cached(checkpoint, cache)
            self.vectors, self.asked_vectors = np.split(vectors, [len(self.texts)])

    @classmethod
    def open(cls, guide: Path, checkpoint: Checkpoint | None, cache: Path) -> GuideIndex:
        """Read the pages of a folder (or one page), and their vectors from the folder `cache` if
        they are there and still right.

        checkpoint: the sentence encoder, or None to compare words. Raises UserError if a page
        cannot be read.
        """
        sections = []
        for page in [guide] if guide.is_file() else sorted(guide.glob("*.md")):
            try:
                sections += read_sections(page.read_text(encoding="utf-8"), page.name)
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", "not UTF-8")
                raise UserError(f"the guide's page {page} cannot be read ({reason}): restore it "
                                "with git checkout, or run without --tutor") from None
        if not sections:
            raise UserError(f"the guide {guide} has no sections (pages that end with .md, with "
                            "headings that begin with #): restore it with git checkout")
        return cls(sections, checkpoint, cache)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(texts, dimensions), of length 1. The encoder is loaded when it is first needed."""
        from utils.embedding import Embedder

        assert self.checkpoint, "without an encoder there are no vectors"
        self._embedder = self._embedder or Embedder(self.checkpoint)
        return self._embedder(texts)

    def _cached(self, checkpoint: Checkpoint, cache: Path) -> np.ndarray:
        weights = checkpoint.folder / "model.safetensors"
        size = weights.stat().st_size if weights.exists() else 0
        texts = self.texts + [question for _, question in self.asked]
        known = [checkpoint.name, checkpoint.source, str(size), *texts]
        digest = hashlib.sha256("\0".join(known).encode()).hexdigest()[:16]
        path = cache / f"guide-{digest}.npy"
        try:
            vectors = np.load(path, allow_pickle=False)
            if vectors.ndim == 2 and len(vectors) == len(texts):
                return vectors
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or damaged: computed anew
        vectors = self.encode(texts)
        if checkpoint.source == "tiny":
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

    def _closest(self, similarities: np.ndarray) -> dict[str, float]:
        """Of the similarities to the readers' questions, (questions,), the largest by section's
        link, and of those that are answered "elsewhere"; 0 where there are none."""
        closest: dict[str, float] = defaultdict(float)
        for (link, _), value in zip(self.asked, similarities.tolist(), strict=True):
            closest[link] = max(value, closest[link])
        return closest

    def search(self, question: str, k: int = 3, rank: Rank | None = None) -> list[Hit]:
        """The k sections whose passages fit best; the best comes first.

        rank: (query vector, vectors, how many) -> [(index, similarity)]; default: cosine
        similarity, as a dot product of vectors of length 1.
        """
        asked = expanded(question, self.everyday)
        scores = share_of_words(words(asked), self.words)
        if self.vectors is None:
            similar = share_of_words(words(question), self.asked_words)
        else:
            query, as_asked = self.encode([asked, question])
            scores, similar = WORDS_WEIGHT * scores, self.asked_vectors @ as_asked
            if rank is None:
                scores += self.vectors @ query
            else:
                for index, similarity in rank(query, self.vectors, len(self.vectors)):
                    scores[index] += similarity
        closest = self._closest(similar)
        scores += QUESTIONS_WEIGHT * np.array([closest[section.link] for section in self.owners])
        scores -= QUESTIONS_WEIGHT * closest["elsewhere"]
        hits: dict[str, Hit] = {}
        for index in np.argsort(-scores, kind="stable"):
            section = self.owners[index]
            hits.setdefault(section.link, Hit(section, float(scores[index])))
            if len(hits) == k:
                break
        return list(hits.values())

    def quotes(self, question: str, hits: list[Hit]) -> list[str]:
        """What each section found says on a question: of all their pairs of neighbouring sentences
        the QUOTED_PAIRS that score best, each with its section's score, and of overlapping ones the
        best. "" for a section with none of them."""
        asked = expanded(question, self.everyday)
        query = self.encode([asked])[0] if self.checkpoint else None
        # A self-check's question answers nothing, nor do words on pictures or code without these.
        texts = [[text for text in sentences(hit.section.text)
                  if not text.endswith(("?", ":")) and not text.startswith("What to see")]
                 or [hit.section.text] for hit in hits]
        scored = []  # (score, place of its section, place of its first sentence there)
        for place, (hit, found) in enumerate(zip(hits, texts, strict=True)):
            pairs = [" ".join(found[i:i + 2]) for i in range(max(len(found) - 1, 1))]
            # A pair alone may not name its subject, no more than a passage.
            named = [Counter(words(f"{hit.section.heading}. {pair}")) for pair in pairs]
            scores = share_of_words(words(asked), named)
            if query is not None:
                scores = WORDS_WEIGHT * scores + self.encode(pairs) @ query
            scored += [(hit.score + score, place, i) for i, score in enumerate(scores.tolist())]
        chosen: list[tuple[int, int]] = []
        for _, place, i in sorted(scored, key=lambda row: -row[0]):
            overlapping = {(place, i - 1), (place, i), (place, i + 1)}
            if len(chosen) < QUOTED_PAIRS and not overlapping & {*chosen}:
                chosen.append((place, i))
        return [joined(found, [i + more for there, i in chosen if there == place
                               for more in range(min(2, len(found)))])
                for place, found in enumerate(texts)]


# Measuring


def answers(entry: dict, text: str) -> bool:
    """Whether a text has the words of an entry's answer, which are regular expressions."""
    return all(re.search(pattern, " ".join(text.split()), re.I) for pattern in entry["answer"])


def retrieval_measures(index: GuideIndex, questions: list[dict],
                       rank: Rank | None = None) -> dict[str, dict]:
    """How well the index finds sections, and knows what the guide does not have: by split, each
    share with its interval.

    recall_at_3: of the questions on the guide, those with a section that answers them among the
    first three. quoted_answers: those whose quotations have the answer and are shown.
    wrong_refusals: those that fall below the threshold. missed_refusals: of the other questions,
    those that do not.
    """
    result = {}
    for split in ("tuning", "frozen"):
        shares: dict[str, list[bool]] = {name: [] for name in (
            "recall_at_3", "quoted_answers", "wrong_refusals", "missed_refusals")}
        for entry in (entry for entry in questions if entry["split"] == split):
            hits = index.search(entry["question"], 3, rank)
            refused = hits[0].score < index.threshold
            if "answer" not in entry:
                shares["missed_refusals"].append(not refused)
                continue
            shares["wrong_refusals"].append(refused)
            shares["recall_at_3"].append(any(answers(entry, hit.section.text) for hit in hits))
            quoted = " ".join(index.quotes(entry["question"], hits))
            shares["quoted_answers"].append(not refused and answers(entry, quoted))
        result[split] = {name: {"of": len(values), **accuracy_interval(sum(values), len(values))}
                         for name, values in shares.items()}
    return result
