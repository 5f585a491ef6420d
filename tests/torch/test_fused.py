"""Fused convolutions and linear layers give the same states, for every library's models, and only without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from clipstudy import backbones
from clipstudy.backbones import blocks, kernels
from clipstudy.backbones.fused import Fused
from clipstudy.backbones.kernels import Attention
from tests.torch import checkpoints, image_checkpoints

pytestmark = pytest.mark.usefixtures("trust")

#: As a share of a layer's largest state.
ROUNDING = 1e-5
#: Has torch MKL here? On an ARM processor it has not.
MKL = torch.backends.mkl.is_available()
NO_MKL = "torch comes without MKL for this processor"


@pytest.fixture(autouse=True, params=["oneDNN", pytest.param("MKL", marks=pytest.mark.skipif(not MKL, reason=NO_MKL))])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linear layers by either library, whichever this machine's processor is for."""
    monkeypatch.setattr(kernels, "packs", lambda: request.param == "MKL")
    return str(request.param)


def same(fast: dict[int, torch.Tensor], plain: dict[int, torch.Tensor], rounding: float = ROUNDING) -> None:
    assert sorted(fast) == sorted(plain)
    for layer, states in plain.items():
        assert (fast[layer] - states).abs().max() <= rounding * states.abs().max(), layer


def is_plain(model: nn.Module) -> bool:
    return not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", list(image_checkpoints.BUILDERS))
def test_states_of_images(name: str, tmp_path: Path) -> None:
    backbone: Any = backbones.load(image_checkpoints.BUILDERS[name](tmp_path / name).spec, "cpu")
    pixels = backbone._placed(torch.rand(3, 3, *backbone.size))
    every = range(backbone.depth + 1)
    plain = {layer: backbone._told_apart(layer, states) for layer, states in backbone._run(pixels, every).items()}
    fast = backbone.states(pixels, every)
    assert backbone._fused.modules
    same({k: one.map for k, one in fast.items()}, {k: one.map for k, one in plain.items()})
    same(
        {k: one.cls for k, one in fast.items() if one.cls is not None},
        {k: one.cls for k, one in plain.items() if one.cls is not None},
    )
    assert is_plain(backbone.module)


@pytest.mark.parametrize("name", list(checkpoints.BUILDERS))
def test_states_of_texts(name: str, tmp_path: Path) -> None:
    backbone: Any = backbones.load(checkpoints.BUILDERS[name](tmp_path / name).spec, "cpu")
    ids = torch.arange(2, 20).reshape(2, 9)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 5:] = False
    every = range(backbone.depth + 1)
    plain = {layer: states[:, :9] for layer, states in backbone._run(ids, mask, every).items()}
    products = [m for m in backbone._fused.modules if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    assert len(products) >= backbone.depth
    if name != "modernbert":  # which halves what it has computed before the activation
        assert len(backbone._fused.modules) > len(products)
    same(backbone.states(ids, mask, every), plain)
    assert is_plain(backbone.module)


def test_a_residual_network_runs_no_norm_by_itself(tmp_path: Path) -> None:
    backbone: Any = backbones.load(image_checkpoints.BUILDERS["resnet"](tmp_path / "resnet").spec, "cpu")
    norms = {module for module in backbone.module.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms and norms <= set(backbone._fused.modules)


def test_gradients_are_the_librarys(tmp_path: Path) -> None:
    backbone: Any = backbones.load(image_checkpoints.BUILDERS["resnet"](tmp_path / "resnet").spec, "cpu")
    pixels = torch.rand(2, 3, *backbone.size, requires_grad=True)
    backbone.states(pixels, [backbone.depth])
    backbone.states(pixels, [backbone.depth], gradients=True)[backbone.depth].map.square().sum().backward()
    assert is_plain(backbone.module) and pixels.grad is not None and pixels.grad.abs().max() > 0
    own = pixels.detach().clone().requires_grad_()
    kept: list[torch.Tensor] = []
    stage = backbone._anatomy.stages[-1].register_forward_hook(lambda module, given, found: kept.append(found))
    backbone._anatomy.forward(own)
    stage.remove()
    kept[0].square().sum().backward()
    torch.testing.assert_close(pixels.grad, own.grad)


@pytest.mark.parametrize("name", ["resnet", "clip-resnet"])
def test_a_twins_states_follow_its_calibration(name: str, tmp_path: Path) -> None:
    spec = image_checkpoints.BUILDERS[name](tmp_path / name).spec
    backbone: Any = backbones.load(replace(spec, init="random"), "cpu")
    every = range(backbone.depth + 1)
    pixels = [backbone._placed(torch.rand(4, 3, *backbone.size) * scale) for scale in (1, 5)]
    before = backbone.states(pixels[0], every)[backbone.depth].map
    for some in pixels:  # a worker calibrates a model again for the next data set
        backbone.calibrate([some])
        fast = {layer: states.map for layer, states in backbone.states(pixels[0], every).items()}
        # Noise varies little from batch to batch, so its norms divide by little and enlarge what rounding left.
        same(fast, backbone._run(pixels[0], every), 10 * ROUNDING)
        assert not torch.allclose(fast[backbone.depth], before)
        before = fast[backbone.depth]


# --- what is not as it seems: models of one stage


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.other = (nn.BatchNorm2d(8) for _ in range(2))
        self.act, self.head = nn.ReLU(inplace=True), nn.Identity()
        for norm in (self.norm, self.other):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.running_mean)


class Straight(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.first(x)))
        return self.head(self.other(self.second(x)))


class Shortcut(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.norm(self.first(x))
        x = self.other(self.second(first))
        x += first
        return self.head(self.act(x))


class ReadTwice(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        return self.head(self.second(self.norm(first)) + first)


class CalledTwice(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.second(self.norm(self.first(x)))))


def built(
    kind: Callable[[], nn.Module], stages: Callable[[Any], Sequence[nn.Module]]
) -> tuple[Any, Fused, Callable[[], dict]]:
    torch.manual_seed(0)
    model = kind().eval().requires_grad_(False)
    pixels = torch.rand(2, 3, 9, 7)  # to a perceptron, rows of seven

    def run() -> dict[int, torch.Tensor]:
        return blocks.run(stages(model), range(1, len(stages(model)) + 1), lambda: model(pixels), False)

    return model, Fused(model, stages(model), run), run


@pytest.mark.parametrize(
    ("kind", "within"),
    [
        (Straight, ["first", "norm", "act", "second", "other"]),
        (Shortcut, ["first", "norm", "second", "other"]),
        (CalledTwice, ["first", "second"]),
        (ReadTwice, []),
    ],
)
def test_only_what_is_read_by_one_alone_is_done_within(kind: type[Small], within: list[str]) -> None:
    model, fast, run = built(kind, lambda m: [m.head])
    assert set(fast.modules) == {getattr(model, name) for name in within}
    plain = run()
    with fast.running():
        same(run(), plain)


class Perceptron(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.act, self.head = nn.Linear(7, 9), nn.Linear(9, 9, bias=False), act, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.act(self.first(x))))


class Twice(Perceptron):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.second(self.act(self.first(x)))))


class Quick(nn.Module):
    """CLIP's GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Clipped(nn.Module):
    """GELU up to 10, as transformers has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x).clip(-10, 10)


@pytest.mark.parametrize(
    ("act", "within"),
    [
        (nn.ReLU(), True),
        (nn.GELU(), True),
        (nn.GELU(approximate="tanh"), True),
        (nn.SiLU(), True),
        (Quick(), True),
        (nn.ReLU6(), False),
        (nn.Hardtanh(0, 20), False),
        (Clipped(), False),
        (nn.Hardswish(), False),
        (nn.Softmax(-1), False),
        (nn.LayerNorm(9), False),
    ],
    ids=str,
)
def test_activations_are_told_by_what_they_do(act: nn.Module, within: bool) -> None:
    model, fast, run = built(lambda: Perceptron(act), lambda m: [m.head])
    assert set(fast.modules) == {model.first, model.second} | ({model.act} if within else set())
    plain = run()
    with fast.running():
        same(run(), plain)


class Both(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.relu(), x


class Gated(nn.Module):
    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return x * gate


class Unusual(Perceptron):
    """Modules that give or take more than one tensor."""

    def __init__(self) -> None:
        super().__init__(Both())
        self.gated = Gated()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.act(self.first(x))
        x = self.second(x)
        return self.head(self.gated(x, x))


def test_what_gives_or_takes_more_than_numbers_stays() -> None:
    model, fast, run = built(Unusual, lambda m: [m.head])
    assert set(fast.modules) == {model.first, model.second}
    plain = run()
    with fast.running():
        same(run(), plain)


def test_few_numbers_do_not_make_one_activation_another() -> None:
    model, fast, run = built(lambda: Perceptron(nn.GELU()), lambda m: [m.head])
    model.first, model.second = nn.Linear(7, 1), nn.Linear(1, 1)
    model.requires_grad_(False)
    plain = run()
    with fast.running():
        same(run(), plain)
    assert model.act in fast.modules


def test_other_weights_in_their_place_are_seen() -> None:
    model, fast, run = built(lambda: Perceptron(nn.GELU()), lambda m: [m.head])
    with fast.running():
        run()
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}, assign=True)
    plain = run()
    with fast.running():
        same(run(), plain)


def test_a_model_that_is_trained_keeps_no_second_copy(tmp_path: Path) -> None:
    backbone: Any = backbones.load(checkpoints.bert(tmp_path / "bert").spec, "cpu")
    ids = torch.ones(1, 3, dtype=torch.long)
    backbone.last(ids, ids.bool(), ids.bool())
    assert backbone._fused._forwards is None
    backbone.states(ids, ids.bool(), [1])
    assert backbone._fused._forwards


class Alone(nn.Module):
    """Gives its convolution one picture at a time, and no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.stack([self.first(one) for one in x]))


def test_what_the_kernels_refuse_is_left_to_torch() -> None:
    model = Alone().eval().requires_grad_(False)
    pixels = torch.rand(1, 3, 5, 5)
    fast = Fused(model, [model.head], lambda: {1: model(pixels)})
    plain = model(pixels)
    with fast.running():
        same({1: model(pixels)}, {1: plain}, 0)
    assert not fast.modules and is_plain(model)


def test_an_activation_that_is_called_twice_stays() -> None:
    model, fast, run = built(lambda: Twice(nn.GELU()), lambda m: [m.head])
    assert set(fast.modules) == {model.first, model.second}
    plain = run()
    with fast.running():
        same(run(), plain)


class Attending(nn.Module):
    """Attention as open_clip's blocks ask for it, and in the ways that are left to torch."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **{"batch_first": True, **how})
        self.head = nn.Identity()
        nn.init.normal_(self.attention.in_proj_weight)
        if how.get("bias", True):
            nn.init.normal_(self.attention.in_proj_bias)
        self.asked: dict[str, Any] = {"need_weights": False}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x, x, x, **self.asked)[0])


CAUSAL = torch.full((5, 5), -torch.inf).triu(1)


@pytest.mark.parametrize("how", [{}, {"bias": False}])
@pytest.mark.parametrize(
    "asked",
    [
        {"need_weights": False},
        {"need_weights": False, "attn_mask": CAUSAL},
        {"need_weights": False, "attn_mask": CAUSAL < 0},
        {"need_weights": False, "attn_mask": CAUSAL.expand(6, 5, 5)},
        {"need_weights": False, "key_padding_mask": torch.arange(5).expand(3, 5) > 3},
        {"need_weights": True},
        {"need_weights": True, "average_attn_weights": False},
    ],
    ids=["plain", "mask", "mask of booleans", "mask of heads", "padding", "weights", "weights of heads"],
)
def test_attention_is_torchs(asked: dict[str, Any], how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Attending(**how).eval().requires_grad_(False)
    x = torch.randn(3, 5, 8)
    fast = Fused(model, [model.head], lambda: {1: model(x)})
    assert model.attention in fast.modules
    model.asked = asked
    plain = model.attention(x, x, x, **asked)
    across = model.attention(x, x.flip(1), x, **asked)
    with fast.running():
        found = model.attention(x, x, x, **asked)
        torch.testing.assert_close(model.attention(x, x.flip(1), x, **asked)[0], across[0])
    torch.testing.assert_close(found[0], plain[0])
    assert (found[1] is None) == (plain[1] is None)
    if plain[1] is not None:
        torch.testing.assert_close(found[1], plain[1])
    assert is_plain(model)


@pytest.mark.parametrize("how", [{"batch_first": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 4}])
def test_other_attention_is_left_to_torch(how: dict[str, Any]) -> None:
    assert not Attention.knows(nn.MultiheadAttention(8, 2, **{"batch_first": True, **how}))


@pytest.mark.parametrize("layer", ["first", "norm", "act"])
def test_what_a_study_reads_stays_what_it_is(layer: str) -> None:
    model, fast, run = built(Straight, lambda m: [getattr(m, layer), m.head])
    assert {model.first, model.second} <= set(fast.modules)
    plain = run()
    with fast.running():
        same(run(), plain)


def test_weights_may_change() -> None:
    model, fast, run = built(Straight, lambda m: [m.head])
    for held in (model.first.weight, model.first.bias, model.norm.running_var, model.other.weight):
        before = run()
        with fast.running():
            same(run(), before)
        held.mul_(2)
        plain = run()
        assert not torch.allclose(plain[1], before[1])
        with fast.running():
            same(run(), plain)


def test_a_pass_that_fails_leaves_the_model_as_it_was() -> None:
    model, fast, _ = built(Straight, lambda m: [m.head])
    with pytest.raises(RuntimeError, match="convolution"), fast.running():
        model(torch.rand(1, 4, 9, 7))
    assert is_plain(model)


def test_other_numbers_are_left_alone() -> None:
    assert not Fused(Straight().eval().bfloat16(), [], dict).modules


def test_what_another_has_put_in_place_is_there_afterwards() -> None:
    """Pictures of a redirected network are scored without gradients while its ReLUs are redirected."""
    model, fast, _ = built(Straight, lambda m: [m.head])

    def own(x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    rectifier = next(module for module in fast.modules if isinstance(module, nn.ReLU))
    rectifier.forward = own  # type: ignore[method-assign]
    with fast.running():
        assert rectifier.forward is not own
    assert rectifier.forward is own
    del rectifier.forward
    assert is_plain(model)


@pytest.mark.skipif(not MKL, reason=NO_MKL)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_serve_any_number_of_rows(transposed: bool, bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    given, gives = 70, 130
    layer: Any = nn.Linear(given, gives, bias=bias)
    if transposed:
        layer = Conv1D(gives, given)
        layer.bias = nn.Parameter(torch.randn(gives, generator=draw))
    layer.requires_grad_(False)
    packed = kernels.Packed(kernels.Chain(layer))
    for shape in ((1,), (3, 1), (2, 3), (7, 37), (256,), (511,), (3, 700), (0,)):
        x = torch.randn(*shape, given, generator=draw)
        torch.testing.assert_close(packed(x), layer(x), atol=1e-5, rtol=1e-5)
    turned = torch.randn(given, 5, generator=draw).t()
    torch.testing.assert_close(packed(turned), layer(turned), atol=1e-5, rtol=1e-5)
    layer.weight.mul_(2)  # as training does
    torch.testing.assert_close(packed(turned), layer(turned), atol=1e-5, rtol=1e-5)


def test_which_library_is_the_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()  # of the fixture's choice
    for name, packs in (("GenuineIntel", MKL), ("AuthenticAMD", False)):
        (tmp_path / name).write_text(f"processor : 0\nvendor_id : {name}\n")
        monkeypatch.setattr(kernels, "_CPUINFO", tmp_path / name)
        kernels.packs.cache_clear()
        assert kernels.packs() is packs
    monkeypatch.setattr(kernels, "_CPUINFO", tmp_path / "none")
    kernels.packs.cache_clear()
    assert not kernels.packs()
    monkeypatch.undo()
    kernels.packs.cache_clear()
