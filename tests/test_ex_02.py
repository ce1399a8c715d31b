"""Exercise 2: each idea on numbers to check by hand, the script on a tiny random model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
import transformers as library

import ex_02_gpt2_generation as ex
from utils import checkpoints, course_data, embedding, reporting, scoring, session
from utils.runtime import REPOSITORY, UserError
from views import ex_02 as views

PROMPTS = ["The sky looks blue because", "When Clara opened the letter,", "At noon"]
DATA = course_data.load_sample_prompts()
LABELS = ("positive", "negative", "negative", "positive", "positive")
TASK = {"instruction": "Do it.", "template": "Text: {text}\nLabel:", "content_free": ["N/A", ""],
        "labels": {"negative": ["bad", "poor"], "positive": ["good", "rich"]},
        "examples": [{"text": f"e{i}", "label": label} for i, label in enumerate(LABELS)]}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run: (results, output folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return ex.main(["--preset", "smoke", "--output", str(folder)]), folder


def sharpened(model):
    """With sharper logits than random weights have, so that no two tie."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def tiny():
    """(model, tokenizer): a random GPT-2 whose tokens are characters."""
    _, tokenizer, model = scoring.fetch_model("tiny", "cpu")
    return sharpened(model), tokenizer


# Part 1

EDGES = {"random": torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 3,
         "one has it all": torch.full((1, 50), -1e3).index_fill(1, torch.tensor(7), 1e3),
         "all equal": torch.zeros(1, 50), "one token": torch.zeros(1, 1),
         "ties": torch.tensor([[2.0, 1, 1, 1, 0, 0, 2, -5]])}


@pytest.mark.parametrize("name", EDGES)
def test_filters_agree_with_the_library_but_where_top_k_meets_ties(name):
    logits = EDGES[name]
    pairs = [(ex.apply_temperature(logits, 0.1), library.TemperatureLogitsWarper(0.1))]
    for p in (0.0, 0.05, 0.3, 0.9, 1.0):
        pairs += [(ex.keep_top_p(logits, p), library.TopPLogitsWarper(p)),
                  (ex.keep_min_p(logits, p), library.MinPLogitsWarper(p))]
    pairs += [(ex.keep_top_k(logits, k), library.TopKLogitsWarper(k)) for k in (1, 2, 50, 10_000)
              if name == "random" or k >= 50]
    for ours, warper in pairs:
        assert torch.equal(ours, warper(None, logits.clone())), f"{warper} {vars(warper)} differs"
        assert ours.isfinite().any(-1).all(), "nothing is left to choose from"
    two = ex.keep_top_k(logits, 2).isfinite().sum(-1)
    assert (two == min(2, logits.shape[-1])).all(), "exactly k"


def test_filters_on_known_numbers_leave_their_input_alone():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    before = logits.clone()
    for left, kept in ((ex.keep_top_p(logits, 0.6), 2), (ex.keep_min_p(logits, 0.5), 2),
                       (ex.keep_top_k(logits, 1), 1)):
        assert torch.equal(left[:kept], before[:kept]) and not left[kept:].isfinite().any()
    assert torch.equal(logits, before), "a filter must not change the logits that it was given"


def test_entropy_of_known_distributions():
    assert ex.entropy(torch.zeros(4)).item() == pytest.approx(2), "four equal chances have two bits"
    assert ex.entropy(torch.tensor([0.0, -math.inf])).item() == 0, "a certain token has none"
    assert ex.entropy(torch.zeros(2, 3, 4)).tolist() == [[2, 2, 2]] * 2, "each row has its own"


def test_the_next_token_is_what_the_last_position_predicts(tiny):
    model, tokenizer = tiny
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])).logits
    torch.testing.assert_close(ex.next_token_logits(*tiny, PROMPTS[0]), logits[0, -1])
    assert logits.dtype == torch.float32, "what is shown as exact is computed in fp32"


def test_one_step_reports_tokens_temperatures_and_filters(tiny, monkeypatch):
    peaks = {"sure": 9.0, "unsure": 0.1, "between": 3.0}
    monkeypatch.setattr(ex, "next_token_logits", lambda model, tokenizer, prompt:
                        torch.arange(100, 0, -1) / 100 * peaks[prompt])
    sure, unsure = ex.surest_and_least_sure(*tiny, list(peaks))
    assert (sure["prompt"], unsure["prompt"]) == ("sure", "unsure")
    assert sure["tokens"][:2] == [tiny[1].decode([0]), tiny[1].decode([1])]
    cold, plain, warm = sure["temperatures"].values()
    assert cold["entropy"] < plain["entropy"] < warm["entropy"]
    assert cold["probs"][0] > plain["probs"][0] == sure["prob_at_rank"][0] > warm["probs"][0]
    for name, kept in sure["filters"].items():
        more = unsure["filters"][name]["tokens"] - kept["tokens"]
        assert more == 0 if name.startswith("top-k") else more > 0, f"{name} should adapt, or not"
    assert 0.9 <= sure["filters"]["top-p, p = 0.9"]["probability"] < 0.95


# Part 2


@pytest.mark.parametrize("strategy", ["greedy", "repetition-penalty", "beam"])
def test_batching_does_not_change_the_text(tiny, strategy):
    decoding = ex.STRATEGIES[strategy]
    together = ex.generate(*tiny, PROMPTS, decoding, 20, seed=0)
    alone = [ex.generate(*tiny, [prompt], decoding, 20, seed=0)[0] for prompt in PROMPTS]
    assert together == alone, "its neighbours changed a prompt's text: is padding masked?"
    assert together == ex.generate(*tiny, PROMPTS, decoding, 20, seed=0, batch_size=2)
    assert len({tuple(row) for row in together}) == 3, "one text for all: this test sees nothing"


@pytest.mark.parametrize(("strategy", "penalty"), [("greedy", 1.0), ("repetition-penalty", 1.2)])
def test_each_step_takes_the_likeliest_token_and_penalises_generated_ones(tiny, strategy, penalty):
    model, tokenizer = tiny
    for prompt, tokens in zip(PROMPTS, ex.generate(*tiny, PROMPTS, ex.STRATEGIES[strategy], 12, seed=0), strict=True):
        ids, made = tokenizer(prompt)["input_ids"], []
        for token in tokens:
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
    assert text(1, cold) == text(2, cold) == text(0, ex.STRATEGIES["greedy"]), "cold is greedy"


def test_nothing_of_the_checkpoint_s_own_settings_leaks_in():
    folder = checkpoints.fetch("decoder", "tiny").folder
    library.GenerationConfig(do_sample=True, top_k=1, repetition_penalty=9.0, max_length=3,
                             no_repeat_ngram_size=1).save_pretrained(folder)
    _, tokenizer, model = scoring.fetch_model(str(folder), "cpu")
    greedy, sampled = (ex.generate(model, tokenizer, ["At"], ex.STRATEGIES[name], 12, seed=0)[0]
                       for name in ("greedy", "sampling"))
    assert len(greedy) == 12 > len(set(greedy)), "generation_config.json changed the text"
    assert len(set(sampled)) > 1


def test_text_ends_at_the_end_token_and_every_strategy_is_asked(tiny, monkeypatch):
    assert ex.cut_at_end([5, 6, 0, 0], 0) == [5, 6, 0]
    assert ex.cut_at_end([0, 5], 0) == [0] and ex.cut_at_end([5, 6], 0) == [5, 6]
    asked = []
    monkeypatch.setattr(
        ex, "generate", lambda *given: asked.append(given[3:]) or [[65, len(asked)]])
    result = ex.compare_strategies(*tiny, ["x"], 7, seed=3)
    assert asked == [(decoding, 7, 3) for decoding in ex.STRATEGIES.values()]
    assert result["beam"]["tokens"] == [[65, 2]]
    assert result["beam"]["texts"] == [tiny[1].decode([65, 2])]


# Part 3


def test_prompts_are_as_the_data_file_wants_them():
    prompt = ex.few_shot_prompt("Do it.", TASK["template"], [("a {b}", "yes"), ("c", "no")], "d")
    assert prompt == "Do it.\n\nText: a {b}\nLabel: yes\n\nText: c\nLabel: no\n\nText: d\nLabel:"
    assert ex.few_shot_prompt("Do it.", TASK["template"], [], "d") == "Do it.\n\nText: d\nLabel:"
    shots = "Do it.\n\nText: e1\nLabel: bad\n\nText: e0\nLabel: good\n\n"
    assert ex.sentiment_prompts(TASK, (1, 0), ("bad", "good"), ["q", "r"]) == [
        f"{shots}Text: q\nLabel:", f"{shots}Text: r\nLabel:"]


def test_a_label_s_log_prob_is_the_sum_of_its_tokens_after_the_prompt(tiny):
    model, tokenizer = tiny
    ids, expected = tokenizer("A film.\nSentiment:")["input_ids"], 0.0
    for token in tokenizer(" bad")["input_ids"]:
        with torch.no_grad():
            expected += model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item()
        ids.append(token)
    scored = ex.label_log_prob(*tiny, "A film.\nSentiment:", "bad")
    assert scored == pytest.approx(expected, abs=1e-4)
    logits = torch.tensor([[[0.7, 0.3], [0.1, 0.9]]]).log()
    torch.testing.assert_close(ex.token_log_probs(logits, torch.tensor([[0, 0]])), logits[..., 0])


def family(kind: str, tiny):
    """A random model of some family, over the tiny model's tokens."""
    if kind == "GPT-2":
        return tiny[0]
    if kind == "older":  # the key-value cache has the name that it had before transformers 5.24
        class Older(library.GPT2LMHeadModel):
            def forward(self, input_ids, past_key_values=None, **options):
                cache = {scoring.cache_name(tiny[0]): past_key_values}
                return super().forward(input_ids, **cache, **options)
        model = Older(tiny[0].config)
        model.load_state_dict(tiny[0].state_dict())
        return model.eval()
    shape = {"vocab_size": len(tiny[1]), "hidden_size": 32, "num_hidden_layers": 2}
    config = {"Bloom": lambda: library.BloomConfig(**shape, n_layer=2, n_head=4),
              "Gemma": lambda: library.Gemma3TextConfig(
                  **shape, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=8, sliding_window=24)}[kind]()
    return sharpened(library.AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("kind", ["GPT-2", "older", "Bloom", "Gemma"])
def test_fast_label_scores_are_those_of_each_label_alone(tiny, kind):
    model, labels = family(kind, tiny), ["positive", "bad", "x"]
    reviews = [f"Review: {text}\nSentiment:" for text in ("good", "evil", "", "a long film")]
    for prompts in reviews, ["no", "common", "beginning at all"], ["one"], ["twice", "twice"]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            scores = scoring.score_labels(model, tiny[1], prompts, labels, batch_size=3)
        alone = [[ex.label_log_prob(model, tiny[1], prompt, label) for label in labels]
                 for prompt in prompts]
        torch.testing.assert_close(scores, torch.tensor(alone), atol=1e-3, rtol=0)


def test_calibration_takes_away_a_constant_bias_and_nothing_else():
    fair = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    biased = (fair * torch.tensor([1.0, 9.0])).log()
    assert biased.argmax(-1).tolist() == [1, 1]
    nothing = torch.tensor([[0.1, 0.9], [0.1, 0.9]]).log()
    torch.testing.assert_close(ex.calibrate(biased, nothing), fair)
    torch.testing.assert_close(ex.calibrate(fair.log(), torch.tensor([[0.5, 0.5]]).log()), fair)


def test_the_judge_counts_right_answers_and_positive_ones():
    scores = torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, -2.0], [0.0, -3.0], [0.0, -3.0]])
    result = ex.judge(scores, [0, 0, 0, 1, 1])
    assert (result["accuracy"], result["says_positive"]) == (0.4, 0.2)
    assert result["interval"][0] < 0.4 < result["interval"][1]


def test_answers_are_calibrated_by_what_is_said_without_content(monkeypatch):
    # Always "positive", about q and s by little; and without content as well, so their answers turn.
    says = {"q": [0.4, 0.6], "r": [0.1, 0.9], "s": [0.22, 0.78],
            "N/A": [0.2, 0.8], "": [0.2, 0.8]}
    monkeypatch.setattr(ex, "score_labels", lambda model, tokenizer, prompts, words: torch.tensor(
        [says[prompt.split("Text: ")[-1].removesuffix("\nLabel:")] for prompt in prompts]).log())
    queries = {"text": ["q", "r", "s"], "label": [0, 1, 0]}
    result = ex.classify(None, None, TASK, queries, (0,), ("bad", "good"))
    assert {name: (row["accuracy"], row["says_positive"]) for name, row in result.items()} == {
        "plain": (1 / 3, 1.0), "calibrated": (1.0, 1 / 3)}


def test_prompts_differ_in_one_thing_at_a_time():
    ways, few, words = ex.ways_to_ask(TASK), (0, 1, 2, 3), ("bad", "good")
    assert ways["by_shots"] == {str(k): (tuple(range(k)), words) for k in (0, 1, 2, 4)}
    assert {name: shots for name, (shots, _) in ways["by_order"].items()} == {
        "+--+": few, "++--": (0, 3, 1, 2), "--++": (1, 2, 0, 3), "+-+-": (0, 1, 3, 2),
        "-+-+": (2, 3, 1, 0)}
    assert ways["by_words"] == {"bad/good": (few, words), "poor/rich": (few, ("poor", "rich"))}


def test_sentiment_is_asked_of_test_reviews_and_the_majority_label_is_training_s(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(ex, "classify", lambda *given: asked.append(given[3:]))
    reviews = {"train": {"text": ["a"] * 3, "label": [0, 0, 1]},
               "test": {"text": ["x" * 300, "y", "z"], "label": [1, 1, 0]}}
    result = ex.sentiment_by_prompt(*tiny, TASK, reviews)
    assert result["majority"] == pytest.approx(1 / 3), "0 is the majority label in training only"
    assert asked[0][0] == {"text": ["x" * 200, "y", "z"], "label": [1, 1, 0]}
    assert len(asked) == len({way for _, *way in asked for way in [tuple(way)]}) == 9, "asked once"
    assert result["queries"] == 3 and list(result["by_words"]) == ["bad/good", "poor/rich"]


def test_capitals_are_chosen_and_said(tiny, monkeypatch):
    task = {**TASK, "examples": [{"text": "France", "label": "Paris"}], "queries": [
        {"text": "Italy", "label": "Rome"}, {"text": "Spain", "label": "Madrid"},
        {"text": "Cuba", "label": "Havana"}]}
    prompts = []
    scores = torch.tensor([[0.0, -1, -9], [1, -1, -2], [-3, -2, -1]])  # Rome, Rome, Havana
    monkeypatch.setattr(ex, "score_labels", lambda *given: prompts.append(given[2]) or scores)
    monkeypatch.setattr(ex, "generate", lambda *given: tiny[1](
        [" Rome\n", " in Madrid", " Paris"])["input_ids"])
    result = ex.capitals_by_prompt(*tiny, task, seed=0)
    assert prompts[1][1] == "Do it.\n\nText: France\nLabel: Paris\n\nText: Spain\nLabel:"
    assert result["0"]["chosen"]["accuracy"] == pytest.approx(2 / 3)
    assert result["0"]["said"]["accuracy"] == pytest.approx(1 / 3)
    assert result["0"]["missed"] == [["Spain", "in Madrid"], ["Cuba", "Paris"]]


# Part 4


def test_perplexity_counts_the_continuation_only(tiny):
    uniform, ids = torch.zeros(1, 5, 4), torch.tensor([[0, 1, 2, 3, 0]])
    assert ex.perplexity(uniform, ids, torch.ones(1, 5)).item() == pytest.approx(4)
    (model, tokenizer), continuations = tiny, [[5, 9, 7], [7, 3, 3, 8, 1, 2], [4]]
    values = ex.perplexities(*tiny, PROMPTS, continuations, batch_size=2)
    for prompt, tokens, value in zip(PROMPTS, continuations, values, strict=True):
        before = tokenizer(prompt)["input_ids"]
        labels = torch.tensor([[-100] * len(before) + tokens])  # the library shifts them by itself
        with torch.no_grad():
            loss = model(torch.tensor([before + tokens]), labels=labels).loss
        assert value == pytest.approx(loss.exp().item(), rel=1e-4)


def test_diversity_and_repetition_of_known_texts():
    assert ex.distinct_n([["a", "b", "a"]], 1) == pytest.approx(2 / 3)
    assert ex.distinct_n([["a", "b"], ["a", "b"]], 2) == 0.5, "n-grams of all texts together"
    assert ex.distinct_n([["a", "b"], ["c", "d"]], 2) == 1
    assert ex.distinct_n([["a", "b"], ["a", "b"], ["b", "a"]], 2) == pytest.approx(2 / 3), \
        "no n-gram crosses from one text to the next"
    assert ex.distinct_n([[], ["a"]], 2) == 0
    assert ex.repeated_share("a b c d a b c d".split()) == pytest.approx(1 / 5)
    assert ex.repeated_share("a b c".split()) == 0
    assert ex.repeated_share(["a"] * 23) == pytest.approx(19 / 20)


@pytest.mark.parametrize("pool", [ex.mean_pool, embedding.mean_pool])
def test_pooled_vectors_ignore_padding(pool):
    states = torch.tensor([[[1.0, 0], [0, 1], [50, 0]], [[0, 2], [0, 4], [0, 6]]])
    vectors = pool(states, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]]))


def test_sentence_vectors_do_not_depend_on_the_batch():
    embed, texts = embedding.fetch("tiny")[0], ["the film was dull", "", "a plot " * 200, "banana"]
    vectors = embed(texts, batch_size=2)
    assert abs(vectors - [embed([text])[0] for text in texts]).max() < 1e-5
    assert abs((vectors**2).sum(-1) - 1).max() < 1e-5 and embed([]).shape == (0, 64)


def test_a_text_is_compared_with_its_own_prompt():
    vectors = {"p": [1.0, 0], "q": [0, 1.0], "like p": [0.8, 0.6], "like q": [0, 1.0]}
    found = ex.similarities(lambda texts: torch.tensor([vectors[text] for text in texts]),
                            ["p", "q"], ["like p", "like q"])
    assert found == pytest.approx([0.8, 1])


def test_measures_of_each_text_and_of_all(tiny, monkeypatch):
    monkeypatch.setattr(ex, "perplexities", lambda *given: [2.0, 3.0, 100.0])
    monkeypatch.setattr(ex, "similarities", lambda embed, prompts, texts: list(map(len, texts)))
    tokens = tiny[1]([" A b a b a b", " C d", " a b"])["input_ids"]
    result = ex.measure(*tiny, object(), PROMPTS, tokens)
    assert result["each"] == {"perplexity": [2, 3, 100], "repetition": [pytest.approx(1 / 3), 0, 0],
                              "words": [6, 2, 2], "similarity": [12, 4, 4]}
    assert result["all"] == pytest.approx({
        "perplexity": 3, "distinct_1": 4 / 10, "distinct_2": 3 / 7, "repetition": 1 / 9,
        "words": 10 / 3, "similarity": 20 / 3})
    assert "similarity" not in ex.measure(*tiny, None, PROMPTS, tokens)["all"]


def test_what_people_wrote_is_measured_after_eight_words_of_the_longest_reviews(tiny, monkeypatch):
    reviews = ["too short"] + [f"a b c d e f g h i j {'k ' * n}" for n in range(21)]
    prompts, tokens = ex.written_by_people(tiny[1], reviews, 2)
    assert prompts == ["a b c d e f g h"] * 20 and tokens == [tiny[1](" i")["input_ids"]] * 20
    assert ex.written_by_people(tiny[1], reviews, 99)[1][0] == tiny[1](" i j k")["input_ids"]
    monkeypatch.setattr(ex, "measure", lambda *given: given[3:])
    rows = {name: {"tokens": [[i]]} for i, name in enumerate(ex.STRATEGIES)}
    result = ex.quality(*tiny, None, ["p"], rows, reviews, 2)
    assert result["beam"] == (["p"], [[1]]) and result["people (reviews)"] == (prompts, tokens)
    assert list(ex.quality(*tiny, None, ["p"], rows, ["too short"], 2)) == list(ex.STRATEGIES)


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    results, folder = smoke
    saved = json.loads((folder / session.RESULTS).read_text(encoding="utf-8"))
    assert saved == results and saved["finished"] and saved["run"]["precision"] == "fp32"
    parts = saved["parts"]
    assert list(parts) == ["next_token", "strategies", "sentiment", "capitals", "quality"]
    assert list(parts["quality"]) == [*ex.STRATEGIES, "people (reviews)"]
    greedy, sampling = (parts["quality"][name]["all"] for name in ("greedy", "sampling"))
    assert greedy["perplexity"] < sampling["perplexity"]
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == {"next_token", "cuts", "few_shot", "diversity"}


@pytest.mark.slow
def test_a_fault_in_part_4_keeps_parts_1_to_3_of_a_single_prompt(tmp_path, monkeypatch):
    capitals = {**DATA["few_shot"]["capitals"], "queries": DATA["few_shot"]["capitals"]["queries"][:2]}
    data = {**DATA, "generation": {"mine": ["At noon"]}, "few_shot": {**DATA["few_shot"], "capitals": capitals}}
    monkeypatch.setattr(course_data, "load_sample_prompts", lambda: data)
    monkeypatch.setitem(ex.PRESETS["smoke"], "queries", 2)  # the order is in question, not the figures
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(ex, "measure", lambda *given: 1 / 0)
        ex.main(arguments)
    kept = json.loads((tmp_path / "out" / session.RESULTS).read_text(encoding="utf-8"))["parts"]
    assert list(kept) == ["next_token", "strategies", "sentiment", "capitals"]
    assert [step["prompt"] for step in kept["next_token"]["prompts"]] == ["At noon"]
    monkeypatch.setattr(ex, "generate", lambda *given: 1 / 0)  # nothing is done twice
    parts = ex.main([*arguments, "--resume"])["parts"]
    assert parts == {**kept, "quality": parts["quality"]} and "beam" in parts["quality"]


@pytest.mark.parametrize("flags", [["--temperature", "9", "--top-k", "30"], ["--strategy", "beam"]])
def test_own_text_is_shown_and_returned(tmp_path, capsys, flags):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"sea [/b]": ["The ship left"]}), encoding="utf-8")
    command = ["--preset", "smoke", "--prompt", "At \ud800 noon", "--prompts", str(path), *flags]
    first, again = (ex.main([*command, "--max-new-tokens", "7"])["generations"] for _ in range(2))
    assert first == again and [(row["category"], row["prompt"]) for row in first] == [
        ("--prompt", "At \ufffd noon"), ("sea [/b]", "The ship left")]
    printed = capsys.readouterr().out
    assert all(row["text"] and reporting.printable(row["prompt"] + row["text"]) in printed
               for row in first)


def test_own_text_is_shown_as_it_grows(tiny, monkeypatch):
    seen, streamer = [], views.streamer(tiny[1])
    monkeypatch.setattr("builtins.print", lambda text, **_: seen.append(text))
    tokens = ex.generate(*tiny, ["a b"], ex.STRATEGIES["sampling"], 60, 0, streamer)[0]
    text = tiny[1].decode(tokens, skip_special_tokens=True)
    assert "".join(seen) == reporting.printable(text), "the prompt is left out, nothing else"
    assert len([piece for piece in seen if piece]) > 1


def test_bad_input_is_one_clear_line(tiny, tmp_path):
    own, missing = ["--prompt", "At noon"], str(tmp_path / "none")
    (tmp_path / "list.json").write_text('["a"]', encoding="utf-8")
    tiny[1].save_pretrained(tmp_path / "mamba")
    config = library.MambaConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, state_size=4)
    library.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mamba")
    for arguments, says in [
        (["--prompt", " "], "is empty"),
        (["--prompt", "ends with "], "'ends with '"),
        (["--prompt", "many words " * 100 + "."], "shorten it"),
        ([*own, "--max-new-tokens", "1018"], "leaves 1017"),
        (["--max-new-tokens", "1018"], "for a continuation"),
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
        (["--model", tmp_path / "mamba"], "key-value cache"),
        (["--data", missing + ".csv"], "none.csv"),
    ]:
        with pytest.raises(UserError) as error:
            ex.main(["--preset", "smoke", "--output", str(tmp_path / "out"), *map(str, arguments)])
        line = str(error.value)
        assert says in line and "\n" not in line, f"{arguments}: {line}"
    assert not (tmp_path / "out").exists(), "refused arguments must leave no folder behind"


def test_wrong_arguments_do_not_load_torch():
    code = """
import sys, ex_02_gpt2_generation as ex
for argv in (["--help"], ["--prompt", " "], ["--top-p", "2"], ["--prompts", "none.json"]):
    try:
        ex.main(argv)
    except (SystemExit, ex.UserError):
        pass
sys.exit(bool({"torch", "transformers", "numpy"} & set(sys.modules)))"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "code")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert result.returncode == 0, "refuse wrong arguments before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_continue_sensibly(tmp_path, monkeypatch):
    few = {name: ex.STRATEGIES[name] for name in ("greedy", "sampling", "top-p")}
    monkeypatch.setitem(ex.PRESETS, "quick", {"max_new_tokens": 16, "queries": 60})
    monkeypatch.setattr(ex, "SHOTS", (0, 4))
    monkeypatch.setattr(ex, "STRATEGIES", few)
    parts = ex.main(["--model", "packaged", "--data", "packaged",
                     "--output", str(tmp_path / "out")])["parts"]
    greedy, sampling = (parts["quality"][name]["all"] for name in ("greedy", "sampling"))
    assert greedy["perplexity"] < sampling["perplexity"]
    assert greedy["distinct_2"] < sampling["distinct_2"]
    assert parts["capitals"]["4"]["chosen"]["accuracy"] > 0.5, "most capitals should be known"
    calibrated = parts["sentiment"]["by_shots"]["0"]["calibrated"]
    assert calibrated["interval"][0] > parts["sentiment"]["majority"]
