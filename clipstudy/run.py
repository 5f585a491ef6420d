"""The hallway: one batch → outcomes. It tells the story and knows nothing of how a step works."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipstudy import backbones, tasks
from clipstudy.device import out_of_memory
from clipstudy.errors import ClipstudyError
from clipstudy.features import pictures
from clipstudy.features.cache import Store
from clipstudy.features.collect import Vectors
from clipstudy.features.extract import extract
from clipstudy.job import Failure, FailureKind, Group
from clipstudy.outcome import Outcome
from clipstudy.settings import redact
from clipstudy.spec import ModelSpec, decisive
from clipstudy.tasks.task import Bench, Frozen, Live, Needs, WithReference, options

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
    # Which weights and which rows: pinned to the group. With which libraries: recorded, may differ between batches.
    pinned = {"data": data.fingerprint}

    def encode(spec: ModelSpec, some: Sequence[int]) -> Any:
        image = spec.modality == "image"
        take: Callable[..., Any] = pictures.extract if image else extract
        return take(
            shelf.take(spec),
            data.pictures if image else data.texts,
            layers=some,
            views=kind.views(opts),
            batch_size=spec.batch_size,
            store=store,
            on_progress=lambda done, of: bench.progress("encode", done, of),
        )

    reference = group.task.reference
    if reference:  # before the group's own model, which the shelf is to be left with
        beside = encode(reference, range(reference.layers + 1))
        pinned["reference"] = shelf.take(reference).resolved["checkpoint"]
    resolved = dict(shelf.take(group.model).resolved)
    pin({"checkpoint": resolved["checkpoint"], **pinned})
    given: Vectors | WithReference | Frozen | Live
    if kind.NEEDS is Needs.MODEL:
        given = Live(group.model, shelf.fresh)
    elif kind.NEEDS in (Needs.FROZEN, Needs.ATTENTION):
        backbone = shelf.take(group.model)
        pictures.calibrate(backbone, data.pictures, group.model.batch_size)
        given = Frozen(group.model, backbone)
    else:
        own = encode(group.model, layers)
        given = WithReference(own, beside, reference) if reference else own
    common = {f"resolved.{k}": v for k, v in {**resolved, **pinned}.items()}
    common |= {"resolved.source": data.source, "device": bench.device}

    left = list(layers)

    def measure(some: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        for outcome in kind.measure(given, data, some, group.task.seeds, opts, bench):
            if outcome.layer not in left:
                log.warning("layer %d came twice, or unasked: dropped", outcome.layer)
                continue
            left.remove(outcome.layer)
            yield outcome.layer, replace(outcome, params=common | dict(outcome.params))

    try:
        yield from measure(layers)
    except (Stopped, GeneratorExit):
        raise
    except Exception as error:  # whatever a kind raises, its siblings get their own try
        if len(left) == 1:
            layer = left.pop()
            yield layer, told(error, layer)
        elif left:
            log.warning("%d layers together failed (%s): one by one", len(left), error)
        for layer in tuple(left):
            try:
                yield from measure([layer])
            except (Stopped, GeneratorExit):
                raise
            except Exception as alone:
                if layer in left:
                    left.remove(layer)
                    yield layer, told(alone, layer)
    for layer in left:  # given back, it would be claimed again, and again
        log.error("layer %d: no outcome", layer)
        none = f'kind = "{group.task.kind}" ended without an outcome for this layer. Fix its measure, then retry.'
        yield layer, Failure(FailureKind.CODE, none, retry=False)


def told(error: Exception, layer: int) -> Failure:
    """The failure of one layer, its traceback in the log unless the user can mend it: then the message is enough."""
    if isinstance(error, ClipstudyError):
        log.error("layer %d: %s", layer, error)
    else:
        log.error("layer %d failed", layer, exc_info=error)
    return failure(error)


#: What the machine or the network may get over by itself. A file that is missing or may not be read stays so.
_PASSING = (errno.EAGAIN, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESTALE)


def failure(error: BaseException) -> Failure:
    """What an exception means for a job: whose fault it is, and whether trying again can help."""
    if isinstance(error, ClipstudyError):
        kind = FailureKind.INFRA if error.transient else FailureKind.CODE
        return Failure(kind, redact(error.message), retry=error.transient)
    text = redact(f"{type(error).__name__}: {error}")
    passing = isinstance(error, ConnectionError | TimeoutError) or out_of_memory(error)
    if passing or (isinstance(error, OSError) and error.errno in _PASSING):
        return Failure(FailureKind.INFRA, text, retry=True)
    return Failure(FailureKind.CODE, text, retry=True)
