"""Where images stream through a frozen model to its decoders, which are trained, draw, and are scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from clipstudy.tasks.task import Bench, Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from clipstudy.data.images import Picture
    from clipstudy.metrics import Interval
    from clipstudy.probes.decoder import Decoders
    from clipstudy.tasks.reconstruct import Options

#: Images of a figure.
SHOWN = 8


@dataclass(frozen=True)
class Scores:
    """How far reconstructions of one layer, or the mean image, are off: ``[seeds, images]`` each."""

    mse: NDArray[Any]
    ssim: NDArray[Any]

    @property
    def finite(self) -> bool:
        import numpy as np

        return bool(np.isfinite(self.mse).all())

    def metrics(self, draws: int) -> dict[str, Interval]:
        """``mse``, ``psnr`` and ``ssim``, with intervals over seeds and images from the same draws for all three."""
        import numpy as np

        from clipstudy.metrics import bootstrap_mean, psnr

        intervals = bootstrap_mean(np.stack([self.mse, psnr(self.mse), self.ssim]), draws=draws, rng=0)
        return dict(zip(("mse", "psnr", "ssim"), intervals, strict=True))


@dataclass(frozen=True)
class Trained:
    """The decoders of all layers and seeds, and how training went."""

    decoders: Decoders
    shapes: Mapping[int, tuple[int, ...]]  #: layer → channels, rows and columns of its map
    error: Mapping[int, float]  #: layer → squared error on training images over the last tenth of the steps


@dataclass(frozen=True)
class Reconstructions:
    """The held-out images and what became of them."""

    of: Mapping[int, Scores]  #: of each layer, and of the raw pixels
    floor: Scores  #: of the mean image, one row
    originals: NDArray[Any]  #: those that figures show: ``[SHOWN, 3, size, size]`` in [0, 1]
    drawn: Mapping[int, NDArray[Any]]  #: the same, drawn from each layer by the first seed's decoder

    def sheet(self, given: Frozen, rows: Sequence[int], seed: int) -> bytes:
        """The originals, and below them what was drawn of them from each of ``rows``, as a PNG."""
        import numpy as np

        from clipstudy.metrics import psnr, squared_error
        from clipstudy.probes.decoder import PIXELS
        from clipstudy.tasks.parts.sheet import contact_sheet

        captions = ["original"] * len(self.originals)
        for row in rows:
            name = "raw pixels" if row == PIXELS else f"layer {row}"
            quality = psnr(squared_error(self.originals, self.drawn[row]))
            captions += [f"{name}: {decibels:.1f} dB" for decibels in quality]
        images = np.concatenate([self.originals, *(self.drawn[row] for row in rows)]).transpose(0, 2, 3, 1)
        title = f"{given.spec.title}: what decoders draw of each layer through one bottleneck (seed {seed})"
        return contact_sheet(images, captions, title, columns=len(self.originals))


@dataclass(frozen=True)
class DecoderPasses:
    """Where images stream through the model to its decoders: nothing of a batch is left when the next one comes."""

    given: Frozen
    layers: Sequence[int]
    seeds: Sequence[int]
    options: Options
    bench: Bench

    def seen(self, pictures: Sequence[Picture], doing: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of preprocessed pixels ``[B, 3, H, W]``, and what is to be drawn of them, ``[B, 3, size, size]`` in
        [0, 1]: the central square of the picture, which every model is shown whole, so that errors mean the same for
        all; or what the model sees by its own crop, without its normalisation."""
        from torch.nn.functional import interpolate

        from clipstudy.backbones.pixels import restored, square
        from clipstudy.features.pictures import batches

        backbone, side, number = self.given.backbone, self.options.size, self.options.batch_size
        whole = self.options.crop == "square"
        shown = batches(partial(backbone.preprocess, whole=whole), pictures, number)
        squares: Iterable[tuple[Any, Tensor | None]] = repeat((None, None))
        if whole:
            squares = batches(partial(square, size=side), pictures, number)
        for (rows, decoded), (_, images) in zip(shown, squares, strict=False):
            self.bench.progress(doing, int(rows[0]), len(pictures))
            pixels = decoded.to(self.bench.device)
            if images is None:
                images = interpolate(restored(backbone, pixels), size=(side, side), mode="bilinear", antialias=True)
            yield pixels, images.to(self.bench.device)
        self.bench.progress(doing, len(pictures), len(pictures))

    def maps(self, pixels: Tensor) -> dict[int, Tensor]:
        """Maps of all layers in one pass, as many images at once as the model's table says; the pixels among them."""
        import torch

        from clipstudy.probes.decoder import PIXELS

        backbone, portion = self.given.backbone, self.given.spec.batch_size
        parts = [backbone.states(part, self.layers) for part in pixels.split(portion)]
        return {PIXELS: pixels, **{layer: torch.cat([part[layer].map for part in parts]) for layer in self.layers}}

    def mean_image(self, pictures: Sequence[Picture]) -> Tensor:
        """The mean of ``pictures``, ``[3, size, size]``: what to draw where a map tells nothing."""
        import torch

        total = torch.zeros(3, self.options.size, self.options.size, dtype=torch.float64)
        for _, images in self.seen(pictures, "mean image"):
            total += images.sum(0).cpu()
        return (total / len(pictures)).float()

    def train(self, pictures: Sequence[Picture], mean: Tensor) -> Trained:
        """A decoder for each layer and seed, all from one pass of the model over each batch."""
        import torch

        from clipstudy.probes.decoder import Decoders, Recipe

        steps = self.options.steps
        blank = self.maps(torch.zeros(1, 3, *self.given.backbone.size, device=self.bench.device))
        shapes = {layer: tuple(states.shape[1:]) for layer, states in blank.items()}
        recipe = Recipe(**{field.name: getattr(self.options, field.name) for field in fields(Recipe)})
        decoders = Decoders(shapes, mean, recipe, self.seeds, self.bench.device)
        errors: dict[int, list[Tensor]] = {layer: [] for layer in shapes}
        for step, (pixels, images) in enumerate(self.seen(pictures, "train")):
            losses = decoders.step(self.maps(pixels), images)
            if step >= steps - max(1, steps // 10):
                for (layer, _), loss in losses.items():
                    errors[layer].append(loss)
        return Trained(decoders, shapes, {layer: float(torch.stack(late).mean()) for layer, late in errors.items()})

    def reconstruct(self, pictures: Sequence[Picture], mean: Tensor, decoders: Decoders) -> Reconstructions:
        """Every one of ``pictures`` drawn by every decoder; scored batch by batch, and but a few kept."""
        import numpy as np

        from clipstudy.features.pictures import spread
        from clipstudy.metrics import squared_error, ssim

        def blank(rows: int) -> Scores:
            return Scores(np.empty((rows, len(pictures))), np.empty((rows, len(pictures))))

        def score(scores: Scores, row: int, at: slice, truth: NDArray[Any], made: NDArray[Any]) -> None:
            scores.mse[row, at], scores.ssim[row, at] = squared_error(truth, made), ssim(truth, made)

        floor, of = blank(1), {layer: blank(len(self.seeds)) for layer, _ in decoders.each}
        shown = spread(SHOWN, len(pictures))
        originals: list[NDArray[Any]] = []
        drawn: dict[int, list[NDArray[Any]]] = {layer: [] for layer in of}
        start = 0
        for pixels, images in self.seen(pictures, "reconstruct"):
            at = slice(start, start + len(images))
            kept = shown[(at.start <= shown) & (shown < at.stop)] - start
            truth, maps = images.cpu().numpy(), self.maps(pixels)
            originals.append(truth[kept])
            score(floor, 0, at, truth, np.broadcast_to(mean.numpy(), truth.shape))
            for layer, seed in decoders.each:
                made = decoders.draw(maps, (layer, seed)).cpu().numpy()
                score(of[layer], self.seeds.index(seed), at, truth, made)
                if seed == self.seeds[0]:
                    drawn[layer].append(made[kept])
            start = at.stop
        figures = {layer: np.concatenate(parts) for layer, parts in drawn.items()}
        return Reconstructions(of, floor, np.concatenate(originals), figures)
