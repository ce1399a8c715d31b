# Tensors instead of arrays, half of them in float64; results as tensors.
import torch


def calibration_bins(confidence, right, bins=10):
    confidence, right = torch.as_tensor(confidence), torch.as_tensor(right)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    rows = []
    for low, high in zip(edges[:-1], edges[1:]):
        chosen = (confidence >= low) & ((confidence < high) | (high == edges[-1]))
        if chosen.any():
            rows.append((chosen.sum(), confidence[chosen].mean(), right[chosen].double().mean()))
    return rows


def confident_mistakes(probs, labels, most=5):
    confidence, predicted = torch.tensor(probs).max(-1)
    wrong = (predicted != torch.tensor(labels)).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True)][:most].tolist()


def word_influence(text, predict):
    words = text.split()
    rows = torch.tensor(predict([text] + [" ".join(words[:i] + words[i + 1:]) for i in range(len(words))]))
    return [(word, rows[0, 1] - rows[i + 1, 1]) for i, word in enumerate(words)]


def sense_similarity(vectors, senses):
    cosines = torch.corrcoef(torch.cat([vectors, -vectors], 1).double())
    same = torch.tensor([[a == b for b in senses] for a in senses]).tril(-1)
    other = torch.tensor([[a != b for b in senses] for a in senses])
    return cosines[same].mean().float(), cosines[other].mean().float()
