"""Scenes → pixels, batched in numpy.

Every pixel of a scene follows from the scene alone, whatever batch it is drawn in, and from additions, products and
table look-ups only, so that a seed gives the same pictures on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipstudy.pocket.images.grounds import ground_table
from clipstudy.pocket.images.scenes import MOST, Scene, SceneObject
from clipstudy.pocket.images.silhouettes import GRID, REACH, SHAPES, TEXTURES, shape_table, texture_table

#: Scenes drawn at once: so few that their pixels stay in a core's cache.
CHUNK = 16
STRIPS = 3
#: The random numbers behind all that a scene does not name: what they are for → how many.
NUMBERS = {"tones": 18, "greys": 6, "coarse": 5, "fine": 5, "veil": 1, "strips": 4 * STRIPS, "light": 6, "noise": 1}


@dataclass(frozen=True)
class Rendered:
    """Pictures and what is in them."""

    images: np.ndarray  #: uint8 [n, size, size, 3]
    masks: np.ndarray  #: bool [n, MOST, size, size]: the pixels that show any of object k, the main one first
    fine: np.ndarray  #: int64 [n]
    coarse: np.ndarray  #: int64 [n]


def render(scenes: Sequence[Scene], size: int = 64, noise: bool = True) -> Rendered:
    """Draw scenes at ``size`` × ``size`` pixels (32–64 is what the shapes are made for)."""
    images = np.empty((len(scenes), size, size, 3), dtype=np.uint8)
    masks = np.zeros((len(scenes), MOST, size, size), dtype=bool)
    for start in range(0, len(scenes), CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = _draw(scenes[part], size, noise, masks[part])
    fine = np.array([scene.fine for scene in scenes], dtype=np.int64)
    coarse = np.array([scene.coarse for scene in scenes], dtype=np.int64)
    return Rendered(images, masks, fine, coarse)


def _draw(scenes: Sequence[Scene], size: int, noise: bool, masks: np.ndarray) -> np.ndarray:
    draws = [np.random.Generator(np.random.PCG64(scene.seed)) for scene in scenes]
    drawn = np.stack([draw.random(sum(NUMBERS.values()), dtype=np.float32) for draw in draws])
    parts = np.split(drawn, np.cumsum(list(NUMBERS.values()))[:-1], axis=1)
    numbers = dict(zip(NUMBERS, parts, strict=True))
    canvas = _background(numbers, size)  # [m, 3, size, size], 0–255
    # Companions first and the main object last: nothing hides it.
    for k in reversed(range(MOST)):
        rows = [i for i, scene in enumerate(scenes) if len(scene.objects) > k]
        if rows:
            _paint([scenes[i].objects[k] for i in rows], np.array(rows), k, canvas, masks)
    canvas *= _light(numbers["light"], size)
    if noise:
        strength = 6 + 16 * numbers["noise"]
        bytes_ = np.stack([draw.integers(0, 256, (2, 3, size, size), dtype=np.uint8) for draw in draws])
        # The sum of two uniform numbers: close enough to a Gaussian, and exact everywhere.
        both = bytes_[:, 0].astype(np.float32)
        both += bytes_[:, 1]
        both -= 255
        canvas += both * (strength[:, :, None, None] / 255)
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8).transpose(0, 2, 3, 1)


def _paint(things: list[SceneObject], rows: np.ndarray, k: int, canvas: np.ndarray, masks: np.ndarray) -> None:
    size = canvas.shape[-1]
    x, y, radius, lean, grain = (
        np.array([getattr(thing, name) for thing in things]) for name in ("x", "y", "radius", "angle", "grain")
    )
    shapes, textures = list(SHAPES), list(TEXTURES)
    at = _cells(x, y, radius, lean, size)
    at += (np.array([shapes.index(t.shape) for t in things], dtype=np.int32) * GRID**2)[:, None, None]
    # Distance in pixels → coverage with a soft edge one pixel wide.
    cover = shape_table().ravel()[at]
    cover *= (-size * radius.astype(np.float32))[:, None, None]
    cover += 0.5
    np.clip(cover, 0, 1, out=cover)

    at = _cells(x, y, radius, grain, size)
    at += (np.array([textures.index(t.texture) for t in things], dtype=np.int32) * GRID**2)[:, None, None]
    inked = texture_table().ravel()[at]
    rgb, ink = (np.array([getattr(t, name) for t in things], dtype=np.float32) for name in ("rgb", "ink"))
    below = canvas[rows]
    for c in range(3):
        paint = inked * (ink[:, c] - rgb[:, c])[:, None, None]
        paint += rgb[:, c][:, None, None]
        paint -= below[:, c]
        paint *= cover
        below[:, c] += paint
    canvas[rows] = below
    shown = cover > 0
    masks[rows, k + 1 :] &= (cover < 1)[:, None]
    masks[rows, k] = shown


def _cells(x: np.ndarray, y: np.ndarray, radius: np.ndarray, angle: np.ndarray, size: int) -> np.ndarray:
    """Which cell of a shape or texture table each pixel falls in: int32 ``[m, size, size]``."""
    pixels = (np.arange(size) + 0.5) / size
    scale = GRID / (2 * REACH) / radius
    cos, sin = np.round(np.cos(angle), 6) * scale, np.round(np.sin(angle), 6) * scale
    dx, dy = pixels[None] - x[:, None], pixels[None] - y[:, None]
    middle = GRID / 2
    across = _outer(dx * cos[:, None] + middle, dy * sin[:, None])
    down = _outer(-dx * sin[:, None] + middle, dy * cos[:, None])
    cells = np.clip(down, 0, GRID - 1, out=down).astype(np.int32)
    cells *= GRID
    cells += np.clip(across, 0, GRID - 1, out=across).astype(np.int32)
    return cells


def _outer(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``[m, size]`` and ``[m, size]`` → ``[m, size, size]``, float32."""
    return columns.astype(np.float32)[:, None, :] + rows.astype(np.float32)[:, :, None]


def _background(numbers: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Two muted colours in a coarse pattern, a third in a fine one over it, strips across: ``[m, 3, size, size]``."""
    # Halfway to grey: objects are brighter as a rule, yet no hue belongs to the objects alone.
    tones = 235 * (0.5 * numbers["tones"].reshape(-1, 3 + STRIPS, 3) + 0.5 * numbers["greys"][:, :, None])
    first, second, third, *over = tones[..., None, None].swapaxes(0, 1)
    canvas = first + _ground(numbers["coarse"], size, coarse=True)[:, None] * (second - first)
    veil = 0.35 + 0.4 * numbers["veil"][:, :, None, None]
    canvas += _ground(numbers["fine"], size, coarse=False)[:, None] * veil * (third - canvas)
    pixels = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)[None]
    for k, colour in enumerate(over):
        place, lean, thick, cover = (numbers["strips"][:, 4 * k + j, None] for j in range(4))
        # A slope, not an angle: it leans up to a half turn between the axes without a sine.
        away = _outer((2 * lean - 1) * pixels, pixels - 1.2 * (place - 0.5))
        if k % 2:
            away = away.swapaxes(1, 2)
        # A thickness below zero is a strip that is not there.
        inside = np.clip(0.5 + size * (0.09 * thick[..., None] - 0.025 - np.abs(away)), 0, 1)
        inside *= np.minimum(40 * np.maximum(thick[..., None] - 0.3, 0), 0.4 + 0.5 * cover[..., None])
        canvas += inside[:, None] * (colour - canvas)
    return canvas


def _ground(numbers: np.ndarray, size: int, coarse: bool) -> np.ndarray:
    """A turned, scaled and shifted piece of a background pattern, 0–1: ``[m, size, size]``."""
    table = ground_table(coarse)
    kinds, period = table.shape[0], table.shape[1]
    kind = (numbers[:, 0] * kinds).astype(np.int32)
    scale = period * (0.5 + 0.7 * numbers[:, 1])
    # (1 - t², 2t) / (1 + t²) is a rotation with neither sine nor cosine.
    t = 2 * numbers[:, 2] - 1
    cos, sin = scale * (1 - t * t) / (1 + t * t), scale * 2 * t / (1 + t * t)
    pixels = ((np.arange(size) + 0.5) / size).astype(np.float32)[None]
    # 4 periods ahead, so that what is cut off towards zero is never negative.
    across = _outer(pixels * cos[:, None] + period * (4 + numbers[:, 3, None]), pixels * sin[:, None])
    down = _outer(-pixels * sin[:, None] + period * (4 + numbers[:, 4, None]), pixels * cos[:, None])
    cells = (down.astype(np.int32) & (period - 1)) * period
    cells += across.astype(np.int32) & (period - 1)
    cells += (kind * period * period)[:, None, None]
    return table.ravel()[cells]


def _light(numbers: np.ndarray, size: int) -> np.ndarray:
    """Brightness that falls off across the picture, a little warmer or colder: factors ``[m, 3, size, size]``."""
    gain, dx, dy, *warmth = numbers.T
    line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)[None]
    slope = _outer((0.8 + 0.35 * gain)[:, None] + (dx - 0.5)[:, None] * line, (dy - 0.5)[:, None] * line)
    tint = 1 + 0.14 * (np.stack(warmth, axis=1) - 0.5)
    return slope[:, None] * tint[:, :, None, None]
