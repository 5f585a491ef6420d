"""What is asked: models, datasets, tasks, and the study that they make up. Frozen values; nothing here runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

#: The layer number of a task that belongs to the model as a whole (fine-tuning); never NULL, so UNIQUE holds.
WHOLE_MODEL = -1

#: What numpy, torch and random all take as a seed, and the row numbers of a file; `build` holds a value to them.
ANY_SEED = range(2**32)
Seed = Annotated[int, ANY_SEED]
Row = Annotated[int, range(2**32)]

Init = Literal["pretrained", "random"]
Modality = Literal["text", "image"]
#: Which of a model's layers a task wants: 0..n, 1..n, four of them a quarter of the depth apart, n, or the model as a
#: whole.
LayerChoice = Literal["all", "blocks", "stages", "last", "whole"]


@dataclass(frozen=True)
class ModelSpec:
    """One model: one table ``[models.NAME]``. Layer k is the raw output of block k; layer 0 the embedding or stem."""

    name: str
    source: str  #: which library loads it: a room under ``backbones/``
    checkpoint: str  #: a Hub id, a local folder, or the library's own name of it
    layers: int  #: number of blocks; of a residual network, of stages
    modality: Modality = "text"
    tower: str | None = None  #: which tower of a two-tower model
    revision: str | None = None  #: a commit, tag or branch on the Hub; what it resolved to is recorded
    pretrained: str | None = None  #: open_clip's weights tag, or (torch too) a local safetensors file
    view: str | None = (
        None  #: the model's own summary of a text (cls, last, eot) or image (cls, gap); None: what its source says
    )
    init: Init = "pretrained"
    init_seed: Seed = 0
    final_norm: bool = False  #: apply the model's final norm to the last layer
    bos: bool = True  #: put a BOS token first where the tokenizer adds nothing in front
    dtype: str = "float32"
    max_tokens: int | None = None  #: a lower limit than the model's own, specials included
    modules: tuple[str, ...] | None = None  #: source torch: the modules whose outputs are layers 1, 2, …, by name
    size: int | None = None  #: source torch: side of the square that it is shown, in pixels
    mean: tuple[float, ...] | None = None  #: source torch: what is taken off red, green and blue in [0, 1]; None: 0
    std: tuple[float, ...] | None = None  #: source torch: what they are divided by then; None: 1
    batch_size: int = 32
    role: str | None = None  #: the part that it plays in the claims; or parts, with spaces between
    family: str = ""  #: the table's name; initialisations of one untrained twin share it
    twin_of: str | None = None  #: the model that this is the untrained twin of
    label: str | None = None  #: how figures name it
    optional: bool = False  #: true: not part of ``--all``
    base: str = ""  #: the folder that a relative checkpoint path starts from

    #: Keys that say how it is shown or run, not what comes out: they do not enter the digest.
    PRESENTATION = frozenset({"name", "layers", "batch_size", "role", "family", "twin_of", "label", "optional", "base"})

    @property
    def title(self) -> str:
        """How figures name it."""
        return self.label or self.family or self.name


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: one table ``[datasets.NAME]``."""

    name: str
    reader: str  #: a room under ``data/``
    path: str | None = None  #: a local file or folder
    hub: str | None = None  #: a Hub dataset id
    url: str | None = None  #: where the file ``path`` was released: `clipstudy fetch` takes it from there
    checksum: str | None = None  #: of that file, ``sha256:…`` or ``git:…`` (a Git blob's id)
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None  #: rows a split, drawn stratified by label with ``limit_seed``; never the file's head
    limit_seed: Seed = 0
    unseen_labels: Literal["error", "drop"] = "error"  #: rows of dev and test with a label that train lacks
    unreadable: float = 0.0  #: share of a split's images that may be broken: left out and counted; 0: one is an error
    development: float = 0.1  #: share of train that early stopping looks at, where no dev split is free for that
    development_seed: Seed = 0  #: which rows these are
    exclude: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)  #: split → row numbers that no model is shown
    hint: str = ""  #: what to do where its files are missing
    base: str = ""  #: the folder that a relative path starts from

    #: Where a file lies does not change what is in it: workers compare its content's fingerprint instead.
    PRESENTATION = frozenset({"name", "hint", "base", "url"})


@dataclass(frozen=True)
class TaskSpec:
    """One task: one table ``[tasks.NAME]``, measured by the room ``tasks/<kind>.py``."""

    name: str
    kind: str
    dataset: str
    metric: str  #: the headline metric
    modality: Modality = "text"
    category: str = ""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    layers: LayerChoice = "all"
    models: tuple[str, ...] = ()  #: whom it is put to, by patterns of names; empty: every model of its modality
    options: Mapping[str, Any] = field(default_factory=dict)  #: every option of the kind, defaults filled in
    method: int = 1  #: the kind's METHOD version: what the same options mean may change with the code
    #: The model that the others are compared with: whole, since a worker reads nothing but its group.
    reference: ModelSpec | None = None
    label: str | None = None
    optional: bool = False

    PRESENTATION = frozenset({"name", "dataset", "metric", "category", "layers", "models", "label", "optional"})

    @property
    def title(self) -> str:
        """How figures name it."""
        return self.label or self.name


@dataclass(frozen=True, order=True)
class JobKey:
    """One cell of a study."""

    model: str
    task: str
    layer: int


@dataclass(frozen=True)
class Study:
    """Models × tasks, with the data sets that the tasks read."""

    name: str
    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, DatasetSpec]
    tasks: Mapping[str, TaskSpec]
    description: str = ""
    note: str = ""  #: a sentence that every figure of its results bears: what they are not to be taken for
    path: str = ""
    unable: Mapping[str, frozenset[str]] = field(default_factory=dict)  #: task → models that lack what it looks at


def digest(model: ModelSpec, dataset: DatasetSpec, task: TaskSpec) -> str:
    """Twelve hexadecimal digits of everything that decides a result, presentation left out. Stable over hosts."""
    text = json.dumps([_hashed(model), _hashed(dataset), _hashed(task)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decisive(spec: ModelSpec | DatasetSpec | TaskSpec) -> dict[str, Any]:
    """The keys of ``spec`` that decide a result, as plain JSON values; of a spec within it likewise."""
    return _json(spec, decisive, without=spec.PRESENTATION)


def _hashed(spec: ModelSpec | DatasetSpec | TaskSpec) -> dict[str, Any]:
    # Keys at their default are left out, so that a key which a later version adds changes no digest by itself.
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(spec)}
    return {k: v for k, v in _json(spec, _hashed, without=spec.PRESENTATION).items() if v != defaults[k]}


def plain(spec: ModelSpec | DatasetSpec | TaskSpec) -> dict[str, Any]:
    """``spec`` as JSON values."""
    return _json(spec, plain)


def _json(
    spec: ModelSpec | DatasetSpec | TaskSpec, within: Callable[[Any], Any], without: Collection[str] = ()
) -> dict[str, Any]:
    """The fields of ``spec`` as JSON values; a spec among them becomes what ``within`` makes of it."""
    held = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in without}
    # Not asdict(): it copies deeply what JSON copies anyway, and takes nine tenths of a large enqueue.
    result: dict[str, Any] = json.loads(json.dumps(held, default=within))
    return result


def model_from(values: Mapping[str, Any]) -> ModelSpec:
    """A spec from its JSON values, as :func:`plain` gives them; keys that are unknown here are left out."""
    kept = _known(ModelSpec, values)
    kept |= {k: tuple(v) for k, v in kept.items() if isinstance(v, list)}
    return ModelSpec(**kept)


def dataset_from(values: Mapping[str, Any]) -> DatasetSpec:
    """As :func:`model_from`."""
    kept = _known(DatasetSpec, values)
    kept["exclude"] = {split: tuple(rows) for split, rows in kept.get("exclude", {}).items()}
    return DatasetSpec(**kept)


def task_from(values: Mapping[str, Any]) -> TaskSpec:
    """As :func:`model_from`; its reference becomes a spec too."""
    kept = _known(TaskSpec, values)
    kept["seeds"] = tuple(kept.get("seeds", TaskSpec.seeds))
    kept["models"] = tuple(kept.get("models", TaskSpec.models))
    if kept.get("reference"):
        kept["reference"] = model_from(kept["reference"])
    return TaskSpec(**kept)


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    # A row written by a later version may hold keys that this one does not know; those it knows decide.
    names = {f.name for f in fields(cls)}
    return {k: v for k, v in values.items() if k in names}
