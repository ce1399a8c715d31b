"""What exercise 4's own model, its kept keys and values and its index save, on one model, in one run.

    python tests/benchmarks/bench_ex_04.py    minutes; prints tables and, last, one JSON object

Conversation: ten turns; the time to the first token of the first and of the tenth, with what is kept
between turns and without; the greedy texts must be the same. Decoding: seconds per token, from the
first to the last of an answer, by plain fp32 `generate`, by the exercise's own loop in fp32, and by
that with 8-bit weights. Retrieval: milliseconds a question. Cold start: seconds of a whole process
that answers with one token. Recipes take turns, ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from timing import alternate, ratio  # noqa: E402

SYSTEM = "You are a helpful assistant who answers a class's questions on language models plainly."
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


def finish(stream):
    """The Reply at the end of an answer."""
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def first_token(stream) -> None:
    """Read an answer as far as its first text."""
    next(piece for piece in stream if piece)
    stream.close()


def conversation(backend, fresh, options, rounds: int) -> dict:
    """Ten turns with `backend`, which keeps keys and values, and with `fresh`, which does not."""
    from utils import reporting

    messages, same, prompts = [{"role": "system", "content": SYSTEM}], 0, []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        prompts.append(list(messages))
        text = finish(backend.stream(messages, options)).text
        same += text == finish(fresh.stream(messages, options)).text
        messages.append({"role": "assistant", "content": text})
    kept, seconds = [], []
    for _ in range(rounds):
        finish(backend.stream(prompts[8], options))  # as the chat was before its tenth turn
        start = time.perf_counter()
        first_token(backend.stream(prompts[9], options))
        kept.append(time.perf_counter() - start)
        seconds.append(alternate({"one": lambda: first_token(fresh.stream(prompts[0], options)),
                                  "ten": lambda: first_token(fresh.stream(prompts[9], options))},
                                 1, warm_up=0))
    one, ten = ([row[name][0] for row in seconds] for name in ("one", "ten"))
    first, last = (backend.count_tokens(prompts[i]) for i in (0, 9))
    reporting.table(f"Seconds to the first token, median of {rounds}", ["turn", "prompt", "seconds"], [
        ["1", first, statistics.median(one)], ["10, the rest kept", last, statistics.median(kept)],
        ["10, all read anew", last, statistics.median(ten)]])
    reporting.say(f"{same} of 10 answers are the same, letter by letter.")
    return {"first_token_of_turn_10_over_turn_1": ratio(kept, one),
            "first_token_of_turn_10_anew_over_kept": ratio(ten, kept), "same_texts": same / 10}


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


def decoding(backend, plain, options, rounds: int) -> dict:
    """Seconds per token within one answer, greedy."""
    from utils import reporting

    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTIONS[0]}]
    prompt = plain.tokenizer.apply_chat_template(messages, add_generation_prompt=True,
                                                 return_tensors="pt")
    seconds: dict[str, list[float]] = {}

    def generate() -> None:
        clock = Clock()
        plain.model.generate(**prompt, max_new_tokens=options.max_new_tokens, do_sample=False,
                             streamer=clock, pad_token_id=plain.tokenizer.eos_token_id)
        del clock.times[0]  # of the prompt
        seconds.setdefault("generate, fp32", []).append(clock.seconds_per_token())

    def loop(name: str, model) -> None:
        clock = Clock()
        for piece in model.stream(messages, options):  # in plain English each piece is a token
            if piece:
                clock.put(piece)
        seconds.setdefault(name, []).append(clock.seconds_per_token())

    alternate({"generate": generate, "plain": lambda: loop("own loop, fp32", plain),
               "int8": lambda: loop("own loop, 8-bit weights", backend)}, rounds)
    reporting.table(f"Tokens per second, median of {rounds + 1}", ["by", "tokens per second"],
                    [[name, 1 / statistics.median(times)] for name, times in seconds.items()])
    base, alone, int8 = seconds.values()
    return {"decoding_times_as_fast_as_fp32_generate": ratio(base[1:], int8[1:]),
            "decoding_loop_alone_times_as_fast": ratio(base[1:], alone[1:])}


def retrieval(encoder, guide: Path) -> dict:
    """The index of a guide: built, opened again, and asked. encoder: a checkpoint."""
    from assistant.retrieval import GuideIndex
    from utils import reporting

    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            start = time.perf_counter()
            index = GuideIndex.open(guide, encoder, Path(cache))
            seconds.append(time.perf_counter() - start)
    index.search(QUESTIONS[0], 3)  # loads the encoder
    searched, quoted = [], []
    for question in QUESTIONS:
        start = time.perf_counter()
        hits = index.search(question, 3)
        searched.append(time.perf_counter() - start)
        index.quotes(question, hits)
        quoted.append(time.perf_counter() - start - searched[-1])
    search_ms, quote_ms = (1000 * statistics.median(times) for times in (searched, quoted))
    reporting.table(f"Retrieval over {len(index.sections)} sections, {len(index.texts)} passages",
                    ["", "ms"], [["build the index", 1000 * seconds[0]],
                                 ["open it again", 1000 * seconds[1]],
                                 ["find sections (median)", search_ms], ["quote (median)", quote_ms]])
    return {"index_build_seconds": seconds[0], "index_open_seconds": seconds[1],
            "search_ms": search_ms, "quote_ms": quote_ms}


def cold_start(model: str) -> float:
    """Seconds of `ex_04_ai_assistant.py --ask` for one token, the better of two."""
    from utils.runtime import REPOSITORY

    command = [sys.executable, REPOSITORY / "code" / "ex_04_ai_assistant.py", "--model", model,
               "--ask", QUESTIONS[0], "--max-new-tokens", "1"]
    return min(alternate({"cold": lambda: subprocess.run(command, check=True, capture_output=True)},
                         2, warm_up=0)["cold"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--new-tokens", type=int, default=32, help="per answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (%(default)s)")
    arguments = parser.parse_args()
    import torch

    from assistant.backends import Options
    from assistant.local import Local
    from assistant.turn import GUIDE
    from utils import checkpoints, reporting, runtime

    checkpoint = checkpoints.fetch("chat", arguments.model)
    cold = cold_start(arguments.model)
    reporting.say(f"Cold start: {cold:.1f} seconds to one token and the end of the process.")
    options = Options(max_new_tokens=arguments.new_tokens, temperature=0)
    backend, fresh = Local(checkpoint), Local(checkpoint, reuse=False)
    memory = runtime.peak_memory_mb()
    results = conversation(backend, fresh, options, arguments.rounds)
    plain = Local(checkpoint, int8=False, reuse=False)
    results |= decoding(fresh, plain, options, arguments.rounds)
    results |= retrieval(checkpoints.fetch("embedder", "packaged"), GUIDE)
    print(json.dumps({**results, "cold_start_seconds": cold, "memory_of_two_int8_models_mb": memory,
                      "model": arguments.model, "threads": torch.get_num_threads(), "device": "cpu"}))


if __name__ == "__main__":
    main()
