"""What both fine-tuning exercises share: the batch is as asked for, no cut checkpoint is used."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

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


def test_without_a_whole_checkpoint_the_training_starts_afresh(tmp_path):
    checkpoint(tmp_path, 5, None)
    assert training.checkpoint_to_resume(tmp_path) is None
    assert training.checkpoint_to_resume(tmp_path / "none") is None


def test_eight_gpus_in_one_process_do_not_change_the_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_COURSE_PRECISION", "fp32")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert TrainingArguments(output_dir=str(tmp_path)).train_batch_size == 64, "nothing simulated"
    session = SimpleNamespace(checkpoints=tmp_path, device="cuda", settings=SimpleNamespace(seed=1))
    arguments = training.training_arguments(session, batch_size=16, every=5)
    assert arguments.train_batch_size == 16 and arguments.n_gpu == 1


def test_processes_share_the_batch_evenly_or_not_at_all(monkeypatch):
    assert training.batch_per_process(16) == 16
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert training.batch_per_process(16) == 8
    for uneven in (1, 15):
        with pytest.raises(UserError, match="2 processes"):
            training.batch_per_process(uneven)


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss", "eval_perplexity"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_none_any_more_ends_the_training(name, number):
    progress = training.Progress()
    arguments, state = SimpleNamespace(learning_rate=0.5), SimpleNamespace(max_steps=9, global_step=7)
    progress.on_train_begin(arguments, state, None)
    progress.on_log(arguments, state, None, {name: 3.0, "epoch": 1, "total_flos": 10**30})
    with pytest.raises(UserError, match=f"diverged: its {name} is {number} at step 7; .* below 0.5"):
        progress.on_log(arguments, state, None, {"learning_rate": 0.5, name: number})


@pytest.mark.parametrize("positions, padding, limit, length", [
    (512, None, 10**30, 512), (514, 1, 10**30, 512), (512, None, 256, 256),
    (None, None, 1024, 1024)])
def test_the_longest_input_counts_the_positions_that_can_be_used(positions, padding, limit, length):
    model = torch.nn.Module()
    model.position_embeddings = torch.nn.Embedding(600, 2, padding_idx=padding)
    model.config = SimpleNamespace(max_position_embeddings=positions)
    tokenizer = SimpleNamespace(model_max_length=limit)
    assert training.longest_input(model, tokenizer) == length
    training.check_length(model, tokenizer, length, "--max-length")
    with pytest.raises(UserError, match=f"--max-length {length + 1}.* 3 to {length} tokens"):
        training.check_length(model, tokenizer, length + 1, "--max-length")
