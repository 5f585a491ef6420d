"""Passes without gradients on processor cores: weights laid out once, and what follows a product done within it.

torch's layers keep weights as they were stored, so every product of theirs first copies them into the order that its
kernel reads; and a batch norm, a ReLU or a GELU reads and writes once more all that the product before it gave. oneDNN,
which torch brings, has kernels that need neither; they are those that torch's own compiler calls, and they know no
gradients. So for the length of an extraction the modules of a model compute by them, and are what they were after it.

The order of the additions is another one: states are equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from clipstudy.backbones import blocks

#: Weights are in memory twice; of a model that has more bytes of them than this they are not.
MOST = 2 * 2**30
#: States of a trial may differ so much, as a share of the largest of their layer. Rounding is a hundred times less.
APART = 1e-4


class Packed:
    """The convolutions and linear layers of a frozen model that can compute by such kernels."""

    def __init__(
        self, model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], Mapping[int, torch.Tensor]]
    ) -> None:
        """
        Args:
            stages: what enters and leaves them is read, so it stays what it is.
            trial: the states of all layers for an input of some kind, without gradients.
        """
        self._forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {}
        if not _possible(model):
            return
        forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {}
        for module, followers in _chains(model, stages, trial).items():
            forwards[module] = (_Convolution if isinstance(module, nn.Conv2d) else _Linear)(module, followers)
            forwards |= dict.fromkeys(followers, _unchanged)
        plain = trial()
        self._forwards = forwards
        # Something else may read what lies between a product and what follows it; then states tell.
        with self.running():
            fast = trial()
        if not all(_close(fast[layer], states) for layer, states in plain.items()):
            self._forwards = {}

    @property
    def modules(self) -> Collection[nn.Module]:
        """Those that compute otherwise within :meth:`running`."""
        return self._forwards.keys()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the model's modules compute so. No gradient can be taken."""
        for module, forward in self._forwards.items():
            module.forward = forward
        try:
            yield
        finally:
            for module in self._forwards:
                del module.forward


class _Product:
    """What a layer and its followers compute, in one call of a kernel."""

    def __init__(self, layer: Any, followers: Sequence[nn.Module]) -> None:
        self._layer = layer
        self._norm = next((f for f in followers if isinstance(f, nn.BatchNorm2d)), None)
        activation = next((f for f in followers if f is not self._norm), None)
        # The kernel's name of the activation, its numbers, and its algorithm.
        self._after = ("none", [], "") if activation is None else _named(activation)
        held = [*layer.parameters(), *(self._norm.state_dict().values() if self._norm else ())]
        self._held: list[torch.Tensor] = held
        self._key: object = None

    def _renewed(self, *more: object) -> bool:
        """Must the weights be laid out, for the first time or anew, since a training or calibration changed them?"""
        key = (more, [tensor._version for tensor in self._held])
        known, self._key = self._key == key, key
        return not known


class _Convolution(_Product):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        layer, norm = self._layer, self._norm
        how = (layer.padding, layer.stride, layer.dilation, layer.groups)
        if self._renewed(x.shape):
            weight, self._bias = layer.weight, layer.bias
            if norm is not None and norm.running_mean is not None and norm.running_var is not None:
                weight, self._bias = fuse_conv_bn_weights(
                    weight, self._bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *how, list(x.shape))
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *how, *self._after)
        return found


class _Linear(_Product):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._renewed():
            rows = x.numel() // x.shape[-1]
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._layer.weight.detach(), rows)
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._layer.bias, *self._after)
        return found


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    """What a follower does where the product has done it."""
    return x


def _possible(model: nn.Module) -> bool:
    weights = list(model.parameters())
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_linear_pointwise"))
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
        and sum(weight.nbytes for weight in weights) <= MOST
    )


def _chains(
    model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], object]
) -> dict[nn.Module, list[nn.Module]]:
    """Each convolution and linear layer of ``model``, and the modules that do nothing but go on with what it gave,
    found by watching ``trial``: a batch norm behind a convolution, an activation behind either."""
    chains: dict[nn.Module, list[nn.Module]] = {}
    calls: dict[nn.Module, int] = {}
    growing: tuple[nn.Module, torch.Tensor, int] | None = None  #: a product, what its chain gave, at which version

    def end(*_: object) -> None:
        nonlocal growing
        growing = None

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        # The version too: a shortcut may have been added to it in place.
        if growing and not (args and args[0] is growing[1] and growing[2] == growing[1]._version):
            end()

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal growing
        if _is_product(module):
            chains.setdefault(module, [])
            growing = module, output, output._version
        elif growing and not isinstance(module, nn.Identity):
            product = growing[0]
            if _goes_on(product, chains[product], module, args[0], output):
                chains[product].append(module)
                growing = product, output, output._version
            else:
                end()

    hooks = []
    for module in model.modules():
        if not any(True for _ in module.children()):
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    # After the others, so that what a stage ends with, or is, ends its chain.
    for stage in stages:
        hooks += [stage.register_forward_pre_hook(end), stage.register_forward_hook(end)]
    try:
        trial()
    finally:
        blocks.remove(hooks)
    for product, followers in chains.items():
        if any(calls[module] > 1 for module in (product, *followers)):
            chains[product] = []
    return chains


def _is_product(module: nn.Module) -> bool:
    if "forward" in vars(module):
        return False
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def _goes_on(product: nn.Module, chain: list[nn.Module], module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> bool:
    if type(module) is nn.BatchNorm2d:
        return isinstance(product, nn.Conv2d) and not chain and module.running_mean is not None
    activated = bool(chain) and not isinstance(chain[-1], nn.BatchNorm2d)
    if activated or any(True for _ in module.parameters()):
        return False
    return type(module) is nn.ReLU or (x.shape == y.shape and torch.equal(F.gelu(x), y))


def _named(activation: nn.Module) -> tuple[str, list[float], str]:
    return ("relu", [], "") if isinstance(activation, nn.ReLU) else ("gelu", [], "none")


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= APART * other.abs().max())
