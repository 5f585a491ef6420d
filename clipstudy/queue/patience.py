"""Waiting for a database that is away: what was computed must not be lost to it."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from clipstudy.errors import DatabaseUnreachable

log = logging.getLogger(__name__)
T = TypeVar("T")


class Patience:
    """Asks again, with growing pauses, while the database does not answer: ``seconds`` for one outage, however many
    questions meet it; and no longer than until ``enough`` is set."""

    def __init__(self, seconds: float, enough: threading.Event) -> None:
        self.seconds, self.enough = seconds, enough
        self.away = -math.inf  #: when the database was last met away, on the monotonic clock
        self._until: float | None = None  # of the outage at hand

    def __call__(self, act: Callable[[], T], *, forever: bool = False) -> T:
        """``act()``, tried until it is answered; ``forever`` waits longer than ``seconds``.

        Raises DatabaseUnreachable when the time is over.
        """
        wait = 0.2
        while True:
            try:
                answer = act()
            except DatabaseUnreachable as error:
                now = self.away = time.monotonic()
                self._until = self._until or now + self.seconds
                if self.enough.is_set() or (now > self._until and not forever):
                    raise
                log.warning("%s", error)
                self.enough.wait(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, 10.0)
            else:
                self._until = None
                return answer
