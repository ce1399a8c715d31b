"""Guide and README: every line of Python runs, and what the text says of code, commands, links and parts is true."""

from __future__ import annotations

import importlib.util
import re

import pytest

import guide_runner
import markdown_checks as checks
import update_docs
from guide_runner import GUIDE, REPOSITORY, GuideError

README = REPOSITORY / "README.md"
# Sections of our own that run behind the guide's, in the same process: they show that the harness finds faults.
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

```text
not compared on tiny models
```

```python
chat = "HuggingFaceTB/SmolLM2-135M-Instruct"
for name in ("openai-community/gpt2", chat):
    AutoModelForCausalLM.from_pretrained(name)
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


def read_guide() -> tuple[str, list[guide_runner.Section]]:
    try:
        text = GUIDE.read_text(encoding="utf-8")
        return text, guide_runner.parse(text)
    except (OSError, GuideError):  # test_the_guide_can_be_read says why
        return "", []


TEXT, SECTIONS = read_guide()
TITLES = [section.title for section in SECTIONS if section.items]
DOCUMENTS = [pytest.param(path, id=path.name) for path in (README, GUIDE)]


@pytest.fixture(scope="module")
def tiny():
    """{title: Run} of the guide's sections and the sample's, on tiny random models."""
    return {result.section.title: result for result in guide_runner.run(TEXT + SAMPLE)}


@pytest.fixture(scope="module")
def packaged():
    """{title: Run} of the guide's sections on packaged real weights."""
    return {result.section.title: result for result in guide_runner.run(TEXT, "packaged", seed=3)}


def as_list(problems: list[str], path=GUIDE) -> str:
    return "".join(f"\n{path.name}, {problem}" for problem in problems)


# The guide


def test_the_guide_can_be_read():
    sections = guide_runner.parse(GUIDE.read_text(encoding="utf-8"))
    assert len(sections) > 10 and sum(len(section.items) for section in sections) > 50, "where is the guide?"


@pytest.mark.parametrize("title", TITLES)
def test_code_outputs_and_checks_hold(tiny, title):
    problems = guide_runner.problems(tiny[title])
    assert not problems, as_list(problems)


@pytest.mark.real
@pytest.mark.parametrize("title", TITLES)
def test_outputs_on_real_weights_hold(packaged, title):
    """Up to 2 % or 0.02 in numbers with a decimal point, which differ a little from processor to processor."""
    problems = guide_runner.problems(packaged[title])
    assert not problems, as_list(problems)


def test_guide_is_complete_section_by_section():
    problems = checks.guide_problems(GUIDE.read_text(encoding="utf-8"))
    assert not problems, as_list(problems)


def draw_pictures():
    spec = importlib.util.spec_from_file_location("draw_pictures", GUIDE.with_name("draw_pictures.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_picture_of_the_guide_is_drawn_by_code():
    shown = {name for name in re.findall(r"\(images/(\w+)\.png\)", TEXT) if not name.startswith("ex_0")}
    assert shown == set(draw_pictures().pictures()), "guides/draw_pictures.py draws other pictures than the guide shows"


@pytest.mark.parametrize("name", draw_pictures().pictures())
def test_picture_can_be_drawn_and_seen_in_dark_mode(name, monkeypatch):
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


# Guide and README


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_exist(path):
    problems = checks.command_problems(path.read_text(encoding="utf-8"))
    assert not problems, as_list(problems, path)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path):
    problems = checks.link_problems(path.read_text(encoding="utf-8"), path.parent)
    assert not problems, as_list(problems, path)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_parts_and_pictures_of_exercises_exist(path):
    text = path.read_text(encoding="utf-8")
    problems = checks.part_problems(text) + checks.picture_problems(text)
    assert not problems, as_list(problems, path)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_structure_is_sound(path):
    problems = checks.structure_problems(path.read_text(encoding="utf-8"))
    assert not problems, as_list(problems, path)


# The harness: what is right passes, and each fault is found


def test_right_section_passes(tiny):
    assert guide_runner.problems(tiny["Sample: right"]) == []


def test_faults_of_code_are_found(tiny):
    result = tiny["Sample: wrong"]
    first, said = result.section.line, guide_runner.problems(result)
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


def test_printed_text_replaces_what_was_shown(tiny):
    results = [tiny["Sample: right"], tiny["Sample: wrong"]]
    text = guide_runner.written(TEXT + SAMPLE, results)
    assert "3 dimensions\n```" in text and "not compared" not in text
    assert "   ```text\n   two\n   2.5\n   ```\n" in text, "an indented block must stay indented"
    assert guide_runner.written(text, results) == text
    without_outputs = re.sub(r"```text\n.*?```", "", text[len(TEXT):], flags=re.DOTALL)
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
])
def test_broken_conventions_are_found(text, complaint):
    with pytest.raises(GuideError, match=re.escape(complaint)):
        guide_runner.parse(text)


def test_comments_and_headings_inside_of_code_are_code():
    sections = guide_runner.parse("## One\n````text\n```python\n## Two\n<!-- check: False -->\n````\n")
    assert [(s.title, s.items) for s in sections] == [("One", [])]


# One command makes README's and guide's outputs and pictures anew


def test_update_docs_replaces_outputs_and_pictures(tmp_path, monkeypatch):
    readme, guide = tmp_path / "README.md", tmp_path / "guide.md"
    block = "<!-- output of: python code/ex_0{} -->\n\n```text\nold\n```\n\n<!-- end of output -->\n"
    readme.write_text("é " + block.format("1.py --flag") + block.format("2.py"), encoding="utf-8")
    guide.write_text("![x](images/ex_01_map.png)\n", encoding="utf-8")
    (tmp_path / "outputs" / "ex_01").mkdir(parents=True)
    (tmp_path / "outputs" / "ex_01" / "map.png").write_bytes(b"new")
    (tmp_path / "images").mkdir()
    ran = []
    for name, value in {"README": readme, "GUIDE": guide, "REPOSITORY": tmp_path, "IMAGES": tmp_path / "images",
                        "run": lambda command: ran.append(command) or "new"}.items():
        monkeypatch.setattr(update_docs, name, value)
    monkeypatch.setitem(update_docs.DRAWN_BY, "ex_01", ["python code/ex_01.py --flag", "python code/ex_01.py"])
    assert update_docs.main(["ex_01"]) == 0
    assert ran == ["python code/ex_01.py --flag", "python code/ex_01.py"], "a run that README shows is not run twice"
    expected = "é " + block.format("1.py --flag").replace("old", "new") + block.format("2.py")
    assert readme.read_text(encoding="utf-8") == expected
    assert (tmp_path / "images" / "ex_01_map.png").read_bytes() == b"new"
    assert not list(tmp_path.rglob("*.new"))
