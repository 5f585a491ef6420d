"""``[tasks.NAME]`` → TaskSpec: what its kind takes, and that what it names is there."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clipstudy import data, tasks
from clipstudy.backbones.described import has_attention
from clipstudy.errors import did_you_mean
from clipstudy.features.views import VIEWS_OF
from clipstudy.spec import DatasetSpec, Modality, ModelSpec, TaskSpec
from clipstudy.tasks.task import BadOption, Kind, Needs, options, plain
from clipstudy.tasksfile.tables import built, good_name, good_seeds, keys


@dataclass(frozen=True)
class Known:
    """What the tables of tasks may name."""

    file: Mapping[str, Any]  #: as it was parsed
    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, DatasetSpec]
    seeds: Any  #: the study's own; None: it has none

    def declared(self, section: str) -> Mapping[str, Any]:
        """The tables of a section, also those with a problem of their own, which has been told."""
        tables = self.file.get(section)
        return tables if isinstance(tables, dict) else {}


def read(tables: Mapping[str, Any], known: Known, problems: list[str]) -> dict[str, TaskSpec]:
    """The tasks by name."""
    return {task.name: task for task in _each(tables, known, problems)}


def _each(tables: Mapping[str, Any], known: Known, problems: list[str]) -> Iterator[TaskSpec]:
    for name, values in tables.items():
        where = f"[tasks.{name}]"
        if not isinstance(values, dict):
            problems.append(f"{where}: found {values!r}, expected a table")
            continue
        kind = values.get("kind")
        if kind not in tasks.kinds():
            found = f'found "{kind}"' if kind else "missing"
            problems.append(f"{where} kind: {found}. {did_you_mean(str(kind or ''), tasks.kinds())}")
            continue
        spec = _task(name, values, tasks.load(kind), known, problems)
        if spec is not None:
            yield spec


def unable(task: TaskSpec, models: Mapping[str, ModelSpec]) -> frozenset[str]:
    """The models of the task's modality that lack what its kind looks at, as far as that shows before loading."""
    if tasks.load(task.kind).NEEDS is not Needs.ATTENTION:
        return frozenset()
    alike = [model for model in models.values() if model.modality == task.modality]
    return frozenset(model.name for model in alike if has_attention(model) is False)


def _task(name: str, values: Mapping[str, Any], kind: Kind, known: Known, problems: list[str]) -> TaskSpec | None:
    where = f"[tasks.{name}]"
    modality = _modality_of(values, kind, known)
    given = values.get("options", {})
    if not isinstance(given, dict):
        problems.append(f"{where} options: found {given!r}, expected a table")
        return None
    opts = _options(where, given, kind, modality, problems)
    reference = _reference(where, values, kind, modality, known, problems)
    refused = sorted(key for key in ("modality", "method", "name") if key in values)
    if refused:
        problems.append(f"{where} {refused[0]}: unknown key. {did_you_mean(refused[0], keys(TaskSpec))}")
        return None
    problems.extend(f"{where} {p}" for p in _layer_problems(values, kind))
    # A task's own seeds, else the study's, else the kind's.
    seeds = values.get("seeds", kind.SEEDS if known.seeds is None else known.seeds)
    if not good_seeds(f"{where} seeds", seeds, problems):
        seeds = kind.SEEDS
    worked_out = {
        "name": name,
        "modality": modality,
        "method": kind.METHOD,
        "options": plain(opts),
        "reference": reference,
        "seeds": seeds,
    }
    defaults = {"metric": kind.METRIC, "layers": kind.LAYERS}
    spec = built(TaskSpec, {**defaults, **values, **worked_out}, where, problems)
    if spec is None or not good_name(where, name, problems):
        return None
    problems.extend(f"{where} {p}" for p in _task_problems(spec, kind, opts, known))
    return spec


def _modality_of(values: Mapping[str, Any], kind: Kind, known: Known) -> Modality:
    """Of a task: its data set's, where its kind measures such; else the kind's, and the reader is told of later."""
    dataset = known.datasets.get(str(values.get("dataset")))
    modality = data.modality(dataset.reader) if dataset else "text"
    return modality if modality in kind.MODALITIES else next(iter(kind.MODALITIES))


def _options(where: str, given: Mapping[str, Any], kind: Kind, modality: Modality, problems: list[str]) -> Any:
    """The kind's Options as the table says, or its defaults where that has a problem."""
    table = f"{where[:-1]}.options]"
    try:
        opts = options(kind, given, modality)
    except BadOption as bad:
        problems.append(f"{table} {bad.key}: {bad.why}")
        opts = options(kind, {}, modality)
    unknown = [view for view in kind.views(opts) if view not in VIEWS_OF[modality]]
    if unknown:
        there = did_you_mean(unknown[0], VIEWS_OF[modality])
        problems.append(f'{table} views: "{unknown[0]}" is none of {modality}s. {there}')
    return opts


def _layer_problems(values: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    layers = values.get("layers", kind.LAYERS)
    if layers != kind.LAYERS and "whole" in (layers, kind.LAYERS):
        yield f'layers: found {layers!r}, but kind = "{values["kind"]}" wants "{kind.LAYERS}"'
    elif layers == "all" and kind.NEEDS is Needs.ATTENTION:
        yield f'layers: found "all", but layer 0 has no attention. Write "{kind.LAYERS}"'


def _task_problems(spec: TaskSpec, kind: Kind, opts: Any, known: Known) -> Iterator[str]:
    alike = [name for name, model in known.models.items() if model.modality == spec.modality]
    for pattern in spec.models:
        if not fnmatch.filter(alike, pattern):
            yield f'models: "{pattern}" is no {spec.modality} model of this study. {did_you_mean(pattern, alike)}'
    metrics = kind.metrics(opts)
    if spec.metric not in metrics:
        yield f'metric: found "{spec.metric}". {did_you_mean(spec.metric, metrics)}'
    declared = known.declared("datasets")
    dataset = known.datasets.get(spec.dataset)
    if spec.dataset not in declared:
        yield f'dataset: found "{spec.dataset}". {did_you_mean(spec.dataset, declared)}'
    elif dataset is not None and dataset.reader not in kind.READERS:
        yield (
            f'dataset: "{spec.dataset}" has reader = "{dataset.reader}", but kind = "{spec.kind}" reads '
            f"{' or '.join(kind.READERS)}"
        )


def _reference(
    where: str,
    values: Mapping[str, Any],
    kind: Kind,
    modality: Modality,
    known: Known,
    problems: list[str],
) -> ModelSpec | None:
    """The model that a task's ``reference`` names; None where it may not or, then a problem, must name one."""
    name = values.get("reference")
    if kind.NEEDS is not Needs.REFERENCE:
        if name is not None:
            problems.append(f'{where} reference: kind = "{values["kind"]}" compares with no model. Remove the key')
        return None
    spec = known.models.get(name) if isinstance(name, str) else None
    if spec is None:
        # A table that became no model was told of already; one that init_seeds made several of was not.
        made_several = any(model.family == name for model in known.models.values())
        if name not in [*known.declared("models")] or made_several:
            found = "missing" if name is None else f'found "{name}"'
            problems.append(
                f'{where} reference: {found}; kind = "{values["kind"]}" wants a model of this study to compare with. '
                + did_you_mean(str(name or ""), known.models)
            )
    elif spec.modality != modality:
        problems.append(f'{where} reference: "{name}" is of modality {spec.modality}, the task of {modality}')
    return spec
