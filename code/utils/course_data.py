"""Reads the course's data files and a student's own prompts, and says what is wrong in them, and where."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from reprlib import repr as short
from typing import Any

from utils.runtime import REPOSITORY, UserError

# Shapes of text: the pattern that all of it must match, and the complaint where it does not.
TEXT = (r".*\S.*", "is empty; fill it in or remove it")
ANY_TEXT = (r".*", "")
WORD = (r"\S+", "should be one word without spaces")
SLUG = (r"[a-z0-9-]+", "should hold only a-z, 0-9 and -")
ANSWER = (r"(?!\s)[^A-Z]+(?<!\s)", "should be in lower case, without spaces around it")
PROMPT = (r"(?=.*\S).*[^ ]", "is empty or ends with a space; GPT-2's tokens bring their own space in front")
MASKED = (r"(?!.*\[MASK\].*\[MASK\]).*\[MASK\].*", "should contain [MASK] exactly once")
TEMPLATE = (r"[^{}]*\{text\}[^{}]*(?<! )", "should contain {text} once, no other brace, no space at its end")
LABEL = (r"negative|positive", "is not one of negative, positive")
SPLIT = (r"tuning|frozen", "is not one of tuning, frozen")
CATEGORY = (r"sentiment|context|arithmetic|format", "is not one of sentiment, context, arithmetic, format")

# [shape] is a list that is not empty, {str: shape} an object with names of the author's choice, and
# {"key": shape, "other?": shape} an object with exactly these keys, where "other" may be left out.
PROMPTS = {str: [PROMPT]}
CAPITALS = [{"text": TEXT, "label": TEXT}]
SAMPLE_PROMPTS = {
    "sentences": {"rare_word": TEXT, "masked": MASKED, "attention": {"text": TEXT, "query": WORD}},
    "words_in_context": [{"word": WORD, "senses": [{"sense": TEXT, "sentences": [TEXT]}]}],
    "generation": PROMPTS,
    "few_shot": {
        "sentiment": {"instruction": TEXT, "template": TEMPLATE, "content_free": [ANY_TEXT],
                      "labels": {"negative": [WORD], "positive": [WORD]},
                      "examples": [{"text": TEXT, "label": LABEL}]},
        "capitals": {"instruction": TEXT, "template": TEMPLATE, "examples": CAPITALS, "queries": CAPITALS},
    },
    "fine_tuning_probes": [PROMPT],
}
CONVERSATIONS = {
    "personas": {str: {"description": TEXT, "system": TEXT}},
    "conversations": [{"title": TEXT, "persona": TEXT, "messages": [{"role": TEXT, "content": TEXT}]}],
    "few_shot": {str: {"instruction": TEXT, "examples": [{"user": TEXT, "assistant": TEXT}]}},
    "tasks": [{"id": SLUG, "category": CATEGORY, "question": TEXT, "accept": [ANSWER], "context?": TEXT}],
}
QUESTIONS = [{"question": TEXT, "sections?": [TEXT], "split": SPLIT}]
KINDS = {str: 'text in "quotes"', list: "a list [...]", dict: "an object {...}"}

# Each rule: whether it holds, the entry it is about, and the complaint where it does not hold.
Rules = Iterator[tuple[bool, str, str]]


def load_sample_prompts(path: Path | None = None) -> dict:
    """The sentences and prompts of exercises 1 to 3, in the shape SAMPLE_PROMPTS.

    path: default data/sample_prompts.json. Raises UserError with the file, the entry and the reason.
    """
    return _load(path or REPOSITORY / "data" / "sample_prompts.json", SAMPLE_PROMPTS, _sample_rules)


def load_conversations(path: Path | None = None) -> dict:
    """The personas, conversations and scored tasks of exercise 4, in the shape CONVERSATIONS.

    path: default data/conversation_examples.json. Raises UserError with the file, the entry and the reason.
    """
    return _load(path or REPOSITORY / "data" / "conversation_examples.json", CONVERSATIONS, _chat_rules)


def load_tutor_questions(path: Path | None = None) -> list[dict]:
    """Questions to measure the tutor's retrieval with; "sections" are the guide's headings that answer one, missing
    if none does. Those of the split "tuning" chose the threshold, "frozen" ones were written after that.

    path: default data/tutor_questions.json. Raises UserError with the file, the entry and the reason.
    """
    return _load(path or REPOSITORY / "data" / "tutor_questions.json", QUESTIONS, _question_rules)


def load_prompts_file(path: Path) -> dict[str, list[str]]:
    """A student's own prompts: a JSON object from category to list of prompts.

    Raises UserError with the file, the entry and the reason.
    """
    return _load(path, PROMPTS, _unique)


def _load(path: Path, shape: Any, meaning: Callable[[Any], Rules]) -> Any:
    try:
        value = read_json(path)
        for rules in (_shape_rules(value, shape, ""), meaning(value)):
            for holds, where, complaint in rules:
                if not holds:
                    raise UserError(f"{where.lstrip('.') or 'top level'}: {complaint}")
    except UserError as error:
        # A name in the file may hold a line break; the complaint must not.
        raise UserError(" ".join(f"{path.name or path}: {error}".split())) from None
    return value


def read_json(path: Path) -> Any:
    try:
        # Some Windows editors put a byte order mark in front; utf-8-sig drops it.
        return json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_object)
    except OSError as error:
        complaint = f"cannot read {path} ({error.strerror}); check the path"
    except UnicodeDecodeError as error:
        complaint = f"byte {error.start} is not UTF-8; save the file with the encoding UTF-8"
    except json.JSONDecodeError as error:
        complaint = f"line {error.lineno}, column {error.colno}: {error.msg}; correct the JSON there"
    except (ValueError, RecursionError):
        # Python's own limits: a number of over 4300 digits, a thousand brackets inside each other.
        complaint = "a number is too long or the brackets are nested too deep; simplify the file"
    raise UserError(complaint)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    # json alone would keep the last of two equal keys and drop the first without a word.
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise UserError(f"the key {short(key)} is {count} times in one object; keep one of them")
    return dict(pairs)


def _shape_rules(value: Any, shape: Any, where: str) -> Rules:
    kind = str if isinstance(shape, tuple) else type(shape)
    yield isinstance(value, kind), where, f"should be {KINDS[kind]}, not {short(value)}"
    if kind is str:
        pattern, complaint = shape
        yield bool(re.fullmatch(pattern, value, re.DOTALL)), where, f"{short(value)} {complaint}"
        # JSON can spell half of a character (\ud800); no tokenizer takes it.
        yield not re.search("[\ud800-\udfff]", value), where, f"{short(value)} has half a character"
        return
    yield bool(value), where, "is empty; fill it in or remove it"
    if kind is list:
        for place, item in _numbered(where, value):
            yield from _shape_rules(item, shape[0], place)
    elif str in shape:
        for name, item in value.items():
            yield from _shape_rules(name, TEXT, f"{where}.{short(name)}")
            yield from _shape_rules(item, shape[str], f"{where}.{name}")
    else:
        keys = [key.removesuffix("?") for key in shape]
        for key in value:
            yield _one_of(key, keys, where)
        for key, spelt in zip(keys, shape, strict=True):
            yield key in value or key != spelt, f"{where}.{key}", "is missing; add it"
            if key in value:
                yield from _shape_rules(value[key], shape[spelt], f"{where}.{key}")


def _numbered(where: str, items: list) -> list[tuple[str, Any]]:
    return [(f"{where}[{i}]", item) for i, item in enumerate(items)]


def _one_of(text: str, allowed: Collection[str], where: str) -> tuple[bool, str, str]:
    return text in allowed, where, f"{short(text)} is not one of {', '.join(allowed)}"


def _once(word: str, text: str, where: str) -> tuple[bool, str, str]:
    found = re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    return found == [word], where, f"should contain the word {short(word)} exactly once, spelt like this"


def _unique(lists: dict[str, list[str]]) -> Rules:
    first: dict[str, str] = {}
    for name, texts in lists.items():
        for where, text in _numbered(name, texts):
            other = first.setdefault(text.strip().casefold(), where)
            yield other == where, where, f"{short(text)} is also {other}; change or remove one of them"


def _sample_rules(data: dict) -> Rules:
    attention = data["sentences"]["attention"]
    yield _once(attention["query"], attention["text"], "sentences.attention.text")
    yield from _unique({"words_in_context": [word["word"] for word in data["words_in_context"]]})
    for where, word in _numbered("words_in_context", data["words_in_context"]):
        yield len(word["senses"]) > 1, f"{where}.senses", "has one sense only; add another to compare it with"
        for place, sense in _numbered(f"{where}.senses", word["senses"]):
            for sentence_place, sentence in _numbered(f"{place}.sentences", sense["sentences"]):
                yield _once(word["word"], sentence, sentence_place)
    yield from _unique({f"generation.{name}": prompts for name, prompts in data["generation"].items()})
    yield from _unique({"fine_tuning_probes": data["fine_tuning_probes"]})
    for name, task in data["few_shot"].items():
        # An example that is also a query would give its answer away.
        yield from _unique({f"few_shot.{name}.{part}": [example["text"] for example in task[part]]
                            for part in ("examples", "queries") if part in task})
    labels = data["few_shot"]["sentiment"]["labels"]
    yield from _unique({f"few_shot.sentiment.labels.{name}": words for name, words in labels.items()})
    yield (len(labels["negative"]) == len(labels["positive"]), "few_shot.sentiment.labels",
           "negative and positive should have equally many words, because they are used in pairs")


def _chat_rules(data: dict) -> Rules:
    for where, conversation in _numbered("conversations", data["conversations"]):
        yield _one_of(conversation["persona"], data["personas"], f"{where}.persona")
        messages = _numbered(f"{where}.messages", conversation["messages"])
        for i, (place, message) in enumerate(messages):
            due = ("user", "assistant")[i % 2]
            yield message["role"] == due, f"{place}.role", f"should be {due}; they take turns, user first"
        yield len(messages) % 2 == 0, f"{where}.messages", "ends with the user; add the assistant's answer"
    yield from _unique({"tasks": [task["id"] for task in data["tasks"]]})
    for where, task in _numbered("tasks", data["tasks"]):
        if task["category"] == "format":
            for place, answer in _numbered(f"{where}.accept", task["accept"]):
                yield _is_compact_json(answer), place, f"{short(answer)} should be compact JSON"
        if task["category"] == "context" or "context" in task:
            context = task.get("context", "").lower()
            yield (any(answer in context for answer in task["accept"]), f"{where}.context",
                   "should be a passage that contains an accepted answer")


def _question_rules(data: list[dict]) -> Rules:
    yield from _unique({"questions": [entry["question"] for entry in data]})
    for split in ("tuning", "frozen"):
        known = {"sections" in entry for entry in data if entry["split"] == split}
        yield known == {True, False}, "top level", f"{split} needs questions with sections and some without"


def _is_compact_json(text: str) -> bool:
    try:
        return text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        return False
