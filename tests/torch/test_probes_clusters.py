"""k-means over layers and seeds: the same as one fit after another, and calm where vectors coincide."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from clipstudy.errors import DataError
from clipstudy.metrics import nmi
from clipstudy.probes.clusters import kmeans, kmeans_layers


def blobs(seed: int, n: int = 240, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    return (8 * rng.standard_normal((k, 12))[truth] + rng.standard_normal((n, 12))).astype(np.float32), truth


def test_blobs_are_found() -> None:
    vectors, truth = blobs(0)
    found = kmeans(vectors, 4, [0, 1])
    assert found.shape == (2, 240)
    assert [nmi(truth, row) for row in found] == pytest.approx([1, 1])


def test_the_same_as_scikit_learn_one_after_another_on_any_number_of_threads() -> None:
    layers = [blobs(k)[0] + np.random.default_rng(k).normal(0, 4, (240, 12)).astype(np.float32) for k in range(4)]
    expected = [
        [KMeans(6, n_init=3, random_state=s, algorithm="lloyd").fit(x[:200]).predict(x) for s in (0, 123)]
        for x in layers
    ]
    for threads in (1, 3):
        found = kmeans_layers(
            [layers[0], *(lambda x=x: x for x in layers[1:])], 6, [0, 123], n_init=3, fit_rows=200, threads=threads
        )
        assert np.array_equal(found, expected)


def test_fewer_distinct_vectors_than_clusters_give_as_many_clusters() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    (found,) = kmeans(vectors, 5, [0])
    assert len(set(found.tolist())) == 3
    (dead,) = kmeans(np.zeros((10, 3), dtype=np.float32), 5, [0])
    assert set(dead.tolist()) == {0}


def test_not_a_number_is_named_by_layer() -> None:
    good, bad = blobs(0)[0], blobs(1)[0]
    bad[3, 3] = np.inf
    with pytest.raises(DataError, match="Layer 1"):
        kmeans_layers([good, bad], 3, [0])
