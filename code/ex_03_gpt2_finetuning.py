"""Exercise 3: fine-tune GPT-2 on a specialised text, wholly or with LoRA; measure gain and cost.

You will see (1) a corpus cut into documents, splits and equal blocks, (2) what the base model makes
of it, (3) the fine-tuning with the Trainer, (4) what was learned and what forgotten, (5) memory,
speed and the price of larger models.

    python code/ex_03_gpt2_finetuning.py                    quick: minutes on two CPU cores
    python code/ex_03_gpt2_finetuning.py --method lora      0.3 % of the parameters instead of all
    python code/ex_03_gpt2_finetuning.py --preset smoke     random tiny model, seconds: does it run?
    python code/ex_03_gpt2_finetuning.py --corpus my_texts/ your own .txt, .md or source files
    python code/ex_03_gpt2_finetuning.py --generate "The with statement"      ask what you trained

Each method has a folder of its own, outputs/ex_03/full and outputs/ex_03/lora. Training runs in
bf16 where the processor is fast at it, and what is measured before and after it in fp32, since the
8 bits of bf16 would change the third digit of a perplexity.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from utils import runtime
from utils.runtime import UserError, is_main_process

if TYPE_CHECKING:
    import torch


# Part 1: from documents to blocks


def split_documents(documents: list[str], shares: dict[str, float],
                    seed: int) -> dict[str, list[str]]:
    """Deal whole documents out to splits, so that no text is both learned from and tested on.

    shares: split -> its share of all characters, for example {"test": 0.1, "validation": 0.1}. A
    split takes documents in an order decided by the seed, as long as they fit its share; where none
    fits, the shortest that is left. The rest is "train". Returns split -> documents.
    """
    left = random.Random(seed).sample(documents, len(documents))
    characters, splits = sum(map(len, documents)), {}
    for name, share in shares.items():
        taken, rest, room = [], [], share * characters
        for document in left:
            if len(document) <= room:
                taken.append(document)
                room -= len(document)
            else:
                rest.append(document)
        if not taken and rest:
            taken.append(rest.pop(rest.index(min(rest, key=len))))
        splits[name], left = taken, rest
    return {"train": left, **splits}


# Task 3.1 (20 points)
def pack_blocks(documents: list[list[int]], eos_token_id: int,
                block_length: int) -> list[list[int]]:
    """Join the documents' tokens, each closed by the end-of-text token, and cut equal blocks.

    No token is padding, so none is masked and the model learns where texts end. What is left over
    after the last whole block is dropped; a row shorter than one block gives no block at all.

    >>> pack_blocks([[5, 6, 7], [8, 9]], eos_token_id=0, block_length=3)
    [[5, 6, 7], [0, 8, 9]]
    """
    # BEGIN SOLUTION
    row = [token for document in documents for token in (*document, eos_token_id)]
    return [row[i:i + block_length] for i in range(0, len(row) - block_length + 1, block_length)]
    # END SOLUTION


def words(text: str) -> list[str]:
    """Its words in lower case: two or more letters, digits or underscores, no digit first."""
    return re.findall(r"\b[^\W\d]\w+", text.lower())


# Task 3.2 (15 points)
def characteristic_words(corpus: list[str], general: list[str], count: int = 200) -> list[str]:
    """The words that set one collection of texts apart from another, the most telling first.

    Ranked by the z-score of the difference in a word's log-odds: Monroe, Colaresi and Quinn 2008,
    "Fightin' Words". The odds are its occurrences over those of all other `words`, with half a one
    added to both; the variance is 1 over the word's, summed over both collections. Equals stand in
    the order of their letters. A plain ratio of frequencies would put words first that occur once
    here and never there.
    """
    # BEGIN SOLUTION
    ours, others = (Counter(words(" ".join(texts))) for texts in (corpus, general))
    n_ours, n_others = ours.total(), others.total()

    def z_score(word: str) -> float:
        a, b = ours[word] + 0.5, others[word] + 0.5
        difference = math.log(a / (n_ours - a + 1)) - math.log(b / (n_others - b + 1))
        return difference / math.sqrt(1 / a + 1 / b)

    return sorted(ours, key=lambda word: (-z_score(word), word))[:count]
    # END SOLUTION


# Part 2: perplexity and continuations


# Task 3.3 (20 points)
def next_token_nll(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each token given those before it.

    logits: (batch, length, vocabulary), input_ids: (batch, length). The logits at position i are
    the forecast of token i + 1, and nothing forecasts the first token, so the result is
    (batch, length - 1), in nats. Even odds for the right token cost log 2 = 0.69.
    """
    # BEGIN SOLUTION
    import torch

    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return nll.view(len(input_ids), -1)
    # END SOLUTION


# Task 3.4 (15 points)
def perplexity(nll: torch.Tensor) -> float:
    """exp of the mean loss per token: among how many equally likely tokens the model hesitates.

    nll: any number of token losses in nats; losses of log 50 throughout give 50. Only comparable
    for the same text, tokenizer and context length.
    """
    # BEGIN SOLUTION
    return float(nll.mean().exp())
    # END SOLUTION


def held_out_perplexity(model, blocks: list[list[int]], eos_token_id: int,
                        batch_size: int) -> float:
    """The perplexity, in fp32, of text packed in blocks, each read from its own beginning.

    A token at the start of a block has little before it to be guessed from, so the figure is
    somewhat higher than with a sliding window; before and after it is the same measure. The
    end-of-text tokens do not count: where we put them is our habit, and learning it is not learning
    the text.
    """
    import torch

    losses = []
    with torch.inference_mode():
        for start in range(0, len(blocks), batch_size):
            ids = torch.tensor(blocks[start:start + batch_size], device=model.device)
            nll = next_token_nll(model(input_ids=ids).logits, ids)
            losses.append(nll[ids[:, 1:] != eos_token_id])
    return perplexity(torch.cat(losses))


def continuations(model, tokenizer, prompts: list[str], seed: int, new_tokens: int,
                  samples: int) -> list[list[str]]:
    """For each prompt, `samples` continuations of at most new_tokens, without the prompt.

    One left-padded batch in fp32, with temperature 0.8 and top_p 0.95. Same seed, same text.
    """
    import torch
    from transformers import set_seed

    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    set_seed(seed)
    with torch.inference_mode():
        ids = model.generate(**batch.to(model.device), do_sample=True, temperature=0.8, top_p=0.95,
                             top_k=0, max_new_tokens=new_tokens, num_return_sequences=samples)
    new = ids[:, batch["input_ids"].shape[1]:]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    return [texts[i:i + samples] for i in range(0, len(texts), samples)]


# Part 3: fine-tuning


def add_lora(model, modules: str | None = None):
    """Freeze a model and put a trainable product of two thin matrices beside each chosen layer.

    W x becomes W x + (alpha / rank) B A x, with A (rank, in) and B (out, rank), B zero at first: Hu
    et al. 2021, arXiv 2106.09685. modules: names of layers with commas between them, "all-linear",
    or None for those usual in this kind of model (peft knows c_attn for GPT-2). Returns a
    PeftModel. Raises UserError if the model has no such layers.
    """
    from peft import LoraConfig, get_peft_model

    kinds = {name.split(".")[-1]: type(layer).__name__ for name, layer in model.named_modules()}
    chosen: str | list[str] | None = modules
    if modules not in (None, "all-linear"):
        chosen = [name.strip() for name in modules.split(",")]
    try:
        if isinstance(chosen, list) and not kinds.keys() - {""} >= set(chosen):
            raise ValueError("not all of them are in the model")  # peft would pass over some
        return get_peft_model(model, LoraConfig(
            task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.05,
            target_modules=chosen, fan_in_fan_out="Conv1D" in kinds.values()))  # GPT-2: transposed
    except ValueError as error:
        linear = sorted(name for name, kind in kinds.items() if kind in ("Linear", "Conv1D"))
        raise UserError(f"--lora-modules {modules or ''}: {str(error).splitlines()[0]}; give names "
                        f"out of {', '.join(linear)}, or all-linear") from None


def make_trainer(session, model, blocks: dict[str, list[list[int]]], eos_token_id: int):
    """A Trainer on shuffled blocks that validates as it goes and keeps the best checkpoint.

    It trains, and validates, in `runtime.precision`. Blocks are equally long, so --batch-size 1
    with --gradient-accumulation 2 learns what --batch-size 2 learns.
    """
    import torch
    from transformers import Trainer, default_data_collator

    from utils import training

    settings = session.settings

    def validation_metrics(prediction) -> dict[str, float]:
        nll, ids = torch.from_numpy(prediction.predictions), torch.from_numpy(prediction.label_ids)
        return {"perplexity": perplexity(nll[ids[:, 1:] != eos_token_id])}

    # The labels are the tokens themselves, which the model shifts by one; none is masked.
    rows = {part: [{"input_ids": block, "labels": block} for block in blocks[part]]
            for part in ("train", "validation")}
    tokens = settings.train_tokens or 3 * len(rows["train"]) * settings.block_length
    per_step = settings.batch_size * settings.gradient_accumulation * settings.block_length
    steps = max(1, round(tokens / per_step))
    return Trainer(
        model=model, train_dataset=rows["train"], data_collator=default_data_collator,
        eval_dataset=rows["validation"][:settings.validation_blocks],
        preprocess_logits_for_metrics=next_token_nll,  # a loss per token, not a vocabulary's logits
        compute_metrics=validation_metrics, callbacks=[training.StepClock()],
        args=training.training_arguments(
            session, settings.batch_size, every=math.ceil(steps / 5), max_steps=steps,
            learning_rate=settings.learning_rate[settings.method],
            gradient_accumulation_steps=settings.gradient_accumulation,
            gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            per_device_eval_batch_size=settings.batch_size,
            eval_on_start=training.checkpoint_to_resume(session.checkpoints) is None,
            metric_for_best_model="perplexity", greater_is_better=False,
            include_num_input_tokens_seen="all"))


# Part 4: what was learned, and what forgotten


# Task 3.5 (10 points)
def style_share(texts: list[str], characteristic: list[str]) -> float:
    """Share of the texts' `words` that are among the characteristic ones; 0 without words.

    >>> style_share(["A list of names", "the film"], ["list", "names"])
    0.4
    """
    # BEGIN SOLUTION
    found, wanted = words(" ".join(texts)), set(characteristic)
    return sum(word in wanted for word in found) / max(1, len(found))
    # END SOLUTION


def compare(before: dict, after: dict, corpus: dict[str, list[str]],
            general: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """What fine-tuning changed: "ratio", by which factor each perplexity, and "style".

    before, after: from `measure`. corpus, general: texts by split. A ratio below 1 is a gain; above
    1 on general text it is what was forgotten. Style is the share of words characteristic of the
    corpus, as "train" tells them; held-out texts of both kinds ("test") show the scale.
    """
    told = characteristic_words(corpus["train"], general["train"])
    texts = {"held-out reviews": general["test"],
             "continuations before": sum(before["continuations"], []),
             "continuations after": sum(after["continuations"], []),
             "held-out corpus": corpus["test"]}
    return {"ratio": {text: value / before["perplexity"][text]
                      for text, value in after["perplexity"].items()},
            "style": {name: style_share(some, told) for name, some in texts.items()}}


# Part 5: what it costs


# Task 3.6 (10 points)
def training_flops(trainable: int, parameters: int, tokens: int) -> int:
    """Floating-point operations of training on so many tokens: 6 N D when all N are trained.

    Per token and parameter: one multiplication and one addition forward, the same for the gradient
    of the activations, and the same again for the gradient of the weight itself, which frozen
    weights do without (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). So LoRA does about two
    thirds of the work: training_flops(10, 10, 1) is 60, training_flops(0, 10, 1) is 40.
    """
    # BEGIN SOLUTION
    return (4 * parameters + 2 * trainable) * tokens
    # END SOLUTION


# Task 3.7 (10 points)
def training_memory(trainable: int, parameters: int) -> int:
    """Bytes for weights, gradients and Adam in fp32, without the activations.

    A weight takes 4 bytes, and a trained one 12 more: its gradient and Adam's two moments (Kingma
    and Ba 2015, arXiv 1412.6980). training_memory(10, 10) is 160, training_memory(0, 10) is 40.
    """
    # BEGIN SOLUTION
    return 4 * parameters + 12 * trainable
    # END SOLUTION


def larger_models(trainable: int, parameters: int, tokens: int,
                  tokens_per_second: float) -> list[dict]:
    """What the same training would take of LARGER models, of which as large a share is trained.

    Returns a dict for each, this model first; minutes at the operations per second that it reached.
    A model ten times as large takes ten times the minutes and the memory.
    """
    flops_per_second = training_flops(trainable, parameters, 1) * tokens_per_second
    rows = []
    for name, size in {"this model": parameters, **LARGER}.items():
        part = size * trainable // parameters
        rows.append({"model": name, "parameters": size,
                     "minutes": training_flops(part, size, tokens) / flops_per_second / 60,
                     "gigabytes": training_memory(part, size) / 1e9})
    return rows


# The parts, put together from these functions


def make_blocks(texts: dict[str, list[str]], tokenizer, block_length: int) -> dict:
    """Split -> blocks of token ids. Raises UserError if a split has not even one block."""
    blocks = {}
    for part, documents in texts.items():
        ids = tokenizer(documents, add_special_tokens=False)["input_ids"]
        blocks[part] = pack_blocks(ids, tokenizer.eos_token_id, block_length)
        if not blocks[part]:
            raise UserError(f"the {part} texts have {sum(map(len, ids))} tokens, and a block "
                            f"{block_length}: give more text, or a shorter --block-length")
    return blocks


def describe(splits: dict, blocks: dict, general: dict) -> dict:
    """Part 1: the splits in numbers, and the words that set the corpus apart."""
    return {"splits": [{"split": part, "documents": len(texts), "characters": sum(map(len, texts)),
                        "blocks": len(blocks[part]), "tokens": sum(map(len, blocks[part]))}
                       for part, texts in splits.items()],
            "words": characteristic_words(splits["train"], general["train"], 20)}


def measure(session, tokenizer, model, blocks: dict, prompts: list[str]) -> dict:
    """Parts 2 and 4, in the same way: perplexity of both texts, and continuations of prompts."""
    settings, model = session.settings, model.to(session.device).eval()
    texts = {"corpus": blocks["test"], "reviews": blocks["reviews"]}
    return {"perplexity": {name: held_out_perplexity(model, text[:settings.test_blocks],
                                                     tokenizer.eos_token_id, settings.batch_size)
                           for name, text in texts.items()},
            "prompts": prompts, "continuations": continuations(
                model, tokenizer, prompts, settings.seed, settings.new_tokens, settings.samples)}


def fine_tune(session, tokenizer, model, blocks: dict) -> dict:
    """Part 3: train, or go on from a checkpoint, and save the best model, or adapter."""
    from utils import training

    trainer = make_trainer(session, model.to(session.device), blocks, tokenizer.eos_token_id)
    trained = training.train(trainer, session)
    if not is_main_process():
        return {}
    folder = session.save_model(SAVED[session.settings.method], trainer.model, tokenizer)
    state, tokens = trainer.state, trainer.state.num_input_tokens_seen
    seconds = [row["step_seconds"] for row in state.log_history if "step_seconds" in row]
    return {**trained, "best_step": state.best_global_step,
            "best_validation_perplexity": state.best_metric,
            "trainable_parameters": model.num_parameters(only_trainable=True),
            "parameters": model.num_parameters(),
            "tokens": tokens, "step_seconds": sum(seconds),
            "tokens_per_second": tokens / len(seconds) / statistics.median(seconds),
            "saved_mb": sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6}


def cost(session, trained: dict) -> dict:
    """Part 5: the arithmetic of the run against its measured speed, and of larger models."""
    from utils import training

    sizes = trained["trainable_parameters"], trained["parameters"]
    tokens, per_second = trained["tokens"], trained["tokens_per_second"]
    return {"training_flops": training_flops(*sizes, tokens),
            "achieved_flops_per_second": training_flops(*sizes, 1) * per_second,
            "matmul_flops_per_second": training.matmul_flops(
                session.device, runtime.precision(session.device)),
            "models": larger_models(*sizes, tokens, per_second)}


def load_trained(settings):
    """(tokenizer, model) from model/, or from adapter/ on the base that it was trained on."""
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    from utils import checkpoints, hub

    folder = settings.output.resolve() / SAVED[settings.method]
    if settings.method == "full":
        return checkpoints.load_decoder(checkpoints.Checkpoint(str(folder), "folder", folder))
    try:
        base = settings.model or PeftConfig.from_pretrained(folder).base_model_name_or_path
        tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", base))
        return tokenizer, PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the adapter in {folder} cannot be loaded ({hub.one_line(error)}): "
                        "train it again, or name its base with --model") from error


# The whole lesson: what a run takes, and its course

SHARES = {"test": 0.1, "validation": 0.1}  # of the corpus's characters
LORA_RANK = 8
LARGER = {"GPT-2 medium": 354_823_168, "GPT-2 large": 774_030_080, "GPT-2 XL": 1_557_611_200,
          "Llama 3 8B": 8_030_000_000}  # parameters
SAVED = {"full": "model", "lora": "adapter"}  # method -> folder of what was trained

# train_tokens: how many are learned from in all; None for three times the whole corpus.
# test_blocks, validation_blocks: the most that perplexity is measured on. reviews: the most to
# learn words from, and to test on. samples: continuations of each prompt, of at most new_tokens.
PRESETS: dict[str, dict] = {
    "smoke": {"characters": 40_000, "train_tokens": 12_000, "block_length": 64, "test_blocks": 16,
              "validation_blocks": 8, "learning_rate": {"full": 3e-3, "lora": 3e-2}, "reviews": 300,
              "new_tokens": 24, "samples": 2, "model": "tiny"},
    "quick": {"characters": 2_000_000, "train_tokens": 16_384, "block_length": 256,
              "test_blocks": 16, "validation_blocks": 8, "reviews": 2000, "new_tokens": 40,
              "samples": 4, "learning_rate": {"full": 3e-4, "lora": 2e-3}},
    "full": {"characters": None, "train_tokens": None, "block_length": 512, "test_blocks": None,
             "validation_blocks": 100, "reviews": None, "new_tokens": 80, "samples": 8,
             "learning_rate": {"full": 5e-5, "lora": 5e-4}},
}


def parse(argv: list[str] | None):
    parser = runtime.shared_parser(__doc__, "ex_03")
    add = parser.add_argument
    add("--method", choices=tuple(SAVED), default="full", help="full: train every weight; lora: "
        "freeze them and train small matrices beside them (default: %(default)s)")
    add("--corpus", metavar="NAME", help="a text file, a folder of them, or a data set of the Hub "
        "(default: the Python language reference)")
    add("--batch-size", type=runtime.positive_int, default=2, metavar="N",
        help="blocks per pass (default: %(default)s)")
    add("--block-length", type=runtime.positive_int, metavar="N",
        help="tokens per block (default: the preset's, 64 to 512)")
    add("--gradient-accumulation", type=runtime.positive_int, default=1, metavar="N",
        help="passes per step (default: %(default)s)")
    add("--gradient-checkpointing", action="store_true", help="compute activations twice instead "
        "of keeping them: less memory, about a third more time")
    add("--lora-modules", metavar="NAMES", help="layers that get LoRA matrices, with commas "
        "between them, or all-linear (default: c_attn in GPT-2, q_proj and v_proj in Llama)")
    add("--generate", action="append", metavar="PROMPT", type=runtime.well_formed,
        help="continue a prompt with the saved model or adapter, repeatable")
    settings = runtime.complete(parser, PRESETS, argv)
    if settings.lora_modules is not None and settings.method != "lora":
        raise UserError("--lora-modules: only LoRA uses it; add --method lora")
    settings.output /= settings.method  # both stay, and can be compared
    return settings


def generate(settings) -> dict:
    """--generate: continue prompts with the model or adapter that an earlier run saved."""
    from utils import training
    from views import ex_03 as views

    folder, prompts = settings.output.resolve() / SAVED[settings.method], settings.generate
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("--generate: the prompt is empty")
    if settings.method == "full" and settings.model not in (None, "tiny"):
        raise UserError(f"--generate continues with the model in {folder}: leave out --model")
    if not folder.is_dir():
        raise UserError(f"--generate: there is no trained {folder.name} in {folder.parent}; run "
                        "without --generate first, or choose another --method")
    device = runtime.start(settings)
    tokenizer, model = load_trained(settings)
    room = training.longest_input(model, tokenizer) - settings.new_tokens
    if any(len(tokenizer(prompt)["input_ids"]) > room for prompt in prompts):
        raise UserError(f"--generate: a prompt has more than the {room} tokens for which the model "
                        "has room; shorten it")
    model = model.to(device).eval()
    texts = [continuations(model, tokenizer, [prompt], settings.seed, settings.new_tokens, 1)[0][0]
             for prompt in prompts]
    views.generated(prompts, texts)
    return {"prompts": prompts, "continuations": texts}


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for a user's mistakes."""
    settings = parse(argv)
    if settings.generate:
        return generate(settings)
    from utils import checkpoints, corpora, course_data, movie_reviews, training
    from utils.session import Session
    from views import ex_03 as views

    prompts = course_data.load_sample_prompts()["fine_tuning_probes"]
    training.batch_per_process(settings.batch_size)  # complains before the work begins
    corpus = corpora.load_corpus(settings.corpus, settings.seed, settings.characters)
    with Session("ex_03", settings) as session:
        checkpoint = checkpoints.fetch("decoder", settings.model)
        tokenizer, model = checkpoints.load_decoder(checkpoint)
        limit = training.longest_input(model, tokenizer)
        if not 8 <= settings.block_length <= limit:
            raise UserError(f"--block-length {settings.block_length}: {checkpoint.name} takes 8 to "
                            f"{limit} tokens")
        if settings.method == "lora":
            model = add_lora(model, settings.lora_modules)
        reviews = movie_reviews.load_reviews(
            "tiny" if settings.preset == "smoke" else None, settings.seed,
            {"train": settings.reviews, "validation": 2, "test": settings.reviews})
        general = {part: list(reviews.splits[part]["text"]) for part in ("train", "test")}
        splits = split_documents(corpus.documents, SHARES, settings.seed)
        blocks = make_blocks({**splits, "reviews": ["\n".join(general["test"])]}, tokenizer,
                             settings.block_length)
        trainable, parameters = model.num_parameters(only_trainable=True), model.num_parameters()
        session.open("Exercise 3: fine-tuning GPT-2", {
            "model": checkpoint.name, "source": checkpoint.source, "data": corpus.name,
            "corpus_text": corpus.digest, "general_text": reviews.name},
            views.facts(checkpoint, trainable, parameters, corpus, reviews, session),
            disk_mb=(3 * 12 * trainable + 4 * parameters) / 1e6,  # three checkpoints, the model
            memory_mb=training_memory(trainable, parameters) / 1e6 * (session.device == "cpu"))

        session.part(
            "corpus", "Part 1: the corpus",
            "No document is in two splits. Are its words what you expect?",
            lambda: describe(splits, blocks, general), views.corpus)
        before = session.part(
            "before", "Part 2: before", "Which of the two texts surprises the base model more?",
            lambda: measure(session, tokenizer, model, blocks, prompts), views.before)
        trained = session.part(
            "training", "Part 3: fine-tuning", "Is the validation perplexity still falling?",
            lambda: fine_tune(session, tokenizer, model, blocks), views.training, everywhere=True)
        if not is_main_process():
            return {}

        def look_again() -> dict:
            tokenizer, model = load_trained(settings)
            after = measure(session, tokenizer, model, blocks, prompts)
            return {**after, **compare(before, after, splits, general)}

        session.part(
            "after", "Part 4: after", "What was gained, and what was forgotten of general text?",
            look_again, lambda after, folder: views.after(before, after, folder))
        session.part(
            "cost", "Part 5: practical considerations", "What would a larger model take?",
            lambda: cost(session, trained), views.cost)
        views.methods(session)
        return session.close(f"Results, plots (*.png) and {SAVED[settings.method]}/ are in")


if __name__ == "__main__":
    runtime.run(main)
