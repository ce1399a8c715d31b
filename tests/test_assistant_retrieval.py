"""The guide as sections that can be searched and quoted: reading, ranking, vectors, measures."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from assistant import retrieval
from assistant.retrieval import GuideIndex, Section, passages, prose, read_sections
from utils import checkpoints, course_data
from utils.runtime import REPOSITORY, UserError

GUIDE = """# A guide

What this is.

## 1. Cheese

*All about cheese.*

### 1.1 Making cheddar

Cheddar is pressed and aged. <!-- a note -->

```python
## not a heading
```

### 1.2 Making `brie`, or not?

Brie is soft: see [the dairy](#dairy).

**Try it:** eat some.

**Common mistakes**
- Eating it cold.

## 2. Rockets

### 2.1 Engines

Engines burn much fuel. They are very loud. Nobody sleeps beside one. Cheddar is no fuel. How loud is burning fuel?
The fuel burns like this:

*What to see: burning fuel, and loud engines.*

### 2.2 Only code

```python
print("no prose")
```
"""


@pytest.fixture
def guide(tmp_path):
    folder = tmp_path / "guides"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE, encoding="utf-8")
    (folder / "more.md").write_text("# Boats\n\nThey float.\n\n## Sails\n\nSails catch the wind."
                                    "\n\n**Common mistakes**\n- Sailing drunk.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def encoder():
    return checkpoints.fetch("embedder", "tiny")


# Reading


def test_sections_are_cut_at_headings_and_not_in_code():
    assert [(section.path, section.link) for section in read_sections(GUIDE, "g.md")] == [
        ("A guide", "g.md#a-guide"), ("1. Cheese", "g.md#1-cheese"),
        ("1. Cheese > 1.1 Making cheddar", "g.md#11-making-cheddar"),
        ("1. Cheese > 1.2 Making `brie`, or not?", "g.md#12-making-brie-or-not"),
        ("2. Rockets > 2.1 Engines", "g.md#21-engines")]


def test_what_closes_a_chapter_or_a_page_belongs_to_that(guide):
    sections = {section.heading: section.text for section in read_sections(GUIDE)}
    assert sections["1. Cheese"] == "All about cheese.\n\nCommon mistakes\n\n- Eating it cold."
    assert sections["1.2 Making `brie`, or not?"] == "Brie is soft: see the dairy."
    page = {s.heading: s.text for s in read_sections((guide / "more.md").read_text("utf-8"))}
    assert "Sailing drunk" in page["Boats"] and page["Sails"] == "Sails catch the wind."


def test_equal_headings_have_links_of_their_own():
    sections = read_sections("# T\n\n## A\n\none\n\n## B\n\n### A\n\ntwo\n", "p.md")
    assert [section.link for section in sections] == ["p.md#a", "p.md#a-1"]


@pytest.mark.parametrize(("markdown", "text"), [
    ("Read.\n\n```python\nx = 1\n```\n![a [big]\ncat](cat.png)\n<!-- check -->\n<details><summary>q"
     "</summary>\nanswer\n</details>\n\n**Sources:** [A](b),\n[C](d)\n\nOn.", "Read.\n\nOn."),
    ("- [Cheese](#1-cheese)\n- [Rockets](#2-rockets)\n", ""),
    ("*Printed by a small model.*\nBut *this* `stays`.", "But this stays."),
    ("So:\n\n| | b | c |\n|---|:-:|--|\n| **x** | y | z |\n| u | | v |\n\nEnd.",
     "So:\n\nx (b: y; c: z)\n\nu (c: v)\n\nEnd."),
    ("Two things:\n- one,\n  really;\n- two", "Two things:\n\n- one,\n  really;\n\n- two"),
])
def test_prose_is_what_a_reader_reads(markdown, text):
    assert prose(markdown) == text


def test_passages_hold_whole_paragraphs_and_all_of_them():
    paragraphs = [f"paragraph{i} " + "word " * 50 for i in range(7)] + ["long " * 400]
    pieces = passages("\n\n".join(paragraphs))
    assert " ".join(pieces).split() == " ".join(paragraphs).split()
    assert all(len(piece.split()) <= retrieval.PASSAGE_WORDS for piece in pieces[:-1])
    assert len(pieces) == 5, "two paragraphs of 51 words fit into a passage"


def test_sentences_end_at_full_stops_and_at_the_ends_of_paragraphs():
    text = "One two three four, e.g. five.\nSix seven eight\nnine! Scrap.\n\n- eleven to\n  the end"
    assert retrieval.sentences(text) == ["One two three four, e.g. five.", "Six seven eight nine!",
                                         "eleven to the end"]


# Ranking


def test_bm25_is_that_of_a_well_known_library():
    """With its idf put in place of ours, which unlike it is never negative (Lucene's formula)."""
    rank_bm25 = pytest.importorskip("rank_bm25")
    generator = np.random.default_rng(0)
    texts = [[f"w{i}" for i in generator.integers(0, 30, size)] for size in (5, 20, 60, 9, 33)]
    query = ["w1", "w2", "w3", "w29", "never"]
    theirs, counts = rank_bm25.BM25Okapi(texts, k1=1.2, b=0.6), [Counter(text) for text in texts]
    theirs.idf = {word: retrieval.inverse_frequency(word, counts) for word in query}
    assert np.allclose(retrieval.bm25_scores(query, counts, 1.2, 0.6), theirs.get_scores(query))


def test_a_rare_word_counts_more_a_repeated_one_less_and_a_long_text_is_no_better():
    score = retrieval.bm25_scores
    texts = [Counter(text.split()) for text in ("cat a", "dog a", "cat cat", "cat b c d e f g h", "fox a")]
    one, none, two, long, _ = score(["cat"], texts)
    assert none == 0 and one < two < 2 * one and 0 < long < one
    assert score(["fox"], texts)[4] > one, "the fox is in one text, the cat in three"
    assert np.allclose(score(["cat", "cat"], texts), score(["cat"], texts))
    assert score(["cat"], [Counter(["cat"]), Counter(["dog"])]) == pytest.approx([0.693, 0], abs=1e-3)


def test_the_share_of_words_is_one_at_most_and_falls_with_words_that_the_text_lacks():
    texts = [Counter({"cat": 1000}), Counter(["cat", "dog"]), Counter(["fish"])]
    share = retrieval.share_of_words
    assert 0.9 < share(["cat"], texts)[0] < 1
    assert share(["cat", "never"], texts)[1] < share(["cat"], texts)[1] / 2
    assert not share([], texts).any()


def test_words_lose_their_endings_and_those_that_say_nothing():
    assert retrieval.words("Padding the padded TEXTS of few-shot_2") == [
        "padd", "padd", "text", "few-shot", "2"]
    assert len(set(retrieval.words("pickle pickles pickled"))) == 1
    assert retrieval.words("Quantization") == retrieval.words("quantisations")


@pytest.mark.parametrize(("chosen", "text"), [
    ([2], "C."), ([3, 2], "C. D."), ([2, 0, 3], "A. ... C. D."), ([0, 1, 2, 3], "A. B. C. D."), ([], "")])
def test_sentences_stand_in_the_order_of_the_text(chosen, text):
    assert retrieval.joined(["A.", "B.", "C.", "D."], chosen) == text


def test_everyday_words_bring_the_guides_own_along():
    everyday = {"hallucination": ["lie", "make things up"], "energy": ["power"]}
    expand = retrieval.expanded
    assert expand("Why does it LIE?", everyday) == "Why does it LIE? hallucination"
    assert expand("Lies need power", everyday) == "Lies need power hallucination, energy"
    assert expand("Believe me", everyday) == "Believe me", "the beginning of a word, not its end"


@pytest.mark.parametrize(("question", "back"), [
    ("And why is that?", True), ("How large is it?", True), ("Why?", True), ("Who invented this?", True),
    ("What is a mutex?", False), ("How do I boil an egg?", False),
    ("How do I cook rice so that it does not stick?", False)])
def test_a_question_without_a_subject_refers_back(question, back):
    assert retrieval.refers_back(question) == back


# The index


@pytest.mark.parametrize("method", ["embeddings", "words"])
def test_a_question_finds_its_section_and_the_sentences_that_answer(guide, encoder, tmp_path,
                                                                     method, monkeypatch):
    index = GuideIndex.open(guide, encoder if method != "words" else None, tmp_path / "cache")
    assert index.method == method
    monkeypatch.setattr(retrieval, "QUESTIONS_WEIGHT", 0)
    one_hot = {text: np.eye(99)[i] for i, text in enumerate(index.texts)}
    monkeypatch.setattr(index, "encode", lambda texts: np.array(
        [one_hot.get(text, np.eye(99)[98]) for text in texts]))
    if index.checkpoint:
        index.vectors, index.asked_vectors = index.encode(index.texts), np.zeros((len(index.asked), 99))
    assert index.search("How is cheddar aged?", 2)[0].section.heading == "1.1 Making cheddar"
    assert index.search("What catches the wind?", 1)[0].section.link == "more.md#sails"
    assert index.search("qqq zzz", 1)[0].score < index.threshold
    if method == "words":
        monkeypatch.setattr(retrieval, "QUOTED_PAIRS", 1)
        hits = index.search("loud engines", 2)
        assert index.quotes("How loud is burning fuel?", hits) == ["Engines burn much fuel. They are very loud.", ""]
        assert index.quotes("Is cheddar no fuel?", hits) == ["Nobody sleeps beside one. Cheddar is no fuel.", ""]
        assert index.quotes("qqq", hits) == ["Engines burn much fuel. They are very loud.", ""], "no more where all tie"
        monkeypatch.setattr(retrieval, "QUOTED_PAIRS", 2)
        assert index.quotes("How loud is burning fuel?", hits)[0] == (
            "Engines burn much fuel. They are very loud. Nobody sleeps beside one. Cheddar is no fuel.")
        assert all(index.quotes("Loud cheddar, pressed and aged", index.search("cheddar pressed loud", 2))), (
            "the best pairs of both sections")


def test_vectors_count_beside_words_and_may_be_ranked_by_a_function_of_ones_own(
        guide, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval, "QUESTIONS_WEIGHT", 0)
    index = GuideIndex.open(guide, encoder, tmp_path)
    seen = []

    def last_one(query, vectors, k):
        seen.append((query.shape, vectors.shape, k))
        return [(i, 9.0 * (i == k - 1)) for i in range(k)]

    hits = index.search("qqq zzz", 9, last_one)
    assert seen == [((index.vectors.shape[1],), index.vectors.shape, len(index.texts))]
    assert hits[0].section.link == "more.md#sails" and hits[0].score == pytest.approx(9)
    assert len(hits) == len({hit.section.link for hit in hits}) == 7
    scores = [hit.score for hit in index.search("brie", 9)]
    assert scores == sorted(scores, reverse=True)
    words_alone = retrieval.share_of_words(["brie"], index.words).max()
    assert index.search("brie", 1, lambda *_: [])[0].score == pytest.approx(
        retrieval.WORDS_WEIGHT * words_alone)


@pytest.mark.parametrize("method", ["embeddings", "words"])
def test_what_readers_ask_leads_to_its_section_or_away_from_all(guide, encoder, tmp_path, monkeypatch, method):
    asked = {"guide.md#21-engines": ["Whence such a din?"], "elsewhere": ["Who won the cheddar cup?"]}
    monkeypatch.setattr(course_data, "load_prompts_file",
                        lambda path: asked if path.name == "readers_questions.json" else {})
    index = GuideIndex.open(guide, encoder if method == "embeddings" else None, tmp_path)
    if index.checkpoint:  # each text is like itself alone
        texts = [*index.texts, "Whence such a din?", "Who won the cheddar cup?"]
        monkeypatch.setattr(index, "encode", lambda given: np.eye(99)[
            [texts.index(text) if text in texts else 98 for text in given]])
        index.vectors, index.asked_vectors = np.split(index.encode(texts), [len(index.texts)])
    hits = index.search("Whence such a din?", 2)
    assert hits[0].section.link == "guide.md#21-engines"
    assert hits[0].score > 0.25 and hits[1].score < 0.1
    with_cup = index.search("Who won the cheddar cup?", 1)[0]
    monkeypatch.setattr(retrieval, "QUESTIONS_WEIGHT", 0)
    alone = index.search("Who won the cheddar cup?", 1)[0]
    assert with_cup.section == alone.section and with_cup.score < alone.score - 0.25


def test_readers_questions_point_at_sections_and_are_not_those_that_measure():
    asked = course_data.load_prompts_file(REPOSITORY / "data" / "readers_questions.json")
    links = {section.link for section in GuideIndex.open(REPOSITORY / "guides", None, REPOSITORY).sections}
    assert asked.keys() - links == {"elsewhere"}
    plain = [re.sub(r"\W", "", question.lower()) for group in asked.values() for question in group]
    assert len(plain) == len(set(plain)), "one question stands twice"
    measured = {re.sub(r"\W", "", entry["question"].lower()) for entry in course_data.load_tutor_questions()}
    assert not measured & set(plain), "what the index knows by heart measures nothing"


def test_vectors_are_kept_until_a_page_changes(guide, encoder, tmp_path, monkeypatch):
    kept = checkpoints.Checkpoint("kept", "folder", encoder.folder)
    cache, encode, computed = tmp_path / "cache", GuideIndex.encode, []
    monkeypatch.setattr(GuideIndex, "encode",
                        lambda self, texts: computed.append(len(texts)) or encode(self, texts))
    first, again = GuideIndex.open(guide, kept, cache), GuideIndex.open(guide, kept, cache)
    assert len(computed) == 1 and np.array_equal(first.vectors, again.vectors)
    (guide / "new.md").write_text("# New\n\nNew text.\n", encoding="utf-8")
    changed = GuideIndex.open(guide, kept, cache)
    assert len(computed) == 2 and len(changed.vectors) == len(first.vectors) + 1
    assert len(list(cache.iterdir())) == 1, "the old vectors should be gone"
    next(cache.iterdir()).write_bytes(b"torn")
    assert np.array_equal(GuideIndex.open(guide, kept, cache).vectors, changed.vectors)
    assert len(computed) == 3, "a damaged file is computed anew"


@pytest.mark.parametrize(("content", "says"), [
    (None, "has no sections"), (b"\xff\xfe", "not UTF-8"), (b"no headings", "has no sections")])
def test_a_guide_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, says):
    if content is not None:
        (tmp_path / "guide.md").write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        GuideIndex.open(tmp_path, None, tmp_path)
    assert "\n" not in str(error.value)


# Measuring


class Known:
    """An index that finds one section for each question, by its first word."""

    threshold = 0.5

    def search(self, question, k, rank=None):
        assert k == 3
        score = 0.4 if "weak" in question else 0.6
        texts = {"first": ["the answer"], "third": ["x", "y", "The\nanswer"]}
        found = texts.get(question.split()[0], ["x"])
        return [retrieval.Hit(Section(text, text, text, text), score) for text in found]

    def quotes(self, question, hits):
        return [hits[0].section.text, ""]


def test_retrieval_is_measured_by_split():
    def asked(question, split="frozen"):
        return {"question": question, "answer": ["the answer|never", "answer"], "split": split}

    measures = retrieval.retrieval_measures(Known(), [
        asked("first"), asked("first weak"), asked("third"), asked("none"), asked("x", "tuning"),
        {"question": "strong", "split": "frozen"}, {"question": "weak", "split": "frozen"},
        {"question": "weak", "split": "tuning"}])
    shares = {name: (value["accuracy"], value["of"]) for name, value in measures["frozen"].items()}
    assert shares == {"recall_at_3": (0.75, 4), "quoted_answers": (0.25, 4),
                      "wrong_refusals": (0.25, 4), "missed_refusals": (0.5, 2)}
    interval = measures["frozen"]["missed_refusals"]["interval"]
    assert interval == pytest.approx([0.09, 0.91], abs=0.01)
    assert measures["tuning"]["recall_at_3"]["accuracy"] == 0


def test_each_answer_stands_in_the_guide_and_in_few_of_its_sections():
    """So that a page that is rewritten does not leave questions behind, nor a pattern fits all."""
    index = GuideIndex.open(REPOSITORY / "guides", None, REPOSITORY)
    for entry in course_data.load_tutor_questions():
        found = [section for section in index.sections
                 if "answer" in entry and retrieval.answers(entry, section.text)]
        if "answer" in entry:
            assert found, f"no section says {entry['answer']} any more: {entry['question']}"
        assert len(found) <= 12, f"{entry['answer']} says little: {[s.heading for s in found]}"


def test_there_are_enough_questions_and_none_stands_in_both_splits():
    questions = course_data.load_tutor_questions()
    count = {(split, on): sum(entry["split"] == split and ("answer" in entry) == on
                              for entry in questions)
             for split in ("tuning", "frozen") for on in (True, False)}
    assert count["tuning", True] >= 80 and count["tuning", False] >= 40
    assert count["frozen", True] >= 40 and count["frozen", False] >= 20
    asked = {re.sub(r"\W", "", entry["question"].lower()) for entry in questions}
    assert len(asked) == len(questions)
