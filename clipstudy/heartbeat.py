"""Keeping leases alive while a batch is computed, and noticing when they are gone."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from clipstudy.errors import BUG, DatabaseUnreachable
from clipstudy.job import Job
from clipstudy.progress import duration
from clipstudy.queue import jobs

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = logging.getLogger(__name__)

#: Seconds: a sign of life at least so often, however long the lease.
OFTEN = 30.0
#: Seconds without progress after which what is held is given up: a call into a device or a file system that never
#: comes back would keep it for ever.
SILENCE = 3600.0


class Heartbeat(threading.Thread):
    """Renews the leases of what is held, and knows which of it still is ours."""

    def __init__(self, engine: Engine, worker: jobs.WorkerInfo, lease: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.engine, self.worker, self.lease = engine, worker, lease
        self.done = threading.Event()
        self.away = -math.inf  #: when the database was last met away, on the monotonic clock
        self._held: tuple[Job, ...] = ()
        self._ours: set[int] = set()
        self._title: str | None = None
        self._stirred = time.monotonic()
        self._lock = threading.Lock()

    def hold(self, held: tuple[Job, ...], title: str) -> None:
        """From now on renew the leases of ``held``, and show ``title`` as what the worker does."""
        with self._lock:
            self._held, self._ours, self._title = held, {j.id for j in held}, title
            self._stirred = time.monotonic()

    def stir(self) -> None:
        """The thread that computes goes on."""
        self._stirred = time.monotonic()

    def drop(self) -> None:
        """Nothing is held any more."""
        self.hold((), "")

    def lost(self) -> bool:
        """Whether something is held and all of it was cancelled or taken by others."""
        with self._lock:
            return bool(self._held) and not self._ours

    def settle(self, job: Job) -> None:
        """``job`` was handed over: not ours to renew any more, and not lost."""
        with self._lock:
            self._held = tuple(j for j in self._held if j.id != job.id)
            self._ours.discard(job.id)
            self._stirred = time.monotonic()

    def run(self) -> None:
        """Until ``done`` is set. A lease whose renewal fails is tried again soon, since it runs on meanwhile."""
        wait = calm = min(self.lease / 4, OFTEN)
        while not self.done.wait(wait * random.uniform(0.8, 1.0)):
            with self._lock:
                held, title = self._held, self._title
            try:
                ours = jobs.beat(self.engine, self.worker.name, held, lease=timedelta(seconds=self.lease))
                if not jobs.beat_worker(self.engine, self.worker.name, title or None):
                    jobs.register(self.engine, replace(self.worker, batch=title or None))  # was taken for dead
                wait = calm
            except DatabaseUnreachable as error:
                self.away = self._stirred = time.monotonic()  # whoever waits for it is not hung
                log.warning("heartbeat: %s", error)
                wait = max(0.5, self.lease / 20)  # the lease runs on meanwhile: try again soon
                continue
            except Exception:  # whatever it is, a thread that ends here would lose every lease
                log.exception("heartbeat")
                continue
            with self._lock:
                self._ours &= ours | {j.id for j in self._held if j not in held}
            if held and time.monotonic() - self._stirred > SILENCE:
                # Nothing can be raised in a thread that is stuck in a call. The leases run out (a supervisor takes them
                # back at once), and the try is spent: what hangs every time must fail in the end.
                log.critical("%s: no progress for %s: the worker ends itself", title, duration(SILENCE))
                os._exit(BUG)
