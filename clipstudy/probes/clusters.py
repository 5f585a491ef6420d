"""k-means over seeds, each fit on one thread and as many fits at a time as there are threads.

One thread a fit, because scikit-learn adds up its threads' partial sums in the order in which they finish: with
more than two the same seed need not give the same clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from clipstudy.errors import DataError


def kmeans(
    vectors: np.ndarray,
    k: int,
    seeds: Sequence[int],
    *,
    n_init: int = 10,
    fit_rows: int | None = None,
) -> np.ndarray:
    """Cluster assignments of every row, one fit a seed (``random_state``), as many at a time as torch has threads.

    scikit-learn's k-means: Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii 2007, SODA), ``n_init`` pinned
    (its default became 1 in version 1.4). Where fewer than ``k`` distinct vectors are to be fitted there are that many
    clusters.

    Args:
        vectors: ``[n, d]``.
        fit_rows: fit on the first so many rows, the others are then given the nearest centre; None: all.

    Returns:
        int32 ``[S, n]``.

    Raises:
        DataError: a vector holds NaN or infinities.
    """
    vectors = np.ascontiguousarray(vectors)
    if not np.isfinite(vectors).all():
        raise DataError(
            "A layer holds NaN or infinite vectors and cannot be clustered. Check the model's weights and dtype "
            "(float32 where float16 overflows), then run the layer again."
        )
    rows = vectors[:fit_rows]
    assign = partial(_assign, vectors, rows, _distinct(rows, k), n_init)
    # The outer limit is restored at the end; scikit-learn's own, set from several threads at once, may not be.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(torch.get_num_threads(), initializer=threadpool_limits, initargs=(1, "openmp")) as pool,
    ):
        return np.stack(list(pool.map(assign, seeds)))


def _assign(vectors: np.ndarray, rows: np.ndarray, k: int, n_init: int, seed: int) -> np.ndarray:
    fitted = KMeans(k, n_init=n_init, random_state=seed, algorithm="lloyd").fit(rows)
    if len(rows) == len(vectors):
        return fitted.labels_
    return fitted.predict(vectors)


def _distinct(rows: np.ndarray, limit: int) -> int:
    """The number of distinct rows, counted up to ``limit``."""
    seen: set[bytes] = set()
    for row in rows:
        seen.add((row + 0.0).tobytes())  # -0.0 becomes 0.0
        if len(seen) == limit:
            break
    return len(seen)
