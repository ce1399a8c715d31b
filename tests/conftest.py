"""Tests run offline: the Hub is declared out of reach, and only loopback sockets connect."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import socket
import tempfile

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
# What training runs in; .ci/run tests both. A processor's own choice would hide what fails on another one.
os.environ.setdefault("TRANSFORMERS_COURSE_PRECISION", "fp32")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: threads would only stand in each other's way
    os.environ["OMP_NUM_THREADS"] = "1"
# .ci/run sets it to spawn once, which is all that Windows has.
if "TESTS_START_METHOD" in os.environ:
    multiprocessing.set_start_method(os.environ["TESTS_START_METHOD"])
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

collect_ignore = ["grading/student"]  # the tests that students get

import pytest  # noqa: E402

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any connection that leaves this machine fails the test that made it."""

    def connect(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            pytest.fail(f"a test tried to connect to {address}")
        return _connect(self, address)

    def getaddrinfo(host, *args, **kwargs):
        if host is not None and not str(host).startswith(LOOPBACK):
            raise socket.gaierror(f"no network in tests: {host}")
        return _getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def course_cache(tmp_path, monkeypatch):
    """An empty cache folder for packaged files."""
    monkeypatch.setenv("TRANSFORMERS_COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
