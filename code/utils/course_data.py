"""Reads the course's data files and own prompts; a mistake is one line with file and entry."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from reprlib import repr as short
from typing import Any

from utils.runtime import REPOSITORY, UserError, well_formed

# Shapes of text: the pattern that all of it must match, and the complaint where it does not.
TEXT = (r".*\S.*", "is empty; fill it in or remove it")
ANY_TEXT = (r".*", "")
PROMPT = (r"(?=.*\S).*[^ ]", "is empty or ends with a space; tokens of GPT-2 bring it in front")
MASKED = (r"(?!.*\[MASK\].*\[MASK\]).*\[MASK\].*", "should contain [MASK] exactly once")
TEMPLATE = (r"[^{}]*\{text\}[^{}]*(?<! )",
            "should contain {text} once, no other brace, no space at its end")
ANSWER = (r"(?!\s)[^A-Z]+(?<!\s)", "should be in lower case, without spaces around it")
LABEL = (r"negative|positive", "is not one of negative, positive")
SPLIT = (r"tuning|frozen", "is not one of tuning, frozen")
ROLE = (r"user|assistant", "is not one of user, assistant")

# [shape] is a list that is not empty, {str: shape} an object with names of the author's choice, and
# {"key": shape, "other?": shape} an object with exactly these keys; "other" may be left out.
PROMPTS = {str: [PROMPT]}
CAPITALS = [{"text": TEXT, "label": TEXT}]
SAMPLE_PROMPTS = {
    "sentences": {"rare_word": TEXT, "masked": MASKED, "attention": {"text": TEXT, "query": TEXT}},
    "words_in_context": [{"word": TEXT, "senses": [{"sense": TEXT, "sentences": [TEXT]}]}],
    "generation": PROMPTS,
    "few_shot": {
        "sentiment": {"instruction": TEXT, "template": TEMPLATE, "content_free": [ANY_TEXT],
                      "labels": {"negative": [TEXT], "positive": [TEXT]},
                      "examples": [{"text": TEXT, "label": LABEL}]},
        "capitals": {"instruction": TEXT, "template": TEMPLATE, "examples": CAPITALS,
                     "queries": CAPITALS},
    },
    "fine_tuning_probes": [PROMPT],
}
CONVERSATIONS = {
    "personas": {str: {"description": TEXT, "system": TEXT}},
    "conversations": [
        {"title": TEXT, "persona": TEXT, "messages": [{"role": ROLE, "content": TEXT}]}],
    "few_shot": {str: {"instruction": TEXT, "examples": [{"user": TEXT, "assistant": TEXT}]}},
    "tasks": [
        {"id": TEXT, "category": TEXT, "question": TEXT, "accept": [ANSWER], "context?": TEXT}],
}
QUESTIONS = [{"question": TEXT, "answer?": [TEXT], "split": SPLIT}]


def load_sample_prompts(path: Path = REPOSITORY / "data" / "sample_prompts.json") -> dict:
    """The sentences and prompts of exercises 1 to 3, in the shape SAMPLE_PROMPTS."""
    data = _load(path, SAMPLE_PROMPTS)
    attention = data["sentences"]["attention"]
    _once(path, "sentences.attention.text", attention["query"], attention["text"])
    for i, entry in enumerate(data["words_in_context"]):
        where = f"words_in_context[{i}].senses"
        if len({sense["sense"] for sense in entry["senses"]}) < 2:
            raise UserError(f"{path.name}: {where}: has one sense only; add another to compare")
        for j, sense in enumerate(entry["senses"]):
            if len(sense["sentences"]) < 2:
                raise UserError(f"{path.name}: {where}[{j}].sentences: has one sentence only; add "
                                "another to compare")
            for k, text in enumerate(sense["sentences"]):
                _once(path, f"{where}[{j}].sentences[{k}]", entry["word"], text)
    labels = data["few_shot"]["sentiment"]["labels"]
    if len(labels["negative"]) != len(labels["positive"]):
        raise UserError(f"{path.name}: few_shot.sentiment.labels: negative and positive should "
                        "have equally many words, because they are used in pairs")
    return data


def load_conversations(path: Path = REPOSITORY / "data" / "conversation_examples.json") -> dict:
    """The personas, conversations and scored tasks of exercise 4, in the shape CONVERSATIONS."""
    data = _load(path, CONVERSATIONS)
    for i, talk in enumerate(data["conversations"]):
        if talk["persona"] not in data["personas"]:
            raise UserError(f"{path.name}: conversations[{i}].persona: {short(talk['persona'])} is "
                            f"not one of {', '.join(data['personas'])}")
    return data


def load_tutor_questions(path: Path = REPOSITORY / "data" / "tutor_questions.json") -> list[dict]:
    """Questions to measure the tutor's retrieval with, in the shape QUESTIONS.

    "answer" holds regular expressions that a section (or a quotation) which answers the question
    contains, all of them; it is missing if the guide has nothing on it. The split "tuning" chose
    how to search and when to refuse; "frozen" ones were written before, and never used for that.
    Once their figures have led to a change, they are tuning questions too, and new ones are
    written: so it went with the first 134, which were asked to measure an earlier search.
    """
    return _load(path, QUESTIONS)


def load_prompts_file(path: Path) -> dict[str, list[str]]:
    """Own prompts: a JSON object from category to list of prompts."""
    return _load(path, PROMPTS)


def _load(path: Path, shape: Any) -> Any:
    """What a JSON file holds. Raises UserError with the file, the entry and the reason."""
    try:
        value = read_json(path)
        _check(value, shape, "")
    except UserError as error:  # whose text may quote a name with a line break
        raise UserError(" ".join(f"{path.name or path}: {error}".split())) from None
    return value


def read_json(path: Path) -> Any:
    """What a JSON file holds, half characters as U+FFFD. Raises UserError with line and column."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_object)
        return json.loads(well_formed(json.dumps(value, ensure_ascii=False)))
    except OSError as error:
        complaint = f"cannot read {path} ({error.strerror}); check the path"
    except UnicodeDecodeError as error:
        complaint = f"byte {error.start} is not UTF-8; save the file with the encoding UTF-8"
    except json.JSONDecodeError as error:
        complaint = f"line {error.lineno}, column {error.colno}: {error.msg}; correct it there"
    except (ValueError, RecursionError):  # Python's own limits
        complaint = "a number is too long or the brackets are nested too deep; simplify the file"
    raise UserError(complaint)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    # json alone would keep the last of two equal keys and drop the first without a word.
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise UserError(f"the key {short(key)} is {count} times in one object; keep one")
    return dict(pairs)


def _check(value: Any, shape: Any, where: str) -> None:
    """Raise UserError with the first entry of value that is not as shape says."""
    def need(holds: Any, complaint: str) -> None:
        if not holds:
            raise UserError(f"{where.lstrip('.') or 'top level'}: {complaint}")

    if isinstance(shape, tuple):
        need(isinstance(value, str), f'should be text in "quotes", not {short(value)}')
        need(re.fullmatch(shape[0], value, re.DOTALL), f"{short(value)} {shape[1]}")
        return
    kind = "a list [...]" if isinstance(shape, list) else "an object {...}"
    need(isinstance(value, type(shape)), f"should be {kind}, not {short(value)}")
    need(value, "is empty; fill it in or remove it")
    if isinstance(shape, list):
        for i, item in enumerate(value):
            _check(item, shape[0], f"{where}[{i}]")
    elif str in shape:
        for name, item in value.items():
            _check(name, TEXT, f"{where}.{short(name)}")
            _check(item, shape[str], f"{where}.{name}")
    else:
        names = [name.removesuffix("?") for name in shape]
        for name in value:
            need(name in names, f"{short(name)} is not one of {', '.join(names)}")
        for name, inner in shape.items():
            need(name in value or name[-1] == "?", f"the key {name} is missing; add it")
            if name.removesuffix("?") in value:
                _check(value[name.removesuffix("?")], inner, f"{where}.{name.removesuffix('?')}")


def _once(path: Path, where: str, word: str, text: str) -> None:
    found = re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    if found != [word]:
        raise UserError(f"{path.name}: {where}: should contain the word {short(word)} exactly "
                        "once, spelt like this")
