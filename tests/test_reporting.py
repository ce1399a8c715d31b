"""What is printed is printed as it is; what is drawn leaves other drawings alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from utils import reporting
from utils.runtime import REPOSITORY


@pytest.mark.parametrize("text", ["a[:x:]", "12:a:3", "[bold]x[/bold]", "[/]"])
def test_text_is_taken_literally(text, capsys):
    reporting.say(text)
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("backend", ["", "TkAgg", "of another environment",
                                     "module://matplotlib_inline.backend_inline"])
def test_drawing_needs_no_backend_and_chooses_none(backend, tmp_path):
    """A notebook's kernel sets MPLBACKEND for all that it starts, whatever is installed there."""
    code = """
import sys
from pathlib import Path
from utils import plots, reporting
figure, _ = plots.figure()
reporting.save_figure(plots.figure()[0], Path(sys.argv[1]))
import matplotlib
if sys.argv[2] == "TkAgg":
    assert matplotlib.rcParams["backend"].lower() == "tkagg", "the notebook's own plots would not come"
assert "matplotlib.pyplot" not in sys.modules"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "code"), "MPLBACKEND": backend}
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png"), backend], env=environment,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
