"""A Hub on loopback for tests: serves one model folder through the endpoints that huggingface_hub asks for."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve(repo_id: str, folder: Path, cut: set[str] | None = None):
    """Serve `folder` as the model `repo_id`; yields the endpoint's URL.

    cut: names of files whose downloads break off half-way, each once (the name is then taken out of the set).
    """
    cut = set() if cut is None else cut

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(head=True)

        def do_GET(self):
            self.answer(head=False)

        def answer(self, head: bool):
            path = self.path.split("?")[0]
            files = {p.name: p.read_bytes() for p in folder.iterdir()}
            if path == "/":
                return self.send(200, b"", head)
            if path in (f"/api/models/{repo_id}", f"/api/models/{repo_id}/revision/main"):
                body = {"id": repo_id, "modelId": repo_id, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                        "siblings": [{"rfilename": name} for name in files]}
                return self.send(200, json.dumps(body).encode(), head)
            if path.startswith(f"/api/models/{repo_id}/tree/"):
                body = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()]
                return self.send(200, json.dumps(body).encode(), head)
            name = path.rsplit("/", 1)[-1]
            if path.startswith(f"/{repo_id}/resolve/") and name in files:
                return self.send_file(name, files[name], head)
            self.send(404, b'{"error":"Repository not found"}', head,
                      {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

        def send_file(self, name: str, data: bytes, head: bool):
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            broken = not head and name in cut
            if broken:
                cut.remove(name)
            self.send(206 if start else 200, data[start:], head, headers, broken)

        def send(self, status: int, body: bytes, head: bool, headers: dict | None = None, broken: bool = False):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if not head:
                self.wfile.write(body[: len(body) // 2] if broken else body)
            if broken:
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
