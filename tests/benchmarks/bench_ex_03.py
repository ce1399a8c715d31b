"""What exercise 3 gains from bf16 in speed and from LoRA in memory, on the same model, text and machine, in one run.

    python tests/benchmarks/bench_ex_03.py            a few minutes; prints a table and, last, one JSON object

Each recipe trains in a process of its own, in turns: all weights in plain fp32, all weights in bf16, and LoRA in the
precision that the exercise chooses here. Tokens per second are the median over optimizer steps, without the first ones;
memory is the most that the process (on a GPU: torch) ever held. A processor that only emulates bf16 is not timed with
it: the exercise does not use it there, and the JSON then says null and why.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))
RECIPES = {"full fp32": ("full", "fp32"), "full bf16": ("full", "bf16"), "lora fp32": ("lora", "fp32"),
           "lora bf16": ("lora", "bf16")}
WARM_UP = 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=8, help="steps per run, the first two not counted")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each recipe")
    parser.add_argument("--batch-size", type=int, help="blocks of 256 tokens per step (default: the exercise's 2, on a "
                        "GPU 16, which is too fast for 2)")
    parser.add_argument("--recipe", choices=RECIPES, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options, device: str) -> dict:
    """In the child process: train for some steps with one recipe, and return its speed, loss and memory."""
    import ex_03_gpt2_finetuning as ex
    from utils import runtime, training

    method, precision = RECIPES[options.recipe]
    runtime.precision = lambda device: precision
    batch_size = options.batch_size or (16 if device == "cuda" else 2)
    # quick's training under smoke's name, which brings template reviews: nothing is measured on them, or downloaded
    ex.PRESETS["smoke"] = {**ex.PRESETS["quick"], "train_tokens": options.steps * batch_size * 256}
    with tempfile.TemporaryDirectory() as folder:
        args = ex.parse_arguments(["--preset", "smoke", "--model", options.model, "--method", method, "--device",
                                   device, "--batch-size", str(batch_size), "--output", str(Path(folder) / "out")])
        setup = ex.prepare(args)
        trainer = ex.make_trainer(setup, args)
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.args.load_best_model_at_end = trainer.args.eval_on_start = False
        trainer.add_callback(training.StepClock())
        runtime.reset_peak_gpu_memory()
        training.train(trainer, None)
        setup.output.release()
    seconds = [row["step_seconds"] for row in trainer.state.log_history if "step_seconds" in row][WARM_UP:]
    return {"tokens_per_second": batch_size * 256 / statistics.median(seconds),
            "training_loss": next(row["train_loss"] for row in trainer.state.log_history if "train_loss" in row),
            "peak_memory_mb": runtime.peak_gpu_memory_mb() if device == "cuda" else runtime.peak_memory_mb()}


def main() -> None:
    options = parse_arguments()
    import torch

    from utils import reporting, runtime

    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if options.recipe:
        print(json.dumps(measure(options, device)))
        return
    native = runtime.precision(device)
    recipes = ["full fp32", *(["full bf16"] if native == "bf16" else []), f"lora {native}"]
    runs: dict[str, list[dict]] = {name: [] for name in recipes}
    for _ in range(options.repeats):
        for name in recipes:
            child = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--recipe", name], text=True,
                                   stdout=subprocess.PIPE, encoding="utf-8", check=True)
            runs[name].append(json.loads(child.stdout.splitlines()[-1]))

    def middle(name: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[name])

    keys = ("tokens_per_second", "training_loss", "peak_memory_mb")
    reporting.table(f"Fine-tuning on {device}, median of {options.repeats} runs in turns",
                    ["recipe", "tokens per second", "training loss", "peak memory (MiB)"],
                    [[name, *(middle(name, key) for key in keys)] for name in recipes])
    full, lora = f"full {native}", f"lora {native}"
    faster = middle("full bf16", keys[0]) / middle("full fp32", keys[0]) if native == "bf16" else None
    print(json.dumps({
        "bf16_speedup_over_fp32": faster,
        **({} if faster else {"bf16_not_measured_because": f"this {device} only emulates bf16, many times slower"}),
        "lora_memory_share_of_full": middle(lora, "peak_memory_mb") / middle(full, "peak_memory_mb"),
        "lora_speedup_over_full": middle(lora, keys[0]) / middle(full, keys[0]),
        "precision": native, "device": device}))


if __name__ == "__main__":
    main()
