"""Exercise 3: fine-tune GPT-2 on a specialised text, wholly or with LoRA, and measure what was gained and what it cost.

You will see (1) a corpus cut into documents, splits and equal blocks, (2) what the base model makes of it, (3) the
fine-tuning with the Trainer, (4) what was learned and what forgotten, (5) memory, speed and larger models' price.

    python code/ex_03_gpt2_finetuning.py                          quick: minutes on two CPU cores
    python code/ex_03_gpt2_finetuning.py --method lora            train 0.3 % of the parameters instead of all
    python code/ex_03_gpt2_finetuning.py --preset smoke           random tiny model, seconds: does it all run?
    python code/ex_03_gpt2_finetuning.py --corpus my_texts/       your own .txt, .md or source files
    python code/ex_03_gpt2_finetuning.py --generate "The with statement"      ask the model that you trained
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.runtime import UserError, is_main_process, positive_int, run, shared_parser

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from utils.checkpoints import Checkpoint
    from utils.corpora import Corpus, Reviews
    from utils.reporting import OutputFolder

# train_tokens: how many are learned from in all; None for three times the whole corpus. test_blocks, validation_blocks:
# the most that perplexity is measured on. reviews: the most to train and to test on.
PRESETS = {
    "smoke": {"characters": 40_000, "train_tokens": 12_000, "block_length": 64, "test_blocks": 16,
              "validation_blocks": 8, "learning_rate": {"full": 3e-3, "lora": 3e-2}, "reviews": 300, "new_tokens": 24,
              "samples": 2},
    "quick": {"characters": 2_000_000, "train_tokens": 16_384, "block_length": 256, "test_blocks": 16,
              "validation_blocks": 8, "learning_rate": {"full": 3e-4, "lora": 2e-3}, "reviews": 2000, "new_tokens": 40,
              "samples": 4},
    "full": {"characters": None, "train_tokens": None, "block_length": 512, "test_blocks": None,
             "validation_blocks": 100, "learning_rate": {"full": 5e-5, "lora": 5e-4}, "reviews": None, "new_tokens": 80,
             "samples": 8},
}
SHARES = {"test": 0.1, "validation": 0.1}  # of the corpus's characters
LORA_RANK = 8
LORA_MODULES = (("c_attn",), ("q_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("Wqkv",))  # GPT-2, Llama, ...
LARGER = {"GPT-2 medium": 354_823_168, "GPT-2 large": 774_030_080, "GPT-2 XL": 1_557_611_200,
          "Llama 3 8B": 8_030_000_000}  # parameters
SAVED = {"full": "model", "lora": "adapter"}  # method -> folder in the output folder
BASE = "base_model.json"  # in adapter/: the model that it was trained on


def parse_arguments(argv: list[str] | None):
    parser = shared_parser(__doc__, "ex_03")
    add = parser.add_argument
    add("--method", choices=tuple(SAVED), default="full", help="full: train every weight; lora: freeze them and train "
        "small matrices beside them (default: %(default)s)")
    add("--corpus", metavar="NAME", help="a text file, a folder of text files, or a data set of the Hub "
        "(default: the Python language reference)")
    add("--batch-size", type=positive_int, default=2, help="blocks per pass (default: %(default)s)")
    add("--block-length", type=positive_int, help="tokens per block (default: the preset's, 64 to 512)")
    add("--gradient-accumulation", type=positive_int, default=1, metavar="N", help="passes per step: --batch-size 1 "
        "with 2 here learns what --batch-size 2 learns, with less memory (default: %(default)s)")
    add("--gradient-checkpointing", action="store_true", help="compute activations twice instead of keeping them: "
        "less memory, about a third more time")
    add("--lora-modules", metavar="NAMES", help="layers that get LoRA matrices, with commas between them, or "
        "all-linear (default: c_attn in GPT-2, q_proj,v_proj in Llama and its like)")
    add("--generate", action="append", metavar="PROMPT", help="continue a prompt with the saved model or adapter, "
        "repeatable")
    args = parser.parse_args(argv)
    if args.lora_modules is not None and args.method != "lora":
        raise UserError("--lora-modules: only LoRA uses it; add --method lora")
    return args


# Part 1: from documents to blocks


def split_documents(documents: list[str], shares: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Deal whole documents out to splits, so that no text is both learned from and tested on.

    shares: split -> its share of all characters, for example {"test": 0.1, "validation": 0.1}. A split takes documents
    in an order decided by the seed, as long as they fit its share; where none fits, the shortest that is left. The rest
    is "train". Returns split -> documents.
    """
    left = random.Random(seed).sample(documents, len(documents))
    characters, splits = sum(map(len, documents)), {}
    for name, share in shares.items():
        splits[name], room, rest = [], share * characters, []
        for document in left:
            fits = len(document) <= room
            (splits[name] if fits else rest).append(document)
            room -= len(document) if fits else 0
        if not splits[name] and rest:
            splits[name].append(rest.pop(rest.index(min(rest, key=len))))
        left = rest
    return {"train": left, **splits}


def pack_blocks(documents: list[list[int]], eos_token_id: int, block_length: int) -> list[list[int]]:
    """Join the documents' tokens, each closed by the end-of-text token, and cut the row into equal blocks.

    No token is padding, so none is masked and the model learns where texts end. What is left over after the last whole
    block is dropped; a row shorter than one block gives no block at all.

    >>> pack_blocks([[5, 6, 7], [8, 9]], eos_token_id=0, block_length=3)
    [[5, 6, 7], [0, 8, 9]]
    """
    row = [token for document in documents for token in (*document, eos_token_id)]
    return [row[i:i + block_length] for i in range(0, len(row) - block_length + 1, block_length)]


def make_blocks(splits: dict[str, list[str]], tokenizer, block_length: int, name: str) -> dict[str, list[list[int]]]:
    """Split -> blocks of token ids. Raises UserError if a split of the corpus called `name` has not even one block."""
    ids = {part: [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
           for part, documents in splits.items()}
    blocks = {part: pack_blocks(documents, tokenizer.eos_token_id, block_length) for part, documents in ids.items()}
    for part in blocks:
        if not blocks[part]:
            total, tokens = sum(len(row) for rows in ids.values() for row in rows), sum(map(len, ids[part]))
            raise UserError(f"--corpus {name}: too short, {total} tokens, {tokens} of them in the {part} split, and a "
                            f"block has {block_length}; give more text, or a shorter --block-length")
    return blocks


def characteristic_words(corpus: list[str], general: list[str], count: int = 200) -> list[str]:
    """The words that set one collection of texts apart from another, the most telling first.

    Ranked by the z-score of the difference in a word's log-odds, half an occurrence added to each count: Monroe,
    Colaresi and Quinn 2008, "Fightin' Words". A plain ratio of frequencies would put words first that occur once here
    and never there.
    """
    ours, others = (Counter(words(" ".join(texts))) for texts in (corpus, general))
    n_ours, n_others, prior = ours.total(), others.total(), 0.5

    def z_score(word: str) -> float:
        a, b = ours[word] + prior, others[word] + prior
        return (math.log(a / (n_ours - a + 1)) - math.log(b / (n_others - b + 1))) / math.sqrt(1 / a + 1 / b)

    return sorted(ours, key=lambda word: (-z_score(word), word))[:count]


def words(text: str) -> list[str]:
    """The words of a text in lower case: letters, digits and underscores, at least two, beginning with no digit."""
    return re.findall(r"\b[^\W\d]\w+", text.lower())


def show_corpus(setup: Setup) -> None:
    """Print the splits in numbers, and the words that set the corpus apart."""
    from utils import reporting

    texts, length = setup.texts, setup.preset["block_length"]
    reporting.table("", ["split", "documents", "characters", f"blocks of {length} tokens", "tokens"], [
        [name, len(documents), sum(map(len, documents)), len(texts.blocks[name]), length * len(texts.blocks[name])]
        for name, documents in texts.splits.items()])
    reporting.say("Its characteristic words, against movie reviews: " + ", ".join(
        characteristic_words(texts.splits["train"], texts.general["train"], 20)))


# Part 2: perplexity and continuations


def next_token_nll(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each token given those before it.

    logits: (batch, length, vocabulary), input_ids: (batch, length). The logits at position i are the model's forecast
    of token i + 1, and nothing forecasts the first token, so the result is (batch, length - 1), in nats.
    """
    import torch

    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return nll.view(len(input_ids), -1)


def perplexity(nll: torch.Tensor) -> float:
    """exp of the mean negative log-likelihood per token: among how many equally likely tokens the model hesitates.

    nll: any number of token losses in nats. Only comparable for the same text, tokenizer and context length.
    """
    return math.exp(nll.mean())


def held_out_perplexity(model, blocks: list[list[int]], eos_token_id: int, batch_size: int) -> float:
    """The perplexity of text packed in blocks, each read from its own beginning.

    A token at the start of a block has little before it to be guessed from, so the figure is somewhat higher than with
    a sliding window; before and after fine-tuning it is the same measure. The end-of-text tokens do not count: where
    we put them is our habit, and learning it is not learning the text.
    """
    import torch

    from utils.runtime import precision

    device, losses = model.device.type, []
    model.eval()
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision(device) == "bf16"):
        for start in range(0, len(blocks), batch_size):
            ids = torch.tensor(blocks[start:start + batch_size], device=model.device)
            losses.append(next_token_nll(model(input_ids=ids).logits, ids)[ids[:, 1:] != eos_token_id])
    return perplexity(torch.cat(losses))


def continuations(model, tokenizer, prompts: list[str], seed: int, new_tokens: int, samples: int) -> list[list[str]]:
    """For each prompt, `samples` continuations of at most new_tokens, without the prompt; same seed, same text.

    One left-padded batch, sampled with temperature 0.8 and top_p 0.95.
    """
    import torch
    from transformers import set_seed

    from utils.runtime import precision

    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # hidden by the attention mask
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
    device = model.device.type
    model.eval()
    set_seed(seed)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision(device) == "bf16"):
        ids = model.generate(**batch, do_sample=True, temperature=0.8, top_p=0.95, top_k=0, max_new_tokens=new_tokens,
                             num_return_sequences=samples, pad_token_id=tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)
    return [texts[i:i + samples] for i in range(0, len(texts), samples)]


def measure(setup: Setup, model, prompts: list[str]) -> dict:
    """What is measured in the same way before and after: perplexity on both texts, and continuations of the prompts."""
    preset, tokenizer = setup.preset, setup.tokenizer
    texts = {"corpus": setup.texts.blocks["test"], "general": setup.texts.general_blocks}
    return {"perplexity": {name: held_out_perplexity(model, blocks[:preset["test_blocks"]], tokenizer.eos_token_id,
                                                     preset["test_batch_size"]) for name, blocks in texts.items()},
            "continuations": continuations(model, tokenizer, prompts, setup.seed, preset["new_tokens"],
                                           preset["samples"])}


# Part 3: fine-tuning


def training_order(blocks: int, count: int, seed: int) -> list[int]:
    """Indices of `count` training blocks in the order of use: epoch after epoch, each shuffled anew by the seed.

    It depends on nothing else, so a resumed run sees exactly what the uninterrupted one would have seen.
    """
    shuffle, order = random.Random(seed), []
    while len(order) < count:
        order += shuffle.sample(range(blocks), blocks)
    return order[:count]


def linear_layers(model) -> set[str]:
    """The names of a model's linear layers (GPT-2 calls its own Conv1D), each without its place in the model."""
    return {name.rsplit(".", 1)[-1] for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")}


def add_lora(model, modules: str | None):
    """Freeze a model and put a trainable product of two thin matrices beside each of the named layers.

    W x becomes W x + (alpha / rank) B A x, with A (rank, in) and B (out, rank), B zero at first: Hu et al. 2021, arXiv
    2106.09685. modules: names with commas between them, "all-linear", or None for the model's attention projections.
    Raises UserError if the model has no such layers.
    """
    from peft import LoraConfig, get_peft_model

    layers = linear_layers(model)
    usual = next((names for names in LORA_MODULES if layers >= set(names)), LORA_MODULES[0])
    named = usual if modules is None else tuple(modules.split(","))
    if named != ("all-linear",) and not layers >= set(named):
        raise UserError(f"--lora-modules: {model.config.model_type} has no linear layer called "
                        f"{', '.join(sorted(set(named) - layers)) or repr('')}; it has {', '.join(sorted(layers))}")
    return get_peft_model(model, LoraConfig(
        task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.05,
        target_modules="all-linear" if named == ("all-linear",) else list(named),
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules())))


def make_trainer(setup: Setup, args):
    """A Trainer on equal blocks in a fixed order, which validates while training and keeps the best checkpoint."""
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator

    from utils.runtime import precision, processes

    preset, eos = setup.preset, setup.tokenizer.eos_token_id
    per_step = args.batch_size * args.gradient_accumulation
    steps = max(1, round(preset["train_tokens"] / (per_step * preset["block_length"])))
    often = math.ceil(steps / 5)
    settings = TrainingArguments(
        output_dir=str(setup.output.checkpoints), seed=args.seed, learning_rate=preset["learning_rate"][args.method],
        warmup_steps=0.1, weight_decay=0.01,
        num_train_epochs=1,  # the order below holds all epochs, one after the other
        train_sampling_strategy="sequential",
        per_device_train_batch_size=args.batch_size // processes(),
        per_device_eval_batch_size=preset["test_batch_size"],
        gradient_accumulation_steps=args.gradient_accumulation,
        bf16=precision(setup.device) == "bf16", use_cpu=setup.device == "cpu",
        dataloader_pin_memory=setup.device == "cuda",
        eval_on_start=not args.resume, eval_strategy="steps", eval_steps=often,
        save_strategy="steps", save_steps=often, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="perplexity", greater_is_better=False,
        logging_steps=max(1, often // 4), ddp_find_unused_parameters=False, report_to="none", disable_tqdm=True,
    )
    if args.gradient_checkpointing:
        setup.model.gradient_checkpointing_enable({"use_reentrant": False})

    def validation_metrics(prediction) -> dict[str, float]:
        nll, ids = torch.from_numpy(prediction.predictions), torch.from_numpy(prediction.label_ids)
        return {"perplexity": perplexity(nll[ids[:, 1:] != eos])}

    # The labels are the tokens themselves: the model shifts them by one. No padding, so the loss leaves out nothing.
    rows = {part: [{"input_ids": block, "labels": block} for block in blocks]
            for part, blocks in setup.texts.blocks.items()}
    order = training_order(len(rows["train"]), steps * per_step, args.seed)
    return Trainer(
        model=setup.model, args=settings, data_collator=default_data_collator,
        train_dataset=[rows["train"][i] for i in order], eval_dataset=rows["validation"][:preset["validation_blocks"]],
        preprocess_logits_for_metrics=next_token_nll,  # a loss per token instead of a whole vocabulary's logits
        compute_metrics=validation_metrics)


def fine_tune(setup: Setup, args):
    """Train, save the best model, draw the curves; returns the trainer and what was measured."""
    from utils import plots, reporting, runtime, training

    trainer = make_trainer(setup, args)
    trainer.add_callback(training.StepClock())
    runtime.reset_peak_gpu_memory()
    training.train(trainer, setup.resume_from)
    if not is_main_process():
        return trainer, {}
    per_step = args.batch_size * args.gradient_accumulation * setup.preset["block_length"]
    trainable, total = count_parameters(setup.model)
    seconds = [row["step_seconds"] for row in trainer.state.log_history if "step_seconds" in row]
    record = {"trainable_parameters": trainable, "total_parameters": total, "train_tokens": per_step * len(seconds),
              "train_seconds": sum(seconds), "tokens_per_second": per_step / statistics.median(seconds),
              "resumed_from_step": int(setup.resume_from.name.split("-")[1]) if setup.resume_from else 0,
              "peak_gpu_memory_mb": runtime.peak_gpu_memory_mb(), "saved_mb": save(setup, trainer.model, args.method)}
    reporting.say(f"{sum(seconds):.0f} s, {record['tokens_per_second']:.0f} tokens a second. The model of step "
                  f"{trainer.state.best_global_step} is kept: validation perplexity {trainer.state.best_metric:.2f}.")
    setup.output.save_figure(f"learning_curves_{args.method}.png", plots.learning_curves(
        trainer.state.log_history, {"eval_perplexity": "validation perplexity"}))
    return trainer, record


def save(setup: Setup, model, method: str) -> float:
    """Write model/, or for LoRA adapter/ with a note of the base model that it belongs to; return its size in MB."""
    if method == "full":
        folder = setup.output.save_model(model, setup.tokenizer)
    else:
        base = {"model": setup.checkpoint.name, "source": setup.checkpoint.source, "fingerprint": setup.fingerprint}
        if setup.checkpoint.source == "folder":
            base["model"] = str(setup.checkpoint.folder.resolve())
        model.peft_config["default"].base_model_name_or_path = setup.checkpoint.name

        def writer(path: Path) -> None:
            model.save_pretrained(path, save_embedding_layers=False)
            setup.tokenizer.save_pretrained(path)
            (path / BASE).write_text(json.dumps(base, indent=1), encoding="utf-8")

        folder = setup.output.write("adapter", writer)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def fingerprint(model) -> str:
    """A few hexadecimal digits that tell models apart: a hash of every weight's name, shape and first values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


# Part 4: what was learned, and what forgotten


def passages(texts: list[str], length: int = 30) -> list[str]:
    """Cut texts, one after the other, into passages of `length` words: about the length of a continuation."""
    row = " ".join(texts).split()
    return [" ".join(row[i:i + length]) for i in range(0, max(1, len(row) - length + 1), length)]


class Style:
    """Two simple measures of how much a text is like the corpus and unlike movie reviews."""

    def __init__(self, corpus: dict[str, list[str]], general: dict[str, list[str]]) -> None:
        """corpus and general: texts by split; learns from "train" and is tried on "test"."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        self.words = characteristic_words(corpus["train"], general["train"])
        ours, others = passages(corpus["train"]), passages(general["train"])
        self.classifier = make_pipeline(TfidfVectorizer(sublinear_tf=True),
                                        LogisticRegression(C=10, max_iter=1000, class_weight="balanced"))
        self.classifier.fit(ours + others, [1] * len(ours) + [0] * len(others))
        self.held_out = {"corpus": self.of(passages(corpus["test"])), "general": self.of(passages(general["test"]))}
        # balanced accuracy: the mean of the two shares that are told rightly
        self.accuracy = (self.held_out["corpus"]["classified_as_corpus"] + 1
                         - self.held_out["general"]["classified_as_corpus"]) / 2

    def of(self, texts: list[str]) -> dict[str, float]:
        """Share of the texts' words that are characteristic of the corpus; share of texts classified as corpus."""
        found, wanted = words(" ".join(texts)), set(self.words)
        return {"characteristic_words": sum(word in wanted for word in found) / max(1, len(found)),
                "classified_as_corpus": float(self.classifier.predict(texts).mean())}


def compare(setup: Setup, before: dict, after: dict, prompts: list[str]) -> dict:
    """Print perplexity, continuations and style before and after; return the measures of style."""
    from utils import reporting

    pairs = {key: (before["perplexity"][key], after["perplexity"][key]) for key in before["perplexity"]}
    reporting.table("Held-out perplexity", ["text", "before", "after", "after / before"],
                    [[key, old, new, new / old] for key, (old, new) in pairs.items()])
    reporting.say("A ratio below 1 is a gain, above 1 on the reviews is what was forgotten. The first of "
                  f"{setup.preset['samples']} continuations of each prompt, with the same seed:")
    reporting.table("", ["prompt", "before", "after"], [
        [prompt, *(" ".join(texts[0].split()) for texts in pair)] for prompt, *pair in
        zip(prompts, before["continuations"], after["continuations"], strict=True)])
    style = Style(setup.texts.splits, setup.texts.general)
    texts = {name: [text for group in part["continuations"] for text in group]
             for name, part in (("before", before), ("after", after))}
    measures = {"before": style.of(texts["before"]), "after": style.of(texts["after"]), **style.held_out}
    reporting.table(f"Style of {len(texts['after'])} continuations, and of held-out text for scale",
                    ["text", "characteristic words", "classified as corpus"],
                    [[label, *measures[key].values()] for key, label in (
                        ("general", "held-out reviews"), ("before", "continuations before"),
                        ("after", "continuations after"), ("corpus", "held-out corpus"))])
    reporting.say(f"The classifier (TF-IDF, logistic regression) tells held-out passages of the two texts apart with a "
                  f"balanced accuracy of {style.accuracy:.3f}; guessing gives 0.5.")
    return {**measures, "classifier_accuracy": style.accuracy}


# Part 5: what it cost


def count_parameters(model) -> tuple[int, int]:
    """(trainable, all) parameters; a matrix that two layers share counts once."""
    sizes = [(p.requires_grad, p.numel()) for p in model.parameters()]
    return sum(n for trainable, n in sizes if trainable), sum(n for _, n in sizes)


def training_flops(trainable: int, parameters: int, tokens: int) -> int:
    """Floating-point operations of training on so many tokens: 6 N D when all N parameters are trained.

    Per token and parameter: one multiplication and one addition forward, the same for the gradient of the activations,
    and the same again for the gradient of the weight itself, which frozen weights do without (Kaplan et al. 2020, arXiv
    2001.08361, section 2.1). So LoRA does about two thirds of the work of full fine-tuning.
    """
    return (4 * parameters + 2 * trainable) * tokens


def practical(setup: Setup, method: str, record: dict) -> dict:
    """Print the arithmetic of the run against what was measured, and what it says about larger models."""
    from utils import reporting, runtime, training

    trainable, total, tokens = (record[k] for k in ("trainable_parameters", "total_parameters", "train_tokens"))
    operations = training_flops(trainable, total, tokens)
    achieved = operations / tokens * record["tokens_per_second"]
    peak = training.matmul_flops(setup.device, runtime.precision(setup.device))
    reporting.say(f"By arithmetic, {total:,} parameters and {tokens:,} tokens take {operations:.2e} floating-point "
                  f"operations: {'6 N D' if method == 'full' else '4 N D, as the weights are frozen'}. Training did "
                  f"{achieved / 1e9:.0f} GFLOP/s; large matrices this device multiplies at {peak / 1e9:.0f} GFLOP/s.")
    rows = []
    for name, size in {setup.checkpoint.name: total, **LARGER}.items():
        part = size * trainable // total
        rows.append([name, f"{size / 1e6:,.1f} M", training_flops(part, size, tokens) / achieved / 60,
                     (4 * size + 12 * part) / 1e9])
    reporting.table(f"The same {tokens:,} tokens on larger models, by that arithmetic at this speed",
                    ["model", "parameters", "minutes", "GB for weights, gradients, Adam"], rows)
    reporting.say("In fp32 a weight takes 4 bytes, and a trained one 12 more, for its gradient and Adam's two moments. "
                  "Activations come on top; --gradient-checkpointing and --gradient-accumulation make them smaller.")
    return {"training_flops": operations, "achieved_flops_per_second": achieved, "matmul_flops_per_second": peak}


def earlier_methods(output: OutputFolder, same: dict) -> dict:
    """What results.json says of runs with the other method, if they differ in nothing else from this one."""
    try:
        earlier = json.loads((output.path / "results.json").read_text(encoding="utf-8"))
        return earlier["methods"] if all(earlier[key] == value for key, value in same.items()) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def show_methods(methods: dict) -> None:
    """Full fine-tuning and LoRA beside each other, as far as they have been run."""
    from utils import reporting

    rows = [("perplexity of the corpus, before", lambda r: f"{r['perplexity_before']['corpus']:.2f}"),
            ("perplexity of the corpus, after", lambda r: f"{r['perplexity_after']['corpus']:.2f}"),
            ("perplexity of reviews, before", lambda r: f"{r['perplexity_before']['general']:.2f}"),
            ("perplexity of reviews, after", lambda r: f"{r['perplexity_after']['general']:.2f}"),
            ("trainable parameters", lambda r: f"{r['trainable_parameters']:,}"),
            ("of all parameters", lambda r: f"{r['total_parameters']:,}"),
            ("tokens per second", lambda r: f"{r['tokens_per_second']:.0f}"),
            ("minutes of training steps", lambda r: f"{r['train_seconds'] / 60:.1f}"),
            ("peak memory of the whole run, MB", lambda r: f"{r['peak_memory_mb']:.0f}"),
            ("peak GPU memory of the training, MB", lambda r: f"{r['peak_gpu_memory_mb'] or 0:.0f}"),
            ("saved weights, MB", lambda r: f"{r['saved_mb']:.1f}")]
    if not any(record["peak_gpu_memory_mb"] for record in methods.values()):
        del rows[-2]
    reporting.table("", ["measured", *methods], [[label, *map(show, methods.values())] for label, show in rows])
    if len(methods) == 1:
        reporting.say(f"Run again with --method {'lora' if 'full' in methods else 'full'} to see both side by side.")


# The whole lesson


def context_length(tokenizer, model) -> int:
    """The most tokens that the model can read at once."""
    return min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**9)


def generate(args) -> dict:
    """--generate: continue prompts with the model or adapter that an earlier run saved."""
    from utils import hub, reporting

    for prompt in args.generate:
        if not prompt.strip() or re.search("[\ud800-\udfff]", prompt):
            raise UserError(f"--generate {prompt!r}: the prompt is empty or not valid utf-8 text")
    folder = args.output.expanduser().resolve() / SAVED[args.method]
    if not (hub.is_complete(folder, "model") if args.method == "full" else (folder / BASE).is_file()):
        other = "lora" if args.method == "full" else "full"
        hint = f"use --method {other}" if (folder.parent / SAVED[other]).is_dir() else "run without --generate first"
        raise UserError(f"--generate: there is no trained {SAVED[args.method]} in {folder.parent}; {hint}")
    if args.method == "full" and args.model:
        raise UserError(f"--generate --method full uses the model in {folder}; leave out --model")

    from utils import runtime

    device = runtime.start(args)
    tokenizer, model = load_saved(folder, args)
    new_tokens = PRESETS[args.preset]["new_tokens"]
    room = context_length(tokenizer, model) - new_tokens
    answers = []
    for prompt in args.generate:
        length = len(tokenizer(prompt)["input_ids"])
        if length > room:
            raise UserError(f"--generate: a prompt of {length} tokens, and the model has room for {room} before the "
                            "continuation; shorten it")
        text = continuations(model.to(device), tokenizer, [prompt], args.seed, new_tokens, 1)[0][0]
        reporting.say(f"{prompt}{text}\n")
        answers.append({"prompt": prompt, "text": text})
    return {"continuations": answers}


def load_saved(folder: Path, args):
    """Tokenizer and model from model/, or from adapter/ on the base model that it was trained on.

    Raises UserError if the base model is another one, or if files are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from utils import checkpoints, hub

    saved = checkpoints.Checkpoint(str(folder), "folder", folder)
    tokenizer = checkpoints.load(AutoTokenizer, saved)
    if args.method == "full":
        return tokenizer, checkpoints.load(AutoModelForCausalLM, saved, dtype="float32")

    from peft import PeftModel

    try:
        base = json.loads((folder / BASE).read_text(encoding="utf-8"))
        name, known = base["source"] if base["source"] in ("packaged", "tiny") else base["model"], base["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / BASE}: damaged; train the adapter again") from None
    checkpoint = checkpoints.find("decoder", args.model or name)
    checkpoints.check_family(checkpoint, "decoder")
    model = checkpoints.load(AutoModelForCausalLM, checkpoint, dtype="float32")
    if fingerprint(model) != known:
        raise UserError(f"the adapter in {folder} belongs to {base['model']} ({base['source']}), and {checkpoint.name} "
                        "has other weights: give the first with --model, or train an adapter for the second")
    try:
        return tokenizer, PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the adapter in {folder} cannot be loaded ({hub.one_line(error)}): train it again") from error


@dataclass
class Texts:
    """The corpus and, to compare it with, the reviews: as texts and as blocks of token ids."""

    corpus: Corpus
    splits: dict[str, list[str]]  # train, validation, test -> the corpus's documents
    blocks: dict[str, list[list[int]]]  # train, validation, test -> equal blocks
    reviews: Reviews
    general: dict[str, list[str]]  # train, test -> reviews
    general_blocks: list[list[int]]  # of the test reviews


def prepare_texts(corpus: Corpus, tokenizer, preset: dict, args) -> Texts:
    """Split and pack the corpus, load and pack the reviews."""
    from utils import corpora

    splits = split_documents(corpus.documents, SHARES, args.seed)
    blocks = make_blocks(splits, tokenizer, preset["block_length"], corpus.name)
    reviews = corpora.load_reviews("tiny" if args.preset == "smoke" else None, args.seed,
                                   {"train": preset["reviews"], "validation": 2, "test": preset["reviews"]})
    general = {part: list(reviews.splits[part]["text"]) for part in ("train", "test")}
    joined = tokenizer("\n".join(general["test"]), add_special_tokens=False)["input_ids"]
    general_blocks = pack_blocks([joined], tokenizer.eos_token_id, preset["block_length"])
    if not general_blocks:
        raise UserError(f"--block-length {preset['block_length']}: the test reviews together have only {len(joined)} "
                        "tokens; give a shorter one")
    return Texts(corpus, splits, blocks, reviews, general, general_blocks)


@dataclass
class Setup:
    """What all parts work on."""

    device: str
    checkpoint: Checkpoint
    fingerprint: str  # of the base model
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel  # with LoRA, a PeftModel
    preset: dict
    seed: int
    texts: Texts
    output: OutputFolder
    resume_from: Path | None


def prepare(args) -> Setup:
    """Find corpus and model, check what was asked for, claim the output folder, print the banner."""
    from utils import corpora
    from utils.runtime import processes

    preset, smoke = dict(PRESETS[args.preset]), "tiny" if args.preset == "smoke" else None
    if args.batch_size % processes():
        raise UserError(f"--batch-size {args.batch_size}: {processes()} processes cannot share it evenly")
    corpus = corpora.load_corpus(args.corpus, args.seed, preset["characters"])  # before torch, to refuse it at once

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from utils import checkpoints, reporting, runtime, training

    device = runtime.start(args)
    checkpoint = checkpoints.find("decoder", args.model or smoke)
    checkpoints.check_family(checkpoint, "decoder")
    tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
    model = checkpoints.load(AutoModelForCausalLM, checkpoint, dtype="float32")
    limit = context_length(tokenizer, model)
    length = preset["block_length"] = args.block_length or min(preset["block_length"], limit)
    if not 8 <= length <= limit:
        raise UserError(f"--block-length {length}: {checkpoint.name} takes 8 to {limit} tokens")
    if tokenizer.eos_token_id is None:
        raise UserError(f"model {checkpoint.name!r} has no end-of-text token, which separates documents here")
    base = fingerprint(model)
    if args.method == "lora":
        model = add_lora(model, args.lora_modules)
    texts = prepare_texts(corpus, tokenizer, preset, args)
    preset["test_batch_size"] = max(1, 1024 // length)  # the logits of a whole vocabulary take much memory
    preset["train_tokens"] = preset["train_tokens"] or 3 * length * len(texts.blocks["train"])
    output = reporting.OutputFolder(args.output, "ex_03", {
        "model": checkpoint.name, "method": args.method, "lora modules": args.lora_modules, "preset": args.preset,
        "seed": args.seed, "corpus": corpus.name, "corpus text": corpus.digest, "block length": length,
        "batch size": args.batch_size, "gradient accumulation": args.gradient_accumulation}, args.resume)
    trainable, total = count_parameters(model)
    if is_main_process():  # three checkpoints (weights and Adam's two moments), and what is kept
        output.check_room((4 * 12 * trainable + 4 * total * (args.method == "full")) / 1e6)
    resume_from = training.checkpoint_to_resume(output.checkpoints) if args.resume else None
    if is_main_process() and not args.resume:
        training.clear_checkpoints(output.checkpoints)
    setup = Setup(device, checkpoint, base, tokenizer, model.to(device), preset, args.seed, texts, output, resume_from)
    show_banner(setup, args.method)
    return setup


def show_banner(setup: Setup, method: str) -> None:
    """Print what is about to run, and how long it should take: operations by arithmetic over the speed measured now.

    Small matrices reach about 60 % of the speed of the large ones that are timed.
    """
    from utils import reporting, runtime, training

    checkpoint, texts, tokens = setup.checkpoint, setup.texts, setup.preset["train_tokens"]
    trainable, total = count_parameters(setup.model)
    speed = 0.6 * training.matmul_flops(setup.device, runtime.precision(setup.device))
    reporting.banner("Exercise 3: fine-tuning GPT-2", {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "method": f"{method}: {trainable:,} of {total:,} parameters are trained",
        "device": f"{setup.device}, {runtime.precision(setup.device)}, {runtime.threads()} threads",
        "corpus": ": ".join(filter(None, (f"{texts.corpus.name} ({texts.corpus.source})", texts.corpus.note))),
        "general text": "reviews, " + ": ".join(filter(None, (texts.reviews.name, texts.reviews.note))),
        "expected": f"about {training_flops(trainable, total, tokens) / speed / 60:.1f} minutes of training on "
                    f"{tokens:,} tokens",
        "output": reporting.shown(setup.output.path)})


def finish(setup: Setup, results: dict) -> None:
    """Write results.json and the comparison of the methods, tidy up, and sum up."""
    from utils import plots, reporting, training

    methods = results["methods"]
    first = next(iter(methods.values()))
    bars = {"base model": first["perplexity_before"], **{name: m["perplexity_after"] for name, m in methods.items()}}
    styles = {"base model": first["style"]["before"], **{name: m["style"]["after"] for name, m in methods.items()},
              "held-out corpus": first["style"]["corpus"]}
    setup.output.save_figure("comparison.png", plots.bar_groups([
        ("Held-out perplexity (lower is better)", {name: list(v.values()) for name, v in bars.items()},
         ["corpus", "movie reviews"]),
        ("Style of the continuations", {name: list(v.values()) for name, v in styles.items()},
         ["characteristic words", "classified as corpus"])]))
    setup.output.save_results(results)
    training.clear_checkpoints(setup.output.checkpoints)
    setup.output.release()
    reporting.heading("Done")
    show_methods(methods)
    reporting.say(f"Done in {results['minutes']:.1f} minutes, peak memory {results['peak_memory_mb']:.0f} MB. Results, "
                  f"plots (*.png) and {SAVED[results['method']]}/ are in {reporting.shown(setup.output.path)}")


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for mistakes that the user can mend."""
    args = parse_arguments(argv)
    if args.generate:
        return generate(args)

    from utils import course_data, reporting, runtime

    clock, prompts = runtime.Stopwatch(), course_data.load_sample_prompts()["fine_tuning_probes"]
    setup = prepare(args)
    before = {}
    if is_main_process():
        reporting.heading("Part 1: the corpus", "No document is in two splits. Are its words what you expect?")
        show_corpus(setup)
        reporting.heading("Part 2: before", "Which of the two texts surprises the base model more?")
        before = measure(setup, setup.model, prompts)
        reporting.table("Held-out perplexity", ["text", "perplexity"], list(map(list, before["perplexity"].items())))

    reporting.heading("Part 3: fine-tuning", "Does the validation perplexity still fall at the end?")
    trainer, record = fine_tune(setup, args)
    if not is_main_process():
        return {}

    reporting.heading("Part 4: after", "What was gained on the corpus, and what was forgotten of general text?")
    after = measure(setup, trainer.model, prompts)
    style = compare(setup, before, after, prompts)
    reporting.heading("Part 5: practical considerations", "What does it take, and what would a larger model?")
    record |= {"perplexity_before": before["perplexity"], "perplexity_after": after["perplexity"], "style": style}
    record |= practical(setup, args.method, record)
    record |= {"peak_memory_mb": runtime.peak_memory_mb(), "minutes": clock.seconds / 60}
    same = {"model": setup.checkpoint.name, "source": setup.checkpoint.source, "corpus": setup.texts.corpus.name,
            "corpus_text": setup.texts.corpus.digest, "preset": args.preset, "seed": args.seed,
            "device": setup.device, "precision": runtime.precision(setup.device),
            "block_length": setup.preset["block_length"], "train_tokens": record["train_tokens"]}
    results = {**same, "method": args.method, **record, "continuations": [
        {"prompt": prompt, "before": old, "after": new} for prompt, old, new in
        zip(prompts, before["continuations"], after["continuations"], strict=True)],
        "history": trainer.state.log_history, "methods": {**earlier_methods(setup.output, same), args.method: record}}
    finish(setup, results)
    return results


if __name__ == "__main__":
    run(main)
