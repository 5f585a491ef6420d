"""The job table on a terminal: a table of counts or of cells, and under it how far they are, who works, what failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clipstudy import queueview
from clipstudy.errors import printable
from clipstudy.job import Selection, Status
from clipstudy.queue import jobs
from clipstudy.queueview import Counts, FailureRow, WorkerRow

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from sqlalchemy import Engine

    from clipstudy.job import Job

#: Kinds of failure that are shown.
MOST_FAILURES = 8
#: Lines beside the table: its head, the summary, a few workers.
BESIDE = 7
#: Columns that a table of counts always has, and those it has where there is something to count.
ALWAYS = (Status.QUEUED, Status.RUNNING, Status.DONE, Status.FAILED)
SOMETIMES = (Status.COMPUTED, Status.CANCELLED, Status.SUPERSEDED)


def page(engine: Engine, selection: Selection, *, rows: bool = False) -> Lines:
    """What is to be printed of the cells chosen: their counts, or with ``rows`` each of them.

    Raises:
        DatabaseUnreachable: the job table does not answer.
    """
    return _drawn(engine, selection, queueview.read(engine, selection), rows)


def watch(engine: Engine, selection: Selection, *, rows: bool = False, every: float = 2.0) -> None:
    """Print the page in place again and again, ``every`` so many seconds, until nothing is left to do, or Ctrl-C.

    Raises:
        DatabaseUnreachable: the job table does not answer.
    """
    with Live(auto_refresh=False) as live:
        try:
            while True:
                view = queueview.read(engine, selection)
                live.update(_drawn(engine, selection, view, rows), refresh=True)
                if view.settled:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def _drawn(engine: Engine, selection: Selection, view: queueview.QueueView, rows: bool) -> Lines:
    if not view.counts:
        nothing = "Nothing is enqueued. Type: clipstudy enqueue --all"
        return Lines(Text(nothing if selection == Selection() else "No such cell has the newest settings."))
    table = cell_table(jobs.rows(engine, selection)) if rows else CountTable(view.counts, jobs.kinds(engine))
    return Lines(table, Text(view.summary), *worker_lines(view.workers), *failure_lines(view.failed, view.failures))


class CountTable:
    """A line a (model, task); where that is wider than the screen, a line a task under its model's; where these are
    more than the screen has, a line a kind of task.

    Args:
        kinds: (study, task) → the task's kind.
    """

    def __init__(self, counts: Counts, kinds: Mapping[tuple[str, str], str]) -> None:
        self.counts, self.kinds = counts, kinds
        totals = queueview.totals_of(counts)
        self.columns = [*ALWAYS, *(s for s in SOMETIMES if totals.get(s))]
        self.skip = len({study for study, _, _ in counts}) < 2  # one study needs no column

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        wide = self._table(*("study", "model", "task")[self.skip :])
        for cell, by_status in self.counts.items():
            wide.add_row(*map(printable, cell[self.skip :]), *self._numbers(by_status))
        fits = console.measure(wide, options=options.update(max_width=10_000)).maximum <= options.max_width
        whole = wide if fits else self._narrow()
        if whole.row_count + BESIDE <= console.height:
            yield whole
        else:
            yield self._by_kind()
            yield Text("(tasks grouped by kind; every cell: --rows; one model or task: --model NAME, --task NAME)")

    def _by_kind(self) -> Table:
        parts: dict[tuple[str, str], dict[tuple[str, str, str], Mapping[Status, int]]] = {}
        for cell, by_status in self.counts.items():
            study, _, task = cell
            parts.setdefault((study, self.kinds.get((study, task), "?")), {})[cell] = by_status
        table = self._table(*("study", "kind")[self.skip :])
        for names, counts in parts.items():
            table.add_row(*map(printable, names[self.skip :]), *self._numbers(queueview.totals_of(counts)))
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
        table = Table(box=None, header_style="bold")
        for name in names:
            table.add_column(name, overflow="fold")
        for status in self.columns:
            table.add_column(str(status), justify="right")
        return table

    def _numbers(self, by_status: Mapping[Status, int]) -> list[str]:
        return [str(by_status[s]) if by_status.get(s) else "·" for s in self.columns]


def cell_table(cells: Sequence[Job]) -> Table:
    """A line a cell."""
    table = Table(box=None, header_style="bold")
    studies = ["study"] if len({job.study for job in cells}) > 1 else []
    for name in ("job", *studies, "model", "task", "layer", "status", "attempt", "worker", "error"):
        table.add_column(name, justify="right" if name in ("job", "attempt") else "left", overflow="fold")
    for job in cells:
        study = [job.study] if studies else []
        values = (job.id, *study, job.model, job.task, job.label, job.status, job.attempt, job.worker, job.error)
        table.add_row(*(printable("" if value is None else str(value)) for value in values))
    return table


def worker_lines(workers: Iterable[WorkerRow]) -> list[Text]:
    """A line a worker."""
    return [Text(printable(f"worker {w.name} on {w.device}: {w.computes}, last seen {w.seen}")) for w in workers]


def failure_lines(failed: int, failures: Sequence[FailureRow]) -> list[Text]:
    """How many cells ``failed``, a line a kind of failure, and what to type."""
    if not failures:
        return []
    lines = [Text(f"\n{failed:,} failed:", style="bold red")]
    for failure in failures[:MOST_FAILURES]:
        reason = f", {failure.reason}" if failure.reason else ""
        line = f"  {failure.cells} · {failure.layers} (job {failure.job}{reason}): {failure.message}"
        lines.append(Text(printable(line)))
    if len(failures) > MOST_FAILURES:
        lines.append(Text(f"  … and {len(failures) - MOST_FAILURES} more kinds"))
    lines += [Text(f"  {said}") for said in queueview.advice(failures)]
    return lines
