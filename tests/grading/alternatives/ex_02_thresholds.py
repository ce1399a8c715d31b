# Thresholds instead of places, where no tokens tie; other dtypes.
import torch


def keep_top_k(logits, k):
    least = logits.double().sort(-1, descending=True).values[..., :k][..., -1:]
    return torch.where(logits.double() >= least, logits.double(), torch.tensor(float("-inf"), dtype=torch.float64))


def keep_top_p(logits, p):
    probs = logits.softmax(-1)
    likelier = probs[..., None, :] > probs[..., :, None]  # (..., token, other token)
    before = torch.einsum("...ij,...j->...i", likelier.float(), probs)
    keep = (before < p) | (before == 0)
    return logits.clone().masked_fill_(~keep, -torch.inf)


def entropy(logits):
    probs = torch.softmax(logits.double(), -1)
    return torch.special.entr(probs).sum(-1).div(torch.log(torch.tensor(2.0)))


def label_log_prob(model, tokenizer, prompt, label):
    ids = tokenizer(prompt + " " + label, return_tensors="pt")["input_ids"]
    n = len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    return -losses[n - 1:].sum()


def perplexity(logits, input_ids, counts):
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).double(), input_ids[:, 1:],
                                               reduction="none")
    return torch.exp((losses * counts[:, 1:]).sum(1) / counts[:, 1:].sum(1))
