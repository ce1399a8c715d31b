# numpy and float64 throughout; arrays where the script returns lists.
import numpy as np


def calibration_bins(confidence, right, bins=10):
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(which, minlength=bins)
    sums, hits = np.bincount(which, confidence, bins), np.bincount(which, right, bins)
    return [[counts[b], sums[b] / counts[b], hits[b] / counts[b]] for b in np.flatnonzero(counts)]


def confident_mistakes(probs, labels, most=5):
    wrong = np.flatnonzero(np.argmax(probs, 1) != labels)
    return wrong[np.argsort(-np.max(probs, 1)[wrong], kind="stable")][:most]


def word_influence(text, predict):
    words = np.array(text.split(), dtype=object)
    without = [" ".join(np.delete(words, i)) for i in range(len(words))]
    change = predict([text])[:, 1] - predict(without)[:, 1]
    return list(zip(text.split(), change.tolist()))


def sense_similarity(vectors, senses):
    x = vectors.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines, names = np.einsum("ih,jh->ij", x, x), np.array(senses)
    i, j = np.triu_indices(len(names), 1)
    same = names[i] == names[j]
    return cosines[i, j][same].mean(), cosines[i, j][~same].mean()
