"""Whether job table, outbox and MLflow agree, as findings; and, where asked for, made to agree."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from clipstudy.doctor import comparison, mending
from clipstudy.doctor.comparison import Disagreement, Kind, State
from clipstudy.doctor.finding import Finding, Level
from clipstudy.heartbeat import OFTEN
from clipstudy.job import Status
from clipstudy.queue import jobs
from clipstudy.queueview import UNHEARD
from clipstudy.redaction import redact
from clipstudy.tracking import Tracking
from clipstudy.wording import counted, duration
from clipstudy.worker import SILENT

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: What is mended may bring another disagreement to light; so many rounds, and what is left then is said.
ROUNDS = 5
#: Seconds between two looks where workers are busy: what is still the same is nobody's work in progress.
PAUSE = 2.0
#: Titles that one line shows.
SHOWN = 3
FIX = "clipstudy doctor --fix"


@dataclass(frozen=True)
class Words:
    """How a kind of disagreement is said: under which head, of how many of what, and what about them."""

    what: str
    of: str  #: one of them; more have an s
    says: str
    level: Level = Level.WRONG


WORDS: Mapping[Kind, Words] = MappingProxyType({
    Kind.UNREAD: Words("groups", "group", "with settings that this version cannot read (a newer one's, or broken)"),
    Kind.EXPIRED: Words("leases", "cell", "running under a lease that ran out; the worker vanished"),
    Kind.REFUSED: Words("outbox", "result", "that MLflow did not take"),
    Kind.STUCK: Words("outbox", "result", "waiting for MLflow that nobody records"),
    Kind.ELSEWHERE: Words("runs", "cell", "done, and none of their runs in this MLflow store"),
    Kind.UNFINISHED: Words("runs", "cell", "done, with a run that is not FINISHED in MLflow"),
    Kind.TRASHED: Words("runs", "cell", "done, with a run that was deleted in MLflow (--fix restores it)"),
    Kind.GONE: Words("runs", "cell", "done, with no run in MLflow (--fix queues it again)"),
    Kind.MISSED: Words("runs", "cell", "with a FINISHED run of the last attempt that the job table does not know"),
    Kind.UNSENT: Words("outbox", "cell", "computed, with an outcome that is nowhere (--fix queues it again)"),
    Kind.UNTOLD: Words("runs", "cell", "failed, with no run in MLflow that says so", Level.WARNING),
    Kind.OPEN: Words("runs", "run", "left RUNNING in MLflow that nobody will close (--fix deletes it)"),
    Kind.TWICE: Words("runs", "run", "of an attempt that another run records (--fix deletes it)"),
    Kind.NEWER: Words("runs", "cell", "shown in reports by a newer run than the job table's own", Level.WARNING),
    Kind.PARENT: Words("parents", "parent run", "not as its children say"),
    Kind.PARENTS: Words("parents", "parent run", "beside the one of its group (--fix keeps one)"),
    Kind.ORPHANED: Words("parents", "group", "without its parent run"),
})  # fmt: skip
#: What to type where it is not just FIX: most of it only a person can put right.
ELSE_TYPE: Mapping[Kind, str] = MappingProxyType({
    Kind.REFUSED: f"{FIX}; where it stays, fix the reason first",
    Kind.UNREAD: "update clipstudy, or clipstudy enqueue --all; then clipstudy retry --all",
    Kind.ELSEWHERE: "check CLIPSTUDY_TRACKING; if the store is really gone: clipstudy rerun --all",
    Kind.NEWER: "clipstudy ui (does another job table record into this store?); delete there what is not to be shown",
})  # fmt: skip


def examine(engine: Engine, tracking: Tracking | None, fix: bool, answers: bool = True) -> list[Finding]:
    """What disagrees, after mending it where ``fix`` says so. Where MLflow does not answer (``answers``), the job table
    and the outbox alone; where it is not even known which one is meant, they are looked at and left as they are.

    Raises:
        DatabaseUnreachable, NotMigrated: the job table cannot be read.
    """
    silent = _silent(engine, fix)
    state, found = _confirmed(engine, tracking if answers else None)
    mended: list[Disagreement] = []
    for _ in range(ROUNDS):
        if any(one.kind is Kind.ELSEWHERE for one in found):
            break  # what waits must not be recorded in a store that is not the table's
        able = [one for one in found if one.kind in mending.MENDS]
        todo = [one for one in able if one.kind not in mending.LAST] or able
        if not fix or not todo or tracking is None:
            break
        mending.mend(engine, tracking, state, todo)
        state, found = _confirmed(engine, tracking if answers else None)
        left = {one.key for one in found}
        mended += [one for one in todo if one.key not in left]
        if all(one.key in left for one in todo):
            break
    return [*silent, *_findings(mended, Level.MENDED), *_findings(found), *_fine(state, found)]


def _confirmed(engine: Engine, tracking: Tracking | None) -> tuple[State, list[Disagreement]]:
    """What disagrees at two moments: at one, it may be a live worker's next step that is missing."""
    found = {one.key for one in comparison.compare(comparison.look(engine, tracking))}
    if found and jobs.workers(engine):
        time.sleep(PAUSE)
    state = comparison.look(engine, tracking)
    return state, [one for one in comparison.compare(state) if one.key in found]


def _findings(found: Sequence[Disagreement], level: Level | None = None) -> Iterable[Finding]:
    for kind, words in WORDS.items():
        of_kind = [each for each in found if each.kind is kind]
        if not of_kind:
            continue
        says = f"{counted(len(of_kind), words.of)} {words.says}: {', '.join(each.title for each in of_kind[:SHOWN])}"
        if len(of_kind) > SHOWN:
            says += f" and {len(of_kind) - SHOWN:,} more"
        if kind is Kind.REFUSED and of_kind[0].other:
            says += f". Why: {' '.join(of_kind[0].other.split())[:300]}"
        do = "" if level is Level.MENDED else ELSE_TYPE.get(kind, FIX)
        yield Finding(level or words.level, words.what, redact(says), do)


def _fine(state: State, found: Sequence[Disagreement]) -> Iterable[Finding]:
    """What was compared and agrees."""
    wrong = {WORDS[one.kind].what for one in found}
    running = sum(job.status is Status.RUNNING for job in state.jobs)
    if "leases" not in wrong:
        yield Finding(Level.OK, "leases", f"{running:,} running, none under a lease that ran out")
    if "outbox" not in wrong:
        yield Finding(Level.OK, "outbox", f"{len(state.waiting):,} wait for MLflow" if state.waiting else "empty")
    if state.runs is None:
        yield Finding(Level.WARNING, "runs", "not compared with the job table: MLflow does not answer")
        return
    if "runs" not in wrong:
        done = sum(job.status is Status.DONE for job in state.jobs)
        of = sum(run.level == "job" for run in state.runs)
        yield Finding(
            Level.OK, "runs", f"each of {done:,} done cells has its FINISHED run; {of:,} runs, none left open"
        )
    if "parents" not in wrong and Kind.ELSEWHERE not in {one.kind for one in found}:
        parents = sum(run.level == "parent" for run in state.runs)
        yield Finding(Level.OK, "parents", f"{parents:,}, as their children say")


def _silent(engine: Engine, fix: bool) -> Iterable[Finding]:
    """Workers that give no sign of life."""
    found = []
    registered = jobs.workers(engine)
    for one in registered:
        age = one.age or 0.0
        seen = f"{one.name} was last seen {duration(age)} ago"
        if age > SILENT:
            if fix:
                jobs.forget(engine, one.name)  # one that lives after all puts itself down again
            level, do = (Level.MENDED, "") if fix else (Level.WARNING, FIX)
            found.append(Finding(level, "workers", seen, do))
        elif age > 2 * OFTEN and one.host == socket.gethostname() and not _lives(one.pid):
            held = "what it holds is taken over when its lease runs out"
            found.append(
                Finding(Level.WARNING, "workers", f"{one.name} is no process of this machine any more; {held}")
            )
        elif age >= UNHEARD:
            found.append(Finding(Level.WARNING, "workers", seen))
    if not found:
        names = ", ".join(f"{one.name} on {one.device}" for one in registered)
        found.append(Finding(Level.OK, "workers", f"{len(registered)} at work: {names}" if registered else "none"))
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
