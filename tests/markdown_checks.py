"""What can be checked of guides and README without running them: commands, links, parts, structure.

Each `..._problems` function takes a Markdown text and returns what is wrong with it, one line each,
beginning with the line's number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

from guide_runner import REPOSITORY, pieces

LANGUAGES = {"python", "text", "bash", "mermaid", "json"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
CODE_SPAN = re.compile(r"(`+)((?:(?!\n\n).)+?)\1", re.DOTALL)  # over a line's end, not a paragraph's
PARTS = r"parts?\s+(?P<parts>\d(?:(?:,\s*|\s+and\s+|,\s*and\s+|\s+to\s+|-)\d)*)"


def prose_of(text: str, code_spans: bool = False) -> str:
    """The text with fenced blocks, comments and code spans blanked: offsets and lines stay the same."""
    lines = text.split("\n")
    for piece in pieces(text):
        if piece.kind == "fence":
            lines[piece.line - 1:piece.last] = [""] * (piece.last - piece.line + 1)
    text = "\n".join(lines)
    for pattern in [r"<!--.*?-->"] + ([] if code_spans else [CODE_SPAN.pattern]):
        text = re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)
    return text


def matches(pattern: str | re.Pattern, prose: str, flags: int = 0) -> list[tuple[int, re.Match]]:
    """(line, match) for every place where a pattern occurs."""
    return [(prose.count("\n", 0, m.start()) + 1, m) for m in re.finditer(pattern, prose, flags)]


# Commands


def commands(text: str) -> list[tuple[int, str]]:
    """(line, command) of every shell command: in ```bash blocks, code spans, `<!-- output of: ... -->`."""
    found = []
    for piece in pieces(text):
        if piece.kind == "fence" and piece.language == "bash":
            lines = re.sub(r"\\\n", "  ", piece.text).split("\n")  # a command that goes on in the next line
            found += [(piece.line + 1, part) for line in lines for part in re.split(r"&&|;", line)]
        elif piece.kind == "comment" and piece.text.startswith("output of:"):
            found.append((piece.line, piece.text.removeprefix("output of:")))
    prose = prose_of(text, code_spans=True)
    for line, match in matches(CODE_SPAN, prose) + matches(r"(<code>)(.*?)</code>", prose):
        if re.match(r"(python|torchrun|accelerate)\b.*(\.py|\s-m\s)", match[2], re.DOTALL):
            found.append((line, " ".join(match[2].split())))
    return [(line, command.strip()) for line, command in found if command.split("#")[0].strip()]


def command_problems(text: str) -> list[str]:
    """Commands that this repository does not have, and flags that its scripts do not take."""
    found = [f"line {line}: {command!r}: {problem}" for line, command in commands(text)
             if (problem := command_problem(command))]
    for line, span in matches(CODE_SPAN, prose_of(text, code_spans=True)):
        if span[2].startswith("--"):  # flags without a command: some exercise must take them
            found += [f"line {line}: no exercise takes {flag}" for flag in re.findall(r"--[a-z][\w-]*", span[2])
                      if f'"{flag}"' not in source_of("?") and flag != "--help"]
    return found


def command_problem(command: str) -> str | None:
    """None for a command that works here, else what is wrong with it. Nothing of it is run."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value in front
        words = words[1:]
    place = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
    if place and words[0] in ("python", "torchrun", "accelerate") and words[1] != "-m":
        return script_problem(words[place], words[place + 1:])
    words = words[2:] if words[:2] == ["python", "-m"] else words
    for word in words:
        if re.search(r"\.(py|txt)\b", word) and not (REPOSITORY / word.partition("::")[0]).exists():
            return f"there is no {word}"
    if words[0] == "pytest":
        rest = set(re.sub(r"-(m|n|k) \S+|'[^']*'|-[qvxs]\b|\S+\.py\S*|--durations \d+", "", command).split())
        marker = re.search("-m (?!pytest)(\\w+)", command)
        unknown = sorted(rest - {"python", "-m", "pytest", "tests"})
        return f"there is no marker {marker[1]!r}" if marker and marker[1] not in ("real", "slow", "not") else (
            f"unknown flags {unknown}" if unknown else None)
    known = words[0] in ("venv", "cd", "source", "ensurepip", "export") or words[:2] in (
        ["git", "clone"], ["pip", "install"])
    return None if known else "no command that the tests know"


def script_problem(name: str, arguments: list[str]) -> str | None:
    """Whether a script takes these arguments, by its own parser; files named need not exist."""
    path, said = REPOSITORY / name, io.StringIO()
    if not path.is_file():
        return f"there is no {name}"
    if not name.startswith("code/"):  # no exercise: by its --help
        known = set(re.findall(r"--?[a-z][\w-]*", help_of(path)))
        unknown = [word for word in arguments if word.startswith("-") and word.partition("=")[0] not in known]
        return f"unknown flags {unknown}" if unknown else None
    from utils import course_data

    own_prompts = mock.patch.object(course_data, "load_prompts_file", lambda path: {"a category": ["A prompt"]})
    try:
        with own_prompts, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            module = script(path)
            (getattr(module, "parse", None) or module.parse_arguments)(arguments)
    except SystemExit as ended:
        return said.getvalue().strip().split("\n")[-1] if ended.code else None
    except Exception as error:  # UserError, and whatever else a parser may raise
        return str(error)
    return None


@functools.cache
def script(path: Path):
    """A script of the repository as a module; its main is not run."""
    if getattr(sys.modules.get(path.stem), "__file__", None) == str(path):
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location("checked_" + path.stem, path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@functools.cache
def help_of(path: Path) -> str:
    """What a script prints for --help."""
    return subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, encoding="utf-8",
                          check=True).stdout


# Links


@functools.cache
def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to a text's headings.

    Markup is dropped, letters are made small, all but letters, digits, _, - and spaces is dropped,
    spaces become -, and a second heading of the same name gets -1.
    """
    anchors, seen = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)), Counter()
    for piece in pieces(text):
        if piece.kind == "heading":
            slug = re.sub(r"[^\w\- ]", "", LINK.sub(r"\2", piece.text).lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def link_problems(text: str, folder: Path) -> list[str]:
    """Links and pictures that lead nowhere, malformed addresses, pictures without a text.

    folder: where the text's file lies; links are relative to it.
    """
    prose = prose_of(text)
    found = [f"line {line}: write pictures as ![alternative text](file), not as <img>"
             for line, _ in matches("<img", prose)]
    found += [f"line {line}: write the link [{m[1]}] with its address in place"
              for line, m in matches(r"\]\[([^\]]*)\]", prose)]
    for line, link in matches(LINK, prose):
        for picture, words, target in [link.groups(), *LINK.findall(link[2])]:  # a link may hold a picture
            if picture and not words.strip():
                found.append(f"line {line}: the picture {target} has no alternative text")
            if problem := target_problem(target, text, folder):
                found.append(f"line {line}: the link {target!r} {problem}")
    return found


def target_problem(target: str, text: str, folder: Path) -> str | None:
    if re.match("[a-z]+:", target):
        if not re.match(r"(https?://[\w.-]+\.[a-z]+(:\d+)?(/\S*)?$|http://(127\.0\.0\.1|localhost)|mailto:)", target):
            return "is no complete address"
        if "arxiv.org" in target and not re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", target):
            return "is not of the form https://arxiv.org/abs/1810.04805"
        return None
    file, _, anchor = target.partition("#")
    path = (folder / file).resolve() if file else None
    if path and (not path.exists() or not path.is_relative_to(REPOSITORY)):
        return "leads to no file of the repository"
    if anchor and anchor not in slugs(path.read_text(encoding="utf-8") if path else text):
        return "leads to no heading"
    return None if target else "is empty"


# Exercises: their parts and pictures


@functools.cache
def source_of(exercise: str) -> str:
    """The code of an exercise, its views included; "?" for all code."""
    files = (REPOSITORY / "code").rglob("*.py" if exercise == "?" else f"ex_0{exercise}*.py")
    return "".join(file.read_text(encoding="utf-8") for file in files)


def part_problems(text: str) -> list[str]:
    """Parts that are named, as in "exercise 2, part 1" or "parts 1 and 3 of exercise 2", but not there."""
    prose = prose_of(text)
    named = matches(rf"exercise\s+(?P<exercise>\d)(?:'s|,|:|\s|\()*\s*{PARTS}", prose, re.IGNORECASE)
    named += matches(rf"{PARTS}\s+of\s+exercise\s+(?P<exercise>\d)", prose, re.IGNORECASE)
    return [f"line {line}: exercise {m['exercise']} has no part {part}" for line, m in named
            for part in re.findall(r"\d", m["parts"]) if f"Part {part}" not in source_of(m["exercise"])]


def picture_problems(text: str) -> list[str]:
    """Pictures that no exercise draws: images/ex_0N_NAME.png, or `NAME.png` in a code span."""
    prose, spans = prose_of(text), prose_of(text, code_spans=True)
    named = [(line, m[1], m[2]) for line, m in matches(r"images/ex_0(\d)_([\w.]+\.png)", prose)]
    named += [(line, "?", m[2]) for line, m in matches(CODE_SPAN, spans) if re.fullmatch(r"\w+\.png", m[2])]
    return [f"line {line}: exercise {exercise} draws no {name}" for line, exercise, name in named
            if f'"{name}"' not in source_of(exercise)]


# Structure


def structure_problems(text: str) -> list[str]:
    """Unknown languages, too wide code, headings that occur twice, folds that do not open and close."""
    found, headings = [], set()
    for piece in pieces(text):
        if piece.kind == "fence" and piece.language not in LANGUAGES:
            found.append(f"line {piece.line}: a fenced block of {piece.language!r}; known are {sorted(LANGUAGES)}")
        elif piece.kind == "fence" and piece.language == "python":
            found += [f"line {line}: {len(row)} columns of code do not fit the page (100 do)"
                      for line, row in enumerate(piece.text.split("\n"), piece.line + 1) if len(row) > 100]
        elif piece.kind == "heading" and piece.level in (2, 3):
            if piece.text.lower() in headings:
                found.append(f"line {piece.line}: a second heading {piece.text!r}")
            headings.add(piece.text.lower())
    prose = prose_of(text, code_spans=True)
    found += [f"line {line}: a table without its first row"
              for line, _ in matches(r"(?<=\n)(?<!\|\n)\|(?: ?:?-+:? ?\|)+(?=\n)", prose)]
    return found + fold_problems(prose_of(text)) + self_check_problems(prose)


def fold_problems(prose: str) -> list[str]:
    """<details> that are not closed before a heading, lack a summary, or hold Markdown that is not drawn."""
    found, begin = [], 0
    for line, match in matches(r"<details>|</details>|^#+ |\Z", prose, re.MULTILINE):
        if match[0] == "</details>":
            found += [] if begin else [f"line {line}: </details> without its beginning"]
            begin = 0
            continue
        if begin:
            found.append(f"line {begin}: this <details> is not closed before line {line}")
        begin = line if match[0] == "<details>" else 0
        # GitHub takes what follows for HTML until an empty line.
        if begin and not re.match(r"<details>\s*<summary>(?:(?!\n\n|<details>).)+</summary>[ \t]*\n[ \t]*\n",
                                  prose[match.start():], re.DOTALL):
            found.append(f"line {line}: <details> needs a <summary>...</summary> and then an empty line")
    return found


def self_checks(prose: str) -> list[tuple[int, list[str], str, str]]:
    """(line, letters of the options, the key's letter, the folded answer) of every self-check."""
    found = []
    for line, match in matches(r"^\*\*Self-check[^\n]*(?:(?!^\*\*Self-check|^#+ )[^\n]*\n)*", prose, re.MULTILINE):
        options, _, answer = match[0].partition("<details><summary>Answer</summary>")
        key = re.match(r"\s*\*\*\((\w)\)\*\*", answer)
        found.append((line, re.findall(r"^- \((\w)\) ", options, re.MULTILINE), key[1] if key else "", answer))
    return found


def self_check_problems(prose: str) -> list[str]:
    """Self-checks without options a, b, c, without their key, or with an option that the answer leaves out."""
    found = []
    for line, letters, key, answer in self_checks(prose):
        if letters != list("abcdef")[:len(letters)] or len(letters) < 3 or key not in letters:
            found.append(f"line {line}: a self-check needs options - (a), - (b), - (c) and a folded **(key)**")
        found += [f"line {line}: the answer says nothing of ({letter})" for letter in letters
                  if f"({letter})" not in answer]
    return found


def guide_problems(text: str) -> list[str]:
    """Chapters without their one-sentence point or their sources; files without any sources."""
    found = [] if "**Sources:**" in text else ["line 1: the file names no **Sources:**"]
    for line, match in matches(r"^## (\d+\. .*)\n((?:(?!## ).*\n?)*)", prose_of(text, code_spans=True), re.MULTILINE):
        if not re.fullmatch(r"\*[^*].*[.?!]\*", match[2].strip().split("\n\n")[0], re.DOTALL):
            found.append(f"line {line}: under {match[1]!r} the point is missing, one sentence in italics")
        if "**Sources:**" not in match[2]:
            found.append(f"line {line}: chapter {match[1]!r} names no **Sources:**")
    return found


def words_and_visuals(text: str) -> dict[str, tuple[int, int]]:
    """{chapter: (words of prose, pictures + tables + diagrams)}; tables, answers, sources are no prose."""
    counts, chapter = {}, ""
    text = re.sub(r"^\*\*Sources:\*\*.*?(?=\n\n|\Z)|<details>.*?</details>", "", text, flags=re.DOTALL | re.MULTILINE)
    table = False
    for piece in pieces(text):
        if piece.kind == "heading" and piece.level == 2:
            chapter = piece.text
        words, visuals = counts.get(chapter, (0, 0))
        row = piece.kind == "prose" and piece.text.lstrip().startswith("|")
        visuals += (row and not table) + (piece.kind == "fence" and piece.language == "mermaid")
        table = row
        if piece.kind == "prose" and not row:
            visuals += piece.text.count("](images/")
            words += len(LINK.sub(lambda m: "" if m[1] else m[2], piece.text).split())
        counts[chapter] = (words, visuals)
    return counts
