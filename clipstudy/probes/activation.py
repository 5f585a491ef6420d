"""Images that excite a unit: activation maximisation as lucid does it (Olah, Mordvintsev & Schubert 2017, Distill).

It stands among the probes since an image is fitted here as they are: it needs a backbone and nothing above, and many
are fitted as one. Each step is one forward and one backward pass for a whole chunk of images, through one tensor and
one optimiser, and nothing is mixed over images: each follows from (layer, target, seed) alone, in whatever chunk.

The prior is the same for every model: an image is the Fourier spectrum of three decorrelated colours, scaled by 1/f, so
that a step of the optimiser moves coarse shapes as easily as fine ones; and it must excite the unit through a window
that shifts, turns and zooms, so that no pattern of single pixels will do. Two things differ from lucid: the window is
the size that the model takes, with one resampling in place of one for each transformation; and each image has a window
of its own, where lucid draws one for the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from clipstudy.backbones.backbone import ImageBackbone
from clipstudy.backbones.pixels import normalised
from clipstudy.device import fitting
from clipstudy.errors import ModelError

#: ``channel``: the mean of a channel over its places. ``neuron``: a channel at the centre. ``neurons``: the mean of a
#: set of single places drawn from all channels.
Objective = Literal["channel", "neuron", "neurons"]

# lucid's, whose pixels are of an image of 128.
SPREAD = 0.01  #: standard deviation of the first spectrum
CONTRAST = 1 / 4  #: factor of the image
ZOOM, TURN, SHIFT = 0.1, math.radians(10), (8 + 4) / 2 / 128  #: at most, either way; the shift is a share of the side
GREY = 0.5  #: what the window sees beside the image
#: A square root of the covariance of ImageNet's colours, as lucid gives it: columns are light, blue against red, green
#: against both.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

# What a stream of random numbers is for: its first key, so that no two streams are one.
_TARGETS, _IMAGE = 1, 2


@dataclass(frozen=True)
class Recipe:
    """How images are fitted."""

    objective: Objective
    side: int  #: of an image, in pixels
    steps: int
    learning_rate: float
    robust: bool  #: through a moving window; else through one that lies still


@dataclass(frozen=True)
class Target:
    """What an image is to excite: the mean of ``units``, which count the responses of :func:`responses`."""

    number: int  #: its channel; of a set of neurons, the set's own number
    units: tuple[int, ...]


@dataclass(frozen=True)
class Fitted:
    """Images, in the order asked for."""

    images: NDArray[np.float32]  #: ``[N, side, side, 3]``, in [0, 1]
    activation: NDArray[np.float64]  #: ``[N]``: of the objective, through a window that lies still
    scrambled: NDArray[np.float32]  #: the same spectra with the phases of the noise that they began as
    noise: NDArray[np.float64]  #: what these excite: all that spectrum and colour do without shape


def targets(layer: int, shape: Sequence[int], objective: Objective, count: int, neurons: int) -> list[Target]:
    """``count`` targets of a layer, drawn by its number alone, so the same for every seed and every model of its shape;
    all there are, if fewer.

    Args:
        shape: of the layer's map: channels, rows, columns.
        neurons: units of a set; all there are, if fewer.
    """
    rng = np.random.default_rng([_TARGETS, layer])
    channels, everything = shape[0], math.prod(shape)
    if objective == "neurons":
        return [
            Target(number, tuple(rng.choice(everything, min(neurons, everything), replace=False).tolist()))
            for number in range(count)
        ]
    chosen = sorted(rng.choice(channels, min(count, channels), replace=False).tolist())
    return [Target(channel, (channel,)) for channel in chosen]


def responses(states: Tensor, objective: Objective) -> Tensor:
    """How strongly each unit responds to each image: ``[B, U]`` of maps ``[B, C, H, W]``, in single precision. A unit
    is what the objective says: a channel's mean, a channel at the centre, or any single place of any channel."""
    if objective == "channel":
        return states.float().mean((2, 3))
    if objective == "neuron":
        return states[:, :, states.shape[2] // 2, states.shape[3] // 2].float()
    return states.float().flatten(1)


def maximise(
    backbone: ImageBackbone,
    layer: int,
    asked: Sequence[tuple[Target, int]],
    recipe: Recipe,
    *,
    chunk: int,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Fitted:
    """One image for each target and seed.

    Args:
        chunk: images that are fitted at once; fewer where they do not fit in memory. It changes an image no more than
            the rounding of a batched product does.
        on_progress: called after every step with (steps of images done, of).

    Raises:
        DeviceError: not even one image fits in memory.
        ModelError: the model gives values that are not finite.
    """
    rows, columns = backbone.size
    hopeless = (
        f"one image of {rows} × {columns} pixels with its gradients does not fit in the device's memory with "
        f"[models.{backbone.name}]. Use another device."
    )
    chunks: list[Fitted] = []
    done, fits, total = 0, chunk, len(asked) * recipe.steps
    with _redirected(backbone.module):
        while done < len(asked):
            wanted = asked[done : done + fits]

            def after(step: int, before: int = done * recipe.steps, many: int = len(wanted)) -> None:
                on_progress(before + step * many, total)

            work = partial(_fit, backbone, layer, wanted, recipe, device, after)
            fitted = fitting(work, hopeless if len(wanted) == 1 else None)
            if fitted is None:
                fits = len(wanted) // 2
            else:
                chunks.append(fitted)
                done += len(wanted)
    return Fitted(
        *(np.concatenate([getattr(f, name) for f in chunks]) for name in ("images", "activation", "scrambled", "noise"))
    )


def _fit(
    backbone: ImageBackbone,
    layer: int,
    wanted: Sequence[tuple[Target, int]],
    recipe: Recipe,
    device: str,
    on_step: Callable[[int], None],
) -> Fitted:
    """One chunk of images, all steps of them."""
    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    streams = [np.random.default_rng([_IMAGE, layer, target.number, seed]) for target, seed in wanted]
    size = (3, recipe.side, recipe.side // 2 + 1, 2)
    first = np.stack([stream.standard_normal(size, np.float32) for stream in streams])
    moves = np.stack([stream.uniform(-1, 1, (recipe.steps, 4)).astype(np.float32) for stream in streams])
    spectrum = (SPREAD * torch.from_numpy(first)).to(device).requires_grad_()
    windows = torch.from_numpy(moves if recipe.robust else np.zeros_like(moves)).to(device)
    still = torch.zeros(len(wanted), 4, device=device)
    units = torch.tensor([target.units for target, _ in wanted], device=device)

    def activation(images: Tensor, window: Tensor, gradients: bool) -> Tensor:
        pixels = normalised(backbone, through(images, window, backbone.size))
        states = backbone.states(pixels, [layer], gradients=gradients)[layer].map
        return responses(states, recipe.objective).gather(1, units).mean(1)

    def seen(spectrum: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        with torch.no_grad():
            images = painted(spectrum, recipe.side)
            value = activation(images, still, gradients=False)
        return images.permute(0, 2, 3, 1).cpu().numpy(), value.double().cpu().numpy()

    optimiser = torch.optim.Adam([spectrum], lr=recipe.learning_rate)
    for step in range(recipe.steps):
        optimiser.zero_grad()
        # The sum: each image has its own gradient, as large as if it were alone.
        (-activation(painted(spectrum, recipe.side), windows[:, step], gradients=True).sum()).backward()
        optimiser.step()
        on_step(step + 1)
    images, value = seen(spectrum)
    if not np.isfinite(value).all() or not np.isfinite(images).all():
        raise ModelError(
            f"[models.{backbone.name}] layer {layer} has values or gradients that are not finite. Check its weights, "
            'or write dtype = "float32".'
        )
    return Fitted(images, value, *seen(_scrambled(spectrum.detach(), torch.from_numpy(first).to(device))))


def painted(spectrum: Tensor, side: int) -> Tensor:
    """Images in [0, 1], ``[B, 3, side, side]``, of spectra ``[B, 3, side, side // 2 + 1, 2]``."""
    down, right = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    frequency = torch.hypot(down[:, None], right).clamp(min=1 / side)  # the mean is moved as the lowest frequency is
    scale = (side / frequency).to(spectrum.device)
    plain = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, s=(side, side)) * CONTRAST
    mixing = torch.tensor(COLOURS, device=spectrum.device)
    mixing = mixing / mixing.norm(dim=0).max()
    return torch.einsum("ck,bkhw->bchw", mixing, plain).sigmoid()


def _scrambled(spectrum: Tensor, noise: Tensor) -> Tensor:
    """The amplitudes of ``spectrum`` with the phases of ``noise``, and its mean colour."""
    # What an image has of either: of two frequencies that mirror one another it takes the mean, which phases of their
    # own would halve.
    spectrum, noise = map(_of_an_image, (spectrum, noise))
    mixed = noise * (spectrum.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
    mixed[..., 0, 0, :] = spectrum[..., 0, 0, :]
    return mixed


def _of_an_image(spectrum: Tensor) -> Tensor:
    """The spectrum of the real image that ``spectrum`` makes."""
    side = spectrum.shape[-3]
    plain = torch.fft.irfft2(torch.view_as_complex(spectrum.contiguous()), s=(side, side))
    return torch.view_as_real(torch.fft.rfft2(plain))


def through(images: Tensor, moves: Tensor, size: tuple[int, int]) -> Tensor:
    """What a window of ``size`` shows of each image: ``[B, 3, *size]``, bilinear, grey beside the image.

    Args:
        moves: ``[B, 4]``, each in [−1, 1]: how far the image is zoomed, turned, shifted right and down.
    """
    zoom, turn = 1 + ZOOM * moves[:, 0], TURN * moves[:, 1]
    right, down = (2 * SHIFT * moves[:, 2:]).unbind(1)  # the sampling grid's side is 2
    cosine, sine = turn.cos() / zoom, turn.sin() / zoom
    places = torch.stack([torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)], 1)
    grid = F.affine_grid(places, [len(images), 3, *size], align_corners=False)
    return F.grid_sample(images - GREY, grid, align_corners=False) + GREY


class _Redirected(torch.autograd.Function):
    """A rectifier that lets a silent unit be woken: where an image's gradient would end at closed units altogether,
    what pushes them up is let through, as lucid does it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        output = x.clamp(min=0)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (output,), (gradient,) = ctx.saved_tensors, gradients
        passed: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
        ended = passed.abs().amax(tuple(range(1, passed.ndim)), keepdim=True) == 0
        if not ended.any():
            return passed
        # A gradient below 0 is one whose unit, rising, lowers the loss.
        return torch.where(ended, gradient.clamp(max=0), passed)


@contextmanager
def _redirected(model: nn.Module) -> Iterator[None]:
    """Within it, the model's rectifiers are :class:`_Redirected`. Smooth ones (GELU) end no gradient and stay."""
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for rectifier in rectifiers:
        rectifier.forward = _Redirected.apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        for rectifier in rectifiers:
            del rectifier.forward
