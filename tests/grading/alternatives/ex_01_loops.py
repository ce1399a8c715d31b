# Plain loops, no library where none is needed.


def find_word(tokenizer, sentence, word):
    lower, wanted, begin = sentence.lower(), word.lower(), -1
    for i in range(len(lower) - len(wanted) + 1):
        before, after = lower[i - 1:i], lower[i + len(wanted):i + len(wanted) + 1]
        outside = not (before.isalnum() or before == "_") and not (after.isalnum() or after == "_")
        if lower[i:i + len(wanted)] == wanted and outside:
            begin = i
            break
    if begin < 0:
        raise ValueError(f"{word} is not in the sentence")
    places = []
    for i, (a, b) in enumerate(tokenizer(sentence, return_offsets_mapping=True)["offset_mapping"]):
        if b > a and not (b <= begin or a >= begin + len(wanted)):
            places.append(i)
    return places


def calibration_bins(confidence, right, bins=10):
    groups = {}
    for c, r in zip(confidence, right):
        groups.setdefault(min(int(c * bins), bins - 1), []).append((float(c), bool(r)))
    result = []
    for b in sorted(groups):
        n = len(groups[b])
        result.append((n, sum(c for c, _ in groups[b]) / n, sum(r for _, r in groups[b]) / n))
    return result


def confident_mistakes(probs, labels, most=5):
    wrong = []
    for i in range(len(labels)):
        predicted = 1 if probs[i][1] > probs[i][0] else 0
        if predicted != labels[i]:
            wrong.append((max(probs[i]), i))
    wrong.sort(reverse=True)
    return [i for _, i in wrong][:most]


def word_influence(text, predict):
    result, words = [], text.split()
    base = predict([text])[0][1]
    for i, word in enumerate(words):
        rest = list(words)
        del rest[i]
        result.append((word, base - predict([" ".join(rest)])[0][1]))
    return result


def sense_similarity(vectors, senses):
    same, other = [], []
    for i in range(len(senses)):
        for j in range(len(senses)):
            if i != j:
                cosine = float(vectors[i] @ vectors[j] / vectors[i].norm() / vectors[j].norm())
                (same if senses[i] == senses[j] else other).append(cosine)
    return sum(same) / len(same), sum(other) / len(other)
