"""How much faster exercise 1 trains than two common recipes: same model, reviews and machine.

    python tests/benchmarks/bench_ex_01.py        minutes; prints a table and, last, one JSON object

Three recipes take turns, a few steps each: (a) every review padded to 512 tokens in fp32, as most
tutorials do; (b) a plain Trainer's, dynamic padding in random order in fp32; (c) exercise 1's own:
grouped by length, bf16 where the processor is fast at it and, in its quick preset, no dropout and
frozen word embeddings. A round is compared with itself alone, so the machine's moods cancel out.
With --accuracy SEEDS, (b) and (c) are trained to the end once for each seed, which sets head and order,
and their test accuracies compared: a single run may be a point better or worse by luck.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from timing import alternate, ratio

NAMES = {"a": "padded to 512, fp32", "b": "plain Trainer, dynamic padding, fp32", "c": "exercise 1"}


def stepper(trainer, steps: int):
    """A function that does the next `steps` optimizer steps of a trainer."""
    trainer.create_optimizer_and_scheduler(10_000)
    model, optimizer = trainer.accelerator.prepare(trainer.model.train(), trainer.optimizer)
    batches = cycle(trainer.get_train_dataloader())

    def run() -> None:
        for _ in range(steps):
            loss = trainer.compute_loss(model, next(batches))
            trainer.accelerator.backward(loss)
            trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--data", default="packaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4, help="of (b) and (c) in a round; (a): one")
    parser.add_argument("--accuracy", type=int, default=0, metavar="SEEDS",
                        help="train to the end, too: ten minutes each")
    options = parser.parse_args()

    import numpy as np
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, EvalPrediction, Trainer, TrainingArguments, set_seed

    import ex_01_bert_classification as ex
    from utils import checkpoints, movie_reviews, reporting, runtime, training

    settings = ex.parse(["--model", options.model, "--data", options.data, "--device",
                         options.device])
    device = runtime.start(settings)
    checkpoint = checkpoints.fetch("encoder", settings.model)
    tokenizer, plain = ex.load_classifier(checkpoint, settings, num_labels=2)
    own = copy.deepcopy(plain)
    reviews = movie_reviews.load_reviews(settings.data, settings.seed, ex.set_up(own, settings))
    folder = tempfile.TemporaryDirectory()
    session = SimpleNamespace(settings=settings, device=device, checkpoints=Path(folder.name))

    def plain_trainer(model, max_length: int, padding) -> Trainer:
        train = reviews.splits["train"].to_dict()
        columns = tokenizer(train["text"], truncation=True, max_length=max_length, padding=padding)
        return Trainer(
            model=model, processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=Dataset.from_dict({**columns, "labels": train["label"]}),
            args=TrainingArguments(
                output_dir=folder.name, seed=settings.seed, learning_rate=settings.learning_rate,
                warmup_steps=0.1, weight_decay=0.01, num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size, use_cpu=device == "cpu",
                dataloader_pin_memory=False, save_strategy="no", report_to="none",
                disable_tqdm=True))

    def trainers() -> dict[str, Trainer]:
        return {"b": plain_trainer(copy.deepcopy(plain), settings.max_length, False),
                "c": ex.make_trainer(session, copy.deepcopy(own).to(device), tokenizer, reviews)}

    longest = min(512, training.longest_input(plain, tokenizer))
    recipes = {"a": stepper(plain_trainer(copy.deepcopy(plain), longest, "max_length"), 1),
               **{name: stepper(trainer, options.steps) for name, trainer in trainers().items()}}
    seconds = alternate(recipes, options.rounds)
    steps = {"a": 1, "b": options.steps, "c": options.steps}
    per_review = {name: [s / steps[name] / settings.batch_size for s in seconds[name]]
                  for name in recipes}
    result = {"times_as_fast_as_padding_to_512": ratio(per_review["a"], per_review["c"]),
              "times_as_fast_as_a_plain_trainer": ratio(per_review["b"], per_review["c"]),
              "precision": runtime.precision(device), "threads": runtime.threads()}
    accuracies: dict[str, list[float]] = {"b": [], "c": []}
    test = reviews.splits["test"].to_dict()
    for seed in range(settings.seed, settings.seed + options.accuracy):
        settings.seed = seed
        set_seed(seed)
        plain = ex.load_classifier(checkpoint, settings, num_labels=2)[1]
        own = copy.deepcopy(plain)
        ex.set_up(own, settings)
        for name, trainer in trainers().items():
            training.train(trainer, session)
            probs = ex.predict_probs(trainer.model, tokenizer, test["text"], settings.max_length)
            right = ex.compute_metrics(EvalPrediction(probs, np.array(test["label"])))
            accuracies[name].append(right["accuracy"])
    if options.accuracy:
        low, median, high = np.percentile(np.subtract(accuracies["c"], accuracies["b"]), [25, 50, 75])
        result["accuracy_gained"] = {"median": median, "low": low, "high": high}
    reporting.table("Training speed", ["recipe", "reviews per second", "test accuracy"], [
        [NAMES[name], 1 / float(np.median(per_review[name])),
         ", ".join(f"{value:.3f}" for value in accuracies.get(name, [])) or "-"] for name in recipes])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
