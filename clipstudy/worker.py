"""Claim, heartbeat, run, hand over; signals and back-off. What a batch is and how it is measured is not known here."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from clipstudy import recorder, run
from clipstudy.errors import ClipstudyError, DatabaseUnreachable, GroupChanged, TrackingUnreachable
from clipstudy.heartbeat import Heartbeat
from clipstudy.job import Batch, Failure, Job, Status
from clipstudy.outcome import Artifact, Outcome
from clipstudy.progress import Progress, duration
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.tasks.task import Bench
from clipstudy.tracking import Tracking, environment

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.features.cache import Store

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Habits:
    """How a worker behaves. Times in seconds."""

    drain: bool = False  #: stop when nothing is queued
    layers_per_batch: int | None = None  #: cap, so that a big group spreads over many workers
    lease: float = 120.0
    poll: float = 1.0  #: first wait when nothing is queued; doubles up to 30
    outbox_bound: int = 2000  #: attempts that may wait for MLflow before no more work is claimed


class Worker:
    """One process on one device."""

    def __init__(
        self, engine: Engine, tracking: Tracking, store: Store | None, device: str, habits: Habits, progress: Progress
    ) -> None:
        self.engine, self.tracking, self.store, self.habits, self.progress = engine, tracking, store, habits, progress
        self.name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(2).hex()}"
        self.shelf = run.Shelf(device)
        self.stop = threading.Event()
        self.heartbeat = Heartbeat(engine, self.name, habits.lease)
        self.bench = Bench(device, self._told)
        self.recorded = self.handed_over = self.failed = 0
        self._doubtful = False
        self._mlflow_after, self._mlflow_wait, self._expired_after = 0.0, 1.0, 0.0

    def work(self) -> None:
        """Until told to stop, or (drain) until nothing is queued."""
        here = jobs.WorkerInfo(self.name, socket.gethostname(), os.getpid(), self.shelf.device)
        self._patiently(lambda: jobs.register(self.engine, here))
        self.heartbeat.start()
        wait = self.habits.poll
        try:
            while not self.stop.is_set():
                try:
                    worked = self.step()
                    if not worked and self.habits.drain and self._empty():
                        return
                except DatabaseUnreachable as error:
                    log.warning("%s", error)
                    worked, self._doubtful = False, True
                wait = self.habits.poll if worked else min(wait * 2, 30.0)
                if not worked:
                    # A draining worker is waited for: what backs off or is being recorded will not take long.
                    self.stop.wait(min(wait, 2.0) if self.habits.drain else wait * random.uniform(0.5, 1.0))
        finally:
            self.heartbeat.done.set()
            self.heartbeat.join(timeout=5)
            with contextlib.suppress(DatabaseUnreachable):
                jobs.forget(self.engine, self.name)
            self.progress.close()

    def step(self) -> bool:
        """One round: mend, record, claim, compute. True where something was computed."""
        if time.monotonic() > self._expired_after:
            for job in jobs.requeue_expired(self.engine):
                log.warning("job %d (%s) was lost by %s: %s", job.id, _title(job), job.worker, job.status)
            self._expired_after = time.monotonic() + self.habits.lease / 4
        if self._doubtful:
            # A connection that broke amid a claim leaves it open whether the claim happened; nothing is held here.
            jobs.disown(self.engine, self.name)
            self._doubtful = False
        waiting = self.record()
        if waiting >= self.habits.outbox_bound:
            log.warning("%d results wait for MLflow: no more work is claimed until they are recorded", waiting)
            return False
        lease = timedelta(seconds=self.habits.lease)
        batch = jobs.claim(
            self.engine,
            self.name,
            lease=lease,
            layers_per_batch=self.habits.layers_per_batch,
            prefer_model=self.shelf.name,
        )
        if batch is None:
            return False
        self.compute(batch)
        self.record()
        return True

    def compute(self, batch: Batch) -> None:
        """Run one batch and hand over each layer by itself."""
        title = f"{batch.group.model.name} · {batch.group.task.name} · {len(batch.jobs)} layers"
        self.progress.batch(title)
        self.heartbeat.hold(batch.jobs, title)
        left = {job.layer: job for job in batch.jobs}
        began = time.monotonic()
        with _captured() as text:
            try:
                started = dialect.now(self.engine)
                for layer, found in run.run(
                    batch.group,
                    batch.layers,
                    shelf=self.shelf,
                    store=self.store,
                    bench=self.bench,
                    pin=lambda resolved: self._pin(batch, resolved),
                ):
                    self._settle(left[layer], found, started, text)
                    del left[layer]
            except run.Stopped:
                pass
            except Exception as error:
                found = run.failure(error)
                if isinstance(error, ClipstudyError):
                    log.error("%s", error)  # the user's to mend: where in the code it came up helps nobody
                else:
                    log.exception("%s", title)
                statuses = {self._end(job, found, text) for job in left.values()}
                left.clear()
                self.progress.say(
                    f"{title}: {found.error} → {', '.join(sorted(s or 'no longer ours' for s in statuses))}"
                )
                return
            finally:
                self.heartbeat.drop()
                if left:
                    given = self._patiently(lambda: jobs.release(self.engine, tuple(left.values())))
                    log.info("%s: %d cells given back", title, given)
        if not left:
            log.info("%s: done in %s", title, duration(time.monotonic() - began))

    def record(self) -> int:
        """Bring the outbox to MLflow where it answers; how many attempts still wait."""
        if time.monotonic() >= self._mlflow_after and outbox.pending(self.engine):
            try:
                self.tracking.prepare()
                self.recorded += recorder.drain(self.engine, self.tracking, self.name, most=64)
                self._mlflow_wait = 1.0
            except TrackingUnreachable as error:
                log.warning("%s", error)
                self._mlflow_after = time.monotonic() + self._mlflow_wait
                self._mlflow_wait = min(self._mlflow_wait * 2, 60.0)
        return outbox.pending(self.engine)

    def _settle(self, job: Job, found: Outcome | Failure, started: object, text: io.StringIO) -> None:
        if isinstance(found, Failure):
            self.progress.say(f"{_title(job)}: {found.error} → {self._end(job, found, text) or 'no longer ours'}")
            return
        self.heartbeat.settle(job)
        whole = replace(
            found,
            params={**environment(), **found.params},
            artifacts=(*found.artifacts, Artifact("log.txt", text.getvalue().encode())),
        )
        ended = self._patiently(lambda: dialect.now(self.engine))
        if self._patiently(lambda: outbox.hand_over(self.engine, job, whole, started=started, ended=ended)):
            self.handed_over += 1
        else:
            log.warning("%s: no longer ours (cancelled, or the lease ran out); its result is dropped", _title(job))

    def _end(self, job: Job, found: Failure, text: io.StringIO) -> Status | None:
        """End an attempt without an outcome; where the job went."""
        self.heartbeat.settle(job)
        self.failed += 1
        return self._patiently(lambda: jobs.fail(self.engine, job, replace(found, log=text.getvalue())))

    def _pin(self, batch: Batch, resolved: dict[str, str]) -> None:
        stored = self._patiently(lambda: jobs.pin(self.engine, batch.group_id, resolved)) or resolved
        changed = sorted(k for k in resolved if stored.get(k) != resolved[k])
        if changed:
            raise GroupChanged(
                f"{batch.group.model.name} · {batch.group.task.name}: the {' and the '.join(changed)} changed since "
                f"this group began ({stored.get(changed[0])} then, {resolved[changed[0]]} now). Restore it, or "
                "name the new one in the study file and type: clipstudy enqueue --all"
            )

    def _told(self, what: str, done: int, of: int) -> None:
        self.progress(what, done, of)
        if self.stop.is_set() or self.heartbeat.lost():
            raise run.Stopped

    def _empty(self) -> bool:
        return not jobs.totals(self.engine).get("queued") and not outbox.pending(self.engine)

    def _patiently(self, act: Callable[[], T]) -> T:
        """A database that is away for a moment must not cost what was computed: try until the lease is over anyway."""
        until, wait = time.monotonic() + self.habits.lease, 0.2
        while True:
            try:
                return act()
            except DatabaseUnreachable as error:
                if time.monotonic() > until:
                    raise
                log.warning("%s", error)
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, 10.0)


def obey_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT: drop the layer at hand, give the rest back, leave. A second SIGINT interrupts at once."""

    def told(number: int, frame: object) -> None:
        if worker.stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        log.warning("%s: giving back what is not done", signal.Signals(number).name)
        worker.stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """Everything that clipstudy logs meanwhile: the attempt's log."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("clipstudy")
    logger.addHandler(handler)
    try:
        yield text
    finally:
        logger.removeHandler(handler)


def _title(job: Job) -> str:
    return f"{job.model} · {job.task} · {job.label}"
