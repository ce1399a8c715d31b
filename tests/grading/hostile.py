"""Submissions that want points without the work, or harm. None may gain a point, stop a batch or leave its cage.

Each is a piece of code behind a script whose tasks are blank. FUNCTIONS is the list of its tasks' names, REPOSITORY the
folder of the course with the solutions, HARM a folder of the grader's in which nothing may change.
"""

ALL = "for _name in FUNCTIONS:\n    globals()[_name] = "  # the same thing in the place of every task

RETURNED = {  # what every task returns
    "an object that equals everything": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __iter__(self): return iter([])
    def __len__(self): return 0
    def __float__(self): return 0.0
    def __bool__(self): return True
""" + ALL + "lambda *a, **k: Equal()",
    "a number that equals everything": """
class Number(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
    def __rsub__(self, other): return 0.0
    def __abs__(self): return 0.0
""" + ALL + "lambda *a, **k: Number(0)",
    "a text that equals everything": """
class Text(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
""" + ALL + "lambda *a, **k: Text('x')",
    "a tensor that equals everything": """
import torch
class Equal(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None): return True
""" + ALL + "lambda *a, **k: torch.zeros(3).as_subclass(Equal)",
    "a list that says it is as long as needed": """
class List(list):
    def __len__(self): return 10**9
    def __getitem__(self, i): return self
""" + ALL + "lambda *a, **k: List()",
    "a dict with every key": "class Dict(dict):\n    def __missing__(self, key): return self\n"
                             + ALL + "lambda *a, **k: Dict()",
    "an object that pretends to be another class": """
class Liar:
    @property
    def __class__(self): return float
""" + ALL + "lambda *a, **k: Liar()",
    "nan": ALL + "lambda *a, **k: float('nan')",
    "infinity": ALL + "lambda *a, **k: float('inf')",
    "True": ALL + "lambda *a, **k: True",
    "None": ALL + "lambda *a, **k: None",
    "its first argument": ALL + "lambda *a, **k: a[0]",
    "its last argument": ALL + "lambda *a, **k: a[-1]",
    "an array without a shape": "import numpy\n" + ALL + "lambda *a, **k: numpy.array(None, dtype=object)",
    "a generator without end": "import itertools\n" + ALL + "lambda *a, **k: itertools.count()",
    "a list that contains itself": "def loop(*a, **k):\n    x = []\n    x.append(x)\n    return x\n" + ALL + "loop",
    "a very large array": "import numpy\n" + ALL + "lambda *a, **k: numpy.zeros(10**8)",
    "code to unpickle": """
class Run:
    def __reduce__(self): return (print, ("run",))
""" + ALL + "lambda *a, **k: Run()",
}

ENDED = {  # how a task, or the import, ends
    "sys.exit(0) when called": "import sys\n" + ALL + "lambda *a, **k: sys.exit(0)",
    "sys.exit(0) when imported": "import sys\nsys.exit(0)",
    "os._exit(0) when called": "import os\n" + ALL + "lambda *a, **k: os._exit(0)",
    "os._exit(0) when imported": "import os\nos._exit(0)",
    "pytest.skip": "import pytest\n" + ALL + "lambda *a, **k: pytest.skip('no')",
    "pytest.xfail": "import pytest\n" + ALL + "lambda *a, **k: pytest.xfail('no')",
    "pytest.exit": "import pytest\n" + ALL + "lambda *a, **k: pytest.exit('no', 0)",
    "unittest.SkipTest": "import unittest\ndef skip(*a, **k): raise unittest.SkipTest\n" + ALL + "skip",
    "KeyboardInterrupt": "def stop(*a, **k): raise KeyboardInterrupt\n" + ALL + "stop",
    "an exception without a text": """
class Bad(BaseException):
    def __str__(self): raise self
def bad(*a, **k): raise Bad
""" + ALL + "bad",
    "a crash in C": "import ctypes\n" + ALL + "lambda *a, **k: ctypes.string_at(0)",
    "killing itself": "import os, signal\n" + ALL + "lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)",
    "recursion without end": "def deep(*a, **k): return deep()\n" + ALL + "deep",
}

PATCHED = {  # what judges, patched
    "patched torch.allclose and friends": """
import numpy, torch
torch.allclose = torch.equal = numpy.allclose = numpy.array_equal = lambda *a, **k: True
numpy.testing.assert_allclose = lambda *a, **k: None
""" + ALL + "lambda *a, **k: 0",
    "patched pytest reports": """
import _pytest.reports, _pytest.runner
_pytest.reports.TestReport.outcome = property(lambda self: "passed", lambda self, value: None)
_pytest.runner.runtestprotocol = lambda *a, **k: True
""" + ALL + "lambda *a, **k: 0",
    "patched builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.all = builtins.isinstance = lambda *a: True
""" + ALL + "lambda *a, **k: 0",
    "a conftest.py beside itself": """
import pathlib
pathlib.Path("conftest.py").write_text("def pytest_sessionfinish(session): session.exitstatus = 0")
pathlib.Path("pytest.ini").write_text("[pytest]\\naddopts = --collect-only")
""",
    "patched grader modules": """
import sys
for name in ("values", "judge", "grade", "cases", "__main__"):
    module = sys.modules.get(name)
    if module:
        module.difference = lambda *a, **k: ""
        module.encode = module.encode if hasattr(module, "encode") else None
""" + ALL + "lambda *a, **k: 0",
    "forged lines in every open pipe": """
import json, os
line = "".join(json.dumps({"call": i, "value": 0, "passed": True, "score": 100}) + "\\n" for i in range(60)).encode()
for handle in range(3, 64):
    try:
        os.write(handle, line)
    except OSError:
        pass
""",
    "forged lines on standard output": """
print("60 passed in 0.1s")
print('{"call": 0, "value": 1, "passed": true}')
""",
    "a forged results.json": """
import pathlib
for name in ("results.json", "grades.csv", "../results.json", REPOSITORY + "/results.json"):
    try:
        pathlib.Path(name).write_text('{"score": 100}')
    except OSError:
        pass
""",
    "forging at exit": """
import atexit, os
atexit.register(lambda: [os.write(i, b'{"call": 0, "value": 1}\\n') for i in range(3, 20)])
""",
}

SPIED = {  # reading what is not theirs
    "the reference through the file system": """
import pathlib, importlib.util, sys
script = next(pathlib.Path(REPOSITORY, "code").glob(EXERCISE + "_*.py"))
spec = importlib.util.spec_from_file_location("reference", script)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
for _name in FUNCTIONS:
    globals()[_name] = getattr(reference, _name)
""",
    "the reference by its name": """
import importlib, sys
sys.path.insert(0, REPOSITORY + "/code")
import pathlib
reference = importlib.import_module(next(pathlib.Path(REPOSITORY, "code").glob(EXERCISE + "_*.py")).stem)
for _name in FUNCTIONS:
    globals()[_name] = getattr(reference, _name)
""",
    "a link to the reference": """
import os, pathlib
os.symlink(REPOSITORY + "/code", "code")
exec(next(pathlib.Path("code").glob(EXERCISE + "_*.py")).read_text())
""",
    "the memory and files of other processes": """
import os, pathlib
found = ""
for folder in pathlib.Path("/proc").iterdir():
    for name in ("environ", "cmdline", "maps", "cwd/code", "root" + REPOSITORY + "/code"):
        try:
            path = folder / name
            found += path.read_text() if path.is_file() else next(path.glob(EXERCISE + "_*.py")).read_text()
        except (OSError, StopIteration, UnicodeError):
            pass
exec(found[found.index("def "):])
""",
    "the frames above": """
import sys
def peek(*a, **k):
    frame = sys._getframe()
    while frame:
        for name in ("expected", "value", "right"):
            if name in frame.f_locals:
                return frame.f_locals[name]
        frame = frame.f_back
""" + ALL + "peek",
    "all objects in memory": """
import gc
def search(*a, **k):
    return [o for o in gc.get_objects() if isinstance(o, dict) and "expected" in o][-1]["expected"]
""" + ALL + "search",
    "tracing the caller": """
import sys
kept = []
sys.settrace(lambda frame, event, arg: kept.append(frame.f_locals) or None)
sys.setprofile(lambda frame, event, arg: None)
""" + ALL + "lambda *a, **k: next(k['expected'] for k in kept if 'expected' in k)",
    "the network": """
import socket
def ask(*a, **k):
    with socket.create_connection(("127.0.0.1", 80), 1) as s:
        return s.recv(10)
""" + ALL + "ask",
}

HARMED = {  # doing damage
    "an endless loop": "def loop(*a, **k):\n    while True: pass\n" + ALL + "loop",
    "an endless loop that catches everything": """
def loop(*a, **k):
    while True:
        try:
            while True: pass
        except BaseException:
            pass
""" + ALL + "loop",
    "an endless import": "while True: pass",
    "sleeping": "import time\n" + ALL + "lambda *a, **k: time.sleep(10**6)",
    "a memory bomb": "def bomb(*a, **k):\n    x = []\n    while True: x.append(bytearray(10**7))\n" + ALL + "bomb",
    "a fork bomb": "import os\ndef bomb(*a, **k):\n    while True: os.fork()\n" + ALL + "bomb",
    "threads that outlive the call": """
import threading, time
def linger(*a, **k):
    for _ in range(10):
        threading.Thread(target=time.sleep, args=(10**6,)).start()
    return 0
""" + ALL + "linger",
    "a process that outlives the call": """
import os, time
def linger(*a, **k):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
            open(HARM + "/late", "w").close()
        os._exit(0)
    return 0
""" + ALL + "linger",
    "a flood of output": "def flood(*a, **k):\n    while True: print('x' * 10**6)\n" + ALL + "flood",
    "a flood of values": "def flood(*a, **k):\n    return ['x' * 1000] * 10**7\n" + ALL + "flood",
    "a file without end": """
def fill(*a, **k):
    with open("full", "wb") as file:
        while True: file.write(bytes(10**7))
""" + ALL + "fill",
    "deleting files": """
import pathlib, shutil
for folder in (HARM, REPOSITORY + "/tests", "/tmp"):
    shutil.rmtree(folder, ignore_errors=True)
for path in pathlib.Path(HARM).glob("*"):
    path.unlink()
""",
    "writing where it should not": """
import os
for folder in (HARM, REPOSITORY, "/tmp", os.path.expanduser("~"), "/dev/shm", "/var/tmp"):
    try:
        open(folder + "/planted-by-a-submission", "w").close()
    except OSError:
        pass
""",
    "killing all processes": """
import os, signal
for pid in [-1, os.getppid(), *range(2, 2000)]:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
""",
    "taking the worker's request": """
import os, sys
def take(*a, **k):
    return os.read(0, 10**6).decode() or sys.stdin.read()
""" + ALL + "take",
}

KINDS = {"returned": RETURNED, "ended": ENDED, "patched": PATCHED, "spied": SPIED, "harmed": HARMED}


def submissions(blanked: str, functions: list[str], exercise: str, repository: str, harm: str) -> dict[str, str]:
    """Name -> source of each hostile submission: the blank script with the code behind it."""
    facts = f"FUNCTIONS, EXERCISE = {functions!r}, {exercise!r}\nREPOSITORY, HARM = {repository!r}, {harm!r}\n"
    return {f"{kind}, {name}": f"{blanked}\n\n{facts}{code}\n"
            for kind, rows in KINDS.items() for name, code in rows.items()}
