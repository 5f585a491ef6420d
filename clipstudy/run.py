"""The hallway: one batch → outcomes. It tells the story and knows nothing of how a step works."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipstudy import backbones, tasks
from clipstudy.device import broken, out_of_memory
from clipstudy.errors import ClipstudyError
from clipstudy.features import pictures
from clipstudy.features.cache import Store
from clipstudy.features.collect import Vectors
from clipstudy.features.extract import extract
from clipstudy.job import Failure, FailureKind, Group
from clipstudy.outcome import Outcome
from clipstudy.redaction import redact
from clipstudy.spec import ModelSpec, decisive
from clipstudy.tasks.task import Bench, Data, Frozen, Kind, Live, Needs, WithReference, options

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The work was asked to stop (a signal, a lost lease). Raised by a progress callback, never caught here."""


@dataclass
class Shelf:
    """The last model that was loaded, kept for the next batch."""

    device: str
    name: str | None = None
    _key: Any = None
    _model: Any = None

    def take(self, spec: ModelSpec) -> Any:
        """The loaded backbone of ``spec``. The previous model is freed first."""
        here = backbones.located(spec)
        # Where the files lie is no part of a digest, but "./bert" of two studies are two models.
        key = (decisive(here), spec.layers)
        if self._model is None or self._key != key:
            self._model, self._key, self.name = self.fresh(spec), key, spec.name
        return self._model

    def fresh(self, spec: ModelSpec) -> Any:
        """A backbone of ``spec`` that the shelf does not keep, so that it may be changed; the shelf is left empty."""
        self._model = self._key = self.name = None
        here = backbones.located(spec)
        log.info("loading %s (%s) on %s", spec.name, here.checkpoint, self.device)
        return backbones.load(here, self.device)


@dataclass(frozen=True)
class _Passes:
    """The rows of one group's task, to be passed through models."""

    kind: Kind
    options: Any
    data: Data
    shelf: Shelf
    store: Store | None
    bench: Bench

    def vectors(self, spec: ModelSpec, layers: Sequence[int]) -> Any:
        """The states of ``spec``'s layers, pooled by the kind's views."""
        image = spec.modality == "image"
        take: Callable[..., Any] = pictures.extract if image else extract
        return take(
            self.shelf.take(spec),
            self.data.pictures if image else self.data.texts,
            layers=layers,
            views=self.kind.views(self.options),
            batch_size=spec.batch_size,
            store=self.store,
            on_progress=lambda done, of: self.bench.progress("encode", done, of),
        )

    def frozen(self, spec: ModelSpec) -> Frozen:
        """The image model itself, calibrated on the task's pictures."""
        backbone = self.shelf.take(spec)
        pictures.calibrate(backbone, self.data.pictures)
        return Frozen(spec, backbone)


def run(
    group: Group,
    layers: Sequence[int],
    *,
    shelf: Shelf,
    store: Store | None,
    bench: Bench,
    pin: Callable[[Mapping[str, str]], None] = lambda resolved: None,
) -> Iterator[tuple[int, Outcome | Failure]]:
    """Measure ``layers`` of one group: all in one pass and one fit, each yielded by itself.

    ``pin`` is told what the names resolved to (weights, data) and raises where that changed since the group began.
    A failure that concerns all layers is raised; one that concerns a layer is yielded in its place.
    Whatever the kind does, each layer comes once.
    """
    kind = tasks.load(group.task.kind)
    opts = options(kind, group.task.options)
    data = kind.read(group.dataset, opts)
    given, resolved = _given(group, layers, _Passes(kind, opts, data, shelf, store, bench), pin)
    common = {f"resolved.{key}": value for key, value in resolved.items()}
    common |= {"resolved.source": data.source, "device": bench.device}

    def measure(some: Sequence[int]) -> Iterator[Outcome]:
        for outcome in kind.measure(given, data, some, group.task.seeds, opts, bench):
            yield replace(outcome, params=common | dict(outcome.params))

    yield from _each_once(layers, measure, group.task.kind)


def _given(
    group: Group, layers: Sequence[int], passes: _Passes, pin: Callable[[Mapping[str, str]], None]
) -> tuple[Vectors | WithReference | Frozen | Live, dict[str, str]]:
    """What the kind measures, as its NEEDS says; and what the names of the group's tables resolved to."""
    shelf, model, reference, needs = passes.shelf, group.model, group.task.reference, passes.kind.NEEDS
    # Which weights and which rows: pinned to the group. With which libraries: recorded, may differ between batches.
    pinned = {"data": passes.data.fingerprint}
    if reference:  # before the group's own model, which the shelf is to be left with
        beside = passes.vectors(reference, range(reference.layers + 1))
        pinned["reference"] = shelf.take(reference).resolved["checkpoint"]
    resolved = {**shelf.take(model).resolved, **pinned}
    pin({"checkpoint": resolved["checkpoint"], **pinned})
    if needs is Needs.MODEL:
        return Live(model, shelf.fresh), resolved
    if needs in (Needs.FROZEN, Needs.ATTENTION):
        return passes.frozen(model), resolved
    own = passes.vectors(model, layers)
    return WithReference(own, beside, reference) if reference else own, resolved


def _each_once(
    layers: Sequence[int], measure: Callable[[Sequence[int]], Iterator[Outcome]], kind: str
) -> Iterator[tuple[int, Outcome | Failure]]:
    """Each of ``layers`` with its outcome or its failure. Where all together fail, those left get a try each."""
    left = list(layers)

    def outcomes(some: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        for outcome in measure(some):
            if outcome.layer not in left:
                log.warning("layer %d came twice, or unasked: dropped", outcome.layer)
                continue
            left.remove(outcome.layer)
            yield outcome.layer, outcome

    try:
        yield from outcomes(layers)
    except Stopped:
        raise
    except Exception as error:  # whatever a kind raises, its siblings get their own try
        if broken(error):
            raise
        if len(left) == 1:
            layer = left.pop()
            yield layer, failure_at(layer, error)
        elif left:
            log.warning("%d layers together failed (%s): one by one", len(left), error)
        for layer in tuple(left):
            try:
                yield from outcomes([layer])
            except Stopped:
                raise
            except Exception as own_error:
                if broken(own_error):
                    raise
                if layer in left:
                    left.remove(layer)
                    yield layer, failure_at(layer, own_error)
    for layer in left:  # given back, it would be claimed again, and again
        log.error("layer %d: no outcome", layer)
        none = f'kind = "{kind}" ended without an outcome for this layer. Fix its measure, then retry.'
        yield layer, Failure(FailureKind.CODE, none, retry=False)


def failure_at(layer: int, error: Exception) -> Failure:
    """The failure of one layer, its traceback in the log unless the user can mend it: then the message is enough."""
    if isinstance(error, ClipstudyError):
        log.error("layer %d: %s", layer, error)
    else:
        log.error("layer %d failed", layer, exc_info=error)
    return failure_of(error)


#: What the machine or the network may get over by itself. A file that is missing or may not be read stays so.
_PASSING = (errno.EAGAIN, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESTALE)


def failure_of(error: BaseException) -> Failure:
    """What an exception means for a job: whose fault it is, and whether trying again can help."""
    if isinstance(error, ClipstudyError):
        kind = FailureKind.INFRA if error.transient else FailureKind.CODE
        return Failure(kind, redact(error.message), retry=error.transient)
    text = redact(f"{type(error).__name__}: {error}")
    passing = isinstance(error, ConnectionError | TimeoutError) or out_of_memory(error)
    if passing or (isinstance(error, OSError) and error.errno in _PASSING):
        return Failure(FailureKind.INFRA, text, retry=True)
    return Failure(FailureKind.CODE, text, retry=True)
