"""What a model thinks is not what it says: thoughts inside of a text are told from the answer.

Reasoning models write <think> ... </think> before they answer. Some servers send that in a field of
its own, others leave it in the text, and so does a model in this process.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable

# Each is closed by the same tag with a slash.
TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "[think]")
STRAY = re.compile(r"(?:(?!<think>).)*?(?<!`)</think>\s*", re.DOTALL | re.IGNORECASE)


def answer_start(text: str, thinking: bool = False) -> int | None:
    """Where the answer begins in what a model has written so far, None if that is not sure yet.

    thinking: whether the prompt itself has opened the thoughts, as some chat templates do. Only
    tags before the first word of the answer count: an answer may speak about them.
    answer_start("Paris") is 0, answer_start("<think>hm</think> Paris") is 18, of "<th" it is None.
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
    """Yield what belongs to the answer once that is sure (till then ""); return the whole answer.

    Tags may be cut by the pieces, and thoughts that never end are no answer. Where thoughts are
    closed that nobody opened (the prompt had done so), they have been yielded by then, but are not
    in what is returned.
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
    stray = STRAY.match(text, start)
    return text[stray.end() if stray else start:]
