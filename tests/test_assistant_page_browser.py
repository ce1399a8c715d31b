"""The page in a real headless Chromium, with the packaged model behind it."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from utils.runtime import REPOSITORY

pytestmark = pytest.mark.real
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,1040").split()
PATIENCE = 200  # seconds for what a slow, busy machine may take


def wait_for(what, message: str, seconds: float = PATIENCE):
    """Call `what` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script with --web as a process: (address, process, its output's file)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("web")
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, REPOSITORY / "code" / "ex_04_ai_assistant.py", "--web", "--model", "packaged", "--port",
             str(port), "--output", folder / "out"], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        try:
            return urllib.request.urlopen(address, timeout=5).status == 200
        except (urllib.error.URLError, TimeoutError):
            return False

    try:
        wait_for(answers, "the page did not come up", 400)
        yield address, process, folder / "log.txt"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Chromium, driven by selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


class Visitor:
    """Somebody at the page."""

    def __init__(self, chromium, address: str) -> None:
        self.window = chromium
        chromium.get(address)
        wait_for(lambda: self.find("#box textarea") and self.find("#box textarea")[0].is_enabled(), "no page")

    def find(self, selector: str) -> list:
        return self.window.find_elements("css selector", selector)

    def texts(self, who: str) -> list[str]:
        """What the messages of "user" or "bot" say, as a person would read them."""
        return self.window.execute_script("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)",
                                          f"#chat .{who}-row")

    def last(self) -> str:
        return (self.texts("bot") or [""])[-1]

    def ask(self, question: str) -> None:
        self.find("#box textarea")[0].send_keys(question + "\n")
        wait_for(lambda: any(question[:20] in text for text in self.texts("user")), "the question is not shown")

    def press(self, name: str) -> None:
        wait_for(lambda: self.find(f"#{name}")[0].is_enabled(), f"{name} cannot be pressed")
        self.find(f"#{name}")[0].click()

    def choose(self, technique: str) -> None:
        self.find(f"#technique input[value='{technique}']")[0].click()

    def ended(self) -> str:
        """The last answer, when there is no more to come."""
        wait_for(lambda: self.find("#send")[0].is_enabled(), lambda: f"no end: {self.last()}")
        return self.last()

    def grows(self, times: int) -> list[str]:
        """The last answer at as many moments, each time with more of it."""
        seen = [""]
        while len(seen) <= times:
            seen.append(wait_for(lambda: (text := self.last().strip(" …\n")) != seen[-1] and text,
                                 f"no more came than {seen}"))
        return seen[1:]


@pytest.fixture
def visitor(chromium, script):
    return Visitor(chromium, script[0])


def test_an_answer_streams_stops_and_is_asked_again(visitor, tmp_path):
    assert "SmolLM2" in visitor.find("#title")[0].text and "on this computer" in visitor.find("#title")[0].text
    visitor.ask("Tell me a long story about a river.")
    seen = visitor.grows(4)
    assert all(later.startswith(earlier[:20]) for earlier, later in zip(seen, seen[1:], strict=False)), seen
    visitor.press("stop")
    started = time.monotonic()
    assert "stopped by you" in visitor.ended()
    assert time.monotonic() - started < 30
    length = len(visitor.last())
    time.sleep(1)
    assert len(visitor.last()) == length, "it went on after Stop"
    visitor.press("clear")
    wait_for(lambda: not visitor.texts("bot"), "Clear left something")
    visitor.ask("What is 2 + 2?")
    assert "plain" in visitor.ended()
    visitor.choose("chain-of-thought")
    visitor.press("retry")
    wait_for(lambda: "chain-of-thought" in visitor.last(), "Retry did not use the technique")
    visitor.ended()
    assert len(visitor.texts("bot")) == 1, "Retry should replace the answer"
    visitor.window.save_screenshot(str(tmp_path / "chat.png"))


def test_the_tutor_shows_its_sources(visitor, tmp_path):
    visitor.choose("retrieval")
    visitor.ask("What does top-p sampling do?")
    wait_for(lambda: visitor.last() and "…" not in visitor.last(), "the tutor says nothing", 400)  # it reads the guide
    visitor.grows(2)
    visitor.press("stop")
    answer = visitor.ended()
    assert "Sources in the guide:" in answer, answer
    visitor.find("#prompt button")[0].click()
    sent = wait_for(lambda: visitor.find("#sent textarea") and visitor.find("#sent textarea")[0].get_property("value"),
                    "the prompt is not shown")
    assert "<passage heading=" in sent
    visitor.window.save_screenshot(str(tmp_path / "tutor.png"))


def test_html_is_text_and_the_browser_fetches_nothing_from_elsewhere(visitor):
    fetched = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            fetched.append(self.path)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{elsewhere.server_port}"
        text = (f"Hi <img src={address}/1 onerror=\"document.title='taken'\"> <script>document.title='taken'</script> "
                f"![x]({address}/2)")
        visitor.ask(text)
        shown = visitor.texts("user")[-1]
        assert "<script>document.title" in shown and "<img src=" in shown and "![x](" in shown, shown
        assert not visitor.find("#chat .message img"), "an image came out of a text"
        # The floor under that: even a picture that is put into the page is not fetched.
        visitor.window.execute_script("document.body.appendChild(new Image()).src = arguments[0]", f"{address}/3")
        time.sleep(2)
        elsewhere.shutdown()
    assert fetched == [] and visitor.window.title != "taken"
    refused = [entry["message"] for entry in visitor.window.get_log("browser") if "Security Policy" in entry["message"]]
    assert refused and all(address in message for message in refused), f"the policy should refuse only this: {refused}"
    visitor.press("stop")
    visitor.ended()


def test_two_tabs_share_no_history_and_a_narrow_window_is_enough(visitor, script):
    visitor.ask("My name is Priya.")
    visitor.ended()
    window, first = visitor.window, visitor.window.current_window_handle
    window.switch_to.new_window("tab")
    other = Visitor(window, script[0])
    assert other.texts("user") == []
    other.ask("Hello.")
    other.ended()
    assert len(other.texts("user")) == 1
    window.close()
    window.switch_to.window(first)
    assert len(visitor.texts("user")) == 1
    window.set_window_size(420, 900)
    overflow = window.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    window.set_window_size(1280, 1040)
    assert overflow <= 0, f"the page is {overflow} pixels too wide for a telephone"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_the_script_also_during_an_answer(visitor, script):
    visitor.ask("Tell me a long story about a mountain.")
    visitor.grows(1)
    _, process, log = script
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in text and "Open http://127.0.0.1:" in text.splitlines()[-1], text
