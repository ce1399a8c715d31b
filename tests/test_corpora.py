"""Documents share no paragraph, lose nothing but repeats, and come from wherever a text lies."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from test_movie_reviews import in_jsonl, refusal, write
from utils import corpora, hub


def story(i):
    """Eight lines of numbers in words, unlike those of any other story."""
    digits = "zero one two three four five six seven eight nine".split()
    return "\n".join(" ".join(digits[int(c)] for c in str(1000 * i + 37 * line))
                     for line in range(8))


def words(documents):
    return sorted(word for document in documents for word in document.split())


def test_the_python_reference_has_no_paragraph_in_two_documents_and_says_what_went():
    corpus = corpora.load_corpus(None, 0)
    assert len(corpus.documents) > 50 and sum(map(len, corpus.documents)) > 200_000
    assert "% of its words left out" in corpus.note
    seen = set()
    for document in corpus.documents:
        paragraphs = {" ".join(part.split()) for part in document.split("\n\n")}
        long = {part for part in paragraphs if len(part) >= 40}
        assert not long & seen, f"held-out text could have been learned: {sorted(long & seen)[0]}"
        seen |= long


def test_a_folder_is_read_deeply_in_a_fixed_order_and_a_limit_is_kept(tmp_path):
    (tmp_path / "b" / ".git").mkdir(parents=True)
    for name, text in {"a.md": story(1), "b/c.PY": "\ufeff" + story(2), "d.txt": story(3),
                       "b/.git/e.txt": story(4), "image.png": "no", "same.txt": story(1),
                       "empty.txt": ""}.items():
        write(tmp_path / name, text)
    corpus = corpora.load_corpus(str(tmp_path), 5)
    assert corpus.source == "folder" and sorted(corpus.documents) == sorted(map(story, (1, 2, 3)))
    assert corpus == corpora.load_corpus(str(tmp_path), 5)
    assert corpus.note.startswith("25.0% of its words")
    assert corpora.load_corpus(None, 5).documents != corpora.load_corpus(None, 6).documents
    assert sum(map(len, corpora.load_corpus(None, 5, 9_000).documents)) <= 9_000


def test_a_paragraph_stays_in_the_shortest_of_its_documents():
    one, two, three = (f"{i} is a paragraph of far more than forty characters" for i in range(3))
    long, short, medium = f"{one}\n\n{two}\n\n{three}\n\nend", two, f"{two}\n\n{one}\n\n{one}"
    assert corpora.without_repeats([long, short, medium]) == [
        f"{three}\n\nend", two, f"{one}\n\n{one}"]


STORIES = [story(i) for i in range(1, 80)]
ONE_FILE = {
    "paragraphs": "\n\n".join(STORIES),
    "lines": "\n".join(STORIES),
    "sentences in one line": ". ".join(" ".join(text.split()) for text in STORIES),
    "one line without sentences": " ".join(" ".join(STORIES).split()),
    "a heading over one long line": "title\n\n\n" + " ".join(" ".join(STORIES).split()),
    "old Macintosh": "\r".join(STORIES),
    "line separators": "\u2028".join(STORIES),
    "end-of-text between the texts": "<|endoftext|>".join(STORIES),
    "no space at all": "".join("".join(text.split()) for text in STORIES),
    "Chinese": "".join(f"第{i}个故事很好。" for i in range(1, 500)),
    "a refrain": "\n\nAnd we all sing together once again, so loud and clear\n\n".join(STORIES),
}


@pytest.mark.parametrize("content", ONE_FILE.values(), ids=ONE_FILE)
def test_one_file_becomes_documents_and_loses_nothing(tmp_path, content):
    corpus = corpora.load_corpus(str(write(tmp_path / "book.txt", content)), 1)
    sizes = [len(document) for document in corpus.documents]
    if "<|" in content:
        assert len(sizes) == len(STORIES)
    else:
        assert 15 <= len(sizes) <= 25 and "sections" in corpus.note
    assert max(sizes) <= 2.5 * sum(sizes) / len(sizes), "a section is far longer than the others"
    assert "left out" not in corpus.note
    assert not re.search("[\r\u2028]", "".join(corpus.documents))
    if ". " in content:
        assert sum(document.endswith(".") for document in corpus.documents) == len(sizes) - 1
    content = content.replace("<|endoftext|>", " ")
    assert Counter("".join(words(corpus.documents))) == Counter("".join(words([content]))), "lost"
    if " " in content:
        assert words(corpus.documents) == words([content]), "a word is cut"


@pytest.mark.parametrize("name, content, says", [
    ("essay.pdf", b"%PDF-1.7\n\xe2\xe3", "essay.pdf: a .pdf document, not plain text"),
    ("essay.docx", b"PK\x03\x04\x14\0", "essay.docx: a .docx document, not plain text"),
    ("old.txt", b"fine\ncaf\xe9", "old.txt, line 2: not utf-8 text"),
    ("empty.txt", b" \n", "holds no text"),
    ("gone.txt", None, "there is no such file or folder"),
    ("C:\\texts\\gone", None, "there is no such file or folder"),
    ("x" * 300, None, "cannot be read"),
    ("~nobody_here", None, "there is no such file or folder"),
    ("pictures/a.png", b"", "holds no text files (.txt,"),
])
def test_a_corpus_that_is_none_is_refused(tmp_path, monkeypatch, name, content, says):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, content)
    assert says in refusal(corpora.load_corpus, name.partition("/")[0], 1)


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """A folder that stands for each data set of the Hub."""
    monkeypatch.setattr(hub, "download", lambda name, kind: tmp_path)
    return tmp_path


def test_a_data_set_of_the_hub_gives_its_training_texts(on_the_hub):
    for part, texts in (("train", map(story, range(1, 9))), ("test", ["never"] * 3)):
        write(on_the_hub / f"{part}.jsonl", in_jsonl([(text, "a string, too") for text in texts]))
    corpus = corpora.load_corpus("owner/stories", 1)
    assert corpus.source == "hub" and sorted(corpus.documents) == sorted(map(story, range(1, 9)))
    assert 2 < len(corpora.load_corpus("owner/stories", 1, 4 * len(story(1))).documents) < 6


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_a_column_of_any_string_type_is_text(on_the_hub, kind):
    import pyarrow
    from pyarrow import parquet

    column = pyarrow.array(STORIES[:5], getattr(pyarrow, kind)())
    table = pyarrow.table({"n": range(5), "body": column})
    parquet.write_table(table, on_the_hub / "train.parquet")
    assert sorted(corpora.load_corpus("owner/stories", 1).documents) == sorted(STORIES[:5])


def test_configurations_are_listed_and_chosen(on_the_hub):
    card = "".join(f"- config_name: {name}\n  data_files: {name}.txt\n"
                   for name in ("large", "small"))
    write(on_the_hub / "README.md", f"---\nconfigs:\n{card}---\n")
    write(on_the_hub / "large.txt", "\n".join(" ".join(text.split()) for text in STORIES))
    write(on_the_hub / "small.txt", "alpha\nbeta\ngamma")
    small = corpora.load_corpus("owner/stories:small", 1)
    assert sorted(small.documents) == ["alpha", "beta", "gamma"]
    for name in ("owner/stories", "owner/stories:tiny"):
        said = refusal(corpora.load_corpus, name, 1)
        assert "configurations large, small" in said and "owner/name:configuration" in said


def test_without_a_network_a_data_set_is_one_line_that_advises_nothing_useless():
    said = refusal(corpora.load_corpus, "owner/stories", 1)
    assert "HF_HUB_OFFLINE" in said and "packaged" not in said
