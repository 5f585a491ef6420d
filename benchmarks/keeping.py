"""What the queue, MLflow and the command line cost beside the work."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from benchmarks.extraction import MINILM
from benchmarks.figures import Row, in_turns, measured, now, ratios
from benchmarks.study import groups
from clipstudy.features.cache import Store
from clipstudy.job import Group
from clipstudy.progress import Lines
from clipstudy.queue import dialect, jobs, migration
from clipstudy.tracking import Tracking
from clipstudy.worker import Habits, Worker

LAYERS = 12
LEASE = timedelta(minutes=5)


def rows(quick: bool) -> Iterator[Row]:
    repeats = 1 if quick else 5
    study = groups(MINILM, 200 if quick else 600)[:2]
    yield Row(
        "share of a worker's time with the queue and MLflow",
        [share(study) for _ in range(repeats)],
        unit="",
        most=0.05,
        said=f"MiniLM, {len(study)} tasks of the study on real rows, SQLite for both",
    )
    yield from table(10_000 if quick else 100_000, repeats)
    command = [sys.executable, "-m", "clipstudy", "--help"]
    bare = [sys.executable, "-c", "import sqlalchemy, typer, rich.table"]
    run = partial(subprocess.run, check=True, capture_output=True)
    seconds = in_turns(max(3, repeats), help=partial(run, command), bare=partial(run, bare))
    yield Row(
        "`clipstudy --help` / Python with its libraries of the command line",
        ratios(seconds["help"], seconds["bare"]),
        most=3,
        said=f"{min(seconds['help']):.2f} s",
    )


def worker(folder: Path, study: list[Group]) -> Worker:
    """A worker with the cells of ``study`` queued, everything it writes under ``folder``."""
    engine = dialect.connect(f"sqlite:///{folder}/jobs.db")
    migration.migrate(engine)
    jobs.enqueue(engine, [(group, tuple(range(group.model.layers + 1))) for group in study])
    tracking = Tracking(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"))
    tracking.prepare()
    return Worker(engine, tracking, Store(folder / "features"), "cpu", Habits(drain=True), Lines())


def share(study: list[Group]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        one = worker(Path(folder), study)
        told = one.work()
        one.engine.dispose()
    return told.keeping / told.busy


def table(cells: int, repeats: int) -> Iterator[Row]:
    """Enqueueing a study of so many cells, against bare inserts of as many rows; and claiming them."""
    (group,) = groups(MINILM, 1)[1:2]
    model = replace(group.model, layers=LAYERS)
    asked = [
        (
            replace(group, model=replace(model, name=f"model-{i}"), task=replace(group.task, name=f"task-{k}")),
            tuple(range(LAYERS + 1)),
        )
        for i in range(10)
        for k in range(cells // (10 * (LAYERS + 1)))
    ]
    number = len(asked) * (LAYERS + 1)
    queued: list[float] = []
    bare: list[float] = []
    claims: list[float] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            engine = dialect.connect(f"sqlite:///{folder}/jobs.db")
            migration.migrate(engine)
            queued += measured(1, call=partial(jobs.enqueue, engine, asked))["call"]
            bare += measured(1, call=partial(inserted, Path(folder) / "bare.db", number))["call"]
            began, many = now(), min(500, len(asked))
            for _ in range(many):
                jobs.claim(engine, "bench", lease=LEASE)
            claims.append(many / (now() - began))
            engine.dispose()
    yield Row(
        f"enqueueing {number:,} cells / bare inserts",
        ratios(queued, bare),
        said=f"{min(queued):.1f} s on SQLite, {len(asked):,} groups",
    )
    yield Row("claims a second", claims, unit="", said=f"one worker, {LAYERS + 1} cells a claim, SQLite")


def inserted(file: Path, number: int) -> None:
    with closing(sqlite3.connect(file)) as there, there:
        there.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, group_id INT, layer INT, status TEXT, label TEXT)")
        there.execute("CREATE INDEX by_status ON jobs (status, group_id)")
        cells = ((i // 13, i % 13, "queued", f"layer {i % 13}") for i in range(number))
        there.executemany("INSERT INTO jobs (group_id, layer, status, label) VALUES (?, ?, ?, ?)", cells)
