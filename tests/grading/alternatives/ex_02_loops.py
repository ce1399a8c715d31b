# One row, one number at a time; plain Python wherever that is possible.
import math

import torch


def _rows(logits, change):
    flat = logits.reshape(-1, logits.shape[-1])
    return torch.stack([change(row.tolist()) for row in flat]).reshape(logits.shape)


def keep_top_k(logits, k):
    def change(row):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        return torch.tensor([x if i in best else -math.inf for i, x in enumerate(row)])
    return _rows(logits, change)


def keep_top_p(logits, p):
    def change(row):
        largest = max(row)
        weights = [math.exp(x - largest) for x in row]
        total, so_far, kept = sum(weights), 0.0, set()
        for i in sorted(range(len(row)), key=lambda i: -row[i]):
            if kept and so_far >= p:
                break
            kept.add(i)
            so_far += weights[i] / total
        return torch.tensor([x if i in kept else -math.inf for i, x in enumerate(row)])
    return _rows(logits, change)


def entropy(logits):
    def bits(row):
        largest = max(row)
        weights = [math.exp(x - largest) for x in row]
        probs = [w / sum(weights) for w in weights]
        return -sum(p * math.log2(p) for p in probs if p > 0)
    flat = logits.reshape(-1, logits.shape[-1])
    return torch.tensor([bits(row.tolist()) for row in flat]).reshape(logits.shape[:-1])


def few_shot_prompt(instruction, template, shots, text):
    prompt = instruction
    for shot, answer in shots:
        prompt += "\n\n" + template.replace("{text}", shot) + " " + answer
    return prompt + "\n\n" + template.replace("{text}", text)


def label_log_prob(model, tokenizer, prompt, label):
    ids = list(tokenizer(prompt)["input_ids"])
    total = 0.0
    for token in tokenizer(" " + label, add_special_tokens=False)["input_ids"]:
        logits = model(torch.tensor([ids])).logits[0, -1]
        total += torch.log(torch.softmax(logits, -1))[token].item()
        ids.append(token)
    return total


def perplexity(logits, input_ids, counts):
    result = []
    for row, ids, count in zip(logits, input_ids.tolist(), counts.tolist()):
        losses = [-row[i - 1].log_softmax(-1)[ids[i]].item() for i in range(1, len(ids)) if count[i]]
        result.append(math.exp(sum(losses) / len(losses)))
    return result


def distinct_n(texts, n):
    seen, total = {}, 0
    for words in texts:
        for i in range(len(words)):
            if i + n <= len(words):
                seen[" ".join(words[i:i + n])] = 1
                total += 1
    return len(seen) / total if total else 0
