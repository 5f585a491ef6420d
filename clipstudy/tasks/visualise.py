"""What does a unit look for? Images that excite it, and what they look like in numbers.

Activation maximisation as lucid does it (Olah, Mordvintsev & Schubert 2017, Distill); ``probes/activation.py`` says
how. Which channels are drawn, and the noise that each image begins as, follow from layer, channel and seed, so that
models of one shape are shown side by side. ``probes/appearance.py`` puts numbers to the words with which such images
are described; beside them the same of the data set's images, and of noise that has the spectra of the fitted ones.

Profiles
    ``default``    lucid's settings: 128 pixels, 512 steps of Adam, through a moving window; 64 channels of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import ModelError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality, ModelSpec
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.parts.items import Images
from clipstudy.tasks.parts.sheet import contact_sheet
from clipstudy.tasks.task import BadOption, Bench, Frozen, Metric, Needs, at_least

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.data.images import Picture
    from clipstudy.probes.activation import Fitted, Target

METHOD = 3
NEEDS = Needs.FROZEN
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"image": ("default",)}
LAYERS: LayerChoice = "stages"
METRICS = {
    "high_frequency": Metric("share of high frequencies", better=0),
    "spectral_slope": Metric("fall of the spectrum (exponent)", decimals=2, better=0),
    "total_variation": Metric("total variation (ranges a pixel)", better=0),
    "edge_density": Metric("share of pixels on an edge", better=0),
    "colour_entropy": Metric("entropy of colours (bits)", decimals=2, better=0),
    "activation": Metric("activation", better=0),
}
METRIC = "high_frequency"
SEEDS = (0, 1, 2)
READERS = ("images",)
PROFILES: Mapping[str, Mapping[str, Any]] = {"default": {}}

#: The narrowest image: fewer frequencies make no slope.
SMALLEST = 16


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default"] = "default"
    objective: Literal["channel", "neuron", "neurons"] = "channel"  #: as probes/activation.py defines them
    channels: int = 64  #: channels of a layer, or sets of neurons; all of a layer that has fewer
    neurons: int = 16  #: neurons of a set, where objective = "neurons"
    size: int = 128  #: side of an image, in pixels
    steps: int = 512
    learning_rate: float = 0.05
    robust: bool = True  #: through a window that shifts, turns and zooms
    chunk: int = 16  #: images that are fitted at once
    natural: int = 256  #: images of the test split to compare with; all of one that has fewer
    draws: int = 1000  #: bootstrap draws of the interval

    def __post_init__(self) -> None:
        at_least(self, channels=1, neurons=1, steps=1, chunk=1, draws=1, natural=2, size=SMALLEST)
        if self.learning_rate <= 0:
            raise BadOption("learning_rate", f"found {self.learning_rate:g}, expected more than 0")


@dataclass(frozen=True)
class Natural:
    """What the data set's own images do and look like."""

    activation: Mapping[int, NDArray[Any]]  #: layer → ``[images, targets]``
    measures: Mapping[str, NDArray[Any]]  #: measure → ``[images]``, at the side that images are fitted at


def views(options: Options) -> tuple[str, ...]:
    """None: images are fitted to the model itself."""
    return ()


def metrics(options: Options) -> tuple[str, ...]:
    return "high_frequency", "spectral_slope", "total_variation", "edge_density", "colour_entropy"


def read(dataset: DatasetSpec, options: Options) -> Images:
    """Read the three splits. Raises DataError as the reader does."""
    return items.read_images(dataset)


def measure(
    given: Frozen, data: Images, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Fit an image to each target of each layer and seed, and measure how the images look (Olah et al. 2017).

    Args:
        given: the frozen model; images are fitted to maps ``[B, channels, h, w]``.

    Yields:
        For each layer the mean of every measure of appearance with its interval over seeds and targets, the same of
        noise with the images' spectra and of the data set's images, and how far targets were excited; each image's
        numbers, and a sheet of images a seed, as files.

    Raises:
        ModelError: ``size`` is more than the model sees, or it gives values that are not finite.
        DeviceError: not even one image fits in the device's memory.
    """
    from clipstudy.probes import activation

    backbone = given.backbone
    if options.size > min(backbone.size):
        rows, columns = backbone.size
        raise ModelError(
            f"[models.{backbone.name}] sees {rows} × {columns} pixels, but the options of the task say size = "
            f"{options.size}: no unit asks for detail that it cannot see. Write size = {min(rows, columns)} or less."
        )
    recipe = activation.Recipe(options.objective, options.size, options.steps, options.learning_rate, options.robust)
    targets = _targets(given, layers, options)
    natural = _natural(given, data.labelled.test.items, targets, options, bench)
    before, total = 0, len(seeds) * options.steps * sum(map(len, targets.values()))
    for layer in layers:
        wanted = [(target, seed) for seed in seeds for target in targets[layer]]
        fitted = activation.maximise(
            backbone,
            layer,
            wanted,
            recipe,
            chunk=options.chunk,
            device=bench.device,
            on_progress=bench.part("visualise", before, total),
        )
        before += len(wanted) * options.steps
        looks = _appearance(fitted.images)
        table = Artifact("images.csv", _csv(wanted, fitted, natural.activation[layer], looks, options))
        sheets = _sheets(given.spec, layer, seeds, wanted, fitted, options)
        shape = (len(seeds), len(targets[layer]))
        yield Outcome(
            layer=layer,
            metrics=_metrics(fitted, looks, natural, natural.activation[layer], shape, options),
            artifacts=(table, *sheets),
        )


def _metrics(
    fitted: Fitted,
    looks: Mapping[str, NDArray[Any]],
    natural: Natural,
    activation: NDArray[Any],
    shape: tuple[int, int],
    options: Options,
) -> dict[str, Estimate]:
    """How a layer's images look and what they excite, with what to hold that against.

    Args:
        looks: measure → of each fitted image.
        natural: how the data set's images look.
        activation: what they excite of the layer, ``[images, targets]``.
        shape: seeds, targets.
    """
    noise = _appearance(fitted.scrambled)
    metrics = {name: _estimate(values.reshape(shape), options) for name, values in looks.items()}
    metrics |= {f"noise/{name}": _estimate(values.reshape(shape), options) for name, values in noise.items()}
    metrics |= {f"natural/{name}": _estimate(values[None], options) for name, values in natural.measures.items()}
    counts = {
        "items/images": len(fitted.images),
        "items/targets": shape[1],
        "items/natural": len(activation),
        # Targets that stayed at 0 for every seed: their images show the prior alone.
        "items/silent": int((fitted.activation.reshape(shape) == 0).all(0).sum()),
    }
    metrics |= {name: Estimate(count) for name, count in counts.items()}
    return metrics | _reached(fitted, activation, shape, options)


def _targets(given: Frozen, layers: Sequence[int], options: Options) -> dict[int, list[Target]]:
    """What images of each layer are to excite."""
    import torch

    from clipstudy.probes import activation

    blank = given.backbone.states(torch.zeros(1, 3, *given.backbone.size), layers)
    return {
        layer: activation.targets(
            layer, blank[layer].map.shape[1:], options.objective, options.channels, options.neurons
        )
        for layer in layers
    }


def _natural(
    given: Frozen,
    pictures: Sequence[Picture],
    targets: Mapping[int, Sequence[Target]],
    options: Options,
    bench: Bench,
) -> Natural:
    """All layers in one pass over some of the test split's images, spread evenly over it."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from clipstudy.backbones.pixels import restored
    from clipstudy.features.pictures import batches, spread
    from clipstudy.probes import activation

    chosen = [pictures[row] for row in spread(options.natural, len(pictures))]
    units = {layer: torch.tensor([target.units for target in own]) for layer, own in targets.items()}
    reached: dict[int, list[Any]] = {layer: [] for layer in targets}
    looks: list[dict[str, Any]] = []
    for rows, pixels in batches(given.backbone.preprocess, chosen, given.spec.batch_size):
        states = given.backbone.states(pixels, list(targets))
        for layer, own in units.items():
            values = activation.responses(states[layer].map, options.objective)
            reached[layer].append(values[:, own.to(values.device)].mean(-1).double().cpu().numpy())
        crops = restored(given.backbone, pixels)
        shown = F.interpolate(crops, (options.size,) * 2, mode="bilinear", antialias=True)
        looks.append(_appearance(shown.permute(0, 2, 3, 1).numpy()))
        bench.progress("encode", int(rows[-1]) + 1, len(chosen))
    return Natural(
        {layer: np.concatenate(values) for layer, values in reached.items()},
        {name: np.concatenate([look[name] for look in looks]) for name in looks[0]},
    )


def _appearance(images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every measure of every image: ``[N]`` each."""
    import numpy as np

    from clipstudy.probes.appearance import MEASURES

    return {name: np.array([look(image) for image in images]) for name, look in MEASURES.items()}


def _estimate(values: NDArray[Any], options: Options) -> Estimate:
    """The mean of ``[seeds, targets]``, and its interval over both."""
    from clipstudy.metrics import bootstrap_mean

    return Estimate(*bootstrap_mean(values[None], draws=options.draws, rng=0)[0])


def _reached(fitted: Fitted, natural: NDArray[Any], shape: tuple[int, int], options: Options) -> dict[str, Estimate]:
    """How far the objective was raised: against noise of the same spectra, and against the data set's images."""
    value, noise, strongest = fitted.activation.reshape(shape), fitted.noise.reshape(shape), natural.max(0)
    return {
        "activation": _estimate(value, options),
        "noise/activation": _estimate(noise, options),
        "natural/activation": Estimate(float(natural.mean())),
        "natural/activation_highest": Estimate(float(strongest.mean())),
        "above_noise": _estimate((value > noise).astype(float), options),
        "above_natural": _estimate((value > strongest).astype(float), options),
    }


def _sheets(
    model: ModelSpec,
    layer: int,
    seeds: Sequence[int],
    wanted: Sequence[tuple[Target, int]],
    fitted: Fitted,
    options: Options,
) -> Iterator[Artifact]:
    """A contact sheet of each seed's images."""
    for seed in seeds:
        rows = [row for row, (_, own) in enumerate(wanted) if own == seed]
        captions = [f"{_word(options)} {wanted[row][0].number}: {fitted.activation[row]:.3g}" for row in rows]
        title = (
            f"{model.title}, layer {layer}: what excites a {_word(options)}, and how much ({options.objective} "
            f"objective, {options.steps} steps, seed {seed})"
        )
        yield Artifact(f"images_seed_{seed}.png", contact_sheet(fitted.images[rows], captions, title))


def _word(options: Options) -> str:
    """What a target's number counts."""
    return "set" if options.objective == "neurons" else "channel"


def _csv(
    wanted: Sequence[tuple[Target, int]],
    fitted: Fitted,
    natural: NDArray[Any],
    looks: Mapping[str, NDArray[Any]],
    options: Options,
) -> bytes:
    """A row an image."""
    rows = []
    for row, (target, seed) in enumerate(wanted):
        # Rows go through all targets for each seed.
        same_target = natural[:, row % natural.shape[1]]
        activations = fitted.activation[row], fitted.noise[row], same_target.mean(), same_target.max()
        measures = (of_images[row] for of_images in looks.values())
        rows.append((target.number, seed, *(f"{float(value):.6g}" for value in (*activations, *measures))))
    return files.text((_word(options), "seed", "activation", "noise", "natural_mean", "natural_highest", *looks), rows)
