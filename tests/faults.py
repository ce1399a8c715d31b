"""A campaign of faults: what was tried, what happened, what was lost. Minutes; not part of the suite.

    python tests/faults.py                    everything
    python tests/faults.py kills --times 5    one chapter: kills, saves, input, streams, together, clock, surroundings

Exit status 1 if anything was lost, if a traceback reached the user, or if a run ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = REPOSITORY / "code"
SCRIPTS = {path.name[:5]: path for path in sorted(CODE.glob("ex_0*.py"))}
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
rows: list[tuple[str, str, str]] = []  # what was tried, what happened, what was lost ("" for nothing)


def note(tried: str, happened: str, lost: str = "") -> None:
    """Keep a row of the table, and show it."""
    rows.append((tried, happened, lost))
    print(f"{'LOST  ' if lost else 'held  '}{tried}: {happened}{'; ' + lost if lost else ''}", flush=True)


def start(exercise: str, *arguments, environment: dict | None = None, **options) -> subprocess.Popen:
    """Start a script with the smoke preset."""
    return subprocess.Popen([sys.executable, str(SCRIPTS[exercise]), "--preset", "smoke", *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
                            errors="replace", env={**ENVIRONMENT, **(environment or {})},
                            **{"stdin": subprocess.DEVNULL, **options})


def finish(process: subprocess.Popen, seconds: float = 300) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    try:
        text = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return -99, process.communicate()[0] + "\n(still running after the time limit)"
    return process.returncode, text


def weights(folder: Path) -> str:
    """A hash of all saved weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        if "checkpoints" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def measured(folder: Path) -> dict:
    """The parts of the results, without what depends on the clock or tells of the resuming."""
    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items()
                    if not re.search("second|minute|memory|flops|history|resumed", k)}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    file = next(folder.rglob("results.json"))
    return timeless(json.loads(file.read_text(encoding="utf-8"))["parts"])


def expect(tried: str, exercise: str, *arguments, status: int = 2, says: str = "", **options) -> None:
    """Run a script and note whether it ended as it should: the exit status, one line for a mistake, no traceback."""
    code, text = finish(start(exercise, *arguments, **options))
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    good = code == status and "Traceback" not in text and says in text and (status != 2 or len(errors) == 1)
    note(f"{exercise}, {tried}", errors[0][:150] if errors else f"exit status {code}",
         "" if good else f"expected status {status}, got {code}: {text[-300:]!r}")


# Chapters


def kills(scratch: Path, times: int) -> None:
    """kill -9 at random moments, then --resume: the end is the same as without the kill."""
    for exercise, arguments in (("ex_01", ()), ("ex_03", ("--method", "full")), ("ex_03", ("--method", "lora"))):
        whole = scratch / f"{exercise}-whole{len(rows)}"
        begin = time.monotonic()
        code, text = finish(start(exercise, *arguments, "--output", whole))
        seconds = time.monotonic() - begin
        if code:
            note(f"{exercise} uninterrupted", f"exit status {code}", text[-300:])
            continue
        differ, kinds = [], {}
        for i in range(times):
            folder = scratch / f"{exercise}-{i}-{len(rows)}"
            process = start(exercise, *arguments, "--output", folder)
            wait = random.Random(i).uniform(0.1, 1.0) * seconds
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate()
            begun = any(folder.rglob("results.json"))
            code, text = finish(start(exercise, *arguments, "--output", folder, *["--resume"] * begun))
            if code == 2 and "no checkpoint" in text:
                code, text = finish(start(exercise, *arguments, "--output", folder))
            same = code == 0 and weights(folder) == weights(whole) and measured(folder) == measured(whole)
            kinds[code] = kinds.get(code, 0) + 1
            if not same:
                differ.append(f"kill {i} after {wait:.1f} s: status {code} {text[-200:]!r}")
        note(f"{' '.join([exercise, *arguments])}, {times} kills at random moments, then --resume",
             f"exit statuses {kinds}, weights and results equal in {times - len(differ)} of {times}",
             "; ".join(differ[:2]))


def saves(scratch: Path, times: int) -> None:
    """Killed while saving conversations: the file is the old one or the new one, never half of one."""
    writer = scratch / "writer.py"
    writer.write_text(
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from assistant.conversation import Conversation, Turn\n"
        "talk, path = Conversation(), Path(sys.argv[2])\n"
        "for i in range(10**6):\n    talk.turns.append(Turn('question ' * 50, 'answer ' * 50))\n"
        "    talk.save(path)\n    print(i, flush=True)\n    talk.turns = talk.turns[-50:]\n", encoding="utf-8")
    sys.path.insert(0, str(CODE))
    from assistant.conversation import Conversation

    broken = []
    for i in range(times * 5):
        file = scratch / f"chat-{i}.json"
        process = subprocess.Popen([sys.executable, str(writer), str(CODE), str(file)], stdout=subprocess.PIPE,
                                   env=ENVIRONMENT)
        process.stdout.readline()
        time.sleep(random.Random(i).uniform(0, 0.1))
        process.kill()
        process.communicate()
        try:
            assert Conversation.load(file).turns
        except Exception as error:
            broken.append(repr(error))
    note(f"{times * 5} kills while a conversation is saved", f"{times * 5 - len(broken)} files are whole",
         "; ".join(broken[:2]))


def damaged(whole: bytes, seed: str) -> bytes:
    """Some bytes in their place: one to five cuts, each filled with what parsers stumble over."""
    bits = [b"\x00", b"\xff", b'"', b",", b"\n", b"\r", b"{", b"}", b"[", b"\\ud83d", b"\xe2\x80\xa8",
            b"\xef\xbb\xbf", b"9" * 5000, b'"' * 3, b"null", b"NaN", b";", b"\t"]
    rng, data = random.Random(seed), bytearray(whole)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        data[at:at + rng.randrange(0, 20)] = rng.choice(bits)
    return bytes(data)


def endings(tried: str, times: int, attempt: Callable[[int], str], refusal: type[Exception]) -> None:
    """Note how many attempts ended in which way; whatever is neither done nor refused is wrong."""
    ends, wrong = {}, []
    for i in range(times):
        try:
            end = attempt(i)
        except refusal as error:
            end = "one line"
            if "\n" in str(error):
                wrong.append(f"several lines: {error!r}")
        except Exception as error:
            end = type(error).__name__
            wrong.append(f"{end}: {error}")
        ends[end] = ends.get(end, 0) + 1
    note(f"{times} {tried}", str(ends), "; ".join(wrong[:2]))


def input_(scratch: Path, times: int) -> None:
    """Random damage to what people hand in: whatever happens, one line and no traceback."""
    sys.path.insert(0, str(CODE))
    from assistant.conversation import Conversation
    from utils import corpora, course_data, movie_reviews
    from utils.runtime import UserError

    seeds = {
        ".csv": b"text,label\n" + b"".join(b'"review %d, long",%d\n' % (i, i % 2) for i in range(60)),
        ".jsonl": b"".join(b'{"text": "review %d", "label": %d}\n' % (i, i % 2) for i in range(60)),
        ".json": (REPOSITORY / "data" / "sample_prompts.json").read_bytes()[:3000],
        ".txt": b"A first document.\n\nA second one. " * 40,
        ".chat": b'{"system": "", "turns": [{"user": "a", "assistant": "b"}]}',
    }
    readers = {".csv": movie_reviews.read_labelled_file, ".jsonl": movie_reviews.read_labelled_file,
               ".json": course_data.load_prompts_file, ".chat": Conversation.load,
               ".txt": lambda path: corpora.load_corpus(str(path), 0, None)}
    for ending, whole in seeds.items():
        def read(i: int, ending: str = ending, whole: bytes = whole) -> str:
            file = scratch / f"damaged{ending}"
            file.write_bytes(damaged(whole, f"{ending} {i}"))
            readers[ending](file)
            return "read"

        endings(f"damaged {ending} files", times * 20, read, UserError)


def streams(scratch: Path, times: int) -> None:
    """A server whose streams are damaged anywhere: an answer or a sentence, and nothing else."""
    sys.path[:0] = [str(CODE), str(REPOSITORY / "tests")]
    import misbehaving_server
    from assistant.backends import BackendError, Options
    from assistant.server import Server

    chunks = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in "abcd"]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": misbehaving_server.USAGE})
    whole = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
    data = whole

    def send(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    misbehaving_server.BEHAVIOURS["damaged"] = send
    with misbehaving_server.serve("damaged") as base_url:
        server = Server(base_url, "m", tries=1, timeout=10)

        def ask(i: int) -> str:
            nonlocal data
            data = damaged(whole, f"stream {i}") if i else whole
            return "answer" if "".join(server.stream([{"role": "user", "content": "?"}], Options(20))) else "nothing"

        endings("damaged streams of a server", times * 20, ask, BackendError)


def together(scratch: Path, times: int) -> None:
    """Two runs into one folder at once: one of them is refused, the other is whole."""
    folder = scratch / "shared"
    both = [start("ex_01", "--output", folder) for _ in range(2)]
    ends = sorted(finish(process) for process in both)
    good = [code for code, _ in ends] == [0, 2] and "another run" in ends[1][1] and measured(folder)
    note("two runs into one folder at once", f"exit statuses {[code for code, _ in ends]}", "" if good else str(ends))


def clock(scratch: Path, times: int) -> None:
    """A clock that jumps by weeks each time somebody looks at it: killed and resumed, the results are the same."""
    (scratch / "sitecustomize.py").write_text(
        "import os.path, random, time\nnow, changed = time.time, os.path.getmtime\n"
        "time.time = lambda: now() + random.uniform(-1e7, 1e7)\n"
        "os.path.getmtime = lambda path: changed(path) + random.uniform(-1e7, 1e7)\n", encoding="utf-8")
    jumping = {"PYTHONPATH": str(scratch)}
    for exercise, arguments in (("ex_01", ()), ("ex_03", ("--method", "full"))):
        whole, folder = scratch / f"{exercise}-whole", scratch / f"{exercise}-jumping"
        begin = time.monotonic()
        finish(start(exercise, *arguments, "--output", whole))
        process = start(exercise, *arguments, "--output", folder, environment=jumping)
        time.sleep(0.7 * (time.monotonic() - begin))
        process.kill()
        process.communicate()
        code, text = finish(start(exercise, *arguments, "--output", folder, "--resume", environment=jumping))
        same = code == 0 and weights(folder) == weights(whole) and measured(folder) == measured(whole)
        note(f"{exercise}, a clock that jumps, a kill, then --resume", f"exit status {code}",
             "" if same else f"not the same as with a quiet clock: {text[-200:]!r}")
    expect("a clock that jumps", "ex_04", "--ask", "Hello", "--output", scratch / "chat", status=0, environment=jumping)


def surroundings(scratch: Path, times: int) -> None:
    """Full disk, folders that cannot be read or written, no HOME, closed input, odd variables."""
    expect("no HOME", "ex_01", "--output", scratch / "home", status=0, environment={"HOME": "/nonexistent"})
    expect("an unknown --device", "ex_02", "--device", "tpu")
    expect("MPLBACKEND of another environment", "ex_02", "--output", scratch / "mpl", status=0,
           environment={"MPLBACKEND": "of another environment"})
    expect("RANK is empty", "ex_01", "--output", scratch / "rank", status=0, environment={"RANK": ""})
    expect("an output below a file", "ex_01", "--output", Path(__file__) / "out", says="cannot write")
    expect("standard input is closed", "ex_04", "--output", scratch / "closed", status=0, stdin=None,
           preexec_fn=lambda: os.close(0))
    for name in ("read-only", "unreadable"):
        cache = scratch / name
        cache.mkdir()
        cache.chmod(0o555 if name == "read-only" else 0)
        expect(f"HF_HOME is {name}", "ex_01", "--output", scratch / f"out-{name}", status=0,
               environment={"HF_HOME": str(cache)})
        cache.chmod(0o755)
    expect("cp1252 output", "ex_02", "--output", scratch / "cp1252", status=0,
           environment={"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"})
    expect("a path of 200 characters", "ex_01", "--output", scratch / ("long" * 25) / ("path" * 25), status=0)
    small = scratch / "small"
    small.mkdir()
    if os.name == "posix" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small],
                                             capture_output=True).returncode == 0:
        try:
            expect("a disk that is full", "ex_01", "--output", small / "out")
            expect("a disk that is full", "ex_03", "--output", small / "out")
        finally:
            subprocess.run(["umount", small])
    else:
        note("a disk that is full", "not tried: no tmpfs can be mounted here")


CHAPTERS = {"kills": kills, "saves": saves, "input": input_, "streams": streams, "together": together,
            "clock": clock, "surroundings": surroundings}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", default=list(CHAPTERS), metavar="CHAPTER")
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name in args.chapters:
            (Path(scratch) / name).mkdir()
            CHAPTERS[name](Path(scratch) / name, args.times)
    lost = sum(bool(row[2]) for row in rows)
    print(f"\n{len(rows)} rows, {lost} in which something was lost or ended otherwise than it should")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
