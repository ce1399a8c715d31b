"""Exercise 1: behaviour that must hold for any weights, on a tiny random BERT and template reviews."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import ex_01_bert_classification as ex
from utils import checkpoints, reporting, runtime
from utils.runtime import REPOSITORY, UserError

SCRIPT = REPOSITORY / "code" / "ex_01_bert_classification.py"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run: (results, output folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return ex.main(["--preset", "smoke", "--output", str(folder)]), folder


@pytest.fixture(scope="module")
def tiny_model():
    """A tiny encoder with a classification head, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = checkpoints.find("encoder", "tiny")
    torch.manual_seed(0)
    model = checkpoints.load(AutoModelForSequenceClassification, found, num_labels=2)
    return model.eval(), checkpoints.load(AutoTokenizer, found)


# The functions that a student should understand


def test_encode_cuts_but_does_not_pad(tiny_model):
    _, tokenizer = tiny_model
    encoded = ex.encode(tokenizer, ["the film was great", "the " * 50], 10)
    short, long = encoded["input_ids"]
    assert len(short) == 6 and len(long) == 10, "texts must be cut at max_length and not padded"
    assert short[0] == long[0] == tokenizer.cls_token_id and short[-1] == long[-1] == tokenizer.sep_token_id


def test_padding_with_a_mask_changes_no_prediction(tiny_model):
    model, tokenizer = tiny_model
    texts = ["the film was great", "what a dull evening , with acting that felt weak , weak and flat", "superb"]
    together = ex.predict_probabilities(model, tokenizer, texts, 64)
    alone = np.concatenate([ex.predict_probabilities(model, tokenizer, [text], 64) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5, err_msg="neighbours in a batch changed a result")
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-6)
    backwards = ex.predict_probabilities(model, tokenizer, texts[::-1], 64)[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-5)


def test_training_order_groups_lengths_and_visits_everything_each_epoch():
    lengths = [int(n) for n in np.random.default_rng(0).integers(5, 60, 320)]
    order = ex.training_order(lengths, 16, 2, seed=3)
    assert sorted(order[:320]) == sorted(order[320:]) == list(range(320))
    assert order[:320] != order[320:], "both epochs have the same order"
    assert order == ex.training_order(lengths, 16, 2, seed=3) != ex.training_order(lengths, 16, 2, seed=4)

    def padded(indices):
        return sum(16 * max(lengths[i] for i in indices[b:b + 16]) for b in range(0, 320, 16))
    assert padded(order[:320]) < 0.75 * padded(range(320)), "batches of similar length should need far less padding"


def test_one_batch_can_be_overfitted(tiny_model):
    model, tokenizer = copy.deepcopy(tiny_model[0]).train(), tiny_model[1]
    texts, labels = ["great film", "dull film", "superb cast", "weak cast"], torch.tensor([1, 0, 1, 0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = model(**tokenizer(texts, padding=True, return_tensors="pt"), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1, f"four sentences could not be learned by heart (loss {loss.item():.2f})"
    assert ex.predict_probabilities(model, tokenizer, texts, 64).argmax(1).tolist() == labels.tolist()


def test_score_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    predicted, true = np.random.default_rng(0).integers(0, 2, (2, 50))
    expected = {"accuracy": accuracy_score(true, predicted), "f1": f1_score(true, predicted)}
    assert ex.score(predicted, true) == pytest.approx(expected)


def test_calibration_error_of_known_cases():
    always_sure = np.full(100, 0.95)
    assert ex.calibration_error(always_sure, np.arange(100) < 95) == pytest.approx(0, abs=1e-9)
    assert ex.calibration_error(always_sure, np.arange(100) < 45) == pytest.approx(0.5)
    assert ex.calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0, "confidence 1 must have a bin"


def test_word_influence_finds_the_word_that_matters():
    def predict(texts):
        positive = np.array([0.9 if "great" in text else 0.4 for text in texts])
        return np.stack([1 - positive, positive], axis=1)

    influence = dict(ex.word_influence("a great film", predict))
    assert influence == pytest.approx({"a": 0, "great": 0.5, "film": 0})


def test_word_vectors_are_the_mean_of_the_word_s_pieces(tiny_model):
    model, tokenizer = tiny_model
    encoder = model.base_model
    vectors = ex.word_vectors(encoder, tokenizer, "The soporific film", "soporific")
    with torch.no_grad():
        batch = tokenizer("The soporific film", return_tensors="pt")
        states = encoder(**batch, output_hidden_states=True).hidden_states
    assert vectors.shape == (3, 64), "one vector for the embeddings and one per layer"
    pieces = len(tokenizer.tokenize("soporific"))
    assert pieces > 1
    torch.testing.assert_close(vectors[-1], states[-1][0, 2:2 + pieces].mean(0))
    other = ex.word_vectors(encoder, tokenizer, "A film so soporific", "soporific")
    assert not torch.allclose(vectors[-1], other[-1]), "a contextual vector must depend on its sentence"


def test_sense_similarity_ignores_each_sentence_s_similarity_to_itself():
    vectors = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert ex.sense_similarity(vectors, ["a", "a", "b", "b"]) == pytest.approx((1, 0))
    assert ex.sense_similarity(vectors, ["a", "b", "a", "b"]) == pytest.approx((0, 0.5))


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    results, folder = smoke
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert saved.keys() == results.keys()
    for key in ("model", "source", "accuracy", "f1", "train_examples", "train_seconds", "peak_memory_mb", "seed"):
        assert saved[key] is not None, key
    assert set(saved["baselines"]) == {"majority", "tfidf_logistic_regression"}
    low, high = saved["accuracy_95_interval"]
    assert low <= saved["accuracy"] <= high and high - low > 0.01
    assert {p.name for p in folder.glob("*.png")} == {
        "learning_curves.png", "confusion_matrix.png", "calibration.png", "word_similarity.png", "word_map.png",
        "attention.png"}
    assert not (folder / "checkpoints").exists(), "checkpoints of a finished run take room for nothing"


def test_the_tiny_model_learns_what_can_be_learned(smoke):
    assert smoke[0]["accuracy"] > 0.9 > smoke[0]["baselines"]["majority"]


def test_predict_uses_the_saved_model(smoke, capsys):
    answers = ex.main(["--predict", "The film was superb and moving.", "--predict", "The plot was dull and flat.",
                       "--output", str(smoke[1])])["predictions"]
    assert [a["label"] for a in answers] == ["positive", "negative"], answers
    assert all(0.5 <= a["probability"] <= 1 for a in answers)


def test_killed_and_resumed_is_the_same_as_never_killed(smoke, tmp_path):
    results, folder = smoke
    output = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(SCRIPT), "--preset", "smoke", "--output", str(output)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.time() + 60
    while not list(output.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.time() < deadline, "the run made no checkpoint"
        time.sleep(0.01)
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    resumed = ex.main(["--preset", "smoke", "--output", str(output), "--resume"])
    assert resumed["resumed_from_step"] > 0
    weights = [(place / "model" / "model.safetensors").read_bytes() for place in (folder, output)]
    assert weights[0] == weights[1], "the resumed run ended with other weights than the uninterrupted one"
    curves = [[row["eval_loss"] for row in run["history"] if "eval_loss" in row] for run in (results, resumed)]
    assert resumed["accuracy"] == results["accuracy"] and curves[0] == curves[1]


def smoke_with(*arguments):
    return lambda: ex.main(["--preset", "smoke", *map(str, arguments)])


def test_bad_input_is_one_clear_line(smoke, tmp_path):
    _, finished = smoke
    decoder = checkpoints.find("decoder", "tiny").folder
    for arguments, says in [
        (["--batch-size", "0"], "at least 1"),
        (["--max-length", "5000"], "takes 3 to 128 tokens"),
        (["--max-length", "2"], "takes 3 to 128 tokens"),
        (["--model", tmp_path / "none"], "no such folder"),
        (["--model", decoder], "needs an encoder"),
        (["--data", tmp_path / "none.csv"], "cannot be read"),
        (["--output", tmp_path / "new", "--resume"], "no run to resume"),
        (["--output", finished, "--resume"], "no checkpoint to resume"),
        (["--predict", "nice", "--output", tmp_path / "new"], "no trained model"),
        (["--predict", " ", "--output", finished], "empty"),
    ]:
        with pytest.raises(UserError) as error:
            smoke_with(*arguments)()
        assert says in str(error.value) and "\n" not in str(error.value), f"{arguments}: {error.value}"


def test_a_run_into_a_folder_in_use_is_refused(tmp_path):
    first = reporting.OutputFolder(tmp_path / "out", "ex_01", {})
    with pytest.raises(UserError, match="another run is writing"):
        smoke_with("--output", tmp_path / "out")()
    first.release()


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set there")
def test_a_full_disk_is_one_line_and_loses_nothing(smoke, tmp_path, capsys):
    import resource
    import shutil

    folder = tmp_path / "out"
    shutil.copytree(smoke[1], folder)
    before = (folder / "results.json").read_bytes(), (folder / "model" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as end:
            runtime.run(smoke_with("--output", folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = capsys.readouterr().err
    assert end.value.code == 2 and "disk is full" in errors and "Traceback" not in errors, errors
    assert before == ((folder / "results.json").read_bytes(), (folder / "model" / "model.safetensors").read_bytes())


def test_help_does_not_load_torch():
    code = "import sys, ex_01_bert_classification as ex\ntry: ex.main(['--help'])\nexcept SystemExit: pass\n" \
           "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
                            capture_output=True)
    assert result.returncode == 0, "--help must answer before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_beat_the_majority_clearly(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "quick", {**ex.PRESETS["quick"], "train": 1200, "validation": 200, "test": 400})
    results = ex.main(["--model", "packaged", "--data", "packaged", "--output", str(tmp_path / "out")])
    low, _ = results["accuracy_95_interval"]
    assert low > results["baselines"]["majority"] + 0.1, results["accuracy"]
