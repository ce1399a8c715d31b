# The libraries' own calls.
import statistics

import torch


def pack_blocks(documents, eos_token_id, block_length):
    from itertools import chain, islice

    tokens = chain.from_iterable(chain(document, [eos_token_id]) for document in documents)
    blocks = iter(lambda: tuple(islice(tokens, block_length)), ())
    return [block for block in blocks if len(block) == block_length]


def next_token_nll(logits, input_ids):
    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    return criterion(logits[:, :-1, :].permute(0, 2, 1), input_ids[:, 1:])


def perplexity(nll):
    return statistics.geometric_mean(nll.double().exp().flatten().tolist())


def style_share(texts, characteristic):
    from collections import Counter

    counts = Counter(word for text in texts for word in words(text))
    return sum(counts[word] for word in set(characteristic)) / max(1, counts.total())
