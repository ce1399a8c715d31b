"""Exercise 1: fine-tune a pre-trained BERT to tell good movie reviews from bad ones.

You will see (1) how text becomes tokens, (2) what simple baselines reach, (3) fine-tuning with the Trainer, (4) how
good the result is, where it errs and which words moved it, (5) that one word has other vectors in other sentences.

    python code/ex_01_bert_classification.py                      quick: minutes on two CPU cores, under 3 GB
    python code/ex_01_bert_classification.py --preset smoke       random tiny model, seconds: does it all run?
    python code/ex_01_bert_classification.py --predict "A lovely film"      ask the model that you trained
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.runtime import UserError, is_main_process, positive_int, run, shared_parser

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from utils.checkpoints import Checkpoint
    from utils.corpora import Reviews
    from utils.reporting import OutputFolder

METRIC = str(Path(__file__).resolve().parent / "utils" / "accuracy_f1.py")
LARGE = 60_000_000  # parameters; above it, quick takes fewer reviews, so that BERT-base too stays near ten minutes
# Reviews per split (None: all). In quick's one epoch, dropout and training the word embeddings as well would take a
# quarter of the time and gain nothing; in full's three they are worth it.
PRESETS = {
    "smoke": {"train": 400, "validation": 80, "test": 84, "epochs": 2, "learning_rate": 3e-3, "max_length": 64,
              "dropout": 0.1, "train_embeddings": True},
    "quick": {"train": 7900, "validation": 500, "test": 1500, "epochs": 1, "learning_rate": 5e-5, "max_length": 128,
              "dropout": 0.0, "train_embeddings": False},
    "quick, large model": {"train": 2000, "validation": 300, "test": 500, "epochs": 1, "learning_rate": 5e-5,
                           "max_length": 128, "dropout": 0.0, "train_embeddings": False},
    "full": {"train": None, "validation": None, "test": None, "epochs": 3, "learning_rate": 3e-5, "max_length": 256,
             "dropout": 0.1, "train_embeddings": True},
}


def parse_arguments(argv: list[str] | None):
    parser = shared_parser(__doc__, "ex_01")
    add = parser.add_argument
    add("--data", metavar="NAME", help="rotten_tomatoes, imdb, packaged (from PyPI), tiny, or a .csv or .jsonl file "
        "with columns text and label; default: rotten_tomatoes, or packaged if the Hub is out of reach")
    add("--batch-size", type=positive_int, default=16, help="reviews per training step (default: %(default)s)")
    add("--max-length", type=positive_int, help="tokens after which a review is cut (default: the preset's)")
    add("--predict", action="append", metavar="TEXT", help="label a text with the saved model, repeatable")
    return parser.parse_args(argv)


# Part 1: from text to tokens


def encode(tokenizer, texts: list[str], max_length: int) -> dict[str, list[list[int]]]:
    """Token ids of each text with [CLS] and [SEP], cut at max_length, not padded: padding is done batch by batch.

    Returns input_ids and attention_mask (and token_type_ids for BERT), one list per text.
    """
    return dict(tokenizer(texts, truncation=True, max_length=max_length))


def show_tokens(tokenizer, sentence: str) -> None:
    """Print how a sentence and a shorter one look to the model, in one padded batch."""
    from utils import reporting

    batch = tokenizer([sentence, "Great fun."], padding=True)
    columns = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        columns += [tokenizer.convert_ids_to_tokens(ids), ids, mask]
    reporting.table("One batch of two sentences", ["token", "id", "attention mask"] * 2,
                    [list(row) for row in zip(*columns, strict=True)])
    reporting.say(f"The vocabulary has {len(tokenizer):,} entries. A rare word is cut into pieces (## continues a "
                  "word); [PAD] fills the shorter sentence, and a mask of 0 tells the model to look away from it.")


def show_masked_guesses(checkpoint, tokenizer, sentence: str, device: str) -> list[str]:
    """Print and return the five likeliest words for [MASK], or say why this checkpoint cannot guess."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    from utils import checkpoints, reporting

    architectures = checkpoints.load(AutoConfig, checkpoint).architectures or []
    if not any("MaskedLM" in name or "PreTraining" in name for name in architectures):
        reporting.say(f"No guesses for [MASK]: this checkpoint holds {', '.join(architectures) or 'an encoder'} alone. "
                      "The masked-LM head, which BERT was pre-trained with, was not saved with it, and a new one would "
                      "guess at random.")
        return []
    model = checkpoints.load(AutoModelForMaskedLM, checkpoint).to(device).eval()
    batch = tokenizer(sentence.replace("[MASK]", tokenizer.mask_token), return_tensors="pt").to(device)
    with torch.no_grad():
        logits = model(**batch).logits[batch["input_ids"] == tokenizer.mask_token_id][0]
    top = logits.softmax(-1).topk(5)
    words = tokenizer.convert_ids_to_tokens(top.indices.tolist())
    reporting.table(sentence, ["guess", "probability"],
                    [list(row) for row in zip(words, top.values.tolist(), strict=True)])
    return words


# Part 2: what is easy without BERT


def baselines(train: dict, test: dict) -> dict[str, float]:
    """Test accuracy of two honest baselines: the commoner label, and TF-IDF with logistic regression.

    train, test: {"text": list of strings, "label": list of 0 and 1}.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    majority = DummyClassifier(strategy="most_frequent").fit(train["text"], train["label"])
    tfidf = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                          LogisticRegression(C=10, max_iter=1000))
    tfidf.fit(train["text"], train["label"])
    return {"majority": majority.score(test["text"], test["label"]),
            "tfidf_logistic_regression": tfidf.score(test["text"], test["label"])}


# Part 3: fine-tuning


def compute_metrics(prediction) -> dict[str, float]:
    """Accuracy and F1 from a Trainer's EvalPrediction: logits (reviews, 2) and labels (reviews,)."""
    return score(prediction.predictions.argmax(-1), prediction.label_ids)


def score(predictions, references) -> dict[str, float]:
    """{"accuracy": ..., "f1": ...} of labels 0 and 1, by the `evaluate` library."""
    import evaluate

    return evaluate.load(METRIC, keep_in_memory=True).compute(predictions=predictions, references=references)


def training_order(lengths: list[int], batch_size: int, epochs: int, seed: int) -> list[int]:
    """Indices of the training examples in the order of use: similar lengths side by side, each epoch shuffled anew.

    Batches of similar length need little padding. The order depends on nothing but the seed, so a resumed run sees
    exactly what the uninterrupted one would have seen. Returns len(lengths) * epochs indices.
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    return [i for epoch in range(epochs) for i in get_length_grouped_indices(
        lengths, batch_size, generator=torch.Generator().manual_seed(seed + epoch))]


def make_trainer(setup: Setup, args):
    """A Trainer that pads per batch, groups by length, validates while training and keeps the best checkpoint."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from utils.runtime import precision, processes

    preset, tokenizer = setup.preset, setup.tokenizer
    tokens = {part: setup.reviews.splits[part].map(
        lambda rows: encode(tokenizer, rows["text"], preset["max_length"]), batched=True, remove_columns="text")
        for part in ("train", "validation")}
    lengths = {part: [len(ids) for ids in tokens[part]["input_ids"]] for part in tokens}
    order = training_order(lengths["train"], args.batch_size, preset["epochs"], args.seed)
    steps = math.ceil(len(order) / args.batch_size)
    often = math.ceil(steps / 6)
    settings = TrainingArguments(
        output_dir=str(setup.output.checkpoints), seed=args.seed, learning_rate=preset["learning_rate"],
        warmup_steps=0.1, weight_decay=0.01,
        num_train_epochs=1,  # the order below holds all epochs, one after the other
        train_sampling_strategy="sequential",
        per_device_train_batch_size=max(1, args.batch_size // processes()),
        per_device_eval_batch_size=64,
        bf16=precision(setup.device) == "bf16", use_cpu=setup.device == "cpu",
        dataloader_pin_memory=setup.device == "cuda",
        eval_strategy="steps", eval_steps=often, save_strategy="steps", save_steps=often, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="accuracy", logging_steps=max(1, often // 5),
        average_tokens_across_devices=False,  # the loss is a mean per review; True would double it on 2 processes
        ddp_find_unused_parameters=False, report_to="none", disable_tqdm=True,
    )
    by_length = sorted(range(len(lengths["validation"])), key=lengths["validation"].__getitem__)
    return Trainer(model=setup.model, args=settings, train_dataset=tokens["train"].select(order),
                   eval_dataset=tokens["validation"].select(by_length), processing_class=tokenizer,
                   data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=compute_metrics)


# Part 4: how good is it, and why does it err?


def predict_probabilities(model, tokenizer, texts: list[str], max_length: int, batch_size: int = 64) -> np.ndarray:
    """Probability of each label for each text: an array (texts, labels), rows in the order given.

    Texts are batched by length, which saves padding and, thanks to the attention mask, changes no result.
    """
    import torch
    from transformers import DataCollatorWithPadding

    from utils.runtime import precision

    columns = encode(tokenizer, texts, max_length)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    order = sorted(range(len(texts)), key=lambda i: len(rows[i]["input_ids"]))
    collate, device = DataCollatorWithPadding(tokenizer), model.device.type
    probabilities = torch.empty(len(texts), model.config.num_labels)
    model.eval()
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision(device) == "bf16"):
        for start in range(0, len(order), batch_size):
            chosen = order[start:start + batch_size]
            batch = collate([rows[i] for i in chosen]).to(model.device)
            probabilities[chosen] = model(**batch).logits.float().softmax(-1).cpu()
    return probabilities.numpy()


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean over bins of |accuracy - confidence|, weighted by the bin's share of examples.

    confidence: (n,) probability of the predicted label; right: (n,) booleans. Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    bin_of = (confidence * bins).clip(0, bins - 1).astype(int)
    return float(sum(abs(right[bin_of == b].sum() - confidence[bin_of == b].sum()) for b in range(bins)) / len(right))


def word_influence(text: str, predict: Callable[[list[str]], np.ndarray]) -> list[tuple[str, float]]:
    """How much each word moved the prediction: P(positive | text) - P(positive | text without that word).

    predict: list of texts -> probabilities (texts, 2). Returns (word, influence) in the order of the text.
    """
    words = text.split()
    without = [" ".join(words[:i] + words[i + 1:]) for i in range(len(words))]
    positive = predict([text, *without])[:, 1]
    return [(word, float(positive[0] - p)) for word, p in zip(words, positive[1:], strict=True)]


def show_influence(text: str, influence: list[tuple[str, float]]) -> None:
    """Print a text with its words coloured: green pushed towards positive, red towards negative."""
    from rich.text import Text

    from utils import reporting

    line, strongest = Text("  "), max((abs(v) for _, v in influence), default=0) or 1
    for word, value in influence:
        strength = int(200 * abs(value) / strongest)
        colour = f"black on rgb({255 - strength},255,{255 - strength})" if value > 0 else \
            f"black on rgb(255,{255 - strength},{255 - strength})"
        line.append(word, style=colour if strength > 40 else None).append(" ")
    reporting.console().print(line)
    top = sorted(influence, key=lambda pair: -abs(pair[1]))[:3]
    reporting.say("    strongest: " + ", ".join(f"{word} {value:+.2f}" for word, value in top))


def evaluate_once(model, tokenizer, test: dict, max_length: int, output) -> dict:
    """Touch the test split, once: print, draw and return accuracy, F1, interval, calibration, errors, influences."""
    import numpy as np

    from utils import corpora, plots, reporting
    from utils.intervals import accuracy_interval

    def predict(texts):
        return predict_probabilities(model, tokenizer, texts, max_length)

    probabilities, labels = predict(test["text"]), np.array(test["label"])
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    right = predicted == labels
    low, high = accuracy_interval(int(right.sum()), len(right))["interval"]
    results = {**score(predicted, labels), "accuracy_95_interval": [low, high],
               "calibration_error": calibration_error(confidence, right), "test_examples": len(labels)}
    reporting.say(f"accuracy {results['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), F1 {results['f1']:.3f},"
                  f" mean confidence {confidence.mean():.3f}, calibration error {results['calibration_error']:.3f}")
    output.save_figure("confusion_matrix.png", plots.confusion_matrix(labels, predicted, corpora.LABELS))
    output.save_figure("calibration.png", plots.calibration(confidence, right))

    lengths = np.array([len(text.split()) for text in test["text"]])
    edges = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).astype(int)
    rows = []
    for low_edge, high_edge in zip([edges[0], *(edges[1:4] + 1)], edges[1:], strict=True):
        chosen = (lengths >= low_edge) & (lengths <= high_edge)
        if chosen.any():
            rows.append([f"{low_edge} to {high_edge}", int(chosen.sum()), float(right[chosen].mean())])
    reporting.table("Accuracy by length", ["words", "reviews", "accuracy"], rows)
    results["accuracy_by_length"] = [{"words": w, "reviews": n, "accuracy": a} for w, n, a in rows]

    worst = sorted(np.flatnonzero(~right), key=lambda i: -confidence[i])[:5]
    names = model.config.id2label
    mistakes = [{"text": test["text"][i], "label": names[labels[i]], "predicted": names[predicted[i]],
                 "confidence": float(confidence[i])} for i in worst]
    reporting.table("The most confident mistakes", ["text", "label", "predicted", "confidence"],
                    [list(m.values()) for m in mistakes])
    reporting.say("Which words moved the prediction, leaving each out? Green towards positive, red towards negative.")
    shown = [int(i) for i in [*np.flatnonzero(right)[:2], *worst[:2]]]
    results["influences"] = [{"text": text, "words": word_influence(text, predict)}
                             for text in (test["text"][i] for i in shown)]
    for item in results["influences"]:
        show_influence(item["text"], item["words"])
    return {**results, "most_confident_mistakes": mistakes}


# Part 5: one word, several vectors


def word_vectors(encoder, tokenizer, sentence: str, word: str) -> torch.Tensor:
    """The contextual vectors of a word that occurs in a sentence: a tensor (layers + 1, hidden), on the CPU.

    Row 0 is the input embedding, row i the output of layer i; a word of several pieces gets their mean.
    """
    import torch

    begin, end = re.search(rf"\b{re.escape(word)}\b", sentence, re.IGNORECASE).span()
    batch = tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    pieces = [i for i, (a, b) in enumerate(offsets) if a < end and b > begin]
    with torch.no_grad():
        states = encoder(**batch.to(encoder.device), output_hidden_states=True).hidden_states
    return torch.stack([state[0, pieces].mean(0) for state in states]).float().cpu()


def cosine_matrix(vectors: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair: (n, d) -> (n, n)."""
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit @ unit.T


def sense_similarity(vectors: torch.Tensor, senses: list[str]) -> tuple[float, float]:
    """Mean cosine of the pairs of sentences with the same sense, and of those with different senses.

    vectors: (sentences, hidden), senses: one name per sentence.
    """
    import torch

    cosines, same = cosine_matrix(vectors), torch.tensor([[a == b for b in senses] for a in senses])
    off_diagonal = ~torch.eye(len(senses), dtype=torch.bool)
    return cosines[same & off_diagonal].mean().item(), cosines[~same].mean().item()


def compare_senses(before, after, tokenizer, words: list[dict], output) -> dict:
    """Print, draw and return how alike a word's vectors are within and across its senses, layer by layer."""
    import torch

    from utils import plots, reporting

    vectors, rows = {}, []
    for item in words:
        sentences = [(s["sense"], text) for s in item["senses"] for text in s["sentences"]]
        item["order"] = [sense for sense, _ in sentences]
        for name, encoder in (("before", before), ("after", after)):
            vectors[item["word"], name] = torch.stack(
                [word_vectors(encoder, tokenizer, text, item["word"]) for _, text in sentences])
    layers = vectors[words[0]["word"], "before"].shape[1]
    for layer in range(layers):
        row = [layer]
        for name in ("before", "after"):
            pairs = [sense_similarity(vectors[w["word"], name][:, layer], w["order"]) for w in words]
            row += [sum(p[0] for p in pairs) / len(pairs), sum(p[1] for p in pairs) / len(pairs)]
        rows.append(row)
    reporting.table("Cosine similarity of " + ", ".join(w["word"] for w in words) + " between sentences, by layer",
                    ["layer", "same sense", "other sense", "same, tuned", "other, tuned"], rows)
    word, order = words[0]["word"], words[0]["order"]
    output.save_figure("word_similarity.png", plots.heat_maps(
        [(f"'{word}', last layer, {name} fine-tuning", cosine_matrix(vectors[word, name][:, -1]), order, order)
         for name in ("before", "after")], vmin=0, vmax=1))
    output.save_figure("word_map.png", plots.sense_maps(
        {w["word"]: (vectors[w["word"], "before"][:, -1].numpy(), w["order"]) for w in words}))
    return {"columns": ["layer", "same_before", "other_before", "same_after", "other_after"], "rows": rows}


def show_attention(encoder, tokenizer, sentence: str, query: str, output) -> list[tuple[str, float]]:
    """Where does a word look? Draw attention.png; print and return the words that it attends to most.

    encoder: loaded with attn_implementation="eager", the only way to get the attention weights out.
    """
    import torch

    from utils import plots, reporting

    batch = tokenizer(sentence, return_tensors="pt").to(encoder.device)
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    position = tokens.index(query)
    with torch.no_grad():
        weights = torch.stack(encoder(**batch, output_attentions=True).attentions)[:, 0].cpu()  # layer, head, from, to
    from_query = weights[:, :, position].mean(1)  # (layers, tokens), the mean of a layer's heads
    inner = from_query[:, 1:-1].mean(0)  # without [CLS] and [SEP], where unused attention is parked
    ranked = sorted(zip(tokens[1:-1], inner.tolist(), strict=True), key=lambda pair: -pair[1])
    nouns = [i for i, token in enumerate(tokens) if token in ("monkey", "banana")]
    layer, head = divmod(int(weights[:, :, position, nouns or [position]].sum(-1).argmax()), weights.shape[1])
    output.save_figure("attention.png", plots.heat_maps([
        (f"Where '{query}' looks, mean of each layer's heads", from_query,
         [f"layer {i + 1}" for i in range(len(weights))], tokens),
        (f"Layer {layer + 1}, head {head + 1} (row looks at column): most from '{query}' to the nouns",
         weights[layer, head], tokens, tokens)]))
    reporting.say(f"'{query}' looks most at " + ", ".join(f"{token} {value:.2f}" for token, value in ranked[:5])
                  + " (mean of all heads, [CLS] and [SEP] aside). See attention.png. Attention shows where information "
                  "may flow, not why the model decides.")
    return ranked


def explore_words(setup: Setup, tuned, prompts: dict) -> dict:
    """Part 5 as a whole: senses of words before and after fine-tuning, then attention in one sentence."""
    from transformers import AutoModel

    from utils import checkpoints

    before = checkpoints.load(AutoModel, setup.checkpoint, dtype="float32", attn_implementation="eager")
    before = before.to(setup.device).eval()
    senses = compare_senses(before, tuned.base_model.eval(), setup.tokenizer, prompts["words_in_context"], setup.output)
    attention = prompts["sentences"]["attention"]
    looks_at = show_attention(before, setup.tokenizer, attention["text"], attention["query"], setup.output)
    return {"sense_similarity": senses, "attention_from_it": looks_at}


# The whole lesson


def predict(args) -> dict:
    """--predict: label texts with the model that an earlier run saved."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from utils import checkpoints, hub, reporting, runtime

    if any(not text.strip() for text in args.predict):
        raise UserError("--predict: the text is empty")
    folder = args.output.expanduser().resolve() / "model"
    if not hub.is_complete(folder, "model"):
        raise UserError(f"--predict: there is no trained model in {folder}; run this exercise once without --predict")
    device = runtime.start(args)
    checkpoint = checkpoints.Checkpoint(str(folder), "folder", folder)
    tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
    model = checkpoints.load(AutoModelForSequenceClassification, checkpoint).to(device)
    longest = args.max_length or min(tokenizer.model_max_length, model.config.max_position_embeddings)
    probabilities = predict_probabilities(model, tokenizer, args.predict, longest)
    answers = [{"text": text, "label": model.config.id2label[int(p.argmax())], "probability": float(p.max())}
               for text, p in zip(args.predict, probabilities, strict=True)]
    reporting.table("", ["text", "label", "probability"], [list(a.values()) for a in answers])
    return {"predictions": answers}


@dataclass
class Setup:
    """What all parts work on."""

    device: str
    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel  # the encoder with a new classification head
    preset: dict
    reviews: Reviews
    output: OutputFolder
    resume_from: Path | None


def prepare(args) -> Setup:
    """Find model and data, check what was asked for, claim the output folder, print the banner."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from utils import checkpoints, corpora, reporting, runtime, training

    device = runtime.start(args)
    smoke = "tiny" if args.preset == "smoke" else None
    checkpoint = checkpoints.find("encoder", args.model or smoke)
    checkpoints.check_family(checkpoint, "encoder")
    tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
    model = checkpoints.load(AutoModelForSequenceClassification, checkpoint, num_labels=2, dtype="float32",
                             id2label=dict(enumerate(corpora.LABELS)))
    large = args.preset == "quick" and model.num_parameters() > LARGE
    preset = dict(PRESETS["quick, large model" if large else args.preset])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = preset["dropout"]
    model.get_input_embeddings().requires_grad_(preset["train_embeddings"])
    limit = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    if not 3 <= (args.max_length or limit) <= limit:
        raise UserError(f"--max-length {args.max_length}: {checkpoint.name} takes 3 to {limit} tokens")
    preset["max_length"] = args.max_length or min(preset["max_length"], limit)
    reviews = corpora.load_reviews(args.data or smoke, args.seed, preset)
    output = reporting.OutputFolder(args.output, "ex_01", {
        "model": checkpoint.name, "data": reviews.name, "preset": args.preset, "seed": args.seed,
        "batch size": args.batch_size, "max length": preset["max_length"]}, args.resume)
    if is_main_process():
        output.check_room(4 * 12 * model.num_parameters() / 1e6)  # three checkpoints (weights, two moments), the model
    reporting.banner("Exercise 1: BERT for sentiment", {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "parameters": f"{model.num_parameters():,}, {model.num_parameters(only_trainable=True):,} of them trained",
        "device": f"{device}, {runtime.precision(device)}, {runtime.threads()} threads",
        "reviews": ": ".join(filter(None, (reviews.name, reviews.note))),
        **{f"  {part}": corpora.balance(split) for part, split in reviews.splits.items()},
        "expected": f"about {expected_minutes(model, tokenizer, reviews, preset, device):.1f} minutes of fine-tuning",
        "output": reporting.shown(output.path),
    })
    resume_from = training.checkpoint_to_resume(output.checkpoints) if args.resume else None
    if is_main_process() and not args.resume:
        training.clear_checkpoints(output.checkpoints)
    return Setup(device, checkpoint, tokenizer, model.to(device), preset, reviews, output, resume_from)


def expected_minutes(model, tokenizer, reviews, preset: dict, device: str) -> float:
    """Minutes of fine-tuning by arithmetic: 6 x parameters x tokens (Kaplan et al. 2020) over the speed measured now.

    The embedding table is looked up, not multiplied, so it does not count. Small matrices reach about 60 % of the speed
    of the large one that is timed.
    """
    from utils.runtime import precision
    from utils.training import matmul_flops

    sample = reviews.splits["train"]["text"][:200]
    tokens = sum(map(len, encode(tokenizer, sample, preset["max_length"])["input_ids"])) / len(sample)
    multiplied = model.num_parameters() - model.get_input_embeddings().weight.numel()
    operations = 6 * multiplied * tokens * len(reviews.splits["train"]) * preset["epochs"]
    return operations / (0.6 * matmul_flops(device, precision(device))) / 60


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for mistakes that the user can mend."""
    args = parse_arguments(argv)
    if args.predict:
        return predict(args)

    from utils import course_data, plots, reporting, runtime, training

    clock, prompts = runtime.Stopwatch(), course_data.load_sample_prompts()
    setup = prepare(args)
    train, test = (setup.reviews.splits[part].to_dict() for part in ("train", "test"))
    results = {"model": setup.checkpoint.name, "source": setup.checkpoint.source, "data": setup.reviews.name,
               "preset": args.preset, "seed": args.seed, "device": setup.device,
               "precision": runtime.precision(setup.device), "train_examples": len(train["text"])}

    if is_main_process():
        reporting.heading("Part 1: from text to tokens", "How is a word cut that the vocabulary does not hold?")
        show_tokens(setup.tokenizer, prompts["sentences"]["rare_word"])
        results["mask_guesses"] = show_masked_guesses(setup.checkpoint, setup.tokenizer, prompts["sentences"]["masked"],
                                                      setup.device)
        reporting.heading("Part 2: baselines", "Fine-tuning has to beat these on the same test split.")
        results["baselines"] = baselines(train, test)
        reporting.table("", ["baseline", "test accuracy"], [list(pair) for pair in results["baselines"].items()])

    reporting.heading("Part 3: fine-tuning", "Does the validation accuracy still rise at the end?")
    trainer = make_trainer(setup, args)
    results["train_seconds"] = training.train(trainer, setup.resume_from)
    results["resumed_from_step"] = int(setup.resume_from.name.split("-")[1]) if setup.resume_from else 0
    if not is_main_process():
        return {}
    results["history"] = trainer.state.log_history
    since = f" since step {results['resumed_from_step']}" if setup.resume_from else ""
    reporting.say(f"{results['train_seconds']:.0f} s{since}, best validation accuracy {trainer.state.best_metric:.3f} "
                  f"at step {trainer.state.best_global_step}, which is the model kept.")
    setup.output.save_model(trainer.model, setup.tokenizer)
    setup.output.save_figure("learning_curves.png", plots.learning_curves(
        results["history"], {"eval_accuracy": "validation accuracy", "eval_f1": "validation F1"}))

    reporting.heading("Part 4: evaluation on the test split, once", "Compare with the baselines of part 2.")
    results |= evaluate_once(trainer.model, setup.tokenizer, test, setup.preset["max_length"], setup.output)

    reporting.heading("Part 5: one word, several vectors", "Where do the senses come apart? What did tuning change?")
    results |= explore_words(setup, trainer.model, prompts)

    results |= {"peak_memory_mb": runtime.peak_memory_mb(), "peak_gpu_memory_mb": runtime.peak_gpu_memory_mb(),
                "minutes": clock.seconds / 60}
    setup.output.save_results(results)
    training.clear_checkpoints(setup.output.checkpoints)
    setup.output.release()
    reporting.heading("Done")
    reporting.table("Test accuracy", ["method", "accuracy"], [
        *(list(pair) for pair in results["baselines"].items()),
        ["fine-tuned " + results["model"], results["accuracy"]]])
    reporting.say(f"Done in {results['minutes']:.1f} minutes, peak memory {results['peak_memory_mb']:.0f} MB. Results, "
                  f"plots (*.png) and the model are in {reporting.shown(setup.output.path)}")
    return results


if __name__ == "__main__":
    run(main)
