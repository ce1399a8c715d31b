"""What people look at: headings and tables in the terminal, plots as PNG, results.json, the saved model."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

from utils.runtime import UserError, is_full_disk, is_main_process

MARKER = "run.json"  # says which exercise a folder belongs to, and with which settings


def console():
    """The rich console of this process; torchrun's second and later processes print nothing."""
    global _console
    if _console is None:
        from rich.console import Console

        wide = None if os.environ.get("COLUMNS") or Console().is_terminal else 110  # for output sent to a file
        _console = Console(highlight=False, quiet=not is_main_process(), width=wide, soft_wrap=False)
    return _console


_console = None


def printable(text: str) -> str:
    """Text without control characters other than newline and tab: what a model writes must not steer the terminal.

    The marks that reverse the direction of text go too: they can make it look like other text.
    """
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc"
                   and not ("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"))


def say(text: str = "", style: str | None = None) -> None:
    """Print one paragraph, taken literally: neither [brackets] nor :colons: mean anything."""
    console().print(printable(text), style=style, markup=False, emoji=False)


def heading(text: str, look_at: str = "") -> None:
    """Start a part of the lesson: its title, and in a line what to look at."""
    console().print()
    console().rule(text, align="left", style="cyan")
    if look_at:
        say(look_at, style="italic")


def table(title: str, columns: list[str], rows: list[list]) -> None:
    """Print a table; numbers are right-aligned, floats shown with three digits."""
    from rich.table import Table
    from rich.text import Text

    if title:
        say(title, style="bold")
    grid = Table()
    for i, name in enumerate(columns):
        numeric = rows and all(isinstance(row[i], (int, float)) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else
                       Text(f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell))) for cell in row))
    console().print(grid)


def banner(title: str, facts: dict[str, object]) -> None:
    """The frame at the start of a script: what is about to run, on what."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(str(value)))
    console().print(Panel(grid, title=title, title_align="left", border_style="cyan"))


def save_figure(figure, path: Path) -> Path:
    """Write a matplotlib figure as PNG, whole or not at all."""
    from utils.session import write_whole

    return write_whole(path, lambda p: figure.savefig(p, format="png", dpi=120, bbox_inches="tight"))


def shown(path: Path) -> str:
    """A path as people like to read it: relative to where they stand, if it lies below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class OutputFolder:
    """The folder that receives a run's results, plots and model; one run at a time, and only what is its own.

    Only the main process writes. Every file is written beside its place and then moved there, so that a crash or a
    full disk leaves the earlier one whole.
    """

    def __init__(self, path: Path, exercise: str, settings: dict, resume: bool = False) -> None:
        """Claim the folder. Raises UserError if it cannot be written, is in use, or holds something else's files.

        exercise: "ex_01" and so on. settings: what must be the same when a run is resumed. resume: whether this run
        goes on with an interrupted one.
        """
        self.path = Path(path).expanduser().resolve()
        self.checkpoints = self.path / "checkpoints"
        if not is_main_process():
            return
        try:
            if self.path.is_dir() and any(not p.name.startswith((".", "partial-")) for p in self.path.iterdir()):
                self._check_owner(exercise, settings if resume else None)
            elif resume:
                raise UserError(f"--resume: {self.path} holds no run to resume; leave out --resume to start one")
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            marker = json.dumps({"exercise": exercise, "settings": settings}, indent=1)
            self.write(MARKER, lambda p: p.write_text(marker, encoding="utf-8"))
        except OSError as error:
            if is_full_disk(error):
                raise
            raise UserError(f"--output {path}: cannot write there ({error.strerror}); choose another folder") from None

    def _check_owner(self, exercise: str, settings: dict | None) -> None:
        try:
            owner = json.loads((self.path / MARKER).read_text(encoding="utf-8"))
            belongs_to, before = owner["exercise"], owner["settings"]
        except FileNotFoundError:
            raise UserError(f"--output {self.path}: the folder holds files that this exercise did not write; "
                            "choose a new or empty one") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.path / MARKER}: damaged; choose another --output, or delete this folder") from None
        if belongs_to != exercise:
            raise UserError(f"--output {self.path}: the folder belongs to {belongs_to}; choose another one")
        for name, value in (settings or {}).items():
            if before.get(name) != value:
                raise UserError(f"--resume: the interrupted run had {name} {before.get(name)}, this command has {value}"
                                "; repeat that command with --resume, or leave out --resume to start afresh")

    def _lock(self) -> None:
        from filelock import FileLock, Timeout

        self._held = FileLock(self.path / ".lock")
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another run is writing to {self.path}: wait for it, or choose another --output") from None

    def release(self) -> None:
        """Let other runs use the folder (also done by the end of the process)."""
        if hasattr(self, "_held"):
            self._held.release()

    def write(self, name: str, writer: Callable[[Path], object]) -> Path:
        """Let `writer` write a file or a folder beside its place, then move it to `name`; return the final path."""
        final = self.path / name
        fresh = final.with_name(f"partial-{name}")
        _remove(fresh)
        try:
            writer(fresh)
            if final.is_dir():  # a folder cannot be replaced in one step
                old = final.with_name(f"old-{name}")
                _remove(old)
                final.rename(old)
                fresh.rename(final)
                _remove(old)
            else:
                fresh.replace(final)
        finally:
            _remove(fresh)
        return final

    def save_results(self, results: dict) -> Path:
        """Write results.json."""
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write("results.json", lambda p: p.write_text(text, encoding="utf-8"))

    def save_figure(self, name: str, figure) -> Path:
        """Write a matplotlib figure as PNG and close it."""
        return save_figure(figure, self.path / name)

    def save_model(self, model, tokenizer) -> Path:
        """Write model and tokenizer into model/, as from_pretrained wants them."""
        def writer(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        return self.write("model", writer)

    def check_room(self, megabytes: float) -> None:
        """Raise UserError before the work begins if the disk has no room for what will be saved."""
        free = shutil.disk_usage(self.path).free / 1e6
        if free < megabytes:
            raise UserError(f"--output {self.path}: checkpoints and model need about {megabytes:.0f} MB, and only "
                            f"{free:.0f} MB are free; free some space or choose another folder")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
