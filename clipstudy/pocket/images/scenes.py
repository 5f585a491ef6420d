"""What is in a picture: a main object, up to two smaller companions, and a seed for all that no caption speaks of.

The class of a picture is its main object's: 20 coarse classes are shapes, 100 fine ones a shape in a texture. Colour,
size, place and angle are drawn independently of the class. The main object is the largest one, and it may be
anywhere: in a world with centred objects a fixed blob in the middle would pass for attention to the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipstudy.pocket.images.silhouettes import SHAPES, TEXTURES

#: Colour word → RGB (0–255). What is drawn differs from it by up to ``SHADE`` a channel.
COLOURS = {
    "red": (212, 45, 45),
    "orange": (240, 138, 36),
    "yellow": (244, 214, 62),
    "green": (58, 166, 78),
    "blue": (48, 98, 214),
    "purple": (138, 66, 190),
    "pink": (244, 138, 186),
    "brown": (128, 84, 50),
    "white": (238, 238, 236),
    "black": (36, 36, 42),
}
SHADE = 14

#: Size word → radius of the circle around the object, as a share of the picture's side. Gaps keep the words apart.
SIZES = {"tiny": (0.1, 0.115), "small": (0.145, 0.165), "large": (0.195, 0.22), "huge": (0.25, 0.285)}

#: Objects lean at most so far (radians) to either side: a full turn would make arrows and moons mean nothing.
LEAN = 0.7
#: Centres of main objects fill the square from ``EDGE`` to ``1 - EDGE`` evenly; companions keep nearer to the rim.
EDGE, COMPANION_EDGE = 0.16, 0.1
#: The most objects in a scene, the main one included.
MOST = 3

COARSE = tuple(SHAPES)
FINE = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object: words for captions, numbers for the renderer."""

    shape: str
    texture: str
    colour: str
    size: str
    x: float  #: centre, as a share of the side; 0 is left
    y: float  #: 0 is the top
    radius: float  #: of the circle around it, as a share of the side
    angle: float  #: how far it leans, in radians
    grain: float  #: direction of the texture, in radians
    rgb: Rgb
    ink: Rgb  #: second colour of its texture

    @property
    def place(self) -> tuple[str, str]:
        """Thirds of the picture: (top | middle | bottom, left | centre | right)."""
        row, column = min(int(self.y * 3), 2), min(int(self.x * 3), 2)
        return ("top", "middle", "bottom")[row], ("left", "centre", "right")[column]


@dataclass(frozen=True, slots=True)
class Scene:
    """The facts of one picture. Equal scenes give equal pixels."""

    objects: tuple[SceneObject, ...]  #: the main object first
    seed: int  #: of background, light and noise

    @property
    def main(self) -> SceneObject:
        return self.objects[0]

    @property
    def fine(self) -> int:
        """Index into ``FINE``; -1 for a picture without objects."""
        return self.coarse * len(TEXTURES) + list(TEXTURES).index(self.main.texture) if self.objects else -1

    @property
    def coarse(self) -> int:
        """Index into ``COARSE``; -1 for a picture without objects."""
        return COARSE.index(self.main.shape) if self.objects else -1


def relation(one: SceneObject, other: SceneObject) -> str:
    """Where ``one`` is, seen from ``other``: ``left of``, ``right of``, ``above`` or ``below``, by the longer way."""
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def sample(rng: np.random.Generator, n: int) -> list[Scene]:
    """``n`` scenes whose fine classes are as balanced as ``n`` allows, in random order."""
    fine = rng.permutation(np.resize(rng.permutation(len(FINE)), n))
    colour = rng.integers(len(COLOURS), size=n)
    return _arrange(rng, fine // len(TEXTURES), fine % len(TEXTURES), colour)


def rerender(rng: np.random.Generator, scenes: Sequence[Scene]) -> list[Scene]:
    """The same main objects elsewhere: new size, place, lean, shade, companions, background, light and noise.

    Two such scenes are a positive pair for self-supervision. It uses the generator's knowledge of what an object is,
    which crops of a photograph do not; say so of a model trained on it.
    """
    shape = np.array([scene.coarse for scene in scenes], dtype=np.int64)
    texture = np.array([scene.fine for scene in scenes], dtype=np.int64) % len(TEXTURES)
    names = list(COLOURS)
    colour = np.array([names.index(scene.main.colour) for scene in scenes], dtype=np.int64)
    return _arrange(rng, shape, texture, colour)


def _arrange(rng: np.random.Generator, shape: np.ndarray, texture: np.ndarray, colour: np.ndarray) -> list[Scene]:
    """Scenes around the given main objects. All draws are arrays: one call draws the same number at any ``n``."""
    n = len(shape)
    # Shapes within a scene differ, so that "the star" means one object.
    step = rng.integers(1, len(SHAPES) // 2, size=(2, n))
    shapes = np.stack([shape, (shape + step[0]) % len(SHAPES), (shape - step[1]) % len(SHAPES)])
    textures = np.concatenate([texture[None], rng.integers(len(TEXTURES), size=(2, n))])
    colours = np.concatenate([colour[None], rng.integers(len(COLOURS), size=(2, n))])
    # A companion is at least one size smaller than the main object, which makes the main one the largest.
    main_size = rng.integers(1, len(SIZES), size=n)
    sizes = np.concatenate([main_size[None], (rng.random((2, n)) * main_size).astype(np.int64)])
    low, high = np.array(list(SIZES.values())).T
    radius = low[sizes] + (high - low)[sizes] * rng.random((MOST, n))
    place = _places(rng, radius)
    angle = LEAN * (2 * rng.random((MOST, n)) - 1)
    grain = np.pi * rng.random((MOST, n))
    palette = np.array(list(COLOURS.values()))
    rgb = np.clip(palette[colours] + rng.integers(-SHADE, SHADE + 1, size=(MOST, n, 3)), 0, 255)
    ink = _inks(rng, rgb)
    count = rng.integers(1, MOST + 1, size=n)
    seeds = rng.integers(2**63, size=n)
    columns: dict[str, Any] = {"x": place[..., 0], "y": place[..., 1], "radius": radius, "angle": angle, "grain": grain}
    columns = {key: values.tolist() for key, values in columns.items()}
    columns |= {"shape": _named(SHAPES, shapes), "texture": _named(TEXTURES, textures)}
    columns |= {"colour": _named(COLOURS, colours), "size": _named(SIZES, sizes)}
    columns |= {
        key: [[tuple(tone) for tone in row] for row in tones.tolist()] for key, tones in [("rgb", rgb), ("ink", ink)]
    }

    def thing(k: int, i: int) -> SceneObject:
        return SceneObject(**{key: values[k][i] for key, values in columns.items()})

    return [Scene(tuple(thing(k, i) for k in range(count[i])), int(seeds[i])) for i in range(n)]


def _named(table: Iterable[str], index: np.ndarray) -> list[list[str]]:
    names = list(table)
    return [[names[i] for i in row] for row in index.tolist()]


def _places(rng: np.random.Generator, radius: np.ndarray, tries: int = 16) -> np.ndarray:
    """Centres ``[MOST, n, 2]``: the main object anywhere, a companion at the first of ``tries`` places that is free."""
    n = radius.shape[1]
    placed = [EDGE + (1 - 2 * EDGE) * rng.random((n, 2))]
    for k in range(1, MOST):
        spots = COMPANION_EDGE + (1 - 2 * COMPANION_EDGE) * rng.random((n, tries, 2))
        crowding = np.zeros((n, tries))
        for j, centre in enumerate(placed):
            gap = np.sqrt(((spots - centre[:, None]) ** 2).sum(axis=2)) - 0.95 * (radius[j] + radius[k])[:, None]
            crowding = np.minimum(crowding, gap)
        # argmax takes the first of equals: the first free place, and the least crowded where none is free.
        placed.append(spots[np.arange(n), crowding.argmax(axis=1)])
    return np.stack(placed)


def _inks(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """A much darker tone of a light colour, a much lighter one of a dark colour, either of a colour in between."""
    luma = (rgb * np.array([3, 6, 1])).sum(axis=-1)  # whole numbers up to 2550
    lighten = luma + rng.integers(-600, 601, size=luma.shape) < 1200
    dark, light = rgb * 0.3, rgb + (255 - rgb) * 0.75
    return np.where(lighten[..., None], light, dark).astype(np.int64)
