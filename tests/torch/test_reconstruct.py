"""`reconstruct` as a kind: what it measures, what it must not depend on, and what it refuses."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from clipstudy import backbones, run, tasks, tasksfile
from clipstudy.backbones.backbone import ImageStates
from clipstudy.backbones.vision import Vision
from clipstudy.errors import DataError, DeviceError, ModelError, StudyError
from clipstudy.job import Group
from clipstudy.outcome import Outcome
from clipstudy.pocket.images import pictures as scenes
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks.parts.decoding import DecoderPasses
from clipstudy.tasks.task import BadOption, Bench, Frozen, options, plain
from tests.torch import image_checkpoints

KIND = tasks.load("reconstruct")
SHORT = {"profile": "small", "size": 16, "width": 8, "hidden": 16, "steps": 10, "batch_size": 8, "draws": 50}


def opts(**given: object):
    return options(KIND, {**SHORT, **given}, "image")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, seed=5, sizes={"train": 160, "test": 40}, size=32)
    columns = {"image": "img", "label": "coarse_label"}
    return DatasetSpec("scenes", "images", path=str(folder), columns=columns, development=0.25)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    return {name: image_checkpoints.BUILDERS[name](folder / name).spec for name in ("convnext", "vit-registers")}


def outcomes(spec: ModelSpec, dataset: DatasetSpec, layers, bench: Bench | None = None, seeds=(0, 1), **given: object):
    task = TaskSpec(
        "drawn", "reconstruct", "scenes", "mse", modality="image", seeds=seeds, options=plain(opts(**given))
    )
    group = Group("s", spec, dataset, task)
    return dict(run.run(group, layers, shelf=run.Shelf("cpu"), store=None, bench=bench or Bench()))


def opened(outcome: Outcome, name: str) -> Image.Image:
    return Image.open(io.BytesIO(next(a.content for a in outcome.artifacts if a.name == name)))


@pytest.mark.parametrize(("name", "layers"), [("convnext", (1, 2, 3, 4)), ("vit-registers", (1, 2))])
def test_every_stage_of_both_builds(name, layers, models, dataset):
    """The whole way: a study's group, its pictures, a real tiny model of timm, a decoder a stage."""
    told: list[tuple[str, int, int]] = []
    found = outcomes(models[name], dataset, layers, Bench(progress=lambda *at: told.append(at)))
    assert list(found) == list(layers)
    for layer, outcome in found.items():
        assert isinstance(outcome, Outcome), outcome
        metrics = outcome.metrics
        for one in ("mse", "psnr", "ssim", "explained", "baseline/mean_image", "baseline/raw_pixels"):
            assert metrics[one].low < metrics[one].value < metrics[one].high, one
        floor = metrics["baseline/mean_image"].value
        assert metrics["explained"].value == pytest.approx(1 - metrics["mse"].value / floor)
        assert (metrics["items/train"].value, metrics["items/test"].value) == (80, 40), "ten batches of eight"
        table = pq.read_table(io.BytesIO(outcome.artifacts[0].content)).to_pandas()
        assert table.shape == (40, 6)
        assert metrics["mse"].value == pytest.approx(table[["mse/seed_0", "mse/seed_1"]].to_numpy().mean(), rel=1e-4)
        assert floor == pytest.approx(table["mse/mean_image"].mean(), rel=1e-4)
        assert metrics["psnr"].value == pytest.approx(
            -10 * np.log10(table[["mse/seed_0", "mse/seed_1"]].to_numpy()).mean(), rel=1e-4
        )
        sheets = {a.name for a in outcome.artifacts if a.name.endswith(".png")}
        assert sheets == {"reconstructions.png"} | ({"stages.png"} if layer == layers[-1] else set())
    maps = [outcome.params["map"] for outcome in found.values()]
    assert maps == {"convnext": ["4 × 8 × 8", "8 × 4 × 4", "12 × 2 × 2", "16 × 1 × 1"]}.get(name, ["16 × 4 × 4"] * 2)
    assert {outcome.params["bottleneck"] for outcome in found.values()} == {"8 × 4 × 4"}
    assert len({outcome.params["decoder.weights_behind_bottleneck"] for outcome in found.values()}) == 1
    every, own = (opened(found[layers[-1]], name).height for name in ("stages.png", "reconstructions.png"))
    assert every > own
    assert [what for what, done, of in told if done == of] == ["mean image", "train", "reconstruct"]
    assert [done for what, done, _ in told if what == "train"] == list(range(0, 81, 8))


def test_siblings_do_not_matter(models, dataset):
    together = outcomes(models["convnext"], dataset, (1, 2, 4))[2]
    alone = outcomes(models["convnext"], dataset, (2,))[2]
    assert together.numbers() == alone.numbers() and together.params == alone.params
    assert together.artifacts == alone.artifacts[:2], "the deepest has a figure of all stages beside its own"
    assert "stages.png" not in {a.name for a in alone.artifacts}


def test_one_pass_serves_every_layer_and_seed(models, dataset, monkeypatch):
    through: list[int] = []
    states = Vision.states
    monkeypatch.setattr(Vision, "states", lambda self, x, *rest: through.append(len(x)) or states(self, x, *rest))
    for layers, seeds in (((4,), (0,)), ((1, 2, 3, 4), (0, 1))):
        through.clear()
        outcomes(replace(models["convnext"], batch_size=6), dataset, layers, seeds=seeds)
        assert sum(through) == 1 + 10 * 8 + 40, "a trial of one image, ten batches of eight, the test split"
        assert max(through) <= 6, "no more at once than the model's table says"


def test_every_model_draws_the_same_pictures(models, dataset):
    """Unless each is shown its own crop: then what is less to draw is drawn better."""
    pictures = KIND.read(dataset, opts()).labelled.test.items[:4]

    def wanted(name, **given):
        passes = DecoderPasses(frozen(models[name], dataset)[0], (1,), (0,), opts(**given), Bench())
        return torch.cat([images for _, images in passes.seen(pictures, "look")])

    assert torch.equal(wanted("convnext"), wanted("vit-registers"))
    own = wanted("convnext", crop="own")
    assert own.shape == wanted("convnext").shape and not torch.allclose(own, wanted("convnext"), atol=0.02)


def test_dev_may_be_what_is_drawn(models, dataset):
    found = outcomes(models["convnext"], dataset, (2,), split="dev", seeds=(0,))[2]
    assert found.metrics["items/dev"].value == 40 and "items/test" not in found.metrics


def test_what_a_model_lacks(models, dataset):
    with pytest.raises(ModelError, match=r"\[models.convnext\] sees 32 × 32 pixels, fewer than the 64 × 64 .* Lower"):
        list(KIND.measure(*frozen(models["convnext"], dataset), (1,), (0,), opts(size=64), Bench()))
    with pytest.raises(ModelError, match=r"\[models.convnext\] has no layer 5. What exists: 0–4."):
        list(KIND.measure(*frozen(models["convnext"], dataset), (1, 5), (0,), opts(), Bench()))


def frozen(spec: ModelSpec, dataset: DatasetSpec):
    return Frozen(spec, backbones.load(spec, "cpu")), KIND.read(dataset, opts())


class Plain:
    """A model whose first map is what it sees, whose second tells nothing, whose third is broken."""

    depth, size, mean, deviation = 3, (16, 16), (0.5, 0.25, 0.5), (0.5, 0.5, 0.25)

    def __init__(self, error: Exception | None = None) -> None:
        self.module, self.error = nn.Linear(1, 1), error

    def preprocess(self, image, whole=False):
        pixels = torch.from_numpy(np.asarray(image.convert("RGB").resize(self.size)) / np.float32(255)).permute(2, 0, 1)
        mean, deviation = (torch.tensor(x)[:, None, None] for x in (self.mean, self.deviation))
        return (pixels - mean) / deviation

    def states(self, pixels, layers):
        if self.error:
            raise self.error
        made = {1: lambda: pixels, 2: lambda: torch.ones(len(pixels), 5, 2, 2), 3: lambda: pixels * torch.nan}
        return {layer: ImageStates(made[layer]()) for layer in layers}


def plain_model(error: Exception | None = None) -> Frozen:
    return Frozen(ModelSpec("plain", "timm", "none", 3, modality="image"), Plain(error))  # type: ignore[arg-type]


def test_pixels_come_back_and_nothing_gives_the_mean_image(dataset):
    """What is drawn are pixels without the normalisation: an image that a map holds whole comes back."""
    given = opts(width=48, hidden=32, steps=150, batch_size=16)
    whole, nothing = KIND.measure(plain_model(), KIND.read(dataset, given), (1, 2), (0,), given, Bench())
    # An untold map leaves the mean image, but for what the decoder makes of some training images more than of others.
    floor = nothing.metrics["baseline/mean_image"].value
    assert nothing.metrics["mse"].value == pytest.approx(floor, rel=0.05)
    assert abs(nothing.metrics["explained"].value) < 0.05
    assert whole.metrics["explained"].value > 0.75 and whole.metrics["ssim"].value > 0.6
    # The first map *is* the raw pixels, through the same bottleneck; only the first weights differ.
    assert whole.metrics["mse"].value == pytest.approx(whole.metrics["baseline/raw_pixels"].value, rel=0.3)


def test_a_layer_that_is_not_finite_fails_alone(dataset):
    found = KIND.measure(plain_model(), KIND.read(dataset, opts()), (1, 3, 2), (0,), opts(), Bench())
    assert [next(found).layer, next(found).layer] == [1, 2]
    with pytest.raises(ModelError, match=r"\[models.plain\] layer 3 has values that are not finite"):
        next(found)


def test_out_of_memory_says_what_to_lower(dataset):
    data = KIND.read(dataset, opts())
    with pytest.raises(DeviceError, match=r"8 images.* \[models.plain\]. Lower batch_size"):
        next(KIND.measure(plain_model(torch.OutOfMemoryError("out of memory")), data, (1,), (0,), opts(), Bench()))
    with pytest.raises(RuntimeError, match="mat1"):
        next(KIND.measure(plain_model(RuntimeError("mat1 and mat2")), data, (1,), (0,), opts(), Bench()))


def test_a_broken_picture_is_named(dataset):
    data = KIND.read(dataset, opts())
    rows = data.labelled.train
    torn = replace(rows.items[3], content=b"torn", where="row 7")
    broken = replace(data.labelled, train=replace(rows, items=(torn, *rows.items[1:4])))
    with pytest.raises(DataError, match="row 7: no image that can be read"):
        next(KIND.measure(plain_model(), replace(data, labelled=broken), (1,), (0,), opts(), Bench()))


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"size": 100}, "size"),
        ({"grid": 5}, "size"),
        ({"size": 8, "grid": 4}, "size"),
        ({"batch_size": 1}, "batch_size"),
        ({"steps": 0}, "steps"),
        ({"width": 0}, "width"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"split": "train"}, "split"),
    ],
)
def test_options_that_are_refused(given, key):
    with pytest.raises(BadOption) as bad:
        options(KIND, given, "image")
    assert bad.value.key == key and "found" in bad.value.why


def test_what_fits_is_said():
    with pytest.raises(BadOption, match=r"found 100, expected grid = 7 doubled once or more: 28 or 56 or 112"):
        options(KIND, {"size": 100}, "image")


def test_texts_are_refused_before_a_row_is_written():
    study = """
    [study]
    name = "s"
    [models.bert]
    source = "transformers"
    checkpoint = "./bert"
    layers = 2
    [datasets.order]
    reader = "senteval"
    path = "./order.txt"
    [tasks.drawn]
    kind = "reconstruct"
    dataset = "order"
    """
    with pytest.raises(StudyError, match='"order" has reader = "senteval", but kind = "reconstruct" reads images'):
        tasksfile.parse(study, Path("tasks.toml"))
