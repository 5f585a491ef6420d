"""Servers on the loopback: MLflow's own, and such as answer nothing of use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer

#: What MLflow's server needs no part of here.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """One that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mlflow_command(folder: Path, port: int) -> list[str]:
    """``mlflow server --workers 1`` at that port, on ``folder``'s mlflow.db and artifacts."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    return [*command, "--artifacts-destination", str(folder / "artifacts")]


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on ``folder``'s store; it knows itself as 127.0.0.1 only.

    Raises:
        RuntimeError: it does not answer within a minute; with what it said.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*mlflow_command(folder, port), "--allowed-hosts", f"127.0.0.1:{port}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | QUIET, stdout=log, stderr=log, cwd=folder)
    try:
        until = time.monotonic() + 60
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.1)
        if process.poll() is not None:  # somebody else took the port, and answers there
            raise RuntimeError((folder / "log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait(20)


def healthy(url: str) -> bool:
    """Does the MLflow server at ``url`` answer?"""
    with suppress(OSError):
        urllib.request.urlopen(f"{url}/health", timeout=2).close()
        return True
    return False


@contextmanager
def answering(status: int, body: bytes = b"nope") -> Iterator[str]:
    """The address of a server that answers everything with ``status``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(body)

        do_POST = do_GET

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    """``server``, which is bound, answers in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def silent() -> Iterator[str]:
    """The address of a port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
