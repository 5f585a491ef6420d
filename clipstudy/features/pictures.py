"""Images → features: all asked layers and views in one pass, while the next images are decoded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipstudy.backbones.backbone import IMAGE_SUMMARIES, ImageBackbone
from clipstudy.data.images import Picture
from clipstudy.device import fitting, landing
from clipstudy.errors import ModelError
from clipstudy.features import views as view_of
from clipstudy.features.cache import Store
from clipstudy.features.collect import Arrival, Collection, Vectors
from clipstudy.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

#: Part of every key of the store: raise it when the same request would give other numbers.
EXTRACTION = 4
#: Training images that an untrained model's batch norms take their statistics from.
CALIBRATION = 256
#: Of these at once.
CALIBRATED_AT = 32
#: Threads that decode images: the library that does it lets go of the interpreter.
DECODERS = min(8, os.cpu_count() or 1)


def extract(
    backbone: ImageBackbone,
    pictures: Sequence[Picture],
    *,
    layers: Sequence[int],
    views: Sequence[str],
    batch_size: int,
    store: Store | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """Features of ``pictures`` at ``layers``, in as many forward passes as one layer would take.

    Args:
        layers: any of 0..depth.
        views: any of :data:`clipstudy.features.views.IMAGE_VIEWS`.
        batch_size: images a batch.
        store, on_progress: as for texts.

    Raises:
        DataError: an image cannot be read.
        DeviceError: not even one image fits in the device's memory.
        ModelError: the model has no such view; on reading a layer that has values that are not finite (its siblings can
            be read).
    """
    named = dict.fromkeys(backbone.native if view == "native" else view for view in views)
    for view in named:
        if view in IMAGE_SUMMARIES and view not in backbone.summaries:
            raise ModelError(
                f'[models.{backbone.name}] has no class token, so there is no view "{view}" of it. Write "native" in '
                "the task's views: it reads the class token where a model has one."
            )
    shapes = {
        (view, layer): (len(pictures), view_of.image_width(view, backbone.widths[layer]))
        for view in named
        for layer in layers
    }
    keys = dict.fromkeys(named, _key(backbone, pictures))
    with Collection(backbone.name, counted(len(pictures), "image"), store, keys, shapes) as collection:
        if collection.layers:
            calibrate(backbone, pictures)
            _Run(backbone, collection, batch_size).all(pictures, on_progress)
        collection.finish()
    return Vectors(collection.arrays, collection.spoiled, backbone.native)


class _Run:
    """One pass over the images, pooled on the device and written into ``collection``."""

    def __init__(self, backbone: ImageBackbone, collection: Collection, batch_size: int) -> None:
        self._backbone, self._collection, self._batch_size = backbone, collection, batch_size
        self._fits = batch_size  #: images that go through the model at once

    def all(self, pictures: Sequence[Picture], on_progress: Callable[[int, int], None] | None) -> None:
        for rows, pixels in batches(self._backbone.preprocess, pictures, self._batch_size):
            start = 0
            while start < len(rows):
                part = slice(start, start + self._fits)
                start += self._encode(rows[part], pixels[part])
            if on_progress:
                on_progress(int(rows[-1]) + 1, len(pictures))

    def _encode(self, rows: np.ndarray, pixels: torch.Tensor) -> int:
        """How many rows were done: none where they did not fit; then fewer are tried from there on."""
        hopeless = (
            f"one image of {pixels.shape[2]} × {pixels.shape[3]} pixels does not fit in the device's memory with "
            f"[models.{self._backbone.name}]. Use another device."
        )
        arrivals = fitting(lambda: self._pooled(pixels), hopeless if len(rows) == 1 else None)
        if arrivals is None:
            self._fits = len(rows) // 2
            return 0
        self._collection.expect(arrivals)
        return len(rows)

    def _pooled(self, pixels: torch.Tensor) -> list[Arrival]:
        """Every view of every layer. All are pooled before any is written: what runs out of memory leaves no half
        behind."""
        states = self._backbone.states(pixels, self._collection.layers)
        pooled = [
            ((view, layer), view_of.of_image(states[layer], view))
            for view in self._collection.views
            for layer in self._collection.layers
        ]
        return [Arrival([cell], values.nbytes, landing(values.unsqueeze(0))) for cell, values in pooled]


def calibrate(backbone: ImageBackbone, pictures: Sequence[Picture]) -> None:
    """Give an untrained model's batch norms the statistics of a few training images; leave any other as it is. In
    batches of a size of their own: another one would give other statistics, and so another model."""
    if backbone.uncalibrated:
        backbone.calibrate(pixels for _, pixels in batches(backbone.preprocess, _training(pictures), CALIBRATED_AT))


class Opens(Protocol):
    """What gives an image when it is opened: a picture, or what is known of its pixels as a picture."""

    def open(self) -> Image: ...


def batches(
    prepare: Callable[[Image], torch.Tensor], pictures: Sequence[Opens], size: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Row numbers and pixels ``[B, 3, H, W]``, as ``prepare`` gives them of each image, ``size`` at a time, in order.

    While a batch is in use the next one is decoded, and no more.
    """

    def pixels(picture: Opens) -> torch.Tensor:
        return prepare(picture.open())

    with ThreadPoolExecutor(DECODERS) as pool:
        starts = range(0, len(pictures), size)
        coming = None
        for start in [*starts, len(pictures)]:
            ready, coming = coming, [pool.submit(pixels, picture) for picture in pictures[start : start + size]]
            if ready:
                rows = np.arange(start - len(ready), start, dtype=np.int64)
                yield rows, torch.stack([future.result() for future in ready])


def spread(count: int, among: int) -> NDArray[np.int64]:
    """Row numbers of so many, evenly over a split that may be sorted by class; all, if fewer."""
    return np.linspace(0, among - 1, min(count, among)).astype(np.int64)


def _training(pictures: Sequence[Picture]) -> list[Picture]:
    """A few training images, spread evenly over their split."""
    train = [picture for picture in pictures if picture.split == "train"] or list(pictures)
    every = spread(CALIBRATION, len(train))
    # Whole batches, where there is one: a smaller last one would weigh as much, and of one image there is no variance.
    whole = len(every) // CALIBRATED_AT * CALIBRATED_AT or len(every)
    return [train[i] for i in every[:whole]]


def _key(backbone: ImageBackbone, pictures: Sequence[Picture]) -> str:
    """Everything that decides the numbers, the images themselves included."""
    settings = [EXTRACTION, dict(backbone.resolved), [CALIBRATION, CALIBRATED_AT] if backbone.uncalibrated else 0]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for picture in pictures:
        digest.update(f"{picture.split} {hashlib.sha256(picture.read()).hexdigest()}\n".encode())
    return digest.hexdigest()[:24]
