"""Convolutions on processor cores, for passes without gradients: the norm and the ReLU that follow are done within.

A batch norm in evaluation mode is a scale and an offset, which the convolution before it can have in its weights; by
itself it reads and writes once more all that the convolution gave, and so does a ReLU. And weights as torch stores them
are copied into the order that the kernel reads by each convolution anew. oneDNN, which torch brings, has a kernel that
needs none of this; it is the one that torch's own compiler calls, and it knows no gradients. So for the length of an
extraction a model's modules compute by it, and are what they were after it.

The order of the additions is another one: states are equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from clipstudy.backbones import blocks

#: States of a trial may differ so much, as a share of the largest of their layer. Rounding is a hundred times less.
APART = 1e-4


class Fused:
    """The modules of a frozen model that can compute so."""

    def __init__(
        self, model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], Mapping[int, torch.Tensor]]
    ) -> None:
        """
        Args:
            stages: what enters and leaves them is read, so it stays what it is.
            trial: the states of all layers for some input, without gradients.
        """
        self._forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {}
        if not _possible(model):
            return
        forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {}
        for convolution, followers in _chains(model, stages, trial).items():
            forwards[convolution] = _Kernel(convolution, followers)
            forwards |= dict.fromkeys(followers, _unchanged)
        plain = trial()
        self._forwards = forwards
        # Something else may read what lies between a convolution and what follows it; then states tell.
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
        # Others may have their own in place meanwhile, as a redirected ReLU has.
        before = {module: vars(module)["forward"] for module in self._forwards if "forward" in vars(module)}
        for module, forward in self._forwards.items():
            module.forward = forward
        try:
            yield
        finally:
            for module in self._forwards:
                if module in before:
                    module.forward = before[module]
                else:
                    del module.forward


class _Kernel:
    """What a convolution and its followers compute, in one call."""

    def __init__(self, convolution: nn.Conv2d, followers: Sequence[nn.Module]) -> None:
        self._convolution = convolution
        self._norm = next((f for f in followers if isinstance(f, nn.BatchNorm2d)), None)
        self._after = "relu" if any(isinstance(f, nn.ReLU) for f in followers) else "none"
        self._held = [*convolution.parameters(), *(self._norm.state_dict().values() if self._norm else ())]
        self._key: object = None
        self._weight, self._bias = convolution.weight, convolution.bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        layer = self._convolution
        how = (layer.padding, layer.stride, layer.dilation, layer.groups)
        # The best order depends on the input's shape; a calibration changes the weights.
        key = (x.shape, [tensor._version for tensor in self._held])
        if key != self._key:
            self._lay_out(x.shape, how)
            self._key = key
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *how, self._after, [], ""
        )
        return found

    def _lay_out(self, shape: Sequence[int], how: tuple[Any, ...]) -> None:
        weight, bias, norm = self._convolution.weight, self._convolution.bias, self._norm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *how, list(shape))
        self._bias = bias


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    """What a follower does where the convolution has done it."""
    return x


def _possible(model: nn.Module) -> bool:
    # No public names, so a version of torch may lack them.
    kernels = ("_convolution_pointwise", "_reorder_convolution_weight")
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in kernels)
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in model.parameters())
    )


def _chains(
    model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], object]
) -> dict[nn.Conv2d, list[nn.Module]]:
    """Each convolution of ``model``, and the batch norm, the ReLU or both that alone go on with what it gave, found by
    watching ``trial``."""
    chains: dict[nn.Conv2d, list[nn.Module]] = {}
    calls: dict[nn.Module, int] = {}
    growing: tuple[nn.Conv2d, torch.Tensor, int] | None = None  # a convolution, what its chain gave, at which version

    def end(*_: object) -> None:
        nonlocal growing
        growing = None

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        # The version too: a shortcut may have been added to it in place.
        if growing and not (args and args[0] is growing[1] and growing[2] == growing[1]._version):
            end()

    def leave(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        nonlocal growing
        if _fits(module):
            chains.setdefault(module, [])
            growing = module, output, output._version
        elif growing and _goes_on(chains[growing[0]], module):
            chains[growing[0]].append(module)
            growing = growing[0], output, output._version
        elif not isinstance(module, nn.Identity):
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
    return {
        convolution: followers if all(calls[module] == 1 for module in (convolution, *followers)) else []
        for convolution, followers in chains.items()
    }


def _fits(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _goes_on(chain: Sequence[nn.Module], module: nn.Module) -> bool:
    if type(module) is nn.BatchNorm2d:
        return not chain and module.running_mean is not None
    return type(module) is nn.ReLU and not any(isinstance(follower, nn.ReLU) for follower in chain)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= APART * other.abs().max())
