"""Guides and README: all Python runs, and what they say of code, commands, links and parts is true."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter

import pytest

import guide_runner
import markdown_checks as checks
import update_docs
from guide_runner import GUIDES, REPOSITORY, GuideError

README = REPOSITORY / "README.md"
MAIN = REPOSITORY / "guides" / "pretrained_transformers_guide.md"
LOGS = sorted((REPOSITORY / "guides" / "outputs").glob("*.md"))
# Sections of our own that run behind the guides', in the same process: they show that the harness finds faults.
SAMPLE = '''
## Sample: right

```python
import sys
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig

sentence = AutoTokenizer.from_pretrained("google-bert/bert-base-uncased")("a film", return_tensors="pt")
bert = AutoModel.from_pretrained("google-bert/bert-base-uncased")
state = bert(**sentence).last_hidden_state
print(state.ndim, "dimensions")
```
<!-- output -->

```text
3 dimensions
```

<!-- check: parameters(BertConfig()) == 109_482_240 and parameters(bert) < 110_000_000 -->

```python
print(f"{state[0, 0, 0]:.3f}")
```
<!-- output: real weights -->
*Printed by all-MiniLM-L6-v2, the packaged stand-in for BERT.*

```text
not compared on tiny models
```

```python
chat = "HuggingFaceTB/SmolLM2-135M-Instruct"
for name in ("openai-community/gpt2", chat):
    AutoModelForCausalLM.from_pretrained(name)
from datasets import load_dataset

assert set(load_dataset("cornell-movie-review-data/rotten_tomatoes")) == {"train", "validation", "test"}
message = [{"role": "user", "content": "Hello"}]
assert "Hello" in AutoTokenizer.from_pretrained(chat).apply_chat_template(message, tokenize=False)
AutoModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
sys.path.insert(0, "code")
from utils import course_data
```

## Sample: wrong

<!-- check: "state" not in globals() and not any(name.startswith("utils") for name in __import__("sys").modules) -->
<!-- check: 1 + 1 == 3 -->
<!-- check: undefined -->

   ```python
   print("two")
   print(2.5)
   ```
   <!-- output -->

   ```text
   three
   2.5
   ```

```python
print("unannounced")
```

```python
silent = True
```
<!-- output -->

```text
said
```

```python
import socket

right = True
socket.create_connection(("192.0.2.1", 80))
```

```python
never = "reached"
```
'''


def texts() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in GUIDES}


def titles() -> list[tuple[str, str]]:
    """(file, section) of all sections with code; none of a file that cannot be read, which a test of its own tells."""
    found = []
    for name, text in texts().items():
        try:
            found += [(name, section.title) for section in guide_runner.parse(text) if section.items]
        except GuideError:
            pass
    return found


DOCUMENTS = [pytest.param(path, id=path.name) for path in (REPOSITORY / "README.md", *GUIDES, *LOGS)]
GUIDE_FILES = [pytest.param(path, id=path.name) for path in GUIDES]


@pytest.fixture(scope="module")
def tiny():
    """{(file, title): Section} of the guides and the sample, run on tiny random models."""
    ran = guide_runner.run(texts() | {"sample.md": SAMPLE})
    return {(section.document, section.title): section for section in ran}


@pytest.fixture(scope="module")
def packaged():
    """{(file, title): Section} of the guides, run on the packaged real weights."""
    return {(section.document, section.title): section for section in guide_runner.run(texts(), "packaged", seed=3)}


def as_list(problems: list[str], name: str) -> str:
    return "".join(f"\n{name}, {problem}" for problem in problems)


# What the guides show is what runs


@pytest.mark.parametrize("path", GUIDE_FILES)
def test_the_guides_can_be_read(path):
    assert guide_runner.parse(path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "title"), titles())
def test_code_outputs_and_checks_hold(tiny, name, title):
    problems = guide_runner.problems(tiny[name, title])
    assert not problems, as_list(problems, name)


@pytest.mark.parametrize("path", [pytest.param(README, id=README.name), *GUIDE_FILES])
def test_figures_are_those_of_the_logs(path):
    found = re.findall(r'<!-- check: logged\("(ex_0\d)", (.+?)\) -->', path.read_text(encoding="utf-8"))
    assert found or path.name not in ("README.md", "pretrained_transformers_guide.md")
    for exercise, texts in found:
        for text in re.findall(r'"(.+?)"', texts):
            assert guide_runner.logged(exercise, text), f"{text} is not in the log of {exercise}: say what it shows"


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("after 77.4", True),
        ("after 77.44 | 78.4", True),
        ("after 77.4 | 78.3", False),
        ("after 77.5", False),
        ("7.44 | 78.38", False),
        ("MB 34e2", True),
        ("MB 33e2", False),
        ("| 78.38", True),
        ("before 77.4", False),
    ],
)
def test_a_logged_number_is_the_one_that_rounds_to_what_is_said(text, is_shown):
    assert guide_runner.shown(text, "after 77.44 | 78.38 and peak MB 3374") is is_shown


@pytest.mark.real
@pytest.mark.parametrize(("name", "title"), titles())
def test_outputs_on_real_weights_hold(packaged, name, title):
    """Up to 2 % or 0.02 in numbers with a decimal point, which differ a little between processors."""
    problems = guide_runner.problems(packaged[name, title], ("any weights", "real weights"))
    assert not problems, as_list(problems, name)


# What they say


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_exist(path):
    problems = checks.command_problems(path.read_text(encoding="utf-8"))
    assert not problems, as_list(problems, path.name)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path):
    problems = checks.link_problems(path.read_text(encoding="utf-8"), path.parent)
    assert not problems, as_list(problems, path.name)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_parts_and_pictures_of_exercises_exist(path):
    text = path.read_text(encoding="utf-8")
    problems = checks.part_problems(text) + checks.picture_problems(text)
    assert not problems, as_list(problems, path.name)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_structure_is_sound(path):
    problems = checks.structure_problems(path.read_text(encoding="utf-8"))
    assert not problems, as_list(problems, path.name)


@pytest.mark.parametrize("path", GUIDE_FILES)
def test_points_and_sources_are_named(path):
    problems = checks.guide_problems(path.read_text(encoding="utf-8"))
    assert not problems, as_list(problems, path.name)


def test_no_letter_is_the_likely_answer():
    keys = Counter(key for text in texts().values() for _, _, key, _ in checks.self_checks(checks.prose_of(text, True)))
    assert sum(keys.values()) >= 30 and all(0.25 <= keys[key] / sum(keys.values()) <= 0.42 for key in "abc"), keys


def test_the_main_guide_is_short_and_has_a_picture_or_table_every_400_words():
    chapters = checks.words_and_visuals(MAIN.read_text(encoding="utf-8"))
    assert sum(words for words, _ in chapters.values()) < 15_000, chapters
    sparse = {name: words / visuals for name, (words, visuals) in chapters.items() if visuals and words > 400 * visuals}
    assert not sparse, sparse


def draw_pictures():
    spec = importlib.util.spec_from_file_location("draw_pictures", MAIN.with_name("draw_pictures.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_picture_is_drawn_by_code_and_shown():
    shown = {name for path in (*GUIDES, REPOSITORY / "README.md")
             for name in re.findall(r"images/(\w+)\.png\)", path.read_text(encoding="utf-8"))}
    own = {name for name in shown if not re.match("ex_0|assistant_page", name)}
    assert own == set(draw_pictures().pictures()), "guides/draw_pictures.py draws other pictures than the guides show"
    assert shown == {path.stem for path in (MAIN.parent / "images").glob("*.png")}, "a picture that nobody shows"


@pytest.mark.parametrize("name", draw_pictures().pictures())
def test_picture_can_be_drawn_and_seen_in_dark_mode(name):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = draw_pictures().pictures()[name]()
    labels = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    plt.close(figure)
    assert figure.get_facecolor() == (1, 1, 1, 1), "its background is not solid white"
    # Width in inches at 72 points each is shown as 800 pixels.
    smallest = min(labels) * 800 / (72 * figure.get_figwidth())
    assert smallest >= 9, f"its smallest letters are {smallest:.1f} pixels high at a width of 800"


# The harness: what is right passes, and each fault is found


@pytest.mark.slow
def test_right_section_passes(tiny):
    assert guide_runner.problems(tiny["sample.md", "Sample: right"]) == []


@pytest.mark.slow
def test_faults_of_code_are_found(tiny):
    result = tiny["sample.md", "Sample: wrong"]
    first, said = result.line, guide_runner.problems(result)
    found = [(int(re.match(r"line (\d+): ", problem)[1]) - first, problem.partition(": ")[2]) for problem in said]
    expected = [(3, "the check '1 + 1 == 3' gives False, not True"),
                (4, "in the check 'undefined' NameError: name 'undefined' is not defined"),
                (12, "the guide shows 'three', the run printed 'two' (any weights)"),
                (17, "the block prints 'unannounced', and no <!-- output --> follows it"),
                (21, "the block prints nothing, and an <!-- output --> follows it"),
                (30, f"in line {first + 34} OSError: the guide's code must run offline, and it tried to reach "
                 "('192.0.2.1', 80)"),
                (37, f"not run, because the block of line {first + 30} failed")]
    assert found == expected


@pytest.mark.slow
def test_printed_text_replaces_what_was_shown(tiny):
    results = [tiny["sample.md", "Sample: right"], tiny["sample.md", "Sample: wrong"]]
    text = guide_runner.written(SAMPLE, results)
    assert "3 dimensions\n```" in text and "not compared" not in text
    assert "   ```text\n   two\n   2.5\n   ```\n" in text, "an indented block must stay indented"
    assert guide_runner.written(text, results) == text
    without_outputs = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)
    assert without_outputs == re.sub(r"```text\n.*?```", "", SAMPLE, flags=re.DOTALL), "it changed more than outputs"


@pytest.mark.parametrize("weights, shown, printed, same", [
    ("any weights", "loss 2.31, 1,024 tokens", "loss 2.32, 1,024 tokens", True),  # the last digit may differ
    ("any weights", "loss 2.31", "loss 2.33", False),
    ("any weights", "1,024 tokens", "1,025 tokens", False),
    ("any weights", "a\nb", "a", False),
    ("any weights", "1.5e-05", "1.6e-05", True),
    ("any weights", "1.5e-05", "1.6e-04", False),
    ("real weights", "bank  9.99", "bank 10.01", True),
    ("real weights", "probability 0.31", "probability 0.33", True),
    ("real weights", "probability 0.31", "probability 0.35", False),
    ("real weights", "perplexity 120.0", "perplexity 122.0", True),
    ("real weights", "5 right", "6 right", False),
    ("real weights", "a film", "a movie", False),
])
def test_outputs_are_compared_up_to_rounding(weights, shown, printed, same):
    assert (guide_runner.differ(shown, printed, weights) is None) == same


@pytest.mark.parametrize("text, complaint", [
    ("```python\n1", "line 1: this fenced block is never closed"),
    ("\n<!-- check: 1\n", "line 2: this comment is never closed"),
    ("<!-- output -->\n\n```text\n```", "follow at once the block that prints"),
    ("```python\n```\n<!-- output: real -->\n```text\n```", "must be one of"),
    ("```python\n```\nwords\n<!-- output -->\n```text\n```", "follow at once the block that prints"),
    ("```python\n```\n<!-- output -->\n```bash\n```", "there must be a ```text block"),
    ("```python\n```\n<!-- output: real weights -->\n```text\n```", "the line *Printed by MODEL"),
    ("```python\n```\n<!-- output -->\n*Printed by all-MiniLM-L6-v2.*\n```text\n```", "the line *Printed by MODEL"),
])
def test_broken_conventions_are_found(text, complaint):
    with pytest.raises(GuideError, match=re.escape(complaint)):
        guide_runner.parse(text)


def test_comments_and_headings_inside_of_code_are_code():
    sections = guide_runner.parse("## One\n````text\n```python\n## Two\n<!-- check: False -->\n````\n")
    assert [(s.title, s.items) for s in sections[1:]] == [("One", [])]


# One command makes logs, excerpts, outputs and pictures anew


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """A repository of one README, one guide and one log of exercise 1."""
    for folder in ("outputs/ex_01", "guides/images", "guides/outputs"):
        (tmp_path / folder).mkdir(parents=True)
    readme, guide, log = (tmp_path / name for name in ("README.md", "guides/guide.md", "guides/outputs/ex_01.md"))
    readme.write_text("é <!-- excerpt of: python code/ex_01.py --flag | b | c -->\n<!-- end of excerpt -->\n",
                      encoding="utf-8")
    guide.write_text("![x](images/ex_01_map.png)\n", encoding="utf-8")
    log.write_text("<!-- output of: python code/ex_01.py --flag -->\n\nold\n<!-- end of output -->\n", encoding="utf-8")
    (tmp_path / "outputs/ex_01/map.png").write_bytes(b"new")
    for name, value in {"README": readme, "GUIDES": [guide], "REPOSITORY": tmp_path, "LOGS": log.parent,
                        "IMAGES": tmp_path / "guides/images", "run": lambda command: "a\nb 1\nc\nd"}.items():
        monkeypatch.setattr(update_docs, name, value)
    return readme, log


def test_update_docs_renews_logs_excerpts_and_pictures(documents, tmp_path):
    readme, log = documents
    assert update_docs.main(["ex_01"]) == 0
    assert "```text\na\nb 1\nc\nd\n```" in log.read_text(encoding="utf-8")
    assert readme.read_text(encoding="utf-8") == (
        "é <!-- excerpt of: python code/ex_01.py --flag | b | c -->\n\n```text\nb 1\nc\n```\n\n"
        "<!-- end of excerpt -->\n")
    assert (tmp_path / "guides/images/ex_01_map.png").read_bytes() == b"new"
    assert not list(tmp_path.rglob("*.new"))


def test_an_excerpt_that_no_log_holds_is_refused(documents):
    with pytest.raises(KeyError, match="no log holds"):
        update_docs.excerpt("python code/ex_01.py --other", "b", "c")


def test_readme_shows_what_the_logs_hold():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    now = update_docs.with_minutes(update_docs.with_excerpts(text))
    assert now == text, "run: python tests/update_docs.py"
