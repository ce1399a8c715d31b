# The libraries' own calls where they are allowed.
import torch


def entropy(logits):
    return torch.distributions.Categorical(logits=logits.clamp(min=-1e4)).entropy() / torch.log(torch.tensor(2.0))


def label_log_prob(model, tokenizer, prompt, label):
    before = tokenizer(prompt, return_tensors="pt").input_ids
    answer = tokenizer(" " + label, return_tensors="pt", add_special_tokens=False).input_ids
    labels = torch.cat([torch.full_like(before, -100), answer], 1)
    with torch.no_grad():
        loss = model(torch.cat([before, answer], 1), labels=labels).loss
    return float(-loss * answer.shape[1])


def perplexity(logits, input_ids, counts):
    labels = input_ids.masked_fill(counts == 0, -100)
    return torch.stack([torch.nn.functional.cross_entropy(x[:-1], y[1:]).exp() for x, y in zip(logits, labels)])


def distinct_n(texts, n):
    from collections import Counter

    counts = Counter(tuple(words[i:i + n]) for words in texts for i in range(len(words) - n + 1))
    return len(counts) / counts.total() if counts else 0.0
