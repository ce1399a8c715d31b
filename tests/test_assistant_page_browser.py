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
SUBMIT, STOP = "#box .submit-button", "#box .stop-button"
RETRY, CLEAR = "#chat button[aria-label='Retry']", "#chat button[aria-label='Clear']"
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
        self.box = wait_for(lambda: [e for e in self.find("#box textarea") if e.is_enabled()], "no page")[0]

    def find(self, selector: str) -> list:
        return self.window.find_elements("css selector", selector)

    def texts(self, who: str) -> list[str]:
        """What the messages of "user" or "bot" say, as a person would read them."""
        return self.window.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", f"#chat .{who}-row")

    def last(self) -> str:
        return (self.texts("bot") or [""])[-1]

    def ask(self, question: str) -> None:
        wait_for(self.box.is_enabled, "no question can be typed")
        self.box.send_keys(question + "\n")
        begins = question.split("<")[0][:20].strip()  # Gradio leaves tags out of what was typed
        wait_for(lambda: any(begins in text for text in self.texts("user")), "it is not shown")

    def press(self, selector: str) -> None:
        wait_for(lambda: self.find(selector), f"there is no {selector}")[-1].click()

    def choose(self, technique: str) -> None:
        self.find(f"#technique input[value='{technique}']")[0].click()

    def ended(self) -> str:
        """The last answer, when there is no more to come."""
        wait_for(lambda: self.find(SUBMIT), lambda: f"no end: {self.last()}")
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
    title = visitor.find("#title")[0].text
    assert "SmolLM2" in title and "on this computer" in title
    visitor.ask("Tell me a long story about a river.")
    seen = visitor.grows(4)
    said = [" ".join(text.split()[1:-1]) for text in seen]  # between the technique's name, above and below
    assert all(after.startswith(before[:20]) for before, after in zip(said, said[1:], strict=False)), seen
    visitor.press(STOP)
    visitor.ended()
    time.sleep(1)
    stopped = visitor.last()
    assert stopped.strip().endswith("(stopped)"), "no mark"
    time.sleep(3)
    assert visitor.last() == stopped, "it went on after Stop"
    visitor.ask("Go on.")
    visitor.grows(2)
    visitor.press(STOP)
    visitor.ended()
    assert "(stopped)" in visitor.texts("bot")[0], "the mark went with the next question"
    visitor.press(CLEAR)
    wait_for(lambda: not visitor.texts("bot"), "Clear left something")
    visitor.ask("What is 2 + 2?")
    wait_for(lambda: "tokens" in visitor.last(), "no end")
    visitor.ended()
    visitor.choose("chain-of-thought")
    visitor.press(RETRY)
    wait_for(lambda: "chain-of-thought" in visitor.last(), "Retry did not use the technique")
    visitor.press(STOP)
    visitor.ended()
    assert len(visitor.texts("bot")) == 1, "Retry should replace the answer"
    visitor.window.save_screenshot(str(tmp_path / "chat.png"))


def test_the_tutor_quotes_the_guide_and_its_link_opens_the_section(visitor, tmp_path):
    visitor.choose("retrieval")
    visitor.ask("What does top-p sampling do?")
    wait_for(lambda: "The guide says" in visitor.last(), "the tutor says nothing", 400)  # it reads the guide
    visitor.grows(2)
    visitor.press(STOP)
    assert "own words" in visitor.ended()
    visitor.press("#prompt button")
    wait_for(lambda: "<passage heading=" in sent_to_the_model(visitor), "the prompt is not shown")
    visitor.window.save_screenshot(str(tmp_path / "tutor.png"))
    link = visitor.find("#chat .bot-row a[href*='/guide/']")[0]
    heading = link.text
    visitor.window.get(link.get_attribute("href"))
    found = visitor.window.execute_script(
        "let e = document.querySelector(':target'); return e && [e.innerText, e.getBoundingClientRect().top]")
    assert found[0] == heading and -5 < found[1] < 200, found


def sent_to_the_model(visitor: Visitor) -> str:
    """What stands in the box of what was sent."""
    return "".join(e.get_property("value") for e in visitor.find("#sent textarea"))


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
        visitor.ask(f"Repeat: <img src={address}/1 onerror=\"document.title='taken'\"> ![x]({address}/2) "
                    "<script>document.title='taken'</script>")
        visitor.grows(2)
        visitor.press(STOP)
        visitor.ended()
        assert not visitor.find("#chat .bot-row img"), "an image came out of an answer"
        time.sleep(2)
        elsewhere.shutdown()
    assert fetched == [] and visitor.window.title != "taken"


def test_two_tabs_share_no_history_a_telephone_is_wide_enough_and_keys_suffice(visitor, script):
    visitor.ask("My name is Priya.")
    visitor.grows(1)
    visitor.press(STOP)
    visitor.ended()
    window, first = visitor.window, visitor.window.current_window_handle
    window.switch_to.new_window("tab")
    other = Visitor(window, script[0])
    assert other.texts("user") == []
    assert window.switch_to.active_element == other.box, "one should be able to type at once"
    window.switch_to.active_element.send_keys("Hello.\n")
    other.grows(1)
    other.press(STOP)
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
    assert process.wait(60) == 0
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in text and "Open http://127.0.0.1:" in text.splitlines()[-1], text
