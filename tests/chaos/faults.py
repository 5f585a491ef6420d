"""The faults. What the neighbours' queues are tested with (a database that stops for seconds, sessions that are ended,
one that became a read-only replica, workers that are killed, asleep or poisoned), and each step of this protocol."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from clipstudy.job import Selection, Status
from clipstudy.queue import jobs
from tests.chaos import body, cells
from tests.chaos.body import LEASE, POINTS
from tests.chaos.house import Fault, House, pid_of
from tests.chaos.servers import Mood

#: Results that may wait for MLflow before no more work is claimed, where that is the question.
BOUND = 30
LONGER_THAN_A_LEASE = 7 / 3 * LEASE
#: Of cells that somebody sleeps over, milliseconds and how many are claimed at a time: another looks soon whether they
#: are to be taken over, and is still at it when he wakes.
LONG, FEW = 600, 3
#: To wait for a cell that is being computed.
SECONDS = 60
POSTGRES, SERVER, EMBEDDED = frozenset({"postgres"}), frozenset({"server"}), frozenset({"embedded"})


def some_worker(house: House) -> int | None:
    awake = sorted(set(house.pids()) - set(house.asleep()))
    return house.random.choice(awake) if awake else None


def one_at_work(house: House) -> int | None:
    """A worker that has cells in its hands, waited for, since most of the time they record; any, where none is left to
    be computed."""
    until = time.monotonic() + SECONDS
    while under_way := jobs.rows(house.engine, statuses=[Status.QUEUED, Status.RUNNING]):
        assert time.monotonic() < until, "nothing is computed any more"
        busy = {pid_of(str(row.worker)) for row in under_way if row.status is Status.RUNNING} & set(house.pids())
        if busy:
            return house.random.choice(sorted(busy))
        time.sleep(0.02)
    return some_worker(house)


def in_turn(
    first: Callable[[House], int | None], second: Callable[[House], int | None]
) -> Callable[[House], int | None]:
    """Now the one, now the other."""
    numbers = itertools.count()

    def whom(house: House) -> int | None:
        return (second if next(numbers) % 2 else first)(house)

    return whom


def send(number: int, whom: Callable[[House], int | None] = some_worker) -> Callable[[House], int | None]:
    """Send a signal to a worker."""

    def blow(house: House) -> int | None:
        pid = whom(house)
        if pid is not None:
            house.signal(pid, number)
        return pid

    return blow


def wake(house: House, pid: int | None) -> None:
    if pid is not None:
        house.signal(pid, signal.SIGCONT)


def postgres(act: Callable[[Any], None]) -> Callable[..., None]:
    def do(house: House, given: Any = None) -> None:
        act(house.postgres)

    return do


def terminate(house: House) -> None:
    assert house.postgres
    house.postgres.terminate_all(house.orders.database)


def demote(house: House) -> None:
    """Every session from now on reads only, as on a replica that an address still points to after a failover."""
    assert house.postgres
    name = house.engine.url.database
    house.postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    house.postgres.terminate_all(house.orders.database)


def promote(house: House, given: Any) -> None:
    """The next sessions may write again; those that are open stay as they are."""
    assert house.postgres
    house.postgres.execute(f"ALTER DATABASE {house.engine.url.database} SET default_transaction_read_only = off")


def mlflow(number: int) -> Callable[[House], None]:
    def blow(house: House) -> None:
        assert house.mlflow
        house.mlflow.signal(number)

    return blow


def mlflow_again(house: House, given: Any) -> None:
    assert house.mlflow
    house.mlflow.start()


def mlflow_awake(house: House, given: Any) -> None:
    assert house.mlflow
    house.mlflow.signal(signal.SIGCONT)


def moody(mood: Mood) -> Callable[[House], None]:
    def blow(house: House) -> None:
        assert house.proxy
        house.proxy.mood = mood

    return blow


def well(house: House, given: Any) -> None:
    assert house.proxy
    house.proxy.mood = "well"


def lock(file: str) -> Callable[[House], Any]:
    """Hold a SQLite file's write lock."""

    def blow(house: House) -> Any:
        connection = sqlite3.connect(house.folder / file, isolation_level=None, check_same_thread=False)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
        return connection

    return blow


def unlock(house: House, connection: Any) -> None:
    connection.close()


def fill(house: House) -> Path:
    """Take all that is left on the disk that everything lies on."""
    filler = house.folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return filler


def free(house: House, filler: Path) -> None:
    filler.unlink(missing_ok=True)


def no_memory(house: House) -> int | None:
    """No more address space for some worker than it has just now."""
    pid = some_worker(house)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            size = psutil.Process(pid).memory_info().vms
            resource.prlimit(pid, resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
    return pid


def memory(house: House, pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def wind(house: House) -> None:
    """Have the workers, and the database for them, ask a clock that can be set."""
    file = house.folder / "clock"
    file.write_text("0")
    house.orders = replace(house.orders, clock=str(file))
    if house.postgres:
        # Before pg_catalog in the path of every new session: the table's own statements then ask this clock.
        house.postgres.execute(
            "CREATE SCHEMA chaos",
            "CREATE TABLE chaos.clock (wrong double precision)",
            "INSERT INTO chaos.clock VALUES (0)",
            "CREATE FUNCTION chaos.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS "
            "'SELECT pg_catalog.statement_timestamp() + make_interval(secs => wrong) FROM chaos.clock'",
            f"ALTER DATABASE {house.engine.url.database} SET search_path = chaos, pg_catalog, public",
            url=house.orders.database,
        )


def jump(house: House) -> None:
    """All clocks of this machine to another time, some seconds away; forth and back by turns."""
    file = house.folder / "clock"
    wrong = 0.0 if float(file.read_text() or 0) else house.random.choice((-1, 1)) * 5 * LEASE
    new = file.with_suffix(".new")
    new.write_text(str(wrong))
    new.replace(file)
    if house.postgres:
        house.postgres.execute(f"UPDATE chaos.clock SET wrong = {wrong}", url=house.orders.database)


def cancel(house: House) -> None:
    """A person cancels three models, one of which a worker is computing."""
    models = {name for _, name, _ in jobs.names(house.engine)}
    running = {model for model in (_at_work(house),) if model}
    others = house.random.sample(sorted(models - running), 3 - len(running))
    jobs.cancel(house.engine, Selection(models=(*running, *others)))


def change(house: House) -> None:
    """A person changes a setting of every third model, one of which a worker is computing: another digest, other
    answers."""
    running = _at_work(house) or "m0"
    newest = jobs.rows(house.engine)
    groups = [jobs.group_of(house.engine, group)[0] for group in {row.group_id for row in newest}]
    options = [group.task.options for group in groups]
    version = 1 + max(one["version"] for one in options)
    new = cells.plan(house.study, len(newest), millis=options[0]["millis"], version=version)
    jobs.enqueue(house.engine, new[int(running.removeprefix("m")) % 3 :: 3])


def _at_work(house: House) -> str | None:
    """A model some of whose cells are being computed, waited for; None where all that there is was computed."""
    until = time.monotonic() + SECONDS
    while under_way := jobs.rows(house.engine, statuses=[Status.QUEUED, Status.RUNNING]):
        assert time.monotonic() < until, "nothing is computed any more"
        running = [row.model for row in under_way if row.status is Status.RUNNING]
        if running:
            return running[-1]
        time.sleep(0.02)
    return None


_AT = {
    "claim": "claimed, nothing computed",
    "mid-fit": "some of a batch's layers computed",
    "amid hand-over": "in the transaction that hands over",
    "hand-over": "handed over to the outbox",
    "take": "taken from the outbox by a recorder",
    "create parent": "the parent run created, not yet known to the table",
    "create_run": "the run created, empty",
    "log_batch": "numbers logged",
    "artifacts": "files logged",
    "close": "the run closed",
    "projection": "on the parent, not yet done in the table",
    "done": "done in the table, siblings not",
}
assert tuple(_AT) == POINTS
#: Passed once a cell; the others are passed once a batch.
_OFTEN = frozenset({"mid-fit", "amid hand-over", "hand-over", "create_run", "log_batch", "artifacts", "close", "done"})


def at(point: str) -> dict[str, Any]:
    return {"point": point, "within": 12 if point in _OFTEN else 2}


FAULTS: tuple[Fault, ...] = (
    Fault("quiet", "Nothing."),
    Fault("kill", "SIGKILL to some worker every second, as the kernel does to one that takes too much memory.",
          send(signal.SIGKILL, in_turn(one_at_work, some_worker)), every=1.0, most=20, interrupts=True),
    *(
        Fault(f"kill at: {point}", f"A worker kills itself: {what}.", orders=at(point), most=6)
        for point, what in _AT.items()
    ),
    Fault("terminate", "SIGTERM to some worker every second.",
          send(signal.SIGTERM, in_turn(one_at_work, some_worker)), every=1.0, most=20, interrupts=True),
    Fault("sleep", "SIGSTOP to some worker for seven seconds, then SIGCONT: it writes late.",
          send(signal.SIGSTOP), wake, every=1.0, lasts=LONGER_THAN_A_LEASE, most=6, slow=True, interrupts=True,
          orders={"layers_per_batch": FEW}, plan={"millis": LONG}),
    *(
        Fault(f"sleep at: {point}", f"One worker of three sleeps for {name}, then goes on: {_AT[point]}.",
              lift=wake, lasts=lasts, most=6, slow=True, interrupts=point in ("claim", "mid-fit"),
              taken_over=point in ("create_run", "close"),
              orders={**at(point), "number": signal.SIGSTOP, "layers_per_batch": FEW}, plan={"millis": LONG})
        for point, lasts, name in (
            ("claim", LONGER_THAN_A_LEASE, "seven seconds"),
            ("mid-fit", LONGER_THAN_A_LEASE, "seven seconds"),
            ("create_run", body.RECORDER_LEASE * 1.5, "one and a half of a recorder's leases"),
            ("close", body.RECORDER_LEASE * 1.5, "one and a half of a recorder's leases"),
        )
    ),
    Fault("poison", "Two cells that kill whatever process computes them.", plan={"poison": (3, 6)}, fails=2),
    Fault("no memory", "Some worker gets no more memory (RLIMIT_AS) for two seconds.",
          no_memory, memory, every=1.0, lasts=2.0, most=8),
    Fault("disk full", "The disk with the job table, the MLflow store and the artifacts is full for two seconds.",
          fill, free, every=2.0, lasts=2.0, most=6, needs=EMBEDDED | {"root"}),
    Fault("clock", f"All clocks jump by {5 * LEASE:.0f} s, forth or back, every two seconds.", jump, every=2.0, most=6,
          prepare=wind),
    Fault("table locked", "Another process holds the write lock of the job table's file for two seconds.",
          lock("clipstudy.db"), unlock, every=1.0, lasts=2.0, most=6, needs=EMBEDDED),
    Fault("store locked", "Another process holds the write lock of MLflow's file for two seconds.",
          lock("mlflow.db"), unlock, every=1.0, lasts=2.0, most=6, needs=EMBEDDED),
    Fault("race", "No fault: every worker takes one layer at a time, and all race for the same parent runs.",
          orders={"layers_per_batch": 1}),
    Fault("cancel", "A person cancels three models, one of them at work, every second.", cancel, every=1.0, most=4,
          interrupts=True),
    Fault("change", "A person changes a setting of every third model, one of them at work.", change, every=2.0, most=3),
    Fault("sessions ended", "`pg_terminate_backend` for every session, every second.",
          terminate, every=1.0, most=20, needs=POSTGRES),
    Fault("Postgres stops", "Postgres is stopped in order and started again a second later, every three seconds.",
          postgres(lambda server: server.stop()), postgres(lambda server: server.start()),
          every=2.0, lasts=1.0, most=6, needs=POSTGRES),
    Fault("Postgres crashes", "Postgres is stopped at once and recovers from its log a second later.",
          postgres(lambda server: server.stop(crash=True)), postgres(lambda server: server.start()),
          every=2.0, lasts=1.0, most=6, needs=POSTGRES),
    Fault("read only", "For two seconds new sessions only read, and those stay so: a failover that nobody was told of.",
          demote, promote, every=2.0, lasts=2.0, most=5, needs=POSTGRES),
    Fault("MLflow killed", "The MLflow server is killed and started again a second later (it takes some to come up).",
          mlflow(signal.SIGKILL), mlflow_again, every=12.0, lasts=1.0, most=3, slow=True, needs=SERVER),
    Fault("MLflow asleep", "The MLflow server sleeps (SIGSTOP) for five seconds: requests time out, and are done then.",
          mlflow(signal.SIGSTOP), mlflow_awake, every=2.0, lasts=5.0, most=4, slow=True, needs=SERVER),
    Fault("MLflow away", f"MLflow answers 500 for fifteen seconds, and no more than {BOUND} results may wait for it.",
          moody("500"), well, every=1.0, lasts=15.0, most=1, orders={"outbox_bound": BOUND}, needs=SERVER),
    *(
        Fault(f"MLflow: {mood}", what, moody(mood), well, every=1.5, lasts=lasts, most=5,
              slow=mood in ("slow", "late", "hang"), needs=SERVER)
        for mood, lasts, what in (
            ("500", 3.0, "MLflow answers 500 for three seconds."),
            ("500 after", 2.0, "MLflow does what it is asked, and answers 500, for two seconds."),
            ("cut", 2.0, "MLflow does what it is asked, and its answer is lost, for two seconds."),
            ("hang", 5.0, "MLflow takes requests and never answers, for five seconds."),
            ("slow", 8.0, "MLflow takes half a second more for each request, for eight seconds."),
            ("late", 5.0, "Requests reach MLflow when their sender has given up, for five seconds."),
        )
    ),
)  # fmt: skip
