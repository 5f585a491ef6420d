"""What scenes stand on: background patterns that repeat without a seam, as tables that the renderer looks up."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Side of a table; a power of two, so that wrapping around is a bit mask.
PERIOD = 128


@lru_cache
def ground_table(coarse: bool) -> np.ndarray:
    """Patterns ``[kinds, PERIOD, PERIOD]`` float32, 0–1: large ones to stand on, or small ones to scatter over them."""
    rng = np.random.Generator(np.random.PCG64(7 if coarse else 8))
    if coarse:
        kinds = [_clouds(rng, 4), _clouds(rng, 8), _cells(rng, 12), _cells(rng, 24), _planks(rng, 8), _hills(rng)]
    else:
        kinds = [_clouds(rng, 32), _pebbles(rng, 30), _cells(rng, 90), _planks(rng, 24), _bricks(), _grass(rng)]
    # Rounded: square roots and sums may differ in the last bit between machines, and pixels must not.
    return np.stack([np.round(kind, 4) for kind in kinds]).astype(np.float32)


def _clouds(rng: np.random.Generator, lattice: int) -> np.ndarray:
    """Random values at ``lattice`` × ``lattice`` points, smoothly joined."""
    values = rng.random((lattice, lattice))
    at = np.arange(PERIOD) * lattice / PERIOD
    near, part = at.astype(int), at % 1
    weight = part * part * (3 - 2 * part)
    far = (near + 1) % lattice
    rows = values[near] * (1 - weight)[:, None] + values[far] * weight[:, None]
    mixed = rows[:, near] * (1 - weight) + rows[:, far] * weight
    return np.clip((mixed - 0.5) * 1.8 + 0.5, 0, 1)


def _spread(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance to each of ``count`` random points ``[count, PERIOD, PERIOD]`` around the seam, and a tone for each."""
    points = rng.random((count, 2)) * PERIOD
    axis = np.arange(PERIOD)
    dx, dy = (np.abs(axis[None] - points[:, k, None]) for k in (0, 1))
    dx, dy = np.minimum(dx, PERIOD - dx), np.minimum(dy, PERIOD - dy)
    return np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2), rng.random(count)


def _cells(rng: np.random.Generator, count: int) -> np.ndarray:
    """Flagstones: every point takes the tone of the nearest of ``count`` points."""
    distance, tones = _spread(rng, count)
    return tones[distance.argmin(axis=0)]


def _pebbles(rng: np.random.Generator, count: int) -> np.ndarray:
    distance, tones = _spread(rng, count)
    nearest = distance.argmin(axis=0)
    away = np.take_along_axis(distance, nearest[None], axis=0)[0]
    return np.clip(3 + 4 * tones[nearest] - away + 0.5, 0, 1) * (0.5 + 0.5 * tones[nearest])


def _planks(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.random(count)[np.arange(PERIOD) * count // PERIOD]
    return np.broadcast_to(rows[:, None], (PERIOD, PERIOD))


def _hills(rng: np.random.Generator) -> np.ndarray:
    """A horizon that repeats: sky above, ground below."""
    line = _clouds(rng, 4)[0] * 30 + 50
    return np.clip(np.minimum(np.arange(PERIOD)[:, None] - line, PERIOD - 6 - np.arange(PERIOD)[:, None]) / 4, 0, 1)


def _bricks() -> np.ndarray:
    y, x = np.mgrid[:PERIOD, :PERIOD]
    shifted = x + np.where(y // 16 % 2 == 0, 0, 16)
    return ((y % 16 < 2) | (shifted % 32 < 2)).astype(float)


def _grass(rng: np.random.Generator) -> np.ndarray:
    """Short blades."""
    field = np.zeros((PERIOD, PERIOD))
    for _ in range(150):
        x, y, length, lean = rng.integers((0, 0, 8, -1), (PERIOD, PERIOD, 18, 2))
        step = np.arange(length)
        field[(y - step) % PERIOD, (x + lean * step // 3) % PERIOD] = 1
        field[(y - step) % PERIOD, (x + 1 + lean * step // 3) % PERIOD] = 0.6
    return field
