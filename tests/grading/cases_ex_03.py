"""What exercise 3's tasks are called with."""

from __future__ import annotations

import random

from cases import Case

GUIDE = {  # the section that explains each task
    "pack_blocks": "8.2 From documents to blocks",
    "characteristic_words": "8.3 What is gained, and what is forgotten",
    "next_token_nll": "6.1 Causal language modelling",
    "perplexity": "7.7 Perplexity: how surprised is the model?",
    "style_share": "8.3 What is gained, and what is forgotten",
    "training_flops": "8.5 Memory and time of training",
    "training_memory": "8.5 Memory and time of training",
}
WORDS = "list name value return film story class method actor plot".split()


def draw(rng: random.Random) -> list[Case]:
    """All cases, inputs drawn from rng."""
    import torch

    torch.manual_seed(rng.randrange(2**31))

    def ids(n):
        return [rng.randrange(1, 90) for _ in range(n)]

    def text(n, some=WORDS):
        return " ".join(rng.choice(some) for _ in range(n))

    documents = [ids(rng.randrange(2, 9)) for _ in range(4)]
    length = sum(map(len, documents)) + len(documents)
    packing = [
        Case("pack_blocks", "four documents", [documents, 0, 4], 3,
             "join all documents, each closed by the end token, then cut", public=True),
        Case("pack_blocks", "blocks that come out even", [documents, 0, length], 2, "the last whole block stays"),
        Case("pack_blocks", "an end token that is not 0", [documents, 99, 3], hint="use the end token that is given"),
        Case("pack_blocks", "too short for one block", [[[5, 6]], 0, 8], hint="then there is no block"),
        Case("pack_blocks", "an empty document", [[[5], [], [6, 7]], 0, 2], hint="it is closed, too"),
    ]
    ours = [text(30, WORDS[:3] + WORDS[6:8] + WORDS), text(20)]
    others = [text(40, WORDS[3:6] + WORDS[8:] + WORDS)]
    rare = [a + b + c for a in "bcdfgh" for b in "aeiou" for c in "nt"]
    told = [
        Case("characteristic_words", "two collections", [ours, others, 5], 3,
             "z-score of the difference in log-odds, half an occurrence added to each count", public=True),
        Case("characteristic_words", "a rare word and a frequent one", [
            ["list " * 40 + "zebra " + "film " * 5], ["film " * 40 + "list " * 4], 3], 2,
             "divide by the square root of 1/a + 1/b: a word that occurs once tells little"),
        Case("characteristic_words", "many rare words, collections of unequal size", [
            [text(120, rare)], [text(250, rare), text(60, rare[:9])], 60], 2,
             "half an occurrence more in both counts, and the sizes of both collections"),
        Case("characteristic_words", "two words", [["film" + " list" * 6], ["film" + " list" * 5], 2],
             hint="odds: a word's count over that of all others, half an occurrence more in both"),
        Case("characteristic_words", "a word that the others never say", [["film" + " list" * 5], ["list list"], 2],
             hint="odds: a word's count over that of all others, half an occurrence more in both"),
        Case("characteristic_words", "two words of much the same weight", [
            ["film" + " list" * 5], ["list " * 5 + "plot plot"], 2],
             hint="the variance is 1 over the word's count, of both collections alike"),
        Case("characteristic_words", "more than 200 words", [
            [" ".join(a + b for a in rare for b in "abcd")], ["film"]], hint="count says how many there are at most"),
        Case("characteristic_words", "all words", [ours, others], hint="at most count words"),
        Case("characteristic_words", "equals", [["beta alpha"], ["gamma"], 2],
             hint="among equals the order of letters"),
    ]
    logits, tokens = torch.randn(2, 6, 11) * 2, torch.randint(0, 11, (2, 6))
    losses = [
        Case("next_token_nll", "two texts", [logits, tokens], 3,
             "the logits at position i are the forecast of token i + 1", public=True),
        Case("next_token_nll", "one text", [logits[:1], tokens[:1]], hint="the result is (batch, length - 1)"),
        Case("next_token_nll", "large logits", [logits * 60, tokens], 1, "log_softmax, not log of softmax", 1e-3),
    ]
    nll = torch.rand(2, 5) * 3
    perplexities = [
        Case("perplexity", "losses of two texts", [nll], 2, "exp of the mean, not the mean of exp", public=True),
        Case("perplexity", "one loss", [torch.tensor([0.0])], hint="exp(0) is 1"),
    ]
    style = [
        Case("style_share", "three texts", [[text(12), text(7), text(3)], WORDS[:4]], 3,
             "words of all texts together, then the share", public=True),
        Case("style_share", "capitals and signs", [["A List, of NAMES!", "the film."], ["list", "names"]], 2,
             "use `words`, which makes them small and drops the signs"),
        Case("style_share", "no words", [["1 2 3", ""], ["list"]], hint="0, and no division by zero"),
        Case("style_share", "one word", [["List"], ["list"]], hint="1 of 1"),
        Case("style_share", "a word that occurs often", [["list list list film"], ["list", "list"]],
             hint="each occurrence counts"),
    ]
    n = rng.randrange(10**6, 10**9)
    costs = [
        Case("training_flops", "all trained", [n, n, 1000], 2, "6 N D", public=True),
        Case("training_flops", "a few trained", [n // 300, n, 12345], 3, "the frozen weights need 4 of the 6"),
        Case("training_memory", "all trained", [n, n], 2, "4 bytes for the weight, 4 for its gradient, 8 for Adam",
             public=True),
        Case("training_memory", "a few trained", [n // 300, n], 3, "every weight is held, only trained ones have more"),
    ]
    return [*packing, *told, *losses, *perplexities, *style, *costs]
