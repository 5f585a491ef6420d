"""Convolutions and linear layers on processor cores, for passes without gradients: what follows them is done within.

A batch norm in evaluation mode is a scale and an offset, which the convolution before it can have in its weights; by
itself it reads and writes once more all that the convolution gave, and so does an activation. And weights as torch
stores them are copied into the order that the kernel reads by each call anew. oneDNN, which torch brings, has kernels
that need none of this; they are those that torch's own compiler calls, and they know no gradients. So for the length of
an extraction a model's modules compute by them, and are what they were after it. It costs a copy of the weights.

The order of the additions is another one: states are equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

from clipstudy.backbones import blocks
from clipstudy.backbones.kernels import Attention, Chain, Convolution, is_conv1d, possible, product

#: States of a trial may differ so much, as a share of the largest of their layer. Rounding is a hundred times less.
APART = 1e-4

Owner = TypeVar("Owner")
#: Modules → what each computes by instead of its own `forward`.
Forwards = dict[nn.Module, Callable[..., Any]]


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
        self._model, self._stages, self._trial = model, stages, trial
        self._forwards: Forwards | None = None  #: None: not known yet

    def _known(self) -> Forwards:
        """How modules compute within :meth:`running`; looked for when first asked, as a model that is trained never
        needs it."""
        if self._forwards is None:
            self._forwards = {}
            if possible(self._model):
                self._forwards = self._tried(self._found())
        return self._forwards

    def _found(self) -> Forwards:
        forwards: Forwards = {}
        for chain in _chains(self._model, self._stages, self._trial):
            forwards[chain.first] = Convolution(chain) if isinstance(chain.first, nn.Conv2d) else product(chain)
            forwards |= dict.fromkeys(chain.followers, _unchanged)
        forwards |= {one: Attention(one) for one in self._model.modules() if Attention.knows(one)}
        left = _torchs_own(self._model)
        return {module: forward for module, forward in forwards.items() if module not in left}

    def _tried(self, forwards: Forwards) -> Forwards:
        """``forwards`` if the trial's states are the same by them, else none: something else may read what lies between
        a module and what follows it, and kernels refuse some of what torch takes (a picture outside a batch)."""
        plain = self._trial()
        try:
            with _replaced(forwards):
                fast = self._trial()
        except RuntimeError:
            return {}
        return forwards if all(_close(fast[layer], states) for layer, states in plain.items()) else {}

    @property
    def modules(self) -> Collection[nn.Module]:
        """Those that compute otherwise within :meth:`running`."""
        return self._known().keys()

    def copy(self, owner: Owner, *shared: object) -> Owner:
        """``owner``, whose model this is, once more: modules of its own, which another thread can run at the same time,
        over the same weights and in the same kernels.

        Args:
            shared: what of ``owner`` the copy has in common with it, too.
        """
        kernels = self._known().values()
        common = (*self._model.parameters(), *self._model.buffers(), *kernels, *shared)
        return deepcopy(owner, {id(one): one for one in common})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the model's modules compute so. No gradient can be taken."""
        with _replaced(self._known()):
            yield


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    # Others may have their own in place meanwhile, as a redirected ReLU has.
    before = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            if module in before:
                module.forward = before[module]
            else:
                del module.forward


def _torchs_own(model: nn.Module) -> set[nn.Module]:
    """What lies in torch's own transformer layers. These have two ways to compute, and take the one that uses none of
    their modules where nothing reads the layer: its states must not depend on which layers are asked for."""
    layers = [module for module in model.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    return {module for layer in layers for module in layer.modules()}


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    """What a follower does where the module before it has done it."""
    return x


def _chains(model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], object]) -> list[Chain]:
    """The chains of ``model``, found by watching ``trial``."""
    chains: dict[nn.Module, Chain] = {}
    calls: dict[nn.Module, int] = {}
    growing: tuple[Chain, torch.Tensor, int] | None = None  # a chain, what it gave, at which version

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
        if _begins(module):
            chain = chains.setdefault(module, Chain(module))
            growing = chain, output, output._version
        elif growing and isinstance(output, torch.Tensor) and growing[0].goes_on(module):
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
    return [
        chain if all(calls[module] == 1 for module in (first, *chain.followers)) else Chain(first)
        for first, chain in chains.items()
    ]


def _begins(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if type(module) is nn.Linear:
        return True
    return is_conv1d(module)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= APART * other.abs().max())
