"""The guide as sections that can be searched: cutting, passages, kept vectors, search by vectors and by words."""

from __future__ import annotations

import numpy as np
import pytest

from assistant import retrieval
from assistant.retrieval import GuideIndex, passages, prose, read_sections
from utils import checkpoints, course_data
from utils.runtime import REPOSITORY, UserError

GUIDE = """# A guide

Not in any section.

## 1. Cheese

*All about cheese.*

### 1.1 Making cheddar

Cheddar is pressed and aged. <!-- a note -->

```python
## not a heading
```

### 1.2 Making brie

Brie is soft: see [the dairy](#dairy).

**Common mistakes**
- Eating it cold.

## 2. Rockets

### 2.1 Engines

Engines burn fuel.

### 2.2 Only code

```python
print("no prose")
```
"""


@pytest.fixture
def guide(tmp_path):
    path = tmp_path / "guide.md"
    path.write_text(GUIDE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encoder():
    return checkpoints.find("embedder", "tiny")


def test_sections_are_cut_at_headings_and_not_in_code():
    assert [section.path for section in read_sections(GUIDE)] == [
        "1. Cheese", "1. Cheese > 1.1 Making cheddar", "1. Cheese > 1.2 Making brie", "2. Rockets > 2.1 Engines"]


def test_what_closes_a_chapter_belongs_to_the_chapter():
    sections = {section.heading: prose(section.text) for section in read_sections(GUIDE)}
    assert "Eating it cold" in sections["1. Cheese"]
    assert sections["1.2 Making brie"] == "Brie is soft: see the dairy."


def test_prose_has_no_code_pictures_comments_answers_or_sources():
    text = ("Read.\n\n```python\nx = 1\n```\n![a cat](cat.png)\n<!-- check -->\n<details><summary>q</summary>\nanswer\n"
            "</details>\n\n**Sources:** [A](b),\n[C](d)\n\nOn.")
    assert prose(text).split() == ["Read.", "On."]


def test_passages_hold_whole_paragraphs_and_all_of_them():
    paragraphs = [f"paragraph{i} " + "word " * 50 for i in range(7)] + ["long " * 400]
    section = retrieval.Section("h", "h", "\n\n".join(paragraphs))
    pieces = passages(section)
    assert " ".join(pieces).split() == " ".join(paragraphs).split()
    assert all(len(piece.split()) <= retrieval.PASSAGE_WORDS for piece in pieces[:-1])


def test_without_an_encoder_words_find_the_section(guide, tmp_path):
    index = GuideIndex.open(guide, None, tmp_path / "cache")
    assert index.method == "words"
    assert index.search("How is cheddar aged?", 2)[0].section.heading == "1.1 Making cheddar"
    assert index.search("What do engines burn?", 1)[0].passage == "Engines burn fuel."
    assert index.search("qqq zzz", 1)[0].score < index.threshold


def test_hits_are_different_sections_the_best_first(guide, encoder, tmp_path):
    hits = GuideIndex.open(guide, encoder, tmp_path).search("brie", 9)
    assert len(hits) == len({hit.section.path for hit in hits}) == 4
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_vectors_have_length_one_whatever_stands_beside_them(encoder):
    encode = retrieval.Encoder(encoder)
    alone, batch = encode(["the film was great"]), encode(["the film was great", "a much longer text " * 9])
    assert np.allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)
    assert np.allclose(alone[0], batch[0], atol=1e-5), "padding must not count"


def test_vectors_are_kept_until_the_guide_changes(guide, encoder, tmp_path):
    kept = checkpoints.Checkpoint("kept", "folder", encoder.folder)
    cache = tmp_path / "cache"
    first = GuideIndex.open(guide, kept, cache)
    again = GuideIndex.open(guide, kept, cache)
    assert (first.built, again.built) == (True, False)
    assert np.array_equal(first.vectors, again.vectors)
    guide.write_text(GUIDE + "\n## 3. More\n\nNew text.\n", encoding="utf-8")
    changed = GuideIndex.open(guide, kept, cache)
    assert changed.built and len(changed.vectors) == len(first.vectors) + 1
    assert len(list(cache.iterdir())) == 1, "the old vectors should be gone"


def test_a_damaged_cache_is_computed_anew(guide, encoder, tmp_path):
    kept = checkpoints.Checkpoint("kept", "folder", encoder.folder)
    GuideIndex.open(guide, kept, tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).write_bytes(b"torn")
    assert GuideIndex.open(guide, kept, tmp_path / "cache").built


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), (b"\xff\xfe", "not UTF-8"),
                                              (b"no headings", "has no sections")])
def test_a_guide_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "guide.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        GuideIndex.open(path, None, tmp_path)
    assert "\n" not in str(error.value)


def test_the_questions_name_sections_of_the_guide():
    guide = (REPOSITORY / "guides" / "pretrained_transformers_guide.md").read_text(encoding="utf-8")
    headings = {section.heading for section in read_sections(guide)}
    named = {name for entry in course_data.load_tutor_questions() for name in entry.get("sections", [])}
    assert named <= headings, f"not in the guide: {named - headings}"
    assert sum(entry["split"] == "frozen" and "sections" in entry for entry in course_data.load_tutor_questions()) == 10


@pytest.mark.parametrize(("rows", "says"), [
    ([{"question": "a", "sections": [], "split": "tuning"}], "is empty"),
    ([{"question": "a", "sections": ["x"], "split": "test"}], "is not one of tuning, frozen"),
])
def test_damaged_questions_are_refused(tmp_path, rows, says):
    import json

    path = tmp_path / "questions.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        course_data.load_tutor_questions(path)
