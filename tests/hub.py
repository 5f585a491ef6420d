"""A stand-in of the Hugging Face Hub over HTTP, and of a server of released files: the real clients' code runs on it.

``root`` holds ``models/OWNER/NAME/``, ``datasets/OWNER/NAME/`` and ``released/``. A repository's commit is a hash of
what is in its folder, so changing a file there makes a new commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clipstudy import checksum

#: Kept outside Git by the Hub, so known by SHA-256.
LARGE = (".safetensors", ".parquet", ".bin")
#: The branch on which the Hub keeps the tables that it converted itself, in files named ``0000.parquet``.
CONVERTED = "refs/convert/parquet"

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """The server. ``asked`` lists what was requested: ``GET /api/models/owner/name``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        #: path of a file → after how many bytes the connection breaks, once.
        self.breaks: dict[str, int] = {}
        #: path of a file → other bytes of the same length come in its place.
        self.damaged: set[str] = set()
        self._known: dict[tuple[Path, int, int, str], str] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def downloads(self) -> list[str]:
        """The files whose content was asked for, by their names at the end."""
        return sorted(a.removeprefix("GET ") for a in self.asked if a.startswith("GET ") and "/api/" not in a)

    def files(self, kind: str, name: str) -> dict[str, Path] | None:
        folder = self.root / kind / name
        if not folder.is_dir():
            return None
        return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}

    def commit(self, kind: str, name: str) -> str:
        found = self.files(kind, name) or {}
        listed = "\n".join(f"{path} {self.checksum(file, 'git:')}" for path, file in found.items())
        return hashlib.sha1(listed.encode()).hexdigest()

    def checksum(self, file: Path, kind: str) -> str:
        about = file.stat()
        key = (file, about.st_mtime_ns, about.st_size, kind)
        if key not in self._known:
            self._known[key] = checksum.like(kind, file)
        return self._known[key]

    def etag(self, file: Path) -> str:
        return self.checksum(file, "sha256:" if file.suffix in LARGE else "git:").partition(":")[2]

    def described(self, path: str, file: Path) -> dict[str, Any]:
        told: dict[str, Any] = {
            "size": file.stat().st_size,
            "blobId": self.checksum(file, "git:").partition(":")[2],
            "rfilename": path,
        }
        if file.suffix in LARGE:
            told["lfs"] = {"sha256": self.etag(file), "size": file.stat().st_size, "pointerSize": 134}
        return told


def _branch(files: Iterable[str]) -> str:
    return CONVERTED if any(Path(file).name == "0000.parquet" for file in files) else "main"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {unquote(path)}")
        if found := _API.fullmatch(path):
            self._describe(*found.groups())
        elif found := _FILE.fullmatch(path):
            self._resolve("datasets" if found[1] else "models", found[2], unquote(found[3]), unquote(found[4]))
        else:
            file = self.hub.root / unquote(path).lstrip("/")
            self._send(file) if path.startswith("/released/") and file.is_file() else self._refuse("EntryNotFound")

    def _known(self, kind: str, name: str, revision: str) -> dict[str, Path] | None:
        files = self.hub.files(kind, name)
        if files is None:
            self._refuse("RepoNotFound")
        elif revision not in (self.hub.commit(kind, name), _branch(files)):
            self._refuse("RevisionNotFound")
            files = None
        return files

    def _describe(self, kind: str, name: str, what: str | None, revision: str | None) -> None:
        revision = unquote(revision or "main")
        files = self._known(kind, name, revision)
        if files is None:
            return
        told = [self.hub.described(path, file) for path, file in files.items()]
        if what == "tree":
            whole: Any = [
                {"type": "file", "path": t["rfilename"], "oid": t["blobId"], "size": t["size"]}
                | ({"lfs": {"oid": t["lfs"]["sha256"]} | t["lfs"]} if "lfs" in t else {})
                for t in told
            ]
        else:
            whole = {"id": name, "sha": self.hub.commit(kind, name), "siblings": told, "private": False}
        self._write(json.dumps(whole).encode(), {"Content-Type": "application/json"})

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        files = self._known(kind, name, revision)
        if files is None:
            return
        if path not in files:
            self._refuse("EntryNotFound")
            return
        self._send(
            files[path], {"X-Repo-Commit": self.hub.commit(kind, name), "ETag": f'"{self.hub.etag(files[path])}"'}
        )

    def _send(self, file: Path, headers: dict[str, str] | None = None) -> None:
        content = file.read_bytes()
        if file.name in self.hub.damaged:
            content = bytes(byte ^ 1 for byte in content)
        first = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        headers = {**(headers or {}), "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._write(content[first:], headers, 206 if first else 200, self.hub.breaks.get(file.name))

    def _refuse(self, code: str) -> None:
        self._write(json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code}, 404)

    def _write(self, content: bytes, headers: dict[str, str], status: int = 200, breaks: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:breaks])
            if breaks is not None:
                self.hub.breaks.clear()
                self.close_connection = True
