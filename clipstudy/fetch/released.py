"""Files that their authors released at an address of their own, by HTTP."""

from __future__ import annotations

import contextlib
import os
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from clipstudy import checksum
from clipstudy.data import Released
from clipstudy.errors import DataError
from clipstudy.fetch.items import MEGA
from clipstudy.hub import Entry
from clipstudy.progress import Progress

SILENT_SECONDS = 30.0  #: after which a server that says nothing is given up
BLOCK = 1 << 20  #: bytes read at once
#: What a server says that answers nothing but GET, or where an address is signed for that alone.
NO_HEAD = (403, 405, 501)


def size(source: Released) -> int:
    """Bytes of a released file, as its server states them; 0 where it does not.

    Raises:
        DataError: the server does not answer, or the address is none.
    """
    try:
        with _answer(source, "HEAD") as answer:
            stated = answer.headers.get("Content-Length") or ""
    except _NotAsked:
        return 0
    return int(stated) if stated.isdecimal() else 0


def download(source: Released, entry: Entry, progress: Progress) -> None:
    """Beside its place under another name until it is whole and the one meant."""
    if os.path.lexists(source.path):
        raise DataError(
            f"[{source.table}] path: {source.path} is there already, and is not the file that checksum says. It may be "
            "yours: move it away, or fix path; then run it again."
        )
    try:
        source.path.parent.mkdir(parents=True, exist_ok=True)
        part = source.path.with_name(f"{source.path.name}.{os.getpid()}.part")
        try:
            with _answer(source) as answer, part.open("wb") as file:
                while block := _read(answer):
                    file.write(block)
                    progress("MB", file.tell() // MEGA, entry.size // MEGA)
            if (found := checksum.like(source.checksum, part)) != source.checksum:
                raise DataError(
                    f"[{source.table}] url: {source.url} is now {found}, expected {source.checksum}: the file changed "
                    "there, or came damaged. Run the command again; if it stays so and you mean the new one, write its "
                    "checksum."
                )
            part.replace(source.path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"[{source.table}] {source.path} cannot be written: {error}. Fix path, or make room."
        ) from error


def _read(answer: Any) -> bytes:
    """Some of what comes; other errors of the network are told from those of the disk."""
    try:
        block: bytes = answer.read(BLOCK)
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error
    return block


class _NotAsked(DataError):
    """The server answers nothing but GET. Fix the url."""


@contextlib.contextmanager
def _answer(source: Released, method: str = "GET") -> Iterator[Any]:
    try:
        request = urllib.request.Request(source.url, method=method, headers={"User-Agent": "clipstudy"})
        with urllib.request.urlopen(request, timeout=SILENT_SECONDS) as answer:
            yield answer
    except HTTPError as error:
        kind = _NotAsked if method == "HEAD" and error.code in NO_HEAD else DataError
        raise kind(f"[{source.table}] url: {source.url} answers {error.code} {error.reason}. Fix the url.") from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        shown = getattr(error, "reason", error)
        away = DataError(
            f"[{source.table}] url: {source.url} does not answer ({shown}). Run it again on a machine with network."
        )
        away.transient, away.silent = True, f"{urlsplit(source.url).netloc.rpartition('@')[2]} ({shown})"
        raise away from error
    except ValueError as error:  # an address that HTTP cannot carry
        raise DataError(f"[{source.table}] url: {source.url} is no address ({error}). Fix the url.") from error
