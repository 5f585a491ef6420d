"""One claimed batch from claim to hand-over: run it, settle each cell by itself, give back what was not done."""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from clipstudy import run, tasks
from clipstudy.device import broken
from clipstudy.errors import ClipstudyError, DatabaseUnreachable, GroupChanged, Outdated
from clipstudy.heartbeat import Heartbeat
from clipstudy.job import Batch, Failure, FailureKind, Job, Status
from clipstudy.outcome import LOG, Artifact, Outcome
from clipstudy.progress import Progress
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.queue.patience import Patience
from clipstudy.redaction import RedactedFormatter
from clipstudy.tasks.task import Bench
from clipstudy.tracking import environment
from clipstudy.wording import counted, duration

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.features.cache import Store

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Tally:
    """What a worker did, cell by cell, and how long it took (seconds)."""

    computed: int = 0
    failed: int = 0  #: for good
    again: int = 0  #: attempts that failed and are tried again
    recorded: int = 0
    waiting: int = 0  #: results that MLflow did not take in the end
    busy: float = 0.0  #: with batches, the queue and MLflow
    keeping: float = 0.0  #: of that, with the queue and MLflow alone

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Time with the queue or MLflow."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.keeping += time.monotonic() - began


class Attempt:
    """A batch in the hands of a worker. Every write is fenced: what is no longer ours is dropped."""

    def __init__(
        self, engine: Engine, batch: Batch, heartbeat: Heartbeat, progress: Progress, patience: Patience, tally: Tally
    ) -> None:
        self.engine, self.batch, self.heartbeat, self.progress, self.tally = engine, batch, heartbeat, progress, tally
        self.patience = patience
        self.title = f"{batch.group.model.name} · {batch.group.task.name} · {counted(len(batch.jobs), 'layer')}"
        self.left = {job.layer: job for job in batch.jobs}

    def compute(self, shelf: run.Shelf, store: Store | None, bench: Bench) -> None:
        """Run the batch and settle each layer as it comes. Never raises for what goes wrong in the batch itself.

        Raises DatabaseUnreachable: nobody could be told. What is not done still runs under this worker's name.
        Raises Outdated: this worker is of an older version than the batch.
        Raises what broke the device for this process, which must end.
        """
        self.progress.batch(self.title)
        self.heartbeat.hold(self.batch.jobs, self.title)
        began = time.monotonic()
        with captured() as text:
            try:
                self._by_the_same_method()
                started = self._ask(lambda: dialect.now(self.engine))
                measured = run.run(
                    self.batch.group, self.batch.layers, shelf=shelf, store=store, bench=bench, pin=self._pin
                )
                for layer, result in measured:
                    if isinstance(result, Failure):
                        job = self.left[layer]
                        ended_as = self._end(job, result, text)
                        self.progress.say(f"{name(job)}: {ended_as}")  # what failed is logged already
                    else:
                        ended = started + timedelta(seconds=time.monotonic() - began)
                        try:
                            self._hand_over(self.left[layer], result, text, started=started, ended=ended)
                        except ValueError as error:  # a number that is none: its siblings are none the worse for it
                            self._end(self.left[layer], run.failure_at(layer, error), text)
                    del self.left[layer]
                self.progress.say(f"{self.title}: done in {duration(time.monotonic() - began)}")
            except run.Stopped:
                pass
            except Outdated:  # no fault of the cells', and this worker would spoil one after another
                raise
            except DatabaseUnreachable:
                self.left.clear()  # to be disowned when it is back
                raise
            except Exception as error:  # a bug in one batch must not end the worker: it is recorded, traceback and all
                if broken(error):
                    self._lose_all(error, text)
                    raise
                self._fail_all(error, text)
            finally:
                self.heartbeat.drop()
                if self.left:
                    released = self._ask(lambda: jobs.release(self.engine, tuple(self.left.values())))
                    log.info("%s: %s given back", self.title, counted(released, "cell"))

    def _hand_over(self, job: Job, outcome: Outcome, text: io.StringIO, **times: datetime) -> None:
        whole = replace(
            outcome,
            params={**environment(), **outcome.params},
            artifacts=(*outcome.artifacts, Artifact(LOG, outbox.storable(text.getvalue()).encode())),
        )
        # However long the database is away: what is computed is kept until the fence refuses it.
        ours = self._ask(lambda: outbox.hand_over(self.engine, job, whole, **times), forever=True)
        self.heartbeat.settle(job)
        if ours:
            self.tally.computed += 1
        else:
            log.warning("%s: no longer ours (cancelled, or the lease ran out); its result is dropped", name(job))

    def _fail_all(self, error: Exception, text: io.StringIO) -> None:
        if isinstance(error, ClipstudyError):
            log.error("%s", error)  # the user's to mend: where in the code it came up helps nobody
        else:
            log.exception("%s", self.title)
        failure = run.failure_of(error)
        ends = {self._end(job, failure, text) for job in self.left.values()}
        self.left.clear()
        self.progress.say(f"{self.title}: {', '.join(sorted(ends))}")

    def _lose_all(self, error: Exception, text: io.StringIO) -> None:
        """As what a killed worker held: each is tried by itself next, so that one which breaks the device each time
        fails alone."""
        log.exception("%s: the device is of no use to this process any more, which ends", self.title)
        failure = replace(run.failure_of(error), kind=FailureKind.LOST)
        for job in self.left.values():
            self._end(job, failure, text)
        self.left.clear()

    def _end(self, job: Job, failure: Failure, text: io.StringIO) -> Status | str:
        """End an attempt without an outcome; where the job went."""
        logged = replace(failure, log=text.getvalue())
        status = self._ask(lambda: jobs.fail(self.engine, job, logged))
        self.heartbeat.settle(job)
        self.tally.failed += status is Status.FAILED
        self.tally.again += status is Status.QUEUED
        return status or "no longer ours"

    def _by_the_same_method(self) -> None:
        """
        Raises:
            GroupChanged: this version measures the kind by a later method than was enqueued.
            Outdated: by an earlier one. The cells are given back: another worker may be newer.
        """
        task = self.batch.group.task
        here = tasks.load(task.kind).METHOD
        told = f'[tasks.{task.name}] kind = "{task.kind}" was enqueued for method {task.method} of measuring it, and '
        told += f"this version has method {here}."
        if here < task.method:
            raise Outdated(f"{told} Update clipstudy, then start the worker again.")
        if here > task.method:
            raise GroupChanged(f"{told} Type: clipstudy enqueue --all")

    def _pin(self, resolved: Mapping[str, str]) -> None:
        stored = self._ask(lambda: jobs.pin(self.engine, self.batch.group_id, resolved, tuple(self.left.values())))
        if stored is None:
            raise run.Stopped
        changed = sorted(k for k in resolved if stored.get(k) != resolved[k])
        if changed:
            group = self.batch.group
            named = {"study": group.study, "model": group.model.name, "task": group.task.name}
            raise GroupChanged(
                f"{group.model.name} · {group.task.name}: the {' and the '.join(changed)} changed since this group "
                f"began ({stored.get(changed[0])} then, {resolved[changed[0]]} now). Restore it, or compute the whole "
                f"group anew: clipstudy rerun {' '.join(f'--{k} {shlex.quote(v)}' for k, v in named.items())}"
            )

    def _ask(self, act: Callable[[], T], *, forever: bool = False) -> T:
        with self.tally.kept():
            return self.patience(act, forever=forever)


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Everything that clipstudy logs meanwhile: the attempt's log."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("clipstudy")
    logger.addHandler(handler)
    try:
        yield text
    finally:
        logger.removeHandler(handler)


def name(job: Job) -> str:
    """``bert · depth · block 3``."""
    return f"{job.model} · {job.task} · {job.label}"
