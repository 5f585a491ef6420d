"""Every verb from every status: what it moves, what it leaves, and that both together are job.MOVES exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from clipstudy.job import MOVES, Job, Selection, Status
from clipstudy.queue import jobs
from tests.queue.samples import (
    ALL,
    EXPIRED,
    LEASE,
    cells,
    fail,
    group,
    hand_over,
    one_of_each,
    record_all,
)

Table = dict[Status, Job]
Q, R, P, D, F, C, S = Status


def _expire(engine: Engine, table: Table) -> None:
    jobs.beat(engine, "ann", [table[R]], lease=EXPIRED)
    jobs.requeue_expired(engine)


#: Each verb, aimed at rows of all statuses at once; and what it moves. All else stays.
VERBS: dict[str, tuple[Callable[[Engine, Table], object], dict[Status, Status]]] = {
    "claim": (lambda e, t: jobs.claim(e, "bob", lease=LEASE), {Q: R}),
    "beat": (lambda e, t: jobs.beat(e, "ann", list(t.values()), lease=LEASE), {}),
    "hand over": (lambda e, t: [hand_over(e, job) for job in t.values()], {R: P}),
    "fail and retry": (lambda e, t: [fail(e, job) for job in t.values()], {R: Q}),
    "fail": (lambda e, t: [fail(e, job, retry=False) for job in t.values()], {R: F}),
    "release": (lambda e, t: jobs.release(e, list(t.values())), {R: Q}),
    "disown": (lambda e, t: jobs.disown(e, "ann"), {R: Q}),
    "requeue expired": (_expire, {R: Q}),
    "record": (lambda e, t: record_all(e), {P: D}),
    "cancel": (lambda e, t: jobs.cancel(e, ALL), {Q: C, R: C}),
    "retry": (lambda e, t: jobs.retry(e, ALL, failed=True, lost=True, cancelled=True), {F: Q, C: Q}),
    "rerun": (lambda e, t: jobs.rerun(e, ALL), {D: Q, F: Q}),
    "set priority": (lambda e, t: jobs.set_priority(e, ALL, 7), {}),
    "enqueue again": (lambda e, t: jobs.enqueue(e, cells(group(blocks=5, epochs=9))), {C: Q}),
    "enqueue older": (lambda e, t: jobs.enqueue(e, [(group(blocks=5), (0,))]), {S: Q, Q: S, F: S, C: S}),
    "enqueue changed": (lambda e, t: jobs.enqueue(e, cells(group(blocks=5, epochs=11))), {Q: S, F: S, C: S}),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_moves_what_it_may_and_nothing_else(engine: Engine, verb: str) -> None:
    act, moves = VERBS[verb]
    table = one_of_each(engine)
    act(engine, table)
    after = {status: jobs.get(engine, job.id).status for status, job in table.items()}
    assert after == {status: moves.get(status, status) for status in Status}
    assert all(then in MOVES[status] for status, then in moves.items())


def test_every_legal_move_has_a_verb() -> None:
    made = {(status, then) for _, moves in VERBS.values() for status, then in moves.items()}
    assert made == {(status, then) for status, legal in MOVES.items() for then in legal}


def test_a_selection_that_names_nothing_moves_nothing(engine: Engine) -> None:
    one_of_each(engine)
    nothing = Selection(models=("no such model",))
    for verb in (jobs.cancel, jobs.rerun, jobs.retry, lambda e, s: jobs.set_priority(e, s, 1)):
        assert verb(engine, nothing) == 0
