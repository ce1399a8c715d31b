"""Exercise 2: behaviour that must hold for any weights, on a tiny random GPT-2 and template reviews."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch

import ex_02_gpt2_generation as ex
from utils import checkpoints, course_data, reporting
from utils.runtime import REPOSITORY, UserError

SCRIPT = REPOSITORY / "code" / "ex_02_gpt2_generation.py"
PROMPTS = ["The sky looks blue because", "When Clara opened the letter,", "At noon"]
DATA = course_data.load_sample_prompts()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run: (results, output folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return ex.main(["--preset", "smoke", "--output", str(folder)]), folder


@pytest.fixture(scope="module")
def tiny():
    """(tokenizer, model): a tiny random GPT-2 with sharper logits than random weights have, so that no two tie."""
    _, tokenizer, model = ex.load_model(ex.parse_arguments(["--model", "tiny", "--device", "cpu"]))
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    return tokenizer, model


# Part 1: filters, held against the library's own


def edge_cases() -> dict[str, torch.Tensor]:
    one = torch.full((1, 50), -1000.0)
    one[0, 7] = 1000.0
    cases = {"random": torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 3,
             "all mass on one token": one, "all equal": torch.zeros(1, 50),
             "ties": torch.tensor([[2.0, 1, 1, 1, 0, 0, 2, -5]]), "one token": torch.zeros(1, 1)}
    return cases


@pytest.mark.parametrize("name", edge_cases())
def test_filters_agree_with_the_library(name):
    import transformers as library

    logits = edge_cases()[name]
    ours_and_theirs = [(ex.apply_temperature(logits, t), library.TemperatureLogitsWarper(t)) for t in (0.1, 1.0, 2.0)]
    ours_and_theirs += [(ex.keep_top_k(logits, k), library.TopKLogitsWarper(k)) for k in (1, 2, 5, 50, 10_000)]
    ours_and_theirs += [(ex.keep_top_p(logits, p), library.TopPLogitsWarper(p)) for p in (0.0, 0.3, 0.9, 0.999, 1.0)]
    ours_and_theirs += [(ex.keep_min_p(logits, p), library.MinPLogitsWarper(p)) for p in (0.0, 0.05, 0.5, 1.0)]
    for ours, warper in ours_and_theirs:
        theirs = warper(None, logits.clone())
        assert torch.equal(ours, theirs), f"{name}: {type(warper).__name__} {vars(warper)} keeps other tokens"
        assert ours.isfinite().any(-1).all(), f"{name}: nothing is left to choose from"


def test_filters_take_a_single_row_and_leave_their_input_alone():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    before = logits.clone()
    assert ex.keep_top_p(logits, 0.6).isfinite().tolist() == [True, True, False]
    assert ex.keep_min_p(logits, 0.5).isfinite().tolist() == [True, True, False]
    assert ex.keep_top_k(logits, 1).isfinite().tolist() == [True, False, False]
    assert torch.equal(logits, before), "a filter must not change the logits that it was given"


def test_entropy_of_known_distributions():
    assert ex.entropy(torch.zeros(4)).item() == pytest.approx(2), "four equally likely tokens have two bits"
    assert ex.entropy(torch.tensor([0.0, -math.inf])).item() == 0, "a certain token has none, and 0 log 0 is 0"
    logits = torch.randn(3, 20)
    colder, warmer = (ex.entropy(ex.apply_temperature(logits, t)) for t in (0.5, 2.0))
    assert (colder < ex.entropy(logits)).all() and (ex.entropy(logits) < warmer).all()


# Part 2: generation


@pytest.mark.parametrize("strategy", ["greedy", "repetition-penalty", "beam"])
def test_batching_does_not_change_the_text(tiny, strategy):
    tokenizer, model = tiny
    settings = ex.STRATEGIES[strategy]
    together = ex.generate(model, tokenizer, PROMPTS, settings, 20, seed=0)
    alone = [ex.generate(model, tokenizer, [prompt], settings, 20, seed=0)[0] for prompt in PROMPTS]
    assert together == alone, "its neighbours in the batch changed a prompt's text: is padding masked?"
    assert together == ex.generate(model, tokenizer, PROMPTS, settings, 20, seed=0, batch_size=2)
    assert len({tuple(row) for row in together}) == 3, "every prompt got the same text: this test would see nothing"


def test_greedy_is_the_likeliest_token_at_every_step(tiny):
    tokenizer, model = tiny
    ids = tokenizer(PROMPTS[0])["input_ids"]
    for token in ex.generate(model, tokenizer, PROMPTS[:1], ex.STRATEGIES["greedy"], 8, seed=0)[0]:
        with torch.no_grad():
            assert token == model(torch.tensor([ids])).logits[0, -1].argmax()
        ids.append(token)


def test_same_seed_same_text_whatever_ran_before(tiny):
    tokenizer, model = tiny

    def text(seed, settings):
        return ex.generate(model, tokenizer, PROMPTS, settings, 20, seed)

    sampled = text(1, ex.STRATEGIES["top-p"])
    text(5, ex.STRATEGIES["sampling"])
    assert text(1, ex.STRATEGIES["top-p"]) == sampled, "the same seed gave another text"
    assert text(2, ex.STRATEGIES["top-p"]) != sampled, "another seed gave the same text"
    cold = {**ex.STRATEGIES["temperature"], "temperature": 1e-4}
    assert text(1, cold) == text(2, cold) == text(0, ex.STRATEGIES["greedy"]), "temperature near 0 must be greedy"


def test_nothing_of_the_checkpoint_s_own_settings_leaks_in(tmp_path):
    from transformers import GenerationConfig

    folder = checkpoints.find("decoder", "tiny").folder
    GenerationConfig(do_sample=True, temperature=0.1, top_k=1, repetition_penalty=9.0, max_length=3,
                     no_repeat_ngram_size=1).save_pretrained(folder)
    _, tokenizer, model = ex.load_model(ex.parse_arguments(["--model", str(folder), "--device", "cpu"]))
    greedy = ex.generate(model, tokenizer, PROMPTS[:1], ex.STRATEGIES["greedy"], 12, seed=0)[0]
    assert len(greedy) == 12 and len(set(greedy)) < 12, "the checkpoint's generation_config.json changed the text"
    assert len(set(ex.generate(model, tokenizer, PROMPTS[:1], ex.STRATEGIES["sampling"], 12, seed=0)[0])) > 1


def test_text_ends_at_the_end_token():
    assert ex.cut_at_end([5, 6, 0, 0], 0) == [5, 6, 0]
    assert ex.cut_at_end([0, 5], 0) == [0] and ex.cut_at_end([5, 6], 0) == [5, 6]


# Part 3: few-shot learning


def test_few_shot_prompt_is_as_the_data_file_wants_it():
    prompt = ex.few_shot_prompt("Do it.", "Text: {text}\nLabel:", [("a {b}", "yes"), ("c", "no")], "d")
    assert prompt == "Do it.\n\nText: a {b}\nLabel: yes\n\nText: c\nLabel: no\n\nText: d\nLabel:"
    assert ex.few_shot_prompt("Do it.", "Text: {text}\nLabel:", [], "d") == "Do it.\n\nText: d\nLabel:"


@pytest.mark.parametrize("prompts", [
    ["Review: " + text + "\nSentiment:" for text in ("good", "a bad film", "", "a film that I shall not forget")],
    ["no", "common", "beginning at all"], ["just one"], ["twice the same", "twice the same"]])
def test_label_scores_are_those_of_each_candidate_alone(tiny, prompts):
    tokenizer, model = tiny
    labels = ["positive", "bad", "x"]
    scores = ex.score_labels(model, tokenizer, prompts, labels, batch_size=3)
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(labels):
            before, ids = (tokenizer(text)["input_ids"] for text in (prompt, prompt + " " + label))
            with torch.no_grad():
                log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            alone = sum(log_probs[k - 1, ids[k]].item() for k in range(len(before), len(ids)))
            assert scores[i, j].item() == pytest.approx(alone, abs=1e-3), f"log p({label!r} | {prompt!r})"


def test_calibration_takes_away_a_constant_bias_and_nothing_else():
    fair = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    biased = (fair * torch.tensor([1.0, 9.0])).log()
    nothing = torch.tensor([[0.1, 0.9], [0.1, 0.9]]).log()
    assert biased.argmax(-1).tolist() == [1, 1]
    torch.testing.assert_close(ex.calibrate(biased, nothing), fair)
    torch.testing.assert_close(ex.calibrate(fair.log(), torch.tensor([[0.5, 0.5]]).log()), fair)


def test_exercise_1_is_shown_only_when_it_can_be_compared(tmp_path):
    path = tmp_path / "results.json"
    assert ex.exercise_1_accuracy(path, "packaged")[0] is None
    path.write_text(json.dumps({"accuracy": 0.8, "data": "packaged", "train_examples": 9}), encoding="utf-8")
    assert ex.exercise_1_accuracy(path, "packaged")[0] == 0.8
    assert "other reviews" in ex.exercise_1_accuracy(path, "imdb")[1]
    for damaged in ("{", "[]", '{"data": "packaged"}', '{"data": "packaged", "accuracy": null, "train_examples": 1}'):
        path.write_text(damaged, encoding="utf-8")
        accuracy, sentence = ex.exercise_1_accuracy(path, "packaged")
        assert accuracy is None and "left out" in sentence, damaged


# Part 4: measures


def test_perplexity_counts_the_continuation_only(tiny):
    uniform = torch.zeros(1, 5, 4)
    assert ex.perplexity(uniform, torch.tensor([[0, 1, 2, 3, 0]]), torch.ones(1, 5)).item() == pytest.approx(4)
    _, model = tiny
    tokens, counts = torch.tensor([[5, 9, 7, 7, 3]]), torch.tensor([[0, 0, 1, 1, 0]])
    with torch.no_grad():
        logits = model(tokens).logits
        loss = model(tokens[:, :4], labels=torch.tensor([[-100, -100, 7, 7]])).loss  # the library's own shift
    assert ex.perplexity(logits, tokens, counts).item() == pytest.approx(loss.exp().item(), rel=1e-4)


def test_diversity_and_repetition_of_known_texts():
    assert ex.distinct_n([["a", "b", "a"]], 1) == pytest.approx(2 / 3)
    assert ex.distinct_n([["a", "b"], ["a", "b"]], 2) == 0.5, "n-grams count over all texts together"
    assert ex.distinct_n([["a", "b"], ["c", "d"]], 2) == 1, "no n-gram may cross from one text to the next"
    assert ex.distinct_n([[], ["a"]], 2) == 0
    assert ex.repeated_share("a b c d a b c d".split()) == pytest.approx(1 / 5)
    assert ex.repeated_share("a b c".split()) == 0 and ex.repeated_share(["a"] * 23) == pytest.approx(19 / 20)


def test_pooled_vectors_ignore_padding():
    states = torch.tensor([[[1.0, 0], [0, 1], [50, 50]], [[0, 2], [0, 4], [0, 6]]])
    vectors = ex.mean_pool(states, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]]))


def test_mean_ranks_prefer_fluent_fresh_and_close():
    rows = [{"perplexity": 9, "repetition": 0.5, "similarity": 0.1},
            {"perplexity": 2, "repetition": 0.0, "similarity": 0.9}]
    assert ex.mean_ranks(rows) == [2, 1]
    assert ex.mean_ranks([{"perplexity": p, "repetition": 0} for p in (2, 9)]) == [1.25, 1.75]


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    results, folder = smoke
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert saved.keys() == results.keys()
    for key in ("model", "source", "seed", "preset", "device", "precision", "peak_memory_mb", "minutes"):
        assert saved[key] is not None, key
    assert list(saved["strategies"]) == list(ex.STRATEGIES)
    for name, row in saved["strategies"].items():
        assert row["perplexity"] > 1 and 0 <= row["distinct_2"] <= 1 and -1 <= row["similarity"] <= 1, name
    assert list(saved["few_shot_accuracy"]) == ["0", "1", "2", "4", "8"]
    assert len(saved["samples"]) == len(ex.STRATEGIES) * sum(map(len, DATA["generation"].values()))
    for way in ("by_shots", "by_order", "by_words"):
        for name, row in saved["few_shot"][way].items():
            low, high = row["calibrated"]["interval"]
            assert low <= row["calibrated"]["accuracy"] <= high and high - low > 0.1, f"{way} {name}"
    assert {p.name for p in folder.glob("*.png")} == {"next_token.png", "cuts.png", "few_shot.png", "diversity.png"}


def test_low_probability_text_has_high_perplexity(smoke):
    strategies = smoke[0]["strategies"]
    assert strategies["greedy"]["perplexity"] < strategies["sampling"]["perplexity"]


def test_own_text_is_streamed_and_returned(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"sea [/b]": ["The ship left"]}), encoding="utf-8")
    arguments = ["--preset", "smoke", "--prompt", "At noon", "--prompts", str(path), "--max-new-tokens", "7"]
    first, again = (ex.main([*arguments, "--temperature", "0.9", "--top-k", "30"])["generations"] for _ in range(2))
    assert first == again and [(a["category"], a["prompt"]) for a in first] == [
        ("--prompt", "At noon"), ("sea [/b]", "The ship left")]
    printed = capsys.readouterr().out
    for answer in first:
        assert answer["text"] and reporting.printable(answer["prompt"] + answer["text"]) in printed
    ex.main([*arguments, "--strategy", "beam"])  # cannot be streamed, and must be printed all the same
    assert "At noon" in capsys.readouterr().out


def test_control_characters_are_not_obeyed():
    assert reporting.printable("a\x1b[31mb\rc\x07\x9bd\te\n") == "a[31mbcd\te\n"


def test_bad_input_is_one_clear_line(tmp_path):
    encoder = checkpoints.find("encoder", "tiny").folder
    own = ["--prompt", "At noon"]
    files = {}
    for name, text in {"not json": "{", "a list": '["a"]', "no list": '{"a": "b"}', "a number": '{"a": [1]}',
                       "empty": '{"a": [" "]}'}.items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(text, encoding="utf-8")
    for arguments, says in [
        (["--prompt", " "], "is empty"),
        (["--prompt", "half \ud800"], "utf-8"),
        (["--prompt", "ends with "], "'ends with '"),
        (["--prompt", "many words " * 100 + "."], "the model takes 1024: shorten it"),
        ([*own, "--max-new-tokens", "1018"], "room for 1017"),
        (["--max-new-tokens", "1018"], "leaves room for"),
        ([*own, "--max-new-tokens", "0"], "at least 1"),
        ([*own, "--temperature", "0"], "not a number from 0.001"),
        ([*own, "--temperature", "-1"], "use --strategy greedy"),
        ([*own, "--temperature", "nan"], "not a number from 0.001"),
        ([*own, "--temperature", "warm"], "not a number from 0.001"),
        ([*own, "--top-p", "0"], "above 0 and at most 1"),
        ([*own, "--top-p", "1.5"], "above 0 and at most 1"),
        ([*own, "--top-k", "0"], "at least 1"),
        ([*own, "--min-p", "-0.1"], "from 0 to 1"),
        ([*own, "--repetition-penalty", "0"], "from 0.01 to 100"),
        ([*own, "--strategy", "greedy", "--temperature", "0.5"], "does not sample"),
        ([*own, "--strategy", "best"], "invalid choice"),
        (["--strategy", "greedy"], "need --prompt"),
        (["--prompts", tmp_path / "none.json"], "cannot read"),
        (["--prompts", files["not json"]], "line 1, column 2"),
        (["--prompts", files["a list"]], "should be an object"),
        (["--prompts", files["no list"]], "should be a list"),
        (["--prompts", files["a number"]], "should be text"),
        (["--prompts", files["empty"]], "is empty"),
        (["--model", encoder], "needs a decoder"),
        (["--model", tmp_path / "none"], "no such folder"),
        (["--data", tmp_path / "none.csv"], "cannot be read"),
    ]:
        with pytest.raises(UserError) as error:
            ex.main(["--preset", "smoke", "--output", str(tmp_path / "out"), *map(str, arguments)])
        assert says in str(error.value) and "\n" not in str(error.value), f"{arguments}: {error.value}"
    assert not (tmp_path / "out").exists(), "refused arguments must leave no folder behind"


def test_a_run_into_a_folder_in_use_is_refused(tmp_path):
    first = reporting.OutputFolder(tmp_path / "out", "ex_02", {})
    with pytest.raises(UserError, match="another run is writing"):
        ex.main(["--preset", "smoke", "--output", str(tmp_path / "out")])
    first.release()


def test_wrong_arguments_do_not_load_torch():
    code = "import sys, ex_02_gpt2_generation as ex\n" \
           "for argv in (['--help'], ['--prompt', ' '], ['--top-p', '2'], ['--prompts', 'none.json']):\n" \
           "    try: ex.main(argv)\n    except (SystemExit, ex.UserError): pass\n" \
           "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
                            capture_output=True)
    assert result.returncode == 0, "wrong arguments must be refused before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_continue_sensibly(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "quick", {"new_tokens": 16, "queries": 60})
    monkeypatch.setattr(ex, "SHOTS", (0, 4))
    monkeypatch.setattr(ex, "STRATEGIES", {name: ex.STRATEGIES[name] for name in ("greedy", "sampling", "top-p")})
    results = ex.main(["--model", "packaged", "--data", "packaged", "--output", str(tmp_path / "out")])
    greedy, sampling = results["strategies"]["greedy"], results["strategies"]["sampling"]
    assert greedy["perplexity"] < sampling["perplexity"] and greedy["distinct_2"] < sampling["distinct_2"]
    assert results["few_shot"]["capitals"]["4"]["chosen"]["accuracy"] > 0.5, "most capitals should be known"
    assert results["few_shot"]["by_shots"]["0"]["calibrated"]["interval"][0] > results["few_shot"]["majority"]
