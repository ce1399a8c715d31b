"""A chat model in this process.

Three things make it quick: the keys and values of the conversation so far stay in memory from turn to turn, weights
are read as 8-bit integers on a CPU, and a loop of a few lines takes the place of `generate`, so that an answer stops
where its reader stops.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

import jinja2
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer

from assistant.backends import BackendError, Message, Options, Reply, well_formed
from utils import checkpoints, hub, runtime
from utils.runtime import UserError

CHUNK = 256  # tokens of a prompt computed at once: between two chunks the answer can be stopped
BLOCK = 96  # outputs whose sums fit into the registers of an ordinary CPU: 12 of 8 numbers


class Int8Linear(nn.Module):
    """A linear layer that reads its weights as 8-bit integers when it computes a single token.

    That reads every weight once and multiplies it once, so memory sets the pace, and a quarter of the bytes is up to
    four times the speed. The product is a sum of the columns of W weighted by the inputs, y = sum_i x_i W[:, i], which
    is what an embedding bag computes: torch's, made for the tables of recommender models, reads 8-bit rows, each with
    a scale and an offset of its own. Columns are cut into blocks (a bag each), so that the sums stay in registers and
    several threads share the work. A weight is off by half a step at the most, (largest - least of its block) / 510.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.outputs, inputs = linear.weight.shape
        weight = nn.functional.pad(linear.weight.detach().float(), (0, 0, 0, -self.outputs % BLOCK))
        rows = weight.T.reshape(inputs, -1, BLOCK).transpose(0, 1).reshape(-1, BLOCK)  # by block, then by input
        self.packed = torch.ops.quantized.embedding_bag_byte_prepack(rows.contiguous())
        # For several tokens at once arithmetic sets the pace: the same numbers as float32, (outputs, inputs).
        rows = torch.ops.quantized.embedding_bag_byte_unpack(self.packed)
        self.weight = rows.view(-1, inputs, BLOCK).transpose(1, 2).reshape(-1, inputs)[:self.outputs].contiguous()
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., inputs), float32; returns (..., outputs)."""
        if x.numel() > x.shape[-1]:
            return nn.functional.linear(x, self.weight, self.bias)
        bags = -(-self.outputs // BLOCK)
        y = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self.packed, *bag_indices(bags, x.shape[-1]), per_sample_weights=x.flatten().expand(bags, -1).reshape(-1))
        y = y.view(-1)[:self.outputs].view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


@functools.cache
def bag_indices(bags: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are in which bag: all rows in order, and the first of each bag."""
    rows = torch.arange(bags * inputs, dtype=torch.int32)
    return rows, rows[::inputs].contiguous()


def quantise(model: nn.Module) -> None:
    """Replace every nn.Linear in a model by an Int8Linear. Embeddings, also tied ones, keep their own weights."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))


@dataclass
class Prefix:
    """Tokens that the model has read, and their keys and values."""

    cache: DynamicCache
    ids: list[int] = field(default_factory=list)

    def keep_common(self, ids: list[int]) -> bool:
        """Cut the prefix to what it has in common with `ids`, at most all but the last; False if that cannot be done.

        A layer with a sliding window has forgotten the older tokens, so it cannot be taken back.
        """
        common = 0
        while common < min(len(self.ids), len(ids) - 1) and self.ids[common] == ids[common]:
            common += 1
        if common < len(self.ids):
            if not all(type(layer) is DynamicLayer for layer in self.cache.layers):
                return False
            self.cache.crop(common - len(self.ids))  # negative: so many tokens less
            del self.ids[common:]
        return True


class Local:
    """A Hugging Face chat model as a back end (see backends.Backend). Several conversations may use it at a time."""

    where, exact = "on this computer", True

    def __init__(self, checkpoint: checkpoints.Checkpoint, device: str = "cpu", int8: bool | None = None,
                 reuse: bool = True) -> None:
        """Load the model. Raises UserError if it cannot be loaded or is not made for chats.

        int8: weights as 8-bit integers, on a CPU; None does so where it is faster (x86), except for tiny models.
        reuse: keep keys and values from turn to turn. In float32 that changes no text; a GPU's bfloat16 rounds coarsely
        enough for two equally good words to change places.
        """
        checkpoints.check_family(checkpoint, "decoder")
        self.name, self.reuse = checkpoint.name, reuse
        self.tokenizer = checkpoints.load(AutoTokenizer, checkpoint)
        if not self.tokenizer.chat_template:
            raise UserError(f"model {checkpoint.name!r} has no chat template, so it was not trained to converse: name "
                            "an instruction-tuned one with --model, such as HuggingFaceTB/SmolLM2-135M-Instruct")
        half = device == "cuda" and runtime.precision(device) == "bf16"
        self.model = checkpoints.load(AutoModelForCausalLM, checkpoint,
                                      dtype=torch.bfloat16 if half else torch.float32).eval()
        if int8 is None:
            int8 = (device == "cpu" and checkpoint.source != "tiny"
                    and "fbgemm" in torch.backends.quantized.supported_engines)
        if int8:
            quantise(self.model)
        self.model.to(device)
        self.context = getattr(self.model.config, "max_position_embeddings", None)
        ends = self.model.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        special |= set(self.tokenizer.all_special_tokens)
        self._special = re.compile("|".join(re.escape(t) for t in sorted(special, key=len, reverse=True)) or "(?!)")
        self._kept: deque[Prefix] = deque(maxlen=1)  # of the last answer; whoever answers takes it out

    def count_tokens(self, messages: list[Message]) -> int:
        """How many tokens the messages are, with the template's own and the start of the answer."""
        return len(self._encode(messages))

    def stream(self, messages: list[Message], options: Options) -> Generator[str, None, Reply]:
        """Yield the answer in pieces; "" now and then while a long prompt is read, so that it can be stopped there.

        Raises BackendError if the messages leave no room for an answer, or the model fails.
        """
        ids = self._encode(messages)
        room = self.context - len(ids) if self.context else options.max_new_tokens
        if room < 1:
            raise BackendError(f"The messages have {len(ids):,} tokens, and {self.name} takes {self.context:,} with "
                               "the answer: shorten what you ask, or start afresh with /reset.", too_long=True)
        prefix = self._take_prefix(ids)
        reused = len(prefix.ids)
        limit = min(options.max_new_tokens, room)
        try:
            text, reason, tokens = yield from self._answer(prefix, ids[reused:], limit, options)
        except RuntimeError as error:  # among them a GPU out of memory
            raise BackendError(f"{self.name} failed while it answered ({hub.one_line(error)}): ask again, with shorter "
                               "messages if memory ran out.") from error
        finally:
            # Also when the reader stops. A step that broke off midway may have left layers of different lengths.
            if self.reuse and all(layer.get_seq_length() == len(prefix.ids) for layer in prefix.cache.layers):
                self._kept.append(prefix)
        return Reply(text, reason, len(ids), tokens, reused)

    def _encode(self, messages: list[Message]) -> list[int]:
        messages = [{**message, "content": self._plain(message["content"])} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        except jinja2.TemplateError as error:
            raise BackendError(f"The chat template of {self.name} does not take these messages "
                               f"({hub.one_line(error)}).") from None

    def _plain(self, text: str) -> str:
        """Text in which nothing is a special token, such as the mark of a role, and nothing cannot be encoded.

        A space behind its first character makes "<|im_end|>" mere text.
        """
        text = well_formed(text)
        while (safe := self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
            text = safe
        return text

    def _take_prefix(self, ids: list[int]) -> Prefix:
        """What is kept of the turn before, cut to what `ids` begins with; else an empty one.

        Taken out, so that a second conversation that answers meanwhile gets one of its own.
        """
        try:
            prefix = self._kept.pop()
        except IndexError:
            prefix = None
        if prefix is None or not prefix.keep_common(ids):
            prefix = Prefix(DynamicCache(config=self.model.config))
        return prefix

    def _answer(self, prefix: Prefix, ids: list[int], limit: int, options: Options):
        """Yield the pieces; return the text, why it ended, and its number of tokens."""
        generator = None  # torch's own, which --seed has set
        if options.seed is not None:
            generator = torch.Generator().manual_seed(options.seed)
        while len(ids) > CHUNK:
            self._read(prefix, ids[:CHUNK])
            ids = ids[CHUNK:]
            yield ""
        answer, text, reason = [], "", "length"
        while True:
            token = choose(self._read(prefix, ids), options.temperature, generator)
            if token in self._ends:
                reason = "stop"
                break
            answer.append(token)
            if len(answer) == limit:
                break
            # A character may take several tokens; until it is whole, it decodes as U+FFFD.
            whole = self._decode(answer).rstrip("\ufffd")
            if len(whole) > len(text):
                yield whole[len(text):]
                text = whole
            ids = [token]
        rest = self._decode(answer)[len(text):]
        if rest:
            yield rest
        return text + rest, reason, len(answer)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @torch.inference_mode()
    def _read(self, prefix: Prefix, ids: list[int]) -> torch.Tensor:
        """Feed tokens behind a prefix, which grows by them; return the logits of the next one, (vocabulary,)."""
        input_ids = torch.tensor([ids], device=self.model.device)
        output = self.model(input_ids, past_key_values=prefix.cache, use_cache=True, logits_to_keep=1)
        prefix.ids.extend(ids)
        return output.logits[0, -1].float().cpu()


def choose(logits: torch.Tensor, temperature: float | None, generator: torch.Generator | None) -> int:
    """The likeliest token (temperature None or 0), or one drawn from softmax(logits / temperature)."""
    if not temperature:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
