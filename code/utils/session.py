"""One run of an exercise, from its banner to its last line; what is done is on the disk at once.

    with Session("ex_01", settings) as session:
        ...                                         # find the model and the data
        session.open("Exercise 1: ...", facts)      # claim the folder, print the banner
        session.part("baselines", "Part 2: baselines", "What to look at.", compute, show)
        session.close([...])

Every exercise writes the same results.json:

    exercise    "ex_01" to "ex_04"
    settings    the command's flags, completed by the preset
    run         model, source, data, device, precision, versions: what else the numbers depend on
    parts       {name of a part: what it measured}, written as soon as the part is complete
    finished    true after the last part
    minutes, peak_memory_mb, peak_gpu_memory_mb (null without a GPU)
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from utils import reporting, runtime
from utils.runtime import DivergedError, UserError, is_main_process, well_formed

if TYPE_CHECKING:
    from filelock import BaseFileLock

RESULTS = "results.json"
NOT_COMPARED = ("output", "resume", "device")  # flags that a resumed run may have otherwise


class Session:
    """A run: `device`, `folder`, `results` (what results.json holds), and how it goes on after
    an interruption."""

    def __init__(self, exercise: str, settings) -> None:
        """Quiet the libraries, seed everything, choose the device.

        settings: from `runtime.complete`. Raises UserError when the device asked for is not there.
        """
        self.exercise, self.settings = exercise, settings
        self.clock = runtime.Stopwatch()
        self.device = runtime.start(settings)
        self.folder = settings.output.resolve()
        self.results: dict = {}
        self._now: str | None = None  # the part under way
        self._lock: BaseFileLock | None = None
        self._before, self._opened = 0.0, False
        self._left_out: list[str] = []  # parts that need a task which is not written yet

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._opened:
            done = ", ".join(self.results["parts"]) or "no part yet"
            where = f" in part {self._now!r}" if self._now else ""
            error.last_words = (f"Stopped{where}. Complete and kept in "
                                f"{reporting.shown(self.folder)}: {done}.")
            if not isinstance(error, DivergedError):
                error.last_words += " The same command with --resume goes on from there."
        if self._lock:
            self._lock.release()

    def open(self, title: str, run: dict, facts: dict, disk_mb: float = 0,
             memory_mb: float = 0) -> None:
        """Claim the output folder, take over what an interrupted run finished, print the banner.

        run: model, source, data and the like, for results.json; a resumed run must have the same.
        facts: lines of the banner. disk_mb, memory_mb: what the run is about to need. Raises
        UserError if the folder cannot be written, is in use, holds something else's files or
        another run's (with --resume), or if room or memory is short.
        """
        from importlib.metadata import version

        self.results = {
            "exercise": self.exercise,
            "settings": _plain({k: v for k, v in vars(self.settings).items()
                                if k not in NOT_COMPARED}),
            "run": {"device": self.device, "precision": runtime.precision(self.device),
                    "python": platform.python_version(), "torch": version("torch"),
                    "transformers": version("transformers"), "processor": platform.machine(),
                    "threads": runtime.threads(), **_plain(run)},
            "parts": {}, "finished": False, "minutes": 0.0,
        }
        try:
            self._claim()
            if self.settings.resume:
                earlier = self._earlier()
                self._check_same(earlier, run)
                self.results["parts"], self._before = earlier["parts"], earlier["minutes"]
            elif is_main_process():
                # Those of a run that is started afresh.
                shutil.rmtree(self.checkpoints, ignore_errors=True)
            if is_main_process():  # which alone makes the folder
                _check_room(self.folder, disk_mb, memory_mb)
            self._save()
        except OSError as error:
            if runtime.is_full_disk(error):
                raise
            raise UserError(f"--output {self.settings.output}: cannot write there "
                            f"({error.strerror}); choose another folder") from None
        self._opened = True
        reporting.banner(title, {**facts, "output": reporting.shown(self.folder)})

    def part(self, name: str, title: str, look_at: str, compute: Callable[[], dict],
             show: Callable | None = None, everywhere: bool = False) -> dict:
        """Run a part of the lesson, keep what it measured, show it; return it as in results.json.

        compute: () -> numbers, strings, lists and dicts (arrays and tensors become lists). show:
        (those, folder) -> None. A part that an interrupted run completed is not computed again; one
        that needs a task which a student has not written yet is left out. everywhere: whether
        torchrun's other processes take part as well; else they get {}. Raises UserError if a number
        is not finite.
        """
        if not (everywhere or is_main_process()):
            return {}
        self._now = name
        reporting.heading(title, look_at)
        if name in self.results["parts"]:
            reporting.say("(measured before the interruption)", style="dim")
        else:
            try:
                value = _plain(compute())
            except NotImplementedError as missing:
                if not runtime.is_task(missing):
                    raise
                reporting.say(f"{missing}. Until then this part is left out.", style="bold")
                self._left_out.append(name)
                return LeftOut(str(missing))
            if not is_main_process():
                return value
            if not_finite := [key for key, numbers in value.items() if not _is_finite(numbers)]:
                raise UserError(f"part {name!r} gave a number that is not finite, in "
                                f"{', '.join(not_finite)}: look for a mean of nothing or a "
                                "division by zero in the code and data that it comes from")
            self.results["parts"][name] = value
            self._save()
        value = self.results["parts"][name]
        if show and is_main_process():
            show(value, self.folder)
        self._now = None
        return value

    def close(self, where: str = "Results and plots (*.png) are in") -> dict:
        """Mark the run as finished and print the last line; returns what results.json holds.

        Raises UserError if parts were left out because tasks are not written yet.
        """
        if self._left_out:
            raise UserError(f"left out until their tasks are written: {', '.join(self._left_out)}")
        self.results["finished"] = True
        if is_main_process():
            self._save()
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            reporting.say(f"\nDone in {self.results['minutes']:.1f} minutes, peak memory "
                          f"{self.results['peak_memory_mb']:.0f} MB. {where} "
                          f"{reporting.shown(self.folder)}")
        return self.results

    @property
    def checkpoints(self) -> Path:
        """Where the Trainer keeps its checkpoints until the run is finished."""
        return self.folder / "checkpoints"

    def save_model(self, name: str, *parts) -> Path:
        """Write a model, a tokenizer, ... into the folder `name`, as from_pretrained wants them."""
        def write(folder: Path) -> None:
            for part in parts:
                part.save_pretrained(folder)

        return write_whole(self.folder / name, write)

    def _claim(self) -> None:
        from filelock import FileLock, Timeout

        if not is_main_process():
            return
        if str(self.folder) != well_formed(str(self.folder)):  # in which no tokenizer can be saved
            raise UserError(f"--output {self.folder}: its name has a byte that is no UTF-8; choose "
                            "another folder")
        others = [p for p in self.folder.iterdir()
                  if not p.name.startswith((".", "partial-")) and p.name != "chats"] \
            if self.folder.is_dir() else []  # exercise 4 saves chats there, also without a run
        if others and self._earlier().get("exercise") != self.exercise:
            raise UserError(f"--output {self.folder}: the folder belongs to "
                            f"{self._earlier()['exercise']}; choose another one")
        if self.settings.resume and not others:
            raise UserError(f"--resume: {self.folder} holds no run to resume; leave out --resume "
                            "to start one")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another run is writing to {self.folder}: wait for it, or choose "
                            "another --output") from None
        self._lock = lock

    def _earlier(self) -> dict:
        """results.json of an earlier run in this folder."""
        try:
            earlier = json.loads((self.folder / RESULTS).read_text(encoding="utf-8"))
            return {name: earlier[name]
                    for name in ("exercise", "settings", "run", "parts", "minutes")}
        except FileNotFoundError:
            raise UserError(f"--output {self.folder}: the folder holds files that this exercise "
                            "did not write; choose a new or empty one") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.folder / RESULTS}: damaged; choose another --output, or delete "
                            "this folder") from None

    def _check_same(self, earlier: dict, run: dict) -> None:
        now = {**self.results["settings"], **_plain(run)}
        before = {**earlier["settings"], **earlier["run"]}
        for name, value in now.items():
            if before.get(name) != value:
                raise UserError(f"--resume: the interrupted run had {name.replace('_', '-')} "
                                f"{before.get(name)}, this command has {value}; repeat that "
                                "command with --resume, or leave out --resume to start afresh")

    def _save(self) -> None:
        if not is_main_process():
            return
        self.results |= {"minutes": self._before + self.clock.seconds / 60,
                         "peak_memory_mb": runtime.peak_memory_mb(),
                         "peak_gpu_memory_mb": runtime.peak_gpu_memory_mb()}
        text = json.dumps(self.results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.folder / RESULTS,
                    lambda p: p.write_text(text, encoding="utf-8", newline="\n"))


class LeftOut(dict):
    """Stands for the numbers of a part that needs a task which is not written yet: whoever needs
    them needs it, too."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def __missing__(self, key: str):
        raise NotImplementedError(self.why)


def write_whole(final: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file or folder beside its place, then move it: it is never half there.

    A folder cannot be replaced in one step; one that a kill left under its old name is put
    back first.
    """
    fresh, old = (final.with_name(f"{mark}-{final.name}") for mark in ("partial", "partial-old"))
    _put_back(old, final)
    _remove(fresh)
    try:
        write(fresh)
        if final.is_dir():
            final.rename(old)
        fresh.replace(final)
    finally:
        _remove(fresh)
        _put_back(old, final)
    return final


def _put_back(old: Path, final: Path) -> None:
    if old.exists() and not final.exists():
        old.rename(final)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_finite(value) -> bool:
    """Whether there is neither a NaN nor an infinite number in it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _plain(value):
    """Arrays, tensors, tuples and paths as what JSON has; names of files may hold bytes that
    UTF-8 does not."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return well_formed(str(value)) if isinstance(value, (Path, str)) else value


def _check_room(folder: Path, disk_mb: float, memory_mb: float) -> None:
    import psutil

    free = shutil.disk_usage(folder).free / 1e6
    if free < disk_mb:
        raise UserError(f"--output {folder}: checkpoints and model need about {disk_mb:.0f} MB, "
                        f"and only {free:.0f} MB are free; free some space or choose another "
                        "folder")
    free = psutil.virtual_memory().available / 1e6
    if free < memory_mb:
        raise UserError(f"this run needs about {memory_mb:.0f} MB of memory, and only {free:.0f} "
                        "MB are free: close other programs, or choose a smaller --model or "
                        "--preset smoke")
