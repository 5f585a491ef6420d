"""What a probe reads: a layer's features in three splits, and the labels that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from clipstudy.errors import DataError

#: Rows that are worked on at a time in float64, so that a large split is never copied as a whole.
_ROWS = 8192


@dataclass(frozen=True)
class Inputs:
    """One layer's features: float32 ``[n, d]`` a split, numpy or torch, already standardised if that is wanted."""

    train: Any
    dev: Any
    test: Any

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (self.train, self.dev, self.test))

    def tensors(self, layer: int, device: str | torch.device) -> Inputs:
        """The same as float32 tensors on ``device``.

        Raises:
            DataError: a split holds NaN or an infinity; names ``layer`` (the position in the call) and the row.
            ValueError: the splits are not matrices of one width.
        """
        tensors = {}
        for split in (f.name for f in fields(self)):
            x = getattr(self, split)
            if isinstance(x, np.ndarray) and not x.flags.writeable:
                x = x.copy()  # a file mapped read-only is read here; torch would warn of what nobody does
            x = torch.as_tensor(x, dtype=torch.float32, device=device)
            if x.ndim != 2:
                raise ValueError(f"layer {layer}: {split} features are not [n, d] but {tuple(x.shape)}")
            # The sum is finite wherever all entries are (short of 1e38), and costs no mask of the matrix's size.
            if not x.sum().isfinite() and not (finite := x.isfinite().all(dim=1)).all():
                bad = (~finite).nonzero().flatten().tolist()
                raise DataError(
                    f"Layer {layer} (position in this batch): {len(bad)} of {len(x)} {split} rows hold NaN or "
                    f"infinite features, the first is row {bad[0]}. Check the model's weights and dtype (float32 "
                    "where float16 overflows), then run the layer again."
                )
            tensors[split] = x.contiguous()
        if len({x.shape[1] for x in tensors.values()}) > 1:
            widths = ", ".join(f"{split} {x.shape[1]}" for split, x in tensors.items())
            raise ValueError(f"layer {layer}: the splits differ in width ({widths})")
        return Inputs(**tensors)


@dataclass(frozen=True)
class Labels:
    """One label set: int64 ``[n]`` a split, values 0..C-1. Sets may share inputs (a task, its control)."""

    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


def standardise(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Every split to zero mean and unit variance per dimension **of the training split**: float32 ``[n, d]`` each.

    A dimension that is constant on the training split (up to float32 rounding) carries nothing a probe could learn
    from and becomes 0 everywhere, never NaN.
    """
    train = np.asarray(train)
    mean = sum((block.sum(axis=0) for block in _blocks(train)), np.zeros(train.shape[1])) / len(train)
    square = sum((((block - mean) ** 2).sum(axis=0) for block in _blocks(train)), np.zeros(train.shape[1]))
    deviation = np.sqrt(square / len(train))
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return [_scaled(np.asarray(x), mean, scale) for x in (train, *others)]


@dataclass(frozen=True)
class Principal:
    """The leading principal components of a training split (Pearson 1901; Hotelling 1933)."""

    mean: np.ndarray  #: of the training split, float64 ``[d]``
    components: np.ndarray  #: orthonormal columns, the one with most variance first, float64 ``[d, k]``
    explained: float  #: share of the training split's variance that they hold

    def project(self, x: np.ndarray) -> np.ndarray:
        """``[n, d]`` → its coordinates, float32 ``[n, k]``."""
        out = np.empty((len(x), self.components.shape[1]), dtype=np.float32)
        for start in range(0, len(x), _ROWS):
            out[start : start + _ROWS] = (x[start : start + _ROWS] - self.mean) @ self.components
        return out


def principal(train: np.ndarray, width: int) -> Principal:
    """The ``width`` leading principal components of ``train`` ``[n, d]``; fewer where it varies in fewer directions.

    By the covariance's eigenvectors, in float64 and a block of rows at a time: a library's PCA would hold copies of a
    split that may be larger than memory has room for twice.
    """
    from scipy.linalg import eigh

    rows, d = train.shape
    mean = sum((block.sum(axis=0) for block in _blocks(train)), np.zeros(d)) / rows
    scatter = sum(((block - mean).T @ (block - mean) for block in _blocks(train)), np.zeros((d, d)))
    values, vectors = eigh(scatter, subset_by_index=[max(0, d - width), d - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    # What is left over in float64 is no direction; standardised afterwards it would become one.
    kept = max(1, int((values > values[0] * d * np.finfo(np.float64).eps).sum()))
    vectors = vectors[:, :kept]
    # An eigenvector's sign is anybody's choice, and a probe's start depends on it: its largest entry is positive.
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)]
    total = float(np.trace(scatter))
    explained = float(values[:kept].sum()) / total if total > 0 else 1.0
    return Principal(mean, vectors * np.where(largest < 0, -1.0, 1.0), min(explained, 1.0))


def _scaled(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, dtype=np.float32)
    for start in range(0, len(x), _ROWS):
        out[start : start + _ROWS] = (x[start : start + _ROWS].astype(np.float64) - mean) * scale
    return out


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), _ROWS):
        yield x[start : start + _ROWS].astype(np.float64)
