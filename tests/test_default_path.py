"""What most people get: the default models and data, from a Hub with the real one's files.

First from an empty cache, then again with the server gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import hub_repositories
from fake_hub import serve
from utils import checkpoints, movie_reviews
from utils.runtime import REPOSITORY

# What from_pretrained may find in a repository's weights and not need, or need and not find.
NOT_NEEDED = {
    "encoder": {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.weight",
                "cls.seq_relationship.bias"},
    "decoder": set(), "chat": set(), "embedder": set(),
}
LOAD_ALL = """
import json, sys
from utils.runtime import run
from utils import checkpoints, movie_reviews

def main():
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    heads = {"encoder": AutoModelForMaskedLM, "embedder": AutoModel}
    found = {}
    for role in checkpoints.DEFAULTS:
        checkpoint = checkpoints.fetch(role)
        model, info = checkpoints.load(heads.get(role, AutoModelForCausalLM), checkpoint,
                                       output_loading_info=True)
        tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
        found[role] = {
            "source": checkpoint.source, "missing": sorted(info["missing_keys"]),
            "unexpected": sorted(info["unexpected_keys"]), "dtype": str(model.dtype),
            "padding": tokenizer.pad_token, "longest": tokenizer.model_max_length,
            "words": tokenizer.decode(tokenizer("a great film").input_ids),
            "template": bool(tokenizer.chat_template)}
    for name in (None, "rotten_tomatoes", "imdb"):
        reviews = movie_reviews.load_reviews(name, 1, {})
        found[str(name)] = {
            "source": reviews.source, "labels": sorted(set(reviews.splits["test"]["label"])),
            "rows": {split: len(rows) for split, rows in reviews.splits.items()}}
    print(json.dumps(found))

run(main)
"""


def python(code, home, endpoint, *arguments):
    """Run Python code in a fresh process whose Hub is `endpoint` and whose caches are in `home`."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("HF_", "TRANSFORMERS_OFF")) and "PROXY" not in key.upper()}
    env |= {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint, "PIP_NO_INDEX": "1",
            "TRANSFORMERS_COURSE_CACHE": str(home / "course"),
            "PYTHONPATH": str(REPOSITORY / "code"),
            "OMP_NUM_THREADS": "1"}  # models as small as these are slower on two
    result = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True,
                            text=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    return hub_repositories.write_all(tmp_path_factory.mktemp("repositories"))


@pytest.mark.slow
def test_all_default_models_and_data_load_from_empty_and_with_the_hub_gone(tmp_path, repositories):
    with serve(repositories) as fake:
        first = python(LOAD_ALL, tmp_path, fake.url)
    second = python(LOAD_ALL, tmp_path, fake.url)

    assert json.loads(first.stdout) == json.loads(second.stdout)
    fetched = [line for line in first.stderr.splitlines() if "MB, once" in line]
    assert len(fetched) == len(repositories), first.stderr
    assert "once" not in second.stderr

    found = json.loads(first.stdout)
    for role in checkpoints.DEFAULTS:
        assert found[role]["source"] == "hub"
        assert not found[role]["missing"], f"{role}: weights made up for {found[role]['missing']}"
        assert set(found[role]["unexpected"]) == NOT_NEEDED[role]
        assert "great film" in found[role]["words"]
    assert found["chat"]["dtype"] == "torch.bfloat16" and found["chat"]["template"]
    assert found["decoder"]["padding"] is None and found["decoder"]["longest"] == 1024
    assert found["encoder"]["longest"] == 512
    assert found["None"] == found["rotten_tomatoes"]
    assert found["rotten_tomatoes"]["rows"] == {"train": 600, "validation": 120, "test": 120}
    assert found["imdb"]["rows"]["test"] == 420 and found["imdb"]["labels"] == [0, 1]

    served = {path for path in fake.requests if "/resolve/" in path}
    assert not any(path.endswith((".bin", ".h5", ".ot", ".onnx", ".tflite", ".msgpack", ".py"))
                   for path in served), "files were fetched that nothing needs"
    for name in movie_reviews.HUB_REVIEWS.values():
        assert any(f"/datasets/{name}/" in path for path in served)


EXERCISE = """
import importlib, sys
from utils import runtime

script = importlib.import_module(sys.argv[1])
smoke, quick = script.PRESETS["smoke"], script.PRESETS["quick"]
script.PRESETS["quick"] = {name: smoke.get(name, value) for name, value in quick.items()}
runtime.run(lambda: script.main(sys.argv[2:]))
"""
RUNS = {
    "exercise 1": ("ex_01_bert_classification", "google-bert/bert-base-uncased", []),
    "exercise 1 on IMDb": ("ex_01_bert_classification", "google-bert/bert-base-uncased",
                           ["--data", "imdb"]),
    "exercise 2": ("ex_02_gpt2_generation", "openai-community/gpt2", []),
    "exercise 3": ("ex_03_gpt2_finetuning", "openai-community/gpt2", []),
}


def written(folder):
    """What the one results.json in a folder holds."""
    file, = folder.rglob("results.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("case", RUNS)
def test_an_exercise_runs_from_an_empty_cache_and_with_the_hub_gone(tmp_path, repositories, case):
    script, model, flags = RUNS[case]
    flags = [script, *flags, "--output", str(tmp_path / "out")]
    with serve(repositories) as fake:
        first, results = python(EXERCISE, tmp_path, fake.url, *flags), [written(tmp_path / "out")]
    second = python(EXERCISE, tmp_path, fake.url, *flags)
    results.append(written(tmp_path / "out"))

    assert "MB, once" in first.stderr and "MB, once" not in second.stderr
    for result in results:
        assert result["finished"] and result["run"]["model"] == model
        assert result["run"]["source"] == "hub"
    assert results[0]["parts"].keys() == results[1]["parts"].keys()


@pytest.mark.slow
def test_the_tutor_answers_from_an_empty_cache_and_with_the_hub_gone(tmp_path, repositories):
    flags = ["ex_04_ai_assistant", "--tutor", "--max-new-tokens", "8", "--ask", "What is BERT?",
             "--output", str(tmp_path / "out")]
    with serve(repositories) as fake:
        first = python(EXERCISE, tmp_path, fake.url, *flags)
    second = python(EXERCISE, tmp_path, fake.url, *flags)
    for name in (checkpoints.DEFAULTS["chat"], checkpoints.DEFAULTS["embedder"]):
        assert f"Fetching {name} from the Hub" in first.stderr
    assert "MB, once" not in second.stderr
    assert first.stdout == second.stdout, "the answer depends on the Hub, or on chance"
