"""What is printed is printed as it is."""

from __future__ import annotations

import pytest

from utils import reporting


@pytest.mark.parametrize("text", ["a[:x:]", "12:a:3", "[bold]x[/bold]", "[/]"])
def test_text_is_taken_literally(text, capsys):
    reporting.say(text)
    assert capsys.readouterr().out == text + "\n"
