"""Settings that this version cannot read: whoever meets them goes on with the others, and says which they are."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, select, update

from clipstudy.errors import QueueError
from clipstudy.job import FailureKind, Selection, Status
from clipstudy.queue import audit, jobs, outbox
from clipstudy.queue.dialect import writing
from clipstudy.queue.schema import groups
from clipstudy.queue.schema import jobs as table
from tests.queue.samples import LEASE, cells, claim, group, hand_over

#: How what is written may be broken, or a newer version's.
BROKEN: dict[str, Callable[[str], str]] = {
    "no JSON": lambda spec: spec[:-1],
    "no object": lambda spec: "[]",
    "a key less": lambda spec: json.dumps({k: v for k, v in json.loads(spec).items() if k != "task"}),
    "another type": lambda spec: json.dumps(json.loads(spec) | {"dataset": 7}),
    "deep": lambda spec: "[" * 100_000,
}


def broken(engine: Engine, model: str, how: str = "a key less") -> int:
    """Break the settings of ``model``; its group."""
    group_id = next(job.group_id for job in jobs.rows(engine) if job.model == model)
    spec = jobs.group_of(engine, group_id)[0].to_json()
    with writing(engine) as connection:
        connection.execute(update(groups).where(groups.c.id == group_id).values(spec=BROKEN[how](spec)))
    return group_id


@pytest.mark.parametrize("how", BROKEN)
def test_a_claim_fails_them_and_takes_the_next(engine: Engine, how: str) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    group_id = broken(engine, "a", how)
    batch = claim(engine)
    assert batch.group == group("b") and batch.layers == (0, 1, 2, 3)
    failed = jobs.rows(engine, Selection(models=("a",)))
    assert {(job.status, job.failure) for job in failed} == {(Status.FAILED, FailureKind.CODE)}
    assert "cannot read" in str(failed[0].error) and "clipstudy enqueue --all" in str(failed[0].error)
    assert outbox.pending(engine) == 0
    with pytest.raises(QueueError, match="cannot read"):
        jobs.group_of(engine, group_id)


def test_where_there_is_nothing_else_a_claim_ends(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    broken(engine, "a")
    broken(engine, "b")
    assert jobs.claim(engine, "ann", lease=LEASE) is None
    assert not jobs.any_queued(engine)


def test_enqueued_again_they_can_be_read(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a")))
    broken(engine, "a")
    assert jobs.claim(engine, "ann", lease=LEASE) is None
    jobs.enqueue(engine, cells(group("a")))
    assert jobs.retry(engine, Selection(), failed=True, lost=False, cancelled=False) == 4
    assert claim(engine).group == group("a")


def test_a_change_of_what_cannot_be_read_is_told_as_such(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a")))
    broken(engine, "a")
    changed = group("a", epochs=9)
    ((model, _, differs),) = jobs.enqueue(engine, cells(changed)).changed
    assert model == "a" and "cannot read" in differs["all"][0]


def test_results_of_others_are_recorded_and_theirs_rest(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    for batch in (claim(engine), claim(engine)):
        hand_over(engine, batch.jobs[0])
    broken(engine, "a")
    assert [record.job.model for record in outbox.take(engine, "rec", lease=LEASE)] == ["b"]
    assert outbox.take(engine, "rec", lease=LEASE) == []
    assert "cannot read" in str(outbox.last_error(engine))
    assert sorted(one.tries for one in audit.waiting(engine)) == [0, 1]


@pytest.mark.parametrize("column", ["metrics", "params", "tags"])
def test_a_broken_result_holds_up_no_other(engine: Engine, column: str) -> None:
    jobs.enqueue(engine, cells(group("a")))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    with writing(engine) as connection:
        connection.execute(update(outbox.table).where(outbox.table.c.id == 1).values({column: "{"}))
    assert len(outbox.take(engine, "rec", lease=LEASE)) == 3
    assert "JSONDecodeError" in str(outbox.last_error(engine))


@pytest.mark.parametrize("written", [{"started_at": 1e20}, {"ended_at": float("inf")}, {"params": "[" * 100_000}])
def test_a_result_of_no_time_or_of_endless_depth_holds_up_no_other(engine: Engine, written: dict[str, object]) -> None:
    jobs.enqueue(engine, cells(group("a")))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    with writing(engine) as connection:
        connection.execute(update(outbox.table).where(outbox.table.c.id == 1).values(**written))
    assert len(outbox.take(engine, "rec", lease=LEASE)) == 3
    assert "cannot read" in str(outbox.last_error(engine))


def test_settings_of_which_this_version_would_make_others_are_not_computed(engine: Engine) -> None:
    """A key that a newer version writes is unknown here, and left out when it is read: the digest tells."""
    jobs.enqueue(engine, cells(group("a"), group("b")))
    with writing(engine) as connection:
        (spec,) = connection.execute(select(groups.c.spec).where(groups.c.model == "a")).one()
        newer = json.loads(spec)
        newer["task"]["temperature"] = 0.5
        written = {"spec": json.dumps(newer), "digest": "0123456789ab"}
        connection.execute(update(groups).where(groups.c.model == "a").values(**written))
    assert claim(engine).group.model.name == "b"
    assert {(job.status, "enqueued by another version" in str(job.error)) for job in jobs.rows(engine)} == {
        (Status.FAILED, True), (Status.RUNNING, False),
    }  # fmt: skip


def test_results_of_settings_of_which_this_version_would_make_others_are_not_recorded(engine: Engine) -> None:
    """Under another digest they would be another cell's; a newer version records them."""
    jobs.enqueue(engine, cells(group("a"), group("b")))
    for batch in (claim(engine), claim(engine)):
        hand_over(engine, batch.jobs[0])
    with writing(engine) as connection:
        connection.execute(update(groups).where(groups.c.model == "a").values(digest="0123456789ab"))
    assert [record.job.model for record in outbox.take(engine, "rec", lease=LEASE)] == ["b"]
    assert "enqueued by another version" in str(outbox.last_error(engine))


def test_they_are_named(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("a"), group("b")))
    group_id = broken(engine, "a")
    read, unread = audit.group_rows(engine)
    assert [row.group.model.name for row in read] == ["b"]
    assert [(one.id, one.title.startswith("a · ")) for one in unread] == [(group_id, True)]
    assert len(jobs.kinds(engine)) <= 1


@pytest.mark.parametrize(
    "written", [{"failure": "evicted"}, {"created_at": 1e20}, {"started_at": -1e20}, {"ended_at": float("inf")}]
)
def test_a_row_of_which_a_field_means_nothing_goes_its_way(engine: Engine, written: dict[str, object]) -> None:
    """A kind of failure of a newer version, an instant that is none: whoever claims, takes or lists is not stopped."""
    jobs.enqueue(engine, cells(group("a", blocks=0), group("b", blocks=0)))
    with writing(engine) as connection:
        connection.execute(update(table).where(table.c.model == "a").values(**written))
    assert {job.model for job in jobs.rows(engine)} == {"a", "b"}
    for model in ("a", "b"):
        batch = claim(engine)
        assert batch.group.model.name == model
        hand_over(engine, batch.jobs[0])
    assert [record.job.model for record in outbox.take(engine, "ann", lease=LEASE)] == ["a", "b"]


def test_the_doctor_does_not_compare_settings_of_which_this_version_would_make_others(engine: Engine) -> None:
    """Nor queue what nobody here could record."""
    jobs.enqueue(engine, cells(group("a"), group("b")))
    with writing(engine) as connection:
        connection.execute(update(groups).where(groups.c.model == "a").values(digest="0123456789ab"))
    read, unread = audit.group_rows(engine)
    assert [one.group.model.name for one in read] == ["b"] and ["a" in one.title for one in unread] == [True]
