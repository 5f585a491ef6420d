"""Each way in which job table, outbox and MLflow can disagree: found, mended, mended once, and nothing else touched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstudy.doctor import comparison, consistency, mending
from clipstudy.doctor.comparison import Kind
from clipstudy.doctor.finding import Level
from clipstudy.job import Job, Status
from clipstudy.queue import dialect, jobs, outbox
from clipstudy.tracking import Tracking, pretraining
from tests import servers
from tests.databases import emptied
from tests.doctor.conftest import Stores, hand_over_now
from tests.queue.samples import LEASE, cells, claim, expire, fail, group, hand_over

HOUR = 3600 * 10**9


def expired(of: Stores, done: list[Job]) -> None:
    jobs.enqueue(of.engine, cells(group("gpt2", blocks=2)))
    expire(of.engine, claim(of.engine, "dead").jobs)


def refused(of: Stores, done: list[Job]) -> None:
    left_in_the_outbox(of, done)
    for record in outbox.take(of.engine, "rec", lease=LEASE):
        outbox.give_back(of.engine, record, "a name that MLflow does not take")


def left_in_the_outbox(of: Stores, done: list[Job]) -> None:
    jobs.enqueue(of.engine, cells(group("gpt2", blocks=2)))
    for job in claim(of.engine).jobs:
        hand_over(of.engine, job)


def reopened(of: Stores, done: list[Job]) -> None:
    of.client.update_run(done[0].run_id, status="RUNNING")


def trashed(of: Stores, done: list[Job]) -> None:
    of.client.delete_run(done[0].run_id)


def gone(of: Stores, done: list[Job]) -> None:
    of.client._tracking_client.store._hard_delete_run(done[0].run_id)


def forgotten(of: Stores, done: list[Job]) -> None:
    of.sql(f"UPDATE jobs SET status = 'queued', run_id = NULL WHERE id = {done[1].id}")


def misnamed(of: Stores, done: list[Job]) -> None:
    of.sql(f"UPDATE jobs SET run_id = 'no such run' WHERE id = {done[1].id}")


def unsent(of: Stores, done: list[Job]) -> None:
    left_in_the_outbox(of, done)
    of.sql("DELETE FROM outbox")


def untold(of: Stores, done: list[Job]) -> None:
    jobs.enqueue(of.engine, cells(group("vit", blocks=1)))
    for job in claim(of.engine).jobs:
        fail(of.engine, job, retry=False)
    of.record()
    of.client.delete_run(jobs.rows(of.engine)[-1].run_id)


def copied(of: Stores, run_id: str, status: str | None = None, **tags: str) -> str:
    """A second run like this one, an hour old and open, or closed as ``status``."""
    run = of.client.get_run(run_id)
    named = {f"clipstudy.{name}": value for name, value in tags.items()}
    there = {k: v for k, v in run.data.tags.items() if k.startswith("clipstudy.") or k == "mlflow.parentRunId"}
    made = {"clipstudy.claimed": str(time.time_ns() - HOUR)}
    copy = of.client.create_run(of.experiment, run.info.start_time, there | made | named, run.info.run_name)
    if status:
        of.client.set_terminated(copy.info.run_id, status)
    return str(copy.info.run_id)


def left_open(of: Stores, done: list[Job]) -> None:
    copied(of, str(done[0].run_id), entry="of an attempt that nobody knows", attempt="7")


def left_open_by_a_zombie(of: Stores, done: list[Job]) -> None:
    """It slept, another recorded its entry, it woke and made its run, and died before it looked for the other."""
    copied(of, str(done[0].run_id))


def pretraining_left_open(of: Stores, done: list[Job]) -> None:
    """It was killed between making the run and closing it."""
    there = of.client.get_experiment_by_name(pretraining.EXPERIMENT)
    beside = there.experiment_id if there else of.client.create_experiment(pretraining.EXPERIMENT)
    tags = {"clipstudy.level": "pretraining", "clipstudy.claimed": str(time.time_ns() - HOUR)}
    of.client.create_run(beside, tags=tags, run_name="gpt2 · next word")


def recorded_twice(of: Stores, done: list[Job]) -> None:
    copied(of, str(done[0].run_id), "FINISHED")


def parent_of(of: Stores) -> str:
    (parent,) = {parent for _, _, parent in of.runs().values() if parent}
    return parent


def parent_failed(of: Stores, done: list[Job]) -> None:
    of.client.set_terminated(parent_of(of), "FAILED")


def parent_left_open(of: Stores, done: list[Job]) -> None:
    of.client.update_run(parent_of(of), status="RUNNING")
    of.client.set_tag(parent_of(of), "clipstudy.claimed", str(time.time_ns() - HOUR))


def two_parents(of: Stores, done: list[Job]) -> None:
    of.client.set_tag(done[0].run_id, "mlflow.parentRunId", copied(of, parent_of(of), "FINISHED"))


def orphaned(of: Stores, done: list[Job]) -> None:
    of.client.delete_run(parent_of(of))


BROKEN: list[tuple[Callable[[Stores, list[Job]], None], Kind]] = [
    (expired, Kind.EXPIRED),
    (refused, Kind.REFUSED),
    (left_in_the_outbox, Kind.STUCK),
    (reopened, Kind.UNFINISHED),
    (trashed, Kind.TRASHED),
    (gone, Kind.GONE),
    (forgotten, Kind.MISSED),
    (misnamed, Kind.MISSED),
    (unsent, Kind.UNSENT),
    (untold, Kind.UNTOLD),
    (left_open, Kind.OPEN),
    (left_open_by_a_zombie, Kind.OPEN),
    (pretraining_left_open, Kind.OPEN),
    (recorded_twice, Kind.TWICE),
    (parent_failed, Kind.PARENT),
    (parent_left_open, Kind.PARENT),
    (two_parents, Kind.PARENTS),
    (orphaned, Kind.ORPHANED),
]


def test_every_kind_that_can_be_mended_is_broken_here() -> None:
    assert {kind for _, kind in BROKEN} == set(mending.MENDS)
    assert set(consistency.WORDS) == set(Kind) == set(mending.MENDS) | set(consistency.ELSE_TYPE)


@pytest.mark.parametrize(("harm", "kind"), BROKEN, ids=[harm.__name__ for harm, _ in BROKEN])
def test_found_and_mended(stores: Stores, harm: Callable[[Stores, list[Job]], None], kind: Kind) -> None:
    done = stores.work()
    assert stores.kinds() == [] and stores.levels() == {Level.OK}

    harm(stores, done)
    before = stores.everything()
    assert set(stores.kinds()) == {kind}
    (told,) = [finding for finding in stores.examine() if finding.level is not Level.OK]
    assert told.level is consistency.WORDS[kind].level and told.do.startswith("clipstudy doctor --fix")
    assert stores.everything() == before  # looking changes nothing

    mended = [finding for finding in stores.examine(fix=True) if finding.level is not Level.OK]
    assert {finding.level for finding in mended} == {Level.MENDED}, mended
    assert told.says in [finding.says for finding in mended]
    assert stores.kinds() == []
    after = stores.everything()
    assert stores.levels(fix=True) == {Level.OK}
    assert stores.everything() == after  # and once is enough
    assert not [run for run, (_, status, _) in stores.runs().items() if status == "RUNNING"]


def test_settings_that_cannot_be_read_are_named_and_nothing_else_is_missed(stores: Stores) -> None:
    done = stores.work()
    stores.work("gpt2")
    trashed(stores, done)
    stores.sql("UPDATE groups SET spec = '{' WHERE model = 'gpt2'")
    assert sorted(stores.kinds()) == [Kind.TRASHED, Kind.UNREAD]
    (found,) = (one for one in stores.examine() if one.what == "groups")
    assert found.says.startswith("1 group with settings that this version cannot read") and "gpt2 · depth" in found.says
    assert "clipstudy enqueue --all" in found.do
    stores.examine(fix=True)
    assert stores.kinds() == [Kind.UNREAD]


def test_what_becomes_of_them(stores: Stores) -> None:
    """The mends do what is said of them, and compute nothing again that is recorded."""
    done = stores.work()
    forgotten(stores, done)
    trashed(stores, done)
    gone(stores, done[2:])
    two_parents(stores, [done[1]])
    stores.examine(fix=True)
    first, second, third = (jobs.get(stores.engine, job.id) for job in done)
    assert (first.status, first.run_id, first.attempt) == (Status.DONE, done[0].run_id, 1)
    assert (second.status, second.run_id, second.attempt) == (Status.DONE, done[1].run_id, 1)
    assert (third.status, third.tries) == (Status.QUEUED, 0)
    assert {run for run, (level, _, _) in stores.runs().items() if level == "job"} == {first.run_id, second.run_id}
    assert parent_of(stores) and [level for level, _, _ in stores.runs().values()].count("parent") == 1
    history = stores.client.get_metric_history(parent_of(stores), "accuracy")
    assert {point.step for point in history} >= {0, 1}


def test_a_lost_last_try_is_told_to_mlflow(stores: Stores) -> None:
    expired(stores, [])
    stores.sql("UPDATE jobs SET tries = max_tries")
    assert Level.WRONG not in stores.levels(fix=True)
    assert {job.status for job in jobs.rows(stores.engine)} == {Status.FAILED}
    runs = stores.runs()
    assert {runs[str(job.run_id)][:2] for job in jobs.rows(stores.engine)} == {("job", "FAILED")}
    assert runs[parent_of(stores)][:2] == ("parent", "FAILED")


def test_what_a_live_worker_holds_is_not_touched(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch under a lease, a record in a recorder's hands with its run open, and a second table's open run."""
    monkeypatch.setattr(consistency, "PAUSE", 0.0)
    done = stores.work()
    jobs.register(stores.engine, jobs.WorkerInfo("ann", "a host", 1, "cpu"))
    jobs.enqueue(stores.engine, cells(group("t5", blocks=2), group("vit", blocks=2)))
    held = claim(stores.engine, "ann").jobs
    for job in claim(stores.engine, "ann").jobs:
        hand_over_now(stores.engine, job)
    records = outbox.take(stores.engine, "ann", lease=LEASE)
    copied(
        stores, str(done[0].run_id), job=str(records[0].job.id), attempt=str(records[0].attempt), entry="e", group="g"
    )
    copied(stores, str(done[0].run_id), job="4711", entry="f", claimed=str(time.time_ns()))
    before = stores.everything()
    assert stores.levels() == stores.levels(fix=True) == {Level.OK}
    assert stores.everything() == before
    expired(stores, done)  # and beside them what is dead is taken back
    assert Level.MENDED in stores.levels(fix=True)
    rows, waiting, runs = stores.everything()
    assert rows[: len(before[0])] == before[0] and (waiting, runs) == before[1:]
    assert {job.status for job in map(lambda one: jobs.get(stores.engine, one.id), held)} == {Status.RUNNING}


def test_another_store_is_not_taken_for_a_loss(stores: Stores, tmp_path: Path, empty_mlflow: Path) -> None:
    """The wrong CLIPSTUDY_TRACKING must not queue a whole study again, nor take what waits to be recorded."""
    done = stores.work()
    refused(stores, done)
    shutil.copy(empty_mlflow, tmp_path / "other.db")
    other = Stores(stores.engine, Tracking(f"sqlite:///{tmp_path / 'other.db'}", str(tmp_path / "other")))
    before = other.everything()
    (told,) = [finding for finding in other.examine(fix=True) if (finding.what, finding.level) == ("runs", Level.WRONG)]
    assert "3 cells done, and none of their runs" in told.says
    assert "CLIPSTUDY_TRACKING" in told.do and other.everything() == before


def test_another_store_is_known_before_each_run_was_asked_for(
    stores: Stores, tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.work()
    shutil.copy(empty_mlflow, tmp_path / "other.db")
    asked: list[str] = []
    monkeypatch.setattr(comparison, "STRANGE", 2)
    monkeypatch.setattr(comparison.records, "state", lambda _, run_id: asked.append(run_id))
    other = Stores(stores.engine, Tracking(f"sqlite:///{tmp_path / 'other.db'}", str(tmp_path / "other")))
    assert stores.kinds() == [] and asked == []
    assert set(other.kinds()) == {Kind.ELSEWHERE} and len(asked) == 2


def test_a_newer_run_than_the_tables_own_is_said(stores: Stores) -> None:
    done = stores.work()
    copied(stores, str(done[0].run_id), "FINISHED", entry="e", job="99", ended="2030-01-01T00:00:00+00:00")
    before = stores.everything()
    (told,) = [finding for finding in stores.examine(fix=True) if finding.level is not Level.OK]
    assert told.level is Level.WARNING and "newer run" in told.says and "clipstudy ui" in told.do
    assert stores.everything() == before


def test_runs_of_an_older_table_are_nobodys_loss(stores: Stores) -> None:
    """The table was made anew, so job numbers begin again: what MLflow has of the older one is none of its results."""
    stores.work()
    for table in ("outbox", "jobs", "groups"):
        stores.sql(f"DELETE FROM {table}")
    jobs.enqueue(stores.engine, cells(group("bert", blocks=2)))
    assert stores.levels(fix=True) == {Level.OK}
    assert {job.status for job in jobs.rows(stores.engine)} == {Status.QUEUED}


def test_rerun_is_no_disagreement(stores: Stores) -> None:
    from clipstudy.job import Selection

    stores.work()
    jobs.rerun(stores.engine, Selection())
    assert stores.kinds() == []
    for job in claim(stores.engine).jobs:
        hand_over_now(stores.engine, job)
    stores.record()
    assert stores.kinds() == []  # two FINISHED runs a cell, of two attempts: the reports take the later one


def test_where_mlflow_is_away(stores: Stores) -> None:
    """Leases are taken back without it; the rest is said not to have been compared."""
    stores.work()
    expired(stores, [])
    away = Tracking("http://127.0.0.1:9", "")
    told = consistency.examine(stores.engine, away, True, answers=False)
    assert ("leases", Level.MENDED) in {(finding.what, finding.level) for finding in told}
    found = {finding.what: finding for finding in told}
    assert found["runs"].level is Level.WARNING and "not compared" in found["runs"].says
    assert {job.status for job in jobs.rows(stores.engine)} == {Status.DONE, Status.QUEUED}


def test_silent_workers(stores: Stores) -> None:
    jobs.register(stores.engine, jobs.WorkerInfo("dead", "a host", 1, "cpu"))
    stores.sql("UPDATE workers SET heartbeat = heartbeat - 3600")
    (told,) = [finding for finding in stores.examine() if finding.what == "workers"]
    assert told.level is Level.WARNING and "last seen 1 h 0 min ago" in told.says
    assert Level.MENDED in stores.levels(fix=True) and jobs.workers(stores.engine) == []


def test_workers_not_counted_as_at_work_any_more_are_not_forgotten_yet(stores: Stores) -> None:
    jobs.register(stores.engine, jobs.WorkerInfo("late", "a host", 1, "cpu"))
    stores.sql("UPDATE workers SET heartbeat = heartbeat - 400")
    for fix in (False, True):
        (told,) = [finding for finding in stores.examine(fix) if finding.what == "workers"]
        assert told.level is Level.WARNING and "late was last seen 6 min 4" in told.says and not told.do
    assert [worker.name for worker in jobs.workers(stores.engine)] == ["late"]


@pytest.mark.postgres
def test_on_postgres_and_an_mlflow_server(tmp_path: Path, migrated_database: str) -> None:
    engine = dialect.connect(emptied(migrated_database))
    with servers.mlflow(tmp_path) as url:
        stores = Stores(engine, Tracking(url, ""))
        done = stores.work()
        for harm in (two_parents, untold, refused, left_open, forgotten):
            harm(stores, done)
        stores.sql("UPDATE outbox SET ended_at = ended_at - 1000")
        assert set(stores.kinds()) == {Kind.UNTOLD, Kind.MISSED, Kind.REFUSED, Kind.OPEN, Kind.PARENTS}
        found: list[Any] = stores.examine(fix=True)
        assert {finding.level for finding in found} == {Level.OK, Level.MENDED}, found
        after = stores.everything()
        assert stores.kinds() == [] and stores.levels(fix=True) == {Level.OK} and stores.everything() == after
    engine.dispose()
