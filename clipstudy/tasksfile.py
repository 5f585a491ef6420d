"""tasks.toml → Study. Every message about a study file is written here; all problems are told at once."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from clipstudy import backbones, checksum, data, tasks
from clipstudy.backbones.backbone import IMAGE_SUMMARIES, SUMMARIES
from clipstudy.backbones.described import has_attention
from clipstudy.errors import StudyError, did_you_mean
from clipstudy.features.views import VIEWS_OF
from clipstudy.progress import counted
from clipstudy.spec import ANY_SEED, DatasetSpec, Modality, ModelSpec, Study, TaskSpec
from clipstudy.tasks.task import BadOption, Kind, Needs, build, options, plain

#: Studies that come with the package: a folder each with a file of this name, called by the folder's name.
SHIPPED = "tasks.toml"

#: Layers of a model, and cells are rows: more is a slip of the pen.
DEEPEST = 10_000
#: Keys of a model's table that are expanded or worked out here, not written by the user.
_WORKED_OUT = {"name", "family", "base", "method", "modules"}


def find(name: str | None, home: Path) -> Path:
    """The study file that ``--study`` means: a path, a study that comes with the package, by name, or (None)
    ``tasks.toml`` in ``home``.

    Raises:
        StudyError: there is no such file.
    """
    path = Path(name or "tasks.toml").expanduser()
    path = path if path.is_absolute() else home / path
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
    there = [*known, *(p.name for p in home.glob("*.toml") if p.name != "pyproject.toml")]
    raise StudyError(
        f"no study file {path}. {did_you_mean(name or 'tasks.toml', there)} Name one with --study FILE. "
        "To see a study at work first, with nothing declared: clipstudy demo"
    )


def shipped() -> dict[str, Path]:
    """Studies that come with the package, by the name that ``--study`` takes."""
    return {file.parent.name: file for file in Path(__file__).parent.glob(f"*/{SHIPPED}")}


def load(path: Path) -> Study:
    """Read and check a whole study file.

    Raises:
        StudyError: with every problem found, each naming table and key, what was found, and what exists.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read: {error}. Check the file.") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Study:
    """As :func:`load`, from text; relative paths in it start from ``path``'s folder."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a syntax error, a number of too many digits, too deep a list
        raise StudyError(f"{path} is not TOML: {error}. Fix that line.") from None
    problems: list[str] = []
    study = _study(tables, path, problems)
    if problems:
        listed = "\n".join(f"  {p}" for p in problems)
        raise StudyError(f"{path}: {counted(len(problems), 'problem')}\n{listed}\nFix the file, then retry.")
    return study


def _study(tables: Mapping[str, Any], path: Path, problems: list[str]) -> Study:
    base = str(path.resolve().parent)
    top = {"study", "models", "datasets", "tasks"}
    problems.extend(f"[{key}]: unknown table. {did_you_mean(key, top)}" for key in tables if key not in top)
    head = _table(tables, "study", problems)
    name = head.pop("name", path.stem)
    description, note = head.pop("description", ""), head.pop("note", "")
    shared = head.pop("seeds", None)
    if shared is not None and not _good_seeds("[study] seeds", shared, problems):
        shared = None
    keys = ["name", "description", "note", "seeds"]
    problems.extend(f"[study] {key}: unknown key. {did_you_mean(key, keys)}" for key in head)
    for key, value in (("name", name), ("description", description), ("note", note)):
        if not isinstance(value, str):
            problems.append(f"[study] {key}: found {value!r}, expected a text")
    models = _by_name(_models(_table(tables, "models", problems), base, problems), problems)
    datasets = {d.name: d for d in _datasets(_table(tables, "datasets", problems), base, problems)}
    known = _Known(tables, models, datasets, shared)
    found = {task.name: task for task in _tasks(_table(tables, "tasks", problems), known, problems)}
    for what, there in (("models", models), ("datasets", datasets), ("tasks", found)):
        if not there and not problems:
            problems.append(f"[{what}.NAME]: none. A study needs one or more {what}.")
    unable = {name: lacking for name, task in found.items() if (lacking := _unable(task, models))}
    return Study(str(name), models, datasets, found, str(description), str(note), str(path), unable)


def _unable(task: TaskSpec, models: Mapping[str, ModelSpec]) -> frozenset[str]:
    """The models of the task's modality that lack what its kind looks at, as far as that shows before loading."""
    if tasks.load(task.kind).NEEDS is not Needs.ATTENTION:
        return frozenset()
    alike = [model for model in models.values() if model.modality == task.modality]
    return frozenset(model.name for model in alike if has_attention(model) is False)


def _models(tables: Mapping[str, Any], base: str, problems: list[str]) -> Iterator[ModelSpec]:
    whole = {name: _inherited(name, tables, problems) for name in tables}
    for name, values in whole.items():
        where = f"[models.{name}]"
        if values is None or not _good_name(where, name, problems):
            continue
        seeds = values.pop("init_seeds", None)
        named = values.get("layers")
        if isinstance(named, list) and all(isinstance(module, str) for module in named):
            values |= {"layers": len(named), "modules": named}
        values = {"modality": _modality(values), **values, "name": name, "family": name, "base": base}
        spec = _built(ModelSpec, values, where, problems)
        if spec is None:
            continue
        problems.extend(f"{where} {p}" for p in _model_problems(spec))
        if seeds is None:
            yield spec
        elif spec.init != "random":
            problems.append(f'{where} init_seeds: found {seeds!r} without init = "random"')
        elif _good_seeds(f"{where} init_seeds", seeds, problems):
            # One model an initialisation: each is a cell of its own, and the report pools the family.
            yield from (replace(spec, name=f"{name}-{seed}", init_seed=seed) for seed in seeds)


def _modality(values: Mapping[str, Any]) -> Modality:
    """What a model takes in whose table does not say so: its tower's, or all that its source has."""
    there = backbones.MODALITIES.get(str(values.get("source")), ())
    return "image" if values.get("tower") == "image" or there == ("image",) else "text"


def _by_name(models: Iterator[ModelSpec], problems: list[str]) -> dict[str, ModelSpec]:
    found = list(models)
    twice = [name for name, count in Counter(m.name for m in found).items() if count > 1]
    problems.extend(f"[models.{name}]: a model that init_seeds make has this name too. Rename one" for name in twice)
    return {m.name: m for m in found}


def _inherited(name: str, tables: Mapping[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """A twin has every key of the model that it is the twin of, and its own."""
    values = tables[name]
    where = f"[models.{name}]"
    if not isinstance(values, dict):
        problems.append(f"{where}: found {values!r}, expected a table")
        return None
    for key in _WORKED_OUT & values.keys():
        problems.append(f"{where} {key}: unknown key. {did_you_mean(key, _keys(ModelSpec))}")
        return None
    twin = values.get("twin_of")
    if twin is None:
        return dict(values)
    original = tables.get(twin) if isinstance(twin, str) else None
    if not isinstance(original, dict) or twin == name or "twin_of" in original:
        known = [n for n, v in tables.items() if n != name and isinstance(v, dict) and "twin_of" not in v]
        problems.append(f'{where} twin_of: found "{twin}", no such model. {did_you_mean(str(twin), known)}')
        return None
    # A twin plays its own part; and a mistake in the original's table is told there, once.
    taken = {f.name for f in fields(ModelSpec)} - {"role", "label", "optional"}
    return {k: v for k, v in original.items() if k in taken} | values


def _model_problems(spec: ModelSpec) -> Iterator[str]:
    if spec.source not in backbones.SOURCES:
        yield f'source: found "{spec.source}". {did_you_mean(spec.source, backbones.SOURCES)}'
    elif spec.modality not in backbones.MODALITIES[spec.source]:
        there = backbones.MODALITIES[spec.source]
        yield f'modality: found "{spec.modality}", but source = "{spec.source}" has {" and ".join(there)} models'
    if spec.layers < 1 or spec.batch_size < 1:
        yield f"layers and batch_size: found {spec.layers} and {spec.batch_size}, expected 1 or more"
    if spec.layers > DEEPEST:
        yield f"layers: found {spec.layers}, expected {DEEPEST} or fewer"
    summaries = SUMMARIES if spec.modality == "text" else IMAGE_SUMMARIES
    if spec.view not in (None, *summaries):
        yield f'view: found "{spec.view}". {did_you_mean(str(spec.view), summaries)}'
    dtypes = ["float32", "bfloat16"]
    if spec.dtype not in dtypes:
        yield f'dtype: found "{spec.dtype}". {did_you_mean(spec.dtype, dtypes)}'
    if spec.max_tokens is not None and spec.max_tokens < 3:
        yield f"max_tokens: found {spec.max_tokens}, expected 3 or more"
    if spec.source in backbones.SOURCES:
        yield from _own_code(spec) if spec.source == "torch" else _no_own_code(spec)


def _own_code(spec: ModelSpec) -> Iterator[str]:
    """What a module of the user's own must say, since no library knows it."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", spec.checkpoint):
        yield f'checkpoint: found "{spec.checkpoint}", expected "package.module:factory", what builds the model'
    if spec.init == "pretrained" and spec.pretrained is None:
        yield 'pretrained: missing. Name a safetensors file of its weights, or write init = "random"'
    if spec.modules is None:
        yield f'layers: found {spec.layers}, expected the names of its modules, as in ["layer1", "layer2"]'
    elif len(set(spec.modules)) < len(spec.modules):
        yield f"layers: found {list(spec.modules)}, expected each name once"
    if spec.size is None or spec.size < 1:
        yield f"size: found {spec.size}, expected the side of its pictures in pixels"
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and (len(values) != 3 or (key == "std" and min(values) <= 0)):
            yield f"{key}: found {list(values)}, expected three numbers{', more than 0' if key == 'std' else ''}"


def _no_own_code(spec: ModelSpec) -> Iterator[str]:
    if spec.modules is not None:
        yield f'layers: found {list(spec.modules)}, but source = "{spec.source}" numbers its layers. Write how many'
    for key in ("size", "mean", "std"):
        if getattr(spec, key) is not None:
            yield f'{key}: source = "{spec.source}" takes it from the checkpoint\'s configuration. Remove the key'


def _datasets(tables: Mapping[str, Any], base: str, problems: list[str]) -> Iterator[DatasetSpec]:
    for name, values in tables.items():
        where = f"[datasets.{name}]"
        if not isinstance(values, dict):
            problems.append(f"{where}: found {values!r}, expected a table")
            continue
        if not _good_name(where, name, problems):
            continue
        spec = _built(DatasetSpec, {**values, "name": name, "base": base}, where, problems)
        if spec is None:
            continue
        problems.extend(f"{where} {p}" for p in _dataset_problems(spec, values))
        yield spec


def _dataset_problems(spec: DatasetSpec, given: Collection[str]) -> Iterator[str]:
    if spec.limit is not None and spec.limit < 2:
        yield f"limit: found {spec.limit}, expected 2 or more rows a split"
    if not 0 <= spec.unreadable < 1:
        yield f"unreadable: found {spec.unreadable}, expected a share of a split's images, 0 or more and less than 1"
    if not 0 < spec.development < 1:
        yield f"development: found {spec.development}, expected a share of train, more than 0 and less than 1"
    if spec.reader not in data.READERS:
        yield f'reader: found "{spec.reader}". {did_you_mean(spec.reader, data.READERS)}'
        return
    places = data.READERS[spec.reader]
    named = [place for place in ("path", "hub") if place in given]
    if len(named) != 1 or named[0] not in places:
        found, want = " and ".join(named) or "neither", " or ".join(places)
        yield f'path or hub: found {found}. reader = "{spec.reader}" wants one: {want}'
        return
    if spec.checksum is not None and not checksum.well_formed(spec.checksum):
        yield f'checksum: found "{spec.checksum}", expected "sha256:" and 64 or "git:" and 40 hexadecimal digits'
    if spec.url is not None and not spec.url.startswith(("https://", "http://")):
        yield f'url: found "{spec.url}", expected an address that begins with https:// or http://'
    if spec.url is not None and "@" in spec.url.partition("://")[2].partition("/")[0]:
        yield "url: found a login in it, and a study file goes into the job table. Write the address without"
    if spec.url is not None and spec.checksum is None:
        yield "url: found without a checksum. Write one, so that a file that changed there is told from the one meant"
    used = ("reader", "hint", named[0], *places[named[0]])
    for key in given:
        if key not in used:
            yield f'{key}: reader = "{spec.reader}" does not use it beside `{named[0]}`. {did_you_mean(key, used)}'


@dataclass(frozen=True)
class _Known:
    """What the tables of tasks may name."""

    file: Mapping[str, Any]  #: as it was parsed
    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, DatasetSpec]
    seeds: Any  #: the study's own; None: it has none

    def declared(self, section: str) -> Mapping[str, Any]:
        """The tables of a section, also those with a problem of their own, which has been told."""
        tables = self.file.get(section)
        return tables if isinstance(tables, dict) else {}


def _tasks(tables: Mapping[str, Any], known: _Known, problems: list[str]) -> Iterator[TaskSpec]:
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


def _task(name: str, values: Mapping[str, Any], kind: Kind, known: _Known, problems: list[str]) -> TaskSpec | None:
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
        problems.append(f"{where} {refused[0]}: unknown key. {did_you_mean(refused[0], _keys(TaskSpec))}")
        return None
    problems.extend(f"{where} {p}" for p in _layer_problems(values, kind))
    # A task's own seeds, else the study's, else the kind's.
    seeds = values.get("seeds", kind.SEEDS if known.seeds is None else known.seeds)
    if not _good_seeds(f"{where} seeds", seeds, problems):
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
    spec = _built(TaskSpec, {**defaults, **values, **worked_out}, where, problems)
    if spec is None or not _good_name(where, name, problems):
        return None
    problems.extend(f"{where} {p}" for p in _task_problems(spec, kind, opts, known))
    return spec


def _modality_of(values: Mapping[str, Any], kind: Kind, known: _Known) -> Modality:
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


def _task_problems(spec: TaskSpec, kind: Kind, opts: Any, known: _Known) -> Iterator[str]:
    for pattern in spec.models:
        if not fnmatch.filter(known.models, pattern):
            yield f'models: "{pattern}" is no model of this study. {did_you_mean(pattern, known.models)}'
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
    known: _Known,
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


def _built(cls: Any, values: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    unknown = [k for k in values if k not in {f.name for f in fields(cls)}]
    problems.extend(f"{where} {k}: unknown key. {did_you_mean(k, _keys(cls))}" for k in unknown)
    missing = [f.name for f in fields(cls) if f.name not in values and _required(f)]
    noun = cls.__name__.removesuffix("Spec").lower()
    problems.extend(f"{where} {k}: missing. Every {noun} needs one." for k in missing)
    if unknown or missing:
        return None
    try:
        return build(cls, values)
    except BadOption as bad:
        problems.append(f"{where} {bad.key}: {bad.why}")
        return None


def _keys(cls: Any) -> list[str]:
    extra = ["init_seeds"] if cls is ModelSpec else []
    worked_out = _WORKED_OUT | ({"modality"} if cls is TaskSpec else set())
    return [f.name for f in fields(cls) if f.name not in worked_out] + extra


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _table(tables: Mapping[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    value = tables.get(name, {})
    if not isinstance(value, dict):
        problems.append(f"[{name}]: found {value!r}, expected a table")
        return {}
    return dict(value)


def _good_seeds(where: str, value: Any, problems: list[str]) -> bool:
    whole = isinstance(value, list | tuple) and all(type(s) is int and s in ANY_SEED for s in value)
    good = bool(value) and whole and len(set(value)) == len(value)
    if not good:
        expected = f"a list of different whole numbers from 0 to {ANY_SEED[-1]}"
        problems.append(f"{where}: found {value!r}, expected {expected}")
    return good


def _good_name(where: str, name: str, problems: list[str]) -> bool:
    # Names become shell patterns, MLflow tags and file names: keep them to what is the same in all three.
    good = bool(name) and len(name) <= 80 and all(c.isalnum() or c in "-_." for c in name) and name.isascii()
    if not good:
        problems.append(f"{where}: a name has letters, digits, '-', '_' and '.', at most 80")
    return good
