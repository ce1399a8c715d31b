"""How much faster exercise 2 generates and scores in batches, on one model, in one run.

    python tests/benchmarks/bench_ex_02.py    minutes; prints tables and, last, one JSON object

Generation: prompts continued greedily in fp32, (a) one after the other, (b) as one left-padded
batch. Few-shot scoring: log p(label | prompt) of both labels for some reviews behind 0, 4 and 8
examples, (a) by label_log_prob, each candidate alone, (b) by score_labels, which computes what is
shared once and the rest in batches. The two of a pair take turns, ratios are taken round by
round, and both must agree in what they compute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from timing import alternate, ratio  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--data", default="packaged")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--new-tokens", type=int, default=40, help="per prompt (%(default)s)")
    parser.add_argument("--reviews", type=int, default=20, help="to score (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (%(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the reviews (%(default)s)")
    options = parser.parse_args()

    import torch

    import ex_02_gpt2_generation as ex
    from utils import course_data, movie_reviews, reporting, runtime
    from utils.scoring import fetch_model, score_labels

    data = course_data.load_sample_prompts()
    _, tokenizer, model = fetch_model(options.model, runtime.start(options))
    made: dict[str, object] = {}

    def compare(alone, together) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Seconds of both, and how many times as long the first takes; `made` holds the rest."""
        def recipe(name: str, work):
            made[name] = work()
            if model.device.type == "cuda":
                torch.cuda.synchronize()

        seconds = alternate({"alone": lambda: recipe("alone", alone),
                             "together": lambda: recipe("together", together)}, options.rounds)
        return seconds, ratio(seconds["alone"], seconds["together"])

    def generate(some: list[str]) -> list[list[int]]:
        return ex.generate(model, tokenizer, some, ex.STRATEGIES["greedy"], options.new_tokens,
                           options.seed)

    prompts = sum(data["generation"].values(), [])
    seconds, speedup = compare(lambda: [generate([prompt])[0] for prompt in prompts],
                               lambda: generate(prompts))
    same = sum(a == b for a, b in zip(made["alone"], made["together"], strict=True))
    tokens = sum(map(len, made["together"]))
    reporting.table(f"{len(prompts)} prompts, {options.new_tokens} new tokens each, fp32",
                    ["generated", "tokens per second (median)"],
                    [[name, tokens / statistics.median(times)] for name, times in seconds.items()])
    reporting.say(f"{same} of {len(prompts)} texts are the same, token by token.")
    by_examples = {}

    reviews = movie_reviews.load_reviews(options.data, options.seed, {"test": options.reviews})
    texts = [" ".join(text.split()[:100]) for text in reviews.splits["test"]["text"]]
    task, difference, total = data["few_shot"]["sentiment"], 0.0, {"alone": [], "together": []}
    labels = [words[0] for words in task["labels"].values()]
    for k in (0, 4, 8):
        questions = ex.sentiment_prompts(task, tuple(range(k)), tuple(labels), texts)
        seconds, by_examples[str(k)] = compare(
            lambda q=questions: torch.tensor([[ex.label_log_prob(model, tokenizer, x, label)
                                               for label in labels] for x in q]),
            lambda q=questions: score_labels(model, tokenizer, q, labels))
        difference = max(difference, (made["alone"] - made["together"]).abs().max().item())
        for name, times in seconds.items():
            total[name].append(times)
    alone, together = ([sum(times) for times in zip(*rounds, strict=True)]
                       for rounds in total.values())
    reporting.table(f"Both labels of {len(texts)} reviews scored, times as fast by score_labels",
                    ["examples", "median", "low", "high"],
                    [[k, *row.values()] for k, row in by_examples.items()])
    print(json.dumps({
        "generation_speedup": speedup, "same_texts": same / len(prompts),
        "few_shot_speedup": ratio(alone, together), "few_shot_speedup_by_examples": by_examples,
        "largest_difference_of_log_likelihoods": difference,
        "peak_memory_mb": runtime.peak_memory_mb(), "model": options.model,
        "device": model.device.type, "precision": "fp32",
    }))


if __name__ == "__main__":
    main()
