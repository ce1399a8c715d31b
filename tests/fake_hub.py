"""A Hub on loopback for tests: the endpoints that huggingface_hub asks, and their faults.

Assumed: files in Git LFS come by a redirect to another host, and never from Xet storage, so that
the client takes the plain way.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from utils import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # of a repository that is not pinned
LARGE = (".safetensors", ".parquet", ".bin")  # what the Hub keeps in Git LFS


@dataclass
class FakeHub:
    """What is served, and how it fails."""

    folders: dict[str, Path]  # by "models/owner/name" or "datasets/owner/name"
    prefix: str = ""  # of all paths, as a mirror may have
    # Part of a path: the status and headers (and body) that it is answered with instead.
    answers: dict[str, tuple] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)  # files that break off half-way, once each
    broken: set[str] = field(default_factory=set)  # files that break off at once, each time
    requests: list[str] = field(default_factory=list)  # paths that were asked for
    proxied: int = 0  # how many of them came as to a proxy
    url: str = ""  # the endpoint
    cdn: str = ""  # where files in LFS really are: on the real Hub another host

    def find(self, path: str) -> tuple[str, str]:
        """ "models/owner/name", and what follows it in an API path or a file's address."""
        path = path.removeprefix("/api/").lstrip("/")
        if not path.startswith(("models/", "datasets/")):
            path = f"models/{path}"
        parts = path.split("/", 3)
        return "/".join(parts[:3]), parts[3] if len(parts) > 3 else ""

    def commit(self, name: str) -> str:
        return hub.REVISIONS.get(name.split("/", 1)[1], COMMIT)


@contextlib.contextmanager
def serve(folders: dict[str, Path], **faults):
    """Serve `folders`; yields the FakeHub."""
    fake = FakeHub(folders, **faults)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            path = self.path.split("?")[0]
            if path.startswith("http://"):
                fake.proxied += 1
                path = "/" + path.split("/", 3)[3]
            fake.requests.append(path)
            if not path.startswith(fake.prefix):
                return self.error(404, "NotTheMirror")
            path = path.removeprefix(fake.prefix)
            for part, (status, headers, *body) in fake.answers.items():
                if part in path:
                    return self.send(status, body[0] if body else b"{}", headers)
            if path in ("", "/"):
                return self.send(200, b"")
            if path.startswith("/cdn/"):
                _, _, folder, name = path.split("/", 3)
                return self.send_file(list(fake.folders.values())[int(folder)] / name)
            repository, rest = fake.find(path)
            if repository not in fake.folders:
                return self.error(401, "RepoNotFound")
            folder, commit = fake.folders[repository], fake.commit(repository)
            verb, revision, *name = rest.split("/", 2) if rest else ("revision", "main")
            if revision not in ("main", commit):
                return self.error(404, "RevisionNotFound")
            if verb == "tree":
                listed = [describe(path, folder) for path in sorted(folder.rglob("*"))]
                return self.send(200, json.dumps(listed).encode())
            if verb == "revision":
                about = {"id": repository.split("/", 1)[1], "sha": commit, "private": False,
                         "tags": [], "downloads": 0, "siblings": []}
                return self.send(200, json.dumps(about).encode())
            file = folder / name[0]
            headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if not file.is_file():
                return self.error(404, "EntryNotFound", headers)
            if file.suffix in LARGE:
                return self.send(302, b"", headers | {
                    "X-Linked-Size": str(file.stat().st_size),
                    "X-Linked-Etag": f'"{sha(file, hashlib.sha256)}"',
                    "Location": f"{fake.cdn}/{list(fake.folders).index(repository)}/{name[0]}"})
            return self.send_file(file, headers | {"ETag": f'"{sha(file)}"'})

        def send_file(self, file: Path, headers: dict | None = None):
            data = file.read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = headers or {"ETag": f'"{sha(file, hashlib.sha256)}"'}
            if start:
                headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            keep = None
            if self.command == "GET" and file.name in fake.broken:
                keep = 10
            elif self.command == "GET" and file.name in fake.cut:
                fake.cut.remove(file.name)
                keep = len(data) // 2
            self.send(206 if start else 200, data[start:], headers, keep)

        def error(self, status: int, code: str, headers: dict | None = None):
            self.send(status, json.dumps({"error": code}).encode(),
                      {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

        def send(self, status, body: bytes, headers: dict | None = None, keep: int | None = None):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:keep])
            if keep is not None:
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}{fake.prefix}"
    fake.cdn = f"http://localhost:{server.server_address[1]}{fake.prefix}/cdn"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def describe(path: Path, folder: Path) -> dict:
    """A file or folder as the Hub's tree lists it."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT, "size": 0}
    about = {"type": "file", "path": name, "oid": sha(path), "size": path.stat().st_size}
    if path.suffix in LARGE:
        about["lfs"] = {"oid": sha(path, hashlib.sha256), "size": about["size"], "pointerSize": 135}
    return about


def sha(path: Path, algorithm=hashlib.sha1) -> str:
    return algorithm(path.read_bytes()).hexdigest()
