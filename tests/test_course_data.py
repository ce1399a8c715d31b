"""The data files hold what the exercises expect; a mistake in them is one line with its entry."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter

import pytest

from utils.course_data import load_conversations, load_prompts_file, load_sample_prompts
from utils.runtime import UserError

LOADERS = {"sample_prompts.json": load_sample_prompts, "mine.json": load_prompts_file,
           "conversation_examples.json": load_conversations}
PROMPTS, CHATS = load_sample_prompts(), load_conversations()
GOOD = {"sample_prompts.json": PROMPTS, "conversation_examples.json": CHATS,
        "mine.json": {"sea": ["The ship left", "Far below,"], "city": ["At noon the tram"]}}
REMOVED = object()


def unlike(texts):
    """Whether no text is there twice, in whatever case."""
    return len({text.strip().casefold() for text in texts}) == len(texts)


# What no loader checks, since only an editor of these files can break it


def test_prompts_are_enough_and_different():
    generation = PROMPTS["generation"]
    assert list(generation) == ["story", "explanation", "news", "dialogue", "recipe"]
    assert {len(prompts) for prompts in generation.values()} == {4}
    assert unlike(sum(generation.values(), [])) and unlike(PROMPTS["fine_tuning_probes"])
    words = PROMPTS["words_in_context"]
    assert len(words) == 4 and unlike([entry["word"] for entry in words])
    assert {len(sense["sentences"]) for entry in words for sense in entry["senses"]} == {4}


def test_few_shot_examples_are_balanced_and_keep_away_from_the_queries():
    sentiment, capitals = PROMPTS["few_shot"]["sentiment"], PROMPTS["few_shot"]["capitals"]
    labels = Counter(example["label"] for example in sentiment["examples"])
    assert labels == {"negative": 8, "positive": 8}
    assert unlike([shot["text"] for shot in sentiment["examples"]])
    assert unlike(sum(sentiment["labels"].values(), []))
    assert all(words[0] == label for label, words in sentiment["labels"].items())
    for field in ("text", "label"):
        assert unlike([entry[field] for entry in capitals["examples"] + capitals["queries"]])
    assert (len(capitals["examples"]), len(capitals["queries"])) == (8, 24)


def test_conversations_take_turns_and_show_every_persona():
    assert {talk["persona"] for talk in CHATS["conversations"]} == set(CHATS["personas"])
    for talk in CHATS["conversations"]:
        roles = [message["role"] for message in talk["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2), talk["title"]
    for example in CHATS["few_shot"]["json_extraction"]["examples"]:
        found = json.loads(example["assistant"])
        assert list(found) == ["name", "year"]
        assert found["name"] in example["user"] and str(found["year"]) in example["user"]


def test_scored_tasks_are_many_balanced_and_not_among_the_examples():
    tasks = CHATS["tasks"]
    counts = Counter(task["category"] for task in tasks)
    assert counts["sentiment"] >= 30 and counts["context"] >= 30
    assert all(("context" in task) == (task["category"] == "context") for task in tasks)
    labels = Counter(task["accept"][0] for task in tasks if task["category"] == "sentiment")
    assert labels["negative"] == labels["positive"] and len(labels) == 2
    assert unlike([task["id"] for task in tasks]) and unlike([task["question"] for task in tasks])
    for task in tasks:
        assert re.fullmatch(r"[a-z0-9-]+", task["id"]) and task["id"].startswith(task["category"])
        for examples in CHATS["few_shot"].values():
            assert not any(e["user"] in task["question"] for e in examples["examples"]), task["id"]


@pytest.mark.parametrize("task", [t for t in CHATS["tasks"] if "context" in t], ids=lambda t: t["id"])
def test_a_passage_answers_its_question_and_the_question_alone_does_not(task):
    def says(text):
        return any(re.search(rf"\b{answer}\b", text.lower()) for answer in task["accept"])

    assert says(task["context"]) and not says(task["question"])


# What a loader refuses: an entry, what is put there, how the complaint goes on after the file

MISTAKES = {
    "sample_prompts.json": [
        ("generation", REMOVED, "top level: the key generation is missing"),
        ("extra", {}, "top level: 'extra' is not one of sentences, words_in_context"),
        ("sentences.attention.words", "it",
         "sentences.attention: 'words' is not one of text, query"),
        ("generation", ["Once"], "generation: should be an object {...}, not ['Once']"),
        ("generation.story", "Once", "generation.story: should be a list [...], not 'Once'"),
        ("generation.story", [], "generation.story: is empty"),
        ("generation.story.1", 7, 'generation.story[1]: should be text in "quotes", not 7'),
        ("generation.story.1", "Once ",
         "generation.story[1]: 'Once ' is empty or ends with a space"),
        ("generation. ", ["Once"], "generation.' ': ' ' is empty"),
        ("generation.two\nlines", [], "generation.two lines: is empty"),
        ("sentences.rare_word", " \n", "sentences.rare_word: ' \\n' is empty"),
        ("sentences.masked", "[MASK] [MASK]",
         "sentences.masked: '[MASK] [MASK]' should contain [MASK]"),
        ("sentences.attention.query", "dog",
         "sentences.attention.text: should contain the word 'dog'"),
        ("words_in_context.0.senses.1", REMOVED, "words_in_context[0].senses: has one sense only"),
        ("words_in_context.0.senses.1.sense", PROMPTS["words_in_context"][0]["senses"][0]["sense"],
         "words_in_context[0].senses: has one sense only"),
        ("words_in_context.0.senses.1.sentences", ["By the bank."],
         "words_in_context[0].senses[1].sentences: has one sentence only"),
        *[("words_in_context.0.senses.1.sentences.2", sentence,
           "words_in_context[0].senses[1].sentences[2]: should contain the word 'bank' exactly")
          for sentence in ("A bank, a bank.", "Bank or bank?", "Bankers like banks.", "Bank on it.")],
        *[("few_shot.sentiment.template", template,
           f"few_shot.sentiment.template: '{template}' should contain")
          for template in ("Film:", "{text}{text}", "{text}{x}", "{text}: ")],
        ("few_shot.sentiment.examples.3.label", "meh",
         "few_shot.sentiment.examples[3].label: 'meh' is not one of"),
        ("few_shot.sentiment.labels.negative", ["bad"],
         "few_shot.sentiment.labels: negative and positive should"),
    ],
    "conversation_examples.json": [
        ("personas.tutor.system", REMOVED, "personas.tutor: the key system is missing"),
        ("conversations.0.persona", "pirate",
         "conversations[0].persona: 'pirate' is not one of tutor, socratic"),
        ("conversations.0.messages.1.role", "system",
         "conversations[0].messages[1].role: 'system' is not one of"),
        ("few_shot.rephrase.examples", [], "few_shot.rephrase.examples: is empty"),
        ("tasks.1.accept.0", "Positive", "tasks[1].accept[0]: 'Positive' should be in lower case"),
        ("tasks.33.context", None, 'tasks[33].context: should be text in "quotes", not None'),
    ],
    "mine.json": [
        ("sea", "The ship left", "sea: should be a list"),
        ("sea.0", "\n ", "sea[0]: '\\n ' is empty"),
    ],
}


@pytest.mark.parametrize(("name", "entry", "value", "expected"),
                         [(name, *case) for name, cases in MISTAKES.items() for case in cases])
def test_a_mistake_is_named_with_file_entry_and_reason(tmp_path, name, entry, value, expected):
    data = copy.deepcopy(GOOD[name])
    *parents, last = [int(key) if key.isdigit() else key for key in entry.split(".")]
    place = data
    for key in parents:
        place = place[key]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    check_refusal(tmp_path / name, json.dumps(data).encode(), f"{name}: {expected}")


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"sea": ["The ship"],\n"city": ["At noon",]}', "line 2, column "),
    (b"", "line 1, column 1: Expecting value"),
    (b'{"sea": ["a"], "sea": ["b"]}', "the key 'sea' is 2 times in one object"),
    (b"[]", "top level: should be an object"),
    (b"{}", "top level: is empty"),
    (b'{"sea": ["caf\xe9"]}', "byte 13 is not UTF-8"),
    (b"9" * 5000, "a number is too long"),
    (b"[" * 100_000, "a number is too long or the brackets are nested too deep"),
], ids=["a comma too many", "nothing", "a key twice", "a list", "an empty object", "latin-1",
        "a long number", "deep brackets"])
def test_a_file_that_is_not_as_it_should_be_is_refused(tmp_path, data, expected):
    check_refusal(tmp_path / "mine.json", data, f"mine.json: {expected}")


def check_refusal(path, data, expected):
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        LOADERS[path.name](path)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_file_and_a_folder_are_refused(tmp_path, name):
    for _ in range(2):
        with pytest.raises(UserError, match=f"^{name}: cannot read .*; check the path$"):
            LOADERS[name](tmp_path / name)
        (tmp_path / name).mkdir(exist_ok=True)


@pytest.mark.parametrize("name", LOADERS)
def test_good_data_is_returned_as_it_is_even_behind_a_byte_order_mark(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(GOOD[name]), encoding="utf-8-sig")
    assert LOADERS[name](tmp_path / name) == GOOD[name]


def test_half_a_character_becomes_one_that_every_tokenizer_takes(tmp_path):
    content = r'{"a": ["cut \ud83d", "whole \ud83d\ude00"]}'
    (tmp_path / "mine.json").write_text(content, encoding="utf-8")
    assert load_prompts_file(tmp_path / "mine.json") == {"a": ["cut \ufffd", "whole \U0001f600"]}
