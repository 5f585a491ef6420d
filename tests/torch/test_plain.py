"""What is fast is nothing but fast: on real rows the plain loop of benchmarks/plain.py finds the same."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks import lbfgs, plain
from benchmarks.extraction import MINILM, sentences
from benchmarks.study import SEEDS, against_plain, go, groups, plain_layer
from clipstudy import backbones, run
from clipstudy.features.extract import extract

LAYER = 3
#: How far half precision is from what it stands for, as a share.
HALF = 2.0**-11


@pytest.mark.real
@pytest.mark.usefixtures("real")
class TestTheStudy:
    def test_features(self) -> None:
        texts = sentences(40)
        backbone = backbones.load(backbones.located(MINILM), "cpu")
        found = extract(backbone, texts, layers=[LAYER], views=("mean", "native", "span"), batch_size=8)
        theirs = plain.Reader(MINILM).encode([text.words for text in texts], LAYER, 8)
        ends = np.stack([theirs.ends(i, *span) for i, text in enumerate(texts) for span in text.spans])
        np.testing.assert_allclose(found.vectors(LAYER, "mean"), theirs.mean, rtol=HALF, atol=1e-4)
        np.testing.assert_allclose(found.vectors(LAYER, "native"), theirs.native, rtol=HALF, atol=1e-4)
        np.testing.assert_allclose(found.span_ends(LAYER), ends, atol=1e-4)

    def test_accuracies(self) -> None:
        group = groups(MINILM, 40)[3]
        group = replace(group, task=replace(group.task, options={"max_epoch": 12, "draws": 10}))
        outcome = go(group, run.Shelf("cpu"), None)[LAYER][1]
        for name, accuracy in plain_layer(group, LAYER).items():
            # A rounding may turn one of the test rows, in one of the seeds.
            assert outcome.metrics[name].value == pytest.approx(accuracy, abs=1.01 / (40 * len(SEEDS))), name

    def test_clusters(self) -> None:
        options = {"labelled": 90, "outside": 10, "fit": 80, "samples": 1, "restarts": 1, "arms": []}
        group = groups(MINILM, 40)[0]
        group = replace(group, task=replace(group.task, options=options))
        outcome = go(group, run.Shelf("cpu"), None)[LAYER][1]
        table = pq.read_table(io.BytesIO(outcome.artifacts[0].content))
        for seed, clusters in zip(SEEDS, plain_layer(group, LAYER), strict=True):
            assert np.array_equal(table[f"cluster_{seed}"].to_numpy(), clusters)


def test_who_keeps_all_hidden_states_encodes_once() -> None:
    seconds = {"ours": [1.0], "encoded": [2.0], "probed": [1.0]}
    loop, keeping = against_plain("MiniLM", 3, seconds, 5, "")
    assert (loop.value, keeping.value) == (9, 5) and loop.met and keeping.met is None


def test_lbfgs_finds_scikit_learns_optimum() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 200, 20, generator=draw), torch.randint(0, 3, (200,), generator=draw)
    x[:, :, 0] += y
    found = lbfgs.fit(x, y, 3, (1e-3, 1e-2))
    assert lbfgs.flat(found, x, y, (1e-3, 1e-2)).all()
    assert not lbfgs.flat(torch.zeros_like(found), x, y, (1e-3, 1e-2)).any()
    for layer in range(2):
        rows = torch.cat([x[layer], torch.ones(200, 1)], 1).numpy()
        for k, l2 in enumerate((1e-3, 1e-2)):
            theirs = LogisticRegression(C=1 / (l2 * 200), fit_intercept=False, tol=1e-8, max_iter=1000).fit(rows, y)
            np.testing.assert_allclose(found[layer, k], theirs.coef_, atol=5e-3)
    right = (lbfgs.predict(found, x) == y).float().mean(2)
    assert right.shape == (2, 2) and right.min() > 0.5
