"""A lock on a file: of all processes of a machine one at a time, and a process that dies gives it back."""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds between two tries.
_PAUSE = 0.05


@contextmanager
def locked(path: Path, seconds: float = math.inf) -> Iterator[None]:
    """Hold the lock ``path``, an empty file that is made where there is none, and stays.

    Args:
        seconds: to wait for another process that holds it.

    Raises:
        TimeoutError: another process still holds it.
        OSError: the file cannot be opened or made.
    """
    until = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{path} is held by another process") from None
                time.sleep(_PAUSE)
        yield  # closing the file gives the lock back
