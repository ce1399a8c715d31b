"""What can be checked of guide and README without running them: commands, links, exercise parts, structure.

Each function takes a Markdown text and returns what is wrong with it, one line each, beginning with the line's number.
"""

from __future__ import annotations

import argparse
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
CODE_SPAN = re.compile(r"(`+)((?:(?!\n\n).)+?)\1", re.DOTALL)  # may go over a line's end, not over a paragraph's


def prose_of(text: str, code_spans: bool = False) -> str:
    """The text with its fenced blocks, comments and code spans blanked, so that offsets and lines stay the same."""
    lines = text.split("\n")
    for piece in pieces(text):
        if piece.kind == "fence":
            lines[piece.line - 1:piece.last] = [""] * (piece.last - piece.line + 1)
    patterns = [r"<!--.*?-->"] + ([] if code_spans else [CODE_SPAN.pattern])
    text = "\n".join(lines)
    for pattern in patterns:
        text = re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)
    return text


def matches(pattern: str | re.Pattern, prose: str, flags: int = 0) -> list[tuple[int, re.Match]]:
    """(line, match) for every place where a pattern occurs."""
    return [(prose.count("\n", 0, m.start()) + 1, m) for m in re.finditer(pattern, prose, flags)]


# Commands


def commands(text: str) -> list[tuple[int, str]]:
    """(line, command) of every shell command: in ```bash blocks, in code spans, and in `<!-- output of: ... -->`."""
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
                      if f'"{flag}"' not in exercises_source() and flag != "--help"]
    return found


@functools.cache
def exercises_source() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "code").rglob("*.py"))


def command_problem(command: str) -> str | None:
    """None for a command that works here, else what is wrong with it. Nothing of it is run."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value in front
        words = words[1:]
    if words[:1] == ["python"] and words[1:2] and words[1].endswith(".py"):
        return script_problem(words[1], words[2:])
    if words[:1] == ["torchrun"] or words[:2] == ["accelerate", "launch"]:
        script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        return "it names no script" if script is None else script_problem(words[script], words[script + 1:])
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    if words[:2] == ["pip", "install"]:
        files = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-r", "--requirement")]
        return next((f"there is no {file}" for file in files if not (REPOSITORY / file).is_file()), None)
    if words[:1] == ["pytest"]:
        return pytest_problem(words[1:])
    if words[:1] in (["venv"], ["cd"], ["source"], ["ensurepip"], ["export"]) or words[:2] == ["git", "clone"]:
        return None
    return "no command that the tests know"


def pytest_problem(arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for flag in ("-m", "-n", "-k", "--durations"):
        parser.add_argument(flag)
    for flag in ("-q", "-v", "-x", "-s"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("paths", nargs="*")
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        return str(error)
    missing = [path for path in options.paths if not (REPOSITORY / path.partition("::")[0]).exists()]
    if options.m and set(re.findall(r"\w+", options.m)) - {"real", "not", "and", "or"}:
        return f"there is no marker {options.m!r}"
    return f"unknown flags {unknown}" if unknown else f"there is no {missing[0]}" if missing else None


def script_problem(name: str, arguments: list[str]) -> str | None:
    """Whether a script of the repository takes these arguments, by its own parser; files named need not exist."""
    if not (REPOSITORY / name).is_file():
        return f"there is no {name}"
    module = script(name)
    if not hasattr(module, "parse_arguments"):
        known = set(re.findall(r"--?[a-z][\w-]*", help_of(name)))
        unknown = [word for word in arguments if word.startswith("-") and word.partition("=")[0] not in known]
        return f"unknown flags {unknown}" if unknown else None
    from utils import course_data

    own_prompts = mock.patch.object(course_data, "load_prompts_file", lambda path: {"a category": ["A prompt"]})
    said = io.StringIO()
    try:
        with own_prompts, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            module.parse_arguments(arguments)
    except SystemExit as ended:
        return said.getvalue().strip().split("\n")[-1] if ended.code else None
    except Exception as error:  # UserError, and whatever else a parser may raise
        return str(error)
    return None


@functools.cache
def script(name: str):
    """A script of the repository as a module; its main is not run."""
    path = REPOSITORY / name
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) == str(path):
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location("checked_" + path.stem, path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@functools.cache
def help_of(name: str) -> str:
    """What a script that keeps its parser inside main prints for --help."""
    return subprocess.run([sys.executable, name, "--help"], cwd=REPOSITORY, capture_output=True, text=True,
                          encoding="utf-8", check=True).stdout


# Links


@functools.cache
def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to a text's headings.

    Markup is dropped, letters are made small, all but letters, digits, _, - and spaces is dropped, spaces become -, and
    a second heading of the same name gets -1.
    """
    anchors, seen = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)), Counter()
    for piece in pieces(text):
        if piece.kind == "heading":
            slug = re.sub(r"[^\w\- ]", "", LINK.sub(r"\2", piece.text).lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def link_problems(text: str, folder: Path) -> list[str]:
    """Links and pictures whose file or heading does not exist, malformed addresses, pictures without a text.

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
    return None if file or anchor else "is empty"


# Exercise parts


def part_problems(text: str) -> list[str]:
    """Parts of exercises that are named, as in "exercise 2, part 1" or "parts 1 and 3 of exercise 2", but not there."""
    prose = prose_of(text)
    several = r"parts?\s+(?P<parts>\d(?:(?:,\s*|\s+and\s+|,\s*and\s+|\s+to\s+|-)\d)*)"
    named = matches(rf"exercise\s+(?P<exercise>\d)(?:'s|,|:|\s|\()*\s*{several}", prose, re.IGNORECASE)
    named += matches(rf"{several}\s+of\s+exercise\s+(?P<exercise>\d)", prose, re.IGNORECASE)
    return [f"line {line}: exercise {m['exercise']} has no part {part}" for line, m in named
            for part in re.findall(r"\d", m["parts"]) if part not in parts_of(m["exercise"])]


@functools.cache
def parts_of(exercise: str) -> set[str]:
    """The numbers of the `Part N` headings in an exercise's script."""
    return {number for file in (REPOSITORY / "code").glob(f"ex_0{exercise}_*.py") for number in re.findall(
        r"(?:^# |heading\(\s*f?\")Part (\d)\b", file.read_text(encoding="utf-8"), re.MULTILINE)}


# Pictures


def picture_problems(text: str) -> list[str]:
    """Pictures of exercises that no exercise draws: images/ex_0N_NAME.png, or `NAME.png` in a code span."""
    prose, spans = prose_of(text), prose_of(text, code_spans=True)
    named = [(line, m[1], m[2]) for line, m in matches(r"images/ex_0(\d)_([\w.]+\.png)", prose)]
    named += [(line, "?", m[2]) for line, m in matches(CODE_SPAN, spans) if re.fullmatch(r"\w+\.png", m[2])]
    return [f"line {line}: exercise {exercise} draws no {name}" for line, exercise, name in named
            if not any(re.fullmatch(pattern, name) for pattern in pictures_of(exercise))]


@functools.cache
def pictures_of(exercise: str) -> list[str]:
    """Patterns of the file names of the pictures that an exercise saves; "?" for all exercises."""
    names = [name for file in (REPOSITORY / "code").glob(f"ex_0{exercise}_*.py") for name in re.findall(
        r"save_figure\(\s*f?\"([^\"]+)\"", file.read_text(encoding="utf-8"))]
    return [re.sub(r"\\{.*?\\}", r"\\w+", re.escape(name)) for name in names]


# Structure


def structure_problems(text: str) -> list[str]:
    """Unknown languages of fences, too wide code, headings that occur twice, folds that do not open and close."""
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
    return found + fold_problems(prose_of(text))


def fold_problems(prose: str) -> list[str]:
    """<details> that are not closed before the next heading, lack a summary, or hold Markdown that is not drawn."""
    found, begin = [], 0
    for line, match in matches(r"<details>|</details>|^#+ ", prose, re.MULTILINE):
        if match[0] == "</details>":
            if not begin:
                found.append(f"line {line}: </details> without its beginning")
            begin = 0
            continue
        if begin:
            found.append(f"line {begin}: this <details> is not closed before line {line}")
        begin = line if match[0] == "<details>" else 0
        # GitHub takes what follows for HTML until an empty line.
        if begin and not re.match(r"<details>\s*<summary>(?:(?!\n\n|<details>).)+</summary>[ \t]*\n[ \t]*\n",
                                  prose[match.start():], re.DOTALL):
            found.append(f"line {line}: <details> needs a <summary>...</summary> and then an empty line")
    return found + ([f"line {begin}: this <details> is never closed"] if begin else [])


def guide_problems(text: str) -> list[str]:
    """Numbered sections without their one-sentence point, or without sources (the glossary and the lists may be)."""
    found = []
    for line, match in matches(r"^## (\d+\. .*)\n((?:(?!## ).*\n?)*)", prose_of(text, code_spans=True), re.MULTILINE):
        point = match[2].strip().split("\n\n")[0]
        if not re.fullmatch(r"\*[^*].*[.?!]\*", point, re.DOTALL):
            found.append(f"line {line}: under {match[1]!r} the point is missing, one sentence in italics")
        if "**Sources:**" not in match[2] and not re.search("Glossary|Reading list", match[1]):
            found.append(f"line {line}: section {match[1]!r} names no **Sources:**")
    return found
