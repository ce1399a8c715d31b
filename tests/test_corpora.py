"""Splits share no text, keep every label with its text, and bad files are refused with their line."""

from __future__ import annotations

import pytest

from utils import corpora, tiny
from utils.runtime import UserError

ALL = {"train": None, "validation": None, "test": None}


def rows(n=60):
    return [(f"review number {i} was {'good' if i % 2 else 'bad'}", i % 2) for i in range(n)]


def texts(split):
    return {text.casefold() for text in split["text"]}


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def csv_text(data):
    return "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in data)


def test_splits_are_disjoint_and_keep_labels_with_texts():
    data = rows(200) + [("Review number 3 was GOOD", 1), ("review number 4 was bad", 0)]  # repeated, one in capitals
    splits = corpora.split({"all": data}, 7, ALL)
    parts = [texts(splits[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200, "a text is in two splits, or was kept twice, or lost"
    for split in splits.values():
        for text, label in zip(split["text"], split["label"], strict=True):
            assert label == ("good" in text.lower()), f"the label of {text!r} was shuffled away from it"
        assert abs(sum(split["label"]) / len(split) - 0.5) < 0.05, "a split is not stratified"


def test_a_published_test_split_stays_the_test_split():
    data = rows(100)
    splits = corpora.split({"train": data[:80] + [data[90]], "test": data[80:]}, 7, ALL)
    assert texts(splits["test"]) == {text for text, _ in data[80:]}
    assert not texts(splits["train"]) & texts(splits["test"]), "a test text was trained on"


def test_the_seed_decides_the_order_and_sizes_are_respected():
    data = {"all": rows(200)}
    sizes = {"train": 40, "validation": 10, "test": 12}
    once, again, other = (corpora.split(data, seed, sizes) for seed in (1, 1, 2))
    assert once["train"]["text"] == again["train"]["text"]
    assert once["train"]["text"] != other["train"]["text"]
    assert {name: len(split) for name, split in once.items()} == sizes
    assert once["train"]["label"] != sorted(once["train"]["label"]), "the rows are sorted by label"


def test_template_reviews_are_balanced_and_different():
    sentences, labels = tiny.reviews(0)
    assert len(set(sentences)) == len(sentences) and sum(labels) * 2 == len(labels)


@pytest.mark.parametrize("header, suffix", [("text,label\n", ".csv"), ("", ".jsonl")])
def test_own_files_are_read(tmp_path, header, suffix):
    import json

    spelling = {0: "Negative", 1: "1"}
    body = "".join(f'"{t}",{spelling[y]}\n' for t, y in rows()) if header else \
        "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows())
    path = write(tmp_path / f"mine{suffix}", "\ufeff" + header + body)
    assert corpora.read_labelled_file(path) == rows()


@pytest.mark.parametrize("name, content, says", [
    ("a.csv", "", "header must name"),
    ("a.csv", "review,stars\nnice,5\n", "line 1: the header must name"),
    ("a.csv", csv_text(rows()).encode() + b'"caf\xe9",1\n', "line 62: not utf-8"),
    ("a.csv", csv_text([(t, 1) for t, _ in rows()]), "0 different negative"),
    ("a.csv", csv_text([("same", 1), ("other", 0)] * 40), "1 different negative"),
    ("a.csv", csv_text(rows()) + '"fine",maybe\n', "line 62: label 'maybe'"),
    ("a.csv", csv_text(rows()) + ",1\n", "line 62: the text is empty"),
    ("a.csv", csv_text(rows()) + '"never closed,1\n', "not valid csv"),
    ("a.jsonl", "", "0 different negative"),
    ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"\n', "line 2: not valid JSON"),
    ("a.jsonl", '{"text": "a"}\n', "line 1: must be an object"),
    ("a.txt", "hello", "ends in .csv or .jsonl"),
])
def test_bad_files_are_refused_with_name_line_and_reason(tmp_path, name, content, says):
    with pytest.raises(UserError) as error:
        corpora.load_reviews(str(write(tmp_path / name, content)), 1, ALL)
    assert says in str(error.value) and "a." in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        corpora.load_reviews(str(tmp_path / "none.csv"), 1, ALL)


def test_the_hub_s_reviews_come_from_its_cache_before_the_package(monkeypatch):
    import shutil
    from pathlib import Path

    import huggingface_hub
    from datasets import Dataset

    from utils import packaged

    repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / "datasets--cornell-movie-review-data--rotten_tomatoes"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    published = {"train": rows(60), "validation": rows(80)[60:], "test": rows(100)[80:]}
    for part, data in published.items():
        Dataset.from_dict({"text": [t for t, _ in data], "label": [y for _, y in data]}).to_parquet(
            snapshot / f"{part}.parquet")
    monkeypatch.setattr(packaged, "fetch", lambda name: pytest.fail("the package was fetched, though the cache had it"))
    try:
        for name in (None, "rotten_tomatoes"):
            reviews = corpora.load_reviews(name, 1, ALL)
            assert reviews.source == "hub"
            assert {part: texts(split) for part, split in reviews.splits.items()} == {
                part: {text for text, _ in data} for part, data in published.items()}
    finally:
        shutil.rmtree(repository)


def test_without_hub_and_cache_only_the_default_falls_back(monkeypatch):
    monkeypatch.setattr(corpora, "_packaged", lambda: {"all": rows(100)})
    reviews = corpora.load_reviews(None, 1, ALL)
    assert reviews.source == "packaged" and "HF_HUB_OFFLINE" in reviews.note
    with pytest.raises(UserError, match="cannot be reached"):
        corpora.load_reviews("imdb", 1, ALL)
