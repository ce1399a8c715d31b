"""What people look at: headings, tables and the banner in the terminal, plots as PNG."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from utils.runtime import is_main_process

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """The rich console of this process; torchrun's second and later processes print nothing."""
    global _console
    if _console is None:
        from rich.console import Console

        # 110 for output sent to a file.
        wide = None if os.environ.get("COLUMNS") or Console().is_terminal else 110
        _console = Console(highlight=False, quiet=not is_main_process(), width=wide,
                           soft_wrap=False)
    return _console


_console: Console | None = None


def printable(text: str) -> str:
    """Text without control characters other than newline and tab.

    What a model writes must not steer the terminal. The marks that reverse the direction of text
    go too: they can make it look like other text.
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
                       Text(f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell)))
                       for cell in row))
    console().print(grid)


def banner(title: str, facts: dict) -> None:
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

    return write_whole(
        path, lambda p: figure.savefig(p, format="png", dpi=120, bbox_inches="tight"))


def shown(path: Path) -> str:
    """A path as people like to read it: relative to where they stand, if it lies below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
