"""What both fine-tuning exercises need around the Trainer: progress, checkpoints that survive a kill, estimates."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from transformers import PrinterCallback, Trainer, TrainerCallback

from utils import reporting
from utils.runtime import UserError, is_main_process


class Progress(TrainerCallback):
    """A progress bar, and one line at every validation instead of the Trainer's dictionaries."""

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm import tqdm

        # disable=None: no bar when the output goes to a file
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step",
                        disable=None if is_main_process() else True)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        values = [f"{key.removeprefix('eval_')} {value:.3f}" for key, value in (logs or {}).items()
                  if key in ("eval_accuracy", "eval_f1", "eval_loss", "eval_perplexity")]
        if values and is_main_process():
            self.bar.clear()
            reporting.say(f"step {state.global_step:>4} of {state.max_steps}: validation " + ", ".join(values))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class StepClock(TrainerCallback):
    """Times each optimizer step, without validation and saving: rows with "step_seconds" in the Trainer's log_history.

    A checkpoint holds the history, so a resumed run knows the times of the interrupted one.
    """

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU goes on working after it was handed its work
        state.log_history.append({"step": state.global_step, "step_seconds": time.perf_counter() - self.start})


def train(trainer: Trainer, checkpoint: Path | None) -> float:
    """Run `trainer.train`, from a checkpoint if one is given; return the seconds it took in this process."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        reporting.say("\nInterrupted: the same command with --resume goes on from the last whole "
                      "checkpoint, if there is one.")
        raise
    return time.perf_counter() - start


def checkpoint_to_resume(folder: Path) -> Path:
    """The newest whole checkpoint in a folder. Raises UserError if there is none.

    The Trainer writes trainer_state.json last, so a checkpoint in which it cannot be read was cut by a kill.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        except (OSError, ValueError):
            continue
    raise UserError(f"--resume: {folder.parent} holds no checkpoint to resume from (either the run was finished, or it "
                    "stopped before its first checkpoint); leave out --resume to start afresh")


def clear_checkpoints(folder: Path) -> None:
    """Remove a folder of checkpoints: those of a finished run, or of an interrupted one that is started afresh."""
    shutil.rmtree(folder, ignore_errors=True)


def matmul_flops(device: str, dtype: str, seconds: float = 0.3) -> float:
    """Floating-point operations per second that this device reaches multiplying 1024 x 1024 matrices.

    dtype: "fp32" or "bf16". A product of two n x n matrices takes 2 n^3 operations.
    """
    import torch

    n = 1024
    a = torch.ones(n, n, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    a @ a
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        total = (a @ a)[0, 0].item()  # .item() waits for a GPU to finish
        count += 1
    assert total == n
    return count * 2 * n**3 / (time.perf_counter() - start)
