"""Exercise 2: generate text with GPT-2, choose how to decode it, and make it answer by examples alone.

You will see (1) one step of a language model and what temperature, top-k, top-p and min-p do to it, (2) decoding
strategies side by side, (3) few-shot learning by prompt, its bias and a cure, (4) how generated text can be measured.

    python code/ex_02_gpt2_generation.py                      quick: minutes on two CPU cores, under 3 GB
    python code/ex_02_gpt2_generation.py --preset smoke       random tiny model, seconds: does it all run?
    python code/ex_02_gpt2_generation.py --prompt "Once upon a time" --strategy top-p      go on with your own text
"""

from __future__ import annotations

import copy
import functools
import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING

from utils.intervals import accuracy_interval
from utils.runtime import REPOSITORY, UserError, number, positive_int, run, shared_parser

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from utils.checkpoints import Checkpoint
    from utils.corpora import Reviews
    from utils.reporting import OutputFolder

PRESETS = {  # tokens generated per prompt, and test reviews for few-shot learning
    "smoke": {"new_tokens": 12, "queries": 24},
    "quick": {"new_tokens": 32, "queries": 80},
    "full": {"new_tokens": 100, "queries": 1000},
}
# Arguments of model.generate. top_k 0 switches off the library's silent default of 50.
STRATEGIES = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 4},
    "repetition-penalty": {"do_sample": False, "repetition_penalty": 1.2},
    "sampling": {"do_sample": True, "top_k": 0},
    "temperature": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "top-k": {"do_sample": True, "top_k": 40},
    "top-p": {"do_sample": True, "top_k": 0, "top_p": 0.9},
    "min-p": {"do_sample": True, "top_k": 0, "min_p": 0.1},
}
SHOTS = (0, 1, 2, 4, 8)
QUERY_TOKENS = 200  # longer reviews are cut there, so that one fits behind eight examples into GPT-2's 1,024 tokens
ANSWER_TOKENS = 8  # enough for a capital
EX_01_RESULTS = REPOSITORY / "outputs" / "ex_01" / "results.json"


def parse_arguments(argv: list[str] | None):
    """The arguments, with `own`, {category: prompts} of the student's own text, and `settings`, how to decode it."""
    parser = shared_parser(__doc__, "ex_02")
    add = parser.add_argument
    add("--data", metavar="NAME", help="reviews for part 3: rotten_tomatoes, imdb, packaged (from PyPI), tiny, or a "
        ".csv or .jsonl file with columns text and label; default: rotten_tomatoes, or packaged without the Hub")
    add("--max-new-tokens", type=positive_int, metavar="N", help="tokens per continuation (default: the preset's)")
    add = parser.add_argument_group("your own text, instead of the lesson").add_argument
    add("--prompt", action="append", metavar="TEXT", default=[], help="a text to continue (repeatable)")
    add("--prompts", type=Path, metavar="FILE", help='a JSON file {"category": ["prompt", ...], ...}')
    add("--strategy", choices=STRATEGIES, help="how to continue it (default: top-p, or sampling with the flags below)")
    add("--temperature", type=number("a number from 0.001 to 1000; for the likeliest token use --strategy greedy",
        lambda t: 0.001 <= t <= 1000), metavar="T", help="divides the logits: below 1 safer, above 1 wilder")
    add("--top-k", type=positive_int, metavar="K", help="sample from the K likeliest tokens")
    add("--top-p", type=number("a number above 0 and at most 1", lambda p: 0 < p <= 1), metavar="P",
        help="sample from the fewest tokens that reach probability P")
    add("--min-p", type=number("a number from 0 to 1", lambda p: 0 <= p <= 1), metavar="P",
        help="sample from tokens with at least P times the top probability")
    add("--repetition-penalty", type=number("a number from 0.01 to 100", lambda r: 0.01 <= r <= 100), metavar="R",
        help="above 1 makes tokens less likely that were generated before")
    args = parser.parse_args(argv)
    args.own = own_prompts(args)
    args.settings = own_settings(args)
    return args


def own_prompts(args) -> dict[str, list[str]]:
    """The student's prompts by category, from --prompt and --prompts; empty for the lesson."""
    from utils import course_data

    for text in args.prompt:
        if not text.strip() or text.endswith(" ") or re.search("[\ud800-\udfff]", text):
            raise UserError(f"--prompt {short(text)} is empty, ends with a space (GPT-2's tokens bring their own) or "
                            "is not utf-8: correct it")
    own = {"--prompt": args.prompt} if args.prompt else {}
    return own | (course_data.load_prompts_file(args.prompts) if args.prompts else {})


def own_settings(args) -> dict:
    """Arguments of model.generate for the student's own text: the strategy's, changed by the flags that are given."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if (given or args.strategy) and not args.own:
        raise UserError("--strategy and the flags of decoding need --prompt or --prompts; the lesson compares them all")
    settings = {**STRATEGIES[args.strategy or ("sampling" if given else "top-p")], **given}
    if not settings["do_sample"] and set(given) - {"repetition_penalty"}:
        raise UserError(f"--strategy {args.strategy} does not sample, so temperature, top-k, top-p and min-p change "
                        "nothing: leave them out or choose another strategy")
    return settings


# Part 1: one step of a language model


def apply_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits divided by a temperature above 0: below 1 the top token gains, above 1 the others do. Same shape."""
    return logits / temperature


def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Only the k likeliest tokens, and those level with the last of them; the others become -inf.

    logits: (..., vocabulary); k: at least 1, may exceed the vocabulary. Fan et al. 2018, arXiv 1805.04833.
    keep_top_k(tensor([1., 3., 2.]), 2) is tensor([-inf, 3., 2.]).
    """
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Only the smallest set of likeliest tokens that together reach probability p; the others become -inf.

    logits: (..., vocabulary); p: 0 to 1, and at least one token stays. Holtzman et al. 2020, arXiv 1904.09751.
    With probabilities 0.5, 0.3 and 0.2, p = 0.6 keeps the first two.
    """
    ascending, order = logits.sort(-1)
    remove = ascending.softmax(-1).cumsum(-1) <= 1 - p  # from the least likely upwards, as long as p remains
    remove[..., -1] = False
    return logits.masked_fill(remove.scatter(-1, order, remove), -math.inf)


def keep_min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Only the tokens with at least p times the top token's probability; the others become -inf.

    logits: (..., vocabulary); p: 0 to 1. Nguyen et al. 2024, arXiv 2407.01082.
    With probabilities 0.5, 0.3 and 0.2, p = 0.5 keeps the first two, since 0.2 is below 0.25.
    """
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -math.inf)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of softmax(logits) in bits: (..., vocabulary) -> (...). Four equally likely tokens have 2 bits."""
    import torch

    probabilities = logits.softmax(-1)
    return -torch.xlogy(probabilities, probabilities).sum(-1) / math.log(2)  # xlogy takes 0 log 0 as 0


def next_token_logits(model, tokenizer, prompt: str) -> torch.Tensor:
    """The logits of the token that follows the prompt: (vocabulary,), on the CPU."""
    import torch

    with torch.inference_mode():
        return model(**tokenizer(prompt, return_tensors="pt").to(model.device)).logits[0, -1].float().cpu()


def one_step(setup: Setup, prompts: list[str]) -> dict:
    """Part 1 as a whole, on the two prompts after which the model is surest and least sure."""
    from utils import plots, reporting

    cuts = {"top-k, k = 40": lambda x: keep_top_k(x, 40), "top-p, p = 0.9": lambda x: keep_top_p(x, 0.9),
            "min-p, p = 0.1": lambda x: keep_min_p(x, 0.1)}
    by_entropy = sorted(((next_token_logits(setup.model, setup.tokenizer, prompt), prompt) for prompt in prompts),
                        key=lambda pair: entropy(pair[0]))
    results, panels = [], []
    for logits, prompt in (by_entropy[0], by_entropy[-1]):
        probabilities = logits.softmax(-1)
        top = probabilities.topk(10)
        tokens = [repr(setup.tokenizer.decode([i])) for i in top.indices.tolist()]
        reporting.table(f"After {prompt!r}", ["next token", "probability"],
                        [list(row) for row in zip(tokens, top.values.tolist(), strict=True)])
        warmed = {t: apply_temperature(logits, t) for t in (0.5, 1.0, 1.5)}
        rows = [[t, entropy(x).item(), x.softmax(-1).max().item()] for t, x in warmed.items()]
        reporting.table("", ["temperature", "entropy in bits", "probability of the top token"], rows)
        kept = {name: keep(logits).isfinite() for name, keep in cuts.items()}
        counts = {name: int(mask.sum()) for name, mask in kept.items()}
        reporting.table("", ["filter", "tokens kept", "their probability"],
                        [[name, counts[name], probabilities[mask].sum().item()] for name, mask in kept.items()])
        results.append({"prompt": prompt, "tokens": tokens, "probabilities": top.values.tolist(),
                        "temperature_entropy_top": rows, "tokens_kept": counts})
        panels.append((prompt, tokens, {t: x.softmax(-1)[top.indices].tolist() for t, x in warmed.items()},
                       probabilities.sort(descending=True).values.tolist(), counts))
    setup.output.save_figure("next_token.png", plots.next_token([panel[:3] for panel in panels]))
    setup.output.save_figure("cuts.png", plots.sampling_cuts([(p[0], *p[3:]) for p in panels]))
    reporting.say("Top-k keeps 40 tokens whether the model is sure or not; top-p and min-p adapt. See cuts.png.")
    return {"surest": results[0], "least_sure": results[1]}


# Part 2: decoding strategies


def generate(model, tokenizer, prompts: list[str], settings: dict, max_new_tokens: int, seed: int, streamer=None,
             batch_size: int = 32) -> list[list[int]]:
    """Continue all prompts by one strategy, as one batch, padded on the left because text grows on the right.

    settings: arguments of model.generate, such as STRATEGIES["top-p"]. Returns each continuation's tokens. The same
    seed gives the same text, whatever ran before.
    """
    import torch
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    torch.manual_seed(seed)
    settings, continuations = dict(settings), []
    penalty = settings.pop("repetition_penalty", None)
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start:start + batch_size], padding=True, padding_side="left", return_tensors="pt",
                          return_token_type_ids=False).to(model.device)
        width = batch["input_ids"].shape[1]
        processors = LogitsProcessorList()
        if penalty:
            # Keskar et al. 2019 (arXiv 1909.05858) penalise what was generated. The library's argument penalises the
            # prompt too, and its padding, which for GPT-2 is the end-of-text token: a padded text could hardly end.
            processors.append(RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=width))
        with torch.inference_mode():
            rows = model.generate(**batch, **settings, max_new_tokens=max_new_tokens, logits_processor=processors,
                                  streamer=streamer)
        continuations += [cut_at_end(row, tokenizer.eos_token_id) for row in rows[:, width:].tolist()]
    return continuations


def cut_at_end(tokens: list[int], end: int) -> list[int]:
    """The tokens up to the end-of-text token, which stays as the last one: cut_at_end([5, 6, 0, 0], 0) is [5, 6, 0]."""
    return tokens[:tokens.index(end) + 1] if end in tokens else tokens


def compare_strategies(setup: Setup, prompts: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    """Part 2 as a whole: the tokens of every strategy's continuations; prints those of each category's first prompt."""
    from utils import reporting, runtime

    flat, tokens, rates = sum(prompts.values(), []), {}, {}
    for name, settings in STRATEGIES.items():
        clock = runtime.Stopwatch()
        tokens[name] = generate(setup.model, setup.tokenizer, flat, settings, setup.preset["new_tokens"], setup.seed)
        rates[name] = sum(map(len, tokens[name])) / clock.seconds
    for part, (first, *_) in prompts.items():
        texts = [setup.tokenizer.decode(tokens[name][flat.index(first)], skip_special_tokens=True) for name in tokens]
        reporting.table(f"{part}: {first} ...", ["strategy", "continuation"],
                        [[name, " ".join(text.split())] for name, text in zip(tokens, texts, strict=True)])
    reporting.say(f"Tokens per second for {len(flat)} prompts at once: "
                  + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    return tokens


# Part 3: few-shot learning by prompt


def few_shot_prompt(instruction: str, template: str, shots: list[tuple[str, str]], text: str) -> str:
    """Instruction, examples with their answers, and the question, with an empty line between them.

    template: holds {text}, such as "Review: {text}\\nSentiment:"; shots: (text, answer) pairs. The answer follows after
    one space, so the prompt ends without one. Brown et al. 2020, arXiv 2005.14165.
    """
    examples = [template.replace("{text}", shot) + " " + answer for shot, answer in shots]
    return "\n\n".join([instruction, *examples, template.replace("{text}", text)])


def token_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token under the logits that predict it: (..., vocabulary), (...) -> (...)."""
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def score_labels(model, tokenizer, prompts: list[str], labels: list[str], batch_size: int = 16) -> torch.Tensor:
    """log p(label | prompt) of every label, which follows after one space: a tensor (prompts, labels), on the CPU.

    A label of several tokens gets the sum of theirs. What all prompts begin with, the instruction and the examples, is
    computed once, and its key-value cache is reused for every batch.
    """
    import torch

    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    answers = [tokenizer(" " + label, add_special_tokens=False)["input_ids"] for label in labels]
    shared = 0
    while shared < min(map(len, rows)) - 1 and len({row[shared] for row in rows}) == 1:
        shared += 1
    if max(map(len, rows)) + max(map(len, answers)) > context_of(model):
        raise UserError(f"a few-shot prompt has {max(map(len, rows))} tokens, and the model takes {context_of(model)}: "
                        "name another --model, or shorten the examples in data/sample_prompts.json")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # similar lengths need little padding
    scores, prefix = torch.empty(len(rows), len(labels)), None
    with torch.inference_mode():
        if shared:
            ids = torch.tensor([rows[0][:shared]], device=model.device)
            prefix = model(ids, use_cache=True, logits_to_keep=1).past_key_values
        for start in range(0, len(order), batch_size):
            chosen = order[start:start + batch_size]
            scores[chosen] = score_batch(model, prefix, shared, [rows[i][shared:] for i in chosen], answers).cpu()
    return scores


def score_batch(model, prefix, shared: int, rows: list[list[int]], answers: list[list[int]]) -> torch.Tensor:
    """Log-probability of each answer's tokens after the prefix and each row's: (rows, answers).

    prefix: key-value cache of the `shared` tokens before every row, or None. Padding stands between it and the row, so
    that the last column predicts the first token of every answer.
    """
    import torch

    def step(ids, mask, cache, keep):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1]:]  # padding does not count
        return model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                     logits_to_keep=keep)

    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[1] * shared + [0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    cache = copy.deepcopy(prefix)  # the model appends to the cache that it gets
    if cache is not None:
        cache.batch_repeat_interleave(len(rows))
    first = step(ids, mask, cache, 1)
    scores = []
    for answer in answers:
        tokens, logits = torch.tensor([answer] * len(rows), device=model.device), first.logits
        if len(answer) > 1:
            longer = torch.cat([mask, torch.ones_like(tokens[:, 1:])], 1)
            further = step(tokens[:, :-1], longer, copy.deepcopy(first.past_key_values), 0)
            logits = torch.cat([logits, further.logits], 1)
        scores.append(token_log_probs(logits, tokens).sum(-1))
    return torch.stack(scores, 1)


def calibrate(scores: torch.Tensor, content_free: torch.Tensor) -> torch.Tensor:
    """Probabilities of the labels, corrected for what the model answers when there is no content: (queries, labels).

    scores: (queries, labels) log-likelihoods; content_free: (inputs, labels), those of inputs such as "N/A". Each
    label's share is divided by its mean share there. Zhao et al. 2021, arXiv 2102.09690, section 5.
    """
    corrected = scores.softmax(-1) / content_free.softmax(-1).mean(0)
    return corrected / corrected.sum(-1, keepdim=True)


def classify(setup: Setup, task: dict, shots: list[dict], words: tuple[str, str], queries: dict) -> dict:
    """Sentiment of the queries by one prompt: accuracy and share of positive answers, plain and calibrated.

    shots: examples of the task; words: the words for negative and positive; queries: {"text": [...], "label": [...]}.
    """
    import torch

    pairs = [(shot["text"], words[shot["label"] == "positive"]) for shot in shots]
    prompts = [few_shot_prompt(task["instruction"], task["template"], pairs, text)
               for text in (*queries["text"], *task["content_free"])]
    scores = score_labels(setup.model, setup.tokenizer, prompts, list(words))
    labels, result = torch.tensor(queries["label"]), {}
    n = len(labels)
    for name, values in (("plain", scores[:n]), ("calibrated", calibrate(scores[:n], scores[n:]))):
        answers = values.argmax(-1)
        result[name] = {**accuracy_interval(int((answers == labels).sum()), n),
                        "positive_share": answers.float().mean().item()}
    return result


def sentiment_by_prompt(setup: Setup, task: dict, queries: dict) -> dict:
    """The first task: how accuracy and bias depend on the number of examples, on their order and on the label words.

    The examples are those of data/sample_prompts.json, not reviews of the training split: eight fit into the context,
    they are balanced at every even number, the same for every data set, and yours to edit.
    """
    from utils import reporting

    @functools.cache
    def ask(numbers: tuple[int, ...], words: tuple[str, str]) -> dict:
        return classify(setup, task, [task["examples"][i] for i in numbers], words, queries)

    def compare(title: str, column: str, ways: dict[str, tuple]) -> dict:
        results = {name: ask(*way) for name, way in ways.items()}
        reporting.table(title, [column, "accuracy", "95 % interval", "says positive", "calibrated", "95 % interval",
                                "says positive"],
                        [[name, *(cell for kind in result.values() for cell in (
                            kind["accuracy"], "{:.2f} to {:.2f}".format(*kind["interval"]),
                            f"{kind['positive_share']:.0%}"))] for name, result in results.items()])
        return results

    sign = ["-+"[shot["label"] == "positive"] for shot in task["examples"]]
    words = list(zip(task["labels"]["negative"], task["labels"]["positive"], strict=True))
    every = tuple(range(len(sign)))
    few = every[:4]
    good, bad = (tuple(i for i in few if sign[i] == wanted) for wanted in "+-")
    mixed = tuple(i for pair in zip(good, bad, strict=False) for i in pair)
    orders = {"".join(sign[i] for i in order): order for order in (few, good + bad, bad + good, mixed, mixed[::-1])}
    by_shots = compare(f"{len(queries['text'])} reviews, by number of examples", "shots",
                       {str(k): (every[:k], words[0]) for k in SHOTS if k <= len(every)})
    by_order = compare("Four examples in several orders (+ positive, - negative)", "order",
                       {name: (order, words[0]) for name, order in orders.items()})
    if {name[-1] for name in orders} == {"+", "-"}:
        shares = [statistics.fmean(row[kind]["positive_share"] for name, row in by_order.items() if name[-1] == last)
                  for kind in ("plain", "calibrated") for last in "+-"]
        reporting.say("The model says positive {:.0%} of the time after a positive last example and {:.0%} after a "
                      "negative one; calibrated {:.0%} and {:.0%}.".format(*shares))
    by_words = compare("Four examples, other label words", "words", {"/".join(pair): (few, pair) for pair in words})
    return {"by_shots": by_shots, "by_order": by_order, "by_words": by_words}


def capitals_by_prompt(setup: Setup, task: dict) -> dict:
    """The second task, asked in two ways: the likeliest of the capitals asked for, and what the model says by itself.

    The first shows what it knows, with chance known. The second counts a greedy continuation that begins with the
    right name: it needs the form of the answer too, and that is what examples teach.
    """
    from utils import reporting

    countries, right = ([query[key] for query in task["queries"]] for key in ("text", "label"))
    rows, results = [], {}
    for k in SHOTS:
        pairs = [(shot["text"], shot["label"]) for shot in task["examples"][:k]]
        prompts = [few_shot_prompt(task["instruction"], task["template"], pairs, country) for country in countries]
        chosen = [right[i] for i in score_labels(setup.model, setup.tokenizer, prompts, right).argmax(-1)]
        tokens = generate(setup.model, setup.tokenizer, prompts, STRATEGIES["greedy"], ANSWER_TOKENS, setup.seed)
        said = [setup.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
        hits = [answer.startswith(name) for answer, name in zip(said, right, strict=True)]
        results[str(k)] = {"chosen": accuracy_interval(sum(map(str.__eq__, chosen, right)), len(right)),
                           "said": accuracy_interval(sum(hits), len(right))}
        missed = [f"{c}: {short(a)}" for c, a, hit in zip(countries, said, hits, strict=True) if not hit]
        rows.append([k, *(cell for way in results[str(k)].values() for cell in (
            way["accuracy"], "{:.2f} to {:.2f}".format(*way["interval"]))), "; ".join(missed[:2])])
    reporting.table(f"{len(right)} capitals: chosen among them (chance {1 / len(right):.3f}), or said freely",
                    ["shots", "chosen", "95 % interval", "said", "95 % interval", "not said, for instance"], rows)
    return results


def exercise_1_accuracy(path: Path, data: str) -> tuple[float | None, str]:
    """What exercise 1 reached on the same data set, from its results.json, and a sentence about it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["data"] != data:
            return None, f"Exercise 1's result is left out, since it was on other reviews ({found['data']})."
        accuracy = float(found["accuracy"])
        return accuracy, f"Exercise 1 reached {accuracy:.3f} with {found['train_examples']} reviews to learn from."
    except FileNotFoundError:
        return None, "Run exercise 1 first to see its accuracy here."
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"Exercise 1's result is left out: {path} is damaged."


def few_shot(setup: Setup, tasks: dict) -> dict:
    """Part 3 as a whole: both tasks, the baselines beside them, the plot, and what the model cannot do."""
    from utils import plots, reporting

    train, test = (setup.reviews.splits[part].to_dict() for part in ("train", "test"))
    tokens = setup.tokenizer(test["text"], add_special_tokens=False)["input_ids"]
    queries = {**test, "text": [text if len(row) <= QUERY_TOKENS else setup.tokenizer.decode(row[:QUERY_TOKENS])
                                for text, row in zip(test["text"], tokens, strict=True)]}
    majority = statistics.mean(label == statistics.mode(train["label"]) for label in test["label"])
    ex_01, sentence = exercise_1_accuracy(EX_01_RESULTS, setup.reviews.name)
    results = sentiment_by_prompt(setup, tasks["sentiment"], queries)
    by_shots = results["by_shots"]
    best = max(by_shots, key=lambda k: by_shots[k]["calibrated"]["accuracy"])
    low, high = by_shots[best]["calibrated"]["interval"]
    reporting.say(f"The majority label alone reaches {majority:.3f}. {sentence}")
    reporting.say(f"The best calibrated prompt ({best}-shot, interval {low:.2f} to {high:.2f}) "
                  + ("beats the majority. It was picked on these very reviews: expect less on others."
                     if low > majority else "cannot be told from the majority: this model cannot do the task."))
    baselines = {"majority": majority} | ({"exercise 1": ex_01} if ex_01 is not None else {})
    setup.output.save_figure("few_shot.png", plots.few_shot(by_shots, results["by_order"], baselines))
    results |= {"majority": majority, "exercise_1": ex_01, "queries": len(test["label"]),
                "capitals": capitals_by_prompt(setup, tasks["capitals"])}
    accuracy = {k: result["plain"]["accuracy"] for k, result in by_shots.items()}
    return {"few_shot_accuracy": accuracy, "few_shot": results}


# Part 4: measuring generated text


def perplexity(logits: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """exp of the mean negative log-likelihood of the tokens that count: one value per text, (batch,).

    logits: (batch, time, vocabulary), whose column i predicts token i + 1; tokens: (batch, time); counts: the same, 1
    for a token to measure, 0 for prompt and padding. Four equally likely tokens at every step give perplexity 4.
    """
    log_probs, counts = token_log_probs(logits[:, :-1], tokens[:, 1:]), counts[:, 1:]
    return (-(log_probs * counts).sum(-1) / counts.sum(-1)).exp()


def distinct_n(texts: list[list[str]], n: int) -> float:
    """Different n-grams over all n-grams of some texts, given as words: 0 to 1. Li et al. 2016, arXiv 1510.03055.

    distinct_n([["a", "b", "a"]], 1) is 2/3. Compare only texts of like length. 0 where there is no n-gram.
    """
    ngrams = [tuple(words[i:i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def repeated_share(words: list[str], n: int = 4) -> float:
    """Share of a text's n-grams that occurred in it before: 0 to 1. Welleck et al. 2020, arXiv 1908.04319."""
    return 1 - distinct_n([words], n) if len(words) >= n else 0.0


def mean_pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """One vector of length 1 per text, the direction of its tokens' mean: padding does not count.

    (texts, time, hidden), (texts, time) -> (texts, hidden). Reimers and Gurevych 2019, arXiv 1908.10084.
    """
    total = (hidden_states * attention_mask[..., None]).sum(1)
    return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def similarities(setup: Setup, prompts: list[str], texts: list[str]) -> list[float]:
    """Cosine similarity of each prompt's and its continuation's sentence vectors."""
    import torch

    tokenizer, encoder = setup.embedder
    batches = [tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt").to(encoder.device)
               for part in (prompts, texts)]
    with torch.inference_mode():
        a, b = (mean_pool(encoder(**batch).last_hidden_state, batch["attention_mask"]) for batch in batches)
    return (a * b).sum(-1).tolist()


def perplexities(setup: Setup, prompts: list[str], tokens: list[list[int]], batch_size: int = 8) -> list[float]:
    """Perplexity of each continuation after its prompt, under the model itself."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [(setup.tokenizer(prompt)["input_ids"], row) for prompt, row in zip(prompts, tokens, strict=True)]
    result = []
    for start in range(0, len(rows), batch_size):
        part = rows[start:start + batch_size]
        ids, counts = (pad_sequence([torch.tensor(row) for row in column], batch_first=True).to(setup.model.device)
                       for column in ([a + b for a, b in part], [[0] * len(a) + [1] * len(b) for a, b in part]))
        with torch.inference_mode():  # no mask: the padding is on the right, where no token looks
            result += perplexity(setup.model(ids).logits, ids, counts).tolist()
    return result


def measure(setup: Setup, prompts: list[str], tokens: list[list[int]]) -> tuple[list[dict], dict]:
    """Every continuation with its numbers, and the numbers of all together."""
    texts = [setup.tokenizer.decode(row, skip_special_tokens=True) for row in tokens]
    words = [re.findall(r"\w+(?:'\w+)*", text.lower()) for text in texts]
    columns = {"perplexity": perplexities(setup, prompts, tokens),
               "repetition": [repeated_share(text) for text in words],
               "words": [len(text) for text in words]}
    if setup.embedder:
        columns["similarity"] = similarities(setup, prompts, texts)
    together = {"perplexity": statistics.median(columns["perplexity"]), "distinct_1": distinct_n(words, 1),
                "distinct_2": distinct_n(words, 2),
                **{name: statistics.fmean(values) for name, values in columns.items() if name != "perplexity"}}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{**row, "prompt": p, "text": t} for p, t, row in zip(prompts, texts, rows, strict=True)], together


def people(setup: Setup) -> tuple[list[str], list[list[int]]]:
    """Text by people as a yardstick: the 20 longest test reviews, as prompts of 8 words and their continuations."""
    words = sorted((text.split() for text in setup.reviews.splits["test"]["text"]), key=len)[-20:]
    words = [text for text in words if len(text) > 8]
    rest = setup.tokenizer([" " + " ".join(text[8:]) for text in words], add_special_tokens=False)["input_ids"]
    return [" ".join(text[:8]) for text in words], [row[:setup.preset["new_tokens"]] for row in rest]


def mean_ranks(rows: list[dict]) -> list[float]:
    """A crude judge: each text's mean rank in perplexity, repetition and similarity to its prompt; low is good."""
    from scipy.stats import rankdata

    better = {"perplexity": 1, "repetition": 1, "similarity": -1}  # 1: less is better, -1: more is
    ranks = [rankdata([sign * row[name] for row in rows]) for name, sign in better.items() if name in rows[0]]
    return [statistics.fmean(values) for values in zip(*ranks, strict=True)]


def quality(setup: Setup, prompts: dict[str, list[str]], tokens: dict[str, list[list[int]]]) -> dict:
    """Part 4 as a whole: measures by strategy, the plot, samples beside their numbers, best and worst."""
    from utils import plots, reporting

    flat, categories = sum(prompts.values(), []), [name for name, part in prompts.items() for _ in part]
    samples, strategies = [], {}
    for name, rows in tokens.items():
        measured, strategies[name] = measure(setup, flat, rows)
        samples += [{"strategy": name, "category": c, **row} for c, row in zip(categories, measured, strict=True)]
    reference = people(setup)
    everybody = strategies | ({"people (reviews)": measure(setup, *reference)[1]} if reference[0] else {})
    reporting.table(f"{len(flat)} continuations by strategy", ["strategy", *strategies["greedy"]],
                    [[name, *row.values()] for name, row in everybody.items()])
    reporting.say("Perplexity is the median, distinct-n is over all texts of a row together, the others are means; "
                  "repetition is the share of repeated 4-grams. Low perplexity is no praise: what repeats itself is "
                  "easy to predict, what people write is not (a rough yardstick: their prompts were others).")
    setup.output.save_figure("diversity.png", plots.diversity(
        {name: (row["perplexity"], row["distinct_2"]) for name, row in everybody.items()}))
    for row, rank in zip(samples, mean_ranks(samples), strict=True):
        row["mean_rank"] = rank
    samples.sort(key=lambda row: row["mean_rank"])
    columns = [name for name in ("strategy", "perplexity", "repetition", "similarity") if name in samples[0]]
    for title, rows in (("Best three by mean rank of these numbers: do you agree?", samples[:3]),
                        ("Worst three", samples[-3:]),
                        ("One prompt, best first", [row for row in samples if row["prompt"] == flat[1]])):
        reporting.table(title, [*columns, "prompt | continuation"], [
            [*(row[name] for name in columns), " ".join(f"{row['prompt']} | {row['text']}".split())] for row in rows])
    return {"strategies": strategies, "people": everybody.get("people (reviews)"), "samples": samples}


# The whole lesson


def load_model(args) -> tuple[Checkpoint, PreTrainedTokenizerBase, PreTrainedModel]:
    """The language model and its tokenizer, without the checkpoint's own settings for generating: a strategy shall mean
    the same for every model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from utils import checkpoints, runtime

    device = runtime.start(args)
    checkpoint = checkpoints.find("decoder", args.model or ("tiny" if args.preset == "smoke" else None))
    checkpoints.check_family(checkpoint, "decoder")
    tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
    if tokenizer.eos_token is None:
        raise UserError(f"model {checkpoint.name!r} has no end-of-text token, which this exercise needs: name another")
    tokenizer.pad_token = tokenizer.eos_token  # GPT-2 has none of its own; the attention mask tells them apart
    dtype = "bfloat16" if runtime.precision(device) == "bf16" else "float32"
    model = checkpoints.load(AutoModelForCausalLM, checkpoint, dtype=dtype).to(device).eval()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
    return checkpoint, tokenizer, model


def context_of(model) -> int:
    """How many tokens the model takes, prompt and continuation together."""
    return getattr(model.config, "max_position_embeddings", 10**9)


def check_context(model, tokenizer, prompts: list[str], new_tokens: int) -> None:
    """Raise UserError unless every prompt and its continuation fit into the context."""
    context = context_of(model)
    for prompt in prompts:
        length = len(tokenizer(prompt)["input_ids"])
        if length >= context:
            raise UserError(f"the prompt {short(prompt)} has {length} tokens, the model takes {context}: shorten it")
        if length + new_tokens > context:
            raise UserError(f"--max-new-tokens {new_tokens}: the model takes {context} tokens, which leaves room for "
                            f"{context - length} after the prompt {short(prompt)}")


def generate_own(args) -> dict:
    """--prompt and --prompts: continue the student's own text, streamed to the terminal."""
    from transformers import TextStreamer

    from utils import reporting

    class Terminal(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            print(reporting.printable(text), end="\n" if stream_end else "", flush=True)

    checkpoint, tokenizer, model = load_model(args)
    new_tokens = args.max_new_tokens or PRESETS[args.preset]["new_tokens"]
    check_context(model, tokenizer, sum(args.own.values(), []), new_tokens)
    reporting.say(f"{checkpoint.name} ({checkpoint.source}) on {model.device}, {args.settings}, seed {args.seed}")
    answers = []
    for category, prompts in args.own.items():
        reporting.say(f"\n{category}", style="bold")
        for prompt in prompts:
            print(reporting.printable(prompt), end="", flush=True)
            # Beam search keeps several texts until the end, so it cannot be streamed.
            streamer = None if "num_beams" in args.settings else Terminal(tokenizer, True, skip_special_tokens=True)
            tokens = generate(model, tokenizer, [prompt], args.settings, new_tokens, args.seed, streamer)[0]
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            print("" if streamer else reporting.printable(text) + "\n")
            answers.append({"category": category, "prompt": prompt, "text": text})
    return {"model": checkpoint.name, "settings": args.settings, "generations": answers}


@dataclass
class Setup:
    """What all parts work on."""

    seed: int
    preset: dict
    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    embedder: tuple | None  # (tokenizer, sentence encoder)
    reviews: Reviews
    output: OutputFolder


def prepare(args, prompts: list[str]) -> Setup:
    """Find models and data, check what was asked for, claim the output folder, print the banner."""
    from utils import corpora, reporting, runtime

    checkpoint, tokenizer, model = load_model(args)
    preset = PRESETS[args.preset] | ({"new_tokens": args.max_new_tokens} if args.max_new_tokens else {})
    check_context(model, tokenizer, prompts, preset["new_tokens"])
    reviews = corpora.load_reviews(args.data or ("tiny" if args.preset == "smoke" else None), args.seed,
                                   {"test": preset["queries"]})
    embedder, note = load_embedder(checkpoint.source, model.device)
    output = reporting.OutputFolder(args.output, "ex_02", {
        "model": checkpoint.name, "data": reviews.name, "preset": args.preset, "seed": args.seed})
    reporting.banner("Exercise 2: generate text with GPT-2", {
        "model": f"{checkpoint.name} ({checkpoint.source})", "": checkpoint.note,
        "parameters": f"{model.num_parameters():,}",
        "device": f"{model.device.type}, {runtime.precision(model.device.type)}, {runtime.threads()} threads",
        "reviews": ": ".join(filter(None, (reviews.name, reviews.note))),
        "  test": corpora.balance(reviews.splits["test"]),
        "coherence": note,
        "output": reporting.shown(output.path),
    })
    return Setup(args.seed, preset, checkpoint, tokenizer, model, embedder, reviews, output)


def load_embedder(source: str, device) -> tuple[tuple | None, str]:
    """The sentence encoder that part 4 measures coherence with, and its name; or None, and why there is none."""
    from transformers import AutoModel, AutoTokenizer

    from utils import checkpoints

    try:
        found = checkpoints.find("embedder", source if source in ("tiny", "packaged") else None)
        encoder = checkpoints.load(AutoModel, found, dtype="float32").to(device).eval()
        return (checkpoints.load(AutoTokenizer, found), encoder), f"by {found.name} ({found.source})"
    except UserError as error:  # one column less is no reason to stop
        return None, f"not measured: {error}"


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for mistakes that the user can mend."""
    args = parse_arguments(argv)
    if args.own:
        return generate_own(args)

    from utils import course_data, reporting, runtime

    clock, data = runtime.Stopwatch(), course_data.load_sample_prompts()
    prompts = data["generation"]
    setup = prepare(args, sum(prompts.values(), []))
    results = {"model": setup.checkpoint.name, "source": setup.checkpoint.source, "data": setup.reviews.name,
               "preset": args.preset, "seed": args.seed, "device": setup.model.device.type,
               "precision": runtime.precision(setup.model.device.type), "new_tokens": setup.preset["new_tokens"]}

    reporting.heading("Part 1: one step of a language model", "Which filters adapt to how sure the model is?")
    results["next_token"] = one_step(setup, sum(prompts.values(), []))

    reporting.heading("Part 2: decoding strategies", "Which repeat themselves, which lose the thread?")
    tokens = compare_strategies(setup, prompts)

    reporting.heading("Part 3: few-shot learning by prompt", "Do more examples help, or do they shift the bias?")
    results |= few_shot(setup, data["few_shot"])

    reporting.heading("Part 4: measuring generated text", "Which numbers agree with your own judgement?")
    results |= quality(setup, prompts, tokens)

    results |= {"peak_memory_mb": runtime.peak_memory_mb(), "peak_gpu_memory_mb": runtime.peak_gpu_memory_mb(),
                "minutes": clock.seconds / 60}
    setup.output.save_results(results)
    setup.output.release()
    reporting.heading("Done")
    reporting.say(f"Done in {results['minutes']:.1f} minutes, peak memory {results['peak_memory_mb']:.0f} MB. Results "
                  f"and plots (*.png) are in {reporting.shown(setup.output.path)}")
    return results


if __name__ == "__main__":
    run(main)
