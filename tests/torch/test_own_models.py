"""``source = "torch"``: what is imported and what never is, layers by their modules' names, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clipstudy import backbones
from clipstudy.backbones import blocks, checkpoint, own_code
from clipstudy.spec import ModelSpec
from tests.torch import own_models
from tests.torch.image_checkpoints import BUILDERS, OWN, Sample
from tests.torch.refusals import refused

pytestmark = pytest.mark.usefixtures("trust")

TRUST = "CLIPSTUDY_TORCH_PACKAGES"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of somebody's own, whose network is spread over its files, and which has another file."""
    folder = tmp_path / f"lab_{len(tmp_path.name)}{tmp_path.name.replace('-', '_')}"
    folder.mkdir()
    texts = {
        "__init__": "",
        "nets": "from torch import nn\nfrom . import ops\nfrom .base import Base\n\n"
        "class Net(Base):\n    def __init__(self):\n        super().__init__()\n"
        "        self.block = nn.Conv2d(3, 4, 3)\n",
        "base": f"from torch import nn\n\nclass Base(nn.Module):\n    def forward(self, x):\n"
        f"        import {folder.name}.late\n        from {folder.name}.ops import twice\n"
        "        return twice(self.block(x)).mean(dim=(2, 3))\n",
        "ops": "def twice(x):\n    return 2 * x\n",
        "late": "",
        "another": "",
        "program": "raise SystemExit(2)",
        "newer": "this is of another Python than this one",
        "made": f"from {folder.name} import nets\nif False:\n    from {folder.name} import newer\n    from "
        f"{folder.name}.program import main\nbuild = nets.Net\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUST, folder.name)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return BUILDERS["own-stages"](tmp_path_factory.mktemp("own") / "own-stages")


def own(factory: str, *modules: str, **more: object) -> ModelSpec:
    named = f"{own_models.__name__}:{factory}"
    given = {"modality": "image", "init": "random", "modules": modules, "size": 32, **more}
    return ModelSpec("m", "torch", named, len(modules), **given)  # type: ignore[arg-type]


def states(spec: ModelSpec, *layers: int) -> list[torch.Tensor]:
    backbone = backbones.load(spec, "cpu")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return [backbone.states(pixels, [layer])[layer].map for layer in layers]


class TestWhatIsImported:
    def test_nothing_that_the_worker_does_not_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = replace(own("Convolutions", "stages"), checkpoint="this:zen")
        for trusted in ("", "thi", "this.more", "tests,xthis"):
            monkeypatch.setenv(TRUST, trusted)
            refused(spec, "may not import", f'{TRUST} is "{trusted}"', f"{TRUST}={trusted and trusted + ','}this")
        assert "this" not in sys.modules

    def test_a_prefix_of_a_name_is_no_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TRUST, OWN[:-1])
        refused(own("Convolutions", "stages"), "may not import")

    def test_nothing_that_a_trusted_package_itself_imported(self) -> None:
        refused(
            own("abort", "stages"),
            "defines no function or class abort",
            "Convolutions, InPlace, Named, Patches, Smooth, Twice",
        )
        refused(own("nn", "stages"), "defines no function or class nn")

    @pytest.mark.parametrize(
        "checkpoint",
        ["os", "os:", ":x", ".os:x", "a..b:c", "a:b.c", "a b:c", "a:b:c", "./a.py:b", "a.__main__:b", "a:__init__"],
    )
    def test_nothing_that_is_no_name(self, checkpoint: str) -> None:
        refused(replace(own("x", "stages"), checkpoint=checkpoint), 'Write "package.module:factory"')

    def test_no_program_of_a_trusted_package(self) -> None:
        refused(replace(own("x", "stages"), checkpoint=f"{OWN}.__main__:x"), 'Write "package.module:factory"')

    def test_nothing_is_built_that_is_no_model(self) -> None:
        refused(own("Touches", "stages"), "defines no function or class Touches")

    def test_what_is_called_may_be_an_object(self) -> None:
        called, direct = (states(own(name, "stages"), 1)[0] for name in ("build", "Convolutions"))
        assert torch.equal(called, direct), "the same code, the same draws"

    def test_a_twin_that_its_seed_does_not_draw(self) -> None:
        refused(own("loaded", "stages"), "gives the same weights for another seed", "(1278 of 1338 numbers)")
        refused(own("cached", "stages"), "gives the same weights for another seed")
        backbones.load(own("Convolutions", "stages", init_seed=2**32 - 1), "cpu")

    def test_modules_that_are_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = own("Convolutions", "stages")
        refused(
            replace(spec, checkpoint=f"{OWN}.nowhere:x"),
            f"there is no module {OWN}.nowhere",
            "Install its package",
            "PYTHONPATH",
        )
        refused(replace(spec, checkpoint=f"{spec.checkpoint}s"), 'Did you mean "Convolutions"?')

    def test_a_package_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TRUST, "no_such_package")
        spec = replace(own("Convolutions", "stages"), checkpoint="no_such_package.models:build")
        refused(spec, "there is no module no_such_package here")
        assert "no module no_such_package" in str(backbones.doubt(spec))
        assert backbones.doubt(replace(spec, checkpoint="this:zen")) is not None  # it is there, and not trusted
        monkeypatch.setenv(TRUST, "this")
        assert backbones.doubt(replace(spec, checkpoint="this:zen")) is None and "this" not in sys.modules
        path = replace(spec, checkpoint="package:no_such_package.models:build")
        assert "import path alone" in str(backbones.doubt(path))
        weights = replace(spec, checkpoint="this:zen", pretrained="package:no_such_package/weights.safetensors")
        assert 'no package "no_such_package" here. Install it.' in str(backbones.doubt(weights))

    def test_what_builds_no_model(self) -> None:
        refused(own("broken", "stages"), "raises ValueError: no such width")
        refused(own("text", "stages"), "returns a str, expected a torch.nn.Module")
        refused(own("Named", "stages", init="pretrained"), "pretrained: missing")


class TestLayers:
    def test_a_name_that_does_not_exist(self, stages: Sample) -> None:
        refused(replace(stages.spec, modules=("stages.0", "stages.7", "head")), '"stages.7"', 'Did you mean "stages.')
        refused(own("Convolutions", "layer1"), 'no module "layer1"', "What exists: head, stages, stem.")

    def test_vectors_are_maps_of_one_place(self) -> None:
        maps, vectors = states(own("Convolutions", "stages", "head"), 1, 2)
        assert maps.shape == (2, 12, 2, 2) and vectors.shape == (2, 5, 1, 1)

    def test_tokens_without_a_class_token(self) -> None:
        (found,) = states(own("patches_alone", "blocks.1"), 1)
        assert found.shape == (2, 8, 4, 4)

    def test_tokens_that_make_no_square(self) -> None:
        refused(own("Patches", "blocks.0"), "17 patch tokens make no square", 'write view = "cls".')
        refused(own("patches_alone", "blocks.0", view="cls"), "15 patch tokens make no square", "Remove view")

    def test_modules_that_cannot_be_layers(self) -> None:
        refused(own("Twice", "body"), '["body", "body"]', "run once each")
        refused(own("Twice", "idle"), "one pass runs []")
        refused(own("Twice", "named"), '"named" gives states of type dict')
        refused(own("Convolutions", "stages.1", "stages.0"), "in that order")
        refused(own("Patches", "conv", "blocks.0", view="cls"), "differ in kind")
        refused(own("Convolutions", "stages", view="cls"), "has no class token")

    def test_a_size_that_does_not_fit(self) -> None:
        refused(
            own("patches_alone", "blocks.0", size=4), "cannot read a picture of 4 × 4 pixels: it raises RuntimeError"
        )


class TestWeights:
    def test_they_are_the_files(self, stages: Sample) -> None:
        weights = load_file(str(stages.spec.pretrained))
        held = dict(backbones.load(stages.spec, "cpu").module.state_dict())
        assert held.keys() == weights.keys() and all(torch.equal(held[k], v) for k, v in weights.items())

    def test_files_that_cannot_serve(self, stages: Sample, tmp_path: Path) -> None:
        whole = Path(str(stages.spec.pretrained))
        file = tmp_path / "weights.safetensors"
        spec = replace(stages.spec, pretrained=str(file))
        refused(spec, "there is no such file")
        file.write_bytes(whole.read_bytes()[:-9])
        refused(spec, "corrupt or was cut short")
        weights = load_file(whole)
        save_file({k: v for k, v in weights.items() if "head" not in k}, file)
        refused(spec, "does not hold the weights", "head.bias")
        save_file({**weights, "head.bias": torch.zeros(4)}, file)
        refused(spec, "does not hold the weights", "size mismatch")
        pickled = tmp_path / "weights.pt"
        torch.save(weights, pickled)
        refused(replace(spec, pretrained=str(pickled)), "can run code")

    def test_what_decides_the_states_is_resolved(self, stages: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
        first = backbones.load(stages.spec, "cpu").resolved
        assert backbones.load(stages.spec, "cpu").resolved == first
        others = [
            replace(stages.spec, modules=("stages.0", "stages.1", "head")),
            replace(stages.spec, std=(1.0, 1.0, 1.0)),
            replace(stages.spec, init="random"),
        ]
        assert all(backbones.load(spec, "cpu").resolved != first for spec in others)
        monkeypatch.setattr("inspect.getsourcefile", lambda of: __file__)
        assert backbones.load(stages.spec, "cpu").resolved["checkpoint"] != first["checkpoint"], "other code"

    def test_another_factory_of_the_same_file_and_weights_is_another_model(self) -> None:
        """What has no weights of its own, as an activation, shows in neither."""
        one, two = (backbones.load(own(name, "first", "second"), "cpu").resolved for name in ("InPlace", "Smooth"))
        assert one["checkpoint"] != two["checkpoint"]

    def test_code_is_all_that_the_model_is_built_of(self, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = replace(own("x", "block"), checkpoint=f"{lab.name}.nets:Net")
        first = backbones.load(spec, "cpu").resolved
        found = own_code.files(spec, sys.modules[f"{lab.name}.nets"].Net, nn.Identity(), [lab.name])
        assert {file.name for file in found} == {"__init__.py", "nets.py", "base.py", "ops.py", "late.py"}
        for file in found:
            whole = file.read_text()
            monkeypatch.setattr(own_code, "_imported", {})
            file.write_text(f"{whole}\n# changed\n")
            assert backbones.load(spec, "cpu").resolved["checkpoint"] != first["checkpoint"], file.name
            file.write_text(whole)

    def test_the_module_that_is_named_counts_and_none_is_run_for_being_named(self, lab: Path) -> None:
        """It may only hold what another one makes; and a program among the modules would end the worker."""
        spec = replace(own("x", "block"), checkpoint=f"{lab.name}.made:build")
        backbones.load(spec, "cpu")
        found = own_code.files(spec, sys.modules[f"{lab.name}.nets"].Net, nn.Identity(), [lab.name])
        assert {"made.py", "program.py", "newer.py", "nets.py"} <= {file.name for file in found}
        assert not {f"{lab.name}.program", f"{lab.name}.newer"} & sys.modules.keys()

    def test_where_files_lie_tells_no_model_apart(self, lab: Path, tmp_path: Path) -> None:
        for one, two in (("a", "z"), ("z", "a")):
            for folder, name in ((one, "x.py"), (two, "y.py")):
                (tmp_path / one / folder).mkdir(parents=True, exist_ok=True)
                (tmp_path / one / folder / name).write_text(name)
        first, second = ([*(tmp_path / place).rglob("*.py")] for place in ("a", "z"))
        assert checkpoint.fingerprint(first) == checkpoint.fingerprint(second)

    def test_what_was_changed_since_it_was_imported_is_not_run(self, lab: Path) -> None:
        spec = replace(own("x", "block"), checkpoint=f"{lab.name}.nets:Net")
        backbones.load(spec, "cpu")
        (lab / "ops.py").write_text("def twice(x):\n    return 3 * x\n")
        refused(spec, "ops.py was changed since this process imported it", "Restart the worker")

    def test_keys_that_do_not_fit(self, stages: Sample) -> None:
        for key in ("tower", "revision"):
            refused(replace(stages.spec, **{key: "image"}), f"{key} belongs to other sources")
        refused(replace(stages.spec, final_norm=True), "name that module among the layers")
        refused(replace(stages.spec, size=None), "wants the names of its layers and the size")


def test_a_librarys_own_model_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's ResNet is what timm's is, stage by stage."""
    monkeypatch.setenv(TRUST, "torchvision")
    named = ("layer1", "layer2", "layer3", "layer4")
    spec = replace(own("x", *named), checkpoint="torchvision.models:resnet18", size=64)
    backbone = backbones.load(spec, "cpu")
    assert backbone.widths == (64, 64, 128, 256, 512) and backbone.uncalibrated
    assert all(isinstance(stage, nn.Sequential) for stage in backbone._anatomy.stages)


def test_a_state_is_not_what_a_later_step_makes_of_it_in_its_own_place() -> None:
    backbone = backbones.load(own("InPlace", "first", "second"), "cpu")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = backbone.states(pixels, [1, 2])
    assert together[1].map.min() < 0, "not rectified"
    for layer in (1, 2):
        assert torch.equal(together[layer].map, backbone.states(pixels, [layer])[layer].map)


def test_a_final_norm_that_works_in_its_own_place_is_no_change_of_a_state() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    passes = []

    def forward() -> torch.Tensor:
        passes.append(1)
        return nn.functional.layer_norm(second(first(torch.ones(2, 4))), (4,)).mul_(2.0)

    states = blocks.run([first, second], [1, 2], forward, final_norm=True)
    assert len(passes) == 1 and torch.equal(states[1], first(torch.ones(2, 4)))
