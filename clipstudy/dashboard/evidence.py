"""Results → what the claims are judged on: curves, and each test item's score where a run kept its predictions.

What a kind keeps is read by its columns, so that a kind that keeps the same columns needs nothing here: ``label`` and
``ARM/seed_K`` (what the arm's model of seed K said of each item; the headline arm first), or ``sample``, ``label`` and
``cluster_K`` (each span's cluster in each sample).
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clipstudy import claims, metrics
from clipstudy.claims import Judgement, Measured
from clipstudy.dashboard import tables
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result

if TYPE_CHECKING:
    from pyarrow import Table

FILE = "predictions.parquet"
#: (run id, a file's name) → its bytes; raises ClipstudyError where the run kept none.
Fetch = Callable[[str, str], bytes]


def judged(results: Iterable[Result], fetch: Fetch) -> dict[str, list[Judgement]]:
    """Study → the verdict of every claim on its newest results."""
    studies: dict[str, list[Result]] = defaultdict(list)
    for result in tables.newest(results)[0]:
        studies[result.study].append(result)
    return {study: claims.judge(measured(members, fetch)) for study, members in sorted(studies.items())}


def measured(results: Iterable[Result], fetch: Fetch) -> list[Measured]:
    """What the claims read of one study's ``results``. Untrained models play no role."""
    wanted = claims.wanted()
    cells: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.tags.get("role") and result.tags.get("init") != "random" and result.layer != 0:
            cells[result.model, result.task].append(result)
    found = []
    for (_, task), members in cells.items():
        names = (task, members[0].tags.get("kind", ""))
        read = {metric for asked, metric in wanted if asked in names}
        ordered = sorted(members, key=lambda r: r.layer)
        for metric in sorted(read):
            if one := _measured(ordered, metric, fetch):
                found += [replace(one, role=role) for role in one.role.split()]
    return found


def _measured(members: Sequence[Result], metric: str, fetch: Fetch) -> Measured | None:
    """``metric`` of one model on one task; None: it has none."""
    members = [r for r in members if metric in r.metrics]
    if not members:
        return None
    first, layers = members[0], tuple(r.layer for r in members)
    tags = first.tags
    asked = {int(k) for k in tags.get("layers", "").split(",") if k} - {0}
    ends = [[e.value, e.low, e.high] for e in (r.metrics[metric] for r in members)]
    scores, replicates, items = _kept(members, metric, fetch)
    return Measured(
        model=first.model,
        role=tags["role"],
        task=first.task,
        kind=tags.get("kind", ""),
        metric=metric,
        blocks=max(int(tags.get("blocks", 0)), *layers, 1),
        layers=layers,
        estimates=np.array(ends, dtype=np.float64),
        scores=scores,
        replicates=replicates,
        items=items,
        missing=tuple(sorted(asked - set(layers))),
        final_norm=first.params.get("model.final_norm") == "true",
        title=tags.get("model_title") or first.model,
    )


def _kept(members: Sequence[Result], metric: str, fetch: Fetch) -> tuple[Any, Any, str]:
    """``[L, S, N]`` scores or ``[L, R]`` replicates, and what they are of; nothing where a layer kept none."""
    read = {"accuracy": _correct, "nmi": _nmi}.get(metric)
    if read is None:
        return None, None, ""
    import pyarrow.parquet as pq

    try:
        found = [read(pq.read_table(io.BytesIO(fetch(r.run_id, FILE))), r) for r in members]
    except ClipstudyError as error:
        if error.transient:
            raise
        return None, None, ""  # removed, or of a kind that keeps none
    keys = {key for key, _ in found}
    if len(keys) > 1 or "" in keys:
        return None, None, ""
    stacked = np.stack([values for _, values in found])
    data = members[0].params.get("resolved.data", "")
    items = f"{data} {keys.pop()}"
    return (stacked, None, items) if metric == "accuracy" else (None, stacked, items)


def _correct(table: Table, result: Result) -> tuple[str, Any]:
    """Which items these are, and ``[S, N]``: was the headline arm's model of each seed right?"""
    columns = [name for name in table.column_names if "/seed_" in name]
    if not columns:
        return "", np.empty(0)
    own = columns[0].rpartition("/")[0] + "/seed_"
    label = _texts(table, "label")
    names = _texts(table, "id") if "id" in table.column_names else label
    right = np.stack([_texts(table, name) == label for name in columns if name.startswith(own)])
    return hashlib.sha256("\n".join([*names, *label]).encode()).hexdigest()[:12], right


def _nmi(table: Table, result: Result) -> tuple[str, Any]:
    """Which samples and seeds these are, and ``[R]``: the NMI of each."""
    columns = [name for name in table.column_names if name.startswith("cluster_")]
    if not columns or "sample" not in table.column_names:
        return "", np.empty(0)
    average: Any = result.params.get("option.average", "arithmetic")
    sample, label = table["sample"].to_numpy(), _texts(table, "label")
    numbers = sorted(set(sample.tolist()))
    values = [
        metrics.nmi(label[sample == number], table[name].to_numpy()[sample == number], average=average)
        for number in numbers
        for name in columns
    ]
    return f"samples {numbers} {columns}", np.array(values)


def _texts(table: Table, name: str) -> Any:
    """A column as ``[N]`` texts, however it is encoded."""
    return np.asarray(table[name].cast("string").to_pylist(), dtype=str)
