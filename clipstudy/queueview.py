"""The job table as a person looks at it: counts, workers, pace, failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clipstudy.errors import printable
from clipstudy.job import Job, Selection, Status
from clipstudy.progress import duration
from clipstudy.queue import jobs, outbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console, ConsoleOptions
    from rich.console import Group as Renderable
    from rich.table import Table
    from rich.text import Text
    from sqlalchemy import Engine

Counts = dict[tuple[str, str, str], dict[Status, int]]  #: (study, model, task) -> how many in each status

#: Kinds of failure that one page shows.
MOST_FAILURES = 8
#: Lines of a page beside its table: the table's head, the summary, a few workers.
BESIDE = 7
#: Columns that a count table always has, and those it has where there is something to count.
ALWAYS = (Status.QUEUED, Status.RUNNING, Status.DONE, Status.FAILED)
SOMETIMES = (Status.COMPUTED, Status.CANCELLED, Status.SUPERSEDED)


def as_json(engine: Engine, selection: Selection, *, rows: bool = False) -> dict[str, Any]:
    """What :func:`page` shows, as plain values."""
    counts = jobs.counts(engine, selection)
    pace = jobs.throughput(engine, selection)
    told: dict[str, Any] = {
        "totals": {str(s): n for s, n in _totals(counts).items()},
        "groups": [
            {"study": study, "model": model, "task": task, **{str(s): n for s, n in by_status.items()}}
            for (study, model, task), by_status in counts.items()
        ],
        "workers": [vars(w) for w in jobs.workers(engine)],
        "cells_per_minute": round(pace.per_hour / 60, 2),
        "seconds_left": pace.time_left and round(pace.time_left.total_seconds()),
        "outbox": outbox.pending(engine),
    }
    if rows:
        told["rows"] = [vars(job) for job in jobs.rows(engine, selection)]
    return told


def page(engine: Engine, selection: Selection, *, rows: bool = False) -> Renderable:
    from rich.console import Group as Lines
    from rich.text import Text

    counts = jobs.counts(engine, selection)
    parts: list[Any] = []
    if not counts:
        nothing = "Nothing is enqueued. Type: clipstudy enqueue --all"
        return Lines(Text(nothing if selection == Selection() else "No such cell is among the newest settings."))
    parts.append(_rows(jobs.rows(engine, selection)) if rows else _Counts(counts, jobs.kinds(engine)))
    parts.append(Text(_summary(_totals(counts), jobs.throughput(engine, selection), outbox.pending(engine))))
    parts.extend(_workers(engine))
    parts.extend(_failures(jobs.rows(engine, selection, statuses=[Status.FAILED])))
    return Lines(*parts)


def watch(engine: Engine, selection: Selection, *, rows: bool = False, every: float = 2.0) -> None:
    """Show the page again and again until nothing is left to do, or Ctrl-C."""
    from rich.live import Live

    with Live(page(engine, selection, rows=rows), auto_refresh=False) as live:
        try:
            while True:
                live.update(page(engine, selection, rows=rows), refresh=True)
                totals = _totals(jobs.counts(engine, selection))
                if not any(totals.get(s) for s in (Status.QUEUED, Status.RUNNING, Status.COMPUTED)):
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def _totals(counts: Counts) -> dict[Status, int]:
    totals: dict[Status, int] = {}
    for by_status in counts.values():
        for status, n in by_status.items():
            totals[status] = totals.get(status, 0) + n
    return totals


def _summary(totals: dict[Status, int], pace: jobs.Throughput, waiting: int) -> str:
    """``12 of 56 cells done, 9.5 a minute, 4 min 38 s left``."""
    live = sum(n for s, n in totals.items() if s not in (Status.CANCELLED, Status.SUPERSEDED))
    text = f"{totals.get(Status.DONE, 0):,} of {live:,} cells done"
    if cancelled := totals.get(Status.CANCELLED, 0):
        text += f", {cancelled:,} more cancelled"
    if pace.time_left:
        text += f", {pace.per_hour / 60:,.1f} a minute, {duration(pace.time_left.total_seconds())} left"
    return text + (f"; {waiting} attempts of the whole table wait for MLflow" if waiting else "")


class _Counts:
    """A line a (model, task); where that is wider than the screen, a line a task under its model's; where these are
    more than the screen has, a line a kind of task."""

    def __init__(self, counts: Counts, kinds: Mapping[tuple[str, str], str]) -> None:
        self.counts, self.kinds = counts, kinds
        totals = _totals(counts)
        self.columns = [*ALWAYS, *(s for s in SOMETIMES if totals.get(s))]
        self.skip = len({study for study, _, _ in counts}) < 2  # one study needs no column

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        from rich.text import Text

        wide = self._table(*("study", "model", "task")[self.skip :])
        for cell, by_status in self.counts.items():
            wide.add_row(*map(printable, cell[self.skip :]), *self._numbers(by_status))
        fits = console.measure(wide, options=options.update(max_width=10_000)).maximum <= options.max_width
        whole = wide if fits else self._narrow()
        if whole.row_count + BESIDE <= console.height:
            yield whole
        else:
            yield self._by_kind()
            yield Text("(tasks of a kind together; one model or task: --model NAME, --task NAME; every cell: --rows)")

    def _by_kind(self) -> Table:
        found: dict[tuple[str, str], dict[Status, int]] = {}
        for (study, _, task), by_status in self.counts.items():
            one = found.setdefault((study, self.kinds[study, task]), {})
            for status, number in by_status.items():
                one[status] = one.get(status, 0) + number
        table = self._table(*("study", "kind")[self.skip :])
        for names, by_status in found.items():
            table.add_row(*map(printable, names[self.skip :]), *self._numbers(by_status))
        return table

    def _narrow(self) -> Table:
        table = self._table("task")
        above: tuple[str, ...] = ()
        for (study, model, task), by_status in self.counts.items():
            if (study, model) != above:
                above = study, model
                table.add_row(printable(" · ".join(above[self.skip :])), style="bold")
            table.add_row(printable(f"  {task}"), *self._numbers(by_status))
        return table

    def _table(self, *names: str) -> Table:
        from rich.table import Table

        table = Table(box=None, header_style="bold")
        for name in names:
            table.add_column(name, overflow="fold")
        for status in self.columns:
            table.add_column(str(status), justify="right")
        return table

    def _numbers(self, by_status: Mapping[Status, int]) -> list[str]:
        return [str(by_status[s]) if by_status.get(s) else "·" for s in self.columns]


def _rows(found: list[Job]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    several = len({job.study for job in found}) > 1
    for name in ("job", *["study"] * several, "model", "task", "layer", "status", "attempt", "worker", "error"):
        table.add_column(name, justify="right" if name in ("job", "attempt") else "left", overflow="fold")
    for job in found:
        cells = (job.model, job.task, job.label, job.status, job.attempt, job.worker or "", job.error or "")
        table.add_row(*(printable(str(cell)) for cell in (job.id, *[job.study] * several, *cells)))
    return table


def _failures(failed: list[Job]) -> list[Any]:
    """The failures, those of one kind in one line."""
    from rich.text import Text

    if not failed:
        return []
    alike: dict[tuple[str, str | None], list[Job]] = {}
    for job in failed:
        alike.setdefault((f"{job.model} · {job.task}", job.error), []).append(job)
    lines = [Text(f"\n{len(failed)} failed:", style="bold red")]
    for (title, error), some in list(alike.items())[:MOST_FAILURES]:
        which = some[0].label if len(some) == 1 else f"{len(some)} layers"
        lines.append(Text(printable(f"  {title} · {which} (job {some[0].id}, {some[0].failure}): {error}")))
    if len(alike) > MOST_FAILURES:
        lines.append(Text(f"  … and {len(alike) - MOST_FAILURES} more kinds"))
    lines.append(Text(f"  see: clipstudy logs {failed[0].id}; fix it, then: clipstudy retry --failed"))
    lines.append(
        Text("  (where the study file was mended: clipstudy enqueue; a queued cell keeps the settings it came with)")
    )
    return lines


def _workers(engine: Engine) -> list[Any]:
    from rich.text import Text

    lines = []
    for w in jobs.workers(engine):
        busy = f"worker {w.name} on {w.device}: {w.batch or 'idle'}, last seen {duration(w.age or 0)} ago"
        lines.append(Text(printable(busy)))
    return lines
