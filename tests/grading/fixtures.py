"""Tiny models, tokenizers and functions that tasks are called with: the same ones on both sides, random and offline."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path


def build() -> dict:
    """Name -> object. Models are random, in fp32 and in evaluation mode; the same each time."""
    import torch
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    from utils import tiny

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for role in ("encoder", "decoder"):
            tiny.save(role, Path(folder) / role)
        decoder_tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "decoder")
        decoder_tokenizer.pad_token = decoder_tokenizer.eos_token
        return {
            "encoder": AutoModel.from_pretrained(Path(folder) / "encoder", dtype=torch.float32).eval(),
            "encoder_tokenizer": AutoTokenizer.from_pretrained(Path(folder) / "encoder"),
            "decoder": AutoModelForCausalLM.from_pretrained(Path(folder) / "decoder", dtype=torch.float32).eval(),
            "decoder_tokenizer": decoder_tokenizer,
            "predict": predict,
            "count_words": count_words,
        }


def predict(texts: list[str]):
    """Stands in for a classifier: probabilities (texts, 2) that depend on each word and on its place."""
    import numpy as np

    score = np.array([sum((sum(map(ord, word)) % 17 - 8) / (i + 2) for i, word in enumerate(text.split()))
                      for text in texts], float)
    positive = 1 / (1 + np.exp(-score / 4))
    return np.stack([1 - positive, positive], axis=1)


def count_words(messages: list[dict]) -> int:
    """Stands in for a token counter: words of all messages, and four more for each message."""
    return sum(len(re.findall(r"\S+", message["content"])) + 4 for message in messages)
