"""What a vision transformer looks at: rollout, distance, and the kind from files to drawn overlays."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import hypergeom

from clipstudy import run
from clipstudy.backbones.backbone import Tokens
from clipstudy.backbones.pixels import restored
from clipstudy.data.images import Picture
from clipstudy.data.labelled import Labelled, Rows
from clipstudy.errors import DataError
from clipstudy.features.attention import distances, followed, spacing, summary
from clipstudy.job import Failure, Group
from clipstudy.pocket.images import pictures
from clipstudy.spec import DatasetSpec, TaskSpec
from clipstudy.tasks import attend
from clipstudy.tasks.parts import attention_scores, overlays
from clipstudy.tasks.task import Bench, Frozen, options, plain
from tests.torch.image_checkpoints import BUILDERS

GRID = Tokens((2, 3), prefix=1, cls=True)


class TestWhatIsKept:
    def test_rollout_of_attention_to_itself_stays_itself(self):
        alone = torch.eye(7).expand(2, 4, 7, 7)
        rolled = followed(alone, followed(alone, None))
        torch.testing.assert_close(rolled, torch.eye(7).expand(2, 7, 7))

    def test_rollout_is_the_product_of_the_blocks(self):
        torch.manual_seed(0)
        blocks = torch.randn(3, 2, 4, 7, 7).softmax(dim=-1)
        rolled = None
        want = torch.eye(7)
        for weights in blocks:
            rolled = followed(weights, rolled)
            want = (weights.mean(dim=1) + torch.eye(7)) / 2 @ want
        torch.testing.assert_close(rolled, want)
        torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 7))

    def test_uniform_attention_looks_as_far_as_patches_lie_apart(self):
        far = distances(torch.full((2, 4, 7, 7), 1 / 7), GRID)
        # Of 6 × 6 pairs on a grid of 2 × 3: 14 at 1, 8 at √2, 4 at 2, 4 at √5, 6 at 0.
        want = (14 + 8 * 2**0.5 + 4 * 2 + 4 * 5**0.5) / 36
        torch.testing.assert_close(far, torch.full((2, 4), want))
        assert float(spacing(GRID.grid).mean()) == pytest.approx(want)

    def test_attention_to_the_next_patch_looks_one_far(self):
        weights = torch.zeros(1, 1, 7, 7)
        weights[..., 0] = 0.5  # the class token lies nowhere and does not count
        for row, column in ((0, 1), (1, 2), (2, 5), (5, 4), (4, 3), (3, 0)):
            weights[..., 1 + row, 1 + column] = 0.5
        torch.testing.assert_close(distances(weights, GRID), torch.ones(1, 1))
        assert distances(torch.eye(7)[None, None], GRID).item() == 0
        assert distances(torch.zeros(1, 1, 7, 7), GRID).item() == 0

    def test_the_summary_is_the_class_token_or_the_mean(self):
        weights = torch.arange(49.0).view(7, 7)
        assert summary(weights, GRID).tolist() == weights[0, 1:].tolist()
        none = Tokens((2, 3), prefix=1)
        assert summary(weights, none).tolist() == weights[1:, 1:].mean(dim=0).tolist()


class Planted:
    """A backbone whose head 0 looks at bright patches alone and whose head 1 looks everywhere, at every layer."""

    name, depth, size = "planted", 3, (16, 16)
    mean, deviation = (0.0,) * 3, (1.0,) * 3
    tokens = Tokens((4, 4), prefix=1, cls=True)

    def preprocess(self, image, whole=False):
        return torch.from_numpy(np.asarray(image.convert("RGB").resize((16, 16), 0)) / 255).float().permute(2, 0, 1)

    def attention(self, pixels, layers, take):
        bright = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 4).flatten(1) + 1e-9
        bright = torch.cat([torch.full((len(pixels), 1), 1.0), bright / bright.sum(dim=1, keepdim=True)], dim=1) / 2
        heads = torch.stack([bright[:, None].expand(-1, 17, -1), torch.full((len(pixels), 17, 17), 1 / 17)], dim=1)
        for layer in sorted(layers):
            take(layer, heads)


def encoded(pixels):
    held = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(held, format="png")
    return held.getvalue()


def squares(rows=12, masked=True):
    """Pictures of a bright square of four patches on black, somewhere, and where it is."""
    found = []
    for row in range(rows):
        y, x = divmod(row % 9, 3)
        inside = np.zeros((16, 16))
        inside[4 * y : 4 * y + 8, 4 * x : 4 * x + 8] = 1
        mask = encoded(2 * inside) if masked else None
        found.append(Picture(encoded(np.repeat(200 * inside[..., None], 3, axis=2)), f"row {row}", "test", mask))
    return found


def measured(some, layers=(2,), seeds=(0, 1), batch_size=5, **given):
    opts = options(attend, given)
    rows = Rows(tuple(some), tuple("ab"[i % 2] for i in range(len(some))))
    labelled = Labelled(rows, rows, rows, "sha256:1", "made")
    data = attend.Images(labelled, tuple(range(len(some))), rows.items, rows.labels)
    spec = SimpleNamespace(title="Planted", batch_size=batch_size)
    return {o.layer: o for o in attend.measure(Frozen(spec, Planted()), data, layers, seeds, opts, Bench())}


def table(outcome, name):
    content = next(a.content for a in outcome.artifacts if a.name == name)
    if name.endswith("csv"):
        return list(csv.DictReader(io.StringIO(content.decode())))
    return pq.read_table(io.BytesIO(content)).to_pydict()


class TestMeasure:
    def test_a_head_that_finds_the_object_is_found(self):
        outcome = measured(squares(), mass=0.9)[2]
        value = {name: one.value for name, one in outcome.metrics.items()}
        assert value["best/jaccard"] == value["oracle/jaccard"] == pytest.approx(1)
        assert outcome.params == {"query": "class token", "best_head": "0"}
        # Head 1's mask: the first 15 of 16 patches. One object of the 12 lies on the last patch too.
        assert value["heads/jaccard"] == pytest.approx((1 + (11 * 4 / 15 + 3 / 16) / 12) / 2)
        assert value["pointing"] == 1 and value["items/unmarked"] == 0 and value["items/test"] == 12
        assert value["patch_mass"] == pytest.approx((0.5 + 16 / 17) / 2)
        assert value["heads/entropy"] == pytest.approx((2 + 4) / 2, abs=1e-5)
        assert value["heads"] == 2 and value["patches"] == 16
        spread = np.r_[np.full(4, 1 / 4), np.zeros(12)], np.full(16, 1 / 16)
        mixed = sum(spread) / 2
        assert value["diversity"] == pytest.approx(-(mixed * np.log2(mixed)).sum() - (2 + 4) / 2, abs=1e-5)
        assert value["distance_patches"] <= value["distance_uniform"] / 4 and value["distance"] == pytest.approx(
            4 * value["distance_patches"]
        )

    def test_floors_know_the_area_and_nothing_else(self):
        some = squares(72)
        value = {n: one.value for n, one in measured(some, mass=0.2)[2].metrics.items()}
        # 20% of the mean map is some of the object's patches: chance with as many patches, in closed form.
        kept = round(value["area"] * 16)
        hits = np.arange(kept + 1)
        chance = (hypergeom(16, 4, kept).pmf(hits) * hits / (kept + 4 - hits)).sum()
        assert value["baseline/random_mask"] == pytest.approx(chance, abs=0.03)
        assert value["baseline/swapped_masks"] < value["jaccard"]
        assert value["oracle/baseline/random_mask"] > value["baseline/random_mask"]
        assert value["baseline/random_mask"] < value["baseline/centre"] < value["jaccard"]

    def test_each_kind_of_map_has_the_chance_of_its_own_area(self):
        value = {n: one.value for n, one in measured(squares(72), mass=0.9)[2].metrics.items()}

        def by_chance(area: int) -> float:
            hits = np.arange(max(0, area - 12), min(area, 4) + 1)
            return float((hypergeom(16, 4, area).pmf(hits) * hits / (area + 4 - hits)).sum())

        # Head 0 marks the object's four patches, and is the best one; head 1 marks 15 of 16.
        narrow, wide = by_chance(4), by_chance(15)
        assert value["best/baseline/random_mask"] == pytest.approx(narrow, abs=0.03)
        assert value["heads/baseline/random_mask"] == pytest.approx((narrow + wide) / 2, abs=0.03)
        assert value["rollout/baseline/random_mask"] > value["best/baseline/random_mask"]

    def test_a_picture_without_foreground_is_counted_and_left_out(self):
        some = squares()
        some[3] = replace(some[3], mask=encoded(np.zeros((16, 16))))
        outcome = measured(some, mass=0.9)[2]
        assert outcome.metrics["items/unmarked"].value == 1
        assert outcome.metrics["best/jaccard"].value == pytest.approx(1)
        scores = table(outcome, "scores.parquet")
        assert scores["row"] == list(range(12)) and scores["label"] == list("ab" * 6)
        assert len(scores["entropy"]) == 12 and None not in scores["entropy"]
        assert [i for i, one in enumerate(scores["jaccard"]) if one is None] == [3]

    def test_which_numbers_of_the_mask_are_foreground(self):
        assert measured(squares(), foreground=[2, 7])[2].metrics["jaccard"].value > 0.2
        with pytest.raises(DataError, match=r"of 12 pictures fewer than 2 have any foreground .*mask numbers: 1\)"):
            measured(squares(), foreground=[1])

    def test_without_masks(self):
        outcome = measured(squares(masked=False), masks=False, rollout=False)[2]
        assert not [name for name in outcome.metrics if "jaccard" in name or "baseline" in name or "rollout" in name]
        assert {"diversity", "entropy", "edges", "best/edges", "distance"} <= outcome.metrics.keys()
        assert [row["head"] for row in table(outcome, "heads.csv")] == ["0", "1"]
        assert "jaccard" not in table(outcome, "heads.csv")[0]

    def test_a_layers_outcome_depends_on_no_sibling_and_no_batch(self):
        together, alone = measured(squares(), (1, 2, 3)), measured(squares(), (2,), batch_size=12)
        mine, theirs = alone[2].numbers(), together[2].numbers()
        assert mine.keys() == theirs.keys() and [mine[k] for k in mine] == pytest.approx([theirs[k] for k in mine])
        assert mine["rollout/entropy"] != together[3].numbers()["rollout/entropy"]  # more blocks, another rollout

    def test_seeds_draw_the_random_masks_and_the_swaps_alone(self):
        one, other = (measured(squares(), seeds=seeds)[2].numbers() for seeds in ((0,), (1,)))
        differ = {name.removesuffix(".low").removesuffix(".high") for name in one if one[name] != other[name]}
        assert differ == {"baseline/swapped_masks"} | {
            f"{arm}baseline/random_mask" for arm in ("", "heads/", "best/", "oracle/", "rollout/")
        }

    def test_the_sheet_shows_every_map(self):
        outcome = measured(squares(), shown=3, layers=(2,))[2]
        content = next(a.content for a in outcome.artifacts if a.name == "overlays.png")
        sheet = np.asarray(Image.open(io.BytesIO(content)))
        width, height = (round(side / overlays.TILE, 1) for side in sheet.shape[1::-1])
        assert 7 <= width < 8 and 3 <= height < 4  # picture, foreground, mean, 60%, rollout, two heads; 3 pictures
        assert "overlays.png" not in [a.name for a in measured(squares(), shown=0)[2].artifacts]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    pictures.write(folder, 3, {"train": 60, "test": 40}, size=32)
    columns = {"image": "img", "label": "coarse_label", "mask": "mask"}
    return DatasetSpec("scenes", "images", path=str(folder), columns=columns, unseen_labels="drop")


def group(spec, data, **given):
    opts = plain(options(attend, {"draws": 100, **given}, "image"))
    return Group("s", spec, data, TaskSpec("sights", "attend", "scenes", "jaccard", "image", options=opts))


@pytest.mark.parametrize("name", ["vit", "clip-vit", "vit-gap", "vit-registers"])
def test_from_files_to_overlays(name, tmp_path, scenes):
    spec = BUILDERS[name](tmp_path / name).spec
    layers = range(1, spec.layers + 1)
    found = dict(run.run(group(spec, scenes, shown=2), layers, shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    assert list(found) == list(layers)
    for outcome in found.values():
        value = outcome.numbers()
        assert all(np.isfinite(v) for v in value.values())
        assert value["jaccard.low"] <= value["jaccard"] <= value["jaccard.high"]
        assert 0 < value["heads/entropy"] <= np.log2(value["patches"]) + 1e-6
        assert value["rollout/entropy"] <= np.log2(value["patches"]) + 1e-6
        assert 0 < value["distance"] < 32 * 2**0.5 * (64 / 32) and 0 <= value["diversity"] <= 1
        assert outcome.params["query"] == ("mean over patch tokens" if name == "vit-gap" else "class token")
        assert outcome.params["resolved.checkpoint"]
        assert {a.name for a in outcome.artifacts} == {"scores.parquet", "heads.csv", "overlays.png"}
        assert len(table(outcome, "scores.parquet")["label"]) == value["items/test"] <= 40


def test_an_untrained_twin_is_asked_too(tmp_path, scenes):
    spec = replace(BUILDERS["vit"](tmp_path / "vit").spec, init="random")
    [(_, outcome)] = run.run(group(spec, scenes), [4], shelf=run.Shelf("cpu"), store=None, bench=Bench())
    assert outcome.numbers()["heads"] > 1


def test_a_model_without_attention_fails_with_what_to_do(tmp_path, scenes):
    spec = BUILDERS["resnet"](tmp_path / "resnet").spec
    [(_, failed)] = run.run(group(spec, scenes), [1], shelf=run.Shelf("cpu"), store=None, bench=Bench())
    assert isinstance(failed, Failure) and not failed.retry
    assert "[models.resnet] is a ResNet" in failed.error and "Choose a vision transformer" in failed.error


def test_masks_that_no_column_holds(scenes):
    bare = replace(scenes, columns={"image": "img", "label": "coarse_label"})
    with pytest.raises(DataError, match=r"\[datasets.scenes.columns\] mask: missing.*masks = false"):
        attend.read(bare, options(attend, {}))
    assert len(attend.read(bare, options(attend, {"masks": False, "pictures": 10})).chosen) == 10


def test_a_mask_goes_the_way_of_its_picture(tmp_path):
    """A model that crops: what it does not see of the object is not asked for."""
    backbone = SimpleNamespace(mean=(0.4,) * 3, deviation=(0.3,) * 3)

    def preprocess(image, whole=False):
        cut = np.asarray(image.convert("RGB").crop((8, 0, 16, 16)), dtype=np.float32) / 255
        return (torch.from_numpy(cut).permute(2, 0, 1) - 0.4) / 0.3

    backbone.preprocess = preprocess
    given = Frozen(SimpleNamespace(batch_size=4), backbone)
    some = squares(3)
    rows = Rows(tuple(some), ("a", "b", "a"))
    data = attend.Images(Labelled(rows, rows, rows, "", ""), (0, 1, 2), rows.items, rows.labels)
    [(numbers, pixels, inside)] = attention_scores._batches(given, data, options(attend, {}))
    assert numbers.tolist() == [0, 1, 2] and inside.shape == (3, 16, 8)
    assert inside.sum(axis=(1, 2)).tolist() == [0, 8 * 4, 8 * 8]  # squares at columns 0, 4 and 8
    assert np.array_equal(inside > 0, restored(backbone, pixels)[:, 0].numpy() > 0.5)
