"""What an image looks like, in numbers: pure functions of one image, ``[H, W, 3]`` in [0, 1].

They put numbers to the words with which feature visualisations are described: gradients, textures, edges, colours.
Frequencies are in cycles a pixel, so only images of one size compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy.metrics import ROUNDING
from clipstudy.probes.brightness import brightness, gradient

#: Above this many cycles a pixel a frequency is high: half of what pixels can hold.
HIGH = 0.25
#: Levels of each colour that :func:`colour_entropy` tells apart.
LEVELS = 8
#: A step of an eighth of the range has an edge, and half of that goes on with one: gradients a pixel, after smoothing.
STRONG, WEAK = 0.04, 0.02


def spectral_slope(image: NDArray[Any]) -> float:
    """How fast power falls with frequency: the a of power ~ 1 / f^a, by least squares on the logarithms of its means
    over rings a frequency step wide. About 2 for photographs (Field 1987, JOSA A 4), 0 for white noise and for nothing
    at all."""
    frequency, power, floor = _spectrum(image)
    step = 1 / max(power.shape)
    ring = np.rint(frequency / step).astype(int).ravel()
    counts = np.bincount(ring)
    means = np.bincount(ring, power.ravel()) / np.maximum(counts, 1)
    rings = np.arange(2, int(0.5 / step))  # the first loses to the window what the mean holds of it
    # What lies under the floor is lost in any image of 8 bits.
    slope, _ = np.polyfit(np.log(rings), np.log(means[rings] + floor), 1)
    return float(-slope) + 0.0  # no negative nought


def high_frequency(image: NDArray[Any]) -> float:
    """Share of the power, the mean left out, above :data:`HIGH` cycles a pixel: 0 for nothing at all, 0.8 for white
    noise."""
    frequency, power, floor = _spectrum(image)
    return float(power[frequency > HIGH].sum() / (power.sum() + floor))


def total_variation(image: NDArray[Any]) -> float:
    """Mean length of a colour's gradient (Rudin, Osher & Fatemi 1992, Physica D 60), in ranges a pixel."""
    down = image[1:, :-1] - image[:-1, :-1]
    right = image[:-1, 1:] - image[:-1, :-1]
    return float(np.hypot(down, right).mean())


def edge_density(image: NDArray[Any]) -> float:
    """Share of pixels on an edge of the brightness (Canny 1986, PAMI 8): smoothed by one pixel, thinned along the
    gradient, and kept where strong or connected to what is strong."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(brightness(image), 1.0, mode="nearest")
    down, right = (way / 8 for way in gradient(smooth))
    length = np.hypot(down, right)
    unit = np.stack([down, right]) / np.maximum(length, np.finfo(float).tiny)
    here = np.indices(length.shape)
    ahead, behind = (ndimage.map_coordinates(length, here + way * unit, order=1, mode="nearest") for way in (1, -1))
    # Of two equal neighbours one is the edge. A step between two pixels makes them equal but for rounding.
    crest = (length > behind + 1e-9) & (length >= ahead - 1e-9)
    pieces, _ = ndimage.label(crest & (length > WEAK), structure=np.ones((3, 3)))
    strong = np.unique(pieces[crest & (length > STRONG)])
    return float(np.isin(pieces, strong[strong > 0]).mean())


def colour_entropy(image: NDArray[Any]) -> float:
    """Entropy of the image's colours in bits, told apart by :data:`LEVELS` of red, green and blue: 0 for one colour,
    at most 9 and never above the logarithm of the number of pixels."""
    level = np.minimum((np.asarray(image) * LEVELS).astype(int), LEVELS - 1).reshape(-1, 3)
    shares = np.bincount(level @ (LEVELS**2, LEVELS, 1)) / len(level)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum()) + 0.0


#: Every measure by its metric's name.
MEASURES: Mapping[str, Callable[[NDArray[Any]], float]] = MappingProxyType(
    {
        "high_frequency": high_frequency,
        "spectral_slope": spectral_slope,
        "total_variation": total_variation,
        "edge_density": edge_density,
        "colour_entropy": colour_entropy,
    }
)


def _spectrum(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Frequencies in cycles a pixel and the power of all colours there, ``[H, W]`` both, and what power rounding to 8
    bits has there.

    A Hann window keeps the step from one border to the other, which no one sees, out of the spectrum.
    """
    height, width = image.shape[:2]
    window = np.outer(_hann(height), _hann(width))[..., None]
    mean = (image * window).sum((0, 1)) / window.sum()
    power = (np.abs(np.fft.fft2((image - mean) * window, axes=(0, 1))) ** 2).sum(-1)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return frequency, power, float(3 * ROUNDING * (window**2).sum())


def _hann(size: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2)
