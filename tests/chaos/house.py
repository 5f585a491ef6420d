"""A job table, an MLflow store and worker processes, all real, for one study; and the loop that lets a fault loose on
them and watches until everything is settled."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, select

from clipstudy.errors import ClipstudyError
from clipstudy.job import SETTLED, Status
from clipstudy.queue import dialect, migration, outbox
from clipstudy.queue import jobs as queue
from clipstudy.queue.dialect import reading
from clipstudy.queue.schema import jobs as table
from clipstudy.queue.schema import outbox as waiting
from clipstudy.tracking import Tracking
from tests.chaos import audit, body, cells
from tests.chaos.audit import Verdict
from tests.chaos.servers import MLflow, Postgres, Proxy

#: Processes are forked from one that has loaded everything: a worker that dies every second may not cost four.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.chaos.body"])

TICK = 0.1  #: seconds between two looks
FIRST_BLOW = 2.0  #: seconds: workers are at work by then


@dataclass(frozen=True)
class Backends:
    """What the houses of one kind share. A server that is not there: the embedded SQLite file in its stead."""

    name: str
    unused: Path  #: an MLflow store in which nobody has made an experiment: making one takes seconds
    postgres: Postgres | None = None
    mlflow: MLflow | None = None


def pid_of(worker: str) -> int:
    """The process of a worker, by its name in the table."""
    return int(worker.split(":")[1])


class House:
    """One study's."""

    def __init__(self, folder: Path, backends: Backends, study: str, seed: int = 0) -> None:
        folder.mkdir(parents=True)
        self.folder, self.backends, self.study = folder, backends, study
        self.postgres, self.mlflow = backends.postgres, backends.mlflow
        self.random = random.Random(seed)
        self.proxy = Proxy(self.mlflow.port) if self.mlflow else None
        database = self.postgres.database() if self.postgres else f"sqlite:///{folder / 'clipstudy.db'}"
        self.engine: Engine = dialect.connect(database)
        migration.migrate(self.engine)
        audit.watch(self.engine)
        if not self.mlflow:
            shutil.copy(backends.unused, folder / "mlflow.db")
        self.store = Tracking(
            self.mlflow.url if self.mlflow else f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")
        )
        self.store.prepare()
        self.orders = body.Orders(
            database,
            self.proxy.url if self.proxy else self.store.uri,
            self.store.artifacts_uri,
            str(folder / "worker.log"),
        )
        self.workers: list[Any] = []
        self._numbers = itertools.count()

    def hire(self, ordered: bool = True) -> Any:
        """Another worker; ``ordered``: with the order to end itself, or to fall asleep, where there is one."""
        orders = replace(self.orders, seed=self.random.randrange(2**32) + next(self._numbers))
        orders = orders if ordered else replace(orders, point="")
        worker = _context.Process(target=body.work, args=(orders,), daemon=True)
        worker.start()
        self.workers.append(worker)
        return worker

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers if worker.is_alive()]

    def asleep(self) -> list[int]:
        """Workers that are stopped (SIGSTOP)."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    found.append(pid)
        return found

    def signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def look(self) -> dict[int, Status]:
        """Every row's status."""
        with reading(self.engine) as connection:
            return {row.id: Status(row.status) for row in connection.execute(select(table.c.id, table.c.status))}

    def held(self, pid: int) -> set[str]:
        """The results that a worker holds to record them, each with its lease's token."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(waiting.c.id, waiting.c.token, waiting.c.recorder)).all()
        return {f"{row.id} {row.token}" for row in rows if row.recorder and pid_of(row.recorder) == pid}

    def mend(self) -> None:
        """Whatever a fault left behind."""
        if self.postgres:
            self.postgres.start()
        if self.mlflow:
            self.mlflow.wait()

    def judge(self) -> Verdict:
        return audit.judge(self.engine, self.store, self.study)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()
        if self.proxy:
            self.proxy.close()
        self.engine.dispose()


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and how often."""

    name: str
    what: str  #: a sentence of the table
    blow: Callable[[House], Any] | None = None  #: called every ``every`` seconds
    lift: Callable[[House, Any], None] | None = None  #: ``lasts`` seconds later, with what ``blow`` gave
    every: float = 2.0
    lasts: float = 0.0
    most: int = 12  #: blows
    orders: dict[str, Any] = field(default_factory=dict)  #: what workers are told: where to end themselves
    plan: dict[str, Any] = field(default_factory=dict)  #: of the study: see `cells.plan`
    prepare: Callable[[House], None] = lambda house: None  #: called before anything is enqueued
    needs: frozenset[str] = frozenset()  #: "postgres", "server", "embedded", "root"
    slow: bool = False  #: a tenth of the jobs
    fails: int = 0  #: cells that must fail
    interrupts: bool = False  #: cells that are being computed must be given up, or taken over by others
    taken_over: bool = False  #: results that a sleeping recorder holds must be taken over by others


@dataclass
class Watched:
    """What was seen meanwhile. Times in seconds."""

    took: float = 0.0
    blows: int = 0
    recoveries: list[float] = field(default_factory=list)
    waiting: int = 0  #: cells computed and not recorded, at most
    taken_over: int = 0  #: sleeping recorders whose results were in other hands, or recorded, when they woke
    over: bool = False  #: everything came to rest in time

    @property
    def median(self) -> float | None:
        return statistics.median(self.recoveries) if self.recoveries else None


class Loop:
    """Workers at work, blows falling, until nothing is left to do.

    A recovery is measured from the end of a blow until all rows that were in somebody's hands when it fell (running,
    or computed and not recorded) have come to rest.
    """

    def __init__(self, house: House, fault: Fault, *, workers: int = 3, limit: float = 300.0) -> None:
        self.house, self.fault, self.number, self.limit = house, fault, workers, limit
        self.seen = Watched()
        self._rows: dict[int, Status] = {}
        self._open: list[tuple[float, set[int]]] = []  # ends of blows, and what was in hand then
        self._lifts: list[tuple[float, Any]] = []
        self._asleep: dict[int, set[str]] = {}  #: who sleeps, and the results in his hands
        self._sleeper: Any = None  #: the worker that is told to fall asleep: the others are to take over what it held

    def run(self) -> Watched:
        house, fault = self.house, self.fault
        house.orders = replace(house.orders, **fault.orders)
        began = time.monotonic()
        next_blow = began + min(fault.every, FIRST_BLOW)
        while time.monotonic() - began < self.limit:
            now = time.monotonic()
            self._look()
            if not self._lifts and self._at_rest():
                self.seen.over = True
                break
            self._staff()
            for due in [lift for lift in self._lifts if lift[0] <= now]:
                self._lifts.remove(due)
                self._lift(due[1])
            if fault.blow and now >= next_blow and not self._lifts and self.seen.blows < fault.most:
                self._blow()
                next_blow = time.monotonic() + fault.every + fault.lasts
            time.sleep(TICK)
        for _, given in self._lifts:
            self._lift(given)
        self.seen.took = time.monotonic() - began
        for worker in self.house.workers:
            worker.join(15)  # each looks once more whether it leaves anything behind
        return self.seen

    def _at_rest(self) -> bool:
        """Nothing queued or in hand, and MLflow knows all of it, failures too."""
        if not self._rows or any(status not in SETTLED for status in self._rows.values()):
            return False
        with contextlib.suppress(ClipstudyError):
            return not outbox.pending(self.house.engine)
        return False

    def _look(self) -> None:
        try:
            self._rows = self.house.look()
        except ClipstudyError:
            return  # the database is away: that is the fault
        self.seen.waiting = max(self.seen.waiting, list(self._rows.values()).count(Status.COMPUTED))
        now = time.monotonic()
        for blow in list(self._open):
            if all(self._rows.get(row) in SETTLED for row in blow[1]):
                self._open.remove(blow)
                self.seen.recoveries.append(max(now - blow[0], 0.0))

    def _staff(self) -> None:
        """Three at work, whoever has died or gone. One that ended itself is a blow."""
        for worker in list(self.house.workers):
            if not worker.is_alive():
                worker.join()
                self.house.workers.remove(worker)
                if self.fault.orders.get("point") and worker.exitcode == -signal.SIGKILL:
                    self._mark()
        if self._sleeps:
            for pid in set(self.house.asleep()) - self._asleep.keys():
                self._asleep[pid] = self.house.held(pid)
                self._mark(after=self.fault.lasts)
                self._lifts.append((time.monotonic() + self.fault.lasts, pid))
        if self.fault.orders.get("point") and self.seen.blows >= self.fault.most:
            self.house.orders = replace(self.house.orders, point="")
        while len(self.house.workers) < self.number:
            ordered = not (self._sleeps and self._sleeper in self.house.workers)
            worker = self.house.hire(ordered)
            if self._sleeps and ordered:
                self._sleeper = worker

    @property
    def _sleeps(self) -> bool:
        return self.fault.orders.get("number") == signal.SIGSTOP

    def _mark(self, after: float = 0.0) -> None:
        self.seen.blows += 1
        held = {row for row, status in self._rows.items() if status in (Status.RUNNING, Status.COMPUTED)}
        if held:
            self._open.append((time.monotonic() + after, held))

    def _blow(self) -> None:
        assert self.fault.blow is not None
        given = self.fault.blow(self.house)
        if self.fault.lift:
            self._mark(after=self.fault.lasts)
            self._lifts.append((time.monotonic() + self.fault.lasts, given))
        else:
            self._mark()

    def _lift(self, given: Any) -> None:
        if held := self._asleep.pop(given, None):
            self.seen.taken_over += bool(held - self.house.held(given))
        if self.fault.lift:
            self.fault.lift(self.house, given)


def trial(
    fault: Fault, backends: Backends, folder: Path, jobs: int, *, busy: float, workers: int = 3, limit: float = 300.0
) -> tuple[Watched, Verdict, list[str]]:
    """Let ``fault`` loose on a study of ``jobs`` cells; what was seen, what came of it, and all that was wrong.

    Args:
        busy: seconds for which the cells would keep the workers were there nothing else to do. They only wait
            meanwhile, so that a short study is still long enough for a dozen blows.
        limit: seconds after which it has not come to rest in time.
    """
    study = f"{fault.name} on {backends.name} {time.time_ns()}"
    with contextlib.closing(House(folder, backends, study)) as house:
        fault.prepare(house)
        planned = {"millis": 1000 * busy * workers / jobs, **fault.plan}
        queue.enqueue(house.engine, cells.plan(study, jobs, **planned))
        seen = Loop(house, fault, workers=workers, limit=limit).run()
        house.mend()
        verdict = house.judge()
    wrong = [*verdict.lost, *verdict.twice, *verdict.disagree]
    if not seen.over:
        wrong.insert(0, "it did not come to rest in time")
    bound = fault.orders.get("outbox_bound")
    if bound and not bound <= seen.waiting < bound + workers * cells.SIBLINGS:
        wrong.insert(0, f"{seen.waiting} results waited for MLflow, where {bound} is the bound")
    if not seen.blows and (fault.blow or "point" in fault.orders):
        wrong.insert(0, "not one blow fell: this showed nothing")
    if verdict.failed < fault.fails:
        wrong.insert(0, f"{fault.fails} cells had to fail, {verdict.failed} did")
    if fault.taken_over and not seen.taken_over:
        wrong.insert(0, "nobody took over what a sleeping recorder held: this showed nothing")
    if fault.interrupts and verdict.attempts <= verdict.done:
        wrong.insert(0, "no cell that was being computed was given up, or taken over: this showed nothing")
    return seen, verdict, wrong
