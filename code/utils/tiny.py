"""`--model tiny` and `--data tiny`: the right shapes without a download, for trials and tests.

The models are random and know nothing; the reviews are made from a template so that a model can
learn them.
"""

from __future__ import annotations

import itertools
import random
import string
from pathlib import Path

SUBJECTS = ("film", "movie", "story", "acting", "script", "music", "ending", "plot", "cast",
            "camera work")
WORDS = {
    0: ("dull", "boring", "awful", "weak", "tiresome", "clumsy", "flat", "lifeless"),
    1: ("great", "moving", "lovely", "sharp", "funny", "thrilling", "warm", "superb"),
}
FRAMES = ("The {s} was {a} and {b}.", "What a {a} evening, with {s} that felt {b}.",
          "I found the {s} {a}, even {b}, from start to end.")


def reviews(seed: int) -> tuple[list[str], list[int]]:
    """840 template sentences and their labels (0 negative, 1 positive), shuffled by the seed."""
    rows = []
    for label, words in WORDS.items():
        pairs = itertools.product(SUBJECTS, itertools.permutations(words, 2))
        rows += [(FRAMES[i % len(FRAMES)].format(s=subject, a=a, b=b), label)
                 for i, (subject, (a, b)) in enumerate(pairs) if i % 4 != 3]
    random.Random(seed).shuffle(rows)
    return [text for text, _ in rows], [label for _, label in rows]


def save(role: str, folder: Path, seed: int = 0) -> None:
    """Write a random 2-layer model and its tokenizer into a folder, as from_pretrained wants it.

    role: "encoder" (BERT, with its masked-LM head), "decoder" (GPT-2) or "chat" (GPT-2 with a chat
    template).
    """
    import torch
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        PreTrainedModel,
    )

    tokenizer = _word_pieces() if role == "encoder" else _bytes(chat=role == "chat")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if role == "encoder":
            model: PreTrainedModel = BertForMaskedLM(BertConfig(
                vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2,
                num_attention_heads=4, intermediate_size=128, max_position_embeddings=128))
        else:
            end = tokenizer.eos_token_id
            model = GPT2LMHeadModel(GPT2Config(
                vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=1024,
                bos_token_id=end, eos_token_id=end))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _word_pieces():
    """A WordPiece tokenizer: the template's words, and single characters for all others."""
    from transformers import BertTokenizer

    without_marks = str.maketrans("", "", string.punctuation)
    words = set(" ".join(reviews(0)[0]).lower().translate(without_marks).split())
    words |= {"the", "a", "it", "bank", "bat", "light", "plot", "monkey", "banana", "because",
              "was", "too", "hungry"}
    characters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *characters,
              *("##" + c for c in characters), *sorted(w for w in words if len(w) > 1)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocab, model_max_length=128)


def _bytes(chat: bool):
    """A byte-level tokenizer without merges: one token a byte, and an end-of-text token."""
    from tokenizers import pre_tokenizers
    from transformers import GPT2Tokenizer

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=[], model_max_length=1024)
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
    return tokenizer
