"""The assistant as a page in the browser, for this computer only. Gradio draws it.

What a model or a person wrote is shown as Markdown; HTML and pictures in it stay text, so that the
browser fetches nothing from elsewhere. The guide is served beside it, for the links of the tutor.
"""

from __future__ import annotations

import os
import re
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec

from assistant.backends import BackendError
from assistant.conversation import Conversation, Turn
from assistant.turn import GUIDE, Chat, Turns, about
from utils import reporting
from utils.runtime import UserError

ADDRESS = "127.0.0.1"
PAUSE = 0.1  # seconds between two pictures of a growing answer
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#chat .placeholder-content { padding: 0 1.5rem; }
#side { order: 2; } #side label { width: 100%; } #title p { opacity: 0.75; margin: 0; }
.about { opacity: 0.65; font-size: 0.82em; }
.problem { color: #b3261e; } .dark .problem { color: #ffb4ab; }
#sent textarea { font-family: ui-monospace, monospace; font-size: 0.82em; }
"""
EMPTY = ("**Ask a question.**\n\nWith the technique *retrieval* the course's guide answers, with "
         "links to its sections. Change the technique and press *Retry* below an answer to see "
         "what it does.")
STYLE = ("<meta charset=utf-8><meta name=viewport content='width=device-width'><style>"
         ":root{color-scheme:light dark;font-family:system-ui;line-height:1.5}"
         "body{max-width:50rem;margin:auto;padding:1rem}"
         "pre{overflow-x:auto}img{max-width:100%}:target{background:Highlight}</style>")


def check_port(port: int) -> None:
    """Raise UserError if there can be no page, before a model is fetched for it."""
    if find_spec("gradio") is None:
        raise UserError('--web needs gradio, which is not installed: pip install "gradio>=6,<7"')
    try:
        socket.create_server((ADDRESS, port)).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "a port is at most 65535"
        raise UserError(f"--port {port}: cannot be opened ({reason}): choose another one, or end "
                        "what uses it, perhaps another page of this script") from None


def serve(chat: Chat, ask: Callable[..., Turns], port: int) -> dict:
    """Show the page until Ctrl-C; each tab of a browser has a conversation of its own."""
    with no_proxies():
        demo = build(chat, ask)
        launch(demo, port)
    reporting.say(f"Open http://{ADDRESS}:{port} in your browser; Ctrl-C here ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        demo.close(verbose=False)
    return {"model": chat.backend.name}


@contextmanager
def no_proxies() -> Iterator[None]:
    """Without the environment's proxies: the page needs none, and Gradio fails at a kind that it
    cannot use, or asks one for this computer."""
    proxies = {name: os.environ.pop(name) for name in list(os.environ)
               if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(proxies)


def launch(demo, port: int) -> None:
    """Start the page's server, for requests from this computer's own browser only."""
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    # A foreign page's name may be made to point to 127.0.0.1, which shows in the header Host.
    here = Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"])
    demo.launch(server_name=ADDRESS, server_port=port, share=False, quiet=True, inbrowser=False,
                prevent_thread_lock=True, ssr_mode=False, footer_links=[], run_history=False,
                enable_monitoring=False, pwa=False, mcp_server=False, max_file_size=1, css=CSS,
                theme=gr.themes.Soft(primary_hue="blue", font=["system-ui", "sans-serif"],
                                     font_mono=["ui-monospace", "monospace"]),
                app_kwargs={"middleware": [here, Middleware(OwnPictures)],
                            "docs_url": None, "redoc_url": None,
                            "routes": [Route("/guide/{name}", guide_page),
                                       Mount("/guide/images",
                                             StaticFiles(directory=GUIDE / "images"))]})


def build(chat: Chat, ask: Callable[..., Turns]):
    """The page as Gradio's Blocks."""
    # Before the import: nothing leaves this computer.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio as gr

    def answer(question, history, technique, persona, turns):
        yield from converse(chat, ask, question, history, technique, persona, turns)

    context = f", {chat.backend.context:,} tokens of context" if chat.backend.context else ""
    personas = [("as given at the start" if chat.conversation.system else "none", "")]
    personas += [(f"{name}: {who['description']}", name)
                 for name, who in chat.data["personas"].items()]
    loaded: list = [message for turn in chat.conversation.turns
                    for message in ({"role": "user", "content": guarded(turn.user)}, shown(turn))]
    with gr.Blocks(title="AI assistant", analytics_enabled=False) as demo:
        gr.Markdown("# An AI assistant\n"
                    f"{literal(f'{chat.backend.name}, {chat.backend.where}{context}')}",
                    elem_id="title")
        with gr.Row():
            with gr.Column(scale=1, min_width=290, elem_id="side"):
                technique = gr.Radio(
                    [(f"{name}: {each.description}", name)
                     for name, each in chat.techniques.items()],
                    value=chat.technique, label="Prompting technique", elem_id="technique")
                persona = gr.Dropdown(personas, value="", label="Persona (system prompt)")
                with gr.Accordion("What was sent to the model", open=False, elem_id="prompt"):
                    sent = gr.Textbox(show_label=False, interactive=False, lines=4, max_lines=20,
                                      elem_id="sent")
            with gr.Column(scale=3, min_width=320):
                chat_interface = gr.ChatInterface(
                    answer,
                    additional_inputs=[technique, persona,
                                       gr.State(dict(enumerate(chat.conversation.turns)))],
                    additional_outputs=[sent], api_visibility="private", show_progress="hidden",
                    chatbot=gr.Chatbot(loaded, show_label=False, height="62vh", placeholder=EMPTY,
                                       buttons=["copy"], feedback_options=None, latex_delimiters=[],
                                       allow_tags=False, elem_id="chat"),
                    textbox=gr.Textbox(placeholder="Your question; Enter sends it",
                                       show_label=False, submit_btn=True, stop_btn=True,
                                       autofocus=True, elem_id="box"))
                chatbot = chat_interface.chatbot
                chat_interface.textbox.stop(stopped, chatbot,
                                            [chatbot, chat_interface.chatbot_state],
                                            queue=False, api_visibility="private")
    return demo


def converse(chat: Chat, ask: Callable[..., Turns], question: str, history: list[dict],
             technique: str, persona: str, turns: dict[int, Turn]) -> Iterator[tuple[dict, str]]:
    """Yield the message to show, again and again, and what was sent to the model.

    history: the messages on the page. turns: those of this tab, by their place among the
    questions on the page; a question that failed has none, and what was retried or cleared there
    goes here, too.
    """
    place = sum(message["role"] == "user" for message in history)
    for gone in [each for each in turns if each >= place]:
        del turns[gone]
    conversation = Conversation(chat.conversation.system, chat.conversation.persona,
                                turns=[*turns.values()])
    one = replace(chat, conversation=conversation, sent=[])
    try:
        if persona:
            one.set_persona(persona)
        one.set_technique(technique)
        for turn in paced(ask(one, question)):
            yield shown(turn), prompt(one)
    except (BackendError, UserError) as error:
        yield problem(f"{error} Nothing of this turn is kept; Retry asks again."), prompt(one)
    except Exception:
        traceback.print_exc()  # for the terminal only
        yield problem("This failed inside the program; its terminal shows where."), prompt(one)
    finally:  # also when Stop or a closed tab ends this generator
        if len(conversation.turns) > len(turns):
            turns[place] = conversation.turns[-1]


def paced(turns: Turns) -> Iterator[Turn]:
    """The turn as it grows, at most every PAUSE seconds, and whole."""
    last = float("-inf")
    with closing(turns):
        for turn in turns:
            if time.monotonic() - last >= PAUSE:
                last = time.monotonic()
                yield turn
    yield turn


def prompt(chat: Chat) -> str:
    """What the newest turn has sent, as text."""
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in chat.sent)


def shown(turn: Turn) -> dict:
    """An answer as Gradio wants it: what the guide says, the model's words, what is known about
    them. Each is Markdown of its own: an open code fence ends with its text."""
    parts = [guarded(turn.assistant) or "…"]
    if turn.sources:
        links = {f"[{literal(each.heading)}](/guide/{each.link})": literal(each.quote)
                 for each in turn.sources}
        quoted = "\n\nand ".join(f"in {link}:\n\n> {quote}"
                                 for link, quote in links.items() if quote)
        others = " · ".join(link for link, quote in links.items() if not quote)
        also = f"\n\nSee also {others}" * bool(others)
        parts.insert(0, f"**The guide says** {quoted}{also}")
        parts.insert(1, "**In the model's own words:**")
    known = " · ".join(filter(None, (turn.technique, about(turn))))
    parts.append(f'<span class="about">{literal(known)}</span>')
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in parts]}


def stopped(history: list[dict]) -> tuple[list[dict], list[dict]]:
    """The messages on the page, the last answer marked as stopped; once to show, once to keep."""
    if history and history[-1]["role"] == "assistant":
        mark = {"type": "text", "text": '<span class="about">(stopped)</span>'}
        history[-1]["content"] = [*history[-1]["content"], mark]
    return history, history


def problem(text: str) -> dict:
    """What stands in an answer's place when there is none."""
    return {"role": "assistant", "content": f'<span class="problem">{literal(text)}</span>'}


def guarded(text: str) -> str:
    """Markdown in which HTML and pictures are text, those in code aside, which are text already.

    guarded("<b> `<b>` ![x](y)") is "&lt;b> `<b>` !\\[x](y)".
    """
    def outside_code(part: str) -> str:
        return re.sub(r"!(?=\[)", r"!\\", re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", part))

    parts = re.split(r"(^ {0,3}```.*?(?:^ {0,3}```|\Z)|(?<!`)`[^`\n]+`(?!`))",
                     reporting.printable(text), flags=re.DOTALL | re.MULTILINE)
    return "".join(part if i % 2 else outside_code(part) for i, part in enumerate(parts))


def literal(text: str) -> str:
    """Text whose punctuation means nothing to Markdown or HTML."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda mark: f"&#{ord(mark[0])};",
                  " ".join(reporting.printable(text).split()))


class OwnPictures:
    """Lets the browser fetch no picture from elsewhere, though a question may hold its address."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_rule(message) -> None:
            if message["type"] == "http.response.start":
                rule = (b"content-security-policy", b"img-src 'self' data: blob:")
                message = {**message, "headers": [*message.get("headers", []), rule]}
            await send(message)

        await self.app(scope, receive, send_with_rule)


def guide_page(request):
    """A page of the guide as HTML; its headings have the names that links to sections use."""
    from markdown_it import MarkdownIt
    from starlette.responses import HTMLResponse

    from assistant.retrieval import github_anchor

    page = {path.name: path for path in GUIDE.glob("*.md")}.get(request.path_params["name"])
    if page is None:
        return HTMLResponse("There is no such page.", 404)
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(page.read_text(encoding="utf-8"))
    seen: Counter[str] = Counter()
    for token, inline in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            anchor = github_anchor(inline.content)
            token.attrSet("id", f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return HTMLResponse(STYLE + markdown.renderer.render(tokens, markdown.options, {}))
