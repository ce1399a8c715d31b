"""What a model thinks is not what it says: thoughts that stand inside the text are told from the answer.

Reasoning models write <think> ... </think> before they answer. Some servers send that as a field of its own, others
leave it in the text, and so does a model in this process.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable

TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "[think]")  # closed by the same with a slash


def answer_start(text: str, thinking: bool = False) -> int | None:
    """Where the answer begins in what a model has written so far, or None if that cannot be told yet.

    thinking: whether the prompt itself has opened the thoughts, as some chat templates do. Only tags before the first
    word of the answer count: an answer may speak about them.
    answer_start("Paris") is 0, answer_start("<think>hm</think> Paris") is 18, of "<th" and "<think>hm" it is None.
    """
    lower, start = text.lower(), 0
    while True:
        rest = lower[start:].lstrip()
        tag = "<think>" if thinking else next((tag for tag in TAGS if rest.startswith(tag)), None)
        if tag is None:
            may_become_a_tag = any(tag.startswith(rest) for tag in TAGS)
            return None if may_become_a_tag else start and len(text) - len(rest)
        end = lower.find(f"{tag[0]}/{tag[1:]}", start)
        if end < 0:
            return None
        start, thinking = end + len(tag) + 1, False


def without_thoughts(pieces: Iterable[str], thinking: bool = False) -> Generator[str, None, str]:
    """Yield what belongs to the answer as soon as that is sure ("" while the model thinks); return the whole answer.

    Tags may be cut by the pieces; thoughts that never end are no answer. Where a closing tag comes and none was opened
    (the prompt had done that, and nobody said so), what came before it has been yielded, but is not in what is returned.
    [*without_thoughts(["<thi", "nk>hm</think>", "Pa", "ris"])] is ["", "", "Pa", "ris"].
    """
    text, start = "", None
    for piece in pieces:
        text += piece
        if start is not None:
            yield piece
        else:
            start = answer_start(text, thinking)
            yield "" if start is None else text[start:]
    if start is None:  # nothing but thoughts, or the beginning of a tag that did not become one
        start = len(text) if thinking or text.lower().lstrip().startswith(TAGS) else 0
        if text[start:]:
            yield text[start:]
    stray = re.match(r"(?:(?!<think>).)*?(?<!`)</think>\s*", text[start:], re.DOTALL | re.IGNORECASE)
    return text[start + stray.end():] if stray else text[start:]
