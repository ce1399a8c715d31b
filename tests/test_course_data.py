"""The two data files are what the exercises expect, and every mistake in them is named exactly."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from utils.course_data import load_conversations, load_prompts_file, load_sample_prompts
from utils.runtime import REPOSITORY, UserError

LOADERS = {
    "sample_prompts.json": load_sample_prompts,
    "conversation_examples.json": load_conversations,
    "mine.json": load_prompts_file,
}
SHIPPED = ("sample_prompts.json", "conversation_examples.json")
GOOD = {name: json.loads((REPOSITORY / "data" / name).read_text(encoding="utf-8")) for name in SHIPPED}
GOOD["mine.json"] = {"sea": ["The ship left", "Far below the waves,"], "city": ["At noon the tram"]}
REMOVED = object()


def refusal(tmp_path, name: str, data: bytes) -> str:
    """Write the data, load it, and return the text of the error that must follow."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        LOADERS[name](path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(good: dict, entry: str, value) -> dict:
    """A copy of the good data in which one entry, such as "tasks.3.id", is replaced, added or REMOVED."""
    data = copy.deepcopy(good)
    *parents, last = [int(key) if key.isdigit() else key for key in entry.split(".")]
    place = data
    for key in parents:
        place = place[key]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return data


def test_sample_prompts_as_shipped():
    data = load_sample_prompts()
    assert data == GOOD["sample_prompts.json"]
    assert list(data["generation"]) == ["story", "explanation", "news", "dialogue", "recipe"]
    assert all(len(prompts) == 4 for prompts in data["generation"].values())
    assert len(data["words_in_context"]) == 4 and len(data["fine_tuning_probes"]) == 6
    for word in data["words_in_context"]:
        assert len(word["senses"]) in (2, 3)
        assert all(3 <= len(sense["sentences"]) <= 4 for sense in word["senses"])


def test_few_shot_examples_are_balanced_and_keep_away_from_the_queries():
    tasks = load_sample_prompts()["few_shot"]
    labels = Counter(example["label"] for example in tasks["sentiment"]["examples"])
    assert labels == {"negative": 8, "positive": 8}
    assert tasks["sentiment"]["labels"]["negative"][0] == "negative"
    capitals = tasks["capitals"]
    assert (len(capitals["examples"]), len(capitals["queries"])) == (8, 24)
    for field in ("text", "label"):
        values = [example[field] for part in ("examples", "queries") for example in capitals[part]]
        assert len(set(values)) == 32


def test_conversations_as_shipped():
    data = load_conversations()
    assert set(data["personas"]) == {"tutor", "socratic", "reviewer", "plain"}
    assert {talk["persona"] for talk in data["conversations"]} == set(data["personas"])
    assert all(2 <= len(talk["messages"]) / 2 <= 4 for talk in data["conversations"])
    assert not any("\n" in persona["description"] for persona in data["personas"].values())
    assert {name: len(task["examples"]) for name, task in data["few_shot"].items()} == {
        "sentiment": 4, "json_extraction": 3, "rephrase": 3, "short_answers": 4}
    for example in data["few_shot"]["json_extraction"]["examples"]:
        found = json.loads(example["assistant"])
        assert list(found) == ["name", "year"]
        assert found["name"] in example["user"] and str(found["year"]) in example["user"]


def test_scored_tasks_are_balanced_and_not_among_the_examples():
    data = load_conversations()
    tasks = data["tasks"]
    assert Counter(task["category"] for task in tasks) == {
        "sentiment": 6, "context": 6, "arithmetic": 6, "format": 6}
    sentiment = [task for task in tasks if task["category"] == "sentiment"]
    assert Counter(task["accept"][0] for task in sentiment) == {"negative": 3, "positive": 3}
    assert len({task["question"] for task in tasks}) == 24
    for name in ("sentiment", "short_answers"):
        for example in data["few_shot"][name]["examples"]:
            assert not any(example["user"] in task["question"] for task in tasks)


# file: (entry, what is put there, how the complaint goes on after the file name)
MISTAKES = {
    "sample_prompts.json": [
        ("generation", REMOVED, "generation: is missing"),
        ("extra", {}, "top level: 'extra' is not one of sentences, words_in_context"),
        ("sentences.attention.words", "it", "sentences.attention: 'words' is not one of text, query"),
        ("generation", ["Once"], "generation: should be an object {...}, not ['Once']"),
        ("generation.story", "Once", "generation.story: should be a list [...], not 'Once'"),
        ("generation.story", [], "generation.story: is empty"),
        ("generation.story.1", 7, 'generation.story[1]: should be text in "quotes", not 7'),
        ("generation.story.1", float("nan"), 'generation.story[1]: should be text in "quotes", not nan'),
        ("generation.story.1", "Once ", "generation.story[1]: 'Once ' is empty or ends with a space"),
        ("generation.story.1", "Half \ud83d", "generation.story[1]: 'Half \\ud83d' has half a character"),
        ("generation.recipe.3", "when Clara opened the letter,",
         "generation.recipe[3]: 'when Clara o...d the letter,' is also generation.story[1]"),
        ("generation. ", ["Once"], "generation.' ': ' ' is empty"),
        ("generation.two\nlines", [], "generation.two lines: is empty"),
        ("sentences.rare_word", " \n", "sentences.rare_word: ' \\n' is empty"),
        ("sentences.masked", "None.", "sentences.masked: 'None.' should contain [MASK] exactly once"),
        ("sentences.masked", "[MASK] [MASK]", "sentences.masked: '[MASK] [MASK]' should contain [MASK]"),
        ("sentences.attention.query", "dog", "sentences.attention.text: should contain the word 'dog'"),
        ("words_in_context.1.word", "Bank", "words_in_context[1]: 'Bank' is also words_in_context[0]"),
        ("words_in_context.0.senses.1", REMOVED, "words_in_context[0].senses: has one sense only"),
        ("words_in_context.0.senses.1.sentences.2", "The bank is a bank.",
         "words_in_context[0].senses[1].sentences[2]: should contain the word 'bank' exactly once"),
        ("words_in_context.0.senses.0.sentences.0", "Bankers like banks.",
         "words_in_context[0].senses[0].sentences[0]: should contain the word 'bank' exactly once"),
        ("words_in_context.0.senses.0.sentences.0", "Bank on it.",
         "words_in_context[0].senses[0].sentences[0]: should contain the word 'bank' exactly once"),
        ("few_shot.capitals", REMOVED, "few_shot.capitals: is missing"),
        ("few_shot.sentiment.template", "Film:", "few_shot.sentiment.template: 'Film:' should"),
        ("few_shot.sentiment.template", "{text}{text}", "few_shot.sentiment.template: '{text}{text}' should"),
        ("few_shot.sentiment.template", "{text}{x}", "few_shot.sentiment.template: '{text}{x}' should"),
        ("few_shot.capitals.template", "{text}: ", "few_shot.capitals.template: '{text}: ' should"),
        ("few_shot.sentiment.examples.3.label", "meh",
         "few_shot.sentiment.examples[3].label: 'meh' is not one of negative, positive"),
        ("few_shot.sentiment.examples.15.text", "Two hours of noise with nobody to care about.",
         "few_shot.sentiment.examples[15]: 'Two hours of...o care about.' is also few_shot"),
        ("few_shot.sentiment.queries", [], "few_shot.sentiment: 'queries' is not one of instruction"),
        ("few_shot.sentiment.labels.negative", ["bad"], "few_shot.sentiment.labels: negative and"),
        ("few_shot.sentiment.labels.negative.1", "so bad",
         "few_shot.sentiment.labels.negative[1]: 'so bad' should be one word"),
        ("few_shot.sentiment.labels.negative.1", "good",
         "few_shot.sentiment.labels.positive[1]: 'good' is also few_shot.sentiment.labels.negative[1]"),
        ("few_shot.capitals.queries.2.text", "france",
         "few_shot.capitals.queries[2]: 'france' is also few_shot.capitals.examples[0]"),
        ("fine_tuning_probes.1", "A class definition is",
         "fine_tuning_probes[3]: 'A class definition is' is also fine_tuning_probes[1]"),
    ],
    "conversation_examples.json": [
        ("personas.tutor.system", REMOVED, "personas.tutor.system: is missing"),
        ("conversations.0.persona", "pirate",
         "conversations[0].persona: 'pirate' is not one of tutor, socratic, reviewer, plain"),
        ("conversations.0.messages.0", REMOVED, "conversations[0].messages[0].role: should be user"),
        ("conversations.0.messages.1.role", "system",
         "conversations[0].messages[1].role: should be assistant"),
        ("conversations.2.messages.3", REMOVED, "conversations[2].messages: ends with the user"),
        ("few_shot.rephrase.examples", [], "few_shot.rephrase.examples: is empty"),
        ("tasks.1.id", "sentiment-film", "tasks[4]: 'sentiment-film' is also tasks[1]"),
        ("tasks.1.id", "Two words", "tasks[1].id: 'Two words' should hold only a-z, 0-9 and -"),
        ("tasks.1.category", "poetry", "tasks[1].category: 'poetry' is not one of sentiment, context"),
        ("tasks.1.accept.0", "Positive", "tasks[1].accept[0]: 'Positive' should be in lower case"),
        ("tasks.6.context", REMOVED, "tasks[6].context: should be a passage"),
        ("tasks.6.accept.0", "monday", "tasks[6].context: should be a passage"),
        ("tasks.18.accept.0", "paris", "tasks[18].accept[0]: 'paris' should be compact JSON"),
        ("tasks.18.accept.0", "[1, 2]", "tasks[18].accept[0]: '[1, 2]' should be compact JSON"),
    ],
    "mine.json": [
        ("sea", "The ship left", "sea: should be a list"),
        ("sea.0", "\n ", "sea[0]: '\\n ' is empty or ends with a space"),
        ("city.0", "the ship left", "city[0]: 'the ship left' is also sea[0]"),
        ("city.0", None, 'city[0]: should be text in "quotes", not None'),
    ],
}


@pytest.mark.parametrize(("name", "entry", "value", "expected"),
                         [(name, *case) for name, cases in MISTAKES.items() for case in cases])
def test_a_mistake_is_named_with_file_entry_and_reason(tmp_path, name, entry, value, expected):
    data = json.dumps(changed(GOOD[name], entry, value)).encode()
    assert refusal(tmp_path, name, data).startswith(f"{name}: {expected}")


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"sea": ["The ship"],\n"city": ["At noon",]}', "line 2, column "),
    (b"", "line 1, column 1: Expecting value"),
    (b'{"sea": ["a"], "sea": ["b"]}', "the key 'sea' is 2 times in one object"),
    (b"[]", "top level: should be an object"),
    (b"{}", "top level: is empty"),
    (b'{"sea": ["caf\xe9"]}', "byte 13 is not UTF-8"),
    ('{"sea": ["a"]}'.encode("utf-16"), "byte 0 is not UTF-8"),
    (b"9" * 5000, "a number is too long"),
    (b"[" * 100_000, "a number is too long or the brackets are nested too deep"),
])
def test_a_file_that_is_not_json_is_refused(tmp_path, data, expected):
    assert refusal(tmp_path, "mine.json", data).startswith(f"mine.json: {expected}")


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_file_and_a_folder_are_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(UserError, match=f"^{name}: cannot read .*; check the path$"):
        LOADERS[name](path)
    path.mkdir()
    with pytest.raises(UserError, match=f"^{name}: cannot read .*; check the path$"):
        LOADERS[name](path)


@pytest.mark.parametrize("name", LOADERS)
def test_good_data_is_returned_as_it_is_even_behind_a_byte_order_mark(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps(GOOD[name]), encoding="utf-8-sig")
    assert LOADERS[name](path) == GOOD[name]
