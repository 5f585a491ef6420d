"""The same numbers on a GPU: run by `make gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clipstudy import backbones, device, run
from clipstudy.features.extract import Text, extract
from clipstudy.probes.inputs import Inputs, Labels
from clipstudy.probes.mlp import Recipe, fit
from tests.torch import checkpoints
from tests.torch.test_finetune import boolq, group, rows, tuned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def test_features_are_those_of_the_cpu(tmp_path: Path) -> None:
    spec = checkpoints.bert(tmp_path).spec
    texts = [Text(tuple(["the", "cat", "sat", "on", "the", "mat"][: n + 1]), ((0, 1),)) for n in range(6)]
    views, layers = ("mean", "cls", "span"), range(spec.layers + 1)
    on = {
        device: extract(backbones.load(spec, device), texts, layers=layers, views=views, batch_size=4)
        for device in ("cpu", "cuda:0")
    }
    for layer in layers:
        for view in ("mean", "cls"):
            assert np.allclose(on["cpu"].vectors(layer, view), on["cuda:0"].vectors(layer, view), atol=1e-4)
        assert np.allclose(on["cpu"].span_ends(layer), on["cuda:0"].span_ends(layer), atol=1e-4)


def test_probes_learn_as_on_the_cpu() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=700)
    vectors = draw.standard_normal((700, 24)).astype(np.float32)
    vectors[:, 0] += labels
    inputs = Inputs(vectors[:400], vectors[400:500], vectors[500:])
    truth = Labels(labels[:400], labels[400:500], labels[500:])
    recipe = Recipe(l2=(1e-4,), max_epoch=20)
    accuracy = {
        device: (fit([inputs], [truth], 2, recipe, (0, 1, 2), device=device)[0][0].predictions == truth.test).mean()
        for device in ("cpu", "cuda:0")
    }
    assert abs(accuracy["cpu"] - accuracy["cuda:0"]) < 0.02


def test_a_model_is_trained_as_on_the_cpu(tmp_path: Path) -> None:
    data, model = boolq(tmp_path / "d", rows("passage")), checkpoints.bert(tmp_path / "bert").spec
    torch.cuda.manual_seed(7)
    expected = torch.rand(3, device="cuda:0")
    torch.cuda.manual_seed(7)
    outcome = tuned(group(model, data, (0, 1), epochs=16), shelf=run.Shelf("cuda:0"))
    assert outcome.metrics["accuracy"].value == outcome.metrics["dev_accuracy"].value == 1.0
    assert torch.equal(torch.rand(3, device="cuda:0"), expected), "training must not draw from the global generator"


def test_gpus_are_counted_with_their_memory_and_one_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = device.gpus()
    assert [gpu.index for gpu in found] == list(range(torch.cuda.device_count()))
    assert all(gpu.name and 0 < gpu.free <= gpu.total for gpu in found)
    last = found[-1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", last.visible_as)
    (alone,) = device.gpus()
    assert (alone.index, alone.name, alone.total) == (0, last.name, last.total)
