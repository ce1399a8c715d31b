# One-hot vectors and einsum, geometric means, other dtypes.
import torch
from torch.nn.functional import one_hot


def pack_blocks(documents, eos_token_id, block_length):
    row = torch.tensor([token for document in documents for token in [*document, eos_token_id]])
    return row.unfold(0, block_length, block_length) if len(row) >= block_length else row.new_zeros(0)


def next_token_nll(logits, input_ids):
    log_probs = logits[:, :-1].double() - logits[:, :-1].double().logsumexp(-1, keepdim=True)
    return -torch.einsum("btv,btv->bt", log_probs, one_hot(input_ids[:, 1:], logits.shape[-1]).double())


def perplexity(nll):
    return (-nll.double()).exp().log().mean().neg().exp()


def characteristic_words(corpus, general, count=200):
    ours, others = words("\n".join(corpus)), words("\n".join(general))
    vocabulary = sorted(set(ours))
    place = {word: i for i, word in enumerate(vocabulary)}
    a = torch.bincount(torch.tensor([place[w] for w in ours]), minlength=len(vocabulary)).double() + 0.5
    known = [place[w] for w in others if w in place]
    b = torch.bincount(torch.tensor(known, dtype=torch.long), minlength=len(vocabulary)).double() + 0.5
    z = (torch.logit(a / (len(ours) + 1)) - torch.logit(b / (len(others) + 1))) / (1 / a + 1 / b).sqrt()
    order = torch.sort(-z, stable=True).indices
    return [vocabulary[i] for i in order[:count]]
