"""What a worker process of the chaos tests is: the real worker, on the made-up kind, with the leases of a hurry; it may
have been told to die, or to fall asleep, at a named point of the protocol."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401  # loaded once, before the processes part
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from clipstudy import backbones, recorder, tasks
from clipstudy.cli import screen
from clipstudy.progress import Lines
from clipstudy.queue import dialect, jobs, outbox, retries
from clipstudy.tracking import Tracking
from clipstudy.worker import Habits, Worker, obey_signals

#: Seconds. What is minutes in the product, for people's patience; the proportions are the product's.
LEASE = 3.0
RECORDER_LEASE = 4.5
REQUEST_TIMEOUT = 2
FIRST_DELAY = 0.3

#: The protocol's steps, in its order: behind each of them a process may die.
POINTS = (
    "claim",
    "mid-fit",
    "amid hand-over",
    "hand-over",
    "take",
    "create parent",
    "create_run",
    "log_batch",
    "artifacts",
    "close",
    "projection",
    "done",
)


@dataclass(frozen=True)
class Orders:
    """All that a worker process is told."""

    database: str
    tracking: str
    artifacts: str
    log: str
    layers_per_batch: int | None = None
    outbox_bound: int = 2000
    point: str = ""  #: where it ends itself
    within: int = 3  #: at one of the first so many passages, drawn by ``seed``
    number: int = signal.SIGKILL  #: by which signal: SIGSTOP falls asleep there, and again when it was woken
    seed: int = 0
    clock: str = ""  #: a file with the seconds by which this machine's clock is wrong


def work(orders: Orders) -> None:
    """Until nothing is queued, or it is ended."""
    out = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(REQUEST_TIMEOUT)
    hurry()
    register()
    if orders.clock:
        wrong_clock(Path(orders.clock))
    if orders.point:
        end_at(orders)
    engine = dialect.connect(orders.database)
    progress = Lines()
    screen.log(False, progress)
    habits = Habits(True, None, orders.layers_per_batch, LEASE, poll=0.05, outbox_bound=orders.outbox_bound)
    worker = Worker(engine, Tracking(orders.tracking, orders.artifacts), None, "cpu", habits, progress)
    obey_signals(worker)
    worker.work()


def hurry() -> None:
    retries.FIRST_DELAY_S = FIRST_DELAY
    recorder.LEASE = timedelta(seconds=RECORDER_LEASE)
    outbox._LONGEST_DELAY_S = 2.0


def register() -> None:
    """The made-up kind and source, as if they were rooms of the house."""
    tasks.__path__.append(str(Path(__file__).parent / "kinds"))
    backbones.MODULES["made_up"] = "tests.chaos.model"
    backbones.MODALITIES = {**backbones.MODALITIES, "made_up": ("text",)}


def end_at(orders: Orders) -> None:
    """Wrap the functions that the protocol's steps are, so that the process ends itself behind one of them."""
    left = random.Random(orders.seed).randint(1, orders.within)

    def passed(point: str) -> None:
        nonlocal left
        if point == orders.point:
            left -= 1
            if left == 0:
                left = orders.within
                os.kill(os.getpid(), orders.number)

    def behind(place: Any, name: str, point: str | Callable[..., str]) -> None:
        real = getattr(place, name)

        def wrapped(*words: Any, **named: Any) -> Any:
            answer = real(*words, **named)
            if answer not in (None, [], False) or name in _SILENT:
                passed(point if isinstance(point, str) else point(*words, **named))
            return answer

        setattr(place, name, wrapped)

    def whose(client: Any, experiment: str, start: Any = None, tags: Any = None, title: Any = None) -> str:
        return "create parent" if tags["clipstudy.level"] == "parent" else "create_run"

    behind(jobs, "claim", "claim")
    behind(Worker, "_on_progress", "mid-fit")
    behind(outbox, "put", "amid hand-over")
    behind(outbox, "hand_over", "hand-over")
    behind(outbox, "take", "take")
    behind(MlflowClient, "create_run", whose)
    behind(MlflowClient, "log_batch", "log_batch")
    behind(Tracking, "_keep", "artifacts")
    behind(Tracking, "record", "close")
    behind(Tracking, "project", "projection")
    behind(outbox, "recorded", "done")


#: Steps that answer nothing.
_SILENT = frozenset({"_on_progress", "log_batch", "_keep", "project"})


def wrong_clock(file: Path) -> None:
    """This process's clocks, and SQLite's in it, by so much wrong as ``file`` says at the moment."""
    real, real_ns = time.time, time.time_ns

    def wrong() -> float:
        return float(file.read_text() or 0)

    time.time = lambda: real() + wrong()
    time.time_ns = lambda: real_ns() + int(wrong() * 1e9)

    @event.listens_for(Engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        if hasattr(connection, "create_function"):
            connection.create_function("julianday", 1, lambda now: time.time() / 86400.0 + 2440587.5)
