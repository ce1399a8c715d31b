"""What both fine-tuning exercises need around the Trainer: its arguments, progress, checkpoints."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from utils import hub, reporting, runtime
from utils.checkpoints import Checkpoint
from utils.runtime import DivergedError, UserError, is_main_process


class OneDevice(TrainingArguments):
    """TrainingArguments for one device a process, however many GPUs there are.

    A Trainer that sees eight GPUs would take eight times the batch size that was asked for, and so
    an eighth of the steps. To use them all, start a process for each, with torchrun.
    """

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


def batch_per_process(batch_size: int) -> int:
    """The part of a step's batch that each of torchrun's processes takes: 16 of 32 if there are 2.

    Raises UserError if it cannot be shared out evenly.
    """
    share, left = divmod(batch_size, runtime.processes())
    if left or not share:
        raise UserError(f"--batch-size {batch_size}: {runtime.processes()} processes share it, so "
                        f"it has to be a multiple of {runtime.processes()}")
    return share


def training_arguments(session, batch_size: int, every: int, **options) -> TrainingArguments:
    """TrainingArguments with what both exercises decide alike.

    batch_size: examples of one forward pass, of all processes together. every: steps from one
    validation, and checkpoint, to the next. options: the rest, by the names of TrainingArguments.
    The forward passes run in `runtime.precision`; weights, gradients and Adam's moments are fp32.
    """
    return OneDevice(
        output_dir=str(session.checkpoints), seed=session.settings.seed,
        per_device_train_batch_size=batch_per_process(batch_size),
        bf16=runtime.precision(session.device) == "bf16", use_cpu=session.device == "cpu",
        dataloader_pin_memory=session.device == "cuda",
        warmup_steps=0.1, weight_decay=0.01,
        eval_strategy="steps", eval_steps=every, save_strategy="steps", save_steps=every,
        save_total_limit=2, load_best_model_at_end=True,
        logging_steps=max(1, every // 5), logging_nan_inf_filter=False,
        # The loss is a mean per example; True would double what is logged on two processes.
        average_tokens_across_devices=False, ddp_find_unused_parameters=False,
        report_to="none", disable_tqdm=True, **options)


class Progress(TrainerCallback):
    """A progress bar, a line at every validation, and an end to a training that has diverged."""

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm import tqdm

        # disable=None: no bar when the output goes to a file
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training",
                        unit="step", disable=None if is_main_process() else True)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name, number in (logs or {}).items():  # losses, gradients, metrics
            if isinstance(number, float) and not math.isfinite(number):
                self.bar.close()
                raise DivergedError(f"the training diverged: its {name} is {number} at step "
                                    f"{state.global_step}; choose a learning rate below "
                                    f"{args.learning_rate:g} in PRESETS, and start afresh")
        values = [f"{key.removeprefix('eval_')} {value:.3f}" for key, value in (logs or {}).items()
                  if key in ("eval_accuracy", "eval_f1", "eval_loss", "eval_perplexity")]
        if values and is_main_process():
            self.bar.clear()
            reporting.say(f"step {state.global_step:>4} of {state.max_steps}: validation "
                          + ", ".join(values))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class StepClock(TrainerCallback):
    """Times each optimizer step, without validation and saving: "step_seconds" in log_history.

    A checkpoint holds the history, so a resumed run knows the times of the interrupted one.
    """

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU goes on working after it was handed its work
        state.log_history.append({"step": state.global_step,
                                  "step_seconds": time.perf_counter() - self.start})


def train(trainer: Trainer, session) -> dict:
    """Train, with --resume from the newest whole checkpoint, if there is one.

    Returns "history" (the Trainer's log_history, of the interrupted run too), "seconds" (of this
    process) and "resumed_from_step" (0 if from the start). Raises UserError if the loss is no
    number any more.
    """
    checkpoint = checkpoint_to_resume(session.checkpoints) if session.settings.resume else None
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    clock = runtime.Stopwatch()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {"history": trainer.state.log_history, "seconds": clock.seconds,
            "resumed_from_step": int(checkpoint.name.split("-")[1]) if checkpoint else 0}


def checkpoint_to_resume(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None.

    The Trainer writes trainer_state.json last, so a checkpoint in which it cannot be read was cut
    by a kill.
    """
    newest_first = sorted(folder.glob("checkpoint-*"), reverse=True,
                          key=lambda path: int(path.name.split("-")[1]))
    for path in newest_first:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        except (OSError, ValueError):
            continue
    return None


def longest_input(model, tokenizer) -> int:
    """How many tokens a model can take: 512 for BERT, and for RoBERTa too, which has 514 positions.

    RoBERTa's positions begin behind the number of its padding token, so the first two are unused.
    """
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            padding = getattr(module, "padding_idx", None)
            limit -= 0 if padding is None else padding + 1
    return min(limit, tokenizer.model_max_length)


def check_length(model, tokenizer, length: int, flag: str) -> None:
    """Raise UserError, naming the flag that sets it, for a length that the model cannot take."""
    limit = longest_input(model, tokenizer)
    if not 3 <= length <= limit:
        raise UserError(f"{flag} {length}: this model takes 3 to {limit} tokens; set {flag}")


def saved(settings, flag: str) -> Checkpoint:
    """The model that a run of these settings has saved. Raises UserError, naming the flag."""
    folder = settings.output / "model"
    if not hub.is_complete(folder, "model"):
        raise UserError(f"{flag}: there is no trained model in {folder}; run this exercise once "
                        f"without {flag}")
    return Checkpoint(reporting.shown(folder), "folder", folder)


def matmul_flops(device: str, dtype: str, seconds: float = 0.3) -> float:
    """Floating-point operations per second of this device, multiplying large square matrices.

    dtype: "fp32" or "bf16". A product of two n x n matrices takes 2 n^3 operations. n is 1024, and
    8192 on a GPU, which would be done with less before the next product has reached it.
    """
    import torch

    n = 1024 if device == "cpu" else 8192
    a = torch.ones(n, n, device=device,
                   dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    a @ a
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        total = (a @ a)[0, 0].item()  # .item() waits for a GPU to finish
        count += 1
    assert total == n
    return count * 2 * n**3 / (time.perf_counter() - start)
