"""What exercise 2's tasks are called with."""

from __future__ import annotations

import random

from cases import Case
from values import Fixture

FILTER = ("transformers.TopKLogitsWarper", "transformers.TopPLogitsWarper", "transformers.MinPLogitsWarper")
GUIDE = {  # the section that explains each task
    "keep_top_k": "7.4 Sampling, and ways to tame it",
    "keep_top_p": "7.4 Sampling, and ways to tame it",
    "entropy": "7.1 From logits to a token",
    "few_shot_prompt": "9.1 Zero-shot, one-shot and few-shot",
    "label_log_prob": "9.5 Order, label words, and calibration",
    "perplexity": "7.7 Perplexity: how surprised is the model?",
    "distinct_n": "7.7 Perplexity: how surprised is the model?",
}
WORDS = "the a film story was very good bad slow plot actor end".split()


def draw(rng: random.Random) -> list[Case]:
    """All cases, inputs drawn from rng."""
    import torch

    torch.manual_seed(rng.randrange(2**31))

    def logits(*shape):
        return torch.randn(*shape) * 2

    def text(n):
        return " ".join(rng.choice(WORDS) for _ in range(n))

    row, batch = logits(9), logits(2, 3, 11)
    sure = torch.tensor([8.0, 0.5, 0.0, -1.0]) + torch.randn(4) * 0.1
    filters = [
        Case("keep_top_k", "one row of logits", [row, 3], public=True, forbidden=FILTER,
             hint="keep the k largest logits, the others become -inf"),
        Case("keep_top_k", "a batch", [batch, 4], 2, "filter each row of the last dimension by itself",
             forbidden=FILTER),
        Case("keep_top_k", "k = 1", [logits(5), 1], hint="the likeliest token must stay", forbidden=FILTER),
        Case("keep_top_k", "k above the vocabulary", [logits(5), 50], hint="then all tokens stay", forbidden=FILTER),
        Case("keep_top_p", "probabilities 0.5, 0.3, 0.2", [torch.tensor([0.5, 0.3, 0.2]).log(), 0.6], public=True,
             hint="the token that takes the sum to p or over it stays as well", forbidden=FILTER),
        Case("keep_top_p", "one row of logits", [row, 0.8], 2, "sum the probabilities from the largest downwards",
             forbidden=FILTER),
        Case("keep_top_p", "a batch", [batch, 0.7], 2, "put the kept tokens back into their own places",
             forbidden=FILTER),
        Case("keep_top_p", "a model that is sure", [sure, 0.5], hint="at least one token stays", forbidden=FILTER),
        Case("keep_top_p", "p = 1", [logits(6), 1.0], hint="then all tokens stay", forbidden=FILTER),
    ]
    sizes = [1, rng.randrange(2, 5), rng.randrange(5, 9)]
    entropies = [
        Case("entropy", "four equally likely tokens", [torch.zeros(4)], public=True,
             hint="in bits: the logarithm to the base 2"),
        Case("entropy", "a batch", [batch], 2, "sum over the last dimension; the result is not negative"),
        Case("entropy", "a token with logit -inf", [torch.tensor([1.0, 0.0, float("-inf")])],
             hint="0 log 0 counts as 0"),
        Case("entropy", "large logits", [logits(7) * 100], hint="softmax before the logarithm, not by exp alone"),
    ]
    template = "Review: {text}\nSentiment:"
    shots = [(text(3), "positive"), (text(4), "negative")]
    prompts = [
        Case("few_shot_prompt", "two examples", ["Say what it is.", template, shots, text(5)], 2, public=True,
             hint="an empty line between the parts, one space before each answer, none after the last colon"),
        Case("few_shot_prompt", "no example", ["Say what it is.", template, [], text(5)],
             hint="instruction and question are left"),
        Case("few_shot_prompt", "another template", ["Capitals.", "Q: {text}\nA:", [("Rome?", "Italy")], "Oslo?"],
             hint="put the text in the place of {text}"),
        Case("few_shot_prompt", "braces in a text", ["Say.", template, [("a {b} c", "positive")], "x {text} {y}"],
             hint="a text may hold braces: replace, do not format"),
    ]
    model, tokenizer = Fixture("decoder"), Fixture("decoder_tokenizer")
    scores = [
        Case("label_log_prob", f"a label of {len(label)} letters", [model, tokenizer, f"Review: {text(n)}\nIs", label],
             weight, hint, 1e-3, public)
        for label, n, weight, hint, public in (
            ("x", sizes[0], 1, "the logits at a position predict the token after it", True),
            ("positive", sizes[1], 2, "add the log-probabilities of all tokens of the label", False),
            ("negative", sizes[2], 2, "the prompt's own tokens do not count", False))]
    tokens = torch.randint(0, 11, (2, 6))
    counts = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]])
    perplexities = [
        Case("perplexity", "four equally likely tokens", [torch.zeros(1, 3, 4), torch.tensor([[1, 2, 3]]),
             torch.ones(1, 3, dtype=torch.long)], public=True, hint="exp of the mean negative log-likelihood"),
        Case("perplexity", "a prompt that does not count", [logits(2, 6, 11), tokens, counts], 2,
             "sum and divide only where counts is 1", 1e-3),
        Case("perplexity", "all tokens count", [logits(2, 6, 11), tokens, torch.ones_like(tokens)], 2,
             "column i of the logits predicts token i + 1; the first token is predicted by nothing", 1e-3),
    ]
    words = [[rng.choice(WORDS[:6]) for _ in range(n)] for n in (8, 5, 2)]
    diversity = [
        Case("distinct_n", "the example of the docstring", [[["a", "b", "a"]], 1], public=True,
             hint="different n-grams over all n-grams"),
        Case("distinct_n", "pairs of words in three texts", [words, 2], 2,
             "no n-gram crosses from one text to another"),
        Case("distinct_n", "a pair that comes twice", [[["a", "b", "a", "b"]], 2], hint="n-grams overlap"),
        Case("distinct_n", "texts shorter than n", [[["a"], []], 2], hint="0 where there is no n-gram"),
    ]
    return [*filters, *entropies, *prompts, *scores, *perplexities, *diversity]
