"""How the databases find a row to claim among many that are done: by indexes on what is queued, never by looking."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Executable, event, select, text

from clipstudy.job import Selection, Status
from clipstudy.queue import claims, jobs, outbox
from clipstudy.queue.dialect import connect, is_, reading, writing
from clipstudy.queue.migration import migrate
from clipstudy.queue.schema import jobs as table
from tests.queue.samples import LEASE, cells, claim, expire, group, hand_over

DONE, QUEUED = 20_000, 30


@pytest.fixture
def crowded(engine: Engine) -> Engine:
    """Many finished rows, few queued ones."""
    plan = cells(*(group(f"m{i % 20}", f"t{i // 20}", blocks=99) for i in range(DONE // 100)))
    jobs.enqueue(engine, plan)
    with writing(engine) as connection:
        connection.execute(
            text("UPDATE jobs SET status = 'done', run_id = 'r', started_at = 1, ended_at = created_at - 1000 - id")
        )
    jobs.enqueue(engine, cells(*(group(f"m{i}", "new", blocks=2) for i in range(QUEUED // 3))))
    with writing(engine) as connection:
        connection.execute(text("ANALYZE"))
    return engine


def plan_of(engine: Engine, statement: Any) -> str:
    """The plan with every parameter unknown, which is what Postgres makes of a statement that it has prepared."""
    compiled = statement.compile(dialect=engine.dialect, compile_kwargs={"render_postcompile": True})
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            values = tuple(compiled.params[name] for name in compiled.positiontup)
            return "\n".join(r[3] for r in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values))
        numbers = {name: f"${n}" for n, name in enumerate(compiled.params, 1)}
        sql = re.sub(r"%\((\w+)\)s", lambda found: numbers[found[1]], str(compiled)).replace("%%", "%")
        cursor = connection.connection.cursor()
        return "\n".join(row[0] for row in cursor.execute(f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {sql}"))


def assert_walks_indexes(engine: Engine, statement: Executable, *indexes: str) -> None:
    plan = plan_of(engine, statement)
    for index in indexes:
        assert index in plan, plan
    assert "Seq Scan" not in plan, plan
    for line in plan.splitlines():
        # SQLite: a SCAN of a table is one through a (partial) index, or one of a CTE's few rows.
        assert not line.startswith("SCAN") or "USING INDEX ix_jobs_queued" in line or line[5:] in CTES, plan


CTES = ("leader", "taken", "locked", "free")


def plans_of(engine: Engine, act: Callable[[], object]) -> str:
    """The plans of all that ``act`` asks, with the values it asks with."""
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if re.match("SELECT|WITH|UPDATE|DELETE", statement):
            asked.append((statement, values))

    act()
    event.remove(engine, "before_cursor_execute", note)
    assert asked
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF)"
    with reading(engine) as connection:
        return "\n".join(
            str(row[-1]) for sql, values in asked for row in connection.exec_driver_sql(f"{explain} {sql}", values)
        )


def assert_looks_at_no_table_whole(plans: str, *indexes: str) -> None:
    """None that grows: the outbox holds what waits, which is bounded."""
    for index in indexes:
        assert index in plans, plans
    whole = [line for line in plans.splitlines() if re.search(r"^SCAN jobs\b(?!.* USING)|Seq Scan on jobs", line)]
    assert not whole, plans


@pytest.mark.parametrize("model", [None, "m3"])
@pytest.mark.parametrize("cap", [None, 2])
def test_a_claim_walks_indexes(crowded: Engine, model: str | None, cap: int | None) -> None:
    # Without a model Postgres may take any index of what is queued: to sort thirty rows is as good as a walk.
    own = ["ix_jobs_queued_model"] if model else []
    assert_walks_indexes(crowded, claims.claim_statement("ann", LEASE, cap, model), *own, "ix_jobs_queued_group")
    assert len(claim(crowded, prefer_model=model).jobs) == 3


def test_a_claim_walks_indexes_as_soon_as_a_study_is_enqueued(empty_url: str) -> None:
    engine = connect(empty_url)
    migrate(engine)
    jobs.enqueue(engine, cells(*(group(f"m{i % 10}", f"t{i // 10}", blocks=149) for i in range(200))))
    statement = claims.claim_statement("ann", LEASE)
    assert_walks_indexes(engine, statement, "ix_jobs_queued_group")
    # Here it must be the one in the claim's order: any other would have all thirty thousand read and sorted.
    assert re.search(r"(Index Scan using|SCAN head USING INDEX) ix_jobs_queued\b", plan_of(engine, statement))
    engine.dispose()


def test_polls_and_expiry_walk_indexes(crowded: Engine) -> None:
    expired = select(table.c.id).where(is_(table.c.status, "running"), table.c.lease_until <= 5.0).limit(claims._ONE)
    for statement, index in ((claims._first("id", None), "ix_jobs_queued"), (expired, "ix_jobs_leased")):
        plan = plan_of(crowded, statement)
        assert index in plan and "Seq Scan" not in plan, plan


def test_a_claim_of_one_study_passes_the_others_by(crowded: Engine) -> None:
    """However many rows of another study come first."""
    jobs.enqueue(crowded, cells(*(group(f"m{i}", study="mine") for i in range(3))))
    with writing(crowded) as connection:
        connection.execute(text("UPDATE jobs SET status = 'queued' WHERE study = 'probing' AND id % 2 = 0"))
        connection.execute(text("ANALYZE"))
    statement = claims.claim_statement("ann", LEASE, study="mine")
    assert_walks_indexes(crowded, statement, "ix_jobs_queued_study")
    assert {job.study for job in claim(crowded, study="mine").jobs} == {"mine"}
    # Of a study that has nothing left, too: statistics may say that all there is is of it.
    for asked in (
        lambda: jobs.claim(crowded, "ann", lease=LEASE, study="none"),
        lambda: jobs.any_queued(crowded, "none"),
    ):
        assert "ix_jobs_queued_study" in plans_of(crowded, asked)


def test_what_a_worker_asks_all_the_time_walks_indexes(crowded: Engine) -> None:
    batch = claim(crowded)

    def beat() -> None:
        assert len(jobs.beat(crowded, "ann", batch.jobs, lease=LEASE)) == 3

    assert_looks_at_no_table_whole(plans_of(crowded, beat))
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: hand_over(crowded, batch.jobs[0])))
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.release(crowded, batch.jobs[1:2])))
    for study in (None, "probing"):
        assert_looks_at_no_table_whole(
            plans_of(crowded, lambda study=study: jobs.any_queued(crowded, study)), "ix_jobs_q"
        )
        assert_looks_at_no_table_whole(plans_of(crowded, lambda study=study: outbox.pending(crowded, study)))
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: outbox.take(crowded, "rec", lease=LEASE)))
    expire(crowded, batch.jobs[2:])
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.requeue_expired(crowded)), "ix_jobs_leased")


def test_what_a_dead_workers_parent_asks_walks_indexes(crowded: Engine) -> None:
    claim(crowded)
    lived = timedelta(minutes=10)
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.ended_by(crowded, "ann", lived)), "ix_jobs_ended")
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.bury(crowded, "ann")), "ix_jobs_leased")
    claim(crowded)
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.disown(crowded, "ann")), "ix_jobs_leased")


def test_what_a_person_asks_walks_indexes(crowded: Engine) -> None:
    of_one = Selection(("m3",), ("new",))
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.counts(crowded, of_one)))
    assert_looks_at_no_table_whole(plans_of(crowded, lambda: jobs.throughput(crowded)), "ix_jobs_ended")
    failures = plans_of(crowded, lambda: jobs.rows(crowded, statuses=[Status.FAILED]))
    assert_looks_at_no_table_whole(failures, "ix_jobs_failed")
