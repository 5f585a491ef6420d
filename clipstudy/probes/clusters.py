"""k-means over layers and seeds, each fit on one thread and as many fits at a time as there are threads.

One thread a fit, because scikit-learn adds up its threads' partial sums in the order in which they finish: with
more than two the same seed need not give the same clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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
    """Cluster assignments of every row, one fit a seed: see :func:`kmeans_layers`.

    Args:
        vectors: ``[n, d]``.

    Returns:
        int32 ``[S, n]``.
    """
    return kmeans_layers([vectors], k, seeds, n_init=n_init, fit_rows=fit_rows)[0]


def kmeans_layers(
    layers: Sequence[np.ndarray | Callable[[], np.ndarray]],
    k: int,
    seeds: Sequence[int],
    *,
    n_init: int = 10,
    fit_rows: int | None = None,
    threads: int | None = None,
) -> list[np.ndarray]:
    """Cluster assignments of every row of every layer, one fit a seed (``random_state``).

    scikit-learn's k-means, Lloyd's algorithm, ``n_init`` pinned (its default became 1 in version 1.4). Where fewer
    than ``k`` distinct vectors are to be fitted there are that many clusters.

    Args:
        layers: ``[n, d]`` each, or a callable that loads it when its turn comes.
        fit_rows: fit on the first so many rows, the others are then given the nearest centre; None: all.
        threads: fits at a time; None: torch's number of threads.

    Returns:
        int32 ``[S, n]`` a layer.

    Raises:
        DataError: a layer holds NaN or infinities; names its position.
    """
    threads = threads or torch.get_num_threads()
    # The outer limit is restored at the end; scikit-learn's own, set from several threads at once, may not be.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads, initializer=threadpool_limits, initargs=(1, "openmp")) as pool,
    ):
        waiting: list[list[Future[np.ndarray]]] = []
        for vectors in _loaded(layers):
            if len(waiting) > 1:  # two layers in memory at most: the pool is busy with one while the next loads
                for future in waiting[-2]:
                    future.result()
            rows = vectors[:fit_rows]
            clusters = _distinct(rows, k)
            waiting.append([pool.submit(_assign, vectors, rows, clusters, seed, n_init) for seed in seeds])
        return [np.stack([future.result() for future in futures]) for futures in waiting]


def _assign(vectors: np.ndarray, rows: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    fitted = KMeans(k, n_init=n_init, random_state=seed, algorithm="lloyd").fit(rows)
    if len(rows) == len(vectors):
        return fitted.labels_
    return fitted.predict(vectors)


def _loaded(layers: Sequence[np.ndarray | Callable[[], np.ndarray]]) -> Iterator[np.ndarray]:
    for position, given in enumerate(layers):
        vectors = np.ascontiguousarray(given() if callable(given) else given)
        if not np.isfinite(vectors).all():
            raise DataError(
                f"Layer {position} (position in this batch) holds NaN or infinite vectors and cannot be clustered. "
                "Check the model's weights and dtype (float32 where float16 overflows), then run the layer again."
            )
        yield vectors


def _distinct(rows: np.ndarray, limit: int) -> int:
    """The number of distinct rows, counted up to ``limit``."""
    seen: set[bytes] = set()
    for row in rows:
        seen.add((row + 0.0).tobytes())  # -0.0 becomes 0.0
        if len(seen) == limit:
            break
    return len(seen)
