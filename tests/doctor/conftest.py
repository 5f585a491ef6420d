"""A job table and an MLflow store, both real, that agree; and ways to look past the doctor at what they hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from clipstudy import recorder
from clipstudy.doctor import comparison, consistency
from clipstudy.doctor.comparison import Kind
from clipstudy.doctor.finding import Finding, Level
from clipstudy.job import Job
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.queue.schema import jobs as job_table
from clipstudy.queue.schema import outbox as outbox_table
from clipstudy.tracking import Tracking
from tests.queue.samples import cells, claim, group, outcome


def hand_over_now(engine: Engine, job: Job) -> bool:
    now = dialect.now(engine)
    return outbox.hand_over(engine, job, outcome(job.layer), started=now, ended=now)


@dataclass
class Stores:
    engine: Engine
    tracking: Tracking

    @property
    def client(self) -> Any:
        return self.tracking.connect()[0]

    @property
    def experiment(self) -> str:
        return self.tracking.connect()[1]

    def work(self, model: str = "bert") -> list[Job]:
        """Three layers of a model from enqueued to recorded."""
        jobs.enqueue(self.engine, cells(group(model, blocks=2)))
        batch = claim(self.engine, "ann")
        assert all(hand_over_now(self.engine, job) for job in batch.jobs)
        assert self.record() == 3
        return [jobs.get(self.engine, job.id) for job in batch.jobs]

    def record(self) -> int:
        return sum(recorder.drain(self.engine, self.tracking, "rec"))

    def sql(self, statement: str) -> None:
        with dialect.writing(self.engine) as connection:
            connection.exec_driver_sql(statement)

    def kinds(self) -> list[Kind]:
        return [one.kind for one in comparison.compare(comparison.look(self.engine, self.tracking))]

    def examine(self, fix: bool = False) -> list[Finding]:
        return consistency.examine(self.engine, self.tracking, fix)

    def levels(self, fix: bool = False) -> set[Level]:
        return {finding.level for finding in self.examine(fix)}

    def runs(self) -> dict[str, tuple[str, str, str | None]]:
        """Every active run: its level, its status, its parent."""
        found = self.client.search_runs([self.experiment])
        return {
            run.info.run_id: (
                run.data.tags["clipstudy.level"],
                run.info.status,
                run.data.tags.get("mlflow.parentRunId"),
            )
            for run in found
        }

    def everything(self) -> tuple[Any, ...]:
        """All that a mend could change."""
        with dialect.reading(self.engine) as connection:
            rows = connection.execute(select(job_table).order_by(job_table.c.id)).all()
            waiting = connection.execute(select(outbox_table).order_by(outbox_table.c.id)).all()
        return rows, waiting, self.runs()


@pytest.fixture
def store(tmp_path: Path, empty_mlflow: Path) -> Tracking:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"))


@pytest.fixture
def stores(tmp_path: Path, store: Tracking, migrated_file: Path) -> Iterator[Stores]:
    """Both empty, on SQLite."""
    shutil.copy(migrated_file, tmp_path / "jobs.db")
    engine = dialect.connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield Stores(engine, store)
    engine.dispose()
