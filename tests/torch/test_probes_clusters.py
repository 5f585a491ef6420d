"""k-means over seeds: the same as one fit after another, and calm where vectors coincide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from clipstudy.errors import DataError
from clipstudy.metrics import nmi
from clipstudy.probes.clusters import kmeans


def blobs(seed: int, n: int = 240, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    return (8 * rng.standard_normal((k, 12))[truth] + rng.standard_normal((n, 12))).astype(np.float32), truth


def test_blobs_are_found() -> None:
    vectors, truth = blobs(0)
    found = kmeans(vectors, 4, [0, 1])
    assert found.shape == (2, 240)
    assert [nmi(truth, row) for row in found] == pytest.approx([1, 1])


def test_the_same_as_scikit_learn_one_after_another_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = (0, 123, 7, 8)
    vectors = blobs(0)[0] + np.random.default_rng(0).normal(0, 4, (240, 12)).astype(np.float32)
    fits = [KMeans(6, n_init=3, random_state=seed, algorithm="lloyd").fit(vectors[:200]) for seed in seeds]
    expected = [fitted.predict(vectors) for fitted in fits]
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert np.array_equal(kmeans(vectors, 6, seeds, n_init=3, fit_rows=200), expected)


def test_fewer_distinct_vectors_than_clusters_give_as_many_clusters() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    (found,) = kmeans(vectors, 5, [0])
    assert len(set(found.tolist())) == 3
    (dead,) = kmeans(np.zeros((10, 3), dtype=np.float32), 5, [0])
    assert set(dead.tolist()) == {0}


def test_what_is_not_finite_is_refused() -> None:
    bad = blobs(1)[0]
    bad[3, 3] = np.inf
    with pytest.raises(DataError, match="infinite"):
        kmeans(bad, 3, [0])
