"""What the tests' other processes do. Each takes a database's URL and opens its own connections."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

from clipstudy.job import Status
from clipstudy.queue import claims, dialect, jobs, migration
from clipstudy.supervisor import Crew, Pace, Post, obey_signals
from tests.queue.samples import EXPIRED, LEASE, cells, group, hand_over, record_all

_spawn = multiprocessing.get_context("spawn")


def run_together(number: int, act: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``act(start, *arguments, n)`` in ``number`` processes that begin at the same moment; what each returned."""
    start = _spawn.Barrier(number)
    with _spawn.Pool(number, initializer=_share, initargs=(start,)) as pool:
        return pool.map(_call, [(act, (*arguments, n)) for n in range(number)], chunksize=1)


_start: Barrier


def _share(start: Barrier) -> None:
    global _start
    _start = start


def _call(what: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    act, arguments = what
    return act(_start.wait, *arguments)


@contextmanager
def another(act: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that does ``act(pipe, *arguments)``, and this end of the pipe. Killed at the end."""
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=act, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        here.close()


def work(start: Callable[[], int], url: str, cap: int | None, number: int) -> list[tuple[int, int, int, int]]:
    """Work until nothing is left; (group, batch, job, attempt) of each claimed row."""
    engine = dialect.connect(url)
    name, claimed, batches = f"worker-{number}", [], 0
    jobs.totals(engine)  # connected
    start()
    while True:
        batch = jobs.claim(engine, name, lease=LEASE, layers_per_batch=cap)
        if batch is None:
            totals = jobs.totals(engine)
            if not any(totals[status] for status in (Status.QUEUED, Status.RUNNING, Status.COMPUTED)):
                return claimed
        else:
            batches += 1
            for job in batch.jobs:
                claimed.append((batch.group_id, number * 1000 + batches, job.id, job.attempt))
                assert hand_over(engine, job)
        record_all(engine, name)


def enqueue(start: Callable[[], int], url: str, number: int) -> tuple[int, int]:
    """Enqueue one and the same study; how many rows were new, and how many present."""
    engine = dialect.connect(url)
    plan = cells(*(group(f"m{i}", f"t{j}") for i in range(10) for j in range(10)))
    jobs.totals(engine)
    start()
    told = jobs.enqueue(engine, plan)
    return told.new, sum(told.present.values())


def migrate(start: Callable[[], int], url: str, number: int) -> None:
    engine = dialect.connect(url)
    start()
    migration.migrate(engine)
    migration.check(engine)


def claim_and_hang(pipe: Connection, url: str) -> None:
    """Claim under a lease that ends at once, say so, and never come back."""
    batch = jobs.claim(dialect.connect(url), "hung", lease=EXPIRED)
    pipe.send([job.id for job in batch.jobs] if batch else [])
    pipe.recv()


def hang_in_a_claim(pipe: Connection, url: str) -> None:
    """Claim in a transaction that is not committed, say so, and never come back."""
    with dialect.writing(dialect.connect(url)) as connection:
        rows = connection.execute(claims.claim_statement("hung", timedelta(days=1))).all()
        pipe.send([row.id for row in rows])
        pipe.recv()


def stop_crews(pipe: Connection, number: int) -> None:
    """One after another, crews that wait for a worker's start are stopped by a signal, which comes at any moment."""
    engine = dialect.connect("sqlite:///no.db")
    for k in range(number):
        crew = Crew([Post("a", ())], engine, (), lambda post, line: None, pace=Pace(look=0))
        crew._staff[0].start_at = float("inf")
        obey_signals(crew)
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 0.001 + k * 1e-6)
        crew.work()
