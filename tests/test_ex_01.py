"""Exercise 1: each idea on cases small enough to check by hand, then the script on tiny models."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

import ex_01_bert_classification as ex
from utils import checkpoints, course_data, runtime, training
from utils.runtime import REPOSITORY, UserError
from utils.stats import accuracy_interval

SCRIPT = REPOSITORY / "code" / "ex_01_bert_classification.py"


def smoke_with(*arguments):
    return ex.main(["--preset", "smoke", *map(str, arguments)])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run: (the parts of its results, output folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return smoke_with("--output", folder)["parts"], folder


@pytest.fixture(scope="module")
def tiny_model():
    """A tiny encoder with a classification head, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = checkpoints.fetch("encoder", "tiny")
    torch.manual_seed(0)
    model = checkpoints.load(AutoModelForSequenceClassification, found, num_labels=2,
                             attn_implementation="eager")
    return model.eval(), checkpoints.load(AutoTokenizer, found)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """The folder of a tiny RoBERTa: byte-level pieces, <s> and </s>, positions from 2 to 65."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([json.dumps(course_data.load_sample_prompts())], vocab_size=700,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    state = json.loads(trained.to_str())["model"]
    tokenizer = RobertaTokenizer(vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]])
    tokenizer.save_pretrained(folder)
    RobertaForMaskedLM(RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=66)).save_pretrained(folder)
    return folder


# Part 1


def test_encode_cuts_but_does_not_pad(tiny_model):
    _, tokenizer = tiny_model
    short, long = ex.encode(tokenizer, ["the film was great", "the " * 50], 10)["input_ids"]
    assert len(short) == 6 and len(long) == 10, "texts must be cut at max_length and not padded"
    assert short[0] == long[0] == tokenizer.cls_token_id
    assert short[-1] == long[-1] == tokenizer.sep_token_id


def test_a_word_is_found_whatever_the_tokenizer_s_marks(tiny_model, roberta):
    from transformers import AutoTokenizer

    for tokenizer in (tiny_model[1], AutoTokenizer.from_pretrained(roberta)):
        sentence = "I sat with a monkey, and it ate axb a.b"
        tokens = tokenizer(sentence)["input_ids"]
        for word in ("it", "monkey", "ATE", "a.b"):
            pieces = [tokens[i] for i in ex.find_word(tokenizer, sentence, word)]
            assert tokenizer.decode(pieces).replace(" ", "") == word.lower()
        with pytest.raises(ValueError, match="'wit'"):
            ex.find_word(tokenizer, sentence, "wit")


def test_masked_guesses_are_read_at_the_mask_the_likeliest_first():
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    found = checkpoints.fetch("encoder", "tiny")
    model, tokenizer = (checkpoints.load(c, found) for c in (AutoModelForMaskedLM, AutoTokenizer))
    sentence = "the [MASK] was great"
    guesses = ex.masked_guesses(model.eval(), tokenizer, sentence, top_k=3)
    with torch.no_grad():
        logits = model(**tokenizer(sentence, return_tensors="pt")).logits[0, 2]
    probs, ids = logits.softmax(-1).topk(3)
    assert [word for word, _ in guesses] == tokenizer.convert_ids_to_tokens(ids.tolist())
    assert [p for _, p in guesses] == pytest.approx(probs.tolist(), abs=1e-6)


def test_a_masked_lm_head_that_was_not_saved_makes_no_guesses(tiny_model, tmp_path):
    from transformers import ElectraConfig, ElectraForPreTraining

    tokenizer, sentences = tiny_model[1], course_data.load_sample_prompts()["sentences"]
    tokenizer.save_pretrained(tmp_path)
    ElectraForPreTraining(ElectraConfig(
        vocab_size=len(tokenizer), embedding_size=64, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=128)).save_pretrained(tmp_path)
    electra = checkpoints.Checkpoint("electra", "folder", tmp_path)
    assert ex.look_at_tokens(electra, tokenizer, sentences, "cpu")["guesses"] == []
    with_head = checkpoints.fetch("encoder", "tiny")
    assert len(ex.look_at_tokens(with_head, tokenizer, sentences, "cpu")["guesses"]) == 5


# Part 2


def test_baselines_learn_from_the_training_split_alone():
    train = {"text": ["good film", "good cast", "bad film"] * 9, "label": [1, 1, 0] * 9}
    test = {"text": ["bad cast", "good", "good plot", "good script"], "label": [1, 0, 0, 0]}
    assert ex.baselines(train, test) == {"majority": 0.25, "tfidf": 0.0}


def test_texts_without_words_have_no_tfidf_baseline():
    texts = {"text": ["\U0001f600", "\U0001f622", "a !", "b"], "label": [0, 1, 0, 0]}
    assert ex.baselines(texts, texts) == {"majority": 0.75, "tfidf": None}


# Part 3


def test_metrics_agree_with_scikit_learn_and_need_no_cache(tmp_path, monkeypatch):
    import evaluate
    from sklearn.metrics import accuracy_score, f1_score
    from transformers import EvalPrediction

    (tmp_path / "file").touch()
    for name in ("HF_METRICS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE"):
        monkeypatch.setattr(evaluate.config, name, tmp_path / "file" / "cache")  # cannot be made
    logits, labels = np.random.default_rng(0).normal(size=(50, 2)), np.arange(50) % 3 % 2
    predicted = logits[:, 1] > logits[:, 0]
    assert ex.compute_metrics(EvalPrediction(logits, labels)) == pytest.approx(
        {"accuracy": accuracy_score(labels, predicted), "f1": f1_score(labels, predicted)})


def test_training_order_groups_lengths_and_visits_everything_each_epoch():
    lengths = [int(n) for n in np.random.default_rng(0).integers(5, 60, 310)]
    order = ex.training_order(lengths, 16, 2, seed=3)
    first, second = order[:320], order[320:]
    assert set(first) == set(second) == set(range(310)) and len(second) == 320
    assert first != second, "both epochs have the same order"
    assert order == ex.training_order(lengths, 16, 2, 3) != ex.training_order(lengths, 16, 2, 4)

    batches = [[lengths[i] for i in first[b:b + 16]] for b in range(0, 320, 16)]
    padding = sum(16 * max(batch) - sum(batch) for batch in batches) / sum(lengths)
    assert padding < 0.1, "batches of similar length should need hardly any padding"
    longest = [max(batch) for batch in batches]
    assert sorted(longest) != longest != sorted(longest)[::-1], "lengths must not rise or fall"
    again = [{*first[b:b + 16]} for b in range(0, 320, 16)]
    assert not any({*second[b:b + 16]} in again for b in range(0, 320, 16)), "not shuffled anew"


def test_the_trainer_trains_on_the_train_split_and_validates_on_the_validation_split(tiny_model):
    model, tokenizer = tiny_model
    texts = {"train": ["dull film", "great film", "flat cast"], "validation": ["weak plot"] * 2}
    splits = {part: Dataset.from_dict({"text": rows, "label": [0] * len(rows)})
              for part, rows in texts.items()}
    session = SimpleNamespace(settings=ex.parse(["--preset", "smoke", "--batch-size", "3"]),
                              device="cpu", checkpoints="unused")
    trainer = ex.make_trainer(session, model, tokenizer, SimpleNamespace(splits=splits))
    seen = [tokenizer.batch_decode(list(rows["input_ids"]), skip_special_tokens=True)
            for rows in (trainer.train_dataset, trainer.eval_dataset)]
    assert sorted(seen[0]) == sorted(2 * texts["train"]) and seen[1] == texts["validation"]


def test_a_diverged_training_is_one_line_with_its_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "smoke", {**ex.PRESETS["smoke"], "learning_rate": 1e30})
    with pytest.raises(UserError, match=r"diverged.* at step \d+.* below 1e\+30") as error:
        smoke_with("--output", tmp_path / "out")
    assert "Complete and kept" in error.value.last_words and "--resume" not in error.value.last_words


# Part 4


def test_probs_are_exact_in_the_order_given_and_cut_at_the_same_length(tiny_model):
    model, tokenizer = tiny_model
    texts = [("great " * (i % 7 + 1) + "dull " * (i % 3)).strip() for i in range(70)]
    probs = ex.predict_probs(model, tokenizer, texts, 6)
    for i in (0, 1, 6, 69):
        batch = tokenizer(texts[i], truncation=True, max_length=6, return_tensors="pt")
        with torch.no_grad():
            alone = model(**batch).logits.softmax(-1)[0].numpy()
        np.testing.assert_allclose(probs[i], alone, atol=1e-6, err_msg="not fp32, or mixed up")


def test_calibration_of_known_cases():
    confidence, right = np.array([0.9, 0.92, 0.55, 1.0]), np.array([True, False, True, True])
    groups = ex.calibration_bins(confidence, right)
    assert groups == [(1, 0.55, 1.0), (3, pytest.approx(0.94), pytest.approx(2 / 3))]
    assert ex.calibration_error(confidence, right) == pytest.approx((0.45 + 3 * (0.94 - 2 / 3)) / 4)
    assert ex.calibration_bins(confidence, right, bins=2) == [(4, pytest.approx(0.8425), 0.75)]
    assert ex.calibration_error(np.full(100, 0.95), np.arange(100) < 95) == pytest.approx(0)


def test_accuracy_by_length_begins_with_the_shortest():
    lengths = np.array([3, 9, 2, 8])
    short, long = ex.accuracy_by_length(lengths, lengths < 5, groups=2)
    assert [short["from"], short["to"], long["from"], long["to"]] == [2, 3, 8, 9]
    assert short["accuracy"] == 1 and long["accuracy"] == 0 and short["reviews"] == 2
    assert short["interval"] == pytest.approx([0.342, 1], abs=1e-3)
    assert len(ex.accuracy_by_length(np.array([5]), np.array([True]))) == 1


def test_the_most_confident_mistakes_come_first():
    probs = np.array([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]])
    assert ex.confident_mistakes(probs, np.array([0, 1, 1, 0])) == [2, 3, 0]
    assert ex.confident_mistakes(probs, np.array([0, 1, 1, 0]), most=1) == [2]


def by_word(texts):
    """A classifier that goes by the words great and dull."""
    positive = np.array([0.5 + 0.4 * ("great" in t) - 0.3 * ("dull" in t) for t in texts])
    return np.stack([1 - positive, positive], axis=1)


def test_word_influence_finds_the_words_that_matter():
    influence = dict(ex.word_influence("a great dull film", by_word))
    assert influence == pytest.approx({"a": 0, "great": 0.4, "dull": -0.3, "film": 0})
    twice = ex.word_influence("great great film", by_word)
    assert [value for _, value in twice] == pytest.approx([0, 0, 0]), "one at a time is left out"


def test_the_evaluation_says_what_was_right_and_what_was_not(monkeypatch):
    monkeypatch.setattr(ex, "predict_probs", lambda model, tokenizer, texts, length: by_word(texts))
    test = {"text": ["great a", "dull b", "dull c c", "great d d", "great e", "dull f", "great g"],
            "label": [1, 0, 1, 0, 1, 1, 1]}
    result = ex.evaluate_once(None, None, test, 64)
    assert result["accuracy"] == 4 / 7 and result["confusion"].tolist() == [[1, 1], [2, 3]]
    assert result["interval"] == accuracy_interval(4, 7)["interval"]
    assert result["by_length"][0]["from"] == 2 and result["by_length"][-1]["to"] == 3, "words"
    mistakes = [(row["text"], row["label"], row["predicted"]) for row in result["mistakes"]]
    assert mistakes == [("great d d", 0, 1), ("dull c c", 1, 0), ("dull f", 1, 0)]
    explained = [" ".join(word for word, _ in words) for words in result["influences"]]
    assert explained == ["great a", "dull b", "great d d", "dull c c"]
    assert result["mean_confidence"] == pytest.approx((4 * 0.9 + 3 * 0.8) / 7)


# Part 5


def test_word_vectors_are_the_mean_of_the_word_s_pieces(tiny_model):
    model, tokenizer = tiny_model
    vectors = ex.word_vectors(model.base_model, tokenizer, "The soporific film", "soporific")
    with torch.no_grad():
        batch = tokenizer("The soporific film", return_tensors="pt")
        states = model.base_model(**batch, output_hidden_states=True).hidden_states
    pieces = len(tokenizer.tokenize("soporific"))
    assert pieces > 1 and vectors.shape == (3, 64), "one vector for the embeddings, one per layer"
    for layer in range(3):
        torch.testing.assert_close(vectors[layer], states[layer][0, 2:2 + pieces].mean(0))


def test_sense_similarity_ignores_each_sentence_s_similarity_to_itself():
    vectors = torch.tensor([[1.0, 0], [3, 0], [0, 1], [0, 2]])
    assert ex.sense_similarity(vectors, ["a", "a", "b", "b"]) == pytest.approx((1, 0))
    assert ex.sense_similarity(vectors, ["a", "b", "a", "b"]) == pytest.approx((0, 0.5))


def test_attention_is_that_of_the_word_to_all_tokens(tiny_model):
    model, tokenizer = tiny_model
    sentence = "a monkey was soporific"
    weights = ex.attention_from(model.base_model, tokenizer, sentence, "soporific")
    with torch.no_grad():
        layers = model.base_model(**tokenizer(sentence, return_tensors="pt"),
                                  output_attentions=True).attentions
    own = ex.find_word(tokenizer, sentence, "soporific")
    torch.testing.assert_close(weights[1, 2], layers[1][0, 2, own].mean(0))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
    seen = ex.look_where(model.base_model, tokenizer, sentence, "soporific")
    assert {token for token, _ in seen["most_attended"]} == {"a", "monkey", "was"}
    shares = [share for _, share in seen["most_attended"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(weights.mean((0, 1))[1:4].max().item())


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    parts, folder = smoke
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert saved["finished"] and saved["parts"] == parts and saved["run"]["source"] == "tiny"
    assert list(parts) == ["tokens", "baselines", "training", "evaluation", "words", "attention"]
    assert {path.name for path in folder.glob("*.png")} == {
        "learning_curves.png", "confusion_matrix.png", "calibration.png", "word_similarity.png",
        "word_map.png", "attention.png"}
    assert parts["evaluation"]["accuracy"] > 0.9 > parts["baselines"]["majority"], "it must learn"
    assert parts["evaluation"]["reviews"] == 84 and not (folder / "checkpoints").exists()


def test_before_is_the_pretrained_encoder_and_after_the_tuned_one(smoke):
    from transformers import AutoModel, AutoTokenizer

    words = course_data.load_sample_prompts()["words_in_context"]
    for name, folder in (("before", checkpoints.fetch("encoder", "tiny").folder),
                         ("after", smoke[1] / "model")):
        encoder = AutoModel.from_pretrained(folder, dtype="float32").eval()
        expected = ex.compare_senses(encoder, AutoTokenizer.from_pretrained(folder), words)
        np.testing.assert_allclose(smoke[0]["words"][name]["bank"]["by_layer"],
                                   expected["bank"]["by_layer"], atol=1e-5)


@pytest.mark.slow
def test_another_tokenizer_s_encoder_runs_to_the_end_and_keeps_to_its_positions(roberta, tmp_path):
    parts = smoke_with("--model", roberta, "--output", tmp_path / "out")["parts"]
    seen = parts["attention"]
    left_out = [token for token, aside in zip(seen["tokens"], seen["aside"], strict=True) if aside]
    assert left_out == ["<s>", "Ġit", "</s>"]
    for arguments in ([], ["--predict", "so dull " * 900]):
        with pytest.raises(UserError, match="--max-length 65.* 3 to 64 tokens"):
            smoke_with("--model", roberta, "--output", tmp_path / "out", "--max-length", 65,
                       *arguments)
    smoke_with("--predict", "so dull " * 900, "--output", tmp_path / "out")


def test_predict_uses_the_saved_model(smoke, capsys):
    probs = ex.main(["--predict", "The film was superb and moving.", "--predict",
                     "The plot was dull and flat: \udce9.", "--output", str(smoke[1])])["probs"]
    assert np.argmax(probs, axis=1).tolist() == [1, 0]
    printed = capsys.readouterr().out
    assert 0 < printed.index("positive") < printed.index("flat: \ufffd") < printed.index("negative")


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_as_never_killed(smoke, tmp_path):
    parts, folder = smoke
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--preset", "smoke", "--output", str(output)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.time() + 60
    while training.checkpoint_to_resume(output / "checkpoints") is None:  # a checkpoint half written counts for nothing
        assert process.poll() is None and time.time() < deadline, "the run made no checkpoint"
        time.sleep(0.01)
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    resumed = smoke_with("--output", output, "--resume")["parts"]
    assert resumed["training"]["resumed_from_step"] > 0
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (folder, output)]
    assert weights[0] == weights[1], "the resumed run ended with other weights"
    assert all(resumed[name] == parts[name] for name in parts if name != "training")


@pytest.mark.slow
def test_a_run_that_stopped_after_its_training_goes_on_with_what_is_missing(smoke, tmp_path):
    parts, folder = smoke
    output = shutil.copytree(folder, tmp_path / "out")
    saved = json.loads((output / "results.json").read_text(encoding="utf-8"))
    saved["parts"] = {name: parts[name] for name in ("tokens", "baselines", "training")}
    (output / "results.json").write_text(json.dumps(saved), encoding="utf-8")
    assert smoke_with("--output", output, "--resume")["parts"] == parts


def test_a_large_model_gets_fewer_reviews_in_quick_only(tiny_model):
    model = copy.deepcopy(tiny_model[0])
    quick, full = (ex.parse(["--preset", preset]) for preset in ("quick", "full"))
    assert ex.set_up(model, quick) == {"train": 7900, "validation": 500, "test": 1500}
    model.num_parameters = lambda: 109_000_000
    assert ex.set_up(model, quick) == {"train": 1739, "validation": 110, "test": 330}
    assert ex.set_up(model, full) == {"train": None, "validation": None, "test": None}


def test_bad_input_is_one_clear_line(smoke, tmp_path, monkeypatch):
    decoder = checkpoints.fetch("decoder", "tiny").folder
    for arguments, says in [
        (["--batch-size", "0"], "at least 1"),
        (["--max-length", "5000"], "3 to 128 tokens"),
        (["--max-length", "2"], "3 to 128 tokens"),
        (["--model", decoder], "needs an encoder"),
        (["--data", tmp_path / "none.csv"], "cannot be read"),
        (["--text-column", "review"], "own file"),
        (["--output", tmp_path / "new", "--resume"], "no run to resume"),
        (["--predict", "nice", "--output", tmp_path / "new"], "no trained model"),
        (["--predict", " ", "--output", smoke[1]], "empty"),
        (["--predict", "-great"], "--predict=-..."),
    ]:
        with pytest.raises(UserError) as error:
            smoke_with(*arguments)
        line = str(error.value)
        assert says in line and "\n" not in line, f"{arguments}: {line}"
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="--batch-size 16: 3 processes"):
        smoke_with("--output", tmp_path / "new")


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set there")
def test_a_full_disk_is_one_line_and_loses_nothing(smoke, tmp_path, capsys):
    import resource

    folder = shutil.copytree(smoke[1], tmp_path / "out")
    before = (folder / "model" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as end:
            runtime.run(lambda: smoke_with("--output", folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = capsys.readouterr().err
    assert end.value.code == 2 and "disk is full" in errors and "Traceback" not in errors, errors
    assert (folder / "model" / "model.safetensors").read_bytes() == before


def test_help_does_not_load_torch():
    code = ("import sys, ex_01_bert_classification as ex\ntry: ex.main(['--help'])\n"
            "except SystemExit: pass\nsys.exit(bool({'torch', 'numpy'} & set(sys.modules)))")
    result = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True)
    assert result.returncode == 0, "--help must answer before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_beat_the_majority_clearly(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "quick", {**ex.PRESETS["quick"], "train": 1200,
                                              "validation": 200, "test": 400})
    parts = ex.main(["--model", "packaged", "--data", "packaged", "--output",
                     str(tmp_path / "out")])["parts"]
    assert parts["evaluation"]["interval"][0] > parts["baselines"]["majority"] + 0.1
