"""What the promise is held to: every change of a row's status, and what MLflow says of each cell in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import Engine, text

from clipstudy.job import MOVES, Job, Status
from clipstudy.queue import jobs, outbox
from clipstudy.queue.dialect import reading, writing
from clipstudy.tracking import Tracking
from clipstudy.tracking.entry import PREFIX
from tests.chaos.cells import answer

_SQLITE = (
    "CREATE TABLE moves (id INTEGER PRIMARY KEY, job INTEGER, attempt INTEGER, before TEXT, after TEXT)",
    "CREATE TRIGGER watch AFTER UPDATE ON jobs WHEN old.status <> new.status OR old.attempt <> new.attempt BEGIN "
    "INSERT INTO moves (job, attempt, before, after) VALUES (new.id, new.attempt, old.status, new.status); END",
)
_POSTGRES = (
    "CREATE TABLE moves (id SERIAL PRIMARY KEY, job INTEGER, attempt INTEGER, before TEXT, after TEXT)",
    "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO moves (job, attempt, before, after) VALUES (new.id, new.attempt, old.status, new.status); "
    "RETURN NULL; END $$",
    "CREATE TRIGGER watch AFTER UPDATE ON jobs FOR EACH ROW "
    "WHEN (old.status <> new.status OR old.attempt <> new.attempt) EXECUTE FUNCTION watch()",
)


def watch(engine: Engine) -> None:
    """Have the database itself write down every move of a row, in the transaction that makes it."""
    with writing(engine) as connection:
        for statement in _SQLITE if engine.dialect.name == "sqlite" else _POSTGRES:
            connection.execute(text(statement))


@dataclass
class Verdict:
    """What came of a study under a fault."""

    jobs: int = 0
    done: int = 0
    failed: int = 0  #: with a reason
    given_up: int = 0  #: cancelled or superseded by a person
    lost: list[str] = field(default_factory=list)  #: neither done, nor failed with its reason
    twice: list[str] = field(default_factory=list)  #: more than one ``done``, FINISHED run, or point of a metric
    disagree: list[str] = field(default_factory=list)  #: what MLflow says otherwise than the table
    attempts: int = 0


def judge(engine: Engine, tracking: Tracking, study: str, samples: int = 20) -> Verdict:
    """Read the table and MLflow, and hold them against each other. The study has come to rest."""
    verdict = Verdict()
    rows = jobs.rows(engine, newest_only=False)
    with reading(engine) as connection:
        moves = connection.execute(text("SELECT job, attempt, before, after FROM moves ORDER BY id")).all()
        parents = dict(connection.execute(text("SELECT id, parent_run_id FROM groups")).tuples().all())
    client, experiment = tracking.connect()
    runs = list(_runs(client, experiment, study))
    versions = {group: jobs.group_of(engine, group)[0].task.options["version"] for group in parents}
    right = {row.id: answer(row.model, row.layer, versions[row.group_id]) for row in rows}
    _rows(verdict, rows, moves)
    _runs_of_rows(verdict, right, rows, [run for run in runs if _tag(run, "level") == "job"])
    _parents(verdict, client, right, rows, [run for run in runs if _tag(run, "level") == "parent"], parents)
    done = [row for row in rows if row.status is Status.DONE]
    for row in done[:: max(1, len(done) // samples)]:
        for name, wanted in (("answer.txt", str(right[row.id])), ("log.txt", None)):
            content = tracking.artifact(str(row.run_id), name).decode()
            if wanted not in (None, content):
                verdict.disagree.append(f"{_name(row)}: {name} says {content!r}, not {wanted!r}")
    if waiting := outbox.pending(engine):
        verdict.lost.append(f"{waiting} records still wait in the outbox")
    return verdict


def _rows(verdict: Verdict, rows: list[Job], moves: Iterable[Any]) -> None:
    verdict.jobs = len(rows)
    verdict.attempts = sum(row.attempt for row in rows)
    became: Counter[tuple[int, str]] = Counter()
    for job, _, before, after in moves:
        became[job, after] += 1
        if before != after and Status(after) not in MOVES[Status(before)]:
            verdict.twice.append(f"job {job} went from {before} to {after}")
    for row in rows:
        if row.status is Status.DONE:
            verdict.done += 1
        elif row.status is Status.FAILED and row.error and row.failure:
            verdict.failed += 1
        elif row.status in (Status.CANCELLED, Status.SUPERSEDED):
            verdict.given_up += 1
        else:
            verdict.lost.append(f"{_name(row)} is {row.status}: {row.error}")
        if became[row.id, Status.DONE] != (row.status is Status.DONE):
            verdict.twice.append(f"{_name(row)} is {row.status}, and became done {became[row.id, Status.DONE]} times")
        if became[row.id, Status.COMPUTED] > 1:
            verdict.lost.append(f"{_name(row)}: computed {became[row.id, Status.COMPUTED]} times after it was kept")


def _runs_of_rows(verdict: Verdict, right: dict[int, float], rows: list[Job], runs: list[Any]) -> None:
    of_row: dict[int, list[Any]] = {}
    for run in runs:
        of_row.setdefault(int(_tag(run, "job")), []).append(run)
        if run.info.status == "RUNNING":
            verdict.disagree.append(f"run {run.info.run_id} of job {_tag(run, 'job')} was left open")
    for row in rows:
        mine = of_row.get(row.id, [])
        finished = [run for run in mine if run.info.status == "FINISHED"]
        if len(finished) > 1:
            verdict.twice.append(f"{_name(row)} has {len(finished)} FINISHED runs")
        if (row.status is Status.DONE) != bool(finished):
            verdict.disagree.append(f"{_name(row)} is {row.status}, and has {len(finished)} FINISHED runs")
        for run in finished:
            if row.status is Status.DONE and run.info.run_id != row.run_id:
                verdict.disagree.append(f"{_name(row)} names run {row.run_id}; FINISHED is {run.info.run_id}")
            found = run.data.metrics.get("accuracy")
            if found != right[row.id]:
                verdict.disagree.append(f"{_name(row)}: accuracy {found} in MLflow, not {right[row.id]}")
        attempts = Counter(_tag(run, "attempt") for run in mine)
        if attempts and max(attempts.values()) > 1:
            verdict.twice.append(f"{_name(row)} has two runs of one attempt")
        if row.status is Status.FAILED and not any(
            run.info.status == "FAILED" and run.info.run_id == row.run_id for run in mine
        ):
            verdict.disagree.append(f"{_name(row)} failed, and MLflow has no FAILED run of that")


def _parents(
    verdict: Verdict,
    client: MlflowClient,
    right: dict[int, float],
    rows: list[Job],
    runs: list[Any],
    named: dict[int, str],
) -> None:
    of_group: dict[int, list[Job]] = {}
    for row in rows:
        of_group.setdefault(row.group_id, []).append(row)
    by_id = {run.info.run_id: run for run in runs}
    keys = Counter(_tag(run, "group") for run in runs)
    if keys and max(keys.values()) > 1:
        verdict.twice.append(f"{keys.most_common(1)[0]}: several parent runs of one group")
    verdict.disagree += [f"parent {run.info.run_id} was left open" for run in runs if run.info.status == "RUNNING"]
    for group, siblings in of_group.items():
        done = {row.layer: right[row.id] for row in siblings if row.status is Status.DONE}
        parent = by_id.get(named.get(group) or "")
        if not done:
            continue
        if parent is None or parent.info.status != "FINISHED":
            verdict.disagree.append(f"group {group}: its parent is {parent and parent.info.status}")
            continue
        points = client.get_metric_history(parent.info.run_id, "accuracy")
        if (shown := {point.step: point.value for point in points}) != done:
            verdict.disagree.append(f"group {group}: the parent shows {shown}, done are {done}")
        steps = Counter(point.step for point in points)
        if steps and max(steps.values()) > 1:
            verdict.twice.append(f"group {group}: a layer stands twice on the parent")


def _runs(client: MlflowClient, experiment: str, study: str) -> Iterable[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{PREFIX}study` = '{study}'", max_results=500, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _tag(run: Any, name: str) -> str:
    return str(run.data.tags[PREFIX + name])


def _name(row: Job) -> str:
    return f"job {row.id} ({row.model}, layer {row.layer}, attempt {row.attempt})"
