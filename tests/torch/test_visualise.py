"""Images that excite a unit: what is known of their optimum, of their seeds, and the whole way to a recorded number."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clipstudy import backbones, cli, run, tasks, tasksfile
from clipstudy.backbones.backbone import ImageStates
from clipstudy.errors import DeviceError, ModelError
from clipstudy.job import Selection, plan
from clipstudy.outcome import Outcome
from clipstudy.pocket.images import pictures as scenes
from clipstudy.probes import activation
from clipstudy.probes.activation import Recipe, Target, maximise, responses, targets, through
from clipstudy.tasks.task import BadOption, Bench, options
from tests.torch import image_checkpoints

SIDE = 24


class Small:
    """A network of a few modules behind the backbone's protocol; its one layer is what they give."""

    name, size = "small", (SIDE, SIDE)
    mean, deviation = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def __init__(self, *modules: nn.Module) -> None:
        self.module = nn.Sequential(*modules).eval().requires_grad_(False)
        self.fits = 1000  #: images beyond which memory is out
        self.tried: list[int] = []

    def states(self, pixels: torch.Tensor, layers: Sequence[int], gradients: bool = False) -> dict[int, ImageStates]:
        self.tried.append(len(pixels))
        if len(pixels) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        with torch.set_grad_enabled(gradients):
            return {layer: ImageStates(self.module(pixels)) for layer in layers}


def recipe(objective: Any = "channel", steps: int = 30, robust: bool = False, side: int = SIDE) -> Recipe:
    return Recipe(objective, side, steps, 0.05, robust)


def filters(count: int, seed: int = 0) -> nn.Conv2d:
    """Convolutions by smooth filters of 7 × 7."""
    rough = torch.randn(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    made = nn.Conv2d(3, count, 7, padding=3)
    made.weight.data = nn.functional.interpolate(rough, (7, 7), mode="bicubic")
    made.bias.data.zero_()
    return made


class TestOptimum:
    def test_one_filter_is_shown_its_own_picture(self) -> None:
        """The best patch for a linear unit is white where its weight is positive and black where it is negative."""
        conv = filters(4)
        backbone = Small(conv)
        found = maximise(backbone, 1, [(Target(c, (c,)), 0) for c in range(4)], recipe("neuron", 200), chunk=4)
        mean, deviation = (torch.tensor(c).view(3, 1, 1) for c in (backbone.mean, backbone.deviation))
        middle = slice(SIDE // 2 - 3, SIDE // 2 + 4)
        for c in range(4):
            weight = conv.weight[c] / deviation
            best = (weight.clamp(min=0) - weight * mean).sum()
            assert 0.85 * best < found.activation[c] <= best
            patch = torch.from_numpy(found.images[c, middle, middle]).permute(2, 0, 1)
            assert torch.corrcoef(torch.stack([patch.flatten(), weight.sign().flatten()]))[0, 1] > 0.7
            away = found.images[c, :6, :6]  # nothing there reaches the unit
            assert away.std() < patch.std() / 2

    @pytest.mark.parametrize("objective", ["channel", "neuron", "neurons"])
    @pytest.mark.parametrize("robust", [False, True])
    def test_every_objective_rises(self, objective: str, robust: bool) -> None:
        backbone = Small(filters(6), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3))
        some = [(target, 0) for target in targets(1, (8, 10, 10), objective, 5, neurons=4)]  # type: ignore[arg-type]
        found = maximise(backbone, 1, some, recipe(objective, 60, robust), chunk=5)
        assert (found.activation > found.noise).all()
        shorter = maximise(backbone, 1, some, recipe(objective, 20, robust), chunk=5)
        assert found.activation.mean() > shorter.activation.mean()

    def test_a_silent_unit_is_woken(self) -> None:
        conv = filters(2)
        conv.bias.data.fill_(-40.0)
        backbone = Small(conv, nn.ReLU(inplace=True))
        assert not backbone.module(torch.rand(8, 3, SIDE, SIDE)).any()
        some = [(Target(c, (c,)), 0) for c in range(2)]
        found = maximise(backbone, 1, some, recipe("neuron", 80), chunk=2)
        assert (found.activation > 0).all()
        assert "forward" not in vars(backbone.module[1]), "the model is left as it was"

    def test_where_a_gradient_passes_none_is_redirected(self) -> None:
        x = torch.tensor([[1.0, -1.0, -2.0], [-1.0, -2.0, -3.0]], requires_grad=True)
        (activation._Redirected.apply(x) * torch.tensor([[-1.0, -1.0, 1.0]] * 2)).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [[-1.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]


class TestTargets:
    def test_channels_are_drawn_by_the_layer_alone(self) -> None:
        one = targets(2, (64, 7, 7), "channel", 16, 1)
        assert one == targets(2, (64, 14, 14), "neuron", 16, 1) != targets(3, (64, 7, 7), "channel", 16, 1)
        numbers = [target.number for target in one]
        assert numbers == sorted(set(numbers)) and len(numbers) == 16 and max(numbers) < 64
        assert [t.number for t in targets(1, (5, 7, 7), "channel", 16, 1)] == [0, 1, 2, 3, 4]

    def test_sets_are_of_different_neurons_of_all_channels(self) -> None:
        sets = targets(2, (8, 3, 3), "neurons", 30, 10)
        assert all(len(set(one.units)) == 10 for one in sets) and len({one.units for one in sets}) == 30
        assert {unit for one in sets for unit in one.units} == set(range(72))
        assert targets(2, (8, 1, 1), "neurons", 1, 10)[0].units.__len__() == 8

    def test_responses_by_hand(self) -> None:
        states = torch.arange(2 * 3 * 2 * 3.0).view(2, 3, 2, 3).bfloat16()
        assert responses(states, "channel")[0].tolist() == [2.5, 8.5, 14.5]
        assert responses(states, "neuron")[0].tolist() == [4, 10, 16]
        assert responses(states, "neurons")[1].tolist() == list(range(18, 36))
        assert responses(states, "channel").dtype == torch.float32


class TestWindow:
    def test_lying_still_it_shows_the_image(self) -> None:
        images = torch.rand(2, 3, 20, 20)
        torch.testing.assert_close(through(images, torch.zeros(2, 4), (20, 20)), images)
        assert through(images, torch.zeros(2, 4), (40, 36)).shape == (2, 3, 40, 36)

    def test_it_shifts_by_lucids_pixels_and_is_grey_beside(self) -> None:
        images = torch.rand(1, 3, 128, 128)
        shown = through(images, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), (128, 128))
        torch.testing.assert_close(shown[..., :-6], images[..., 6:], atol=1e-4, rtol=0)
        assert (shown[..., -6:] == activation.GREY).all()

    def test_each_image_has_its_own(self) -> None:
        images = torch.rand(1, 3, 32, 32).expand(3, -1, -1, -1)
        moves = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [-1.0, 0, 0, 0]])
        shown = through(images, moves, (32, 32))
        for i in range(3):
            torch.testing.assert_close(shown[i : i + 1], through(images[:1], moves[i : i + 1], (32, 32)))
        assert (shown[2][:, 0] - activation.GREY).abs().max() < (shown[0][:, 0] - activation.GREY).abs().max()


class TestChunks:
    @pytest.fixture(scope="class")
    def resnet(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("resnet")
        return backbones.load(image_checkpoints.of_pocket("resnet", folder).spec, "cpu")

    def fit(self, resnet: Any, some: Sequence[tuple[Target, int]], chunk: int) -> activation.Fitted:
        return maximise(resnet, 3, some, recipe(steps=6, robust=True, side=32), chunk=chunk)

    def test_one_by_one_or_all_at_once(self, resnet: Any) -> None:
        some = [(Target(c, (c,)), seed) for seed in (0, 7) for c in (0, 3, 9)]
        whole = self.fit(resnet, some, 6)
        for chunk in (1, 4):
            part = self.fit(resnet, some, chunk)
            np.testing.assert_allclose(part.images, whole.images, atol=2e-3)
            np.testing.assert_allclose(part.activation, whole.activation, rtol=1e-2)
        again = self.fit(resnet, some, 6)
        assert np.array_equal(again.images, whole.images) and np.array_equal(again.scrambled, whole.scrambled)

    def test_seeds_and_channels_differ(self, resnet: Any) -> None:
        found = self.fit(resnet, [(Target(c, (c,)), seed) for seed in (0, 1) for c in (0, 1)], 4)
        apart = np.abs(found.images[:, None] - found.images).mean((2, 3, 4))
        assert (apart[~np.eye(4, dtype=bool)] > 0.01).all()

    def test_noise_has_the_spectrum_and_colour_of_the_image(self) -> None:
        fitted, noise = torch.randn(2, 1, 3, 16, 9, 2)
        mixed = activation._scrambled(fitted, noise)
        # Of the images that they make: columns that mirror themselves hold each frequency twice.
        seen = [torch.fft.rfft2(torch.fft.irfft2(torch.view_as_complex(s), s=(16, 16))).abs() for s in (mixed, fitted)]
        torch.testing.assert_close(*seen, atol=1e-4, rtol=1e-4)
        colours = [torch.fft.irfft2(torch.view_as_complex(s), s=(16, 16)).mean((2, 3)) for s in (mixed, fitted)]
        torch.testing.assert_close(*colours)

    def test_out_of_memory_halves_the_chunk(self) -> None:
        backbone = Small(filters(4))
        backbone.fits = 2
        some = [(Target(c, (c,)), 0) for c in range(4)]
        seen: list[tuple[int, int]] = []
        found = maximise(backbone, 1, some, recipe(steps=2), chunk=4, on_progress=lambda *at: seen.append(at))
        assert backbone.tried[0] == 4 and set(backbone.tried[1:]) == {2}
        assert len(found.images) == 4 and seen == [(2, 8), (4, 8), (6, 8), (8, 8)]
        backbone.fits = 0
        with pytest.raises(DeviceError, match=r"one image of 24 × 24 pixels with its gradients .*\[models.small\]"):
            maximise(backbone, 1, some, recipe(steps=2), chunk=4)

    def test_what_is_not_finite_is_named(self) -> None:
        broken = filters(1)
        broken.weight.data[0, 0, 0, 0] = torch.nan
        with pytest.raises(ModelError, match=r"\[models.small\] layer 1 has values or gradients that are not finite"):
            maximise(Small(broken), 1, [(Target(0, (0,)), 0)], recipe(steps=1), chunk=1)
        wrong = Small(nn.Conv2d(4, 1, 1))
        with pytest.raises(RuntimeError, match="channels"):
            maximise(wrong, 1, [(Target(0, (0,)), 0)], recipe(steps=1), chunk=1)


STUDY = """
[study]
name = "small"
seeds = [0, 1]
[models.net]
source = "{source}"
checkpoint = "{checkpoint}"
modality = "image"
layers = {layers}
[datasets.scenes]
reader = "images"
path = "{data}"
columns = {{ image = "img", label = "coarse_label" }}
development = 0.25
[tasks.look]
kind = "visualise"
dataset = "scenes"
options = {{ channels = 3, size = 32, steps = 3, natural = 6, draws = 20, {more} }}
"""


class TestKind:
    @pytest.fixture(scope="class")
    def data(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("scenes")
        scenes.write(folder, seed=5, sizes={"train": 120, "test": 8}, size=32)
        return folder

    def study(self, name: str, data: Path, folder: Path, more: str = "chunk = 4") -> str:
        spec = image_checkpoints.BUILDERS[name](folder=folder / name).spec
        return STUDY.format(source=spec.source, checkpoint=spec.checkpoint, layers=spec.layers, data=data, more=more)

    def outcomes(self, study: str, layers: Sequence[int]) -> dict[int, Any]:
        ((group, _),) = plan(tasksfile.parse(study, Path("/there/tasks.toml")), Selection())
        return dict(run.run(group, layers, shelf=run.Shelf("cpu"), store=None, bench=Bench()))

    @pytest.mark.parametrize("name", ["resnet", "vit-registers"])
    def test_what_an_outcome_holds(self, name: str, data: Path, tmp_path: Path) -> None:
        found = self.outcomes(self.study(name, data, tmp_path), (0, 2))
        kind = tasks.load("visualise")
        for layer, outcome in found.items():
            assert isinstance(outcome, Outcome), outcome
            metrics = outcome.metrics
            for measure in kind.metrics(None):
                estimate = metrics[measure]
                assert estimate.low is not None and estimate.low <= estimate.value <= (estimate.high or 0)
                assert {f"natural/{measure}", f"noise/{measure}"} <= set(metrics)
            assert (metrics["items/images"].value, metrics["items/targets"].value) == (6, 3)
            assert metrics["items/natural"].value == 6
            assert metrics["natural/activation"].value <= metrics["natural/activation_highest"].value
            assert 0 <= metrics["above_natural"].value <= 1 and 0 <= metrics["above_noise"].value <= 1
            table, *sheets = outcome.artifacts
            rows = list(csv.DictReader(io.StringIO(table.content.decode())))
            assert len(rows) == 6 and {row["seed"] for row in rows} == {"0", "1"}
            mean = np.mean([float(row["high_frequency"]) for row in rows])
            assert mean == pytest.approx(metrics["high_frequency"].value, rel=1e-4)
            assert [sheet.name for sheet in sheets] == ["images_seed_0.png", "images_seed_1.png"]
            assert Image.open(io.BytesIO(sheets[0].content)).size[0] >= 3 * 96, layer

    def test_siblings_do_not_matter(self, data: Path, tmp_path: Path) -> None:
        study = self.study("resnet", data, tmp_path)
        together, alone = self.outcomes(study, (1, 3)), self.outcomes(study, (3,))
        assert together[3].numbers() == alone[3].numbers()

    def test_sets_of_neurons(self, data: Path, tmp_path: Path) -> None:
        study = self.study("vit", data, tmp_path, 'objective = "neurons", neurons = 5')
        (outcome,) = self.outcomes(study, (1,)).values()
        assert outcome.artifacts[0].content.startswith(b"set,seed,activation,noise,natural_mean,natural_highest,high_")

    def test_more_pixels_than_the_model_sees(self, data: Path, tmp_path: Path) -> None:
        study = self.study("convnext", data, tmp_path).replace("size = 32", "size = 64")
        (failure,) = self.outcomes(study, (1,)).values()
        assert (
            failure.error.startswith("[models.net] sees 32 × 32 pixels") and "Write size = 32 or less" in failure.error
        )
        assert not failure.retry

    def test_on_the_command_line(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "tasks.toml").write_text(self.study("convnext", data, tmp_path))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["clipstudy", "run", "net", "look", "--layer", "1", "--save", "kept"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        assert "share of high frequencies" in capsys.readouterr().out
        kept = {path.name for path in (tmp_path / "kept").rglob("*.*") if path.is_file()}
        assert {"images.csv", "images_seed_0.png", "images_seed_1.png"} <= kept


@pytest.mark.parametrize(
    ("given", "key", "says"),
    [
        ({"channels": 0}, "channels", "found 0, expected 1 or more"),
        ({"size": 8}, "size", "found 8, expected 16 or more"),
        ({"natural": 1}, "natural", "found 1, expected 2 or more"),
        ({"steps": 0}, "steps", "found 0"),
        ({"learning_rate": 0}, "learning_rate", "found 0, expected more than 0"),
        ({"objective": "neurone"}, "objective", 'Did you mean "neuron"'),
        ({"robust": "no"}, "robust", "expected true or false"),
        ({"chanels": 3}, "chanels", 'Did you mean "channels"'),
    ],
)
def test_options_are_checked(given: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(BadOption, match=says) as bad:
        options(tasks.load("visualise"), given, "image")
    assert bad.value.key == key
