"""From a plan to rows: what is new is inserted, what is there stays, what was given up is revived, what changed is
superseded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    CTE,
    Engine,
    Integer,
    String,
    and_,
    bindparam,
    column,
    exists,
    func,
    literal,
    select,
    update,
    values,
)
from sqlalchemy.engine import Connection

from clipstudy.errors import Unreadable
from clipstudy.job import Group, Status, layer_label
from clipstudy.queue.cells import STANDS, AnyRow, among, hold, move, unpin
from clipstudy.queue.dialect import clock, insert_new, is_, reading, refresh_statistics, serialise, writing
from clipstudy.queue.schema import groups as group_table
from clipstudy.queue.schema import jobs
from clipstudy.spec import decisive

Cell = tuple[str, str, str]  #: study, model, task
Layers = tuple[tuple[int, str], ...]  #: number, label

#: What a group whose settings changed gives up. What runs or ran keeps its place: it was asked for in its time.
GIVEN_UP = (Status.QUEUED, Status.FAILED, Status.CANCELLED)
#: From here on the planner must hear of it at once, not when the server next looks.
MANY_GROUPS = 50
REVIVED = (Status.CANCELLED, Status.SUPERSEDED)


@dataclass(frozen=True)
class Enqueued:
    """What an enqueue did, or with ``dry_run`` would do. Every cell asked for is new, revived or present."""

    new: int = 0
    revived: int = 0  #: cancelled or superseded, queued again
    superseded: int = 0  #: rows of older settings that will not run any more
    present: Mapping[Status, int] = field(default_factory=dict)  #: there already, by status; left as they are
    #: (model, task, {key: (old, new)}): which settings differ from those enqueued last.
    changed: tuple[tuple[str, str, Mapping[str, tuple[Any, Any]]], ...] = ()
    #: (model, task) whose settings had been replaced and are back, all done then: nothing of them will run.
    returned: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Asked:
    group: Group
    digest: str
    spec: str
    layers: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """What must be done, as ids and rows."""

    report: Enqueued
    insert_groups: list[Cell]
    newest: list[int]  # existing groups that become the newest again
    older: list[int]  # groups that are the newest no more
    respelled: dict[int, str]  # group -> spec that differs in presentation only
    stale: list[int]  # existing groups that resolved something at run time and have nothing to show for it
    revive: list[int]
    insert_jobs: list[tuple[Cell, tuple[int, ...]]]


def enqueue(
    engine: Engine,
    groups: Sequence[tuple[Group, tuple[int, ...]]],
    *,
    priority: int = 0,
    max_tries: int = 3,
    dry_run: bool = False,
) -> Enqueued:
    """Make rows of ``groups``, each with the layers asked for. Doing it twice gives nothing new.

    A group is recognised by its digest. Changed settings make a new group and supersede what the older one has not
    run; settings that come back revive it. An edit that changes only how things are shown is written into the group. A
    group that has nothing to show yet begins anew with the checkpoint and the data of today.
    ``priority`` is a group's: its queued rows are raised to it, never lowered (``set_priority`` does that).
    Several processes may enqueue at once.

    Raises DatabaseUnreachable, NotMigrated.
    """
    asked = _asked(groups)
    with reading(engine) if dry_run else writing(engine) as connection:
        if not dry_run:
            serialise(connection, "enqueue")
        plan = _plan(connection, asked)
        if not dry_run:
            _carry_out(connection, plan, asked, priority, max_tries)
    return plan.report


def _asked(groups: Sequence[tuple[Group, tuple[int, ...]]]) -> dict[Cell, _Asked]:
    asked: dict[Cell, _Asked] = {}
    for group, layers in groups:
        cell = (group.study, group.model.name, group.task.name)
        if cell in asked:
            raise ValueError(f"asked for twice: {cell}")
        asked[cell] = _Asked(group, group.digest, group.to_json(), tuple(dict.fromkeys(layers)))
    return asked


def _plan(connection: Connection, asked: Mapping[Cell, _Asked]) -> _Plan:
    same, former = _known(connection, asked)
    specs = _specs(connection, [row.id for row in (*same.values(), *former.values())])
    present, revive, missing = _layers(connection, asked, same)
    older = [row.id for row in former.values()]
    back = [cell for cell, row in same.items() if row.finished and not row.newest]
    superseded = connection.scalar(
        select(func.count()).select_from(jobs).where(among(jobs.c.group_id, older), is_(jobs.c.status, *GIVEN_UP))
    )
    changed = [
        (model, task, _changed(specs[row.id], asked[study, model, task].group))
        for (study, model, task), row in former.items()
    ]
    return _Plan(
        report=Enqueued(
            new=sum(len(layers) for _, layers in missing),
            revived=len(revive),
            superseded=superseded or 0,
            present=present,
            changed=tuple(changed),
            returned=tuple(cell[1:] for cell in back if cell not in dict(missing)),
        ),
        insert_groups=[cell for cell in asked if cell not in same],
        newest=[row.id for row in same.values() if not row.newest],
        older=older,
        respelled={row.id: asked[cell].spec for cell, row in same.items() if specs[row.id] != asked[cell].spec},
        stale=[row.id for row in same.values() if row.stale],
        revive=revive,
        insert_jobs=missing,
    )


def _known(connection: Connection, asked: Mapping[Cell, _Asked]) -> tuple[dict[Cell, AnyRow], dict[Cell, AnyRow]]:
    """For each cell: the group with the very settings asked for; and the newest group where that is another one."""
    table = group_table.c
    stale = and_(table.resolved.is_not(None), ~STANDS).label("stale")
    finished = (~exists().where(jobs.c.group_id == table.id, ~is_(jobs.c.status, Status.DONE))).label("finished")
    query = select(table.id, table.study, table.model, table.task, table.digest, table.newest, stale, finished)
    same: dict[Cell, AnyRow] = {}
    former: dict[Cell, AnyRow] = {}
    for row in connection.execute(query.where(table.study.in_({study for study, _, _ in asked}))):
        cell = (row.study, row.model, row.task)
        if cell in asked and row.digest == asked[cell].digest:
            same[cell] = row
        elif cell in asked and row.newest:
            former[cell] = row
    return same, former


def _specs(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    query = select(group_table.c.id, group_table.c.spec).where(among(group_table.c.id, ids))
    return {row.id: row.spec for row in connection.execute(query)}


def _layers(
    connection: Connection, asked: Mapping[Cell, _Asked], same: Mapping[Cell, AnyRow]
) -> tuple[dict[Status, int], list[int], list[tuple[Cell, tuple[int, ...]]]]:
    """Of the layers asked for: how many are there by status, which rows to revive, which layers are missing."""
    there: dict[tuple[int, int], AnyRow] = {}
    query = select(jobs.c.id, jobs.c.group_id, jobs.c.layer, jobs.c.status)
    for row in connection.execute(query.where(among(jobs.c.group_id, [g.id for g in same.values()]))):
        there[row.group_id, row.layer] = row
    present: Counter[Status] = Counter()
    revive: list[int] = []
    missing: list[tuple[Cell, tuple[int, ...]]] = []
    for cell, wanted in asked.items():
        group = same.get(cell)
        absent = []
        for layer in wanted.layers:
            found = there.get((group.id, layer)) if group is not None else None
            if found is None:
                absent.append(layer)
            elif Status(found.status) in REVIVED:
                revive.append(found.id)
            else:
                present[Status(found.status)] += 1
        if absent:
            missing.append((cell, tuple(absent)))
    return dict(present), revive, missing


def _carry_out(
    connection: Connection, plan: _Plan, asked: Mapping[Cell, _Asked], priority: int, max_tries: int
) -> None:
    hold(connection, [*plan.older, *plan.newest, *plan.respelled, *plan.stale])
    # The older ones give way first: one newest group a cell, at every moment.
    _mark(connection, plan.older, newest=False)
    _mark(connection, plan.newest, newest=True)
    _insert_groups(connection, {cell: asked[cell] for cell in plan.insert_groups})
    _respell(connection, plan.respelled)
    if plan.older:
        given_up = [among(jobs.c.group_id, plan.older), is_(jobs.c.status, *GIVEN_UP)]
        move(connection, given_up, {"status": Status.SUPERSEDED})
    ids = {cell: row.id for cell, row in _known(connection, asked)[0].items()}
    if plan.insert_jobs:
        wanted = [
            (ids[cell], *cell[:2], tuple((layer, layer_label(asked[cell].group.model, layer)) for layer in layers))
            for cell, layers in plan.insert_jobs
        ]
        _insert_jobs(connection, wanted, priority, max_tries)
        if len(wanted) >= MANY_GROUPS:
            refresh_statistics(connection, jobs)
    if plan.revive:
        given_up = [among(jobs.c.id, plan.revive), is_(jobs.c.status, *REVIVED)]
        move(connection, given_up, {**ASKED_AFRESH, "priority": priority, "max_tries": max_tries})
    # A group ranks by the highest of its queued rows; raising them all keeps it so when that one has been claimed.
    lower = [among(jobs.c.group_id, ids.values()), is_(jobs.c.status, Status.QUEUED), jobs.c.priority < priority]
    move(connection, lower, {"priority": priority})
    unpin(connection, plan.stale)


def _insert_groups(connection: Connection, new: Mapping[Cell, _Asked]) -> None:
    if not new:
        return
    now = connection.scalar(select(clock()))
    rows = [
        {
            "study": study,
            "model": model,
            "task": task,
            "digest": asked.digest,
            "spec": asked.spec,
            "newest": True,
            "created_at": now,
        }
        for (study, model, task), asked in new.items()
    ]
    connection.execute(insert_new(connection, group_table), rows)


def _respell(connection: Connection, specs: Mapping[int, str]) -> None:
    """Group → the specification that it is given."""
    if not specs:
        return
    statement = update(group_table).where(group_table.c.id == bindparam("group")).values(spec=bindparam("spelled"))
    connection.execute(statement, [{"group": group_id, "spelled": spec} for group_id, spec in specs.items()])


def _insert_jobs(
    connection: Connection, wanted: Sequence[tuple[int, str, str, Layers]], priority: int, max_tries: int
) -> None:
    """One row for each (group, layer), numbered in the groups' order.

    Groups × their set of layers, multiplied by the database: a study has thousands of groups, and few different sets.
    """
    sets: dict[Layers, int] = {}
    owners = [(*owner, sets.setdefault(layers, len(sets))) for *owner, layers in wanted]
    members = [(number, layer, label) for layers, number in sets.items() for layer, label in layers]
    owner = _table("owner", owners, group_id=Integer, study=String, model=String, layers=Integer)
    member = _table("member", members, layers=Integer, layer=Integer, label=String)
    fixed = {
        "status": literal(Status.QUEUED),
        "priority": literal(priority),
        "attempt": literal(0),
        "tries": literal(0),
        "max_tries": literal(max_tries),
        "infra": literal(0),
        "created_at": clock(),
    }
    rows = (
        select(owner.c.group_id, owner.c.study, owner.c.model, member.c.layer, member.c.label, *fixed.values())
        .where(owner.c.layers == member.c.layers)
        .order_by(owner.c.group_id, member.c.layer)
    )
    columns = ["group_id", "study", "model", "layer", "label", *fixed]
    connection.execute(insert_new(connection, jobs).from_select(columns, rows))


def _table(name: str, rows: Sequence[tuple[Any, ...]], **types: type[Integer] | type[String]) -> CTE:
    columns = [column(key, kind()) for key, kind in types.items()]
    return values(*columns, name=name, literal_binds=True).data(list(rows)).cte(name)


#: What a row is given when a person asks for it once more.
ASKED_AFRESH: Mapping[str, Any] = {
    "status": Status.QUEUED,
    "tries": 0,
    "infra": 0,
    "run_after": None,
    "lease_until": None,
    "worker": None,
    "ended_at": None,
}


def _mark(connection: Connection, ids: Sequence[int], *, newest: bool) -> None:
    if ids:
        connection.execute(update(group_table).where(among(group_table.c.id, ids)).values(newest=newest))


def _changed(spec: str, new: Group) -> dict[str, tuple[Any, Any]]:
    try:
        return differences(Group.from_json(spec), new)
    except Unreadable:
        return {"all": ("settings that this version cannot read", "the study file's")}


def differences(old: Group, new: Group) -> dict[str, tuple[Any, Any]]:
    """The settings that decide a result and differ, by dotted key: ``{"task.options.epochs": (4, 10)}``."""
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _flat(group: Group) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    walk("model", decisive(group.model))
    walk("dataset", decisive(group.dataset))
    walk("task", decisive(group.task))
    return flat
