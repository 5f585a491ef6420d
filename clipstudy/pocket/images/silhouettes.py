"""The 20 shapes and 5 textures of the scenes, each as a table over the plane that a renderer looks up.

Shapes are signed distances, composed of a few primitives over complex numbers: the real part grows to the right, the
imaginary part downward, as in pictures. ``SHAPES`` may use any units and origin: ``shape_table`` fits every one of
them to the unit circle, so no shape is larger than another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

#: Tables cover the square from -REACH to REACH, where the circle around an object has radius 1, in GRID × GRID points.
GRID, REACH = 192, 1.2

Points = np.ndarray
Distance = np.ndarray


def disc(z: Points, centre: complex, radius: float) -> Distance:
    return np.abs(z - centre) - radius


def bar(z: Points, start: complex, end: complex, radius: float) -> Distance:
    """A line with round ends."""
    along = end - start
    t = np.clip(((z - start) * along.conjugate()).real / abs(along) ** 2, 0, 1)
    return np.abs(z - start - t * along) - radius


def polygon(z: Points, *corners: complex) -> Distance:
    """Negative inside by the even-odd rule."""
    distance = np.full(z.shape, np.inf)
    inside = np.zeros(z.shape, dtype=bool)
    for a, b in zip(corners, (*corners[1:], corners[0]), strict=True):
        distance = np.minimum(distance, bar(z, a, b, 0.0))
        if a.imag != b.imag:
            crosses = (z.imag >= min(a.imag, b.imag)) & (z.imag < max(a.imag, b.imag))
            inside ^= crosses & (z.real < a.real + (z.imag - a.imag) * (b.real - a.real) / (b.imag - a.imag))
    return np.where(inside, -distance, distance)


def box(z: Points, corner: complex, opposite: complex) -> Distance:
    """A rectangle from its top left to its bottom right corner."""
    return polygon(z, corner, complex(opposite.real, corner.imag), opposite, complex(corner.real, opposite.imag))


def union(*parts: Distance) -> Distance:
    return np.minimum.reduce(parts)


def both(*parts: Distance) -> Distance:
    return np.maximum.reduce(parts)


def turn(share: float, radius: float = 1.0) -> complex:
    """The point at ``share`` of a full turn, clockwise from the top."""
    return radius * complex(np.sin(2 * np.pi * share), -np.cos(2 * np.pi * share))


SHAPES: dict[str, Callable[[Points], Distance]] = {
    "circle": lambda z: disc(z, 0, 1),
    "square": lambda z: box(z, -1 - 1j, 1 + 1j),
    "triangle": lambda z: polygon(z, turn(0), turn(1 / 3), turn(2 / 3)),
    "star": lambda z: polygon(z, *(turn(k / 10, 1 if k % 2 == 0 else 0.45) for k in range(10))),
    "heart": lambda z: union(
        disc(z, -0.46 - 0.3j, 0.5), disc(z, 0.46 - 0.3j, 0.5), polygon(z, -0.9 - 0.06j, -0.46j, 0.9 - 0.06j, 0.95j)
    ),
    "cross": lambda z: union(box(z, -0.3 - 1j, 0.3 + 1j), box(z, -1 - 0.3j, 1 + 0.3j)),
    "ring": lambda z: np.abs(disc(z, 0, 0.75)) - 0.25,
    "moon": lambda z: both(disc(z, 0, 1), -disc(z, 0.52 - 0.1j, 0.8)),
    "arrow": lambda z: union(
        polygon(z, -1j, 0.75 - 0.1j, -0.75 - 0.1j), box(z, -0.27 - 0.3j, 0.27 + 1j)
    ),
    "drop": lambda z: union(disc(z, 0.4j, 0.6), polygon(z, -1.05j, 0.54 + 0.14j, -0.54 + 0.14j)),
    "flower": lambda z: union(disc(z, 0, 0.4), *(disc(z, turn(k / 5, 0.62), 0.36) for k in range(5))),
    "house": lambda z: both(
        polygon(z, -1j, 1 - 0.15j, 0.72 - 0.15j, 0.72 + 0.9j, -0.72 + 0.9j, -0.72 - 0.15j, -1 - 0.15j),
        -box(z, -0.2 + 0.3j, 0.2 + 1j),
    ),
    "fish": lambda z: union(
        both(disc(z, -0.25 + 0.55j, 1.1), disc(z, -0.25 - 0.55j, 1.1)),
        polygon(z, 0.3 + 0j, 1.2 - 0.7j, 0.95 + 0j, 1.2 + 0.7j),
    ),
    "mushroom": lambda z: union(
        both(disc(z, 0.15j, 1), box(z, -2 - 2j, 2 + 0.1j)), box(z, -0.3 + 0.0j, 0.3 + 0.95j)
    ),
    "key": lambda z: union(
        np.abs(disc(z, -0.5j, 0.45)) - 0.18,
        box(z, -0.18 - 0.1j, 0.18 + 1.15j),
        box(z, 0 + 0.4j, 0.6 + 0.65j),
        box(z, 0 + 0.88j, 0.6 + 1.15j),
    ),
    "bolt": lambda z: polygon(
        z, 0.05 - 1j, -0.8 + 0.2j, -0.15 + 0.2j, -0.5 + 1j, 0.8 - 0.3j, 0.2 - 0.3j, 0.7 - 1j
    ),
    "tree": lambda z: union(
        polygon(z, -1j, 0.5 - 0.3j, -0.5 - 0.3j),
        polygon(z, -0.7j, 0.68 + 0.2j, -0.68 + 0.2j),
        polygon(z, -0.3j, 0.85 + 0.7j, -0.85 + 0.7j),
        box(z, -0.18 + 0.6j, 0.18 + 1.05j),
    ),
    "crown": lambda z: polygon(
        z, -0.9 + 0.7j, -1 - 0.6j, -0.45 + 0.0j, -0.75j, 0.45 + 0.0j, 1 - 0.6j, 0.9 + 0.7j
    ),
    "hourglass": lambda z: polygon(
        z, -0.7 - 1j, 0.7 - 1j, 0.7 - 0.75j, 0.14 + 0j, 0.7 + 0.75j, 0.7 + 1j, -0.7 + 1j, -0.7 + 0.75j, -0.14 + 0j,
        -0.7 - 0.75j,
    ),
    "cup": lambda z: union(
        polygon(z, -0.9 - 0.8j, 0.4 - 0.8j, 0.25 + 0.8j, -0.75 + 0.8j),
        both(np.abs(disc(z, 0.45 - 0.15j, 0.47)) - 0.14, -box(z, -2 - 2j, 0.3 + 2j)),
    ),
}  # fmt: skip


def _waves(t: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 over ``share`` of each period of ``t``, 0 elsewhere, with soft edges."""
    offset = np.abs((t / period) % 1 - 0.5) * period
    return np.clip(0.5 + (share * period / 2 - offset) / 0.05, 0, 1)


def _dots(z: Points, spacing: float = 0.56, radius: float = 0.17) -> np.ndarray:
    row = np.round(z.imag / spacing)
    shifted = z.real + np.where(row % 2 == 0, 0, spacing / 2)
    apart = np.hypot((shifted / spacing - np.round(shifted / spacing)) * spacing, z.imag - row * spacing)
    return np.clip(0.5 + (radius - apart) / 0.05, 0, 1)


def _checks(z: Points, period: float = 0.8) -> np.ndarray:
    across, down = _waves(z.real + period / 4, period, 0.5), _waves(z.imag + period / 4, period, 0.5)
    return across + down - 2 * across * down


#: Texture → share of ink (0 the object's colour, 1 its second colour) over the plane.
TEXTURES: dict[str, Callable[[Points], np.ndarray]] = {
    "plain": lambda z: np.zeros(z.shape),
    "striped": lambda z: _waves(z.imag, 0.54, 0.46),
    "dotted": _dots,
    "checked": _checks,
    "faded": lambda z: np.clip(0.5 + z.imag * 0.7, 0, 1),
}


def plane() -> Points:
    """The points of a table: ``[GRID, GRID]``, rows downward."""
    line = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH
    return line[None, :] + 1j * line[:, None]


@lru_cache
def shape_table() -> np.ndarray:
    """Signed distance to every shape ``[20, GRID, GRID]`` float32, in radii of the circle around it."""
    return np.stack([_fitted(shape) for shape in SHAPES.values()]).astype(np.float32)


@lru_cache
def texture_table() -> np.ndarray:
    """Share of ink of every texture ``[5, GRID, GRID]`` float32."""
    # Rounding here and there: trigonometry differs in the last bit between machines, and pixels must not.
    return np.stack([np.round(texture(plane()), 4) for texture in TEXTURES.values()]).astype(np.float32)


def _fitted(shape: Callable[[Points], Distance]) -> Distance:
    wide = plane() * 1.5
    found = wide[shape(wide) <= 0]
    centre = complex(found.real.min() + found.real.max(), found.imag.min() + found.imag.max()) / 2
    radius = np.round(np.abs(found - centre).max(), 4)
    return np.round(shape(plane() * radius + centre) / radius, 4)
