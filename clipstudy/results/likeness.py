"""Every layer of a model beside every layer of the task's reference model. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from clipstudy.outcome import Estimate
from clipstudy.results import pooling
from clipstudy.results.boards import Board
from clipstudy.results.views import Cell, View


@dataclass(frozen=True)
class Likeness:
    """One model (or the pooled initialisations of an untrained twin) beside the reference."""

    task: str
    title: str  #: the task's
    metric: str
    family: str
    model: str  #: its title
    reference: str  #: the reference's title
    layers: tuple[int, ...]  #: of the model, down
    others: tuple[int, ...]  #: of the reference, across
    cells: tuple[tuple[Estimate | None, ...], ...]  #: ``[layers][others]``
    study: str = ""
    note: str = ""


def likenesses(view: View, shown: Board) -> list[Likeness]:
    """A map for each model of ``view`` whose runs measured the reference's layers one by one: first the reference's
    own, then in the view's order."""
    titles = {r.model: r.tags.get("model_title") or r.model for r in shown.results}
    found = []
    for curve in (*view.reference, *view.curves):
        rows = {cell.layer: _row(cell, view.metric) for cell in curve.cells}
        others = tuple(sorted({j for row in rows.values() for j in row}))
        if not others:
            continue
        reference = curve.cells[0].runs[0].params.get("reference", "")
        found.append(
            Likeness(
                task=view.task,
                title=view.title,
                metric=view.metric,
                family=curve.family,
                model=curve.title,
                reference=titles.get(reference, reference or "the reference"),
                layers=tuple(rows),
                others=others,
                cells=tuple(tuple(row.get(j) for j in others) for row in rows.values()),
                study=curve.study,
                note=view.note,
            )
        )
    return found


def _row(cell: Cell, metric: str) -> dict[int, Estimate]:
    """What ``metric`` is with each layer of the reference, ``METRIC/j``; initialisations of a twin pooled."""
    found: dict[int, list[Estimate]] = defaultdict(list)
    for run in cell.runs:
        for name, estimate in run.metrics.items():
            head, _, last = name.rpartition("/")
            if head == metric and last.isdecimal():
                found[int(last)].append(estimate)
    return {j: pooling.pooled(estimates, metric) for j, estimates in found.items()}
