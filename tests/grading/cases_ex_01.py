"""What exercise 1's tasks are called with."""

from __future__ import annotations

import random

from cases import Case
from values import Fixture

GUIDE = {  # the section that explains each task
    "find_word": "2.2 WordPiece",
    "baselines": "12.2 Baselines",
    "calibration_bins": "Calibration",
    "confident_mistakes": "5.7 Fine-tuning with the Trainer",
    "word_influence": "5.7 Fine-tuning with the Trainer",
    "sense_similarity": "5.10 One word, many vectors",
}
GOOD = "great lovely warm funny sharp moving".split()
BAD = "dull weak boring flat clumsy awful".split()
THINGS = "film story plot cast music ending".split()


def draw(rng: random.Random) -> list[Case]:
    """All cases, inputs drawn from rng."""
    import numpy as np
    import torch

    numbers = np.random.default_rng(rng.randrange(2**31))
    torch.manual_seed(rng.randrange(2**31))
    tokenizer = Fixture("encoder_tokenizer")
    thing = rng.choice(THINGS)
    rare = "".join(rng.choice("bcdfgh") for _ in range(5))  # no word of the vocabulary: cut into pieces
    places = [
        Case("find_word", "a word of one token", [tokenizer, f"The monkey ate the {thing}.", thing], 2,
             "compare the places of characters (offset_mapping), not the tokens' spelling", public=True),
        Case("find_word", "a word cut into pieces", [tokenizer, f"A {rare} was here.", rare], 2,
             "all pieces of the word, in order"),
        Case("find_word", "a word inside of another one", [tokenizer, f"With {thing} it was.", "it"], 2,
             '"it" is not in "With": look for whole words'),
        Case("find_word", "capital letters", [tokenizer, f"IT was the {thing}.", "it"], hint="ignore the case"),
        Case("find_word", "a word with a sign of regular expressions", [tokenizer, f"A c++ {thing} was.", "c++"],
             hint="re.escape"),
    ]

    def reviews(n, share):
        labels = [int(i < share * n) for i in range(n)]
        rng.shuffle(labels)
        texts = [f"a {rng.choice(GOOD if label else BAD)} {rng.choice(THINGS)} and a {rng.choice(GOOD + BAD)} "
                 f"{rng.choice(THINGS)}" for label in labels]
        return {"text": texts, "label": labels}

    scores = [
        Case("baselines", "reviews", [reviews(40, 0.6), reviews(25, 0.3)], 3,
             "both learn from train alone; test is for scoring", tolerance=1e-3, public=True),
        Case("baselines", "another majority in train than in test", [reviews(31, 0.2), reviews(30, 0.9)], 2,
             "which label is the majority is learned from train", 1e-3),
        Case("baselines", "words in test that train does not have", [
            reviews(31, 0.6), {"text": ["zebra lovely", "zebra awful", "xylophone"], "label": [1, 0, 1]}],
             hint="the vocabulary comes from train", tolerance=1e-3),
        Case("baselines", "texts without words", [
            {"text": ["a", "b !", "?"], "label": [1, 0, 1]}, {"text": ["a", "c"], "label": [1, 0]}],
             hint='then "tfidf" is None'),
    ]
    confidence = numbers.uniform(0.5, 1, 60)
    right = numbers.uniform(size=60) < confidence
    bins = [
        Case("calibration_bins", "sixty predictions", [confidence, right], 3,
             "group by confidence, then take the means of each group", public=True),
        Case("calibration_bins", "five groups", [confidence, right, 5], 2, "bins says how many there are"),
        Case("calibration_bins", "a confidence of exactly 1", [
            np.array([1.0, 0.97, 0.2]), np.array([True, False, True])], hint="1.0 belongs to the last group"),
        Case("calibration_bins", "one prediction", [np.array([0.77]), np.array([False])],
             hint="empty groups are left out"),
    ]
    positive = numbers.uniform(0.02, 0.98, 12)
    probs = np.stack([1 - positive, positive], 1)
    labels = (numbers.uniform(size=12) < 0.5).astype(int)
    labels[:3] = 1 - probs[:3].argmax(-1)  # some mistakes for sure
    mistakes = [
        Case("confident_mistakes", "twelve reviews", [probs, labels], 3,
             "a mistake: the likelier label is not the true one; the most confident first", public=True),
        Case("confident_mistakes", "the two worst", [probs, labels, 2], hint="at most `most`"),
        Case("confident_mistakes", "no mistake", [probs, probs.argmax(-1)], hint="then the list is empty"),
    ]
    words = [rng.choice(GOOD + BAD + THINGS) for _ in range(6)]
    influence = [
        Case("word_influence", "six words", [" ".join(words), Fixture("predict")], 3,
             "P(positive) of the whole text minus that without the word", public=True),
        Case("word_influence", "a word that occurs twice", [f"very {thing} very {thing}", Fixture("predict")], 2,
             "leave out this one occurrence, not all of them"),
        Case("word_influence", "one word", [thing, Fixture("predict")], hint="without it the text is empty"),
    ]
    vectors = torch.randn(6, 5) * torch.tensor([[1.0], [4], [0.5], [2], [1], [3]])
    senses = [
        Case("sense_similarity", "six sentences, two senses", [vectors, ["a", "b", "a", "b", "a", "b"]], 3,
             "the mean over pairs with the same sense, and over pairs with different ones"),
        Case("sense_similarity", "the example of the docstring", [
            torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), ["a", "a", "b", "b"]],
             hint="no sentence is paired with itself", public=True),
        Case("sense_similarity", "senses of different sizes", [vectors, ["a", "a", "a", "a", "b", "c"]], 2,
             "each pair counts the same; no sentence is paired with itself"),
    ]
    return [*places, *scores, *bins, *mistakes, *influence, *senses]
