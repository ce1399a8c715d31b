"""Exercise 3: behaviour that must hold for any weights and any text, on a tiny random GPT-2."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import ex_03_gpt2_finetuning as ex
from utils import checkpoints, tiny, training
from utils.runtime import REPOSITORY, UserError
from utils.session import Session

SCRIPT = REPOSITORY / "code" / "ex_03_gpt2_finetuning.py"


def story(i: int) -> str:
    """A short text unlike any other: 8 lines of numbers spelt in words."""
    digits = "zero one two three four five six seven eight nine".split()
    return "\n".join(" ".join(digits[int(c)] for c in str(1000 * i + 37 * line)) for line in range(8))


@pytest.fixture(scope="module")
def own_corpus(tmp_path_factory):
    """A folder of 12 short text files."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(12):
        (folder / f"{i}.txt").write_text(story(i + 1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Both methods, one after the other, into one output folder: (results by method, folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return {method: ex.main(arguments(folder, "--method", method)) for method in ex.SAVED}, folder


@pytest.fixture(scope="module")
def tiny_model():
    """(tokenizer, model): a tiny decoder, not training."""
    tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", "tiny"))
    return tokenizer, model.eval()


@pytest.fixture
def short(monkeypatch):
    """Smoke trainings of 32 steps of two blocks, and little to measure."""
    monkeypatch.setitem(ex.PRESETS, "smoke", {
        **ex.PRESETS["smoke"], "train_tokens": 32 * 2 * 64, "test_blocks": 2, "validation_blocks": 2,
        "new_tokens": 4, "samples": 1})


def arguments(folder, *more):
    return ["--preset", "smoke", "--output", str(folder), *map(str, more)]


# Part 1: from documents to blocks


@pytest.mark.parametrize("block_length", [1, 2, 5, 16, 64])
def test_blocks_are_equal_and_lose_only_the_end(block_length):
    documents = [[random.Random(i).randrange(1, 99) for _ in range(i % 7)] for i in range(12)]
    row = [token for document in documents for token in [*document, 0]]
    blocks = ex.pack_blocks(documents, 0, block_length)
    assert {len(block) for block in blocks} <= {block_length}, "a block is ragged or empty"
    assert sum(blocks, []) == row[:len(row) // block_length * block_length], \
        "the blocks, one after the other, must be the documents, each closed by the end of text"


def test_blocks_of_too_little_text_are_none_and_an_exact_fit_is_one():
    assert ex.pack_blocks([], 0, 4) == ex.pack_blocks([[1, 2]], 0, 4) == []
    assert ex.pack_blocks([[1, 2, 3]], 0, 4) == [[1, 2, 3, 0]]


@pytest.mark.parametrize("count", [3, 4, 30])
def test_splits_share_no_document_and_lose_none(count):
    documents = [story(i) * (1 + i % 5) for i in range(count)]
    splits = ex.split_documents(documents, ex.SHARES, 1)
    assert sorted(sum(splits.values(), [])) == sorted(documents), "one is in two splits, or in none"
    assert all(splits.values()), "a split is empty"
    assert splits == ex.split_documents(documents, ex.SHARES, 1)
    if count == 30:
        assert splits != ex.split_documents(documents, ex.SHARES, 2), "the seed should decide"
        share = sum(map(len, splits["test"])) / sum(map(len, documents))
        assert 0.05 < share <= 0.1, f"the test split has {share:.0%} of the text, not at most 10 %"


def test_characteristic_words_are_frequent_here_and_rare_there():
    corpus = ["the statement binds the name", "the statement raises an exception", "a statement, the name"]
    general = ["the film and the music", "a film and an actor", "the plot and the cast of the film"]
    found = ex.characteristic_words(corpus, general, 2)
    assert found == ["statement", "name"], f"{found}: common words say nothing, single ones little"
    many = ex.characteristic_words(["rare " + "often the " * 50], ["the " * 60])
    assert many[0] == "often", "the z-score should weigh how sure a difference is"


def test_each_text_is_closed_by_the_end_of_text_and_nothing_else_is_added(tiny_model):
    tokenizer, _ = tiny_model
    x, y, z = tokenizer("xyz")["input_ids"]
    end = tokenizer.eos_token_id
    assert ex.make_blocks({"train": ["xy", "z"]}, tokenizer, 5) == {"train": [[x, y, end, z, end]]}
    with pytest.raises(UserError, match="the test texts have 1 tokens, and a block 5"):
        ex.make_blocks({"test": ["x"]}, tokenizer, 5)


def test_words_are_lower_case_and_begin_with_a_letter():
    assert ex.words("A Name_1, 2nd Époque!") == ["name_1", "époque"]


def test_characteristic_words_are_ranked_by_the_z_score_of_their_log_odds():
    draw, vocabulary = random.Random(0), [f"word{i}" for i in range(30)]
    ours = draw.choices(vocabulary, weights=range(1, 31), k=300) + ["tie", "equal"]
    others = draw.choices(vocabulary, weights=range(30, 0, -1), k=1000)

    def z_score(word):
        (a, n), (b, m) = ((texts.count(word) + 0.5, len(texts)) for texts in (ours, others))
        log_odds = math.log(a / (n + 1 - a)) - math.log(b / (m + 1 - b))
        return log_odds / math.hypot(a ** -0.5, b ** -0.5)

    ranked = sorted(set(ours), key=lambda word: (-z_score(word), word))
    assert ex.characteristic_words([" ".join(ours)], [" ".join(others)]) == ranked
    assert ranked.index("tie") == ranked.index("equal") + 1


def test_the_corpus_is_described_split_by_split():
    splits = {"train": ["one two", "three"], "test": ["four"]}
    blocks = {"train": [[1, 2], [3, 4]], "test": [[5, 6]], "reviews": [[7, 8]]}
    part = ex.describe(splits, blocks, {"train": ["film"], "test": ["actor"]})
    assert part["splits"] == [
        {"split": "train", "documents": 2, "characters": 12, "blocks": 2, "tokens": 4},
        {"split": "test", "documents": 1, "characters": 4, "blocks": 1, "tokens": 2}]
    assert sorted(part["words"]) == ["one", "three", "two"], "the test split was looked at"


# Part 2: perplexity and continuations


def test_next_token_nll_is_the_loss_that_the_model_learns_from(tiny_model):
    ids = torch.randint(0, 200, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = tiny_model[1](input_ids=ids, labels=ids)
    nll = ex.next_token_nll(output.logits, ids)
    assert nll.shape == (3, 19), "the first token of a row is forecast by nothing"
    torch.testing.assert_close(nll.mean(), output.loss)
    torch.testing.assert_close(nll[1, 4], -output.logits.log_softmax(-1)[1, 4, ids[1, 5]])


def test_perplexity_of_a_uniform_forecast_is_the_size_of_the_vocabulary():
    ids = torch.randint(0, 50, (2, 10))
    assert ex.perplexity(ex.next_token_nll(torch.zeros(2, 10, 50), ids)) == pytest.approx(50)
    assert ex.perplexity(torch.zeros(5)) == 1, "whoever is always right and sure has perplexity 1"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_perplexity_is_measured_in_fp32_on_each_text_without_the_end_of_text(
        tiny_model, monkeypatch, precision):
    monkeypatch.setenv("TRANSFORMERS_COURSE_PRECISION", precision)  # decides the training alone
    tokenizer, model = tiny_model
    end, draw = tokenizer.eos_token_id, torch.Generator().manual_seed(0)
    blocks = {part: torch.randint(1, 200, (5, 32), generator=draw).tolist()
              for part in ("train", "validation", "test", "reviews")}
    blocks["test"][2][7] = blocks["test"][3][31] = end
    settings = SimpleNamespace(test_blocks=4, batch_size=3, seed=1, new_tokens=2, samples=1)
    measured = ex.measure(SimpleNamespace(settings=settings, device="cpu"), tokenizer, model, blocks, ["A"])
    for name, part in (("corpus", "test"), ("reviews", "reviews")):
        ids = torch.tensor(blocks[part][:4])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits.double().log_softmax(-1)
        nll = -log_probs[:, :-1].gather(2, ids[:, 1:, None])[..., 0][ids[:, 1:] != end]
        assert measured["perplexity"][name] == pytest.approx(nll.mean().exp().item(), rel=1e-5), name


def test_continuations_leave_out_the_prompt_and_are_decided_by_the_seed(tiny_model):
    prompts = ["A", "A much longer prompt than that"]
    texts = ex.continuations(tiny_model[1], tiny_model[0], prompts, 3, new_tokens=6, samples=4)
    assert [len(group) for group in texts] == [4, 4]
    assert all(len(text) <= 6 for group in texts for text in group), "new tokens are bytes here"
    assert texts == ex.continuations(tiny_model[1], tiny_model[0], prompts, 3, 6, 4)
    assert texts != ex.continuations(tiny_model[1], tiny_model[0], prompts, 4, 6, 4)


def test_each_prompt_gets_its_own_continuations(tiny_model):
    tokenizer, _ = tiny_model

    def generate(input_ids, num_return_sequences, **options):  # the prompt's last letter once more
        rows = input_ids.repeat_interleave(num_return_sequences, 0)
        return torch.cat([rows, rows[:, -1:]], 1)

    model = SimpleNamespace(device="cpu", generate=generate)
    assert ex.continuations(model, tokenizer, ["a", "bc", "d"], 0, 1, 2) == [["a"] * 2, ["c"] * 2, ["d"] * 2]


def test_the_checkpoints_own_generation_settings_change_nothing(tiny_model, tmp_path):
    tiny.save("decoder", tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "do_sample": True,
                                "repetition_penalty": 9.0, "min_p": 0.9}), encoding="utf-8")
    tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", str(tmp_path)))
    assert (ex.continuations(model.eval(), tokenizer, ["A class"], 1, 20, 1)
            == ex.continuations(tiny_model[1], tiny_model[0], ["A class"], 1, 20, 1))


# Part 3: fine-tuning


@pytest.mark.parametrize("modules, layers, parameters", [
    (None, {"c_attn"}, 2 * 8 * (64 + 192)), ("c_attn, c_fc", {"c_attn", "c_fc"}, 2 * 8 * (64 + 192 + 64 + 256)),
    ("all-linear", {"c_attn", "c_proj", "c_fc"}, 2 * 8 * (64 + 192 + 64 + 64 + 64 + 256 + 256 + 64))])
def test_lora_trains_thin_matrices_and_changes_nothing_at_first(modules, layers, parameters):
    _, model = checkpoints.load_decoder(checkpoints.fetch("decoder", "tiny"))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model.eval()(input_ids=ids).logits
        model = ex.add_lora(model, modules).eval()
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained} == layers
    assert model.num_parameters(only_trainable=True) == parameters


@pytest.mark.parametrize("modules", ["q_proj", "q_proj,c_attn", "", "c_attn,", "attn"])
def test_lora_without_the_named_layers_is_refused(modules):
    _, model = checkpoints.load_decoder(checkpoints.fetch("decoder", "tiny"))
    with pytest.raises(UserError, match="give names out of c_attn, c_fc, c_proj") as error:
        ex.add_lora(model, modules)
    assert "\n" not in str(error.value)


def make_trainer(folder, own_corpus, *more):
    """(session, the exercise's Trainer, blocks) for a short training without dropout."""
    session = Session("ex_03", ex.parse(arguments(folder, *more)))
    tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", "tiny"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    texts = [path.read_text(encoding="utf-8") for path in sorted(own_corpus.glob("*.txt"))]
    blocks = ex.make_blocks({"train": texts[2:], "validation": texts[:2]}, tokenizer, 64)
    return session, ex.make_trainer(session, model, blocks, tokenizer.eos_token_id), blocks


@pytest.mark.slow
def test_small_memory_flags_learn_the_same(short, own_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS["smoke"], "train_tokens", 8 * 2 * 64)
    # Measured after 8 steps: 2e-6 and 0. In bf16 rounding alone, which Adam blows up, gives 6e-3.
    monkeypatch.setenv("TRANSFORMERS_COURSE_PRECISION", "fp32")
    weights = {}
    for i, flags in enumerate([(), ("--batch-size", 1, "--gradient-accumulation", 2),
                               ("--gradient-checkpointing",)]):
        session, trainer, _ = make_trainer(tmp_path / str(i), own_corpus, *flags)
        training.train(trainer, session)
        assert trainer.state.global_step == 8, flags
        weights[i] = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(weights[2], weights[0], atol=1e-5, rtol=0)


def test_each_epoch_shows_all_blocks_anew_and_nothing_is_masked(short, own_corpus, tmp_path):
    _, trainer, blocks = make_trainer(tmp_path / "out", own_corpus)
    loader = trainer.get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert all(batch["labels"].equal(batch["input_ids"]) for batch in batches), "masked or shifted"
        epochs.append([tuple(row) for batch in batches for row in batch["input_ids"].tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(tuple, blocks["train"]))
    assert epochs[0] != epochs[1], "both epochs have the same order"
    assert any(257 - 1 in row for row in epochs[0]), "the end of text is to be learned as well"
    assert [row["input_ids"] for row in trainer.eval_dataset] == blocks["validation"][:2]


# Part 4: what was learned


def test_gain_and_style_are_told_before_from_after():
    before = {"perplexity": {"corpus": 40.0, "reviews": 50.0}, "continuations": [["the film"], ["a film"]]}
    after = {"perplexity": {"corpus": 10.0, "reviews": 60.0}, "continuations": [["the name"], ["a list"]]}
    corpus = {"train": ["name list " * 9 + "the"], "test": ["the name of the film and unseen"]}
    general = {"train": ["film actor " * 9 + "the"], "test": ["the actor of the unseen list"]}
    found = ex.compare(before, after, corpus, general)
    assert found["ratio"] == {"corpus": 0.25, "reviews": 1.2}
    characteristic = set(ex.characteristic_words(corpus["train"], general["train"]))
    assert characteristic == {"name", "list", "the"}
    assert found["style"] == pytest.approx({
        "held-out reviews": 3 / 6, "continuations before": 1 / 3, "continuations after": 3 / 3,
        "held-out corpus": 3 / 7})
    assert ex.style_share([], ["name"]) == ex.style_share(["...", ""], ["name"]) == 0


# Part 5: what it costs


@pytest.mark.parametrize("trains", [True, False])
def test_flops_are_those_that_torch_counts(trains):
    from torch.utils.flop_counter import FlopCounterMode

    layers = torch.nn.Sequential(*(torch.nn.Linear(16, 16, bias=False) for _ in range(4)))
    layers.requires_grad_(trains)
    with FlopCounterMode(display=False) as counter:
        layers(torch.randn(7, 16, requires_grad=True)).sum().backward()
    size = sum(p.numel() for p in layers.parameters())
    assert ex.training_flops(size * trains, size, tokens=7) == counter.get_total_flops()


def test_memory_is_that_of_weights_gradients_and_both_moments():
    model = torch.nn.Sequential(torch.nn.Linear(16, 32, bias=False), torch.nn.Linear(32, 8, bias=False))
    model[0].requires_grad_(False)
    adam = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    model(torch.randn(3, 16)).sum().backward()
    adam.step()
    kept = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None),
            *(state[name] for state in adam.state.values() for name in ("exp_avg", "exp_avg_sq"))]
    assert ex.training_memory(32 * 8, 16 * 32 + 32 * 8) == sum(t.numel() * t.element_size() for t in kept)


def test_larger_models_take_time_and_memory_in_proportion(monkeypatch):
    monkeypatch.setattr(ex, "LARGER", {"ten times": 10_000})
    this, larger = ex.larger_models(250, 1000, tokens=6000, tokens_per_second=50)
    assert this == {"model": "this model", "parameters": 1000, "minutes": pytest.approx(2), "gigabytes": 7e-6}
    assert larger == {"model": "ten times", "parameters": 10_000, "minutes": pytest.approx(20), "gigabytes": 7e-5}


# The script as a whole


def test_results_hold_what_is_promised(smoke, capsys):
    results, folder = smoke
    for method, saved in ex.SAVED.items():
        kept = json.loads((folder / method / "results.json").read_text(encoding="utf-8"))
        assert kept == results[method] and kept["finished"] and kept["exercise"] == "ex_03"
        assert list(kept["parts"]) == ["corpus", "before", "training", "after", "cost"]
        assert {path.name for path in (folder / method).iterdir() if path.name[0] != "."} == {
            "results.json", "comparison.png", "learning_curves.png", saved}
    full, lora = (results[method]["parts"] for method in ("full", "lora"))
    assert full["before"] == lora["before"], "LoRA changed the model before the training"
    assert full["training"]["tokens"] == lora["training"]["tokens"] == 94 * 2 * 64
    assert lora["training"]["saved_mb"] < 0.1 * full["training"]["saved_mb"], "an adapter is small"
    assert lora["training"]["trainable_parameters"] == 4096 < full["training"]["trainable_parameters"]


def test_fine_tuning_lowers_held_out_perplexity_and_the_views_say_so(smoke, capsys):
    results, _ = smoke
    for method, most in (("full", 0.3), ("lora", 0.95)):
        parts = results[method]["parts"]
        before, after = (parts[when]["perplexity"]["corpus"] for when in ("before", "after"))
        assert after / before == parts["after"]["ratio"]["corpus"] < most, method
        validated = [row["eval_perplexity"] for row in parts["training"]["history"] if "eval_perplexity" in row]
        assert parts["training"]["best_validation_perplexity"] == min(validated) < max(validated[1:])
    from views import ex_03 as views

    views.after(results["full"]["parts"]["before"], results["full"]["parts"]["after"], None)
    row = next(line for line in capsys.readouterr().out.splitlines() if " corpus " in line)
    before, after = (results["full"]["parts"][when]["perplexity"]["corpus"] for when in ("before", "after"))
    assert row.split()[3:7:2] == [f"{before:.3f}", f"{after:.3f}"]


def test_both_methods_are_shown_beside_each_other_if_nothing_else_differs(smoke):
    from views import ex_03 as views

    results, folder = smoke
    assert views.finished_run(folder / "full", results["lora"]) == results["full"]
    other = {**results["lora"], "settings": {**results["lora"]["settings"], "seed": 7}}
    assert views.finished_run(folder / "full", other) is None
    assert views.finished_run(folder / "none", results["lora"]) is None


class Killed(BaseException):
    """Stands for kill -9: nothing in the exercise catches it, and the disk stays as it is."""


@pytest.mark.slow
@pytest.mark.parametrize("method, step", [("full", 5), ("full", 17), ("lora", 31)])
def test_killed_and_resumed_is_the_same_as_never_killed(short, own_corpus, tmp_path, monkeypatch, method, step):
    """Killed before the first checkpoint, in the second epoch, and in the third."""
    flags = ("--method", method, "--corpus", own_corpus)
    whole = ex.main(arguments(tmp_path / "whole", *flags))
    assert 24 <= whole["parts"]["corpus"]["splits"][0]["blocks"] <= 28, "31 steps should be in epoch 3"
    tick = training.StepClock.on_step_end

    def die(self, args, state, control, **kwargs):
        tick(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise Killed

    monkeypatch.setattr(training.StepClock, "on_step_end", die)
    with pytest.raises(Killed):
        ex.main(arguments(tmp_path / "killed", *flags))
    monkeypatch.setattr(training.StepClock, "on_step_end", tick)
    with pytest.raises(UserError, match="the interrupted run had seed 42"):
        ex.main(arguments(tmp_path / "killed", *flags, "--resume", "--seed", 7))
    resumed = ex.main(arguments(tmp_path / "killed", *flags, "--resume"))
    assert resumed["parts"]["training"]["resumed_from_step"] == step // 7 * 7
    saved = [next((tmp_path / run / method / ex.SAVED[method]).glob("*.safetensors")).read_bytes()
             for run in ("whole", "killed")]
    assert saved[0] == saved[1], "the resumed run ended with other weights than the uninterrupted one"
    assert resumed["parts"]["after"] == whole["parts"]["after"]
    assert resumed["parts"]["training"]["tokens"] == whole["parts"]["training"]["tokens"]


@pytest.mark.slow
def test_after_the_training_a_resumed_run_does_only_what_is_missing(short, own_corpus, tmp_path, monkeypatch):
    flags = arguments(tmp_path, "--method", "lora", "--corpus", own_corpus)
    with monkeypatch.context() as faulty, pytest.raises(ZeroDivisionError):
        faulty.setattr(ex, "compare", lambda *args: 1 / 0)
        ex.main(flags)
    monkeypatch.setattr(training, "train", lambda *args: pytest.fail("trained twice"))
    parts = ex.main([*flags, "--resume"])["parts"]
    assert parts["after"]["perplexity"] != parts["before"]["perplexity"]


def test_a_diverged_training_is_one_line(short, own_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS["smoke"], "learning_rate", {"full": 1e9})
    with pytest.raises(UserError, match="diverged") as error:
        ex.main(arguments(tmp_path, "--corpus", own_corpus))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_generate_uses_what_was_saved_and_the_seed_decides(smoke, method):
    def texts(seed):
        return ex.main(arguments(smoke[1], "--method", method, "--seed", seed, "--generate", "A class",
                                 "--generate", "If the name"))["continuations"]
    assert texts(1) == texts(1) != texts(2)
    assert all(texts(1))
    after = smoke[0][method]["parts"]["after"]
    _, model = ex.load_trained(ex.parse(arguments(smoke[1], "--method", method)))
    [again] = ex.continuations(model.eval(), checkpoints.load_decoder(checkpoints.fetch("decoder", "tiny"))[0],
                               after["prompts"][:1], 42, 24, 1)
    assert again[0] != smoke[0][method]["parts"]["before"]["continuations"][0][0], "the base model answered"


@pytest.mark.parametrize("method, name", [("full", "model.safetensors"), ("lora", "adapter_model.safetensors"),
                                          ("lora", "adapter_config.json")])
def test_damaged_saved_files_are_one_line(smoke, tmp_path, method, name):
    shutil.copytree(smoke[1], tmp_path / "out")
    path = tmp_path / "out" / method / ex.SAVED[method] / name
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(UserError) as error:
        ex.main(arguments(tmp_path / "out", "--method", method, "--generate", "A class"))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("given, says", [
    (["--batch-size", "0"], "at least 1"),
    (["--method", "adapter"], "invalid choice"),
    (["--block-length", "5000"], "takes 8 to"),
    (["--block-length", "2"], "takes 8 to"),
    (["--block-length", "1000", "--corpus", "SHORT"], "a shorter --block-length"),
    (["--lora-modules", "c_attn"], "add --method lora"),
    (["--model", "ENCODER"], "decoder"),
    (["--corpus", "none.txt"], "no such file or folder"),
    (["--output", "NEW", "--resume"], "no run to resume"),
    (["--output", "FINISHED", "--resume", "--seed", "7"], "had seed 42"),
    (["--generate", "A class", "--output", "NEW"], "no trained model"),
    (["--generate", " ", "--output", "FINISHED"], "empty"),
    (["--generate", "word " * 300, "--output", "FINISHED"], "has room"),
])
def test_bad_input_is_one_clear_line(smoke, tmp_path, own_corpus, given, says):
    places = {"FINISHED": smoke[1], "NEW": tmp_path / "new", "SHORT": own_corpus,
              "ENCODER": checkpoints.fetch("encoder", "tiny").folder}
    with pytest.raises(UserError) as error:
        ex.main(arguments(tmp_path / "out", *(places.get(word, word) for word in given)))
    assert says in str(error.value) and "\n" not in str(error.value), error.value
    assert not (tmp_path / "out").exists(), "a refused run should leave nothing behind"


def test_help_does_not_load_torch():
    code = "import sys, ex_03_gpt2_finetuning as ex\ntry: ex.main(['--help'])\nexcept SystemExit: pass\n" \
           "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
                            capture_output=True)
    assert result.returncode == 0, "--help must answer before the heavy libraries are imported"


@pytest.mark.real
def test_real_weights_learn_the_python_reference(tmp_path, monkeypatch):
    monkeypatch.setitem(ex.PRESETS, "quick", {**ex.PRESETS["quick"], "train_tokens": 6_000, "test_blocks": 4,
                                              "validation_blocks": 2, "new_tokens": 10, "samples": 1})
    gain = ex.main(["--model", "packaged", "--output", str(tmp_path / "out")])["parts"]["after"]["ratio"]["corpus"]
    assert gain < 0.9, f"held-out perplexity is {gain:.2f} of the base model's after 6,000 tokens"
