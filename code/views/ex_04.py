"""What exercise 4 prints: numbers in, nothing out.

The chat itself is in assistant/terminal.py.
"""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as short

from utils.reporting import say, table


def run(backend) -> dict[str, object]:
    """What results.json says about the model."""
    return {"model": backend.name, "where": backend.where}


def facts(chat, note: str) -> dict[str, str]:
    """The lines of the banner."""
    context = chat.context or chat.backend.context
    known = f"{context:,} tokens" if context else "unknown: the server refuses what is too long"
    lines = {"model": f"{chat.backend.name}, {chat.backend.where}", "": note, "context": known,
             "technique": chat.technique}
    return {name: line for name, line in lines.items() if line}


def context(part: dict, folder: Path) -> None:
    table(f"The conversation {part['title']!r} in {part['tokens']} tokens and fewer",
          ["budget", "tokens sent", "turns left out", "begins, after the system message, with"],
          part["rows"])
    say(f"The last question is: {part['question']!r} With the first turn goes what would answer "
        "it.")


def scored(part: dict, folder: Path) -> None:
    say(f"{part['right']} of {part['of']} right in {part['seconds']:.0f} s; the first answer was "
        f"{short(part['answers'][0]['answer'])}")


def techniques(part: dict, folder: Path) -> None:
    rows, compared = [], 0
    for row in part["rows"]:
        only = ["", "", ""]
        if row["technique"] != "plain":
            compared += 1
            p = "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"
            only = [str(row["only_technique"]), str(row["only_plain"]), p]
        rows.append([row["category"], row["technique"], f"{row['right']}/{row['of']}",
                     interval(row), *only, f"{row['seconds']:.0f}"])
    table("Scored tasks", ["category", "technique", "right", "95 % interval", "only it",
                           "only plain", "p", "s"], rows)
    say("Right is: equal JSON (format); the last number (arithmetic); an accepted answer as a "
        "whole word (context); the label and not the other one (sentiment). In the category "
        "context only retrieval gets the passage. A technique is compared with plain on the same "
        "tasks: those that only it, or only plain, got right. p is the chance of so uneven a split "
        f"if both were equally good; of {compared} comparisons one below 0.05 may be chance. "
        "Always the majority label of the examples would get "
        f"{part['sentiment_majority_baseline']:.3f} of the sentiments.")


def retrieval(part: dict, folder: Path) -> None:
    table("Retrieval", ["split", "measure", "share", "95 % interval"], [
        [split, name, share["accuracy"], interval(share)]
        for split, measures in part.items() for name, share in measures.items()])


def comparison(part: dict, folder: Path) -> None:
    table(part["question"], ["technique", "prompt", "answer"], [
        [row["technique"], "\n".join(f"{m['role']}: {m['content']}" for m in row["prompt"]),
         "\n".join([row["assistant"], *(f"({note})" for note in row["notes"])]).strip()]
        for row in part["rows"]])


def interval(row: dict) -> str:
    return "{:.2f} to {:.2f}".format(*row["interval"])
