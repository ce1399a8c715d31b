"""The untrusted side: a process that has imported torch once, and forks into a cage for every task.

It knows no expected value. Its parent, sandbox.py, sends a request a line on standard input: a submission, and calls
with their arguments; a line with what came back goes to standard output. Between the two stand, where the system
allows: another user, namespaces without network and without other processes, Landlock (no file but the box, the
interpreter and its packages), and limits on memory, processes, open files and file size.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

KEPT_OUTPUT = 4_000  # characters of what a submission prints
LARGEST_REPLY = 50_000_000  # bytes
NEW_USER, NEW_PID, NEW_NET, NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000


def serve(fixtures) -> None:
    """Answer requests until standard input ends: fork a guard for each, who forks the prisoner."""
    for line in sys.stdin:
        guard = os.fork()
        if guard == 0:
            with contextlib.suppress(BaseException):
                reply = keep_watch(json.loads(line), fixtures)
                os.write(3, (json.dumps(reply) + "\n").encode())
            os._exit(0)
        os.waitpid(guard, 0)
        os.write(3, b"\n")  # ends the reply, also one that a dead guard never began


def keep_watch(request: dict, fixtures) -> dict:
    """Start the prisoner, collect its lines, keep the time, and leave nothing of it running."""
    in_force = leave_namespaces(bool(request["uid"]))
    (results, to_results), (output, to_output) = os.pipe(), os.pipe()
    prisoner = os.fork()
    if prisoner == 0:
        try:
            os.setsid()
            os.close(results), os.close(output), os.close(3)
            for stream in (1, 2):
                os.dup2(to_output, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            confine(request, in_force)
            answer(request, fixtures, to_results)
        finally:
            os._exit(0)
    os.close(to_results), os.close(to_output)
    lines, printed, state = collect(results, output, request["limits"], prisoner if in_force else 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(prisoner, signal.SIGKILL)
        os.kill(prisoner, signal.SIGKILL)
    _, status = os.waitpid(prisoner, 0)
    if state == "ended" and os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        state = f"killed by signal {os.WTERMSIG(status)}"
    return {"lines": lines, "printed": printed, "state": state}


def collect(results: int, output: int, limits: dict, prisoner: int) -> tuple[list[str], str, str]:
    """Read both pipes until the results end or something is too much: (lines, what was printed, why it ended).

    prisoner: the first process of a namespace, to which all orphans in it fall, so that none can hide; 0 for none.
    """
    import psutil

    data, printed, seen, state = b"", b"", 0, ""
    late = time.monotonic() + limits["import_seconds"]
    open_pipes = {results, output}
    while not state:
        for pipe in select.select(list(open_pipes), [], [], 0.1)[0]:
            block = os.read(pipe, 1 << 16)
            if not block:
                open_pipes.discard(pipe)
            elif pipe == results:
                data += block
                if data.count(b"\n") > seen:
                    seen, late = data.count(b"\n"), time.monotonic() + limits["call_seconds"]
            else:
                printed = (printed + block)[:KEPT_OUTPUT]
        if results not in open_pipes:
            state = "ended"
        elif time.monotonic() > late:
            state = "late"
        elif len(data) > LARGEST_REPLY:
            state = "too much"
        elif prisoner:
            with contextlib.suppress(psutil.Error):
                if len(psutil.Process(prisoner).children(recursive=True)) > limits["processes"]:
                    state = "too many processes"
    lines = data.decode("utf-8", "replace").split("\n")[:-1]
    return lines, printed.decode("utf-8", "replace"), state


def leave_namespaces(other_user: bool) -> list[str]:
    """Namespaces without network and without the processes of others; returns what could be had.

    Where no other user can be had, a user namespace takes away the rights of this one outside of it.
    """
    if not sys.platform.startswith("linux"):
        return []
    kinds = NEW_PID | NEW_NET | NEW_IPC | (0 if other_user else NEW_USER)
    return ["namespaces"] if ctypes.CDLL(None).unshare(kinds) == 0 else []


def confine(request: dict, in_force: list[str]) -> None:
    """Give up what a student's code has no need of, in this process and all that it starts."""
    import resource

    limits = request["limits"]
    os.chdir(request["box"])
    for name in [name for name in os.environ if name not in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")]:
        del os.environ[name]
    os.environ.update(HOME=request["box"], TMPDIR=request["box"], HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") \
        if Path("/proc/self/statm").exists() else 4 << 30
    rules = {"AS": used + (limits["memory_mb"] << 20), "NPROC": limits["processes"], "FSIZE": limits["file_mb"] << 20,
             "NOFILE": 64, "CORE": 0}
    if "namespaces" not in in_force and not request["uid"]:
        del rules["NPROC"]  # it would count the teacher's own processes
    for name, value in rules.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if request["uid"]:
        os.setgroups([]), os.setgid(request["uid"]), os.setuid(request["uid"])
    landlock(request["box"], request["readable"])


def landlock(box: str, readable: list[str]) -> bool:
    """Landlock (Linux 5.13, docs.kernel.org/userspace-api/landlock.html): of all files only these; no TCP; no signals
    to processes outside. Returns whether the system has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) if sys.platform == "linux" else -1
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = (ctypes.c_uint64 * 3)(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(444, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    execute_and_read = 1 | 1 << 2 | 1 << 3
    for path, access in [(box, files & ~(1 << 15)), *((path, execute_and_read) for path in readable)]:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            access &= files if Path(path).is_dir() else 1 | 1 << 1 | 1 << 2 | 1 << 14
            rule = access.to_bytes(8, sys.byteorder) + handle.to_bytes(4, sys.byteorder)
            libc.syscall(445, rules, 1, rule, 0)
            os.close(handle)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    return libc.syscall(446, rules, 0) == 0


def answer(request: dict, fixtures, pipe: int) -> None:
    """Import the submission and make the calls; a line for each. Runs confined, beside hostile code."""
    def send(**line) -> None:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        data = (json.dumps(line) + "\n").encode()
        while data:
            data = data[os.write(pipe, data):]

    import torch
    from values import decode, encode

    try:
        spec = importlib.util.spec_from_file_location("submission", request["file"])
        module = importlib.util.module_from_spec(spec)
        sys.modules["submission"] = module
        spec.loader.exec_module(module)
    except BaseException as error:
        return send(import_error=describe(error, request["file"]))
    send(imported=True)
    for number, call in enumerate(request["calls"]):
        try:
            torch.manual_seed(0)
            arguments = [decode(value, fixtures, torch.from_numpy) for value in call["arguments"]]
            forbid(call["forbidden"])
            value = encode(getattr(module, call["function"])(*arguments))
            send(call=number, value=value)
        except BaseException as error:
            send(call=number, error=describe(error, request["file"]), missing=is_missing(error, module, call))


def forbid(names: list[str]) -> None:
    """Make library functions raise that would do the task: "transformers.TopKLogitsWarper"."""
    def refuse(*args, **kwargs):
        raise RuntimeError("this library function does the whole task: write it yourself")

    for name in names:
        owner, _, attribute = name.rpartition(".")
        with contextlib.suppress(ImportError, AttributeError):
            found = getattr(importlib.import_module(owner), attribute)
            if isinstance(found, type):
                found.__init__ = found.__call__ = refuse
            setattr(sys.modules[owner], attribute, refuse)


def is_missing(error: BaseException, module, call: dict) -> bool:
    """Whether a task was not written, as opposed to written wrongly."""
    return isinstance(error, NotImplementedError) or not hasattr(module, call["function"])


def describe(error: BaseException, file: str) -> str:
    """The type and text of an exception, and the last line of the student's file on its way."""
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    text = " ".join(str(error).split())[:200]
    if isinstance(error, SyntaxError):
        line, text = error.lineno or 0, str(error.msg)[:200]
    return f"{type(error).__name__}: {text}" + (f" (line {line} of your file)" if line else "")


def main() -> None:
    """Serve; or, where there is no fork, answer the one request that comes, without a cage."""
    sys.path[:0] = sys.argv[1:]  # the course's own rooms, and this one
    import fixtures
    import scipy.stats  # noqa: F401  what tasks import takes its time here, once
    import sklearn.feature_extraction.text
    import sklearn.linear_model
    import sklearn.pipeline  # noqa: F401

    objects = fixtures.build()
    os.write(3, b"ready\n") if hasattr(os, "fork") else None
    if hasattr(os, "fork"):
        serve(objects)
    else:
        request, replies = json.loads(sys.stdin.readline()), os.dup(1)
        os.dup2(2, 1)  # what the submission prints
        os.chdir(request["box"])
        answer(request, objects, replies)


if __name__ == "__main__":
    main()
