# Tensors where the script has arrays, in single precision.
import torch


def rank_sections(query, vectors, k):
    similarity = torch.nn.functional.cosine_similarity(torch.as_tensor(vectors), torch.as_tensor(query)[None], dim=1)
    values, order = torch.sort(similarity.float(), descending=True, stable=True)
    return [(i, value) for i, value in zip(order[:k], values[:k])]


def majority_vote(answers):
    kept = [answer for answer in answers if answer != ""]
    if not kept:
        return ["", 0]
    names = list(dict.fromkeys(kept))
    counts = torch.bincount(torch.tensor([names.index(answer) for answer in kept]))
    return [names[int(counts.argmax())], counts.max()]
