# Plain loops, one number at a time.
import math


def pack_blocks(documents, eos_token_id, block_length):
    blocks, block = [], []
    for document in documents:
        for token in list(document) + [eos_token_id]:
            block.append(token)
            if len(block) == block_length:
                blocks.append(block)
                block = []
    return blocks


def characteristic_words(corpus, general, count=200):
    counts, total = ({}, {}), [0, 0]
    for i, texts in enumerate((corpus, general)):
        for text in texts:
            for word in words(text):
                counts[i][word] = counts[i].get(word, 0) + 1
                total[i] += 1
    scores = []
    for word, n in counts[0].items():
        a, b = n + 0.5, counts[1].get(word, 0) + 0.5
        ours, others = a / (total[0] + 1 - a), b / (total[1] + 1 - b)
        scores.append((-(math.log(ours) - math.log(others)) / (1 / a + 1 / b) ** 0.5, word))
    return [word for _, word in sorted(scores)[:count]]


def next_token_nll(logits, input_ids):
    rows = []
    for row, ids in zip(logits.tolist(), input_ids.tolist()):
        losses = []
        for scores, token in zip(row[:-1], ids[1:]):
            largest = max(scores)
            losses.append(largest + math.log(sum(math.exp(s - largest) for s in scores)) - scores[token])
        rows.append(losses)
    return rows


def perplexity(nll):
    values = nll.flatten().tolist()
    return math.exp(sum(values) / len(values))


def style_share(texts, characteristic):
    hits = total = 0
    for text in texts:
        for word in words(text):
            total += 1
            hits += word in characteristic
    return hits / total if total else 0


def training_flops(trainable, parameters, tokens):
    total = 0
    for n in (parameters, parameters, trainable):  # forward, gradients of activations, and of weights
        total += 2 * n
    return tokens * total


def training_memory(trainable, parameters):
    frozen = parameters - trainable
    return frozen * 4 + trainable * (4 + 4 + 8)
