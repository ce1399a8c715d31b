# numpy in float64.
import numpy as np


def pack_blocks(documents, eos_token_id, block_length):
    row = np.concatenate([np.append(np.array(document, dtype=int), eos_token_id) for document in documents])
    n = len(row) // block_length
    return row[:n * block_length].reshape(n, block_length)


def next_token_nll(logits, input_ids):
    x, ids = logits.double().numpy()[:, :-1], input_ids.numpy()[:, 1:]
    x = x - x.max(-1, keepdims=True)
    log_probs = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probs, ids[..., None], -1).squeeze(-1)


def perplexity(nll):
    return np.exp(np.mean(np.asarray(nll), dtype=np.float64))


def style_share(texts, characteristic):
    found = np.array([word for text in texts for word in words(text)], dtype=object)
    return np.isin(found.astype(str), characteristic).mean() if found.size else 0.0


def training_flops(trainable, parameters, tokens):
    return np.int64(tokens) * (np.int64(4) * parameters + np.int64(2) * trainable)


def training_memory(trainable, parameters):
    return float(4 * parameters + 12 * trainable)
