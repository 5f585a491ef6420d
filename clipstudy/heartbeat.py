"""Keeping leases alive while a batch is computed, and noticing when they are gone."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from clipstudy.errors import BUG, DatabaseUnreachable
from clipstudy.job import Failure, FailureKind, Job
from clipstudy.queue import jobs
from clipstudy.wording import duration

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = logging.getLogger(__name__)

#: Seconds: a sign of life at least so often, however long the lease.
OFTEN = 30.0
#: Seconds without progress after which what is held is given up: a call into a device or a file system that never
#: comes back would keep it for ever. Longer than a large checkpoint takes to download, or a large folder to be read,
#: of which no progress is known here.
SILENCE = 6 * 3600.0


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
        looked = time.monotonic()
        while not self.done.wait(wait * random.uniform(0.8, 1.0)):
            with self._lock:
                held, title = self._held, self._title
            try:
                ours = jobs.beat(self.engine, self.worker.name, held, lease=timedelta(seconds=self.lease))
                if not jobs.beat_worker(self.engine, self.worker.name, title or None):
                    jobs.register(self.engine, replace(self.worker, batch=title or None))  # was taken for dead
                wait = calm
            except DatabaseUnreachable as error:
                self.away = self._stirred = looked = time.monotonic()  # whoever waits for it is not hung
                log.warning("heartbeat: %s", error)
                wait = max(0.5, self.lease / 20)  # the lease runs on meanwhile: try again soon
                continue
            except Exception:  # whatever it is, a thread that ends here would lose every lease
                log.exception("heartbeat")
                looked = time.monotonic()
                continue
            with self._lock:
                self._ours &= ours | {j.id for j in self._held if j not in held}
            before, looked = looked, time.monotonic()
            if looked - before > 2 * calm + OFTEN:  # the whole process slept, and no thread could go on
                self._stirred = looked
            if held and looked - self._stirred > SILENCE:
                self._give_up(held, f"{title}: no progress for {duration(SILENCE)}: the worker ended itself")

    def _give_up(self, held: Sequence[Job], why: str) -> NoReturn:
        """Nothing can be raised in a thread that is stuck in a call. The tries are spent: what hangs every time must
        fail in the end, and say why."""
        log.critical("%s", why)
        try:
            for job in held:
                jobs.fail(self.engine, job, Failure(FailureKind.CODE, why, retry=True))
        except Exception:  # then the leases run out
            log.exception("heartbeat")
        finally:
            os._exit(BUG)
