"""What a task kind is: the protocol that each room of this folder keeps, and how its options are read."""

from __future__ import annotations

import collections.abc
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from clipstudy.errors import did_you_mean
from clipstudy.outcome import Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality, ModelSpec

if TYPE_CHECKING:
    from clipstudy.backbones.backbone import ImageBackbone, TextBackbone
    from clipstudy.data.images import Picture
    from clipstudy.features.collect import Vectors
    from clipstudy.features.extract import Features, Text


class Needs(StrEnum):
    """What a kind must be given."""

    VECTORS = "vectors"  #: pooled states, cached
    FROZEN = "frozen"  #: the image model itself, to look into it: Frozen
    ATTENTION = "attention"  #: the same, of a model that has attention: Frozen
    MODEL = "model"  #: the model itself, to train it: Live
    REFERENCE = "reference"  #: the same, and those of the task's reference model: WithReference


class Data(Protocol):
    """What a kind read from its data set: what to encode, and all it needs to score it.

    No kind has both ``texts`` and ``pictures``, nor is it asked for both: text models are shown the ones and image
    models the others. A kind that trains the model itself has neither.
    """

    @property
    def texts(self) -> Sequence[Text]: ...
    @property
    def pictures(self) -> Sequence[Picture]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True)
class WithReference:
    """The same texts through two models."""

    own: Features  #: at the batch's layers
    reference: Features  #: at all its layers
    model: ModelSpec  #: the reference


@dataclass(frozen=True)
class Frozen:
    """The group's image model for a kind that looks into it and leaves it as it is."""

    spec: ModelSpec
    backbone: ImageBackbone  #: an untrained one has its batch norms calibrated on the task's training images


@dataclass(frozen=True)
class Live:
    """The group's model for a kind that changes it."""

    spec: ModelSpec
    #: A model as a spec describes it, loaded anew each time and given to nobody else. The one before it must be let go
    #: by then: two may not fit.
    load: Callable[[ModelSpec], TextBackbone]


@dataclass(frozen=True)
class Bench:
    """Where a measurement runs, and whom it tells."""

    device: str = "cpu"
    #: called with (what, done, of); may raise to stop the measurement
    progress: Callable[[str, float, int], None] = lambda what, done, of: None

    def part(self, what: str, before: float, of: int) -> Callable[..., None]:
        """Progress of one of several parts, called with what is ``done`` of it: ``before`` of others, ``of`` in all."""
        return lambda done, *_: self.progress(what, before + done, of)


class Metric(NamedTuple):
    """How one of a kind's metrics is read and written."""

    title: str  #: what an axis calls it, with its unit
    factor: float = 1.0  #: what a value is multiplied by where it is shown
    decimals: int = 3
    better: int = 1  #: 1: more is better; -1: less is; 0: it describes and does not judge
    share: bool = False  #: it lies between 0 and 1, and so does its interval

    def text(self, value: float, sign: str = "") -> str:
        """``value`` as it is shown; ``sign="+"``: with a sign, also where it is positive."""
        return f"{value * self.factor:{sign}.{self.decimals}f}"


#: Those of kinds that tell labels apart.
LABELLED: Mapping[str, Metric] = types.MappingProxyType({
    "accuracy": Metric("accuracy (%)", 100, 1, share=True),
    "dev_accuracy": Metric("dev accuracy (%)", 100, 1, share=True),
    "macro_f1": Metric("macro F1 (%)", 100, 1, share=True),
})  # fmt: skip


class Kind(Protocol):
    """A module ``tasks/<kind>.py``."""

    METHOD: int  #: raised when the same options come to mean something else: new rows, no mixing
    NEEDS: Needs
    MODALITIES: Mapping[Modality, tuple[str, ...]]  #: what it measures: each with its profiles, the default first
    LAYERS: LayerChoice  #: unless the table says otherwise
    METRICS: Mapping[str, Metric]  #: how its metrics are shown, by the last part of their names
    METRIC: str  #: the headline metric unless the table says otherwise
    SEEDS: tuple[int, ...]  #: where neither the task nor [study] says seeds
    READERS: tuple[str, ...]  #: the dataset readers that it can use
    PROFILES: Mapping[str, Mapping[str, Any]]  #: named option sets; each belongs to one modality
    Options: type[Any]

    def read(self, dataset: DatasetSpec, options: Any) -> Data:
        """Read what is to be measured. Raises DataError."""
        ...

    def views(self, options: Any) -> tuple[str, ...]:
        """Which views of the states it wants."""
        ...

    def metrics(self, options: Any) -> tuple[str, ...]:
        """What the headline metric may be, with these options."""
        ...

    def measure(
        self,
        given: Features | Vectors | WithReference | Frozen | Live,
        data: Any,
        layers: Sequence[int],
        seeds: Sequence[int],
        options: Any,
        bench: Bench,
    ) -> Iterator[Outcome]:
        """One Outcome a layer, all layers fitted together. Randomness comes from (layer, seed) alone, so an outcome
        does not depend on which other layers were asked for. What is ``given``, ``NEEDS`` says."""
        ...


class BadOption(ValueError):
    """An option that a kind does not take: (key, what is wrong)."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key, self.why = key, why


def at_least(options: Any, **least: int) -> None:
    """Raises BadOption where one of ``options`` is less than ``least`` says."""
    for key, few in least.items():
        found = getattr(options, key)
        if found < few:
            raise BadOption(key, f"found {found}, expected {few} or more")


def each_once(options: Any, *keys: str) -> None:
    """Raises BadOption where one of the lists ``keys`` is empty, or names something twice."""
    for key in keys:
        found = getattr(options, key)
        if not found or len(set(found)) < len(found):
            raise BadOption(key, f"found {list(found)}, expected one or more, each once")


T = TypeVar("T")


def options(kind: Kind, given: Mapping[str, Any], modality: Modality | None = None) -> Any:
    """``given`` as the kind's Options: its defaults, then the profile's, then what the table says.

    Args:
        modality: the data set's, which decides the default profile and the others that there are; None: any may be.

    Raises:
        BadOption: an unknown key or profile, a value of the wrong type, or one that the kind refuses.
    """
    profiles = list(kind.MODALITIES[modality] if modality else kind.PROFILES)
    profile = given.get("profile", profiles[0])
    if not isinstance(profile, str) or profile not in profiles:
        raise BadOption("profile", f'found "{profile}". {did_you_mean(str(profile), profiles)}')
    return build(kind.Options, {**kind.PROFILES[profile], **given, "profile": profile})


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from plain values, each checked against its field's type.

    Raises:
        BadOption: an unknown or missing key, a value of the wrong type, or one that ``__post_init__`` refuses.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in values:
        if key not in known:
            raise BadOption(key, f"unknown key. {did_you_mean(key, known)}")
    ready = {key: _fitted(key, value, hints[key]) for key, value in values.items()}
    try:
        return cls(**ready)
    except TypeError as error:
        raise BadOption("options", str(error)) from None


#: Metadata of an option that a later version added. At its default it is left out of :func:`plain`, so that it changes
#: no digest by itself: what was measured before stays what it was.
LATER = {"later": True}


def plain(opts: Any) -> dict[str, Any]:
    """Options as JSON values, defaults included (but :data:`LATER` ones): what enters the digest and the parameters."""
    unsaid = {f.name for f in fields(opts) if f.metadata.get("later") and getattr(opts, f.name) == f.default}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(opts).items() if k not in unsaid}


def _fitted(key: str, value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Annotated:
        within: range = args[1]
        if _fitted(key, value, args[0]) not in within:
            raise BadOption(key, f"found {value}, expected a whole number from {within[0]} to {within[-1]}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _fitted(key, value, next(a for a in args if a is not type(None)))
    if origin is typing.Literal:
        if value not in args:
            raise BadOption(key, f'found "{value}". {did_you_mean(str(value), map(str, args))}')
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadOption(key, f"found {value!r}, expected a list")
        return tuple(_fitted(key, v, args[0]) for v in value)
    if origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            raise BadOption(key, f"found {value!r}, expected a table")
        return {k: _fitted(f"{key}.{k}", v, args[1]) for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise BadOption(key, f"found {value}, expected a finite number")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise BadOption(key, f"found {value!r}, expected {_named(hint)}")
    return value


def _named(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint, str(hint))
