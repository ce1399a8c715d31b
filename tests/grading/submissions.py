"""The submissions in what an instructor downloaded: a .py file, a zip, or a folder with something for each student."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks import script_of

from utils.runtime import UserError

LARGEST_SCRIPT, LARGEST_FILE, LARGEST_ZIP, MOST_FILES = 2_000_000, 50_000_000, 1_000_000_000, 20_000  # bytes


@dataclass(frozen=True)
class Submission:
    """A student's name, as the folder tells it and fit for a file's name, and the file to grade; None if there is none.

    note: what is odd about it, for people.
    """

    name: str
    file: Path | None
    note: str = ""


def find_submissions(where: Path, exercise: str, scratch: Path, single: bool = False) -> list[Submission]:
    """One submission for each student, with different names. Raises UserError if there is nothing to grade.

    Of a folder or zip each entry is a student's, unless the exercise's own script lies directly in it, or all of it is
    a single student's. scratch: an empty folder to unpack zips to.
    """
    if not where.exists():
        raise UserError(f"{where}: there is no such file or folder")
    if where.is_file() and where.suffix.lower() not in (".py", ".zip"):
        raise UserError(f"{where}: give a .py file, a zip, or a folder of them")
    if single or where.suffix.lower() == ".py" and where.is_file():
        return [choose(safe_name(where.resolve().stem), python_files(where, scratch), exercise)]
    folder = unpack(where, scratch) if where.is_file() else where
    while len(entries := visible(folder)) == 1 and entries[0].is_dir() and any(p.is_dir() for p in visible(entries[0])):
        folder = entries[0]  # the one folder of an unpacked download
    if (folder / script_of(exercise).name).is_file() and not any(p.is_dir() for p in entries):
        return [Submission(safe_name(where.resolve().stem), folder / script_of(exercise).name)]
    found: dict[str, Submission] = {}
    for entry in entries:
        if entry.name == "submission_metadata.yml":  # Gradescope's own
            continue
        name = safe_name(entry.name if entry.is_dir() else entry.stem)
        while name.lower() in found:  # they differ in a sign which no file's name may have
            name += "+"
        try:
            found[name.lower()] = choose(name, python_files(entry, scratch), exercise)
        except UserError as error:
            found[name.lower()] = Submission(name, None, str(error))
    if not found:
        raise UserError(f"{where}: there is no .py file, zip or folder of a student in it")
    return list(found.values())


def choose(name: str, files: list[Path], exercise: str) -> Submission:
    """The script by its name, or else the one file that must be meant."""
    right = script_of(exercise)
    for rule in (lambda p: p.name == right.name, lambda p: exercise in p.name.replace("-", "_"), lambda p: True):
        chosen = [path for path in files if rule(path)]
        if len(chosen) > 1:
            return Submission(name, None, f"{len(chosen)} files could be meant: {', '.join(p.name for p in chosen)}")
        if chosen and chosen[0].stat().st_size > LARGEST_SCRIPT:
            return Submission(name, None, f"{chosen[0].name} is larger than {LARGEST_SCRIPT / 1e6:g} MB")
        if chosen:
            misnamed = right.stem not in chosen[0].name  # Canvas puts something in front and behind
            return Submission(name, chosen[0], f"{chosen[0].name} is misnamed: it should be {right.name}" * misnamed)
    return Submission(name, None, f"there is no {right.name}, nor any other .py file")


def python_files(entry: Path, scratch: Path) -> list[Path]:
    """The .py files of an entry: itself, or those in a folder or zip, also in a zip in a folder; no links."""
    if entry.is_symlink():
        return []
    if entry.is_dir():
        files = [p for p in sorted(entry.rglob("*")) if p.is_file() and p.suffix.lower() in (".py", ".zip")
                 and not any(part.startswith((".", "__")) for part in p.relative_to(entry).parts)]
        return [path for file in files for path in python_files(file, scratch)]
    if entry.suffix.lower() == ".zip":
        return python_files(unpack(entry, scratch), scratch)
    return [entry] if entry.suffix.lower() == ".py" else []


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, without those that systems put there."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")))


def unpack(archive: Path, scratch: Path) -> Path:
    """Unpack a zip to a new folder in scratch, and return it. Raises UserError if it is damaged or too large.

    No file leaves the folder, whatever its path in the zip is.
    """
    folder = scratch / str(sum(1 for _ in scratch.iterdir()))
    folder.mkdir()
    taken: set[Path] = set()
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [member for member in zipped.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > LARGEST_ZIP or len(members) > MOST_FILES:
                raise UserError(f"{archive.name}: unpacked it is too large")
            places: dict[tuple, Path] = {(): folder}  # where each path of the zip lies
            for member in members:
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if member.file_size > LARGEST_FILE or any(part.startswith((".D", "._", "__MACOSX")) for part in parts):
                    continue
                for i, part in enumerate(parts):
                    place = places[parts[:i]] / safe_name(part)
                    while parts[:i + 1] not in places and place in taken:  # it differs in a sign that is replaced
                        place = place.with_stem(place.stem + "+")
                    taken.add(places.setdefault(parts[:i + 1], place))
                places[parts].parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, places[parts].open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{archive.name}: cannot be unpacked ({error})") from None
    return folder


def safe_name(name: str) -> str:
    """A name that is a file's name everywhere: no separators, no dots alone, not too long."""
    return re.sub(r"[^\w.,@+=() -]", "_", name).strip(". ")[:100] or "_"
