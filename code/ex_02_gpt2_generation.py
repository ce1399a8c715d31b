"""Exercise 2: generate text with GPT-2, choose how to decode it, and make it answer by examples.

You will see (1) one step of a language model and what temperature, top-k, top-p and min-p do to it,
(2) decoding strategies side by side, (3) few-shot learning by prompt, its bias and a cure, (4) how
generated text can be measured. The parts stand below in this order; how a run goes is at the end.

    python code/ex_02_gpt2_generation.py                      quick: minutes on two CPU cores
    python code/ex_02_gpt2_generation.py --preset smoke       random model, seconds: does it run?
    python code/ex_02_gpt2_generation.py --prompt "Once upon a time" --strategy top-p
                                                              go on with your own text

Everything is computed in fp32, on a GPU too. In bf16, which has three digits, tokens tie that do
not, and the greedy text of a prompt depends on the other prompts in its batch.
"""

from __future__ import annotations

import functools
import math
import re
import statistics
import zlib
from typing import TYPE_CHECKING

from utils import runtime
from utils.runtime import UserError
from utils.scoring import check_context, fetch_model, score_labels
from utils.stats import accuracy_interval

if TYPE_CHECKING:
    import torch

# Part 1: one step of a language model


def apply_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits divided by a temperature above 0, of the same shape.

    Below 1 the top token gains, above 1 the others do: apply_temperature(tensor([2., 0.]), 0.5) is
    tensor([4., 0.]).
    """
    return logits / temperature


# Task 2.1 (10 points)
def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Only the k likeliest tokens, also where some tie; the others become -inf.

    logits: (..., vocabulary); k: at least 1, may exceed the vocabulary. Fan et al. 2018, arXiv
    1805.04833. keep_top_k(tensor([1., 3., 2.]), 2) is tensor([-inf, 3., 2.]).
    """
    # BEGIN SOLUTION
    kept = logits.topk(min(k, logits.shape[-1])).indices
    return logits.new_full(logits.shape, -math.inf).scatter(-1, kept, logits.gather(-1, kept))
    # END SOLUTION


# Task 2.2 (20 points)
def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Only the smallest set of likeliest tokens that together reach probability p; others: -inf.

    logits: (..., vocabulary); p: 0 to 1, and at least one token stays. Holtzman et al. 2020, arXiv
    1904.09751. With probabilities 0.5, 0.3 and 0.2, p = 0.6 keeps the first two.
    """
    # BEGIN SOLUTION
    ascending, order = logits.sort(-1)
    remove = ascending.softmax(-1).cumsum(-1) <= 1 - p  # from the least likely up, while p remains
    remove[..., -1] = False
    return logits.masked_fill(remove.scatter(-1, order, remove), -math.inf)
    # END SOLUTION


def keep_min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Only the tokens with at least p times the top token's probability; the others become -inf.

    logits: (..., vocabulary); p: 0 to 1. Nguyen et al. 2024, arXiv 2407.01082. With probabilities
    0.5, 0.3 and 0.2, p = 0.5 keeps the first two, since 0.2 is below 0.25.
    """
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < p * probs.amax(-1, keepdim=True), -math.inf)


# Task 2.3 (10 points)
def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of softmax(logits) in bits: (..., vocabulary) -> (...). Two even chances: 1 bit."""
    # BEGIN SOLUTION
    import torch

    probs = logits.softmax(-1)
    return -torch.xlogy(probs, probs).sum(-1) / math.log(2)  # xlogy takes 0 log 0 as 0
    # END SOLUTION


def next_token_logits(model, tokenizer, prompt: str) -> torch.Tensor:
    """The logits of the token that follows the prompt: (vocabulary,), on the CPU."""
    import torch

    with torch.inference_mode():
        return model(**tokenizer(prompt, return_tensors="pt").to(model.device)).logits[0, -1].cpu()


TEMPERATURES = (0.5, 1.0, 1.5)
FILTERS = {
    "top-k, k = 40": lambda logits: keep_top_k(logits, 40),
    "top-p, p = 0.9": lambda logits: keep_top_p(logits, 0.9),
    "min-p, p = 0.1": lambda logits: keep_min_p(logits, 0.1),
}


def one_step(model, tokenizer, prompt: str) -> dict:
    """What may follow a prompt: likeliest tokens, at each temperature, and what filters keep."""
    logits = next_token_logits(model, tokenizer, prompt)
    probs, top = logits.softmax(-1), logits.topk(10).indices
    at = {str(t): apply_temperature(logits, t) for t in TEMPERATURES}
    kept = {name: keep(logits).isfinite() for name, keep in FILTERS.items()}
    ranks = sorted({round(len(probs) ** (i / 200)) for i in range(201)})  # even on a log scale
    by_rank = probs.sort(descending=True).values[[rank - 1 for rank in ranks]]
    return {"prompt": prompt, "tokens": [tokenizer.decode([i]) for i in top.tolist()],
            "temperatures": {t: {"entropy": entropy(x), "probs": x.softmax(-1)[top]}
                             for t, x in at.items()},
            "filters": {name: {"tokens": mask.sum(), "probability": probs[mask].sum()}
                        for name, mask in kept.items()},
            "ranks": ranks, "prob_at_rank": by_rank}


def surest_and_least_sure(model, tokenizer, prompts: list[str]) -> list[dict]:
    """`one_step` of the prompts after which the model's entropy is lowest and highest."""
    by_entropy = sorted(prompts, key=lambda prompt: entropy(
        next_token_logits(model, tokenizer, prompt)).item())
    chosen = (by_entropy[0], by_entropy[-1])
    return [one_step(model, tokenizer, prompt) for prompt in dict.fromkeys(chosen)]


# Part 2: decoding strategies

# Arguments of model.generate. top_k 0 switches off the library's silent default of 50.
STRATEGIES: dict[str, dict] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 4},
    "repetition-penalty": {"do_sample": False, "repetition_penalty": 1.2},
    "sampling": {"do_sample": True, "top_k": 0},
    "temperature": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "top-k": {"do_sample": True, "top_k": 40},
    "top-p": {"do_sample": True, "top_k": 0, "top_p": 0.9},
    "min-p": {"do_sample": True, "top_k": 0, "min_p": 0.1},
}


def generate(model, tokenizer, prompts: list[str], decoding: dict, max_new_tokens: int, seed: int,
             streamer=None, batch_size: int = 32) -> list[list[int]]:
    """Continue prompts in batches, padded on the left because text grows on the right.

    decoding: arguments of model.generate, such as STRATEGIES["top-p"]. Returns each continuation's
    tokens. The same seed gives the same text, whatever ran before.
    """
    import torch
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    torch.manual_seed(seed)
    decoding, continuations = dict(decoding), []
    penalty = decoding.pop("repetition_penalty", None)
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start:start + batch_size], padding=True, padding_side="left",
                          return_token_type_ids=False, return_tensors="pt").to(model.device)
        width, processors = batch["input_ids"].shape[1], LogitsProcessorList()
        if penalty:
            # Keskar et al. 2019 (arXiv 1909.05858) penalise what was generated. The library's
            # argument penalises the prompt too, and its padding, which for GPT-2 is the end-of-text
            # token: a padded text could hardly end.
            processors.append(RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=width))
        with torch.inference_mode():
            rows = model.generate(**batch, **decoding, max_new_tokens=max_new_tokens,
                                  logits_processor=processors, streamer=streamer)
        end = tokenizer.eos_token_id
        continuations += [cut_at_end(row, end) for row in rows[:, width:].tolist()]
    return continuations


def cut_at_end(tokens: list[int], end: int) -> list[int]:
    """The tokens up to the first end token, which stays: cut_at_end([5, 0, 0], 0) is [5, 0]."""
    return tokens[:tokens.index(end) + 1] if end in tokens else tokens


def compare_strategies(model, tokenizer, prompts: list[str], max_new_tokens: int,
                       seed: int) -> dict:
    """Every strategy's continuations of all prompts: tokens, texts, and tokens per second."""
    result = {}
    for name, decoding in STRATEGIES.items():
        clock = runtime.Stopwatch()
        tokens = generate(model, tokenizer, prompts, decoding, max_new_tokens, seed)
        result[name] = {"tokens_per_second": sum(map(len, tokens)) / clock.seconds,
                        "tokens": tokens,
                        "texts": tokenizer.batch_decode(tokens, skip_special_tokens=True)}
    return result


# Part 3: few-shot learning by prompt

SHOTS = (0, 1, 2, 4, 8)
QUERY_TOKENS = 200  # a longer review is cut there: eight examples leave that much of GPT-2's 1,024
ANSWER_TOKENS = 8  # enough for a capital


# Task 2.4 (15 points)
def few_shot_prompt(instruction: str, template: str, shots: list[tuple[str, str]],
                    text: str) -> str:
    """Instruction, examples with their answers, and the question, with an empty line between them.

    template: holds {text}, such as "Review: {text}\\nSentiment:"; shots: (text, answer) pairs. The
    answer follows after one space, so the prompt ends without one. Brown et al. 2020, arXiv
    2005.14165.
    """
    # BEGIN SOLUTION
    examples = [template.replace("{text}", shot) + " " + answer for shot, answer in shots]
    return "\n\n".join([instruction, *examples, template.replace("{text}", text)])
    # END SOLUTION


def token_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token under its logits: (..., vocabulary), (...) -> (...)."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


# Task 2.5 (15 points)
def label_log_prob(model, tokenizer, prompt: str, label: str) -> float:
    """log p(label | prompt), the sum over the label's tokens, which follow after one space.

    Column i of the logits predicts token i + 1. `score_labels` does the same for many at once.
    """
    # BEGIN SOLUTION
    import torch

    before = tokenizer(prompt)["input_ids"]
    answer = tokenizer(" " + label, add_special_tokens=False)["input_ids"]
    input_ids = torch.tensor([before + answer], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids).logits[0, len(before) - 1:-1]
    return token_log_probs(logits, input_ids[0, len(before):]).sum().item()
    # END SOLUTION


def calibrate(scores: torch.Tensor, content_free: torch.Tensor) -> torch.Tensor:
    """Probabilities of the labels, corrected for what the model says without content.

    scores: (queries, labels) log-likelihoods; content_free: (inputs, labels), those of inputs such
    as "N/A". Each label's share is divided by its mean share there, and the shares of a query then
    sum to 1 again: (queries, labels). Zhao et al. 2021, arXiv 2102.09690, section 5.
    """
    corrected = scores.softmax(-1) / content_free.softmax(-1).mean(0)
    return corrected / corrected.sum(-1, keepdim=True)


def sentiment_prompts(task: dict, shots: tuple[int, ...], words: tuple[str, str],
                      texts: list[str]) -> list[str]:
    """One prompt a text, behind some of the task's examples.

    shots: numbers of the examples, in the order wanted; words: their answers, for negative and for
    positive.
    """
    examples = [task["examples"][i] for i in shots]
    pairs = [(example["text"], words[example["label"] == "positive"]) for example in examples]
    return [few_shot_prompt(task["instruction"], task["template"], pairs, text) for text in texts]


def judge(scores: torch.Tensor, labels: list[int]) -> dict:
    """Accuracy of the likelier label with its interval, and the bias: how often it is "positive".

    scores: (queries, 2), negative and positive; labels: 0 or 1. A model without bias says positive
    as often as the labels do.
    """
    answers = scores.argmax(-1).tolist()
    right = sum(a == b for a, b in zip(answers, labels, strict=True))
    return {**accuracy_interval(right, len(labels)), "says_positive": sum(answers) / len(answers)}


def classify(model, tokenizer, task: dict, queries: dict, shots: tuple[int, ...],
             words: tuple[str, str]) -> dict:
    """`judge` the sentiment of queries asked by one kind of prompt, plain and calibrated."""
    texts, n = [*queries["text"], *task["content_free"]], len(queries["text"])
    prompts = sentiment_prompts(task, shots, words, texts)
    scores = score_labels(model, tokenizer, prompts, list(words))
    return {"plain": judge(scores[:n], queries["label"]),
            "calibrated": judge(calibrate(scores[:n], scores[n:]), queries["label"])}


def ways_to_ask(task: dict) -> dict[str, dict[str, tuple]]:
    """The prompts to compare, as (numbers of examples, words): by how many, their order, the words.

    The examples are those of data/sample_prompts.json, not training reviews: eight fit into the
    context, the even numbers are balanced, they are the same for every data set, and yours to edit.
    """
    words = list(zip(task["labels"]["negative"], task["labels"]["positive"], strict=True))
    signs = ["-+"[example["label"] == "positive"] for example in task["examples"]]
    few = tuple(range(len(signs)))[:4]
    good, bad = (tuple(i for i in few if signs[i] == sign) for sign in "+-")
    mixed = tuple(i for pair in zip(good, bad, strict=False) for i in pair)
    orders = [order for order in (few, good + bad, bad + good, mixed, mixed[::-1]) if order]
    return {"by_shots": {str(k): (tuple(range(k)), words[0]) for k in SHOTS if k <= len(signs)},
            "by_order": {"".join(signs[i] for i in order): (order, words[0]) for order in orders},
            "by_words": {"/".join(pair): (few, pair) for pair in words}}


def sentiment_by_prompt(model, tokenizer, task: dict, reviews: dict) -> dict:
    """How accuracy and bias depend on the prompt, and what the majority label alone reaches.

    reviews: {"train" and "test": {"text": [...], "label": [...]}}; the majority label is train's.
    """
    test, majority = reviews["test"], statistics.mode(reviews["train"]["label"])
    rows = tokenizer(test["text"], add_special_tokens=False)["input_ids"]
    texts = [text if len(row) <= QUERY_TOKENS else tokenizer.decode(row[:QUERY_TOKENS])
             for text, row in zip(test["text"], rows, strict=True)]

    @functools.cache
    def ask(shots: tuple[int, ...], words: tuple[str, str]) -> dict:
        return classify(model, tokenizer, task, {**test, "text": texts}, shots, words)

    return {"queries": len(texts), "majority": test["label"].count(majority) / len(texts),
            **{kind: {name: ask(*way) for name, way in ways.items()}
               for kind, ways in ways_to_ask(task).items()}}


def capitals_by_prompt(model, tokenizer, task: dict, seed: int) -> dict[str, dict]:
    """The second task, asked in two ways, by number of examples: choosing and saying.

    The likeliest of all the capitals shows what the model knows, with chance known. A greedy
    continuation that begins with the right name needs the form of the answer too, and that is what
    examples teach.
    """
    countries, capitals = ([query[key] for query in task["queries"]] for key in ("text", "label"))
    results = {}
    for k in SHOTS:
        pairs = [(example["text"], example["label"]) for example in task["examples"][:k]]
        prompts = [few_shot_prompt(task["instruction"], task["template"], pairs, country)
                   for country in countries]
        best = score_labels(model, tokenizer, prompts, capitals).argmax(-1).tolist()
        tokens = generate(model, tokenizer, prompts, STRATEGIES["greedy"], ANSWER_TOKENS, seed)
        said = [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        hits = [text.startswith(capital) for text, capital in zip(said, capitals, strict=True)]
        results[str(k)] = {
            "chosen": accuracy_interval(sum(i == j for i, j in enumerate(best)), len(capitals)),
            "said": accuracy_interval(sum(hits), len(capitals)),
            "missed": [[c, s] for c, s, hit in zip(countries, said, hits, strict=True) if not hit]}
    return results


# Part 4: measuring generated text


# Task 2.6 (20 points)
def perplexity(logits: torch.Tensor, input_ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """exp of the mean negative log-likelihood of the tokens that count: one value a text, (batch,).

    logits: (batch, time, vocabulary), whose column i predicts token i + 1; input_ids: (batch,
    time); counts: the same, 1 for a token to measure, 0 for prompt and padding. Four equally likely
    tokens at every step give perplexity 4.
    """
    # BEGIN SOLUTION
    log_probs, counts = token_log_probs(logits[:, :-1], input_ids[:, 1:]), counts[:, 1:]
    return (-(log_probs * counts).sum(-1) / counts.sum(-1)).exp()
    # END SOLUTION


def perplexities(model, tokenizer, prompts: list[str], continuations: list[list[int]],
                 batch_size: int = 8) -> list[float]:
    """Perplexity of each continuation, given as tokens, after its prompt, under the model."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = list(zip(tokenizer(prompts)["input_ids"], continuations, strict=True))
    result = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start:start + batch_size]
        tokens = [torch.tensor(before + after) for before, after in batch]
        marks = [torch.tensor([0] * len(before) + [1] * len(after)) for before, after in batch]
        ids, counts = (pad_sequence(x, batch_first=True).to(model.device) for x in (tokens, marks))
        with torch.inference_mode():  # no mask: the padding is on the right, where no token looks
            result += perplexity(model(ids).logits, ids, counts).tolist()
    return result


# Task 2.7 (10 points)
def distinct_n(texts: list[list[str]], n: int) -> float:
    """Different n-grams over all n-grams of some texts, given as words: 0 to 1, 0 without n-grams.

    distinct_n([["a", "b", "a"]], 1) is 2/3. Compare only texts of like length. Li et al. 2016,
    arXiv 1510.03055.
    """
    # BEGIN SOLUTION
    ngrams = [tuple(words[i:i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0
    # END SOLUTION


def repeated_share(words: list[str], n: int = 4) -> float:
    """Share of n-grams that occurred in the text before. Welleck et al. 2020, arXiv 1908.04319."""
    return 1 - distinct_n([words], n) if len(words) >= n else 0.0


def mean_pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """One vector of length 1 a text, the direction of its tokens' mean: padding does not count.

    (texts, time, hidden), (texts, time) -> (texts, hidden). Reimers and Gurevych 2019, arXiv
    1908.10084.
    """
    total = (hidden_states * attention_mask[..., None]).sum(1)
    return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def similarities(embed, prompts: list[str], texts: list[str]) -> list[float]:
    """How close each text stays to its prompt: the cosine of their sentence vectors, -1 to 1.

    embed: texts -> vectors of length 1, (texts, hidden).
    """
    return (embed(prompts) * embed(texts)).sum(-1).tolist()


def measure(model, tokenizer, embed, prompts: list[str], continuations: list[list[int]]) -> dict:
    """Numbers of each continuation, lists in their order, and of all together.

    embed: see `similarities`, or None. The median of perplexities, since one wild text would move
    their mean; distinct-n over all texts at once; means of the others.
    """
    texts = tokenizer.batch_decode(continuations, skip_special_tokens=True)
    words = [re.findall(r"\w+(?:'\w+)*", text.lower()) for text in texts]
    each: dict[str, list] = {
        "perplexity": perplexities(model, tokenizer, prompts, continuations),
        "repetition": [repeated_share(text) for text in words],
        "words": [len(text) for text in words]}
    if embed:
        each["similarity"] = similarities(embed, prompts, texts)
    return {"each": each,
            "all": {"perplexity": statistics.median(each["perplexity"]),
                    "distinct_1": distinct_n(words, 1), "distinct_2": distinct_n(words, 2),
                    **{name: statistics.fmean(values) for name, values in each.items()
                       if name != "perplexity"}}}


def written_by_people(tokenizer, reviews: list[str], max_new_tokens: int) -> tuple[list, list]:
    """A yardstick: the 20 longest reviews, as prompts of 8 words and tokens of what follows."""
    longest = sorted((review.split() for review in reviews), key=len)[-20:]
    longest = [words for words in longest if len(words) > 8]
    rest = [tokenizer(" " + " ".join(words[8:]), add_special_tokens=False)["input_ids"]
            for words in longest]
    return [" ".join(words[:8]) for words in longest], [ids[:max_new_tokens] for ids in rest]


def quality(model, tokenizer, embed, prompts: list[str], strategies: dict, reviews: list[str],
            max_new_tokens: int) -> dict[str, dict]:
    """`measure` each strategy's continuations of the prompts, and what people wrote in reviews."""
    rows = {name: (prompts, strategies[name]["tokens"]) for name in STRATEGIES}
    people = written_by_people(tokenizer, reviews, max_new_tokens)
    rows |= {"people (reviews)": people} if people[0] else {}
    return {name: measure(model, tokenizer, embed, *row) for name, row in rows.items()}


# A run: what it may be told, and its course

# Tokens generated for each prompt, and test reviews for few-shot learning.
PRESETS: dict[str, dict] = {
    "smoke": {"max_new_tokens": 12, "queries": 24, "model": "tiny", "data": "tiny"},
    "quick": {"max_new_tokens": 32, "queries": 80},
    "full": {"max_new_tokens": 100, "queries": 1000},
}


def parse(argv: list[str] | None):
    parser, number = runtime.shared_parser(__doc__, "ex_02"), runtime.number
    add = parser.add_argument
    add("--data", metavar="NAME", help="reviews for part 3: rotten_tomatoes, imdb, packaged (from "
        "PyPI), tiny, or your own file; default: rotten_tomatoes, or packaged without the Hub")
    add("--text-column", metavar="NAME", help="your file's column of texts (default: text)")
    add("--label-column", metavar="NAME", help="your file's column of labels (default: label)")
    add("--max-new-tokens", type=runtime.positive_int, metavar="N",
        help="tokens per continuation (default: the preset's)")
    own = parser.add_argument_group("your own text, instead of the lesson").add_argument
    own("--prompt", action="append", metavar="TEXT", default=[], type=runtime.well_formed,
        help="a text to continue (repeatable)")
    own("--prompts", type=runtime.user_path, metavar="FILE",
        help='a JSON file {"category": ["prompt", ...], ...}')
    own("--strategy", choices=STRATEGIES,
        help="how to continue it (default: top-p, or sampling with the flags below)")
    own("--temperature", metavar="T", help="divides the logits: below 1 safer, above 1 wilder",
        type=number("a number from 0.001 to 1000; for the likeliest token use --strategy greedy",
                    lambda t: 0.001 <= t <= 1000))
    own("--top-k", type=runtime.positive_int, metavar="K", help="sample from the K likeliest")
    own("--top-p", type=number("a number above 0 and at most 1", lambda p: 0 < p <= 1), metavar="P",
        help="sample from the fewest tokens that reach probability P")
    own("--min-p", type=number("a number from 0 to 1", lambda p: 0 <= p <= 1), metavar="P",
        help="sample from tokens with at least P times the top probability")
    own("--repetition-penalty", metavar="R", help="above 1: less of what was generated before",
        type=number("a number from 0.01 to 100", lambda r: 0.01 <= r <= 100))
    return runtime.complete(parser, PRESETS, argv)


def own_text(settings) -> tuple[dict[str, list[str]], dict]:
    """Prompts by category, none for the lesson, and arguments of model.generate to continue them.

    Raises UserError for prompts that no model should get, and flags that do not go together.
    """
    from utils import course_data

    for text in settings.prompt:
        if not text.strip() or text.endswith(" "):
            raise UserError(f"--prompt {text!r} is empty or ends with a space, which GPT-2's "
                            "tokens bring along: correct it")
    prompts = {"--prompt": settings.prompt} if settings.prompt else {}
    prompts |= course_data.load_prompts_file(settings.prompts) if settings.prompts else {}
    if prompts and settings.resume:
        raise UserError("--resume is for the lesson: with --prompt and --prompts nothing is kept")
    flags = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {name: getattr(settings, name) for name in flags if getattr(settings, name) is not None}
    if (given or settings.strategy) and not prompts:
        raise UserError("--strategy and the flags of decoding need --prompt or --prompts; the "
                        "lesson compares them all")
    strategy = settings.strategy or ("sampling" if given else "top-p")
    if not STRATEGIES[strategy]["do_sample"] and set(given) - {"repetition_penalty"}:
        raise UserError(f"--strategy {strategy} does not sample, so temperature, top-k, top-p and "
                        "min-p change nothing: leave them out or choose another strategy")
    return prompts, {**STRATEGIES[strategy], **given}


def continue_own(session, own: dict[str, list[str]], decoding: dict) -> dict:
    """--prompt and --prompts: continue own text, shown as it grows."""
    from views import ex_02 as views

    settings, answers = session.settings, []
    checkpoint, tokenizer, model = fetch_model(settings.model, session.device)
    check_context(model, tokenizer, sum(own.values(), []), settings.max_new_tokens)
    views.own_text(checkpoint, session.device, decoding, settings.seed)
    for category, prompts in own.items():
        for prompt in prompts:
            # Beam search decides between several texts at the end, so it cannot be streamed.
            streamer = None if "num_beams" in decoding else views.streamer(tokenizer)
            views.own_prompt(category, prompt)
            tokens = generate(model, tokenizer, [prompt], decoding, settings.max_new_tokens,
                              settings.seed, streamer)[0]
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            views.own_continuation("" if streamer else text)
            answers.append({"category": category, "prompt": prompt, "text": text})
    return {"model": checkpoint.name, "decoding": decoding, "generations": answers}


def lesson(session, data: dict) -> dict:
    """The four parts. data: see utils.course_data.load_sample_prompts."""
    from utils import embedding, movie_reviews
    from views import ex_02 as views

    settings = session.settings
    prompts = [prompt for group in data["generation"].values() for prompt in group]
    checkpoint, tokenizer, model = fetch_model(settings.model, session.device)
    lm = (model, tokenizer)
    check_context(*lm, prompts, settings.max_new_tokens)
    reviews = movie_reviews.load_reviews(settings.data, settings.seed, {"test": settings.queries},
                                         settings.text_column, settings.label_column)
    embedder, coherence = embedding.fetch(checkpoint.source, session.device)
    embed = embedder and functools.partial(embedder, pool=mean_pool)
    session.open("Exercise 2: generate text with GPT-2",
                 {"model": checkpoint.name, "source": checkpoint.source, "data": reviews.name,
                  "precision": "fp32", "coherence": coherence,
                  "prompts": f"{zlib.crc32(repr(data).encode()):x}"},
                 views.facts(checkpoint, model, reviews, coherence, session.device), disk_mb=20)

    session.part("next_token", "Part 1: one step of a language model",
                 "Which filters adapt to how sure the model is?",
                 lambda: {"prompts": surest_and_least_sure(*lm, prompts)}, views.next_token)
    texts = session.part("strategies", "Part 2: decoding strategies",
                         "Which repeat themselves, which lose the thread?",
                         lambda: compare_strategies(*lm, prompts, settings.max_new_tokens,
                                                    settings.seed),
                         functools.partial(views.strategies, data["generation"]))
    splits = {name: reviews.splits[name].to_dict() for name in ("train", "test")}
    session.part("sentiment", "Part 3: few-shot learning by prompt",
                 "Do more examples help, or do they shift the bias?", lambda: sentiment_by_prompt(
                     *lm, data["few_shot"]["sentiment"], splits), views.sentiment)
    session.part("capitals", "Part 3, continued: capitals", "What do examples teach here?",
                 lambda: capitals_by_prompt(*lm, data["few_shot"]["capitals"], settings.seed),
                 views.capitals)
    session.part("quality", "Part 4: measuring generated text",
                 "Which numbers agree with your own judgement?", lambda: quality(
                     *lm, embed, prompts, texts, splits["test"]["text"], settings.max_new_tokens),
                 functools.partial(views.quality, prompts, texts))
    return session.close()


def main(argv: list[str] | None = None) -> dict:
    """Run the exercise; returns what results.json holds. Raises UserError for a user's mistakes."""
    settings = parse(argv)
    own, decoding = own_text(settings)

    from utils import course_data
    from utils.session import Session

    with Session("ex_02", settings) as session:
        if own:
            return continue_own(session, own, decoding)
        return lesson(session, course_data.load_sample_prompts())


if __name__ == "__main__":
    runtime.run(main)
