"""How near the exercises come to what this machine can do: arithmetic in training, memory in decoding.

    python tests/benchmarks/bench_limits.py       minutes; prints a table and, last, one JSON object

The limits, measured: the product of two matrices of 1024 x 1024, in fp32 and in bf16; a copy of half
a gigabyte, read and written. Beside them: the operations of training steps of exercises 1 and 3, as
torch counts those of matrix products (it leaves out attention's, a few in a hundred), and the
weights that exercise 4 reads for each token. All take turns; a share is that of a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

import bench_ex_03
from bench_ex_01 import stepper
from bench_ex_04 import QUESTIONS, finish
from timing import alternate, ratio


def copying(megabytes: int) -> Callable[[], float]:
    """A function that copies so much once: bytes per second, read and written."""
    import torch

    source = torch.ones(megabytes * 2**20 // 4)
    target = torch.empty_like(source)

    def rate() -> float:
        start = time.perf_counter()
        target.copy_(source)
        return 2 * source.nbytes / (time.perf_counter() - start)

    return rate


def training(step: Callable[[], None]) -> Callable[[], float]:
    """A function that does a step: its floating-point operations per second."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()

    def rate() -> float:
        start = time.perf_counter()
        step()
        return counter.get_total_flops() / (time.perf_counter() - start)

    return rate


def steps_of_ex_01(model: str, folder: Path) -> Callable[[], None]:
    """Four training steps of exercise 1's own Trainer, always the same four."""
    import ex_01_bert_classification as ex
    from utils import checkpoints, movie_reviews

    settings = ex.parse(["--model", model, "--device", "cpu"])
    tokenizer, classifier = ex.load_classifier(checkpoints.fetch("encoder", model), settings)
    ex.set_up(classifier, settings)
    sizes = {"train": 4 * settings.batch_size, "validation": 4, "test": 4}
    session = SimpleNamespace(settings=settings, device="cpu", checkpoints=folder)
    return stepper(ex.make_trainer(session, classifier, tokenizer,
                                   movie_reviews.load_reviews(model, settings.seed, sizes)), 4)


def decoding(model: str) -> Callable[[], float]:
    """A function that answers: bytes of weights read per second."""
    from torch import nn

    from assistant.backends import Options
    from assistant.local import Int8Linear, Local
    from utils import checkpoints

    backend = Local(checkpoints.fetch("chat", model), reuse=False)
    read = sum(layer.packed.nbytes if isinstance(layer, Int8Linear) else layer.weight.nbytes
               for layer in backend.model.modules() if isinstance(layer, (Int8Linear, nn.Linear)))
    messages, options = [{"role": "user", "content": QUESTIONS[0]}], Options(17, temperature=0)

    def rate() -> float:
        stream = backend.stream(messages, options)
        next(stream)  # the first token, for which the prompt is read
        start = time.perf_counter()
        tokens = finish(stream).completion_tokens - 1
        return read * tokens / (time.perf_counter() - start)

    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("packaged", "tiny"), default="packaged")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()

    from utils import reporting, runtime
    from utils.training import matmul_flops

    device = runtime.start(SimpleNamespace(device="cpu", seed=0))
    native = runtime.precision(device)
    limits = {"training_ex_01": f"matmul_{native}", "training_ex_03": f"matmul_{native}",
              "decoding_ex_04": "memory_copy"}
    with tempfile.TemporaryDirectory() as folder:
        of_ex_03 = SimpleNamespace(model=options.model, device=device, batch_size=2)
        recipes = {
            "matmul_fp32": lambda: matmul_flops(device, "fp32"),
            "matmul_bf16": lambda: matmul_flops(device, "bf16"),
            "memory_copy": copying(512),
            "training_ex_01": training(steps_of_ex_01(options.model, Path(folder))),
            "training_ex_03": training(bench_ex_03.recipe(f"full {native}", of_ex_03, Path(folder))),
            "decoding_ex_04": decoding(options.model)}
        rates = {name: [] for name in recipes}  # of every round, the warm-up's first
        alternate({name: lambda name=name: rates[name].append(recipes[name]()) for name in recipes},
                  options.rounds)
    rates = {name: values[1:] for name, values in rates.items()}
    shares = {name: ratio(rates[name], rates[limit]) for name, limit in limits.items()}
    rows = [[name, statistics.median(values) / 1e9,
             "GB/s" if "memory_copy" in (name, limits.get(name)) else "GFLOP/s",
             f"{shares[name]['median']:.0%} of {limits[name]}" if name in shares else "a limit"]
            for name, values in rates.items()]
    reporting.table(f"Medians of {options.rounds} rounds; training in {native}",
                    ["", "rate", "", "share"], rows)
    print(json.dumps({
        **{f"{name}, {unit}": rate for name, rate, unit, _ in rows},
        **{f"{name} over {limits[name]}": share for name, share in shares.items()},
        "precision": native, "threads": runtime.threads()}))


if __name__ == "__main__":
    main()
