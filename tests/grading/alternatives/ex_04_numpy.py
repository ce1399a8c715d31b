# einsum and whole arrays; a search from the newest turn backwards.
import numpy as np


def rank_sections(query, vectors, k):
    query, vectors = np.array(query, np.float32), np.array(vectors, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.nan_to_num(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    similarity = np.einsum("sd,d->s", unit, query / np.linalg.norm(query)).round(6)
    order = np.lexsort((np.arange(len(vectors)), -similarity))[:k]
    return [[i, similarity[i]] for i in order]


def trim_history(head, history, question, budget, count_tokens):
    starts = [i for i, message in enumerate(history) if message["role"] == "user"]
    kept = len(history)
    for start in reversed(starts):
        if budget is not None and count_tokens(head + history[start:] + [question]) > budget:
            break
        kept = start
    return head + history[kept:] + [question], sum(start < kept for start in starts)


def majority_vote(answers):
    answers = np.array([answer for answer in answers if answer], dtype=object)
    if not len(answers):
        return "", 0
    names, first, counts = np.unique(answers.astype(str), return_index=True, return_counts=True)
    winner = min(range(len(names)), key=lambda i: (-counts[i], first[i]))
    return str(names[winner]), counts[winner]
