"""Exercise 2: each idea on numbers that can be checked by hand, and the script on a tiny random model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import ex_02_gpt2_generation as ex
from utils import checkpoints, course_data, embedding, reporting, scoring, session
from utils.runtime import REPOSITORY, UserError

PROMPTS = ["The sky looks blue because", "When Clara opened the letter,", "At noon"]
DATA = course_data.load_sample_prompts()
TASK = {"instruction": "Do it.", "template": "Text: {text}\nLabel:", "content_free": ["N/A", ""],
        "labels": {"negative": ["bad", "poor"], "positive": ["good", "rich"]},
        "examples": [{"text": text, "label": label} for text, label in (
            ("e0", "positive"), ("e1", "negative"), ("e2", "negative"), ("e3", "positive"), ("e4", "positive"))]}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run: (results, output folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return ex.main(["--preset", "smoke", "--output", str(folder)]), folder


@pytest.fixture(scope="module")
def tiny():
    """(model, tokenizer): a tiny random GPT-2 with sharper logits than random weights have, so that none tie."""
    _, tokenizer, model = scoring.fetch_model("tiny", "cpu")
    return sharpened(model), tokenizer


def sharpened(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    return model.eval()


# Part 1

EDGES = {"random": torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 3,
         "all mass on one token": torch.full((1, 50), -1000.0).index_fill(1, torch.tensor(7), 1000.0),
         "all equal": torch.zeros(1, 50), "ties": torch.tensor([[2.0, 1, 1, 1, 0, 0, 2, -5]]), "one": torch.zeros(1, 1)}


@pytest.mark.parametrize("name", EDGES)
def test_filters_agree_with_the_library_but_for_ties(name):
    import transformers as library

    logits = EDGES[name]
    pairs = [(ex.apply_temperature(logits, t), library.TemperatureLogitsWarper(t)) for t in (0.1, 1.0, 2.0)]
    pairs += [(ex.keep_top_p(logits, p), library.TopPLogitsWarper(p)) for p in (0.0, 0.3, 0.9, 0.999, 1.0)]
    pairs += [(ex.keep_min_p(logits, p), library.MinPLogitsWarper(p)) for p in (0.0, 0.05, 0.5, 1.0)]
    pairs += [(ex.keep_top_k(logits, k), library.TopKLogitsWarper(k)) for k in (1, 2, 5, 50, 10_000)
              if name in ("random", "one") or k >= 50]
    for ours, warper in pairs:
        assert torch.equal(ours, warper(None, logits.clone())), f"{type(warper).__name__} {vars(warper)} differs"
        assert ours.isfinite().any(-1).all(), "nothing is left to choose from"


def test_filters_on_known_numbers_leave_their_input_alone():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    before = logits.clone()
    for keep, kept in ((lambda: ex.keep_top_p(logits, 0.6), 2), (lambda: ex.keep_min_p(logits, 0.5), 2),
                       (lambda: ex.keep_top_k(logits, 1), 1)):
        assert torch.equal(keep()[:kept], before[:kept]) and not keep()[kept:].isfinite().any()
        assert torch.equal(logits, before), "a filter must not change the logits that it was given"
    assert ex.keep_top_k(torch.zeros(2, 50), 40).isfinite().sum(-1).tolist() == [40, 40], "k tokens, also of equals"


def test_entropy_of_known_distributions():
    assert ex.entropy(torch.zeros(4)).item() == pytest.approx(2), "four equally likely tokens have two bits"
    assert ex.entropy(torch.tensor([0.0, -math.inf])).item() == 0, "a certain token has none, and 0 log 0 is 0"


def test_the_next_token_is_what_the_last_position_predicts(tiny):
    model, tokenizer = tiny
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])).logits
    torch.testing.assert_close(ex.next_token_logits(*tiny, PROMPTS[0]), logits[0, -1])
    assert logits.dtype == torch.float32, "what is shown as exact is computed in fp32"


def test_one_step_reports_tokens_temperatures_and_filters(tiny, monkeypatch):
    peaks = {"sure": 9.0, "unsure": 0.1, "between": 3.0}
    monkeypatch.setattr(ex, "next_token_logits", lambda model, tokenizer, prompt: torch.arange(100, 0, -1).float()
                        / 100 * peaks[prompt])
    first, last = ex.surest_and_least_sure(*tiny, list(peaks))
    assert (first["prompt"], last["prompt"]) == ("sure", "unsure")
    assert [step["prompt"] for step in ex.surest_and_least_sure(*tiny, ["between"])] == ["between"]
    assert first["tokens"][:2] == [tiny[1].decode([0]), tiny[1].decode([1])]
    cold, plain, warm = (first["temperatures"][t] for t in ("0.5", "1.0", "1.5"))
    assert cold["entropy"] < plain["entropy"] < warm["entropy"] and cold["probs"][0] > warm["probs"][0]
    assert first["prob_at_rank"][0] == plain["probs"][0] and first["ranks"][-1] == 100
    assert first["filters"]["top-k, k = 40"]["tokens"] == last["filters"]["top-k, k = 40"]["tokens"] == 40
    for name in ("top-p, p = 0.9", "min-p, p = 0.1"):
        assert first["filters"][name]["tokens"] < last["filters"][name]["tokens"], f"{name} should adapt"
    assert 0.9 <= first["filters"]["top-p, p = 0.9"]["probability"] < 0.95


# Part 2


@pytest.mark.parametrize("strategy", ["greedy", "repetition-penalty", "beam"])
def test_batching_does_not_change_the_text(tiny, strategy):
    decoding = ex.STRATEGIES[strategy]
    together = ex.generate(*tiny, PROMPTS, decoding, 20, seed=0)
    alone = [ex.generate(*tiny, [prompt], decoding, 20, seed=0)[0] for prompt in PROMPTS]
    assert together == alone, "its neighbours in the batch changed a prompt's text: is padding masked?"
    assert together == ex.generate(*tiny, PROMPTS, decoding, 20, seed=0, batch_size=2)
    assert len({tuple(row) for row in together}) == 3, "every prompt got the same text: this test would see nothing"


@pytest.mark.parametrize(("strategy", "penalty"), [("greedy", 1.0), ("repetition-penalty", 1.2)])
def test_each_step_takes_the_likeliest_token_and_penalises_what_was_generated_only(tiny, strategy, penalty):
    model, tokenizer = tiny
    ids, made = tokenizer(PROMPTS[0])["input_ids"], []
    for token in ex.generate(*tiny, PROMPTS, ex.STRATEGIES[strategy], 12, seed=0)[0]:
        with torch.no_grad():
            logits = model(torch.tensor([ids + made])).logits[0, -1]
        for seen in set(made):
            logits[seen] = logits[seen] / penalty if logits[seen] > 0 else logits[seen] * penalty
        assert token == logits.argmax()
        made.append(token)


def test_same_seed_same_text_whatever_ran_before(tiny):
    def text(seed, decoding):
        return ex.generate(*tiny, PROMPTS, decoding, 20, seed)

    sampled = text(1, ex.STRATEGIES["top-p"])
    text(5, ex.STRATEGIES["sampling"])
    assert text(1, ex.STRATEGIES["top-p"]) == sampled, "the same seed gave another text"
    assert text(2, ex.STRATEGIES["top-p"]) != sampled, "another seed gave the same text"
    cold = {**ex.STRATEGIES["temperature"], "temperature": 1e-4}
    assert text(1, cold) == text(2, cold) == text(0, ex.STRATEGIES["greedy"]), "temperature near 0 must be greedy"


def test_nothing_of_the_checkpoint_s_own_settings_leaks_in():
    from transformers import GenerationConfig

    folder = checkpoints.fetch("decoder", "tiny").folder
    GenerationConfig(do_sample=True, temperature=0.1, top_k=1, repetition_penalty=9.0, max_length=3,
                     no_repeat_ngram_size=1).save_pretrained(folder)
    _, tokenizer, model = scoring.fetch_model(str(folder), "cpu")
    greedy = ex.generate(model, tokenizer, PROMPTS[:1], ex.STRATEGIES["greedy"], 12, seed=0)[0]
    assert len(greedy) == 12 and len(set(greedy)) < 12, "the checkpoint's generation_config.json changed the text"
    assert len(set(ex.generate(model, tokenizer, PROMPTS[:1], ex.STRATEGIES["sampling"], 12, seed=0)[0])) > 1


def test_text_ends_at_the_end_token_and_every_strategy_is_asked(tiny, monkeypatch):
    assert ex.cut_at_end([5, 6, 0, 0], 0) == [5, 6, 0]
    assert ex.cut_at_end([0, 5], 0) == [0] and ex.cut_at_end([5, 6], 0) == [5, 6]
    asked = []
    monkeypatch.setattr(ex, "generate", lambda *given: asked.append(given[3:]) or [[65, len(asked)]])
    result = ex.compare_strategies(*tiny, ["x"], 7, seed=3)
    assert asked == [(decoding, 7, 3) for decoding in ex.STRATEGIES.values()]
    assert result["beam"]["tokens"] == [[65, 2]] and result["beam"]["texts"] == [tiny[1].decode([65, 2])]


# Part 3


def test_prompts_are_as_the_data_file_wants_them():
    prompt = ex.few_shot_prompt("Do it.", "Text: {text}\nLabel:", [("a {b}", "yes"), ("c", "no")], "d")
    assert prompt == "Do it.\n\nText: a {b}\nLabel: yes\n\nText: c\nLabel: no\n\nText: d\nLabel:"
    assert ex.few_shot_prompt("Do it.", "Text: {text}\nLabel:", [], "d") == "Do it.\n\nText: d\nLabel:"
    assert ex.sentiment_prompts(TASK, (1, 0), ("bad", "good"), ["q", "r"]) == [
        f"Do it.\n\nText: e1\nLabel: bad\n\nText: e0\nLabel: good\n\nText: {text}\nLabel:" for text in "qr"]


def test_a_label_s_log_probability_is_the_sum_of_its_tokens_after_the_prompt(tiny):
    model, tokenizer = tiny
    ids, expected = tokenizer("A film.\nSentiment:")["input_ids"], 0.0
    for token in tokenizer(" bad")["input_ids"]:
        with torch.no_grad():
            expected += model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item()
        ids.append(token)
    assert ex.label_log_prob(*tiny, "A film.\nSentiment:", "bad") == pytest.approx(expected, abs=1e-4)
    logits = torch.tensor([[[0.7, 0.3], [0.1, 0.9]]]).log()
    torch.testing.assert_close(ex.token_log_probs(logits, torch.tensor([[0, 0]])), logits[..., 0])


def language_model(kind: str, tiny):
    """A random model of another family, over the tiny model's tokens."""
    import transformers as library

    if kind == "GPT-2":
        return tiny[0]
    if kind == "GPT-2 before transformers 5.24":
        class Older(type(tiny[0])):
            def forward(self, input_ids, past_key_values=None, **options):
                return super().forward(input_ids, **{scoring.cache_name(tiny[0]): past_key_values}, **options)
        model = Older(tiny[0].config)
        model.load_state_dict(tiny[0].state_dict())
        return model.eval()
    shape = {"vocab_size": len(tiny[1]), "hidden_size": 32, "num_hidden_layers": 2}
    configs = {"Mamba": library.MambaConfig(**shape, state_size=4),
               "Bloom": library.BloomConfig(**shape, n_layer=2, n_head=4),
               "Gemma": library.Gemma3TextConfig(**shape, intermediate_size=64, num_attention_heads=4, head_dim=8,
                                                 num_key_value_heads=2, sliding_window=24)}
    return sharpened(library.AutoModelForCausalLM.from_config(configs[kind]))


@pytest.mark.parametrize("kind", ["GPT-2", "GPT-2 before transformers 5.24", "Mamba", "Bloom", "Gemma"])
def test_fast_label_scores_are_those_of_each_label_alone(tiny, kind):
    model, labels = language_model(kind, tiny), ["positive", "bad", "x"]
    assert bool(scoring.cache_name(model)) == (kind != "Mamba")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for prompts in (["Review: " + text + "\nSentiment:" for text in ("good", "evil", "", "a film that is long")],
                        ["no", "common", "beginning at all"], ["just one"], ["twice the same", "twice the same"]):
            scores = scoring.score_labels(model, tiny[1], prompts, labels, batch_size=3)
            alone = [[ex.label_log_prob(model, tiny[1], prompt, label) for label in labels] for prompt in prompts]
            torch.testing.assert_close(scores, torch.tensor(alone), atol=1e-3, rtol=0)


def test_calibration_takes_away_a_constant_bias_and_nothing_else():
    fair = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    biased = (fair * torch.tensor([1.0, 9.0])).log()
    nothing = torch.tensor([[0.1, 0.9], [0.1, 0.9]]).log()
    assert biased.argmax(-1).tolist() == [1, 1]
    torch.testing.assert_close(ex.calibrate(biased, nothing), fair)
    torch.testing.assert_close(ex.calibrate(fair.log(), torch.tensor([[0.5, 0.5]]).log()), fair)


def test_the_judge_counts_right_answers_and_positive_ones(monkeypatch):
    scores = torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, -2.0], [0.0, -3.0]])
    result = ex.judge(scores, [0, 0, 0, 1])
    assert (result["accuracy"], result["says_positive"]) == (0.5, 0.25)
    assert result["interval"][0] < 0.5 < result["interval"][1]
    # Always "positive", by little for the first review; without content as well, so calibration turns the first.
    answers = {"q": [0.4, 0.6], "r": [0.1, 0.9], "N/A": [0.2, 0.8], "": [0.2, 0.8]}
    monkeypatch.setattr(ex, "score_labels", lambda model, tokenizer, prompts, words: torch.tensor(
        [answers[prompt.split("Text: ")[-1].removesuffix("\nLabel:")] for prompt in prompts]).log())
    result = ex.classify(None, None, TASK, {"text": ["q", "r"], "label": [0, 1]}, (0,), ("bad", "good"))
    assert [(row["accuracy"], row["says_positive"]) for row in result.values()] == [(0.5, 1.0), (1.0, 0.5)]


def test_prompts_differ_in_one_thing_at_a_time():
    ways, few = ex.ways_to_ask(TASK), (0, 1, 2, 3)
    assert ways["by_shots"] == {str(k): (tuple(range(k)), ("bad", "good")) for k in (0, 1, 2, 4)}
    assert {name: way[0] for name, way in ways["by_order"].items()} == {
        "+--+": few, "++--": (0, 3, 1, 2), "--++": (1, 2, 0, 3), "+-+-": (0, 1, 3, 2), "-+-+": (2, 3, 1, 0)}
    assert ways["by_words"] == {"bad/good": (few, ("bad", "good")), "poor/rich": (few, ("poor", "rich"))}


def test_sentiment_asks_about_short_test_reviews_and_knows_the_commoner_training_label(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(ex, "classify", lambda model, tokenizer, task, queries, *way: asked.append((queries, way)))
    reviews = {"train": {"text": ["a"] * 3, "label": [0, 0, 1]}, "test": {"text": ["x" * 300, "y"], "label": [1, 1]}}
    result = ex.sentiment_by_prompt(*tiny, TASK, reviews)
    assert result["majority"] == 0, "the commoner label is the training split's, 0, which no test review has"
    assert asked[0][0] == {"text": ["x" * 200, "y"], "label": [1, 1]}, "the tiny model has a token a character"
    assert len(asked) == len({way for _, way in asked}) == 4 + 4 + 1, "no prompt is asked twice"
    assert result["queries"] == 2 and list(result["by_words"]) == ["bad/good", "poor/rich"]


def test_capitals_are_chosen_and_said(tiny, monkeypatch):
    task = {**TASK, "examples": [{"text": "France", "label": "Paris"}], "queries": [
        {"text": "Italy", "label": "Rome"}, {"text": "Spain", "label": "Madrid"}]}
    shown = []
    monkeypatch.setattr(ex, "score_labels", lambda model, tokenizer, prompts, labels: shown.append(prompts)
                        or torch.tensor([[0.0, -1], [0, -1]]))  # Rome both times
    monkeypatch.setattr(ex, "generate", lambda *given: [list(b" Rome\n"), list(b" in Madrid")])
    monkeypatch.setattr(tiny[1], "batch_decode", lambda rows, **_: [bytes(row).decode() for row in rows])
    result = ex.capitals_by_prompt(*tiny, task, seed=0)
    assert shown[1][1] == "Do it.\n\nText: France\nLabel: Paris\n\nText: Spain\nLabel:"
    assert result["0"]["chosen"]["accuracy"] == 0.5 and result["0"]["said"]["accuracy"] == 0.5
    assert result["0"]["missed"] == [["Spain", "in Madrid"]]


# Part 4


def test_perplexity_counts_the_continuation_only(tiny):
    uniform = torch.zeros(1, 5, 4)
    assert ex.perplexity(uniform, torch.tensor([[0, 1, 2, 3, 0]]), torch.ones(1, 5)).item() == pytest.approx(4)
    model, tokenizer = tiny
    continuations = [[5, 9, 7], [7, 3, 3, 8, 1, 2], [4]]
    for prompt, tokens, value in zip(PROMPTS, continuations, ex.perplexities(*tiny, PROMPTS, continuations, 2),
                                     strict=True):
        before = tokenizer(prompt)["input_ids"]
        with torch.no_grad():  # the library shifts by itself
            loss = model(torch.tensor([before + tokens]), labels=torch.tensor([[-100] * len(before) + tokens])).loss
        assert value == pytest.approx(loss.exp().item(), rel=1e-4)


def test_diversity_and_repetition_of_known_texts():
    assert ex.distinct_n([["a", "b", "a"]], 1) == pytest.approx(2 / 3)
    assert ex.distinct_n([["a", "b"], ["a", "b"]], 2) == 0.5, "n-grams count over all texts together"
    assert ex.distinct_n([["a", "b"], ["c", "d"]], 2) == 1, "no n-gram may cross from one text to the next"
    assert ex.distinct_n([[], ["a"]], 2) == 0
    assert ex.repeated_share("a b c d a b c d".split()) == pytest.approx(1 / 5)
    assert ex.repeated_share("a b c".split()) == 0 and ex.repeated_share(["a"] * 23) == pytest.approx(19 / 20)


@pytest.mark.parametrize("pool", [ex.mean_pool, embedding.mean_pool])
def test_pooled_vectors_ignore_padding(pool):
    states = torch.tensor([[[1.0, 0], [0, 1], [50, 50]], [[0, 2], [0, 4], [0, 6]]])
    vectors = pool(states, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]]))


def test_sentence_vectors_do_not_depend_on_the_batch():
    embed, texts = embedding.fetch("tiny")[0], ["the film was dull", "", "a monkey " * 200, "banana"]
    vectors = embed(texts, batch_size=2)
    assert abs(vectors - [embed([text])[0] for text in texts]).max() < 1e-5
    assert abs((vectors**2).sum(-1) - 1).max() < 1e-5 and embed([]).shape == (0, 64)


def test_a_text_is_compared_with_its_own_prompt():
    vectors = {"p": [1.0, 0], "q": [0, 1.0], "like p": [0.8, 0.6], "like q": [0, 1.0]}
    assert ex.similarities(lambda texts: torch.tensor([vectors[text] for text in texts]), ["p", "q"],
                           ["like p", "like q"]) == pytest.approx([0.8, 1])


def test_measures_of_each_text_and_of_all(tiny, monkeypatch):
    monkeypatch.setattr(ex, "perplexities", lambda *given: [2.0, 3.0, 100.0])
    monkeypatch.setattr(ex, "similarities", lambda embed, prompts, texts: [len(text) for text in texts])
    tokens = tiny[1]([" A b a b a b", " C d", " a b"])["input_ids"]
    result = ex.measure(*tiny, object(), PROMPTS, tokens)
    assert result["each"] == {"perplexity": [2, 3, 100], "repetition": [pytest.approx(1 / 3), 0, 0],
                              "words": [6, 2, 2], "similarity": [12, 4, 4]}
    assert result["all"]["perplexity"] == 3, "the median"
    assert result["all"]["distinct_1"] == pytest.approx(4 / 10) and result["all"]["words"] == pytest.approx(10 / 3)
    assert result["all"]["distinct_2"] == pytest.approx(3 / 7)
    assert "similarity" not in ex.measure(*tiny, None, PROMPTS, tokens)["all"]


def test_people_s_texts_begin_after_eight_words(tiny):
    prompts, tokens = ex.written_by_people(tiny[1], ["too short", "a b c d e f g h i j"], 2)
    assert prompts == ["a b c d e f g h"] and tokens == [tiny[1](" i")["input_ids"]]


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    results, folder = smoke
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert saved == results and saved["finished"] and saved["run"]["precision"] == "fp32"
    parts, prompts = saved["parts"], sum(DATA["generation"].values(), [])
    assert list(parts) == ["next_token", "strategies", "sentiment", "capitals", "quality"]
    assert list(parts["quality"]) == [*ex.STRATEGIES, "people (reviews)"]
    assert all(len(row["texts"]) == len(prompts) for row in parts["strategies"].values())
    assert parts["quality"]["greedy"]["all"]["perplexity"] < parts["quality"]["sampling"]["all"]["perplexity"]
    assert {p.name for p in folder.glob("*.png")} == {"next_token.png", "cuts.png", "few_shot.png", "diversity.png"}


def test_a_fault_in_part_4_keeps_parts_1_to_3_and_resume_goes_on(smoke, tmp_path, monkeypatch):
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(ex, "measure", lambda *given: 1 / 0)
        ex.main(arguments)
    kept = json.loads((tmp_path / "out" / session.RESULTS).read_text(encoding="utf-8"))["parts"]
    assert list(kept) == ["next_token", "strategies", "sentiment", "capitals"]
    resumed, whole = ex.main([*arguments, "--resume"])["parts"], smoke[0]["parts"]
    assert resumed["quality"] == whole["quality"] and resumed["sentiment"] == whole["sentiment"]


def test_one_prompt_of_one_s_own_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(course_data, "load_sample_prompts", lambda: {**DATA, "generation": {"mine": ["At noon"]}})
    results = ex.main(["--preset", "smoke", "--output", str(tmp_path / "out")])
    assert len(results["parts"]["next_token"]["prompts"]) == 1 and results["finished"]


def test_own_text_is_shown_as_it_grows(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"sea [/b]": ["The ship left"]}), encoding="utf-8")
    arguments = ["--preset", "smoke", "--prompt", "At noon", "--prompts", str(path), "--max-new-tokens", "7"]
    first, again = (ex.main([*arguments, "--temperature", "0.9", "--top-k", "30"])["generations"] for _ in range(2))
    assert first == again and [(a["category"], a["prompt"]) for a in first] == [
        ("--prompt", "At noon"), ("sea [/b]", "The ship left")]
    printed = capsys.readouterr().out
    assert all(answer["text"] and reporting.printable(answer["prompt"] + answer["text"]) in printed
               for answer in first)
    text = ex.main([*arguments, "--strategy", "beam"])["generations"][0]["text"]  # cannot be streamed
    assert reporting.printable("At noon" + text) in capsys.readouterr().out
    monkeypatch.setattr(type(scoring.fetch_model("tiny", "cpu")[2]), "generate", lambda *_, streamer, **__: (
        streamer.put(torch.tensor([[1]])), streamer.put(torch.tensor([65])), streamer.put(torch.tensor([220])), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        ex.main([*arguments, "--strategy", "greedy"])
    assert capsys.readouterr().out.rstrip("\n")[-1] != "n", "the first token should be there before the last one is"


def test_bad_input_is_one_clear_line(tmp_path):
    own, missing = ["--prompt", "At noon"], str(Path(tmp_path / "none"))
    (tmp_path / "list.json").write_text('["a"]', encoding="utf-8")
    for arguments, says in [
        (["--prompt", " "], "is empty"),
        (["--prompt", "ends with "], "'ends with '"),
        (["--prompt", "many words " * 100 + "."], "shorten it"),
        ([*own, "--max-new-tokens", "1018"], "leaves 1017"),
        (["--max-new-tokens", "1018"], "for a continuation"),
        ([*own, "--max-new-tokens", "0"], "at least 1"),
        ([*own, "--temperature", "0"], "use --strategy greedy"),
        ([*own, "--temperature", "nan"], "not a number from 0.001"),
        ([*own, "--top-p", "0"], "above 0 and at most 1"),
        ([*own, "--top-k", "0"], "at least 1"),
        ([*own, "--min-p", "-0.1"], "from 0 to 1"),
        ([*own, "--repetition-penalty", "0"], "from 0.01 to 100"),
        ([*own, "--strategy", "greedy", "--temperature", "0.5"], "does not sample"),
        ([*own, "--strategy", "best"], "invalid choice"),
        (["--strategy", "greedy"], "need --prompt"),
        (["--top-k", "5"], "need --prompt"),
        ([*own, "--resume"], "--resume"),
        (["--prompts", missing], "cannot read"),
        (["--prompts", tmp_path / "list.json"], "should be an object"),
        (["--model", checkpoints.fetch("encoder", "tiny").folder], "needs a decoder"),
        (["--model", missing], "no such folder"),
        (["--data", missing + ".csv"], "none.csv"),
    ]:
        with pytest.raises(UserError) as error:
            ex.main(["--preset", "smoke", "--output", str(tmp_path / "out"), *map(str, arguments)])
        assert says in str(error.value) and "\n" not in str(error.value), f"{arguments}: {error.value}"
    assert not (tmp_path / "out").exists(), "refused arguments must leave no folder behind"


def test_half_a_character_in_a_prompt_is_replaced():
    assert ex.parse(["--prompt", "half \ud800"]).prompt == ["half \ufffd"]


def test_wrong_arguments_do_not_load_torch():
    code = "import sys, ex_02_gpt2_generation as ex\n" \
           "for argv in (['--help'], ['--prompt', ' '], ['--top-p', '2'], ['--prompts', 'none.json']):\n" \
           "    try: ex.main(argv)\n    except (SystemExit, ex.UserError): pass\n" \
           "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "code")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert result.returncode == 0, "wrong arguments must be refused before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_continue_sensibly(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "quick", {"max_new_tokens": 16, "queries": 60})
    monkeypatch.setattr(ex, "SHOTS", (0, 4))
    monkeypatch.setattr(ex, "STRATEGIES", {name: ex.STRATEGIES[name] for name in ("greedy", "sampling", "top-p")})
    parts = ex.main(["--model", "packaged", "--data", "packaged", "--output", str(tmp_path / "out")])["parts"]
    greedy, sampling = (parts["quality"][name]["all"] for name in ("greedy", "sampling"))
    assert greedy["perplexity"] < sampling["perplexity"] and greedy["distinct_2"] < sampling["distinct_2"]
    assert parts["capitals"]["4"]["chosen"]["accuracy"] > 0.5, "most capitals should be known"
    assert parts["sentiment"]["by_shots"]["0"]["calibrated"]["interval"][0] > parts["sentiment"]["majority"]
