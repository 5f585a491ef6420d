"""Results → what the claims are judged on: every test item's score (of clusterings every sample's, of visualisations
every channel's), as the runs kept them.

Which file holds a metric, and how its rows are named, is said once, in :data:`SCORE_FILES`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import logging
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipstudy import claims, metrics, tasksfile
from clipstudy.claims import UNTRAINED, Judgement, Measured, Unit
from clipstudy.data import formats
from clipstudy.errors import ClipstudyError, DataError
from clipstudy.outcome import Result
from clipstudy.results import alike, boards
from clipstudy.results.planned import Planned, again, was_cancelled

if TYPE_CHECKING:
    from pyarrow import Table

log = logging.getLogger(__name__)

#: (run id, a file's name) → its bytes; raises ClipstudyError where the run kept none.
Fetch = Callable[[str, str], bytes]
#: Files of runs that are held at once: those of all layers and initialisations of one model.
FILES = 64


def judged(
    results: Iterable[Result], fetch: Fetch, planned: Planned | None = None, gone: str = ""
) -> dict[str, list[Judgement]]:
    """Study → the verdict of every claim on its newest results.

    Args:
        gone: why no run has its files; empty: they are where the store says.
        planned: what the job table has of these studies; None: there is none.
    """
    studies: dict[str, list[Result]] = defaultdict(list)
    for result in boards.newest(results)[0]:
        studies[result.study].append(result)
    found = {}
    for study, members in sorted(studies.items()):
        played = any(result.tags.get("role") for result in members)
        # Several claims read one file.
        kept = functools.lru_cache(FILES)(fetch)
        found[study] = _of_study(study, claims.judge(measured(members, kept, gone)), planned or {}, played)
    return found


def _of_study(study: str, judgements: list[Judgement], planned: Planned, played: bool) -> list[Judgement]:
    """With the study in the commands that go on from there, where it is one that ``--study`` knows by name; cells that
    are there and were cancelled are not enqueued, but tried again. Where no model has ``played`` any role, no command
    would help."""
    shipped = study in tasksfile.shipped()

    def told(one: Judgement) -> Judgement:
        if not one.todo or not played:
            return replace(one, todo="")
        if one.missing and all(was_cancelled(planned, study, *cell) for cell in one.missing):
            return replace(one, todo=again(study))
        return replace(one, todo=f"{one.todo} --study {shlex.quote(study)}") if shipped else one

    return [told(one) for one in judgements]


def measured(results: Iterable[Result], fetch: Fetch, gone: str = "") -> list[Measured]:
    """What the claims read of one study's ``results``. An untrained twin plays its model's part, as its twin: the
    initialisations of one are measured together.

    Args:
        gone: why no run has its files.
    """
    results = [result for result in results if result.layer != 0]
    roles = {r.model: r.tags.get("role", "") for r in results if r.tags.get("init") != "random"}
    cells: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        twin_of = result.tags.get("twin_of", "") if result.tags.get("init") == "random" else ""
        if twin_of and roles.get(twin_of):
            cells[result.family, result.task, twin_of].append(result)
        elif roles.get(result.model):
            cells[result.model, result.task, ""].append(result)
    found: list[tuple[Measured, list[list[Result]]]] = []
    readings = claims.wanted()
    for (model, task, twin_of), members in cells.items():
        parts = [UNTRAINED + role if twin_of else role for role in roles[twin_of or model].split()]
        kind = members[0].tags.get("kind", "")
        for part, metric in sorted({(r.role, r.metric) for r in readings if r.role in parts and r.means(task, kind)}):
            one, runs = _measured(model, members, metric)
            found.append((replace(one, role=part, twin_of=twin_of), runs))
    for task in {one.task for one, _ in found}:
        every = [r for one, runs in found if one.task == task for own in runs for r in own]
        apart = alike.unlike(every)
        mend = alike.again(every[0].study, task, alike.behind(every, apart)) if apart else ""
        for at, (one, runs) in enumerate(found):
            if apart and one.task == task and one.layers:
                family = runs[0][0].family
                own = tuple((key.partition(".")[2], of[family]) for key, of in sorted(apart.items()) if family in of)
                found[at] = replace(one, settings=own, mend=mend), runs
    # Of several tasks that would do, one is read; the files of the others are not fetched.
    read = {(task, reading.metric) for reading, task in claims.tasks_read((one for one, _ in found), readings).items()}
    scored: dict[tuple[str, str, str], Scored] = {}
    for at, (one, runs) in enumerate(found):
        cell = one.model, one.task, one.metric
        if one.layers and cell[1:] in read:
            if cell not in scored:  # one model may play several parts
                scored[cell] = _scores(runs, one.metric, fetch)
            scores, items = scored[cell]
            found[at] = replace(one, scores=scores, items=items, lost=gone if scores is None else ""), runs
    return [one for one, _ in found]


def _measured(model: str, members: Sequence[Result], metric: str) -> tuple[Measured, list[list[Result]]]:
    """``metric`` of one model on one task, without its scores (at no layer, where it has none); and the runs of each
    initialisation, layer by layer."""
    inits: dict[str, dict[int, Result]] = defaultdict(dict)
    for result in members:
        inits[result.model][result.layer] = result
    first, run = members[0], set.intersection(*(set(layers) for layers in inits.values()))
    layers = sorted(k for k in run if all(metric in own[k].metrics for own in inits.values()))
    one = Measured(
        model=model,
        role="",
        task=first.task,
        kind=first.tags.get("kind", ""),
        metric=metric,
        blocks=max(int(first.tags.get("blocks", 0)), *run, 1),
        layers=tuple(layers),
        unit=SCORE_FILES[metric].unit,
        seeded=SCORE_FILES[metric].seeded,
        missing=tuple(sorted(boards.planned_layers(first) - run - {0})),
        final_norm=first.params.get("model.final_norm") == "true",
        inits=len(inits),
    )
    return one, [[own[k] for k in layers] for own in inits.values()]


class Rows(NamedTuple):
    """What one run kept: its units, and each seed's score of each."""

    names: tuple[str, ...]  #: ``[N]``
    scores: NDArray[Any]  #: ``[S, N]``

    def of(self, names: Sequence[str]) -> NDArray[Any]:
        """``[S, N']``."""
        if self.names == names:
            return self.scores
        place = {name: at for at, name in enumerate(self.names)}
        return self.scores[:, [place[name] for name in names]]


NOTHING = Rows((), np.empty((0, 0)))


class Scored(NamedTuple):
    """What the runs of one model kept."""

    scores: NDArray[Any] | None  #: ``[L, S, N]``; None: nothing that can be drawn from
    items: tuple[str, ...] = ()  #: the units' names ``[N]``


def _scores(inits: Sequence[Sequence[Result]], metric: str, fetch: Fetch) -> Scored:
    """The scores behind ``metric``. Initialisations count as seeds.

    Args:
        inits: a list a model, of its results layer by layer.
    """
    file = SCORE_FILES[metric]
    try:
        found = [[read(file, metric, r, fetch) for r in members] for members in inits]
    except ClipstudyError as error:
        if error.transient:
            raise
        return Scored(None)  # removed, or broken
    if len({len(rows.scores) for members in found for rows in members}) > 1:  # layers of other seeds
        return Scored(None)
    if file.unit is Unit.CHANNELS:  # no layer's are another's
        (own,) = found
        if not all(rows.names for rows in own):
            return Scored(None)
        widest = max(len(rows.names) for rows in own)
        wide = [np.pad(r.scores, ((0, 0), (0, widest - len(r.names))), constant_values=np.nan) for r in own]
        return Scored(np.stack(wide))
    sets = {rows.names for members in found for rows in members}
    common = set.intersection(*map(set, sets))
    names = tuple(name for name in found[0][0].names if name in common)
    if not names:
        return Scored(None)
    return Scored(pooled([np.stack([rows.of(names) for rows in members]) for members in found]), names)


def pooled(inits: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Scores ``[…, S, N]`` of one model from those of each initialisation: each of several is one seed, the mean of
    its own, since another seed on the same weights is not another initialisation."""
    return inits[0] if len(inits) == 1 else np.stack([scores.mean(axis=-2) for scores in inits], axis=-2)


def read(file: ScoreFile, metric: str, result: Result, fetch: Fetch) -> Rows:
    """The scores behind ``metric`` that a run kept.

    Raises:
        DataError: ``file`` cannot be read.
        ClipstudyError: as ``fetch`` does.
    """
    content = fetch(result.run_id, file.name)
    try:
        rows = file.read(content, metric, result)
        if rows.scores.ndim != 2 or rows.scores.shape[1] != len(rows.names):
            raise ValueError(f"{len(rows.names)} names of {rows.scores.shape} scores")
        return rows
    except Exception as error:  # MLflow's files are anybody's who may write there: of any form, and cells of any type
        anew = shlex.join(["clipstudy", "rerun", "--model", result.model, "--task", result.task])
        told = DataError(f"run {result.run_id}: {file.name} cannot be read ({error}). Type: {anew}")
        log.warning("%s", told)
        raise told from error


def _correct(content: bytes, metric: str, result: Result) -> Rows:
    """Was the model of each seed right, of the arm that the metric is of?"""
    table = _table(content)
    columns = [name for name in table.column_names if "/seed_" in name]
    arm = _arm(list(dict.fromkeys(name.rpartition("/")[0] for name in columns)), metric.rpartition("/")[0])
    if arm is None:
        return NOTHING
    own = f"{arm}/seed_"
    label = _texts(table, "label")
    ids = _texts(table, "id") if "id" in table.column_names else range(len(label))
    right = np.stack([_texts(table, name) == label for name in columns if name.startswith(own)])
    return _named([f"{at} {said}" for at, said in zip(ids, label, strict=True)], right, result)


def _arm(arms: Sequence[str], prefix: str) -> str | None:
    """The arm whose metrics have ``prefix``: those of a column's parts that differ from the headline's, which comes
    first."""
    for arm in arms:
        apart = [part for part, other in zip_longest(arm.split("/"), arms[0].split("/")) if part and part != other]
        if "/".join(apart) == prefix:
            return arm
    return None


def _nmi(content: bytes, metric: str, result: Result) -> Rows:
    """The NMI of each span sample with each seed's clusters."""
    table = _table(content)
    columns = [name for name in table.column_names if name.startswith("cluster_")]
    average: Any = result.params.get("option.average", "arithmetic")
    sample, label = table["sample"].to_numpy(), _texts(table, "label")
    numbers = sorted(set(sample.tolist()))
    clusters = [table[name].to_numpy() for name in columns]
    scores = [
        [metrics.nmi(label[sample == n], found[sample == n], average=average) for n in numbers] for found in clusters
    ]
    sampling = "split", "sample_seed", "labelled", "outside", "fit", "exclusions"
    return _named(numbers, np.array(scores), result, *sampling)


def _images(content: bytes, metric: str, result: Result) -> Rows:
    """The squared error of each image: every seed's, or the mean image's."""
    table = _table(content)
    pattern = r"mse/seed_\d+" if metric == "mse" else r"mse/mean_image"
    columns = [name for name in table.column_names if re.fullmatch(pattern, name)]
    values = np.array([table[name].to_numpy() for name in columns])
    return _named(range(table.num_rows), values, result, "split", "crop")


def _pictures(content: bytes, metric: str, result: Result) -> Rows:
    """The score of each picture that has one."""
    table = _table(content)
    if "row" not in table.column_names:  # of an earlier method: nothing says which pictures these are
        return NOTHING
    values = table[metric].to_numpy().astype(np.float64)
    has = ~np.isnan(values)
    return _named(table["row"].to_numpy()[has], values[None, has], result, "split", "crop")


def _channels(content: bytes, metric: str, result: Result) -> Rows:
    """The measure of each channel's images, a seed each."""
    units: dict[str, list[float]] = defaultdict(list)
    rows = csv.reader(io.StringIO(content.decode()))
    column = next(rows, []).index(metric)
    for row in rows:
        units[row[0]].append(float(row[column]))
    return Rows(tuple(units), np.array([*units.values()]).T) if units else NOTHING


class ScoreFile(NamedTuple):
    """The file in which runs keep the scores that a metric is the mean of."""

    name: str
    read: Callable[[bytes, str, Result], Rows]
    unit: Unit = Unit.ITEMS
    seeded: bool = True


_LOOKS = ("total_variation", "high_frequency", "colour_entropy", "edge_density")
_SEEN = ("jaccard", "best/edges", "diversity")
#: Every metric that the claims read.
SCORE_FILES: Mapping[str, ScoreFile] = {
    "accuracy": ScoreFile("predictions.parquet", _correct),
    "nmi": ScoreFile("predictions.parquet", _nmi, Unit.SAMPLES),
    "mse": ScoreFile("images.parquet", _images),
    "baseline/mean_image": ScoreFile("images.parquet", _images, seeded=False),
    **{name: ScoreFile("images.csv", _channels, Unit.CHANNELS) for name in _LOOKS},
    **{name: ScoreFile("scores.parquet", _pictures, seeded=False) for name in _SEEN},
}


def score_file_of(metric: str) -> ScoreFile | None:
    """In which file runs keep the scores behind ``metric``; every arm's accuracies are kept as the headline's are."""
    return SCORE_FILES.get("accuracy" if metric.endswith("/accuracy") else metric)


def _named(names: Sequence[Any], scores: NDArray[Any], result: Result, *options: str) -> Rows:
    """Scores by the names of their units. The same name in other data, in another choice of its rows (its limit, its
    splits, what it leaves out) or with other ``options`` is another."""
    decisive = {"resolved.data", *(f"option.{option}" for option in options)}
    decisive |= {key for key in result.params if key.startswith("dataset.")} - alike.WHERE
    said = {key: value for key, value in result.params.items() if key in decisive}
    mark = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
    return Rows(tuple(f"{mark} {name}" for name in names), scores)


def _table(content: bytes) -> Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    formats.check_unpacked(file.metadata, len(content))
    return file.read()


def _texts(table: Table, name: str) -> Any:
    """A column as ``[N]`` texts, however it is encoded."""
    return np.asarray(table[name].cast("string").to_pylist(), dtype=str)
