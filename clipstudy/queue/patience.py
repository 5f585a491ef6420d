"""Waiting for a database that is away for a moment: what was computed must not be lost to it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from clipstudy.errors import DatabaseUnreachable

log = logging.getLogger(__name__)
T = TypeVar("T")


def patiently(act: Callable[[], T], seconds: float) -> T:
    """``act()``, tried again with growing pauses while the database does not answer, for so many seconds.

    Raises DatabaseUnreachable when they are over.
    """
    until, wait = time.monotonic() + seconds, 0.2
    while True:
        try:
            return act()
        except DatabaseUnreachable as error:
            if time.monotonic() > until:
                raise
            log.warning("%s", error)
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 10.0)
