"""Exercise 3: behaviour that must hold for any weights and any text, on a tiny random GPT-2."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys

import pytest
import torch

import ex_03_gpt2_finetuning as ex
from utils import checkpoints, corpora, tiny, training
from utils.runtime import REPOSITORY, UserError

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
    """Both methods, one after the other, in one output folder: (results by method, folder)."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    return {method: ex.main(["--preset", "smoke", "--method", method, "--output", str(folder)])
            for method in ("full", "lora")}, folder


@pytest.fixture(scope="module")
def tiny_model():
    """A tiny decoder without dropout, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = checkpoints.find("decoder", "tiny")
    return (checkpoints.load(AutoModelForCausalLM, found).eval(), checkpoints.load(AutoTokenizer, found))


def arguments(folder, *more):
    return ["--preset", "smoke", "--output", str(folder), *map(str, more)]


# The functions that a student should understand


@pytest.mark.parametrize("block_length", [1, 2, 5, 16, 64])
def test_blocks_are_equal_and_lose_only_the_end(block_length):
    documents = [[random.Random(i).randrange(1, 99) for _ in range(i % 7)] for i in range(12)]
    row = [token for document in documents for token in [*document, 0]]
    blocks = ex.pack_blocks(documents, 0, block_length)
    assert {len(block) for block in blocks} <= {block_length}, "a block is ragged or empty"
    assert [token for block in blocks for token in block] == row[:len(row) // block_length * block_length], \
        "the blocks, one after the other, must be the documents, each closed by the end-of-text token"


def test_blocks_of_too_little_text_are_none_and_an_exact_fit_is_one():
    assert ex.pack_blocks([], 0, 4) == ex.pack_blocks([[1, 2]], 0, 4) == []
    assert ex.pack_blocks([[1, 2, 3]], 0, 4) == [[1, 2, 3, 0]]


@pytest.mark.parametrize("count", [3, 4, 30])
def test_splits_share_no_document_and_lose_none(count):
    documents = [story(i) * (1 + i % 5) for i in range(count)]
    splits = ex.split_documents(documents, ex.SHARES, 1)
    assert sorted(sum(splits.values(), [])) == sorted(documents), "a document is in two splits, or in none"
    assert all(splits.values()), "a split is empty"
    assert splits == ex.split_documents(documents, ex.SHARES, 1)
    if count == 30:
        assert splits != ex.split_documents(documents, ex.SHARES, 2), "the seed should decide the splits"
        share = sum(map(len, splits["test"])) / sum(map(len, documents))
        assert 0.05 < share <= 0.1, f"the test split has {share:.0%} of the text instead of at most 10 %"


def test_next_token_nll_is_the_loss_that_the_model_learns_from(tiny_model):
    model, _ = tiny_model
    ids = torch.randint(0, 200, (3, 20), generator=torch.Generator().manual_seed(0))
    output = model(input_ids=ids, labels=ids)
    nll = ex.next_token_nll(output.logits, ids)
    assert nll.shape == (3, 19), "the first token of a row is forecast by nothing"
    torch.testing.assert_close(nll.mean(), output.loss)
    by_hand = -output.logits.log_softmax(-1)[1, 4, ids[1, 5]]
    torch.testing.assert_close(nll[1, 4], by_hand)


def test_perplexity_of_a_uniform_forecast_is_the_size_of_the_vocabulary():
    ids = torch.randint(0, 50, (2, 10))
    assert ex.perplexity(ex.next_token_nll(torch.zeros(2, 10, 50), ids)) == pytest.approx(50)
    assert ex.perplexity(torch.zeros(5)) == 1, "whoever is always right and sure has perplexity 1"


def test_held_out_perplexity_does_not_depend_on_batches_and_leaves_out_the_end_of_text(tiny_model):
    model, _ = tiny_model
    blocks = torch.randint(1, 200, (5, 32), generator=torch.Generator().manual_seed(0)).tolist()
    one, four = (ex.held_out_perplexity(model, blocks, 0, batch_size=n) for n in (1, 4))
    assert one == pytest.approx(four, rel=1e-4)
    ids = torch.tensor(blocks)
    with torch.no_grad():
        nll = ex.next_token_nll(model(input_ids=ids).logits, ids)
    token = blocks[2][7]
    assert ex.held_out_perplexity(model, blocks, token, 4) == pytest.approx(ex.perplexity(nll[ids[:, 1:] != token]))


def test_characteristic_words_are_frequent_here_and_rare_there():
    corpus = ["the statement binds the name", "the statement raises an exception", "a statement and the name once"]
    general = ["the film and the music", "a film and an actor", "the plot and the cast of the film"]
    found = ex.characteristic_words(corpus, general, 2)
    assert found == ["statement", "name"], f"{found}: common words of both texts say nothing, single words little"


def test_training_order_visits_all_in_each_epoch_and_is_decided_by_the_seed():
    order = ex.training_order(10, 25, seed=3)
    assert len(order) == 25 and sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20], "both epochs have the same order"
    assert order == ex.training_order(10, 25, seed=3) != ex.training_order(10, 25, seed=4)
    assert ex.training_order(10, 12, seed=3) == order[:12], "a longer training must begin like a shorter one"


def test_parameters_are_counted_once_and_flops_are_6nd(tiny_model):
    model, _ = tiny_model
    assert model.lm_head.weight is model.transformer.wte.weight, "GPT-2 shares this matrix"
    assert ex.count_parameters(model) == (model.num_parameters(), model.num_parameters())
    assert ex.training_flops(100, 100, 7) == 6 * 100 * 7
    assert ex.training_flops(0, 100, 7) == 4 * 100 * 7


# LoRA


def test_lora_trains_thin_matrices_and_changes_nothing_at_first():
    from transformers import AutoModelForCausalLM

    model = checkpoints.load(AutoModelForCausalLM, checkpoints.find("decoder", "tiny")).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model = ex.add_lora(model, None).eval()
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and "c_attn" in name for name in trained), trained
    trainable, total = ex.count_parameters(model)
    assert 2 * ex.LORA_RANK * (64 + 192) == trainable < 0.05 * total


def test_lora_without_the_named_layers_is_refused(tiny_model):
    with pytest.raises(UserError, match="no linear layer called q_proj; it has c_attn, c_fc, c_proj"):
        ex.add_lora(tiny_model[0], "q_proj,c_attn")


# Training


def trained_weights(folder, *more):
    """The parameters after a smoke training without dropout, and the Trainer."""
    args = ex.parse_arguments(arguments(folder, *more))
    setup = ex.prepare(args)
    for module in setup.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer = ex.make_trainer(setup, args)
    training.train(trainer, None)
    setup.output.release()
    return torch.cat([p.detach().flatten() for p in setup.model.parameters()]), trainer


@pytest.fixture
def short(monkeypatch):
    """Smoke trainings of 15 steps of two blocks, on few held-out blocks."""
    monkeypatch.setitem(ex.PRESETS, "smoke", {**ex.PRESETS["smoke"], "train_tokens": 15 * 2 * 64, "test_blocks": 2,
                                              "validation_blocks": 2, "new_tokens": 4, "samples": 1})


def test_small_memory_flags_learn_the_same(short, own_corpus, tmp_path):
    corpus = ("--corpus", own_corpus)
    plain, _ = trained_weights(tmp_path / "a", *corpus, "--batch-size", 2)
    accumulated, _ = trained_weights(tmp_path / "b", *corpus, "--batch-size", 1, "--gradient-accumulation", 2)
    recomputed, _ = trained_weights(tmp_path / "c", *corpus, "--gradient-checkpointing")
    torch.testing.assert_close(accumulated, plain, atol=1e-3, rtol=0, msg="accumulating gradients changed the training")
    torch.testing.assert_close(recomputed, plain, atol=1e-4, rtol=0, msg="recomputing activations changed the training")


def test_the_end_of_text_is_learned_and_nothing_is_masked(short, own_corpus, tmp_path):
    _, trainer = trained_weights(tmp_path / "out", "--corpus", own_corpus)
    eos = trainer.model.config.eos_token_id
    batches = list(trainer.get_train_dataloader())
    assert all((batch["labels"] == batch["input_ids"]).all() for batch in batches), "a label is masked or shifted"
    batch = next(batch for batch in batches if (batch["labels"] == eos).any())
    with torch.no_grad():
        output = trainer.model.eval()(**batch)
    nll = ex.next_token_nll(output.logits, batch["input_ids"])
    torch.testing.assert_close(output.loss, nll.mean(), msg="the loss leaves out the end-of-text token")
    assert not torch.isclose(output.loss, nll[batch["input_ids"][:, 1:] != eos].mean())


class Killed(BaseException):
    """Stands for kill -9: nothing in the exercise catches it, and the disk stays as it is."""


@pytest.mark.parametrize("method, step", [("full", 5), ("lora", 15)])  # in the first epoch, and in a later one
def test_killed_and_resumed_is_the_same_as_never_killed(short, own_corpus, tmp_path, monkeypatch, method, step):
    documents = ex.split_documents(corpora.load_corpus(str(own_corpus), 42).documents, ex.SHARES, 42)["train"]
    assert 24 < sum(len(text) + 1 for text in documents) / 64 < 30, "15 steps of 2 blocks should pass an epoch's end"
    flags = ("--method", method, "--corpus", own_corpus)
    whole = ex.main(arguments(tmp_path / "whole", *flags))
    tick = training.StepClock.on_step_end

    def die(self, args, state, control, **kwargs):
        tick(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise Killed

    monkeypatch.setattr(training.StepClock, "on_step_end", die)
    with pytest.raises(Killed) as error:
        ex.main(arguments(tmp_path / "killed", *flags))
    del error
    gc.collect()  # lets go of the folder's lock, as the end of a process does
    monkeypatch.setattr(training.StepClock, "on_step_end", tick)
    with pytest.raises(UserError, match="the interrupted run had seed 42"):
        ex.main(arguments(tmp_path / "killed", *flags, "--resume", "--seed", 7))
    resumed = ex.main(arguments(tmp_path / "killed", *flags, "--resume"))
    assert 0 < resumed["resumed_from_step"] < step
    saved = [next((tmp_path / run / ex.SAVED[method]).glob("*.safetensors")).read_bytes()
             for run in ("whole", "killed")]
    assert saved[0] == saved[1], "the resumed run ended with other weights than the uninterrupted one"
    for key in ("perplexity_after", "continuations", "train_tokens"):
        assert resumed[key] == whole[key], key


# The script as a whole


def test_results_hold_what_is_promised(smoke):
    results, folder = smoke
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert saved.keys() == results["lora"].keys() == results["full"].keys()
    for key in ("model", "source", "seed", "preset", "tokens_per_second", "peak_memory_mb", "trainable_parameters"):
        assert saved[key] is not None, key
    assert saved["method"] == "lora" and set(saved["methods"]) == {"full", "lora"}, "the earlier method was forgotten"
    assert saved["methods"]["full"]["perplexity_after"] == results["full"]["perplexity_after"]
    assert saved["perplexity_before"] == results["full"]["perplexity_before"], "LoRA changed the model before training"
    assert {p.name for p in folder.glob("*.png")} == {"learning_curves_full.png", "learning_curves_lora.png",
                                                      "comparison.png"}
    assert not (folder / "checkpoints").exists(), "checkpoints of a finished run take room for nothing"
    sizes = {m: results[m]["saved_mb"] for m in results}
    assert sizes["lora"] < 0.1 * sizes["full"], "an adapter should be small"
    assert not (folder / "adapter" / "model.safetensors").exists()


def test_fine_tuning_lowers_held_out_perplexity(smoke):
    results, _ = smoke
    ratio = {m: r["perplexity_after"]["corpus"] / r["perplexity_before"]["corpus"] for m, r in results.items()}
    assert ratio["full"] < 0.3 and ratio["lora"] < 0.95, ratio
    steps = [row["eval_perplexity"] for row in results["full"]["history"] if "eval_perplexity" in row]
    assert steps[0] == max(steps) and len(steps) >= 5


def test_the_corpus_is_told_from_general_text(smoke):
    style = smoke[0]["full"]["style"]
    assert style["classifier_accuracy"] > 0.9
    assert style["corpus"]["characteristic_words"] > 0.2 > 0.1 > style["general"]["characteristic_words"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_generate_uses_what_was_saved_and_the_seed_decides(smoke, method):
    def texts(seed):
        answers = ex.main(arguments(smoke[1], "--method", method, "--seed", seed, "--generate", "A class",
                                    "--generate", "If the name"))
        return [answer["text"] for answer in answers["continuations"]]
    assert texts(1) == texts(1) != texts(2)
    assert all(texts(1))


def test_an_adapter_on_another_base_model_is_refused(smoke, tmp_path):
    tiny.save("decoder", tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="belongs to tiny decoder .*other weights"):
        ex.main(arguments(smoke[1], "--method", "lora", "--generate", "A class", "--model", tmp_path / "other"))


def test_damaged_saved_files_are_one_line(smoke, tmp_path):
    import shutil

    shutil.copytree(smoke[1], tmp_path / "out")
    for method, name in (("full", "model.safetensors"), ("lora", "adapter_model.safetensors"), ("lora", ex.BASE)):
        path = tmp_path / "out" / ex.SAVED[method] / name
        whole = path.read_bytes()
        path.write_bytes(whole[:30])
        with pytest.raises(UserError) as error:
            ex.main(arguments(tmp_path / "out", "--method", method, "--generate", "A class"))
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        path.write_bytes(whole)


def test_bad_input_is_one_clear_line(smoke, tmp_path, own_corpus):
    _, finished = smoke
    (tmp_path / "empty.txt").write_text(" \n\n", encoding="utf-8")
    (tmp_path / "short.txt").write_text("Too short.", encoding="utf-8")
    (tmp_path / "binary.txt").write_bytes(b"text\nmore \xff\xfe\x00")
    (tmp_path / "zero.txt").write_bytes(b"text\nmore \x00")
    (tmp_path / "nothing").mkdir()
    encoder = checkpoints.find("encoder", "tiny").folder
    for given, says in [
        (["--batch-size", "0"], "at least 1"),
        (["--method", "adapter"], "invalid choice"),
        (["--block-length", "5000"], "takes 8 to"),
        (["--block-length", "2"], "takes 8 to"),
        (["--lora-modules", "c_attn"], "add --method lora"),
        (["--method", "lora", "--lora-modules", "q_proj"], "no linear layer called q_proj"),
        (["--method", "lora", "--lora-modules", ""], "no linear layer called ''"),
        (["--model", tmp_path / "none"], "no such folder"),
        (["--model", encoder], "needs a decoder"),
        (["--corpus", tmp_path / "none"], "no such file or folder"),
        (["--corpus", "none.txt"], "no such file or folder"),
        (["--corpus", "owner/none"], "no such file or folder here, and"),
        (["--corpus", tmp_path / "empty.txt"], "holds no text"),
        (["--corpus", tmp_path / "short.txt"], "too short"),
        (["--corpus", tmp_path / "binary.txt"], "binary.txt, line 2: not utf-8"),
        (["--corpus", tmp_path / "zero.txt"], "zero.txt, line 2: holds a zero byte"),
        (["--corpus", tmp_path / "nothing"], "no text files"),
        (["--output", tmp_path / "new", "--resume"], "no run to resume"),
        (["--output", finished, "--method", "lora", "--resume"], "no checkpoint to resume"),
        (["--output", finished, "--resume"], "had method lora"),
        (["--generate", "A class", "--output", tmp_path / "new"], "no trained model"),
        (["--generate", " ", "--output", finished], "empty"),
        (["--generate", "word " * 300, "--output", finished], "has room for"),
        (["--generate", "A class", "--model", "tiny", "--output", finished], "leave out --model"),
    ]:
        with pytest.raises(UserError) as error:
            ex.main(arguments(tmp_path / "out", *given))
        assert says in str(error.value) and "\n" not in str(error.value), f"{given}: {error.value}"
    assert not (tmp_path / "out").exists(), "a refused run should leave nothing behind"


def test_a_folder_with_a_model_but_no_adapter_says_so(smoke, tmp_path):
    import shutil

    shutil.copytree(smoke[1] / "model", tmp_path / "out" / "model")
    with pytest.raises(UserError, match="no trained adapter .* use --method full"):
        ex.main(arguments(tmp_path / "out", "--method", "lora", "--generate", "A class"))


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
    results = ex.main(["--model", "packaged", "--output", str(tmp_path / "out")])
    gain = results["perplexity_after"]["corpus"] / results["perplexity_before"]["corpus"]
    assert gain < 0.9, f"held-out perplexity is {gain:.2f} of the base model's after 6,000 tokens"
