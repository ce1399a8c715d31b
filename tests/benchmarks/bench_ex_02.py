"""How much faster exercise 2 generates and scores in batches, on the same model, data and machine, in one run.

    python tests/benchmarks/bench_ex_02.py            a few minutes; prints tables and, last, one JSON object

Generation: the whole prompt set by greedy decoding in fp32, (a) one prompt after the other, (b) as one left-padded
batch. Few-shot scoring: log p(label | prompt) of both labels for some reviews behind 0, 4 and 8 examples, (a) each
candidate alone through the whole prompt, (b) by score_labels, which computes the shared prefix once and the rest in
batches. Both pairs must agree in what they compute.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--data", default="packaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--new-tokens", type=int, default=40, help="per prompt (default: %(default)s)")
    parser.add_argument("--reviews", type=int, default=20, help="to score (default: %(default)s)")
    options = parser.parse_args()

    import torch

    import ex_02_gpt2_generation as ex
    from utils import corpora, course_data, reporting, runtime

    data = course_data.load_sample_prompts()
    prompts = sum(data["generation"].values(), [])
    _, tokenizer, model = ex.load_model(ex.parse_arguments(["--model", options.model, "--device", options.device]))
    model.float()
    reviews = corpora.load_reviews(options.data, 42, {"test": options.reviews})
    texts = [" ".join(text.split()[:100]) for text in reviews.splits["test"]["text"]]

    def seconds(work) -> tuple[float, object]:
        start = time.perf_counter()
        result = work()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, result

    def generate(some: list[str], new_tokens: int = options.new_tokens) -> list[list[int]]:
        return ex.generate(model, tokenizer, some, ex.STRATEGIES["greedy"], new_tokens, seed=42)

    def score_alone(questions: list[str], labels: list[str]) -> torch.Tensor:
        scores = torch.empty(len(questions), len(labels))
        for i, question in enumerate(questions):
            for j, label in enumerate(labels):
                before, label_ids = (tokenizer(text)["input_ids"] for text in (question, " " + label))
                ids = torch.tensor([before + label_ids], device=model.device)
                with torch.inference_mode():
                    logits = model(ids, logits_to_keep=len(label_ids) + 1).logits[:, :-1]
                scores[i, j] = ex.token_log_probs(logits, ids[:, len(before):]).sum()
        return scores

    generate(prompts, 2)  # warm up
    alone, one_by_one = seconds(lambda: [generate([prompt])[0] for prompt in prompts])
    together, batched = seconds(lambda: generate(prompts))
    same = sum(a == b for a, b in zip(one_by_one, batched, strict=True))
    reporting.table(f"{len(prompts)} prompts, {options.new_tokens} new tokens each, fp32",
                    ["generated", "seconds", "tokens per second"],
                    [["one after the other", alone, sum(map(len, one_by_one)) / alone],
                     ["as one batch", together, sum(map(len, batched)) / together]])
    reporting.say(f"{same} of {len(prompts)} texts are the same, token by token.")

    task, rows, difference = data["few_shot"]["sentiment"], [], 0.0
    labels = [words[0] for words in task["labels"].values()]
    for k in (0, 4, 8):
        shots = [(shot["text"], shot["label"]) for shot in task["examples"][:k]]
        questions = [ex.few_shot_prompt(task["instruction"], task["template"], shots, text) for text in texts]
        slow, expected = seconds(lambda q=questions: score_alone(q, labels))
        fast, scores = seconds(lambda q=questions: ex.score_labels(model, tokenizer, q, labels))
        difference = max(difference, (scores - expected).abs().max().item())
        rows.append([k, slow, fast, slow / fast])
    reporting.table(f"Both labels of {len(texts)} reviews scored, seconds",
                    ["examples", "each candidate alone", "score_labels", "times as fast"], rows)
    print(json.dumps({
        "generation_speedup": alone / together,
        "same_texts": same / len(prompts),
        "few_shot_speedup": sum(row[1] for row in rows) / sum(row[2] for row in rows),
        "few_shot_speedup_by_examples": {str(row[0]): row[3] for row in rows},
        "largest_difference_of_log_likelihoods": difference,
        "peak_memory_mb": runtime.peak_memory_mb(),
        "model": options.model, "device": model.device.type, "precision": "fp32",
    }))


if __name__ == "__main__":
    main()
