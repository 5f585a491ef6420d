"""The worker's loop: mend, record, claim, compute; signals and back-off. What a batch is, it does not know."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import queue
import random
import signal
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from clipstudy import recorder, run
from clipstudy.attempt import Attempt, Tally, name
from clipstudy.device import registered
from clipstudy.errors import ECHO, DatabaseBusy, DatabaseUnreachable, TrackingUnreachable
from clipstudy.heartbeat import Heartbeat
from clipstudy.progress import Progress
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.queue.patience import Patience
from clipstudy.tasks.task import Bench
from clipstudy.tracking import Tracking
from clipstudy.wording import duration

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.features.cache import Store

log = logging.getLogger(__name__)

#: Seconds after which a worker that has given no sign of life leaves the list of workers.
SILENT = 600.0
#: Seconds that a worker which was told to stop still gives to MLflow.
LEAVING = 3.0
#: Seconds for which a request that was given up may still reach MLflow.
STRAGGLERS = 300.0


@dataclass(frozen=True)
class Habits:
    """How a worker behaves. Times in seconds."""

    drain: bool = False  #: stop when nothing is queued
    study: str | None = None  #: claim cells of this study alone
    layers_per_batch: int | None = None  #: cap, so that a big group spreads over many workers
    lease: float = 120.0
    poll: float = 1.0  #: first wait when nothing is queued; doubles up to 30
    outbox_bound: int = 2000  #: attempts that may wait for MLflow before no more work is claimed
    recording: float = 10.0  #: at one go, before it looks for work again; as long a pause follows where more waits
    #: So long a draining worker that has only MLflow to wait for bears no progress. Longer than a recorder's lease:
    #: what a dead one held is recorded still.
    mlflow: float = 240.0


class Worker:
    """One process on one device."""

    def __init__(
        self, engine: Engine, tracking: Tracking, store: Store | None, device: str, habits: Habits, progress: Progress
    ) -> None:
        self.engine, self.tracking, self.store, self.habits, self.progress = engine, tracking, store, habits, progress
        self.name = _name()
        self.shelf = run.Shelf(device)
        self.stop = threading.Event()  #: asked to leave
        self.enough = threading.Event()  #: asked again: not even a database that is away is waited for
        here = jobs.WorkerInfo(self.name, socket.gethostname(), os.getpid(), registered(device))
        self.heartbeat = Heartbeat(engine, here, habits.lease)
        #: After a lease's length what is held is no longer ours anyway.
        self.patience = Patience(habits.lease, self.enough)
        self.bench = Bench(device, self._on_progress)
        self.tally = Tally()
        self._doubtful = False
        self._met_away = -math.inf  # when a round last met the database away
        self._mlflow_after, self._mlflow_wait, self._expired_after = 0.0, 1.0, 0.0
        self._work_first = 0.0  # until when recording lets computing go before
        self._waiting, self._progressed = 0, time.monotonic()
        self._sweep_until = time.monotonic() + STRAGGLERS
        self._away: str | None = None  # what MLflow said last, where it did not answer
        self._reached = False  # whether it ever did

    def work(self) -> Tally:
        """Until told to stop, or (drain) until nothing is queued and MLflow has, or does not take, what is computed."""
        self.patience(lambda: jobs.register(self.engine, self.heartbeat.worker))
        self.heartbeat.start()
        self._progressed = time.monotonic()
        wait = self.habits.poll
        try:
            while not self.stop.is_set():
                progressed = self._progressed
                worked = self._round()
                if worked is None:
                    break
                wait = self.habits.poll if worked or self._progressed > progressed else min(wait * 2, 30.0)
                if not worked:
                    # A draining worker is waited for: what backs off or is being recorded will not take long.
                    self.stop.wait(min(wait, 2.0) if self.habits.drain else wait * random.uniform(0.5, 1.0))
        finally:
            self.heartbeat.done.set()
            self.heartbeat.join(timeout=5)
            with contextlib.suppress(DatabaseUnreachable):
                self.patience(self._disown)
                jobs.forget(self.engine, self.name)
            self.progress.close()
        return self.tally

    def _round(self) -> bool | None:
        """True where something was computed, None where a draining worker has nothing left to do."""
        began, keeping, computed = time.monotonic(), self.tally.keeping, self.tally.computed
        try:
            if self.step():
                self.tally.busy += time.monotonic() - began
                return True
            self.tally.keeping = keeping  # looking in vain is no part of the work
            return None if self.habits.drain and self._over() else False
        except DatabaseUnreachable as error:
            if self.tally.computed > computed:  # it went away amid the batch, or after it
                self.tally.busy += time.monotonic() - began
            else:
                self.tally.keeping = keeping
            log.warning("%s", error)
            self._doubtful, self._met_away = True, time.monotonic()
            return False

    def step(self) -> bool:
        """One round: mend, record, claim, compute. True where something was computed."""
        with self.tally.kept():
            self._mend()
            waiting = self.record()
            if waiting >= self.habits.outbox_bound:
                self._work_first = 0.0
                log.warning("%d results wait for MLflow: no more work is claimed until they are recorded", waiting)
                return False
            batch = jobs.claim(
                self.engine,
                self.name,
                lease=timedelta(seconds=self.habits.lease),
                layers_per_batch=self.habits.layers_per_batch,
                prefer_model=self.shelf.name,
                study=self.habits.study,
            )
        if batch is None:
            self._work_first = 0.0
            return False
        attempt = Attempt(self.engine, batch, self.heartbeat, self.progress, self.patience, self.tally)
        attempt.compute(self.shelf, self.store, self.bench)
        self._progressed = time.monotonic()
        with self.tally.kept():
            self.record()
        return True

    def record(self) -> int:
        """Bring the outbox to MLflow where it answers, but not all the time: it may be slow, and there is work to do.
        How many attempts still wait."""
        began = time.monotonic()

        def enough() -> bool:
            most = LEAVING if self.stop.is_set() else self.habits.recording
            return self.enough.is_set() or time.monotonic() - began > most

        if began >= max(self._mlflow_after, self._work_first) and outbox.pending(self.engine):
            try:
                self.tracking.prepare()
                self._reached = True
                for recorded in recorder.drain(self.engine, self.tracking, self.name, enough=enough):
                    self.tally.recorded += recorded
                self._mlflow_wait, self._away = 1.0, None
            except TrackingUnreachable as error:
                log.warning("%s", error)
                self._away = str(error)
                self._sweep_until = time.monotonic() + STRAGGLERS
                self._mlflow_after = time.monotonic() + self._mlflow_wait
                self._mlflow_wait = min(self._mlflow_wait * 2, 60.0)
        waiting, took = outbox.pending(self.engine), time.monotonic() - began
        if waiting and took > self.habits.recording:
            log.warning("MLflow is slow: %d results wait for it; computing goes on meanwhile", waiting)
            self._work_first = time.monotonic() + took
        if waiting < self._waiting:
            self._progressed = time.monotonic()
        self._waiting = waiting
        return waiting

    def _mend(self) -> None:
        """Take back what vanished workers held, and what a broken connection may have claimed for this one.

        Leases that ran out while the database was away are nobody's fault: after an outage that this worker met, the
        others have a while to renew theirs.
        """
        away = max(self._met_away, self.patience.away, self.heartbeat.away)
        if time.monotonic() > max(self._expired_after, away + self.habits.lease / 2):
            for job in jobs.requeue_expired(self.engine, grace=timedelta(seconds=self.habits.lease / 2)):
                log.warning("job %d (%s) was lost: %s", job.id, name(job), job.error)
            jobs.forget_silent(self.engine, SILENT)
            self._sweep()
            self._expired_after = time.monotonic() + self.habits.lease / 4
        self._disown()

    def _disown(self) -> None:
        """Give back what may run under this name: a connection that broke amid a claim leaves it open whether the claim
        happened, and one that broke amid a batch what became of its cells. Nothing is held here."""
        if self._doubtful:
            jobs.disown(self.engine, self.name)
            self._doubtful = False

    def _sweep(self) -> None:
        """Where MLflow did not answer not long ago (to this worker, or to one before it), requests may reach it still
        that nobody waits for."""
        if self._reached and self._away is None and time.monotonic() < self._sweep_until:
            until = time.monotonic() + self.habits.recording

            def enough() -> bool:
                return self.stop.is_set() or time.monotonic() > until

            try:
                # By one worker at a time: each asks about every run that is open, of which every recorder has one.
                with dialect.advisory_lock(self.engine, "sweep", 0):
                    if swept := self.tracking.sweep(enough):
                        log.info("%d runs deleted that requests left in MLflow after their time", swept)
            except (TrackingUnreachable, DatabaseBusy):
                pass
            except DatabaseUnreachable:
                raise
            except Exception:  # it tidies up; whatever MLflow has there must not end a worker
                log.exception("runs that requests may have left in MLflow could not be looked for")

    def _on_progress(self, what: str, done: float, of: int) -> None:
        self.heartbeat.stir()
        self.progress(what, done, of)
        if self.stop.is_set() or self.heartbeat.lost():
            raise run.Stopped

    def _over(self) -> bool:
        """Whether a draining worker has nothing left to do, or nothing that it could."""
        queued = jobs.any_queued(self.engine, self.habits.study)
        waiting = outbox.pending(self.engine, self.habits.study)
        full = self._waiting >= self.habits.outbox_bound  # whichever studies' they are: nothing more is claimed
        if not waiting and not (queued and full):
            if not queued:
                self._sweep()
            return not queued
        if (queued and not full) or time.monotonic() - self._progressed < self.habits.mlflow:
            return False
        self.tally.waiting = waiting or self._waiting
        why = self._away or outbox.last_error(self.engine) or "another recorder holds them."
        log.error(
            "%d results are kept in the outbox: MLflow has taken none for %s. It said: %s\n"
            "When it takes them again, type: clipstudy worker --drain",
            self.tally.waiting, duration(time.monotonic() - self._progressed), why,
        )  # fmt: skip
        return True


def _name() -> str:
    """``host:pid:random``; within a SLURM job with its number before the random part, which is how a fleet is known."""
    job = os.environ.get("SLURM_JOB_ID")
    slurm = [f"slurm-{job}"] if job else []
    return ":".join([socket.gethostname(), str(os.getpid()), *slurm, os.urandom(4).hex()])


def obey_signals(worker: Worker) -> None:
    """SIGTERM, SIGUSR1 (a cluster's notice that it takes the machine away) and SIGINT: drop the layer at hand, give the
    rest back, leave. Another one, later than its echo: do not wait for the database either. A second SIGINT interrupts
    at once."""
    # A handler runs amid whatever the main thread does, which may hold the lock of an event or of a log: only what is
    # reentrant may be done there. The rest is another thread's.
    words: queue.SimpleQueue[int] = queue.SimpleQueue()
    interrupts = itertools.count(1)

    def on_signal(number: int, frame: object) -> None:
        words.put(number)
        if number == signal.SIGINT and next(interrupts) > 1:
            raise KeyboardInterrupt

    def listen() -> None:
        first = time.monotonic()
        for number in iter(words.get, None):
            if not worker.stop.is_set():
                first = time.monotonic()
            elif time.monotonic() - first < ECHO:
                continue
            else:
                worker.enough.set()
            worker.stop.set()
            log.warning("%s: giving back what is not done", signal.Signals(number).name)

    threading.Thread(target=listen, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, on_signal)
