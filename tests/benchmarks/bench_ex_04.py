"""What exercise 4's own model, its kept keys and values and its index save, on the same model and machine, in one run.

    python tests/benchmarks/bench_ex_04.py            a few minutes; prints tables and, last, one JSON object

Conversation: ten turns; the time to the first token of the first and of the tenth, with what is kept between turns
and without; the texts must be the same. Decoding: tokens per second, from the first token of an answer to its last, by
plain fp32 `generate`, by the exercise's own loop, and by that with 8-bit weights; llama.cpp beside it where it is
installed (--gguf names its model file). Retrieval: milliseconds a question once the guide's index is built. Cold
start: seconds of a whole process, from its start to the first token of its answer and its end, with the weights there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))
SYSTEM = "You are a helpful assistant who answers the questions of a class on language models, in plain words."
QUESTIONS = [  # of similar length
    "What is a language model, and what do people use one for?",
    "How does such a model choose the next word of a text?",
    "What is a token, and why is it not the same as a word?",
    "Why do these models need so many examples to learn from?",
    "What does it mean when people speak of attention here?",
    "How can I tell whether an answer of a model is right?",
    "What is the difference between training and fine-tuning?",
    "Why does a model sometimes repeat itself in its answers?",
    "What should I never type into a model that others run?",
    "Which of these ideas would you explain to a child first?",
]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--new-tokens", type=int, default=32, help="per answer (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of each timing, in turns (default: %(default)s)")
    parser.add_argument("--gguf", type=Path, help="the model as a file for llama.cpp")
    return parser.parse_args()


def finish(stream):
    """The Reply at the end of an answer."""
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def first_token(stream) -> float:
    """Seconds to an answer's first text, after which it is stopped."""
    start = time.perf_counter()
    next(piece for piece in stream if piece)
    seconds = time.perf_counter() - start
    stream.close()
    return seconds


def conversation(backend, fresh, options, repeats: int) -> dict:
    """Ten turns with `backend`, which keeps keys and values, and with `fresh`, which does not."""
    from utils import reporting

    messages, same, starts = [{"role": "system", "content": SYSTEM}], 0, []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        starts.append(list(messages))
        text = finish(backend.stream(messages, options)).text
        same += text == finish(fresh.stream(messages, options)).text
        messages.append({"role": "assistant", "content": text})
    first, tenth, tenth_fresh = [], [], []
    for _ in range(repeats):
        first.append(first_token(fresh.stream(starts[0], options)))
        finish(backend.stream(starts[8], options))  # as the conversation was before its tenth turn
        tenth.append(first_token(backend.stream(starts[9], options)))
        tenth_fresh.append(first_token(fresh.stream(starts[9], options)))
    one, ten, ten_fresh = (statistics.median(seconds) for seconds in (first, tenth, tenth_fresh))
    reporting.table(f"Seconds to the first token, median of {repeats}", ["turn", "tokens of the prompt", "seconds"], [
        ["1", backend.count_tokens(starts[0]), one],
        ["10, the rest kept", backend.count_tokens(starts[9]), ten],
        ["10, all read anew", backend.count_tokens(starts[9]), ten_fresh]])
    reporting.say(f"{same} of 10 answers are the same, letter by letter.")
    return {"turn_10_over_turn_1": ten / one, "reuse_speedup_at_turn_10": ten_fresh / ten, "same_texts": same / 10}


class Clock:
    """Notes when tokens come; `generate` takes it as its streamer, which hears of the prompt first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass

    def seconds_per_token(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def decoding(backend, plain, options, repeats: int, gguf: Path | None) -> dict:
    """Tokens per second within one answer: several ways in turns, the median of each."""
    from utils import reporting

    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTIONS[0]}]
    prompt = plain.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")

    def generate(clock: Clock) -> None:
        plain.model.generate(**prompt, max_new_tokens=options.max_new_tokens, do_sample=False, streamer=clock,
                             pad_token_id=plain.tokenizer.eos_token_id)
        del clock.times[0]  # of the prompt

    def pieces(stream, clock: Clock) -> None:
        for _ in stream:  # in plain English each piece is a token
            clock.put(None)

    ways = {"generate, fp32": generate,
            "own loop, fp32": lambda clock: pieces(plain.stream(messages, options), clock),
            "own loop, 8-bit weights": lambda clock: pieces(backend.stream(messages, options), clock)}
    missing = add_llama_cpp(ways, gguf, messages, options)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            clock = Clock()
            way(clock)
            speeds[name].append(1 / clock.seconds_per_token())
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    rows = [[name, f"{speed:.1f}"] for name, speed in middle.items()]
    reporting.table(f"Tokens per second, median of {repeats}", ["by", "tokens per second"],
                    [*rows, ["llama.cpp", missing]] if missing else rows)
    base = middle["generate, fp32"]
    return {"decode_speedup_over_generate": middle["own loop, 8-bit weights"] / base,
            "decode_speedup_of_the_loop_alone": middle["own loop, fp32"] / base,
            "llama_cpp_speedup_over_generate": missing or middle["llama.cpp"] / base}


def add_llama_cpp(ways: dict, gguf: Path | None, messages, options) -> str:
    """Add llama.cpp to the ways of decoding, or return why it cannot be."""
    if importlib.util.find_spec("llama_cpp") is None:
        return "not installed"
    if gguf is None:
        return "installed, but --gguf names no model file"
    from llama_cpp import Llama

    model = Llama(str(gguf), n_ctx=2048, verbose=False)

    def answer(clock: Clock) -> None:
        parts = model.create_chat_completion(messages, max_tokens=options.max_new_tokens, temperature=0, stream=True)
        for part in parts:
            if part["choices"][0]["delta"].get("content"):
                clock.put(None)

    ways["llama.cpp"] = answer
    return ""


def retrieval() -> dict:
    """The index of the guide: built, opened again, and asked."""
    from assistant.retrieval import GuideIndex
    from utils import checkpoints, reporting
    from utils.runtime import REPOSITORY

    guide = REPOSITORY / "guides" / "pretrained_transformers_guide.md"
    encoder, seconds = checkpoints.find("embedder", "packaged"), []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            start = time.perf_counter()
            index = GuideIndex.open(guide, encoder, Path(cache))
            seconds.append(time.perf_counter() - start)
    index.search(QUESTIONS[0], 3)  # loads the encoder
    asked = []
    for question in QUESTIONS * 3:
        start = time.perf_counter()
        index.search(question, 3)
        asked.append(time.perf_counter() - start)
    reporting.table(f"Retrieval over {len(index.sections)} sections, {len(index.texts)} passages", ["", "ms"],
                    [["build the index", 1000 * seconds[0]], ["open it again", 1000 * seconds[1]],
                     ["a question (median)", 1000 * statistics.median(asked)]])
    return {"index_build_seconds": seconds[0], "index_open_seconds": seconds[1],
            "retrieval_ms": 1000 * statistics.median(asked)}


def cold_start(model: str, repeats: int) -> float:
    """Seconds of `ex_04_ai_assistant.py --ask` for one token, median."""
    from utils.runtime import REPOSITORY

    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([sys.executable, REPOSITORY / "code" / "ex_04_ai_assistant.py", "--model", model, "--ask",
                            QUESTIONS[0], "--max-new-tokens", "1", "--output", Path(folder) / "out"],
                           check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    arguments = parse_arguments()
    import torch
    import transformers

    from assistant.backends import Options
    from assistant.local import Local
    from utils import checkpoints, reporting, runtime

    transformers.utils.logging.disable_progress_bar()
    checkpoint = checkpoints.find("chat", arguments.model)
    cold = cold_start(arguments.model, 2)
    reporting.say(f"Cold start: {cold:.1f} seconds to the first token and the end of the process.")
    options = Options(max_new_tokens=arguments.new_tokens)
    backend, fresh = Local(checkpoint), Local(checkpoint, reuse=False)
    results = conversation(backend, fresh, options, arguments.repeats)
    plain = Local(checkpoint, int8=False, reuse=False)
    results |= decoding(fresh, plain, options, arguments.repeats, arguments.gguf)
    results |= retrieval()
    print(json.dumps({**results, "cold_start_seconds": cold, "peak_memory_mb": runtime.peak_memory_mb(),
                      "model": arguments.model, "threads": torch.get_num_threads(), "device": "cpu"}))


if __name__ == "__main__":
    main()
