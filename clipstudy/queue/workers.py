"""Who is at work: one row a worker, with a heartbeat on the database's clock. For people; no lease depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, delete, select, update

from clipstudy.queue.dialect import clock, insert_new, instant, reading, writing
from clipstudy.queue.schema import workers as table


@dataclass(frozen=True)
class WorkerInfo:
    """A worker. What is not given when registering comes back from the table."""

    name: str
    host: str
    pid: int
    device: str
    batch: str | None = None  #: what it does now, for people
    started_at: datetime | None = None
    heartbeat: datetime | None = None
    age: float | None = None  #: seconds since the heartbeat, on the database's clock


def register(engine: Engine, info: WorkerInfo) -> None:
    """Put ``info`` into the table; a worker of the same name is replaced."""
    about = {"host": info.host, "pid": info.pid, "device": info.device, "batch": info.batch}
    times = {"started_at": clock(), "heartbeat": clock()}
    with writing(engine) as connection:
        connection.execute(insert_new(connection, table).values(name=info.name, **about, **times))
        connection.execute(update(table).where(table.c.name == info.name).values(**about, **times))


def beat_worker(engine: Engine, name: str, batch: str | None = None) -> bool:
    """It lives, and does ``batch``. False: it is not registered (somebody took it for dead); register again."""
    with writing(engine) as connection:
        beaten = connection.execute(update(table).where(table.c.name == name).values(heartbeat=clock(), batch=batch))
    return beaten.rowcount == 1


def forget(engine: Engine, name: str) -> None:
    """It has left, or is taken for dead."""
    with writing(engine) as connection:
        connection.execute(delete(table).where(table.c.name == name))


def forget_silent(engine: Engine, seconds: float) -> None:
    """Workers silent for this long are presumed dead."""
    with reading(engine) as connection:
        silent = connection.scalars(select(table.c.name).where(table.c.heartbeat < clock() - seconds)).all()
    for name in silent:
        forget(engine, name)


def workers(engine: Engine) -> list[WorkerInfo]:
    """All that are registered, by name."""
    with reading(engine) as connection:
        query = select(table, (clock() - table.c.heartbeat).label("age")).order_by(table.c.name)
        return [
            WorkerInfo(
                name=row.name,
                host=row.host,
                pid=row.pid,
                device=row.device,
                batch=row.batch,
                started_at=instant(row.started_at),
                heartbeat=instant(row.heartbeat),
                age=max(row.age, 0.0),
            )
            for row in connection.execute(query)
        ]
