"""A checkpoint cut by a kill is never resumed from."""

from __future__ import annotations

import pytest

from utils import training
from utils.runtime import UserError


def checkpoint(folder, step, state):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").touch()
    if state is not None:
        (path / "trainer_state.json").write_text(state, encoding="utf-8")
    return path


def test_the_newest_whole_checkpoint_is_chosen(tmp_path):
    checkpoint(tmp_path, 9, '{"global_step": 9}')
    whole = checkpoint(tmp_path, 10, '{"global_step": 10}')
    checkpoint(tmp_path, 11, '{"global_st')  # killed while the state was written
    checkpoint(tmp_path, 12, None)  # killed before
    assert training.checkpoint_to_resume(tmp_path) == whole


def test_no_whole_checkpoint_is_one_line(tmp_path):
    checkpoint(tmp_path / "checkpoints", 5, None)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        training.checkpoint_to_resume(tmp_path / "checkpoints")
