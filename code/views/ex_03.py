"""What exercise 3 prints and draws: numbers in, nothing out."""

from __future__ import annotations

import json
from pathlib import Path

from utils import plots, reporting, runtime
from utils.reporting import say, table


def facts(checkpoint, trainable: int, parameters: int, corpus, reviews, session) -> dict:
    """The lines of the banner."""
    def described(name: str, *notes: str) -> str:
        return ": ".join((name, "; ".join(filter(None, notes)))) if any(notes) else name

    return {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "method": f"{session.settings.method}: {trainable:,} of {parameters:,} parameters are "
                  "trained",
        "device": f"{session.device}, training in {runtime.precision(session.device)}, measuring "
                  f"in fp32, {runtime.threads()} threads",
        "corpus": described(f"{corpus.name} ({corpus.source})", corpus.note),
        "general text": described(f"reviews, {reviews.name}", reviews.note)}


def corpus(part: dict, folder: Path) -> None:
    table("", list(part["splits"][0]), [list(split.values()) for split in part["splits"]])
    say("Its characteristic words, against movie reviews: " + ", ".join(part["words"]))


def before(part: dict, folder: Path) -> None:
    table("Held-out perplexity", ["text", "perplexity"],
          list(map(list, part["perplexity"].items())))


def training(part: dict, folder: Path) -> None:
    since = f", resumed from step {part['resumed_from_step']}" if part["resumed_from_step"] else ""
    say(f"{part['step_seconds']:.0f} s of training steps{since}, "
        f"{part['tokens_per_second']:.0f} tokens a second. The model of step {part['best_step']} "
        f"is kept: validation perplexity {part['best_validation_perplexity']:.2f}.")
    figure = plots.learning_curves(part["history"], {"eval_perplexity": "validation perplexity"})
    reporting.save_figure(figure, folder / "learning_curves.png")


def after(old: dict, new: dict, folder: Path) -> None:
    table("Held-out perplexity", ["text", "before", "after", "after / before"],
          [[text, old["perplexity"][text], new["perplexity"][text], ratio]
           for text, ratio in new["ratio"].items()])
    say("A ratio below 1 is a gain; above 1 on the reviews it is what was forgotten. The first of "
        f"{len(new['continuations'][0])} continuations of each prompt, with the same seed:")
    columns = zip(new["prompts"], old["continuations"], new["continuations"], strict=True)
    table("", ["prompt", "before", "after"],
          [[prompt, *(" ".join(texts[0].split()) for texts in pair)] for prompt, *pair in columns])
    table("Words characteristic of the corpus", ["text", "share of its words"],
          list(map(list, new["style"].items())))


def cost(part: dict, folder: Path) -> None:
    this, *_ = part["models"]
    say(f"By arithmetic, this training took {part['training_flops']:.2e} floating-point "
        "operations: 6 for each trained parameter and token, 4 for a frozen one. It did "
        f"{part['achieved_flops_per_second'] / 1e9:.0f} GFLOP/s; large matrices this device "
        f"multiplies at {part['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s.")
    table("The same tokens on larger models, by that arithmetic at this speed",
          ["model", "parameters", "minutes", "GB for weights, gradients, Adam"],
          [[row["model"], f"{row['parameters'] / 1e6:,.1f} M", row["minutes"], row["gigabytes"]]
           for row in part["models"]])
    say("In fp32 a weight takes 4 bytes, and a trained one 12 more, for its gradient and Adam's "
        "two moments. Activations come on top; --gradient-checkpointing and "
        "--gradient-accumulation make them smaller.")


def methods(session) -> None:
    """This run beside the one with the other method, if that has been run in the same way."""
    mine, method = session.results, session.settings.method
    other = "lora" if method == "full" else "full"
    runs = {method: mine, other: finished_run(session.folder.with_name(other), mine)}
    runs = {name: runs[name] for name in ("full", "lora") if runs[name]}
    draw_comparison({name: run["parts"] for name, run in runs.items()}, session.folder)
    reporting.heading("Done")
    rows = [[f"perplexity of the {text}, {when}",
             *(f"{run['parts'][when]['perplexity'][text]:.2f}" for run in runs.values())]
            for text in ("corpus", "reviews") for when in ("before", "after")]
    rows += [[label, *(form.format(run["parts"]["training"][name]) for run in runs.values())]
             for label, name, form in (("trainable parameters", "trainable_parameters", "{:,}"),
                                       ("of all parameters", "parameters", "{:,}"),
                                       ("tokens per second", "tokens_per_second", "{:.0f}"),
                                       ("seconds of training steps", "step_seconds", "{:.0f}"),
                                       ("saved weights, MB", "saved_mb", "{:.1f}"))]
    rows += [["peak memory of the whole run, MB",
              *(f"{run['peak_memory_mb']:.0f}" for run in runs.values())]]
    if mine["peak_gpu_memory_mb"]:
        rows += [["peak GPU memory, MB",
                  *(f"{run['peak_gpu_memory_mb']:.0f}" for run in runs.values())]]
    table("", ["measured", *runs], rows)
    if len(runs) == 1:
        say(f"Run again with --method {other} to see both side by side.")


def finished_run(folder: Path, like: dict) -> dict | None:
    """results.json of a folder, if its run is finished and differs in the method only."""
    def rest(results: dict) -> dict:
        settings = {**results["settings"], "method": None, "lora_modules": None}
        return {**settings, **results["run"], "exercise": results["exercise"]}

    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return results if results["finished"] and rest(results) == rest(like) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def generated(prompts: list[str], texts: list[str]) -> None:
    for prompt, text in zip(prompts, texts, strict=True):
        say(f"{prompt}{text}\n")


def draw_comparison(runs: dict[str, dict], folder: Path) -> None:
    """comparison.png: perplexities and style before and after. runs: method -> its parts."""
    first = next(iter(runs.values()))
    perplexity = {"base model": first["before"]["perplexity"],
                  **{name: parts["after"]["perplexity"] for name, parts in runs.items()}}
    style = first["after"]["style"]
    shares = {"base model": style["continuations before"],  # in the same colours as on the left
              **{name: parts["after"]["style"]["continuations after"]
                 for name, parts in runs.items()},
              "held-out reviews": style["held-out reviews"],
              "held-out corpus": style["held-out corpus"]}
    reporting.save_figure(plots.bar_groups([
        ("Held-out perplexity (lower is better)",
         {name: list(values.values()) for name, values in perplexity.items()},
         ["corpus", "movie reviews"]),
        ("Words characteristic of the corpus", {name: [share] for name, share in shares.items()},
         ["share of all words"])]), folder / "comparison.png")
