# numpy in float64.
import numpy as np


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def keep_top_k(logits, k):
    x = logits.numpy().copy()
    ranks = np.argsort(np.argsort(-x, -1, kind="stable"), -1)
    return np.where(ranks < k, x, -np.inf)


def keep_top_p(logits, p):
    x = logits.double().numpy()
    order = np.argsort(-x, -1)
    probs = np.take_along_axis(_softmax(x), order, -1)
    before = np.cumsum(probs, -1) - probs  # of the likelier tokens
    keep = before < p
    keep[..., 0] = True
    mask = np.zeros_like(keep)
    np.put_along_axis(mask, order, keep, -1)
    return np.where(mask, x, -np.inf)


def entropy(logits):
    p = _softmax(logits.double().numpy())
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), -1)


def few_shot_prompt(instruction, template, shots, text):
    before, after = template.split("{text}")
    parts = [instruction] + [f"{before}{shot}{after} {answer}" for shot, answer in shots]
    return "\n\n".join(parts + [before + text + after])


def perplexity(logits, input_ids, counts):
    probs = _softmax(logits.double().numpy())[:, :-1]
    ids, weights = input_ids.numpy()[:, 1:], counts.numpy()[:, 1:].astype(float)
    chosen = np.take_along_axis(probs, ids[..., None], -1)[..., 0]
    return np.exp(np.average(-np.log(chosen), axis=1, weights=weights))


def distinct_n(texts, n):
    ngrams = [ngram for words in texts for ngram in zip(*(words[i:] for i in range(n)))]
    return np.unique([" ".join(g) for g in ngrams]).size / max(1, len(ngrams))
