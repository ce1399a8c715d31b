"""Exercise 4's client and a real `transformers serve` process on this computer, with the packaged SmolLM2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from assistant.backends import BackendError, Options
from assistant.server import Server
from utils import checkpoints

pytestmark = pytest.mark.real
START_SECONDS = 120


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(base_url, model name) of a server that is ready; the process is gone afterwards, whatever happens."""
    folder = str(checkpoints.find("chat", "packaged").folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "server.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", folder,
             "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.kill()
        process.wait()


def wait_for(url, process, log):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with direct.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"transformers serve is not ready: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def ask(server, messages, **options):
    pieces, running = [], server.stream(messages, Options(**options))
    try:
        while True:
            pieces.append(next(running))
    except StopIteration as end:
        return pieces, end.value


def test_a_conversation_of_two_turns_arrives_in_pieces(served):
    server = Server(*served)
    messages = [{"role": "user", "content": "My name is Priya. Say hello to me."}]
    pieces, first = ask(server, messages, max_new_tokens=24)
    assert len(pieces) > 3, f"the answer did not come piece by piece: {pieces}"
    assert first.text == "".join(pieces) and first.finish_reason in ("stop", "length")
    assert first.completion_tokens and first.completion_tokens <= 24
    assert first.prompt_tokens and server.count_tokens(messages) > 0
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "What is my name?"}]
    second = ask(server, messages, max_new_tokens=8)[1]
    assert second.prompt_tokens > first.prompt_tokens, "the history was not sent along"
    assert second.finish_reason == "length" or second.completion_tokens < 8


def test_a_stopped_answer_makes_room_for_the_next(served):
    server = Server(*served)
    running = server.stream([{"role": "user", "content": "Count from 1 to 1000 in words."}], Options(1500))
    assert next(running)
    running.close()
    pieces, reply = ask(server, [{"role": "user", "content": "Say hello."}], max_new_tokens=4)
    assert pieces and reply.completion_tokens <= 4, "1,500 tokens take minutes, so the first answer was stopped"


def test_a_wrong_model_name_is_one_sentence(served):
    with pytest.raises(BackendError, match="has no model 'no-such-model': .*pinned to .* Check --model"):
        ask(Server(served[0], "no-such-model"), [{"role": "user", "content": "Hello"}], max_new_tokens=4)


def test_temperature_and_seed_are_accepted(served):
    """They are, although this server samples only where the model's generation_config.json says do_sample."""
    reply = ask(Server(*served), [{"role": "user", "content": "Hello"}], max_new_tokens=4, temperature=0.8, seed=1)[1]
    assert reply.text
