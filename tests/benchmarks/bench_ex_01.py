"""How much faster exercise 1 trains than two common recipes, on the same model, data and machine, in one run.

    python tests/benchmarks/bench_ex_01.py            a few minutes; prints a table and, last, one JSON object

Three recipes take turns on the same random-order reviews: (a) every review padded to 512 tokens in fp32, as most
tutorials do; (b) a plain Trainer with dynamic padding in fp32; (c) exercise 1's own: grouped by length, bf16 where the
processor has it, and in the quick preset no dropout and frozen word embeddings. Examples per second are taken
from each Trainer's own steps, the first ones left out. (b) and (c) are also trained on the same examples to the end,
and their test accuracies compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--data", default="packaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--train", type=int, default=3200, help="reviews for (b) and (c) (default: %(default)s)")
    options = parser.parse_args()

    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    import ex_01_bert_classification as ex
    from utils import reporting, runtime

    own = {**ex.PRESETS["quick"], "train": options.train, "validation": 100}
    plain = {**own, "dropout": 0.1, "train_embeddings": True}  # what a checkpoint and a Trainer do by themselves
    ex.LARGE = float("inf")

    class Clock(TrainerCallback):
        """Seconds of each optimizer step, validation and saving left out."""

        def __init__(self):
            self.seconds = []

        def on_step_begin(self, *args, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            self.seconds.append(time.perf_counter() - self.start)

        def rate(self, batch_size: int, skip: int) -> float:
            kept = self.seconds[skip:]
            return batch_size * len(kept) / sum(kept)

    def measure(name: str) -> tuple[float, float | None]:
        ex.PRESETS["quick"] = own if name == "c" else plain
        with tempfile.TemporaryDirectory() as folder:
            args = ex.parse_arguments(["--model", options.model, "--data", options.data, "--device", options.device,
                                       "--output", str(Path(folder) / "out")])
            setup = ex.prepare(args)
            if name == "c":
                trainer = ex.make_trainer(setup, args)
            else:
                padding, limit = ("max_length", 512) if name == "a" else (False, setup.preset["max_length"])
                tokenizer = setup.tokenizer
                data = setup.reviews.splits["train"].map(
                    lambda rows: tokenizer(rows["text"], truncation=True, max_length=limit, padding=padding),
                    batched=True, remove_columns="text")
                trainer = Trainer(
                    model=setup.model, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer),
                    args=TrainingArguments(
                        output_dir=folder, seed=args.seed, learning_rate=setup.preset["learning_rate"],
                        warmup_steps=0.1, weight_decay=0.01, num_train_epochs=setup.preset["epochs"],
                        per_device_train_batch_size=args.batch_size, save_strategy="no", report_to="none",
                        use_cpu=setup.device == "cpu", disable_tqdm=True, dataloader_pin_memory=False,
                        max_steps=3 if name == "a" and setup.device == "cpu" else -1))
            clock = Clock()
            trainer.add_callback(clock)
            trainer.train()
            accuracy = None
            if name != "a":
                test = setup.reviews.splits["test"].to_dict()
                probabilities = ex.predict_probabilities(
                    trainer.model, setup.tokenizer, test["text"], setup.preset["max_length"])
                accuracy = ex.score(probabilities.argmax(-1), test["label"])["accuracy"]
            setup.output.release()
            return clock.rate(args.batch_size, skip=1 if name == "a" else 5), accuracy

    measured = {name: measure(name) for name in "abc"}
    names = {"a": "padded to 512, fp32", "b": "plain Trainer, dynamic padding, fp32", "c": "exercise 1"}
    reporting.table("Training speed", ["recipe", "examples per second", "test accuracy"],
                    [[names[k], rate, "not trained to the end" if acc is None else f"{acc:.3f}"]
                     for k, (rate, acc) in measured.items()])
    print(json.dumps({
        "speedup_over_padding_to_512": measured["c"][0] / measured["a"][0],
        "speedup_over_plain_trainer": measured["c"][0] / measured["b"][0],
        "accuracy_difference_to_plain_trainer": measured["c"][1] - measured["b"][1],
        "precision": runtime.precision("cuda" if options.device == "cuda" else "cpu"),
    }))


if __name__ == "__main__":
    main()
