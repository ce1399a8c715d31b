"""The checks of guide and README find each fault, and find none in what is right."""

from __future__ import annotations

import pytest

import markdown_checks as checks
from guide_runner import REPOSITORY

# Commands


@pytest.mark.parametrize("command", [
    'python code/ex_02_gpt2_generation.py --prompt "Once upon a time" --strategy top-p  # a comment',
    "python code/ex_02_gpt2_generation.py --prompts my_own.json",
    "HF_HUB_OFFLINE=1 python code/ex_01_bert_classification.py --data mine.csv",
    "torchrun --nproc_per_node 2 code/ex_01_bert_classification.py --preset smoke",
    "python -m pytest -m real -n 0", "python -m pytest -m slow", "python -m pip install -r requirements.txt",
    "python tests/benchmarks/bench_ex_01.py --device cpu", "python tests/update_docs.py ex_01",
])
def test_commands_of_this_repository_are_known(command):
    assert checks.command_problem(command) is None


@pytest.mark.parametrize("command, complaint", [
    ("python code/ex_05.py", "there is no code/ex_05.py"),
    ("python code/ex_01_bert_classification.py --epochs 3", "unrecognized arguments: --epochs 3"),
    ("python code/ex_02_gpt2_generation.py --strategy top-q", "invalid choice: 'top-q'"),
    ("python code/ex_03_gpt2_finetuning.py --lora-modules c_attn", "add --method lora"),
    ("accelerate launch code/ex_01_bert_classification.py --presets smoke", "unrecognized arguments"),
    ("python tests/benchmarks/bench_ex_01.py --gpu", "unknown flags ['--gpu']"),
    ("python tests/update_docs.py --all", "unknown flags"),
    ("python -m pytest -m quick", "there is no marker"), ("python -m pytest tests/test_none.py", "there is no"),
    ("pip install -r needs.txt", "there is no needs.txt"), ("pithon code/ex_01_bert_classification.py", "no command"),
])
def test_wrong_commands_are_found(command, complaint):
    assert complaint in (checks.command_problem(command) or "nothing")


def test_commands_are_found_wherever_they_stand():
    text = ("```bash\n# first\npython a.py && python b.py \\\n  --flag\n```\n<!-- output of: python c.py -->\n"
            "See `python\nd.py` or <code>python e.py</code>, not `python` or `--preset smoke`.\n"
            "```text\npython f.py\n```\n")
    found = checks.commands(text)
    assert sorted(command for _, command in found) == ["python a.py", "python b.py     --flag", "python c.py",
                                                       "python d.py", "python e.py"]


def test_flags_without_a_command_belong_to_an_exercise():
    text = "Use `--data packaged --preset\nsmoke`, or `--epochs`, or `--help`; see `python code/ex_01.py`.\n"
    assert checks.command_problems(text) == ["line 2: 'python code/ex_01.py': there is no code/ex_01.py",
                                             "line 2: no exercise takes --epochs"]


# Links, parts and pictures


def test_wrong_links_are_found():
    text = ("# A `code` title, [linked](https://example.org): d_k!\n## Same\n## Same\n"
            "[1](#a-code-title-linked-d_k) [2](#same-1) [3](../README.md#two-commands) [4](https://arxiv.org/abs/1810.04805)"
            " [![a picture](../guides)](#same) `[code](#nowhere)`\n[wrapped\nwords](#same)\n\n"
            "[5](#same-2) [6](missing.md) [7](../README.md#none) [8](https://arxiv.org/pdf/1810.04805) [9](http:/x)\n"
            "![](../README.md) ![seen](images/none.png) [10]() [11][ref] <img src='x'> [a\nb](#gone)\n")
    found = checks.link_problems(text, REPOSITORY / "guides")
    for fault in ("#same-2' leads to no heading", "'missing.md' leads to no file", "#none' leads to no heading",
                  "pdf/1810.04805' is not of the form", "'http:/x' is no complete", "README.md has no alternative text",
                  "none.png' leads to no file", "'' is empty", "link [ref]", "not as <img>",
                  "#gone' leads to no heading"):
        assert any(fault in problem for problem in found), f"{fault!r} was not found in {found}"
    assert len(found) == 11, found


def test_wrong_parts_and_pictures_are_found():
    text = ("Exercise 2, part 1; exercise 3, parts 1 and 5; part 4 of exercise 1; look at `cuts.png` and "
            "`learning_curves.png`; ![x](images/ex_01_word_map.png)\n")
    assert checks.part_problems(text) + checks.picture_problems(text) == []
    text = ("Exercise 2,\npart 9; exercise 3, parts 1, 2 and 8; part 7 of exercise 1; `cut.png`; "
            "(images/ex_02_word_map.png)")
    assert checks.part_problems(text) + checks.picture_problems(text) == [
        "line 1: exercise 2 has no part 9", "line 2: exercise 3 has no part 8", "line 2: exercise 1 has no part 7",
        "line 2: exercise 2 draws no word_map.png", "line 2: exercise ? draws no cut.png"]


# Structure

SOUND = """## 1. One

*A point
in one sentence.*

**Self-check.** What?

- (a) one
- (b) two
- (c) three

<details><summary>Answer</summary>

**(b)**: not (a), not (c).

</details>

**Sources:** x
"""


def test_sound_structure_passes():
    assert checks.structure_problems(SOUND) + checks.guide_problems(SOUND) == []


@pytest.mark.parametrize("old, new, fault", [
    ("x\n", "x\n### 1. one\n", "a second heading"),
    ("</details>", "", "is not closed"),
    ("</details>", "## 2", "is not closed"),
    ("<details>", "", "without its beginning"),
    ("<summary>Answer</summary>", "", "needs a <summary>"),
    ("</summary>\n", "</summary>", "and then an empty line"),
    ("- (c) three\n", "", "a self-check needs options"),
    ("- (c) three", "- (d) three", "a self-check needs options"),
    ("**(b)**", "**(d)**", "a self-check needs options"),
    ("not (a), ", "", "the answer says nothing of (a)"),
    ("x\n", "x\n```py\n```\n", "'py'"),
    ("x\n", f"x\n```python\n{'x' * 101}\n```\n", "101 columns"),
    ("x\n", "x\n\n|---|\n| y |\n", "a table without its first row"),
    ("*A", "A", "the point is missing"),
    ("**Sources:**", "Sources:", "names no **Sources:**"),
])
def test_faults_of_structure_are_found(old, new, fault):
    text = SOUND.replace(old, new)
    found = checks.structure_problems(text) + checks.guide_problems(text)
    assert any(fault in problem for problem in found), f"{fault!r} was not found in {found}"
