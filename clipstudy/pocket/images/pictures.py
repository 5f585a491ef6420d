"""Scenes as files, in the layout of the Hub's CIFAR-100, and what the simplest classifiers make of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipstudy.pocket.images.drawing import Rendered, render
from clipstudy.pocket.images.scenes import COARSE, FINE, sample
from clipstudy.pocket.images.silhouettes import TEXTURES

#: Pictures a split.
SIZES = {"train": 10_000, "test": 2_000}
#: Pictures in memory at once.
GROUP = 1_000

ABOUT = """# Pocket scenes

Rendered pictures, {size} × {size} pixels, in the layout of CIFAR-100: {rows}. Drawn from seed {seed}.

| column | meaning |
|---|---|
| `img` | PNG, RGB |
| `fine_label` | {fines} classes, a shape in a texture: `{first}`, …, `{last}` |
| `coarse_label` | {coarses} classes, the shape: {shapes} |
| `mask` | PNG, one number a pixel: 0 background, 1 the main object (the labelled one), 2 and 3 its companions |

The main object is the largest. Its colour, size, place and angle are independent of its class.
"""


def write(folder: Path, seed: int, sizes: Mapping[str, int] | None = None, size: int = 64) -> list[Path]:
    """Write ``<split>-00000-of-00001.parquet`` for each split, and a README that names the columns.

    Args:
        folder: made if missing; files of the same name are replaced.
        seed: each split's scenes follow from (seed, number of the split).
        sizes: split → pictures; ``SIZES`` by default.
        size: side of a picture, in pixels.
    """
    import pyarrow.parquet as pq

    sizes = dict(SIZES if sizes is None else sizes)
    folder.mkdir(parents=True, exist_ok=True)
    schema = _schema()
    paths = []
    for number, (split, rows) in enumerate(sizes.items()):
        path = folder / f"{split}-00000-of-00001.parquet"
        # PNG is compressed already.
        with pq.ParquetWriter(path, schema, compression="none") as file:
            for table in _tables(np.random.default_rng([seed, number]), split, rows, size, schema):
                file.write_table(table)
        paths.append(path)
    text = ABOUT.format(
        size=size, seed=seed, rows=", ".join(f"{n:,} {split}" for split, n in sizes.items()), first=FINE[0],
        last=FINE[-1], fines=len(FINE), coarses=len(COARSE), shapes=", ".join(COARSE),
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
    return paths


def index_map(masks: np.ndarray) -> np.ndarray:
    """Masks ``[objects, h, w]`` → uint8 ``[h, w]``: 0 background, k + 1 object k; a shared edge goes to the lower k."""
    return np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """uint8 ``[h, w]`` or ``[h, w, 3]`` as a PNG file."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(pixels).save(held, format="png", compress_level=1)
    return held.getvalue()


def _tables(rng: np.random.Generator, split: str, rows: int, size: int, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    scenes = sample(rng, rows)
    for start in range(0, rows, GROUP):
        drawn = render(scenes[start : start + GROUP], size)
        names = [f"{split}-{start + i:06d}" for i in range(len(drawn.images))]
        columns = {
            "img": [{"bytes": png(i), "path": f"{n}.png"} for i, n in zip(drawn.images, names, strict=True)],
            "fine_label": drawn.fine.tolist(),
            "coarse_label": drawn.coarse.tolist(),
            "mask": [
                {"bytes": png(index_map(m)), "path": f"{n}-mask.png"} for m, n in zip(drawn.masks, names, strict=True)
            ],
        }
        yield pa.table(columns, schema=schema)


def _schema() -> Any:
    """The columns, with class names where the ``datasets`` library keeps and finds them."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": list(FINE), "_type": "ClassLabel"},
        "coarse_label": {"names": list(COARSE), "_type": "ClassLabel"},
        "mask": {"_type": "Image"},
    }
    kinds = {"img": image, "fine_label": pa.int64(), "coarse_label": pa.int64(), "mask": image}
    return pa.schema(list(kinds.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def baselines(seed: int = 0, train: int = 5_000, test: int = 2_000) -> dict[str, dict[str, float]]:
    """Test accuracy of what needs no representation, by baseline, for shape, texture and fine class.

    ``majority``; logistic regression on the ``colour histogram`` (4 × 4 × 4 bins) and on ``raw pixels`` (16 × 16);
    and ``given the mask``: on the main object cut out by its mask and scaled to 16 × 16, in grey: what there is to
    be seen once the object is found.
    """
    rng = np.random.default_rng([seed, 99])
    fit, held = render(sample(rng, train)), render(sample(rng, test))
    inputs = {"majority": None, "colour histogram": _histogram, "raw pixels": _thumbnail, "given the mask": _cutout}
    table: dict[str, dict[str, float]] = {}
    for name, describe in inputs.items():
        table[name] = {}
        for label in ("shape", "texture", "fine"):
            y, truth = _labels(fit, label), _labels(held, label)
            guess = np.bincount(y).argmax() if describe is None else _regress(describe(fit), y, describe(held))
            table[name][label] = float((guess == truth).mean())
    return table


def _labels(drawn: Rendered, label: str) -> np.ndarray:
    return {"shape": drawn.coarse, "texture": drawn.fine % len(TEXTURES), "fine": drawn.fine}[label]


def _regress(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.003, max_iter=200, tol=1e-2).fit((x - mean) / sd, y)
    return np.asarray(model.predict((held - mean) / sd))


def _histogram(drawn: Rendered) -> np.ndarray:
    bins = (drawn.images // 64).astype(np.int64) @ np.array([16, 4, 1])
    counts = np.stack([np.bincount(image.ravel(), minlength=64) for image in bins])
    return np.sqrt(counts / bins[0].size)


def _thumbnail(drawn: Rendered, side: int = 16) -> np.ndarray:
    n, size = drawn.images.shape[:2]
    step = size // side
    blocks = drawn.images.reshape(n, side, step, side, step, 3).astype(np.float32)
    return blocks.mean(axis=(2, 4)).reshape(n, -1) / 255


def _cutout(drawn: Rendered, side: int = 16) -> np.ndarray:
    """Mask and grey values of the main object, its bounding box scaled to ``side`` × ``side``."""
    grey = drawn.images.mean(axis=3)
    rows = []
    for picture, mask in zip(grey, drawn.masks[:, 0], strict=True):
        down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y, x = (np.round(np.linspace(found[0], found[-1], side)).astype(int) for found in (down, across))
        cut, inside = picture[np.ix_(y, x)], mask[np.ix_(y, x)]
        centred = np.where(inside, cut - cut[inside].mean(), 0) / (cut[inside].std() + 8)
        rows.append(np.concatenate([inside.ravel(), centred.ravel(), np.abs(centred).ravel()]))
    return np.array(rows, dtype=np.float32)
