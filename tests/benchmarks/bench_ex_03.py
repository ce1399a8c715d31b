"""What exercise 3 gains from bf16 in speed and from LoRA in memory: same model, text and machine.

    python tests/benchmarks/bench_ex_03.py        minutes; prints a table and, last, one JSON object

Each recipe trains for a few steps in a process of its own, which tells the most memory that it
ever held (on a GPU: that torch held). Then all of them take turns, a step each. A processor that
only emulates bf16 is not timed with it: the exercise does not use it there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from bench_ex_01 import stepper
from timing import alternate, ratio

RECIPES = {"full fp32": ("full", "fp32"), "full bf16": ("full", "bf16"),
           "lora fp32": ("lora", "fp32"), "lora bf16": ("lora", "bf16")}


def recipe(name: str, options, folder: Path):
    """A function that does one optimizer step of the exercise's own Trainer."""
    import ex_03_gpt2_finetuning as ex
    from utils import checkpoints, corpora, runtime

    method, os.environ["TRANSFORMERS_COURSE_PRECISION"] = RECIPES[name]
    settings = ex.parse(["--method", method, "--model", options.model, "--device", options.device,
                         "--batch-size", str(options.batch_size), "--output", str(folder)])
    device = runtime.start(settings)
    tokenizer, model = checkpoints.load_decoder(checkpoints.fetch("decoder", settings.model))
    if method == "lora":
        model = ex.add_lora(model)
    documents = corpora.load_corpus(None, settings.seed, settings.characters).documents
    splits = ex.split_documents(documents, ex.SHARES, settings.seed)
    blocks = ex.make_blocks(splits, tokenizer, settings.block_length)
    session = SimpleNamespace(settings=settings, device=device, checkpoints=folder / "checkpoints")
    return stepper(ex.make_trainer(session, model.to(device), blocks, tokenizer.eos_token_id), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=2, help="blocks of 256 tokens a step "
                        "(default: %(default)s, which is too fast for a GPU: give 16)")
    parser.add_argument("--memory-of", choices=RECIPES, help=argparse.SUPPRESS)
    options = parser.parse_args()

    from utils import reporting, runtime

    with tempfile.TemporaryDirectory() as folder:
        if options.memory_of:  # in a child
            step = recipe(options.memory_of, options, Path(folder))
            for _ in range(3):
                step()
            print(runtime.peak_gpu_memory_mb() or runtime.peak_memory_mb())
            return
        device = runtime.start(SimpleNamespace(device=options.device, seed=0))
        native = runtime.precision(device)
        full, lora = f"full {native}", f"lora {native}"
        names = dict.fromkeys(["full fp32", full, lora])
        # Before this process grows: on Linux a child's peak begins with its parent's.
        memory = {name: float(subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--memory-of", name], check=True, text=True,
            stdout=subprocess.PIPE).stdout.splitlines()[-1]) for name in names}
        seconds = alternate({name: recipe(name, options, Path(folder)) for name in names},
                            options.rounds)
    tokens = options.batch_size * 256
    reporting.table(f"Fine-tuning on {device}", ["recipe", "tokens per second", "peak memory (MiB)"], [
        [name, tokens / sorted(seconds[name])[options.rounds // 2], memory[name]] for name in names])
    result = {"lora_memory_over_full": memory[lora] / memory[full],
              "lora_times_as_fast_as_full": ratio(seconds[full], seconds[lora]),
              "precision": native, "threads": runtime.threads()}
    if native == "bf16":
        result["bf16_times_as_fast_as_fp32"] = ratio(seconds["full fp32"], seconds[full])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
