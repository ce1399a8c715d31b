"""How scripts start and end: exit statuses, one line per mistake, quick answers."""

from __future__ import annotations

import ast
import errno
import importlib
import re
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from utils import runtime
from utils.runtime import UserError


def ending(action, capsys):
    with pytest.raises(SystemExit) as end:
        runtime.run(action)
    return end.value.code, capsys.readouterr().err


def raising(error):
    def action():
        raise error
    return action


@pytest.mark.parametrize("error, status, says", [
    (UserError("the file is empty; fill it"), 2, "error: the file is empty; fill it\n"),
    (KeyboardInterrupt(), 130, "Stopped."),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "disk is full"),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 2, "disk is full"),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), 2, "disk is full"),
])
def test_exit_status_and_one_line(error, status, says, capsys):
    code, text = ending(raising(error), capsys)
    assert code == status and says in text


def test_a_bug_keeps_its_traceback_and_says_what_is_kept(capsys):
    error = ValueError("a bug")
    error.last_words = "Complete and kept: part 1."
    status, text = ending(raising(error), capsys)
    assert status == 1 and "Traceback" in text and text.splitlines()[-1] == "Complete and kept: part 1."


@pytest.mark.parametrize("error, says", [
    (ModuleNotFoundError("No module named 'transformers'", name="transformers"), "No module named 'transformers'"),
    (ImportError("cannot import name 'New' from 'torch'", name="torch"), "cannot import name 'New'")])
def test_a_missing_package_is_one_line_that_names_this_python(error, says, capsys):
    status, text = ending(raising(error), capsys)
    assert status == 2 and says in text and sys.executable in text and len(text.splitlines()) == 1


def test_a_broken_import_of_our_own_is_a_bug(capsys):
    assert ending(raising(ModuleNotFoundError("No module named 'utils.no'", name="utils.no")), capsys)[0] == 1


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--preset", "huge"], ["--no-such-flag"]])
def test_bad_arguments_are_user_errors(arguments):
    with pytest.raises(UserError):
        runtime.shared_parser("d", "ex_01").parse_args(arguments)


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = runtime.shared_parser("d", "ex_01").parse_args(["--device", "cuda"])
    with pytest.raises(UserError, match="--device cuda"):
        runtime.start(args)


@pytest.mark.parametrize("capabilities, expected", [
    ({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")])
def test_bf16_only_where_the_processor_has_it(monkeypatch, capabilities, expected):
    import torch

    monkeypatch.delenv("TRANSFORMERS_COURSE_PRECISION")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runtime.precision("cpu") == expected


@pytest.mark.parametrize("has_bf16, expected", [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_only_emulates_bf16_trains_in_fp32(monkeypatch, has_bf16, expected):
    """A T4, for one."""
    import torch

    monkeypatch.delenv("TRANSFORMERS_COURSE_PRECISION")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported",
                        lambda including_emulation=True: has_bf16 or including_emulation)
    assert runtime.precision("cuda") == expected


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_the_environment_decides_the_precision(monkeypatch, chosen):
    monkeypatch.setenv("TRANSFORMERS_COURSE_PRECISION", chosen)
    assert runtime.precision("cpu") == chosen


def test_an_unknown_precision_is_one_line(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_COURSE_PRECISION", "fp8")
    with pytest.raises(UserError, match="fp32 or bf16"):
        runtime.precision("cpu")


@pytest.mark.parametrize("rank, main", [("", True), ("0", True), ("1", False)])
def test_rank_may_be_empty(monkeypatch, rank, main):
    monkeypatch.setenv("RANK", rank)
    assert runtime.is_main_process() is main


def test_settings_are_the_flags_and_the_presets_rest():
    parser = runtime.shared_parser("d", "ex_01")
    parser.add_argument("--max-length", type=runtime.positive_int)
    presets = {"quick": {"max_length": 128, "epochs": 1}, "smoke": {"max_length": 64, "epochs": 2}}
    settings = runtime.complete(parser, presets, ["--preset", "smoke", "--max-length", "9", "--output", "~/x"])
    assert (settings.max_length, settings.epochs) == (9, 2)
    assert settings.output == Path.home() / "x"


# Modules of several scripts name flags that not each of them has, where they speak to the others; and other commands'.
NOT_SAID = {
    ("ex_03", "movie_reviews"): {"--data", "--text-column", "--label-column"},  # its reviews are no choice
    ("ex_04", "terminal"): {"--force"},  # of the chat's /save
    **{(f"ex_0{i}", "packaged"): {"--hash", "--quiet", "--no-deps", "--require-hashes", "--retries", "--no-binary",
                                  "--requirement", "--dest"} for i in range(1, 5)},  # pip's
}


def modules_of(path, seen=()):
    """The files of the course that a file imports, anywhere in it, and those that these import."""
    if path in seen or not path.is_file():
        return [*seen]
    seen = [*seen, path]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = runtime.REPOSITORY.joinpath("code", *node.module.split("."))
            for file in (module.with_suffix(".py"), *(module / f"{name.name}.py" for name in node.names)):
                seen = modules_of(file, seen)
    return seen


def flags_in_texts(path):
    """The flags in all strings of a file but its docstrings."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and node not in docstrings]
    return {flag for text in texts for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}


@pytest.mark.parametrize("script", sorted((runtime.REPOSITORY / "code").glob("ex_0*.py")), ids=lambda path: path.stem)
def test_no_advice_names_a_flag_that_the_script_does_not_have(script, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(script.stem).parse(["--help"])
    flags = {*re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)}
    modules = modules_of(script)
    assert {"session", "checkpoints", script.stem} < {path.stem for path in modules}
    for path in modules:
        elsewhere = NOT_SAID.get((script.stem[:5], path.stem), set())
        assert flags_in_texts(path) - flags == elsewhere - flags, f"{path.name}: {script.name} has no such flag"
