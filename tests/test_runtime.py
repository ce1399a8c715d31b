"""How scripts start and end: exit statuses, one line per mistake, quick answers."""

from __future__ import annotations

import errno

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


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        runtime.run(lambda: 1 / 0)


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

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runtime.precision("cpu") == expected
