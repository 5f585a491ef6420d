"""The ports that pages are served on."""

from __future__ import annotations

import errno
import socket

from clipstudy.errors import ClipstudyError


def refused(command: str, host: str, port: int, error: OSError, hint: str = "") -> ClipstudyError:
    """What to say where ``clipstudy COMMAND`` cannot listen on ``host`` and ``port``; ``hint`` is said at the end."""
    if error.errno == errno.EADDRINUSE:
        return ClipstudyError(
            f"--port {port}: another program listens there. Type: clipstudy {command} --port {port % 65535 + 1}{hint}"
        )
    return ClipstudyError(
        f"{host}, --port {port}: cannot listen there ({error.strerror or error}). Name another, as in: "
        f"clipstudy {command} --port 8051"
    )


def check(command: str, port: int) -> None:
    """Raises ClipstudyError where a program that is about to start could not listen on ``port`` of 127.0.0.1."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise refused(command, "127.0.0.1", port, error) from None
