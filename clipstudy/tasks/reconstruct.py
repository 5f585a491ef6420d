"""What of an image can be drawn from a layer's map? A decoder of equal capacity for each layer, and how far it is off.

After Dosovitskiy & Brox 2016 (CVPR): an up-convolutional network is trained on frozen maps to the least squared error
in pixels. All maps pass one bottleneck, since a larger one would win by its size alone; one pass of the encoder trains
the decoders of all layers and seeds, and no map outlives its batch. `docs/design/measuring.md` says why.

Profiles
    ``default``    for models that see 112 × 112 pixels or more (the usual 224): a bottleneck of 256 × 7 × 7, images of
                   112 × 112.
    ``small``      for models that see 32 × 32 or more: a bottleneck of 32 × 4 × 4, images of 32 × 32, a short training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import DeviceError, ModelError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.parts.decoding import DecoderPasses, Reconstructions, Scores, Trained
from clipstudy.tasks.parts.items import Images
from clipstudy.tasks.task import BadOption, Bench, Frozen, Metric, Needs, at_least

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.data.images import Picture

METHOD = 4
NEEDS = Needs.FROZEN
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"image": ("default", "small")}
LAYERS: LayerChoice = "stages"
METRICS = {
    "mse": Metric("mean squared error", decimals=4, better=-1),
    "explained": Metric("error explained (share of the mean image's)"),
    "psnr": Metric("PSNR (dB)", decimals=2),
    "ssim": Metric("SSIM"),
}
METRIC = "mse"
SEEDS = (0, 1, 2)
READERS = ("images",)
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "small": {
        "size": 32,
        "grid": 4,
        "width": 32,
        "hidden": 32,
        "steps": 1500,
        "batch_size": 16,
        "learning_rate": 3e-3,
    },
}

#: The least side of an image: SSIM's window lies within it.
SMALLEST = 16
#: Seed of the order in which training images come: the same for all decoders, which share their batches.
ORDER = 0


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default", "small"] = "default"
    split: Literal["dev", "test"] = "test"  #: what is reconstructed; dev is free to choose options on
    crop: Literal["square", "own"] = "square"  #: a picture's central square, the same for all models; or a model's own
    size: int = 112  #: side of the images that are drawn, in pixels: ``grid`` times 2, 4, 8, …
    grid: int = 7  #: side of the bottleneck that every map passes
    width: int = 256  #: channels of the bottleneck
    hidden: int = 128  #: channels behind the first up-convolution; each further one halves them
    steps: int = 5000  #: batches that the decoders are trained on
    batch_size: int = 64  #: images a step
    learning_rate: float = 1e-3
    draws: int = 1000  #: bootstrap draws of the interval

    def __post_init__(self) -> None:
        at_least(self, grid=1, width=1, hidden=1, steps=1, draws=1, batch_size=2)
        if self.learning_rate <= 0:
            raise BadOption("learning_rate", f"found {self.learning_rate}, expected more than 0")
        fit = [self.grid * 2**k for k in range(1, 10) if SMALLEST <= self.grid * 2**k <= 512]
        if self.size not in fit:
            known = " or ".join(map(str, fit)) if fit else f"a smaller grid than {self.grid}"
            raise BadOption("size", f"found {self.size}, expected grid = {self.grid} doubled once or more: {known}")


def views(options: Options) -> tuple[str, ...]:
    """None: decoders read whole maps."""
    return ()


def metrics(options: Options) -> tuple[str, ...]:
    # The others have their own names, but the lines that figures draw beside the headline are squared errors.
    return ("mse",)


def read(dataset: DatasetSpec, options: Options) -> Images:
    """Read the three splits; labels are not looked at. Raises DataError as the reader does."""
    return items.read_images(dataset)


def measure(
    given: Frozen,
    data: Images,
    layers: Sequence[int],
    seeds: Sequence[int],
    options: Options,
    bench: Bench,
) -> Iterator[Outcome]:
    """Train a decoder for each layer and seed on train, and score what it draws of ``options.split`` (Dosovitskiy &
    Brox 2016).

    Args:
        given: the frozen model; its maps are ``[B, channels, h, w]``.

    Yields:
        For each layer the squared error of pixels in [0, 1], PSNR (dB) and SSIM with their intervals over seeds and
        images, the same of the mean image and of the raw pixels; each image's scores, and figures, as files.

    Raises:
        ModelError: the model lacks a layer or sees fewer pixels than ``size``. A layer that has values which are not
            finite: after the outcomes of all others.
        DeviceError: a batch does not fit in the device's memory.
    """
    from clipstudy.probes.decoder import PIXELS

    _check(given, layers, options)
    training = _order(data.labelled.train.items, options)
    distinct = training[: len(data.labelled.train)]
    held_out = getattr(data.labelled, options.split).items
    passes = DecoderPasses(given, layers, seeds, options, bench)
    with _told_of_memory(given, options):
        mean = passes.mean_image(distinct)
        trained = passes.train(training, mean)
        reconstructions = passes.reconstruct(held_out, mean, trained.decoders)

    beside = _beside(reconstructions, options)
    beside |= {"items/train": Estimate(len(distinct)), f"items/{options.split}": Estimate(len(held_out))}
    broken = [layer for layer in layers if not reconstructions.of[layer].finite]
    whole = sorted(set(layers) - set(broken))
    for layer in layers:
        if layer in broken:
            continue
        figures = {"reconstructions.png": [layer, PIXELS]}
        if len(whole) > 1 and layer == whole[-1]:  # one figure of all layers, kept with the last
            figures["stages.png"] = [*whole, PIXELS]
        yield Outcome(
            layer=layer,
            metrics=_metrics(layer, reconstructions, trained, options) | beside,
            params=_described(layer, trained, seeds, options),
            artifacts=(
                Artifact("images.parquet", _per_image(reconstructions.of[layer], reconstructions, seeds)),
                *(Artifact(name, reconstructions.sheet(given, rows, seeds[0])) for name, rows in figures.items()),
            ),
        )
    if broken:
        raise ModelError(
            f"[models.{given.spec.name}] layer {broken[0]} has values that are not finite, or its decoder came to have "
            "some. Check the checkpoint, or lower learning_rate in the task's options."
        )


def _metrics(layer: int, reconstructions: Reconstructions, trained: Trained, options: Options) -> dict[str, Estimate]:
    """How far a layer's reconstructions are off, and the share of the mean image's error that is gone."""
    from clipstudy.metrics import bootstrap_gain

    scores = reconstructions.of[layer]
    return {
        **{name: Estimate(*interval) for name, interval in scores.metrics(options.draws).items()},
        "explained": Estimate(*bootstrap_gain(scores.mse, reconstructions.floor.mse[0], draws=options.draws)),
        "train_mse": Estimate(trained.error[layer]),
    }


def _beside(reconstructions: Reconstructions, options: Options) -> dict[str, Estimate]:
    """What every layer is to be held against: the mean image, and the raw pixels through the same bottleneck."""
    from clipstudy.probes.decoder import PIXELS

    beside: dict[str, Estimate] = {}
    for name, scores in (("mean_image", reconstructions.floor), ("raw_pixels", reconstructions.of[PIXELS])):
        intervals = scores.metrics(options.draws)
        beside[f"baseline/{name}"] = Estimate(*intervals["mse"])
        beside |= {f"{name}/{measure}": Estimate(*intervals[measure]) for measure in ("psnr", "ssim")}
    return beside


def _described(layer: int, trained: Trained, seeds: Sequence[int], options: Options) -> dict[str, str]:
    """The layer's map, its bottleneck and its decoder's size: these differ from layer to layer."""
    decoder = trained.decoders.each[layer, seeds[0]]
    return {
        "map": " × ".join(map(str, trained.shapes[layer])),
        "bottleneck": f"{options.width} × {options.grid} × {options.grid}",
        "decoder.weights": str(sum(w.numel() for w in decoder.parameters())),
        "decoder.weights_behind_bottleneck": str(sum(w.numel() for w in decoder.trunk.parameters())),
    }


def _check(given: Frozen, layers: Sequence[int], options: Options) -> None:
    """Raises ModelError where the model lacks a layer, or sees fewer pixels than are to be drawn."""
    here, backbone = f"[models.{given.spec.name}]", given.backbone
    for layer in layers:
        if not 0 <= layer <= backbone.depth:
            raise ModelError(f"{here} has no layer {layer}. What exists: 0–{backbone.depth}.")
    height, width = backbone.size
    if min(height, width) < options.size:
        raise ModelError(
            f"{here} sees {height} × {width} pixels, fewer than the {options.size} × {options.size} to be drawn. "
            'Lower size and grid in the task\'s options; profile = "small" draws 32 × 32.'
        )


@contextmanager
def _told_of_memory(given: Frozen, options: Options) -> Iterator[None]:
    """Raises DeviceError where the device's memory is out."""
    from clipstudy.device import out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise DeviceError(
            f"{options.batch_size} images' maps and a decoder do not fit in the device's memory with "
            f"[models.{given.spec.name}]. Lower batch_size in the task's options, or the model's own."
        ) from error


def _order(train: Sequence[Picture], options: Options) -> list[Picture]:
    """Training images as the decoders are shown them: all in a random order, again in another, to the last step."""
    import numpy as np

    draw, wanted = np.random.default_rng(ORDER), options.steps * options.batch_size
    rows = np.concatenate([draw.permutation(len(train)) for _ in range(-(-wanted // len(train)))])
    return [train[row] for row in rows[:wanted]]


def _per_image(scores: Scores, reconstructions: Reconstructions, seeds: Sequence[int]) -> bytes:
    """A row a held-out image: how far each seed's reconstruction and the mean image are off."""
    columns: dict[str, NDArray[Any]] = {}
    for name in ("mse", "ssim"):
        columns |= {f"{name}/seed_{seed}": row for seed, row in zip(seeds, getattr(scores, name), strict=True)}
        columns[f"{name}/mean_image"] = getattr(reconstructions.floor, name)[0]
    return files.parquet(columns)
