"""Images → vectors → accuracy: every layer and view in one pass, cached as texts are, and probed by the same kind."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from clipstudy import backbones, run, tasks
from clipstudy.backbones.backbone import ImageStates
from clipstudy.data.images import Picture
from clipstudy.errors import DataError, DeviceError, ModelError
from clipstudy.features import pictures
from clipstudy.features.cache import Store
from clipstudy.job import Group
from clipstudy.outcome import Outcome
from clipstudy.pocket.images import pictures as scenes
from clipstudy.spec import DatasetSpec, TaskSpec
from clipstudy.tasks.task import Bench, options, plain
from tests.torch import image_checkpoints


def picture(value: int, split: str = "train") -> Picture:
    held = io.BytesIO()
    Image.new("RGB", (2, 2), (value, 0, 0)).save(held, format="png")
    return Picture(held.getvalue(), f"picture {value}", split)


PICTURES = [picture(v) for v in (10, 20, 30, 40, 50)]


class Counting:
    """States that can be computed by hand: the picture's red plus the layer, on a map of 2 × 2; ``cls`` its negative.

    Layers are of different width, as a residual network's are.
    """

    name, depth, widths, native, summaries = "counting", 2, (1, 2, 3), "cls", ("gap", "cls")

    def __init__(self) -> None:
        self.resolved = {"checkpoint": "by hand"}
        self.batches: list[int] = []
        self.asked: list[tuple[int, ...]] = []
        self.fits = 1000  #: images of a batch beyond which memory is out
        self.error: Exception = torch.OutOfMemoryError("CUDA out of memory")
        self.bad: int | None = None  #: a layer of NaN
        self.uncalibrated = False
        self.calibrated: list[list[float]] = []

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()

    def calibrate(self, batches):
        self.calibrated.append([float(v) for pixels in batches for v in pixels[:, 0, 0, 0]])

    def states(self, pixels, layers):
        self.batches.append(len(pixels))
        self.asked.append(tuple(layers))
        if len(pixels) > self.fits:
            raise self.error
        found = {}
        for k in layers:
            red = pixels[:, :1].expand(-1, self.widths[k], -1, -1) + k
            shift = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]])  # its mean is nought
            found[k] = ImageStates(red + (shift if k != self.bad else torch.nan), -red[:, :, 0, 0])
        return found


def extract(backbone, given=PICTURES, layers=(0, 1, 2), views=("gap", "native", "cls"), batch_size=2, **more):
    return pictures.extract(backbone, given, layers=layers, views=views, batch_size=batch_size, **more)


def test_every_view_by_hand():
    found = extract(Counting())
    for k in range(3):
        assert found.vectors(k, "gap").tolist() == [[v + k] * (k + 1) for v in (10, 20, 30, 40, 50)]
        assert np.array_equal(found.vectors(k, "cls"), -found.vectors(k, "gap"))
        assert np.array_equal(found.vectors(k, "native"), found.vectors(k, "cls"))
        assert found.vectors(k, "gap").dtype == np.float32
    assert found.called("native") == "cls" and found.called("gap") == "gap"


def test_quarters_keep_the_layout():
    """On a map of 2 × 2 each quarter is a place; its four values stand together, channel by channel."""
    found = extract(Counting(), views=("gap", "2x2"))
    assert found.vectors(0, "2x2")[0].tolist() == [9, 11, 8, 12]
    assert found.vectors(1, "2x2")[4].tolist() == [50, 52, 49, 53] * 2
    assert np.array_equal(found.vectors(2, "2x2").reshape(5, 3, 4).mean(axis=2), found.vectors(2, "gap"))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_the_batch_changes_nothing(batch_size):
    backbone = Counting()
    seen: list[tuple[int, int]] = []
    found = extract(backbone, batch_size=batch_size, on_progress=lambda *at: seen.append(at))
    assert found.vectors(0, "gap")[:, 0].tolist() == [10, 20, 30, 40, 50]
    assert sum(backbone.batches) == 5 and max(backbone.batches) <= batch_size
    assert seen[-1] == (5, 5) and [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    backbone = Counting()
    backbone.fits, backbone.error = 2, error
    found = extract(backbone, [picture(v) for v in range(20)], batch_size=8)
    assert found.vectors(1, "gap")[:, 0].tolist() == [v + 1 for v in range(20)]
    assert backbone.batches == [8, 4, *[2] * 10], "what did not fit once is not tried again"


def test_an_image_that_fits_in_no_memory_is_a_device_error():
    backbone = Counting()
    backbone.fits = 0
    with pytest.raises(DeviceError, match=r"one image of 2 × 2 pixels .*\[models.counting\]"):
        extract(backbone)
    backbone.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        extract(backbone)


def test_a_layer_that_is_not_finite_fails_alone():
    backbone = Counting()
    backbone.bad = 1
    found = extract(backbone)
    with pytest.raises(ModelError, match=r"\[models.counting\] layer 1 has values that are not finite"):
        found.vectors(1, "gap")
    assert found.vectors(2, "gap")[:, 0].tolist() == [12, 22, 32, 42, 52]


def test_a_broken_image_is_named_and_leaves_no_file(tmp_path):
    store = Store(tmp_path / "features")
    with pytest.raises(DataError, match="row 7: no image"):
        extract(Counting(), [*PICTURES, Picture(b"torn", "row 7", "test")], store=store)
    assert not list(store.path.iterdir())


def test_a_view_that_the_model_has_not():
    backbone = Counting()
    backbone.summaries = ("gap",)
    with pytest.raises(ModelError, match=r'\[models.counting\] has no class token.*Write "native"'):
        extract(backbone, views=("gap", "cls"))


def test_rows_are_spread_from_the_first_to_the_last():
    assert pictures.spread(3, 9).tolist() == [0, 4, 8]
    assert pictures.spread(8, 3).tolist() == [0, 1, 2], "all, where there are fewer"
    assert pictures.spread(0, 3).tolist() == []


def test_no_pictures():
    assert extract(Counting(), []).vectors(2, "gap").shape == (0, 3)


class TestStore:
    def test_what_it_holds_is_not_computed_again(self, tmp_path):
        store, first, second = Store(tmp_path), Counting(), Counting()
        found = extract(first, store=store, layers=(0, 2))
        again = extract(second, store=store, layers=(0, 1, 2))
        assert set(second.asked) == {(1,)}
        for layer in (0, 2):
            assert np.array_equal(found.vectors(layer, "gap"), again.vectors(layer, "gap"))
        third = Counting()
        extract(third, store=store)
        assert not third.batches

    @pytest.mark.parametrize(
        "change",
        [
            lambda backbone, given: (backbone, [*given[:-1], picture(51)]),
            lambda backbone, given: (backbone, given[::-1]),
            lambda backbone, given: (setattr(backbone, "resolved", {"checkpoint": "other"}) or backbone, given),
            lambda backbone, given: (setattr(backbone, "uncalibrated", True) or backbone, given),
        ],
        ids=["pixels", "order", "model", "calibration"],
    )
    def test_what_decides_the_numbers_is_in_the_key(self, tmp_path, change):
        store = Store(tmp_path)
        extract(Counting(), store=store)
        backbone, given = change(Counting(), PICTURES)
        extract(backbone, given, store=store)
        assert backbone.batches

    def test_where_a_picture_lies_is_not(self, tmp_path):
        store = Store(tmp_path)
        extract(Counting(), store=store)
        path = tmp_path / "first.png"
        path.write_bytes(PICTURES[0].read())
        backbone = Counting()
        extract(backbone, [Picture(path, str(path), "train"), *PICTURES[1:]], store=store)
        assert not backbone.batches


class TestCalibration:
    def test_on_training_images_alone_and_not_too_many(self, monkeypatch):
        monkeypatch.setattr(pictures, "CALIBRATION", 4)
        backbone = Counting()
        backbone.uncalibrated = True
        extract(backbone, [picture(v, "train" if v < 100 else "test") for v in range(0, 200, 10)])
        assert backbone.calibrated == [[0.0, 30.0, 60.0, 90.0]]

    def test_in_whole_batches_where_there_is_one(self, monkeypatch):
        """A last one of one image has no variance, and one of a few would weigh as much as the others."""
        monkeypatch.setattr(pictures, "CALIBRATED_AT", 4)
        for number, sizes in ((3, [3]), (4, [4]), (5, [4]), (11, [4, 4])):
            backbone, seen = Counting(), []
            backbone.uncalibrated = True
            backbone.calibrate = lambda batches, seen=seen: seen.extend(len(pixels) for pixels in batches)
            extract(backbone, [picture(v, "train") for v in range(number)])
            assert seen == sizes

    def test_the_size_of_batches_makes_no_other_model(self, monkeypatch):
        monkeypatch.setattr(pictures, "CALIBRATED_AT", 3)
        sizes = []
        for batch_size in (1, 5):
            backbone = Counting()
            backbone.uncalibrated = True
            backbone.calibrate = lambda batches: sizes.append([len(pixels) for pixels in batches])
            extract(backbone, [picture(v, "train") for v in range(7)], batch_size=batch_size)
        assert sizes == [[3, 3]] * 2

    def test_trained_models_are_left_alone(self):
        backbone = Counting()
        extract(backbone)
        assert not backbone.calibrated

    @pytest.mark.parametrize("name", ["clip-resnet", "resnet"])
    def test_an_untrained_residual_network_does_not_fade(self, name, tmp_path):
        """Every stage speaks as loudly as the one before, and what was seen before does not matter."""
        spec = replace(image_checkpoints.of_pocket(name, tmp_path / name).spec, init="random")
        seen = [image_checkpoints.picture(seed) for seed in range(24)]
        backbone, other = backbones.load(spec, "cpu"), backbones.load(spec, "cpu")
        assert backbone.uncalibrated and not backbones.load(replace(spec, init="pretrained"), "cpu").uncalibrated
        pixels = torch.stack([backbone.preprocess(image) for image in seen])
        quiet = backbone.states(pixels, [4])[4].map.std()
        other.calibrate([torch.randn_like(pixels) * 5])
        for model in (backbone, other):
            model.calibrate(pixels.split(8))
        states = backbone.states(pixels, range(5))
        for layer in (2, 3, 4):
            assert 0.3 < states[layer].map.std() / states[1].map.std() < 3
        assert states[4].map.std() > 3 * quiet or name == "resnet"
        torch.testing.assert_close(other.states(pixels, [4])[4].map, states[4].map)
        alone = backbone.states(pixels[:1], [4])[4].map
        torch.testing.assert_close(alone, states[4].map[:1], atol=1e-4, rtol=1e-3)  # calibrated once, then frozen


class TestClassify:
    """The whole way, on the pocket world's scenes and real tiny models."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("scenes")
        scenes.write(folder, seed=5, sizes={"train": 160, "test": 40}, size=32)
        return folder

    def dataset(self, folder: Path) -> DatasetSpec:
        columns = {"image": "img", "label": "coarse_label"}
        return DatasetSpec("scenes", "images", path=str(folder), columns=columns, development=0.25)

    def group(self, spec, folder: Path, **given: object) -> Group:
        opts = options(tasks.load("classify"), {"max_epoch": 8, "draws": 50, **given}, "image")
        task = TaskSpec("shape", "classify", "scenes", "accuracy", modality="image", seeds=(0, 1), options=plain(opts))
        return Group("s", spec, self.dataset(folder), task)

    def outcomes(self, group: Group, layers, store=None) -> dict[int, Outcome]:
        found = dict(run.run(group, layers, shelf=run.Shelf("cpu"), store=store, bench=Bench()))
        assert all(isinstance(outcome, Outcome) for outcome in found.values()), found
        return found  # type: ignore[return-value]

    @pytest.mark.parametrize("name", ["clip-resnet", "vit"])
    def test_every_layer_of_both_builds(self, name, folder, tmp_path):
        spec = image_checkpoints.of_pocket(name, tmp_path / name).spec
        found = self.outcomes(self.group(spec, folder), range(5), Store(tmp_path / "cache"))
        assert list(found) == list(range(5))
        for outcome in found.values():
            metrics = outcome.metrics
            assert {"accuracy", "linear/accuracy", "native/accuracy", "native/linear/accuracy"} <= set(metrics)
            assert not {"selectivity", "truncated"} & set(metrics)
            assert metrics["items/train"].value == 120 and metrics["items/dev"].value == 40
            same = metrics["accuracy"] == metrics["native/accuracy"]
            assert same or name == "vit", "a residual network's own summary is the mean over places"
            table = pq.read_table(io.BytesIO(outcome.artifacts[0].content))
            assert len(table) == 40 and "gap/mlp/seed_0" in table.column_names
            assert outcome.params["resolved.input"] and outcome.params["resolved.data"].startswith("sha256:")

    @pytest.mark.parametrize("given", [{}, {"width": 40, "views": ["gap", "native", "2x2"], "probes": ["linear"]}])
    def test_siblings_do_not_matter(self, given, folder, tmp_path):
        group = self.group(image_checkpoints.of_pocket("resnet", tmp_path / "resnet").spec, folder, **given)
        together, alone = self.outcomes(group, (1, 2, 4)), self.outcomes(group, (2,))
        assert together[2].numbers() == alone[2].numbers()

    def test_equal_width_says_what_it_leaves_out(self, folder, tmp_path):
        spec = image_checkpoints.of_pocket("resnet", tmp_path / "resnet").spec
        given = {"width": 40, "views": ["gap", "native", "2x2"], "max_epoch": 1}
        for layer, outcome in self.outcomes(self.group(spec, folder, **given), (1, 4)).items():
            wide = backbones.load(spec, "cpu").widths[layer]
            held = {v: outcome.metrics[f"{v}explained_variance"].value for v in ("", "native/", "2x2/")}
            assert held[""] == held["native/"], "its own summary is the mean over places, reduced once for both"
            for view, own in (("", wide), ("2x2/", 4 * wide)):
                assert held[view] <= 1 and (held[view] == pytest.approx(1, abs=1e-9)) is (own <= 40)
            assert "linear/explained_variance" not in outcome.metrics

    def test_an_untrained_twin(self, folder, tmp_path):
        spec = replace(image_checkpoints.of_pocket("clip-resnet", tmp_path / "m").spec, init="random", init_seed=1)
        first, again = (self.outcomes(self.group(spec, folder), (4,)) for _ in range(2))
        assert first[4].numbers() == again[4].numbers()
