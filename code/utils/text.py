"""Text as people bring it: read from a file, in one line, the same as another."""

from __future__ import annotations

import re
from pathlib import Path

from utils.runtime import UserError, well_formed


def read_utf8(path: Path, option: str) -> str:
    """The text of a utf-8 file. Raises UserError with file and line if it is something else."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # some Windows editors put a mark in front
        if "\0" not in text:
            return text
        wrong, fault = content.index(b"\0"), "holds a zero byte, so it is no text; name a text file"
    except UnicodeDecodeError as error:
        wrong, fault = error.start, "not utf-8 text; save the file again with encoding utf-8"
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror})") from None
    if content.startswith((b"%PDF", b"PK", b"\xd0\xcf\x11\xe0")):  # Office's, too
        raise UserError(f"{path.name}: a {path.suffix or 'packed'} document, not plain text; save "
                        "or export it as text with encoding utf-8")
    line = content.count(b"\n", 0, wrong) + 1
    raise UserError(f"{path.name}, line {line}: {fault}")


def clean(text: str) -> str:
    """The text in one line: encodable, without <br />, with single spaces between words."""
    return " ".join(re.sub(r"<br\s*/?>", " ", well_formed(text), flags=re.IGNORECASE).split())


def same(text: str) -> str:
    """Texts for which this is equal count as the same: neither case nor white space matters."""
    return clean(text).casefold()
