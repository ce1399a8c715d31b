"""Exercise 2's language model, and log p(label | prompt) of many prompts and labels at once."""

from __future__ import annotations

import copy
import inspect
from itertools import groupby
from reprlib import repr as short
from typing import TYPE_CHECKING

from utils.runtime import UserError

if TYPE_CHECKING:
    import torch


def fetch_model(name: str | None, device: str):
    """(checkpoint, tokenizer, model) of a decoder in fp32, downloaded if need be.

    Raises UserError if the model cannot be had or is of another kind.
    """
    from utils import checkpoints

    checkpoint = checkpoints.fetch("decoder", name)
    tokenizer, model = checkpoints.load_decoder(checkpoint)
    if not cache_name(model):
        raise UserError(f"model {checkpoint.name!r} ({model.config.model_type}) has no key-value "
                        "cache of attention, which this exercise uses: name another --model")
    return checkpoint, tokenizer, model.to(device).eval()


def context_length(model) -> int:
    """How many tokens the model takes, prompt and continuation together."""
    return getattr(model.config, "max_position_embeddings", 10**9)


def check_context(model, tokenizer, prompts: list[str], max_new_tokens: int) -> None:
    """Raise UserError unless every prompt and its continuation fit into the model's context."""
    for prompt, ids in zip(prompts, tokenizer(prompts)["input_ids"], strict=True):
        room = context_length(model) - len(ids)
        if room < max_new_tokens:
            raise UserError(f"the prompt {short(prompt)} has {len(ids)} tokens, and of the model's "
                            f"{context_length(model)} that leaves {max(room, 0)} for a "
                            f"continuation: shorten it, or lower --max-new-tokens {max_new_tokens}")


def cache_name(model) -> str | None:
    """What the model calls its key-value cache: "cache", or in older libraries "past_key_values".

    None if it has none, or one that cannot take up a text in its middle, as Mamba's.
    """
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or []
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def score_labels(model, tokenizer, prompts: list[str], labels: list[str],
                 batch_size: int = 16) -> torch.Tensor:
    """log p(label | prompt), in the model's own precision: (prompts, labels), on the CPU.

    The label follows after one space; one of several tokens gets the sum of theirs. What all
    prompts begin with, the instruction and the examples, is computed once. A batch holds prompts of
    one length, so that nothing is padded. Raises UserError if a prompt is too long for the model.
    """
    import torch
    from transformers import DynamicCache

    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    answers = [tokenizer(" " + label, add_special_tokens=False)["input_ids"] for label in labels]
    longest = max(map(len, rows)) + max(map(len, answers))
    if longest > context_length(model):
        raise UserError(f"a few-shot prompt and its answer have {longest} tokens, and the model "
                        f"takes {context_length(model)}: name another --model, or shorten the "
                        "examples in data/sample_prompts.json")
    shortest, shared = min(map(len, rows)), 0
    while shared < shortest - 1 and len({row[shared] for row in rows}) == 1:
        shared += 1
    scores, prefix = torch.empty(len(rows), len(labels)), DynamicCache(config=model.config)
    with torch.inference_mode():
        if shared:
            _logits(model, torch.tensor([rows[0][:shared]], device=model.device), 1, prefix)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for _, equally_long in groupby(by_length, key=lambda i: len(rows[i])):
            group = list(equally_long)
            for chosen in (group[i:i + batch_size] for i in range(0, len(group), batch_size)):
                ids = torch.tensor([rows[i][shared:] for i in chosen], device=model.device)
                scores[chosen] = _score(model, prefix, ids, answers).cpu()
    return scores


def _score(model, prefix, ids: torch.Tensor, answers: list[list[int]]) -> torch.Tensor:
    """(batch, answers). ids: (batch, time), what follows after the prefix, a cache of one row."""
    import torch

    cache = copy.deepcopy(prefix)  # the model appends to the cache that it gets
    if cache.get_seq_length():
        cache.batch_repeat_interleave(len(ids))
    first, scores = _logits(model, ids, 1, cache), []
    for answer in answers:
        tokens, logits = torch.tensor([answer] * len(ids), device=ids.device), first
        if len(answer) > 1:
            rest = _logits(model, tokens[:, :-1], len(answer) - 1, copy.deepcopy(cache))
            logits = torch.cat([first, rest], 1)
        scores.append(logits.log_softmax(-1).gather(-1, tokens[..., None]).sum((1, 2)))
    return torch.stack(scores, 1)


def _logits(model, ids: torch.Tensor, keep: int, cache) -> torch.Tensor:
    """The last `keep` positions' logits, (batch, keep, vocabulary); the cache grows by ids."""
    named: dict = {cache_name(model): cache}
    return model(ids, logits_to_keep=keep, use_cache=True, **named).logits
