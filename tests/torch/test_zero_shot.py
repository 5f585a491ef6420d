"""Classes by their names: as the library computes it, and on towers whose answer is known."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipstudy import backbones, run, tasks
from clipstudy.data.images import Picture
from clipstudy.data.labelled import Labelled, Rows
from clipstudy.errors import ModelError
from clipstudy.job import Failure, Group
from clipstudy.outcome import Outcome
from clipstudy.pocket.images import pictures as scenes
from clipstudy.spec import WHOLE_MODEL, DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks import zero_shot
from clipstudy.tasks.parts.items import Images
from clipstudy.tasks.task import BadOption, Bench, Frozen, options, plain
from tests.torch import image_checkpoints

SPEC = ModelSpec("m", "open_clip", "made", 4, modality="image", batch_size=2)


def picture(value: int) -> Picture:
    held = io.BytesIO()
    Image.new("RGB", (1, 1), (value, 0, 0)).save(held, format="png")
    return Picture(held.getvalue(), f"picture {value}", "test")


class Towers:
    """An image of red k is the k-th direction; so is a text that ends in the k-th name. The first is close to the
    second."""

    names = ("ash_tree", "bear", "chair", "dolphin", "elm", "fox", "goat")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.space = torch.eye(7)
        self.space[0, 1] = 0.5

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()

    def embed(self, pixels):
        return self.space[pixels[:, 0, 0, 0].long()]

    def captions(self, texts):
        self.asked += texts
        return torch.stack([self.space[self.names.index(t.split(": ")[1].replace(" ", "_"))] for t in texts])


class Aside(Towers):
    """Either template alone points at a neighbour of the class, and both together at the class; those of the first
    agree, so that their mean is longer than the others'."""

    def __init__(self) -> None:
        super().__init__()
        self.space = torch.eye(7)

    def captions(self, texts):
        def vector(template: str, name: str) -> torch.Tensor:
            k = self.names.index(name.replace(" ", "_"))
            if k == 0:
                return self.space[0] + 0.95 * self.space[1]
            return self.space[k] + 1.2 * self.space[(k + (1 if template == "one" else -1)) % 7]

        return torch.stack([vector(*text.split(": ")) for text in texts])


class Graded(Towers):
    """Nearest to an image of red k is the k-th name, then the next one, and so on round."""

    def embed(self, pixels):
        return torch.stack([torch.arange(7.0, 0, -1).roll(int(k)) for k in pixels[:, 0, 0, 0]])


def measured(
    reds: list[int], labels: list[str], towers: Towers | None = None, **given: object
) -> tuple[Outcome, Towers]:
    rows = [Rows(tuple(picture(i) for i in range(7)), Towers.names), Rows((), ())]
    labelled = Labelled(*rows, Rows(tuple(map(picture, reds)), tuple(labels)), "sha256:0", "made")
    opts = options(tasks.load("zero_shot"), {"templates": ["one: {}", "two: {}"], **given}, "image")
    towers = towers or Towers()
    frozen = Frozen(SPEC, towers)  # type: ignore[arg-type]
    (outcome,) = zero_shot.measure(frozen, Images(labelled), (WHOLE_MODEL,), (0,), opts, Bench())
    return outcome, towers


def test_towers_whose_answer_is_known() -> None:
    outcome, towers = measured([0, 1, 2, 3, 6], ["ash_tree", "bear", "bear", "elm", "goat"])
    assert towers.asked[:3] == ["one: ash tree", "two: ash tree", "one: bear"] and len(towers.asked) == 14
    assert outcome.layer == WHOLE_MODEL
    numbers = outcome.numbers()
    assert numbers["accuracy"] == 0.6 and numbers["accuracy.low"] < 0.6 < numbers["accuracy.high"]
    assert (numbers["items/test"], numbers["classes"], numbers["baseline/chance"]) == (5, 7, 1 / 7)
    assert numbers["top5_accuracy"] == 1
    table = pq.read_table(io.BytesIO(outcome.artifacts[0].content)).to_pydict()
    assert table["zero_shot"] == ["ash_tree", "bear", "chair", "dolphin", "goat"]
    assert table["label"] == ["ash_tree", "bear", "bear", "elm", "goat"]


class Chance(Towers):
    """Images and names in directions that have nothing to do with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(0)

    def embed(self, pixels):
        return torch.randn(len(pixels), 16, generator=self.draw)

    def captions(self, texts):
        return torch.randn(len(texts), 16, generator=self.draw)


def test_directions_that_have_nothing_to_do_with_the_labels_are_at_chance() -> None:
    labels = np.random.default_rng(0).choice(Towers.names, 1400).tolist()
    accuracy = measured([0] * 1400, labels, Chance())[0].metrics["accuracy"]
    assert abs(accuracy.value - 1 / 7) < 3 * (1 / 7 * 6 / 7 / 1400) ** 0.5
    assert accuracy.low is not None and accuracy.high is not None
    assert accuracy.low < 1 / 7 < accuracy.high and accuracy.high - accuracy.low < 0.06


def test_a_class_is_the_direction_of_the_mean_of_its_templates() -> None:
    named = [*Towers.names]
    assert measured([*range(7)], named, Aside())[0].metrics["accuracy"].value == 1
    for template in ("one: {}", "two: {}"):
        assert measured([*range(1, 7)], named[1:], Aside(), templates=[template])[0].metrics["accuracy"].value < 0.5


def test_what_is_no_number_is_no_answer() -> None:
    towers = Towers()
    towers.space[3, 3] = torch.nan
    with pytest.raises(ModelError, match=r"\[models\.m\] its towers give numbers that are not finite"):
        measured([0, 1], ["ash_tree", "bear"], towers)


def test_among_the_five_nearest() -> None:
    """Of seven: the first, the fifth and the sixth."""
    found = measured([0, 0, 0], ["ash_tree", "elm", "fox"], Graded())[0].numbers()
    assert (found["accuracy"], found["top5_accuracy"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_one_class_alone_is_flagged() -> None:
    assert measured([1, 1], ["bear", "elm"])[0].metrics["one_class"].value == 1
    assert measured([1, 2], ["bear", "elm"])[0].metrics["one_class"].value == 0


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {} of a {}"]])
def test_templates_that_name_no_class(templates: list[str]) -> None:
    with pytest.raises(BadOption, match="templates: found"):
        options(tasks.load("zero_shot"), {"templates": templates})


class TestModels:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("scenes")
        scenes.write(folder, seed=5, sizes={"train": 160, "test": 40}, size=32)
        return folder

    def outcome(self, spec: ModelSpec, folder: Path) -> Outcome | Failure:
        columns = {"image": "img", "label": "coarse_label"}
        data = DatasetSpec("scenes", "images", path=str(folder), columns=columns, development=0.25)
        opts = plain(options(tasks.load("zero_shot"), {}, "image"))
        task = TaskSpec("t", "zero_shot", "scenes", "accuracy", modality="image", layers="whole", options=opts)
        group = Group("s", spec, data, task)
        return dict(run.run(group, (-1,), shelf=run.Shelf("cpu"), store=None, bench=Bench()))[-1]

    @pytest.mark.parametrize("name", ["clip-vit", "clip-resnet"])
    def test_both_towers_are_the_librarys(self, name: str, tmp_path: Path) -> None:
        spec = image_checkpoints.of_pocket(name, tmp_path / name).spec
        backbone = backbones.load(spec, "cpu")
        model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{spec.checkpoint}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{spec.checkpoint}")
        texts = ["a fish", "a photo of a fish", "fish"] * 20  # more than a batch
        pixels = torch.stack([backbone.preprocess(image_checkpoints.picture(seed)) for seed in range(3)])
        with torch.no_grad():
            theirs = model.eval().encode_text(tokenizer(texts), normalize=True)
            torch.testing.assert_close(backbone.captions(texts), theirs)
            torch.testing.assert_close(backbone.embed(pixels), model.encode_image(pixels, normalize=True))
        assert (theirs[0] @ theirs[1]) < 0.999 > (theirs[0] @ theirs[2])

    def test_cocas_tower_gives_its_tokens_too(self, tmp_path: Path) -> None:
        size = {"width": 16, "heads": 2, "layers": 1, "context_length": 24, "vocab_size": 49408}
        config = {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 8, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8,
                "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4, "output_tokens": True,
            },
            "text_cfg": size | {"embed_cls": True, "output_tokens": True},
            "multimodal_cfg": size | {"attn_pooler_heads": 2},
        }  # fmt: skip
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        model = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
        save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
        spec = ModelSpec("coca", "open_clip", str(tmp_path), 1, "image", "image")
        pixels = torch.randn(3, 3, 8, 8)
        with torch.no_grad():
            theirs = model.eval().encode_image(pixels, normalize=True)
        torch.testing.assert_close(backbones.load(spec, "cpu").embed(pixels), theirs)

    def test_the_whole_way(self, folder: Path, tmp_path: Path) -> None:
        outcome = self.outcome(image_checkpoints.of_pocket("clip-resnet", tmp_path / "m").spec, folder)
        assert isinstance(outcome, Outcome), outcome
        assert outcome.metrics["items/test"].value == 40 and outcome.metrics["accuracy"].low is not None
        assert outcome.params["resolved.checkpoint"].startswith("sha256:")

    def test_the_untrained_twin_draws_both_towers_alike(self, tmp_path: Path) -> None:
        spec = replace(image_checkpoints.of_pocket("clip-vit", tmp_path / "m").spec, init="random", init_seed=2)
        first, again = (backbones.load(spec, "cpu").captions(["a ball", "a cat"]) for _ in range(2))
        assert torch.equal(first, again) and first.shape[0] == 2
        torch.testing.assert_close(first.norm(dim=1), torch.ones(2))

    def test_models_of_one_tower_are_told_so(self, folder: Path, tmp_path: Path) -> None:
        outcome = self.outcome(image_checkpoints.of_pocket("vit", tmp_path / "vit").spec, folder)
        assert isinstance(outcome, Failure) and not outcome.retry
        assert "[models.vit] has no text tower" in outcome.error and 'models = ["clip-*"]' in outcome.error
