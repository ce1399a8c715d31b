"""Exercise 1: fine-tune a pre-trained BERT to tell good movie reviews from bad ones.

You will see (1) how text becomes tokens, (2) what simple baselines reach, (3) fine-tuning with the
Trainer, (4) how good the result is, where it errs and which words moved it, (5) that one word has
other vectors in other sentences.

    python code/ex_01_bert_classification.py                      minutes on two CPU cores
    python code/ex_01_bert_classification.py --preset smoke       random tiny model: does it run?
    python code/ex_01_bert_classification.py --predict "A lovely film"      ask your trained model

Training, with its validation, runs in bf16 where the processor is fast at it; all that is measured
on the test split and shown of the model's inside runs in fp32.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from utils import runtime
from utils.runtime import UserError, is_main_process

if TYPE_CHECKING:
    import numpy as np
    import torch

# Part 1: from text to tokens


def encode(tokenizer, texts: list[str], max_length: int):
    """Token ids of each text, with the tokenizer's special tokens, cut at max_length, not padded.

    Returns a dictionary of input_ids, attention_mask (and token_type_ids for BERT), each one list
    of integers per text: ["Great fun."] is [[101, 2307, 4569, 1012, 102]] with BERT's vocabulary.
    Padding is left to the batches, because a batch of short texts needs little.
    """
    return tokenizer(texts, truncation=True, max_length=max_length)


# Task 1.1 (20 points)
def find_word(tokenizer, sentence: str, word: str) -> list[int]:
    """The positions of a word's tokens in the encoded sentence; several if it is cut into pieces.

    Compares characters, not the spelling of tokens, which every tokenizer marks in its own way.
    In "So was it" BERT has "it" at [3], behind [CLS]; "with" does not hold it. Raises ValueError if
    the word is not in the sentence.
    """
    # BEGIN SOLUTION
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.IGNORECASE)
    if not found:
        raise ValueError(f"the word {word!r} is not in {sentence!r}")
    begin, end = found.span()
    offsets = tokenizer(sentence, return_offsets_mapping=True)["offset_mapping"]
    return [i for i, (a, b) in enumerate(offsets) if a < end and b > begin]
    # END SOLUTION


def masked_guesses(model, tokenizer, sentence: str, top_k: int = 5) -> list[tuple[str, float]]:
    """The likeliest words for [MASK] in a sentence and their probabilities, the likeliest first.

    model: with the masked-LM head that it was pre-trained with (Devlin et al. 2019, section 3.1).
    For "Paris is the [MASK] of France." one expects "capital" at the head of the list.
    """
    from transformers import pipeline

    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, device=model.device, top_k=top_k)
    guesses = fill(sentence.replace("[MASK]", tokenizer.mask_token))
    return [(guess["token_str"].strip(), guess["score"]) for guess in guesses]


# Part 2: what is easy without BERT


# Task 1.2 (20 points)
def baselines(train: dict, test: dict) -> dict[str, float | None]:
    """Test accuracy of two baselines: the majority label, and TF-IDF with logistic regression.

    train, test: {"text": list of strings, "label": list of 0 and 1}. Both learn from train alone:
    the vocabulary, the weights, and which label is the majority. TF-IDF counts words and pairs
    of words, sublinearly; the regression has C = 10. With labels [1, 1, 0] in train and [1, 0, 0,
    0] in test, "majority" is 0.25. "tfidf" is None where no text has a word of two letters.
    """
    # BEGIN SOLUTION
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    majority = Counter(train["label"]).most_common(1)[0][0]
    result = {"majority": test["label"].count(majority) / len(test["label"]), "tfidf": None}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    if any(map(vectorizer.build_analyzer(), train["text"])):
        model = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))
        model.fit(train["text"], train["label"])
        result["tfidf"] = model.score(test["text"], test["label"])
    return result
    # END SOLUTION


# Part 3: fine-tuning


def compute_metrics(prediction) -> dict[str, float]:
    """Accuracy and F1 from a Trainer's EvalPrediction, by the `evaluate` library.

    prediction.predictions: logits or probabilities (reviews, 2); prediction.label_ids: (reviews,).
    If the larger ones say [1, 1, 0, 0] and [1, 0, 0, 0] is true, accuracy is 0.75, F1 of 1 is 2/3.
    """
    from utils.accuracy_f1 import accuracy_f1

    return accuracy_f1(prediction.predictions.argmax(-1), prediction.label_ids)


def training_order(lengths: list[int], batch_size: int, epochs: int, seed: int) -> list[int]:
    """Indices of the training examples in the order of use, batch after batch, epoch after epoch.

    Each epoch is shuffled anew, then 50 batches at a time are sorted by length and cut: a batch of
    similar lengths needs little padding. The last batch of an epoch is filled up with examples
    from its beginning. The order depends on the seed alone, so a resumed run sees what an
    uninterrupted one sees. Lengths [9, 1, 8, 1] in batches of two: [1, 3, 2, 0], or [2, 0, 3, 1].
    """
    shuffle, order = random.Random(seed), []
    for _ in range(epochs):
        epoch = shuffle.sample(range(len(lengths)), len(lengths))
        epoch += epoch[:-len(epoch) % batch_size]
        batches = []
        for start in range(0, len(epoch), 50 * batch_size):
            pool = sorted(epoch[start:start + 50 * batch_size], key=lambda i: lengths[i])
            batches += [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
        shuffle.shuffle(batches)
        order += [i for batch in batches for i in batch]
    return order


def make_trainer(session, model, tokenizer, reviews):
    """A Trainer that pads batch by batch, validates as it goes and keeps the best checkpoint."""
    from transformers import DataCollatorWithPadding, Trainer

    from utils import training

    settings = session.settings

    def tokenize(rows):
        return encode(tokenizer, rows["text"], settings.max_length)

    tokens = {part: reviews.splits[part].map(tokenize, batched=True)
              for part in ("train", "validation")}
    order = training_order([len(ids) for ids in tokens["train"]["input_ids"]],
                           settings.batch_size, settings.epochs, settings.seed)
    return Trainer(
        model=model, processing_class=tokenizer, data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=tokens["train"].select(order), eval_dataset=tokens["validation"],
        compute_metrics=compute_metrics,
        args=training.training_arguments(
            session, settings.batch_size, every=math.ceil(len(order) / settings.batch_size / 6),
            train_sampling_strategy="sequential", num_train_epochs=1,  # the order holds them all
            learning_rate=settings.learning_rate, per_device_eval_batch_size=64,
            metric_for_best_model="accuracy"))


# Part 4: how good is it, and why does it err?


def predict_probs(model, tokenizer, texts: list[str], max_length: int) -> np.ndarray:
    """Probability of each label for each text: an array (texts, labels), rows in the order given.

    Always in fp32: bf16 would change the third digit, and with it the calibration. Texts of similar
    length share a batch, which saves padding and, thanks to the attention mask, changes no result.
    """
    import numpy as np
    import torch

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    probs = np.empty((len(texts), model.config.num_labels))
    model.eval()
    for start in range(0, len(texts), 64):
        chosen = order[start:start + 64]
        rows = encode(tokenizer, [texts[i] for i in chosen], max_length)
        batch = tokenizer.pad(rows, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            probs[chosen] = model(**batch).logits.softmax(-1).cpu()
    return probs


# Task 1.3 (20 points)
def calibration_bins(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[tuple]:
    """Examples grouped by confidence in equal steps from 0 to 1: (number, confidence, accuracy).

    confidence: (n,) probability of the predicted label; right: (n,) booleans. A group has its
    means; empty ones are left out. [0.9, 0.92] and [True, False] give [(2, 0.91, 0.5)].
    """
    # BEGIN SOLUTION
    bin_of = (confidence * bins).astype(int).clip(max=bins - 1)
    chosen = [bin_of == b for b in range(bins) if (bin_of == b).any()]
    return [(int(c.sum()), float(confidence[c].mean()), float(right[c].mean())) for c in chosen]
    # END SOLUTION


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: the mean |accuracy - confidence| of the groups, weighted by size.

    Arguments as for `calibration_bins`, whose example has an error of 0.41. Guo et al. 2017, arXiv
    1706.04599, equation 3.
    """
    groups = calibration_bins(confidence, right, bins)
    return sum(n * abs(accuracy - mean) for n, mean, accuracy in groups) / len(right)


def accuracy_by_length(lengths: np.ndarray, right: np.ndarray, groups: int = 4) -> list[dict]:
    """Accuracy of the shortest quarter of the reviews, and so on to the longest, with intervals.

    lengths: (n,) words; right: (n,) booleans. Returns {"from", "to" (words), "reviews", "accuracy",
    "interval" (95 %)} per group: [3, 9, 2, 8] in two groups gives one from 2 to 3, one from 8 to 9.
    """
    import numpy as np

    from utils.stats import accuracy_interval

    shortest_first = np.argsort(lengths, kind="stable")
    return [{"from": int(lengths[group[0]]), "to": int(lengths[group[-1]]), "reviews": len(group),
             **accuracy_interval(int(right[group].sum()), len(group))}
            for group in np.array_split(shortest_first, groups) if len(group)]


# Task 1.4 (10 points)
def confident_mistakes(probs: np.ndarray, labels: np.ndarray, most: int = 5) -> list[int]:
    """Which reviews were labelled wrongly, the most confident mistake first: at most `most`.

    probs: (n, 2); labels: (n,). With [[0.4, 0.6], [0.2, 0.8], [0.9, 0.1]] and true labels [0, 1, 1]
    it is [2, 0].
    """
    # BEGIN SOLUTION
    wrong = (probs.argmax(-1) != labels).nonzero()[0]
    return sorted(wrong.tolist(), key=lambda i: -probs[i].max())[:most]
    # END SOLUTION


# Task 1.5 (15 points)
def word_influence(text: str, predict: Callable[[list[str]], np.ndarray]) -> list[tuple]:
    """How much each word moved the prediction: P(positive | text) - P(positive | text without it).

    predict: list of texts -> probabilities (texts, 2). Returns (word, influence) in the order of
    the text. If "a great film" has 0.9 and "a film" 0.4, the influence of "great" is 0.5.
    """
    # BEGIN SOLUTION
    words = text.split()
    without = [" ".join(words[:i] + words[i + 1:]) for i in range(len(words))]
    positive = predict([text, *without])[:, 1]
    return [(word, float(positive[0] - p)) for word, p in zip(words, positive[1:], strict=True)]
    # END SOLUTION


# Part 5: one word, several vectors


def word_vectors(encoder, tokenizer, sentence: str, word: str) -> torch.Tensor:
    """The contextual vectors of a word in a sentence: a tensor (layers + 1, hidden), on the CPU.

    Row 0 is the input embedding, row i the output of layer i; a word of several pieces gets the
    mean of theirs. BERT-base gives (13, 768).
    """
    import torch

    batch = tokenizer(sentence, return_tensors="pt").to(encoder.device)
    with torch.inference_mode():
        hidden_states = encoder(**batch, output_hidden_states=True).hidden_states
    pieces = find_word(tokenizer, sentence, word)
    return torch.stack([state[0, pieces].mean(0) for state in hidden_states]).float().cpu()


def cosine_matrix(vectors: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each pair: (n, d) -> (n, n). [[3, 0], [0, 2]] gives [[1, 0], [0, 1]]."""
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit @ unit.T


# Task 1.6 (15 points)
def sense_similarity(vectors: torch.Tensor, senses: list[str]) -> tuple[float, float]:
    """Mean cosine of the pairs of sentences with the same sense, and of those with another one.

    vectors: (sentences, hidden); senses: one name per sentence. No sentence is paired with itself.
    [[1, 0], [1, 0], [0, 1], [0, 1]] with senses ["a", "a", "b", "b"] gives (1.0, 0.0).
    """
    # BEGIN SOLUTION
    import torch

    cosines = cosine_matrix(vectors)
    same = torch.tensor([[a == b for b in senses] for a in senses])
    pairs = ~torch.eye(len(senses), dtype=torch.bool)
    return cosines[same & pairs].mean().item(), cosines[~same].mean().item()
    # END SOLUTION


def attention_from(encoder, tokenizer, sentence: str, word: str) -> torch.Tensor:
    """Where a word looks: its attention to each token, a tensor (layers, heads, tokens).

    The last dimension sums to 1; a word of several pieces gets the mean of theirs. encoder: loaded
    with attn_implementation="eager", the only one that hands its weights out, each of shape
    (batch, heads, from, to). Vaswani et al. 2017, section 3.2.
    """
    import torch

    batch = tokenizer(sentence, return_tensors="pt").to(encoder.device)
    with torch.inference_mode():
        layers = encoder(**batch, output_attentions=True).attentions
    pieces = find_word(tokenizer, sentence, word)
    return torch.stack([layer[0][:, pieces].mean(1) for layer in layers]).float().cpu()


# The parts, put together from these functions


def look_at_tokens(checkpoint, tokenizer, sentences: dict, device: str) -> dict:
    """Part 1: a padded batch of two sentences, and guesses for a masked word if there is a head."""
    from transformers import AutoModelForMaskedLM

    from utils import checkpoints

    batch = tokenizer([sentences["rare_word"], "Great fun."], padding=True)
    model, loaded = checkpoints.load(AutoModelForMaskedLM, checkpoint, dtype="float32",
                                     output_loading_info=True)
    guesses = []
    if tokenizer.mask_token and not loaded["missing_keys"]:  # a head that was not saved is random
        guesses = masked_guesses(model.to(device).eval(), tokenizer, sentences["masked"])
    return {"vocabulary": len(tokenizer), "pad_token": tokenizer.pad_token,
            "tokens": [tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"]],
            "input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"],
            "masked": sentences["masked"], "guesses": guesses}


def fine_tune(session, model, tokenizer, reviews) -> dict:
    """Part 3: train, or go on from a checkpoint, and save the best model in model/."""
    from utils import training

    trainer = make_trainer(session, model, tokenizer, reviews)
    trained = training.train(trainer, session)
    if is_main_process():
        session.save_model("model", trainer.model, tokenizer)
    return {**trained, "best_step": trainer.state.best_global_step,
            "best_validation_accuracy": trainer.state.best_metric}


def evaluate_once(model, tokenizer, test: dict, max_length: int) -> dict:
    """Part 4: all that is measured on the test split, which the tuned model sees this once."""
    import numpy as np
    from sklearn.metrics import confusion_matrix
    from transformers import EvalPrediction

    from utils.stats import accuracy_interval

    def predict(texts):
        return predict_probs(model, tokenizer, texts, max_length)

    texts, labels = test["text"], np.array(test["label"])
    probs = predict(texts)
    predicted, confidence = probs.argmax(-1), probs.max(-1)
    right, wrong = predicted == labels, confident_mistakes(probs, labels)
    return {
        **compute_metrics(EvalPrediction(probs, labels)), "reviews": len(labels),
        "interval": accuracy_interval(int(right.sum()), len(right))["interval"],
        "confusion": confusion_matrix(labels, predicted, labels=[0, 1]),  # rows: true labels
        "mean_confidence": confidence.mean(), "calibration": calibration_bins(confidence, right),
        "calibration_error": calibration_error(confidence, right),
        "by_length": accuracy_by_length(np.array([len(text.split()) for text in texts]), right),
        "mistakes": [{"text": texts[i], "label": labels[i], "predicted": predicted[i],
                      "confidence": confidence[i]} for i in wrong],
        "influences": [word_influence(texts[i], predict)
                       for i in [*right.nonzero()[0][:2], *wrong[:2]]]}


def compare_senses(encoder, tokenizer, words: list[dict]) -> dict:
    """Part 5: each word's vectors within and across its senses, by layer; a map of the last."""
    import torch
    from sklearn.decomposition import PCA

    result = {}
    for item in words:
        rows = [(sense["sense"], text) for sense in item["senses"] for text in sense["sentences"]]
        senses = [sense for sense, _ in rows]
        vectors = torch.stack([word_vectors(encoder, tokenizer, text, item["word"])
                               for _, text in rows])  # (sentences, layers + 1, hidden)
        result[item["word"]] = {
            "senses": senses, "cosines": cosine_matrix(vectors[:, -1]),
            "by_layer": [sense_similarity(layer, senses) for layer in vectors.unbind(1)],
            "map": PCA(2).fit_transform(vectors[:, -1])}
    return result


def look_where(encoder, tokenizer, sentence: str, word: str) -> dict:
    """Part 5: a word's attention, and the tokens with the most of it, mean of all layers and heads.

    Aside from the word itself, and from special tokens, where heads park attention that they have
    no use for (Clark et al. 2019, section 3.2).
    """
    weights = attention_from(encoder, tokenizer, sentence, word)
    batch = tokenizer(sentence, return_special_tokens_mask=True)
    own = find_word(tokenizer, sentence, word)
    aside = [special == 1 or i in own for i, special in enumerate(batch["special_tokens_mask"])]
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"])
    means = zip(tokens, weights.mean((0, 1)).tolist(), aside, strict=True)
    others = [(token, mean) for token, mean, left_out in means if not left_out]
    return {"word": word, "tokens": tokens, "aside": aside, "weights": weights,
            "most_attended": sorted(others, key=lambda pair: -pair[1])[:5]}


# The whole lesson: what a run takes, and its course

# Reviews per split (None: all of them). In quick's one epoch, dropout and training the word
# embeddings as well would take a quarter of the time and gain nothing; in full's three they are
# worth it. A model above `affordable` parameters gets fewer reviews, so that its minutes stay few.
PRESETS: dict[str, dict] = {
    "smoke": {"train": 400, "validation": 80, "test": 84, "affordable": None, "epochs": 2,
              "learning_rate": 3e-3, "max_length": 64, "dropout": 0.1, "train_embeddings": True,
              "model": "tiny", "data": "tiny"},
    "quick": {"train": 7900, "validation": 500, "test": 1500, "affordable": 24e6, "epochs": 1,
              "learning_rate": 5e-5, "max_length": 128, "dropout": 0.0, "train_embeddings": False},
    "full": {"train": None, "validation": None, "test": None, "affordable": None, "epochs": 3,
             "learning_rate": 3e-5, "max_length": 256, "dropout": 0.1, "train_embeddings": True},
}


def parse(argv: list[str] | None):
    parser = runtime.shared_parser(__doc__, "ex_01")
    add = parser.add_argument
    add("--data", metavar="NAME", help="rotten_tomatoes, imdb, packaged (from PyPI), tiny, or your "
        "own file; default: rotten_tomatoes, or packaged if the Hub is out of reach")
    add("--text-column", metavar="NAME", help="your file's column of texts (default: text)")
    add("--label-column", metavar="NAME", help="your file's column of labels (default: label)")
    add("--batch-size", type=runtime.positive_int, default=16, metavar="N",
        help="reviews per training step (default: %(default)s)")
    add("--max-length", type=runtime.positive_int, metavar="N",
        help="tokens after which a review is cut (default: the preset's)")
    add("--predict", action="append", metavar="TEXT", type=runtime.well_formed,
        help="label a text with the saved model, repeatable")
    return runtime.complete(parser, PRESETS, argv)


def load_classifier(checkpoint, settings, **head):
    """(tokenizer, model): an encoder with a classification head; UserError if it cannot do."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from utils import checkpoints, training

    tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
    model = checkpoints.load(AutoModelForSequenceClassification, checkpoint, dtype="float32",
                             **head)
    training.check_length(model, tokenizer, settings.max_length, "--max-length")
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {checkpoint.name} cannot say which characters a token "
                        "came from, which part 5 needs; choose another --model")
    return tokenizer, model


def set_up(model, settings) -> dict[str, int | None]:
    """Set the dropout and which weights are trained; return how many reviews each split has."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = settings.dropout
    model.get_input_embeddings().requires_grad_(settings.train_embeddings)
    share = min(1, (settings.affordable or math.inf) / model.num_parameters())
    sizes = {part: getattr(settings, part) for part in ("train", "validation", "test")}
    return {part: size and max(40, round(size * share)) for part, size in sizes.items()}


def predict(settings) -> dict:
    """--predict: label texts with the model that an earlier run saved."""
    from utils import training
    from views import ex_01 as views

    if not all(text.strip() for text in settings.predict):
        raise UserError("--predict: the text is empty")
    device, saved = runtime.start(settings), training.saved(settings, "--predict")
    tokenizer, model = load_classifier(saved, settings)
    probs = predict_probs(model.to(device), tokenizer, settings.predict, settings.max_length)
    views.predictions(settings.predict, probs)
    return {"probs": probs.tolist()}


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for a user's mistakes."""
    settings = parse(argv)
    if settings.predict:
        return predict(settings)
    from transformers import AutoModel

    from utils import checkpoints, course_data, movie_reviews, training
    from utils.session import Session
    from views import ex_01 as views

    prompts = course_data.load_sample_prompts()
    training.batch_per_process(settings.batch_size)  # complains before the work begins
    with Session("ex_01", settings) as session:
        checkpoint = checkpoints.fetch("encoder", settings.model)
        checkpoints.check_family(checkpoint, "encoder")
        tokenizer, model = load_classifier(checkpoint, settings, num_labels=2,
                                           id2label=dict(enumerate(movie_reviews.LABELS)),
                                           ignore_mismatched_sizes=True)
        reviews = movie_reviews.load_reviews(settings.data, settings.seed, set_up(model, settings),
                                             settings.text_column, settings.label_column)
        train, test = (reviews.splits[part].to_dict() for part in ("train", "test"))
        session.open("Exercise 1: BERT for sentiment",
                     {"model": checkpoint.name, "source": checkpoint.source, "data": reviews.name,
                      "reviews": {part: len(rows) for part, rows in reviews.splits.items()}},
                     views.facts(checkpoint, model, reviews, session.device),
                     disk_mb=4 * 12 * model.num_parameters() / 1e6,  # three checkpoints, the model
                     memory_mb=16 * model.num_parameters() / 1e6)  # weights, gradients, moments

        session.part("tokens", "Part 1: from text to tokens",
                     "How is a word cut that the vocabulary does not hold?",
                     lambda: look_at_tokens(checkpoint, tokenizer, prompts["sentences"],
                                            session.device), views.tokens)
        session.part("baselines", "Part 2: baselines",
                     "Fine-tuning has to beat these on the same test split.",
                     lambda: baselines(train, test), views.baselines)
        session.part("training", "Part 3: fine-tuning",
                     "Does the validation accuracy still rise at the end?",
                     lambda: fine_tune(session, model.to(session.device), tokenizer, reviews),
                     views.training, everywhere=True)
        if not is_main_process():
            return {}

        tokenizer, tuned = load_classifier(training.saved(settings, "--resume"), settings)
        tuned = tuned.to(session.device).eval()
        before = checkpoints.load(AutoModel, checkpoint, dtype="float32",
                                  attn_implementation="eager").to(session.device).eval()
        session.part("evaluation", "Part 4: evaluation on the test split, once",
                     "Compare with the baselines of part 2.",
                     lambda: evaluate_once(tuned, tokenizer, test, settings.max_length),
                     views.evaluation)
        session.part("words", "Part 5: one word, several vectors",
                     "Where do the senses come apart? What did tuning change?",
                     lambda: {name: compare_senses(encoder, tokenizer, prompts["words_in_context"])
                              for name, encoder in [("before", before),
                                                    ("after", tuned.base_model)]}, views.words)
        attention = prompts["sentences"]["attention"]
        session.part("attention", "Part 5, continued: where a word looks", attention["text"],
                     lambda: look_where(before, tokenizer, attention["text"], attention["query"]),
                     views.attention)
        views.comparison(checkpoint.name, session.results["parts"])
        return session.close("Results, plots (*.png) and the model are in")


if __name__ == "__main__":
    runtime.run(main)
