"""k-means over seeds, as many fits at a time as there are threads, against scikit-learn one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import KMeans

from benchmarks.figures import Row, in_turns, ratios
from clipstudy.probes.clusters import kmeans

CLUSTERS, RESTARTS = 10, 3


def rows(quick: bool) -> Iterator[Row]:
    layers, seeds = (1, range(4)) if quick else (2, range(10))
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, 1536))
    spans = [
        (centres[rng.integers(0, CLUSTERS, 3000)] + 4 * rng.standard_normal((3000, 1536))).astype(np.float32)
        for _ in range(layers)
    ]

    def one_by_one() -> None:
        for vectors in spans:
            for seed in seeds:
                KMeans(CLUSTERS, n_init=RESTARTS, random_state=seed).fit(vectors)

    seconds = in_turns(
        2 if quick else 5,
        together=lambda: [kmeans(vectors, CLUSTERS, seeds, n_init=RESTARTS) for vectors in spans],
        one_by_one=one_by_one,
    )
    number = torch.get_num_threads()
    yield Row(
        "k-means: scikit-learn one by one / at a time",
        ratios(seconds["one_by_one"], seconds["together"]),
        least=0.9,
        said=f"{layers} layers × {len(seeds)} seeds, 3,000 spans of 1,536; scikit-learn has {number} threads "
        "in each fit, the other way one fit a thread, whose clusters are the same on any number of threads",
    )
