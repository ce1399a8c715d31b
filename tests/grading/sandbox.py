"""The trusted side: hands a submission and calls to the worker, and takes values back as data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from values import plain

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1] / "code"
ROOMS = ("utils", "views", "assistant")  # what a submission may import of the course, besides itself
LIMITS = {"import_seconds": 60, "call_seconds": 20, "memory_mb": 2_000, "processes": 32, "file_mb": 10}
USERS = range(61_000, 65_000)  # user ids that no account has; each submission gets another one


WHY = {  # state -> in words
    "late": "it did not end within the time limit", "too much": "it returned more data than is read",
    "too many processes": "it started too many processes", "dead": "the whole process was ended from inside",
    "ended": "the process ended from inside (does it call exit?)"}


@dataclass
class Answers:
    """What came back: `state` says why it ended; values and errors by the number of the call."""

    state: str  # "ended", "late", "too much", "killed by signal 9", "import error", "dead"
    values: dict[int, object] = field(default_factory=dict)  # still encoded
    errors: dict[int, str] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    import_error: str = ""
    printed: str = ""


class Sandbox:
    """A worker that has torch imported; a fresh cage for each call of `run`. Use it in a `with` statement."""

    def __init__(self, limits: dict | None = None, folder: Path | None = None) -> None:
        """folder: for everything that is written; default: the system's for such files."""
        self.limits, self._worker, self._count = {**LIMITS, **(limits or {})}, None, 0
        self._parent = folder

    def __enter__(self) -> Sandbox:
        if self._parent:
            self._parent.chmod(0o711)  # the way to the boxes, and no look at what else is there
        self._folder = Path(tempfile.mkdtemp(prefix="grading-", dir=self._parent))
        self._folder.chmod(0o755)
        for room in ROOMS:  # a copy, so that the cage needs no door to the repository with the solutions
            shutil.copytree(COURSE / room, self._folder / "course" / room,
                            ignore=shutil.ignore_patterns("__pycache__"))
        (self._folder / "course" / "rooms").mkdir()
        for name in ("worker.py", "values.py", "fixtures.py"):
            shutil.copy(HERE / name, self._folder / "course" / "rooms")
        self._start()
        self.users = USERS if hasattr(os, "fork") and os.getuid() == 0 and self._strangers_can_read() else ()
        return self

    def __exit__(self, *error) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, file: Path, calls: list[dict], limits: dict | None = None) -> Answers:
        """Import `file` in a fresh cage and make the calls: {"function", "arguments" (encoded), "forbidden"}."""
        self._count += 1
        box = Path(tempfile.mkdtemp(prefix="box-", dir=self._folder))
        user = self.users[self._count % len(self.users)] if self.users else None
        try:
            submission = box / "submission.py"
            shutil.copyfile(file, submission)
            box.chmod(0o755)
            if user:
                os.chown(box, user, user)
            request = {"box": str(box), "file": str(submission), "calls": calls, "uid": user,
                       "limits": {**self.limits, **(limits or {})}, "readable": self._readable()}
            return self._understand(self._ask(request))
        finally:
            shutil.rmtree(box, ignore_errors=True)

    def measures(self) -> dict[str, bool]:
        """Which protections are in force here, by trying to get past each of them from inside."""
        secret = self._folder / "secret"  # stands for the repository: outside of the box, readable to its owner
        secret.write_text("42", encoding="utf-8")
        secret.chmod(0o644)
        probe = self._folder / "probe.py"
        probe.write_text(PROBE, encoding="utf-8")
        answers = self.run(probe, [{"function": name, "arguments": arguments, "forbidden": []} for name, arguments in (
            ("reads", [str(secret)]), ("connects", []), ("signals", [os.getpid()]), ("writes", [str(self._folder)]),
            ("memory", []), ("processes", []))])
        values = answers.values
        return {"files outside of the box are closed": values.get(0) is False,
                "no network": values.get(1) is False,
                "no signals to other processes": values.get(2) is False,
                "no writing outside of the box": values.get(3) is False,
                "another user": bool(self.users),
                "memory is limited": values.get(4) is False,
                "processes are limited": values.get(5) is False or answers.state == "too many processes",
                "time is limited": True}

    def _readable(self) -> list[str]:
        return [str(self._folder / "course"), *{sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc"},
                "/dev/null", "/dev/urandom", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"]

    def _strangers_can_read(self) -> bool:
        child = os.fork()
        if child == 0:
            os.setgroups([]), os.setgid(USERS[0]), os.setuid(USERS[0])
            os._exit(0 if all(os.access(p, os.R_OK | os.X_OK) for p in (sys.prefix, sys.base_prefix, self._folder))
                     else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def _start(self) -> None:
        course = self._folder / "course"
        command = [sys.executable, "-I", str(course / "rooms" / "worker.py"), str(course), str(course / "rooms")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                       "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if not hasattr(os, "fork"):
            self._command = command, environment
            return
        reading, writing = os.pipe()

        def third() -> None:
            os.dup2(writing, 3)
            os.set_inheritable(3, True)

        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment,
                                        preexec_fn=third, pass_fds=(3,), cwd=self._folder, start_new_session=True)
        os.close(writing)
        self._replies = open(reading, encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123
        if self._replies.readline() != "ready\n":
            raise RuntimeError("the worker did not start; see above")

    def _stop(self) -> None:
        if self._worker:
            self._worker.kill()
            self._worker.wait()
            self._worker.stdin.close()
            self._replies.close()

    def _ask(self, request: dict) -> dict | None:
        limits = request["limits"]
        patience = limits["import_seconds"] + limits["call_seconds"] * (len(request["calls"]) + 1) + 60
        if self._worker is None:
            return self._ask_once(request, patience)
        alarm = threading.Timer(patience, self._worker.kill)  # the guard keeps the time; this is for its own death
        alarm.start()
        try:
            self._worker.stdin.write((json.dumps(request) + "\n").encode())
            self._worker.stdin.flush()
            line = self._replies.readline()
            if line.strip() and self._replies.readline() != "\n":
                line = ""
            if not line:
                raise BrokenPipeError
            return json.loads(line) if line.strip() else None
        except (BrokenPipeError, ValueError):
            self._stop()
            self._start()
            return None
        finally:
            alarm.cancel()

    def _ask_once(self, request: dict, patience: float) -> dict | None:
        command, environment = self._command
        try:
            done = subprocess.run(command, input=json.dumps(request) + "\n", capture_output=True, text=True,
                                  encoding="utf-8", errors="replace", env=environment, timeout=patience)
            return {"lines": done.stdout.splitlines(), "printed": done.stderr[:4000], "state": "ended"}
        except subprocess.TimeoutExpired:
            return {"lines": [], "printed": "", "state": "late"}

    @staticmethod
    def _understand(reply: dict | None) -> Answers:
        """Answers from lines that hostile code may have written: the first line of a call counts, nonsense does not."""
        if reply is None:
            return Answers("dead")
        answers = Answers(reply["state"], printed=plain(reply["printed"], 4_000))
        imported = False
        for text in reply["lines"]:
            try:
                line = json.loads(text)
                if "import_error" in line and not imported:
                    answers.import_error, answers.state = plain(line["import_error"]), "import error"
                imported = imported or "imported" in line
                number = line.get("call")
                if type(number) is not int or number in answers.values or number in answers.errors:
                    continue
                if "value" in line:
                    answers.values[number] = line["value"]
                elif "error" in line:
                    answers.errors[number] = plain(line["error"])
                    if line.get("missing") is True:
                        answers.missing.add(number)
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
        if not imported and not answers.import_error:
            answers.import_error = f"while it was loaded: {WHY.get(answers.state, answers.state)}"
        return answers


PROBE = '''
import os, socket
def reads(path):
    try:
        return open(path).read() == "42"
    except OSError:
        return False
def connects():
    try:
        socket.create_server(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", ("192.0.2.1", 9))
        return True
    except OSError:
        return False
def signals(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False
def writes(folder):
    try:
        open(os.path.join(folder, "x"), "w").close()
        return True
    except OSError:
        return False
def memory():
    try:
        return len(bytearray(3 << 30)) > 0
    except MemoryError:
        return False
def processes():
    children = []
    try:
        for _ in range(200):
            child = os.fork()
            if not child:
                import time
                time.sleep(60)
            children.append(child)
        import time
        time.sleep(1)
        return True
    except OSError:
        return False
    finally:
        for child in children:
            os.kill(child, 9)
'''
