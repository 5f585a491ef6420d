"""Small studies for the queue's tests, and the steps of a worker's and a recorder's life as one-liners."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, update

from clipstudy.job import Batch, Failure, FailureKind, Group, Job, Selection, Status
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.queue import jobs, outbox
from clipstudy.queue.dialect import reading, writing
from clipstudy.queue.schema import groups as group_table
from clipstudy.queue.schema import jobs as job_table
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks import classify

LEASE = timedelta(minutes=5)
EXPIRED = timedelta(0)
ALL = Selection()
START = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
END = START + timedelta(seconds=7.25)


def group(
    model: str = "bert", task: str = "depth", *, study: str = "probing", blocks: int = 3, epochs: int = 4, **shown: Any
) -> Group:
    """A group of ``blocks`` + 1 layers. ``epochs`` is part of its digest, ``shown`` (the model's) is not."""
    return Group(
        study,
        ModelSpec(model, "transformers", f"hub/{model}", blocks, **shown),
        DatasetSpec("sentences", "senteval", path="sentences.txt"),
        TaskSpec(
            task, "classify", "sentences", "accuracy", options={"epochs": epochs, "hidden": 50}, method=classify.METHOD
        ),
    )


def cells(*of: Group) -> list[tuple[Group, tuple[int, ...]]]:
    return [(one, tuple(range(one.model.layers + 1))) for one in of]


def outcome(layer: int, *artifacts: Artifact) -> Outcome:
    return Outcome(layer, {"accuracy": Estimate(0.5, 0.4, 0.6)}, {"rows": "10"}, {"view": "cls"}, artifacts)


def claim(engine: Engine, worker: str = "ann", **how: Any) -> Batch:
    batch = jobs.claim(engine, worker, **{"lease": LEASE, **how})
    assert batch is not None
    return batch


def hand_over(engine: Engine, job: Job) -> bool:
    return outbox.hand_over(engine, job, outcome(job.layer), started=START, ended=END)


def fail(engine: Engine, job: Job, kind: FailureKind = FailureKind.CODE, *, retry: bool = True) -> Status | None:
    return jobs.fail(engine, job, Failure(kind, "broke", "Traceback …", retry))


def record_all(engine: Engine, recorder: str = "rec") -> list[outbox.Record]:
    records = outbox.take(engine, recorder, lease=LEASE, limit=1000)
    for record in records:
        assert outbox.recorded(engine, record, f"run-{record.job.id}-{record.attempt}")
    return records


def expire(engine: Engine, held: Iterable[Job]) -> None:
    """Let leases end now."""
    held = tuple(held)
    assert jobs.beat(engine, str(held[0].worker), held, lease=EXPIRED) == {job.id for job in held}


def come_due(engine: Engine) -> None:
    """Let the time pass that rows and records were told to wait."""
    with writing(engine) as connection:
        connection.execute(update(job_table).values(run_after=None))
        connection.execute(update(outbox.table).values(run_after=None))


def statuses(engine: Engine, *of: Job) -> list[Status]:
    ids = {job.id for job in of}
    return [job.status for job in jobs.rows(engine, newest_only=False) if not of or job.id in ids]


def one_of_each(engine: Engine) -> dict[Status, Job]:
    """A table with one row in each status, all of one cell; the superseded one belongs to older settings."""
    layers = {
        Status.DONE: 0,
        Status.COMPUTED: 1,
        Status.FAILED: 2,
        Status.RUNNING: 3,
        Status.CANCELLED: 4,
        Status.QUEUED: 5,
    }
    older, newer = group(blocks=5), group(blocks=5, epochs=9)
    jobs.enqueue(engine, [(older, (0,))])
    jobs.enqueue(engine, cells(newer))
    ann = {job.layer: job for job in claim(engine, layers_per_batch=4).jobs}
    hand_over(engine, ann[layers[Status.DONE]])
    record_all(engine)
    hand_over(engine, ann[layers[Status.COMPUTED]])
    fail(engine, ann[layers[Status.FAILED]], retry=False)
    jobs.cancel(engine, Selection(layers=(layers[Status.CANCELLED],)))
    rows = jobs.rows(engine, newest_only=False)
    found = {job.status: job for job in rows}
    assert len(rows) == len(found) == len(Status)
    return found


def queued_in_older_groups(engine: Engine) -> int:
    with reading(engine) as connection:
        return len(
            connection.execute(
                select(job_table.c.id).join(group_table).where(job_table.c.status == "queued", ~group_table.c.newest)
            ).all()
        )
