"""What the Hub's models will take, measured without the Hub: the architectures of BERT-base and GPT-2 at full size.

    python tests/benchmarks/real_size.py               exercises 1 to 3, preset quick; ten minutes on two cores
    python tests/benchmarks/real_size.py ex_02 ex_03

The weights are random and the tokenizers those of the packaged models (BERT's own vocabulary; for GPT-2 one of about
its size), so minutes and memory are those of the real models, and everything else that is printed means nothing.
Writes guides/outputs/real_size.json, from which README's table takes its figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "code"))

from utils import packaged  # noqa: E402
from utils.session import write_whole  # noqa: E402

FIGURES = REPOSITORY / "guides" / "outputs" / "real_size.json"
ROLES = {"ex_01": "encoder", "ex_02": "decoder", "ex_03": "decoder"}
NAMES = {"encoder": "BERT-base, random weights", "decoder": "GPT-2, random weights"}


def make(role: str, folder: Path) -> None:
    """Write a model of the default's size with random weights."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(packaged.fetch(role))
    if role == "encoder":
        tokenizer.model_max_length = 512
        model = BertForMaskedLM(BertConfig())  # the defaults are BERT-base's
    else:
        end = tokenizer.eos_token_id
        tokenizer.model_max_length = 1024
        model = GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end))  # and GPT-2's
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(exercise: str, model: Path, output: Path) -> dict:
    """Minutes and peak memory of the preset quick, from results.json."""
    script = next((REPOSITORY / "code").glob(f"{exercise}_*.py"))
    subprocess.run([sys.executable, str(script), "--model", str(model), "--output", str(output)]
                   + (["--data", "packaged"] if exercise != "ex_03" else []), check=True)
    results = json.loads(next(output.rglob("results.json")).read_text(encoding="utf-8"))
    return {"model": NAMES[ROLES[exercise]], "minutes": results["minutes"],
            "peak_memory_mb": results["peak_memory_mb"], "precision": results["run"]["precision"],
            "threads": results["run"]["threads"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exercises", nargs="*", choices=[*ROLES, []], metavar="EXERCISE")
    wanted = parser.parse_args().exercises or ROLES
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    for exercise in wanted:
        scratch = Path(tempfile.mkdtemp(prefix="real-size-"))
        make(ROLES[exercise], scratch / "model")
        figures[exercise] = measure(exercise, scratch / "model", scratch / "output")
        shutil.rmtree(scratch)
        text = json.dumps(figures, indent=1) + "\n"
        write_whole(FIGURES, lambda p, text=text: p.write_text(text, encoding="utf-8", newline="\n"))
        print(f"{exercise}: {figures[exercise]}")


if __name__ == "__main__":
    main()
