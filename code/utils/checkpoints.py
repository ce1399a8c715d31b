"""From a model's name to a folder that holds it: own folder, Hub cache, Hub, or packaged on PyPI.

Asked for nothing, an exercise gets its own model from the Hub, or the packaged stand-in where the
Hub is out of reach, and the banner says so. Asked for something, it gets that or one line why not.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from utils import hub, packaged, tiny
from utils.runtime import UserError, user_path

DEFAULTS = {
    "encoder": "google-bert/bert-base-uncased",
    "decoder": "openai-community/gpt2",
    "chat": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "embedder": "sentence-transformers/all-MiniLM-L6-v2",
}
# role: (package, the model's name, what a reader should know about it)
STAND_INS = {
    "encoder": ("encoder", "all-MiniLM-L6-v2",
                "a 6-layer BERT trained further for sentence vectors, with the official weights"),
    "decoder": ("decoder", "SmolLM2-135M-Instruct",
                "expanded from 4-bit weights, so close to the Hub's model but not equal to it"),
}
STAND_INS["chat"] = STAND_INS["decoder"]
STAND_INS["embedder"] = ("encoder", "all-MiniLM-L6-v2", "the same weights as on the Hub")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that from_pretrained can load, and where it came from."""

    name: str
    source: str  # "folder", "hub", "packaged" or "tiny"
    folder: Path
    note: str = ""  # what the reader should know, one line


def fetch(role: str, name: str | None = None) -> Checkpoint:
    """The model for a role; what is not on this machine is downloaded, up to half a gigabyte.

    role: "encoder", "decoder", "chat" or "embedder". name: a Hub id, a folder, "packaged", "tiny",
    or None for the role's default, which alone may fall back to "packaged". Raises UserError, one
    line, when it cannot be had.

        fetch("decoder").folder     # of openai-community/gpt2, or of SmolLM2 without the Hub
    """
    if name == "tiny":
        folder = Path(tempfile.mkdtemp(prefix="tiny-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        tiny.save({"embedder": "encoder"}.get(role, role), folder)
        return Checkpoint(f"tiny {role}", "tiny", folder,
                          "random weights: shows that all runs, and nothing else")
    if name == "packaged":
        return _packaged(role)
    if name is not None:
        return _named(name)
    try:
        return Checkpoint(DEFAULTS[role], "hub", hub.download(DEFAULTS[role]))
    except hub.HubError as unavailable:
        hub_error = unavailable
    try:
        return _packaged(role, f"instead of {DEFAULTS[role]}, because {hub_error.why}")
    except UserError as error:
        raise UserError(f"{hub_error}; and {error}") from None


def _packaged(role: str, why: str = "") -> Checkpoint:
    package, name, note = STAND_INS[role]
    note = "; ".join(filter(None, (note, why)))
    return Checkpoint(name, "packaged", packaged.fetch(package), note)


def _named(name: str) -> Checkpoint:
    folder = user_path(name)
    if folder.is_dir():
        if not hub.is_complete(folder, "model"):
            raise UserError(f"--model {name}: this folder lacks a config.json, a tokenizer or "
                            "(a part of) *.safetensors weights: name a folder written by "
                            "save_pretrained")
        return Checkpoint(name, "folder", folder)
    if name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name:
        raise UserError(f"--model {name}: there is no such folder; for a Hub model give its id, "
                        "owner/name")
    return Checkpoint(name, "hub", hub.download(name))


def load(auto_class, checkpoint: Checkpoint, **options):
    """`auto_class.from_pretrained(folder, **options)`, whose faults become a UserError.

    Raised, one line, when the folder's files are damaged or of another kind than the class wants.
    """
    from safetensors import SafetensorError

    try:
        return auto_class.from_pretrained(checkpoint.folder, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        fetched = checkpoint.source in ("hub", "packaged")
        hint = "delete that folder and run again" if fetched else "name another --model"
        raise UserError(f"model {checkpoint.name!r} in {checkpoint.folder} cannot be loaded as "
                        f"{auto_class.__name__} ({hub.one_line(error)}): {hint}") from error


def load_decoder(checkpoint: Checkpoint):
    """(tokenizer, model) of a decoder in fp32, with a token for padding.

    Without the checkpoint's own settings for generating, such as a repetition penalty: the same
    words shall mean the same for every model. Raises UserError if it is no decoder, is damaged, or
    has no end-of-text token.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    check_family(checkpoint, "decoder")
    tokenizer = load(AutoTokenizer, checkpoint)
    if tokenizer.eos_token_id is None:
        raise UserError(f"model {checkpoint.name!r} has no end-of-text token, which this exercise "
                        "needs: name another --model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # attention masks hide it
    model = load(AutoModelForCausalLM, checkpoint, dtype="float32")
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id,
                                               pad_token_id=tokenizer.pad_token_id)
    return tokenizer, model


def check_family(checkpoint: Checkpoint, family: str) -> None:
    """Raise UserError unless the checkpoint is an "encoder" (BERT-like) or "decoder" (GPT-like)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

    config = load(AutoConfig, checkpoint)
    found = None
    if not config.is_encoder_decoder:
        if type(config) in MODEL_FOR_MASKED_LM_MAPPING:  # first: BERT can be a decoder as well
            found = "encoder"
        elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            found = "decoder"
    if found != family:
        a = {"encoder": "an encoder", "decoder": "a decoder", None: "neither encoder nor decoder"}
        raise UserError(f"model {checkpoint.name!r} is {a[found]} ({config.model_type}), and this "
                        f"exercise needs {a[family]} such as {DEFAULTS[family]}")
