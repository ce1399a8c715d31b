"""The assistant as a page in the browser, for this computer only. It knows the assistant by its methods only.

Gradio draws the page. What a model or a person wrote is shown as text and Markdown; HTML in it stays text, and a
Content-Security-Policy keeps the browser from fetching anything from elsewhere, such as a picture that an answer names.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain

from assistant.backends import BackendError
from assistant.conversation import Conversation, Turn
from utils import reporting
from utils.runtime import UserError

ADDRESS = "127.0.0.1"
PAUSE = 0.1  # seconds between two pictures of a growing answer
POLICY = ("default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
          "form-action 'self'; frame-ancestors 'none'")
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#title h1 { margin: 0.4rem 0 0; } #title p { opacity: 0.75; margin: 0; }
.about { opacity: 0.65; font-size: 0.82em; } .problem { color: #b3261e; } .dark .problem { color: #ffb4ab; }
#technique label { width: 100%; }
#chat .placeholder { padding: 0 1.5rem; }
#sent textarea { font-family: ui-monospace, monospace; font-size: 0.82em; }
"""
EMPTY = ("**Ask a question.**\n\nWith the technique *retrieval* the answer comes from the course's guide, and its "
         "sections are named below it. Change the technique and press *Retry* to see what it does.")


def listen(port: int) -> socket.socket:
    """A socket at this computer's own address; port 0 takes a free one. Raises UserError if there can be no page."""
    if find_spec("gradio") is None:
        raise UserError('--web needs gradio, which is not installed: python -m pip install "gradio>=6,<7"')
    try:
        return socket.create_server((ADDRESS, port))
    except (OSError, OverflowError) as error:
        used = getattr(error, "errno", None) in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", None))
        why = "is in use, perhaps by another page of this script" if used else f"cannot be opened ({error})"
        raise UserError(f"port {port} {why}: choose another one with --port") from None


def serve(make: Callable, techniques: dict[str, str], listener: socket.socket) -> None:
    """Show the page until Ctrl-C. make() returns a fresh assistant, for each browser tab its own; techniques: what can
    be chosen, name -> description; listener: from `listen`."""
    server = prepare_server(build(make, techniques))
    reporting.say(f"Open http://{ADDRESS}:{listener.getsockname()[1]} in your browser; Ctrl-C here ends it.")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def prepare_server(demo):
    """A uvicorn server for the page, for requests from this computer's own browser only."""
    import fastapi
    import gradio as gr
    import uvicorn

    nothing_else = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = fastapi.FastAPI(**nothing_else)
    gr.mount_gradio_app(app, demo, "/", server_name=ADDRESS, app_kwargs=nothing_else, footer_links=[],
                        run_history=False, show_error=False, enable_monitoring=False, ssr_mode=False, pwa=False,
                        mcp_server=False, max_file_size=1,  # byte: nothing is to be uploaded
                        theme=gr.themes.Soft(primary_hue="blue", font=["system-ui", "sans-serif"],
                                             font_mono=["ui-monospace", "monospace"]), css=CSS)
    server = uvicorn.Server(uvicorn.Config(Guard(app), log_level="error", proxy_headers=False, server_header=False,
                                           timeout_graceful_shutdown=1))
    # The streams of open tabs do not end by themselves: when the server ends, they are cut off, which is no error.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    return server


class Guard:
    """ASGI middleware: refuses requests that another web page could have made, and adds the security policy.

    A foreign site cannot read this address. But its own name may be made to point to 127.0.0.1 (DNS rebinding), which
    shows in the header Host; and it may send without reading, which shows in Origin.
    """

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_policy(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if is_local([value.decode("latin-1") for name, value in scope["headers"] if name == b"host"],
                    [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]):
            return await self.app(scope, receive, send_with_policy)
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"This page answers on this computer only."})


def is_local(hosts: list[str], origins: list[str]) -> bool:
    """Whether the headers Host and Origin of a request are those of a page from this address."""
    return (len(hosts) == 1 and re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", hosts[0]) is not None
            and all(origin == f"http://{hosts[0]}" for origin in origins))


# What is shown


def guarded(text: str) -> str:
    """Markdown in which HTML and pictures are text, those in code aside, where they are text already.

    guarded("<b> `<b>` ![x](y)") is "&lt;b> `<b>` !\\[x](y)".
    """
    def outside_code(part: str) -> str:
        return re.sub(r"!(?=\[)", r"!\\", re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", part))

    parts = re.split(r"(^ {0,3}```.*?(?:^ {0,3}```|\Z)|(?<!`)`[^`\n]+`(?!`))", reporting.printable(text),
                     flags=re.DOTALL | re.MULTILINE)
    return "".join(part if i % 2 else outside_code(part) for i, part in enumerate(parts))


def literal(text: str) -> str:
    """Text whose punctuation means nothing to Markdown or HTML."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda match: f"&#{ord(match[0])};", " ".join(reporting.printable(text).split()))


def about(turn: Turn) -> str:
    """What is to be said about an answer, in one line."""
    facts = [turn.technique]
    if turn.completion_tokens is not None:
        reused = f", {turn.reused_tokens} of them reused" if turn.reused_tokens else ""
        read = "" if turn.prompt_tokens is None else f" after {turn.prompt_tokens}{reused}"
        facts.append(f"{turn.completion_tokens} tokens{read}")
    if turn.seconds is not None:
        facts.append(f"{turn.seconds:.1f} s")
    return " · ".join([*facts, *turn.notes])


def message(role: str, *texts: str) -> dict:
    """A message as Gradio wants it. Each text is Markdown of its own: an open code fence ends with its text."""
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def answered(turn: Turn) -> list[dict]:
    """A question and its answer, with the sources and what is known about it below."""
    below = [f'<span class="about">{literal(about(turn))}</span>']
    if turn.sources:
        below.insert(0, "**Sources in the guide:** " + " · ".join(map(literal, turn.sources)))
    return [message("user", guarded(turn.user)), message("assistant", guarded(turn.assistant), *below)]


# What happens


@dataclass
class Session:
    """What belongs to one tab of the browser."""

    assistant: object
    system: str  # the prompt for the choice "no persona": empty, or what was given at the start
    problem: str = ""  # why the last question has no answer
    stop: threading.Event = field(default_factory=threading.Event)

    def picture(self, turns: list[Turn] | None = None, question: str = "", part: str = "") -> list[dict]:
        """The messages to show: the turns (default: all), then a question that is being answered, or the problem."""
        conversation = self.assistant.conversation
        shown = list(chain.from_iterable(map(answered, conversation.turns if turns is None else turns)))
        if question:
            return [*shown, message("user", guarded(question)), message("assistant", guarded(part) or "…")]
        if self.problem:
            if conversation.failed is not None:
                shown.append(message("user", guarded(conversation.failed)))
            shown.append(message("assistant", f'<span class="problem">{literal(self.problem)}</span>'))
        return shown

    def settle(self, technique: str, persona: str) -> None:
        """Apply what is chosen on the page. Raises UserError if that cannot be had, such as a guide that is missing."""
        conversation = self.assistant.conversation
        if technique != self.assistant.technique:
            self.assistant.set_technique(technique)
        if persona:
            self.assistant.set_persona(persona)
        else:
            conversation.system, conversation.persona = self.system, None


class Page:
    """What the buttons of the page do. The model behind all tabs answers one question at a time."""

    def __init__(self, make: Callable) -> None:
        self.make, self.model = make, threading.Lock()

    def begin(self) -> Session:
        """A session with an assistant of its own."""
        assistant = self.make()
        conversation = assistant.conversation
        if conversation.persona not in assistant.data["personas"]:  # a saved chat may name one that is no more
            conversation.persona = None
        return Session(assistant, "" if conversation.persona else conversation.system)

    def answer(self, session: Session, question: str | None, technique: str, persona: str) -> Generator:
        """Answer a question, or with None ask the last one again. Yields the messages to show, again and again.

        Whatever ends it early, the history holds whole turns only: see Assistant.ask.
        """
        conversation, before = session.assistant.conversation, session.assistant.conversation.turns
        again = question is None and conversation.failed is None
        turns = before[:-1] if again else before
        asked = question or conversation.failed or "".join(turn.user for turn in before[-1:])
        session.problem = ""
        session.stop.clear()
        yield session.picture(turns, asked)
        try:
            with self.turn(session) as is_ours:
                if is_ours:
                    if technique != session.assistant.technique:  # the guide, for one, is read when it is first needed
                        yield session.picture(turns, asked, f"… (getting ready: {technique})")
                    session.settle(technique, persona)
                    pieces = session.assistant.retry() if question is None else session.assistant.ask(question)
                    yield from self.follow(session, pieces, turns, asked)
                elif not again:
                    conversation.failed = asked
            if session.stop.is_set() and conversation.turns is before:
                session.problem = "Stopped before the answer began; not kept. Retry asks again."
        except (BackendError, UserError) as error:
            session.problem = f"{error} Nothing of this turn is kept; Retry asks again."
        except Exception:
            traceback.print_exc()  # for the terminal only
            session.problem = "This failed inside the program; its terminal shows where. Retry asks again."
        yield session.picture()

    @contextmanager
    def turn(self, session: Session) -> Generator[bool, None, None]:
        """Wait until no other tab has the model, and have it; False if Stop was pressed meanwhile."""
        while not (is_ours := self.model.acquire(timeout=PAUSE)) and not session.stop.is_set():
            pass
        try:
            yield is_ours
        finally:
            if is_ours:
                self.model.release()

    @staticmethod
    def follow(session: Session, pieces: Generator, turns: list[Turn], asked: str) -> Generator:
        """Yield what to show while an answer grows; Stop, or closing this generator, ends the answer too."""
        part, shown = "", float("-inf")
        with closing(pieces):
            for piece in pieces:
                part += piece
                if session.stop.is_set():
                    return
                if time.monotonic() - shown >= PAUSE:
                    shown = time.monotonic()
                    yield session.picture(turns, asked, part)

    @staticmethod
    def clear(session: Session) -> None:
        """Forget the conversation; an answer that is still being written goes with the old one."""
        session.stop.set()
        session.problem = ""
        session.assistant.conversation = Conversation()


def build(make: Callable, techniques: dict[str, str]):
    """The page as Gradio's Blocks: what stands where, and which button calls what."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves this computer
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio as gr

    page = Page(make)
    first = page.begin()
    backend, personas = first.assistant.backend, first.assistant.data["personas"]
    context = f", {backend.context:,} tokens of context" if backend.context else ""
    with gr.Blocks(title="AI assistant", analytics_enabled=False) as demo:
        session = gr.State()
        gr.Markdown(f"# An AI assistant\n{literal(f'{backend.name}, {backend.where}{context}')}", elem_id="title")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                chat = gr.Chatbot(show_label=False, height="62vh", placeholder=EMPTY, buttons=["copy"],
                                  feedback_options=None, latex_delimiters=[], allow_tags=False, elem_id="chat")
                box = gr.Textbox(placeholder="Your question; Enter sends it", show_label=False, lines=1, max_lines=8,
                                 interactive=False, elem_id="box")  # until the session has begun
                with gr.Row():
                    buttons = [gr.Button(name, variant=variant, min_width=70, interactive=False, elem_id=name.lower())
                               for name, variant in (("Send", "primary"), ("Stop", "stop"), ("Retry", "secondary"),
                                                     ("Clear", "secondary"))]
            with gr.Column(scale=1, min_width=290):
                technique = gr.Radio([(f"{name}: {what}", name) for name, what in techniques.items()],
                                     label="Prompting technique", elem_id="technique")
                persona = gr.Dropdown([("as given at the start" if first.system else "none", ""), *(
                    (f"{name}: {who['description']}", name) for name, who in personas.items())],
                    label="Persona (system prompt)", elem_id="persona")
        with gr.Accordion("What was sent to the model", open=False, elem_id="prompt"):
            sent = gr.Textbox(show_label=False, interactive=False, lines=4, max_lines=20, elem_id="sent")
        wire(page, demo, session, chat, box, buttons, technique, persona, sent)
    return demo


def wire(page: Page, demo, session, chat, box, buttons: list, technique, persona, sent) -> None:
    """Which event calls what. None of them is offered as an API."""
    import gradio as gr

    send, stop, retry, clear = buttons
    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    shown = [session, chat, sent, *buttons]

    def look(state: Session, picture: list[dict], busy: bool) -> list:
        prompt = "\n\n".join(f"{m['role']}: {m['content']}" for m in state.assistant.sent)
        return [state, picture, prompt, *(gr.update(interactive=(button is stop) == busy) for button in buttons)]

    def opened():
        state = page.begin()
        assistant = state.assistant
        return [*look(state, state.picture(), False), assistant.technique, assistant.conversation.persona or "",
                gr.update(interactive=True, autofocus=True)]

    def answered_again(state: Session | None, technique: str, persona: str, question: str | None = None):
        state = state or page.begin()  # a tab that has outlived the server
        with closing(page.answer(state, question, technique, persona)) as pictures:
            for picture in pictures:
                yield look(state, picture, True)
        yield look(state, picture, False)

    def asked(state: Session | None, text: str, technique: str, persona: str):
        if text.strip():
            taken = ""  # out of the box, once: who types on meanwhile keeps that
            for values in answered_again(state, technique, persona, text):
                yield [*values, taken]
                taken = gr.skip()

    def cleared(state: Session | None):
        state = state or page.begin()
        page.clear(state)
        return look(state, [], False)

    demo.load(opened, None, [*shown, technique, persona, box], **quiet)
    gr.on([box.submit, send.click], asked, [session, box, technique, persona], [*shown, box], **quiet)
    retry.click(answered_again, [session, technique, persona], shown, **quiet)
    gr.on([clear.click, chat.clear], cleared, session, shown, **quiet)
    stop.click(lambda state: state and state.stop.set(), session, None, queue=False, **quiet)
