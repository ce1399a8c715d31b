"""A chat model in this process.

Three things make it quick: the keys and values of the conversation so far stay in memory from turn
to turn, weights are read as 8-bit integers on a CPU, and a loop of a few lines takes the place of
`generate`, so that an answer stops where its reader stops. All else is float32 on a CPU.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import jinja2
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from assistant.backends import BackendError, Message, Options, Reply, well_formed
from assistant.thoughts import TAGS, without_thoughts
from utils import checkpoints, hub, runtime
from utils.runtime import UserError

CHUNK = 256  # tokens of a prompt computed at once: between two chunks the answer can be stopped
BLOCK = 96  # outputs whose sums fit into the registers of an ordinary CPU: 12 of 8 numbers
TEMPERATURE, TOP_P = 0.2, 0.9  # SmolLM2's model card; where a model brings its own, those count


class Int8Linear(nn.Module):
    """A linear layer that keeps its weights as 8-bit integers and reads them so for a single token.

    That reads every weight once and multiplies it once, so memory sets the pace, and a quarter of
    the bytes is up to four times the speed. The product is a sum of the columns of W weighted by
    the inputs, y = sum_i x_i W[:, i], which is what an embedding bag computes: torch's, made for
    the tables of recommender models, reads 8-bit rows with a scale and an offset each. Columns are
    cut into blocks, a bag each, so that the sums stay in registers and several threads share the
    work. A weight is off by half a step at the most, (largest - least of its block) / 510.
    (torch's own quantize_dynamic is deprecated, and rounds the inputs as well, by the largest of a
    whole prompt: what is kept from turn to turn would then change what is said.)
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.outputs, self.inputs = linear.weight.shape
        weight = nn.functional.pad(linear.weight.detach().float(), (0, 0, 0, -self.outputs % BLOCK))
        rows = weight.T.reshape(self.inputs, -1, BLOCK).transpose(0, 1).reshape(-1, BLOCK)
        self.packed = torch.ops.quantized.embedding_bag_byte_prepack(rows.contiguous())
        self.bias = linear.bias

    def weight(self) -> torch.Tensor:
        """The same numbers as float32, (outputs, inputs)."""
        rows = torch.ops.quantized.embedding_bag_byte_unpack(self.packed)
        return (rows.view(-1, self.inputs, BLOCK).transpose(1, 2)
                .reshape(-1, self.inputs)[:self.outputs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., inputs), float32; returns (..., outputs)."""
        if x.numel() > self.inputs:  # for several tokens at once arithmetic sets the pace
            return nn.functional.linear(x, self.weight(), self.bias)
        bags = -(-self.outputs // BLOCK)
        y = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self.packed, *bag_indices(bags, self.inputs),
            per_sample_weights=x.flatten().expand(bags, -1).reshape(-1))
        y = y.view(-1)[:self.outputs].view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


@functools.cache
def bag_indices(bags: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are in which bag: all rows in order, and the first of each bag."""
    rows = torch.arange(bags * inputs, dtype=torch.int32)
    return rows, rows[::inputs].contiguous()


def quantise(model: nn.Module) -> None:
    """Replace every nn.Linear by an Int8Linear. Embeddings, also tied ones, keep their weights."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))


@dataclass
class Prefix:
    """Tokens that the model has read, and their keys and values."""

    cache: DynamicCache
    ids: list[int] = field(default_factory=list)
    whole: bool = True  # False while a step is under way: layers may differ in length

    def keep_common(self, ids: list[int]) -> bool:
        """Cut it to what it has in common with `ids`, at most all but the last; False if it cannot
        be cut, as a layer with a sliding window has forgotten the older tokens."""
        common = 0
        while common < min(len(self.ids), len(ids) - 1) and self.ids[common] == ids[common]:
            common += 1
        if common < len(self.ids):
            if any(self.cache.is_sliding) or not getattr(self.cache, "is_croppable", True):
                return False
            self.cache.crop(common - len(self.ids))  # negative: so many tokens less
            del self.ids[common:]
        return True


class Local:
    """A Hugging Face chat model as a back end, see backends.Backend, for several chats at once."""

    where, exact = "on this computer", True

    def __init__(self, checkpoint: checkpoints.Checkpoint, device: str = "cpu",
                 int8: bool | None = None, reuse: bool = True) -> None:
        """Load the model. Raises UserError if it cannot be loaded or is not made for chats.

        int8: weights as 8-bit integers, on a CPU; None: where that is faster (x86), tiny models
        aside. reuse: keep keys and values from turn to turn. In float32 that changes no text; a
        GPU's bfloat16 rounds coarsely enough for two equally good words to change places.
        """
        checkpoints.check_family(checkpoint, "decoder")
        self.name, self.reuse = checkpoint.name, reuse
        self.tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
        if not self.tokenizer.chat_template:
            raise UserError(f"model {checkpoint.name!r} has no chat template, so it was not "
                            "trained to converse: name an instruction-tuned one with --model, such "
                            "as HuggingFaceTB/SmolLM2-135M-Instruct")
        if int8 is None:
            int8 = (device == "cpu" and checkpoint.source != "tiny"
                    and "fbgemm" in torch.backends.quantized.supported_engines)
        half = device == "cuda" and runtime.precision(device) == "bf16"
        self.model = checkpoints.load(AutoModelForCausalLM, checkpoint, dtype="auto").eval()
        if int8:  # from the file's own numbers, so that a large model never stands in float32
            quantise(self.model)
        self.model.to(device, torch.bfloat16 if half else torch.float32)
        self.context = getattr(self.model.config, "max_position_embeddings", None)
        own = self.model.generation_config
        self._sampling = (own.temperature or TEMPERATURE, own.top_p or TOP_P)
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        self._ends = {self.tokenizer.eos_token_id, *ends}
        marks = {token.content for token in self.tokenizer.added_tokens_decoder.values()
                 if token.special}.union(self.tokenizer.all_special_tokens)
        longest_first = sorted(map(re.escape, marks), key=len, reverse=True)
        self._special = re.compile("|".join(longest_first) or "(?!)")
        parameters = inspect.signature(self.model.forward).parameters
        # Renamed in transformers 5.40.
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._kept: deque[Prefix] = deque(maxlen=1)  # of the last answer; who answers takes it out

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens of the messages, with the template's own and the start of the answer."""
        return len(self._encode(messages))

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        """Yield the answer in pieces; "" now and then while a long prompt is read or the model
        thinks, so that it can be stopped there. Raises BackendError if the messages leave no room
        for an answer, or the model fails."""
        ids = self._encode(messages)
        room = self.context - len(ids) if self.context else options.max_new_tokens
        if room < 1:
            raise BackendError(f"The messages have {len(ids):,} tokens, and {self.name} takes "
                               f"{self.context:,} with the answer: shorten what you ask, or start "
                               "afresh with /reset.", too_long=True)
        prefix = self._take_prefix(ids)
        answer: list[int] = []
        reused, limit = len(prefix.ids), min(options.max_new_tokens, room)
        opened = self.tokenizer.decode(ids[-12:]).rstrip().endswith(TAGS)
        try:
            pieces = self._pieces(prefix, ids[reused:], answer, limit, options)
            text = yield from without_thoughts(pieces, thinking=opened)
        except RuntimeError as error:  # among them a GPU out of memory
            raise BackendError(f"{self.name} failed while it answered ({hub.one_line(error)}): ask "
                               "again, with shorter messages if memory ran out.") from error
        finally:
            if self.reuse and prefix.whole:
                self._kept.append(prefix)
        notes = ("ended, as it went round in circles",) if in_a_loop(answer) else ()
        return Reply(text, "length" if len(answer) == limit else "stop", len(ids), len(answer),
                     reused, notes)

    def _encode(self, messages: list[Message]) -> list[int]:
        messages = [{**message, "content": self._plain(message["content"])} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True)["input_ids"]
        except jinja2.TemplateError as error:
            raise BackendError(f"The chat template of {self.name} does not take these messages "
                               f"({hub.one_line(error)}).") from None

    def _plain(self, text: str) -> str:
        """Text in which nothing is a special token, such as the mark of a role: a space behind its
        first character makes "<|im_end|>" mere text."""
        text = well_formed(text)
        while (safe := self._special.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)) != text:
            text = safe
        return text

    def _take_prefix(self, ids: list[int]) -> Prefix:
        """What is kept of the turn before, cut to what `ids` begins with; else an empty one. Taken
        out, so that a second chat that asks meanwhile gets one of its own."""
        try:
            prefix = self._kept.pop()
        except IndexError:
            prefix = None
        if prefix is None or not prefix.keep_common(ids):
            prefix = Prefix(DynamicCache(config=self.model.config))
        return prefix

    def _pieces(self, prefix: Prefix, ids: list[int], answer: list[int], limit: int,
                options: Options) -> Iterator[str]:
        """Yield the text piece by piece; its tokens are added to `answer`, at most `limit`."""
        generator = None  # torch's own, which --seed has set
        if options.seed is not None:
            generator = torch.Generator().manual_seed(options.seed)
        temperature, top_p = self._sampling
        if options.temperature is not None:
            temperature = options.temperature
        while len(ids) > CHUNK:
            self._read(prefix, ids[:CHUNK])
            ids = ids[CHUNK:]
            yield ""
        text = ""
        while len(answer) < limit and not in_a_loop(answer):
            token = choose(self._read(prefix, ids), temperature, top_p, generator)
            if token in self._ends:
                break
            answer.append(token)
            # A character may take several tokens; until it is whole, it decodes as U+FFFD.
            whole = self._decode(answer).rstrip("\ufffd")
            yield whole[len(text):]
            text = max(text, whole, key=len)
            ids = [token]
        yield self._decode(answer)[len(text):]

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True,
                                     clean_up_tokenization_spaces=False)

    @torch.inference_mode()
    def _read(self, prefix: Prefix, ids: list[int]) -> torch.Tensor:
        """Feed tokens behind a prefix, which grows by them; return the next one's logits."""
        prefix.whole = False
        input_ids = torch.tensor([ids], device=self.model.device)
        output = self.model(input_ids, use_cache=True, logits_to_keep=1,
                            **{self._cache_name: prefix.cache})
        prefix.ids.extend(ids)
        prefix.whole = True
        return output.logits[0, -1].float().cpu()


def choose(logits: torch.Tensor, temperature: float, top_p: float,
           generator: torch.Generator | None) -> int:
    """The likeliest token (temperature 0), or one drawn from softmax(logits / temperature), of the
    fewest likeliest tokens whose probabilities reach top_p. logits: (vocabulary,)."""
    if not temperature:
        return int(logits.argmax())
    probs, tokens = (logits / temperature).softmax(-1).sort(descending=True)
    probs[probs.cumsum(-1) - probs >= top_p] = 0
    return int(tokens[torch.multinomial(probs, 1, generator=generator)])


def in_a_loop(tokens: list[int]) -> bool:
    """Whether a text ends with a run of tokens, three times or more, 48 tokens or more together:
    small models seldom find out of that. in_a_loop([1, 2] * 24) is True."""
    times = {size: max(3, -(-48 // size)) for size in range(1, 65)}
    return len(tokens) >= 48 and any(tokens[-size * n:] == tokens[-size:] * n
                                     for size, n in times.items())
