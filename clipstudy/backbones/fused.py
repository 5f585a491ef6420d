"""Convolutions and linear layers on processor cores, for passes without gradients: what follows them is done within.

A batch norm in evaluation mode is a scale and an offset, which the convolution before it can have in its weights; by
itself it reads and writes once more all that the convolution gave, and so does an activation. And weights as torch
stores them are copied into the order that the kernel reads by each call anew. oneDNN, which torch brings, has kernels
that need none of this; they are those that torch's own compiler calls, and they know no gradients. So for the length of
an extraction a model's modules compute by them, and are what they were after it. It costs a copy of the weights.

The order of the additions is another one: states are equal but for rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from clipstudy.backbones import blocks

#: States of a trial may differ so much, as a share of the largest of their layer. Rounding is a hundred times less.
APART = 1e-4
#: Numbers that tell an activation by what it does to them. The large ones are for those that stop growing somewhere.
_LARGE = torch.tensor([12.0, 25.0, 1e2, 1e3, 1e4, 1e6])
GRID = torch.cat([-_LARGE, torch.linspace(-9, 9, 181), _LARGE])


@dataclass(frozen=True)
class Activation:
    """``of(scale · x) / scale``, where ``of`` is the kernels' ``name`` in its form ``form``."""

    name: str
    of: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    scale: float = 1.0
    form: str = ""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.of(self.scale * x) / self.scale


LINEAR = Activation("none")
ACTIVATIONS = (
    Activation("relu", F.relu),
    Activation("gelu", F.gelu, form="none"),
    Activation("gelu", lambda x: F.gelu(x, approximate="tanh"), form="tanh"),
    Activation("swish", F.silu),
    Activation("swish", F.silu, scale=1.702),  # CLIP's GELU, x · sigmoid(1.702 x)
)


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
        self._forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] | None = None  #: None: not known yet

    def _known(self) -> dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        """How modules compute within :meth:`running`; looked for when first asked, as a model that is trained never
        needs it."""
        if self._forwards is None:
            self._forwards = {}
            if _possible(self._model):
                self._forwards = self._tried(self._found())
        return self._forwards

    def _found(self) -> dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {}
        for chain in _chains(self._model, self._stages, self._trial):
            forwards[chain.first] = _Convolution(chain) if isinstance(chain.first, nn.Conv2d) else _Product(chain)
            forwards |= dict.fromkeys(chain.followers, _unchanged)
        return forwards

    def _tried(
        self, forwards: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]]
    ) -> dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        """``forwards`` if the trial's states are the same by them, else none: something else may read what lies between
        a module and what follows it."""
        plain = self._trial()
        with _replaced(forwards):
            fast = self._trial()
        return forwards if all(_close(fast[layer], states) for layer, states in plain.items()) else {}

    @property
    def modules(self) -> Collection[nn.Module]:
        """Those that compute otherwise within :meth:`running`."""
        return self._known().keys()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the model's modules compute so. No gradient can be taken."""
        with _replaced(self._known()):
            yield


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
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


class _Chain:
    """A convolution or linear layer, and what alone goes on with what it gave: a batch norm, an activation or both."""

    def __init__(self, first: Any) -> None:
        self.first = first
        self.norm: nn.BatchNorm2d | None = None
        self.activation = LINEAR
        self.followers: list[nn.Module] = []

    def held(self) -> list[torch.Tensor]:
        """What the kernel's weights and offset are made of."""
        norm = self.norm
        of_norm = (norm.weight, norm.bias, norm.running_mean, norm.running_var) if norm else ()
        return [tensor for tensor in (self.first.weight, self.first.bias, *of_norm) if tensor is not None]

    def goes_on(self, module: nn.Module) -> bool:
        """Takes ``module``, which was given what the chain gave, into the chain if it can be."""
        if self.activation is not LINEAR:
            return False
        if type(module) is nn.BatchNorm2d:
            if self.followers or module.running_mean is None or not isinstance(self.first, nn.Conv2d):
                return False
            self.norm = module
        else:
            activation = _activation(module)
            if activation is None:
                return False
            self.activation = activation
        self.followers.append(module)
        return True


class _Kernel(ABC):
    """What a chain computes, in one call."""

    def __init__(self, chain: _Chain) -> None:
        self._chain = chain
        self._key: object = None
        self._weight, self._bias = chain.first.weight, chain.first.bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # The best order of a convolution's weights depends on the input's shape; a calibration changes a norm, training
        # the weights. (What is written through a tensor's `.data` torch itself does not notice.)
        key = (self._shape(x), [(tensor.data_ptr(), tensor._version) for tensor in self._chain.held()])
        if key != self._key:
            weight, bias = self._folded()
            scale = self._chain.activation.scale
            self._weight = self._ordered(weight.detach() * scale if scale != 1 else weight.detach(), x.shape)
            self._bias = bias if bias is None or scale == 1 else bias.detach() * scale
            self._key = key
        given = self._computed(x)
        return given if self._chain.activation.scale == 1 else given.div_(self._chain.activation.scale)

    def _shape(self, x: torch.Tensor) -> object:
        """What of ``x`` the order of the weights depends on."""
        return None

    @abstractmethod
    def _folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weights and offset, with those of the norm."""

    @abstractmethod
    def _ordered(self, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """``weight`` in the kernel's own order."""

    @abstractmethod
    def _computed(self, x: torch.Tensor) -> torch.Tensor: ...


class _Convolution(_Kernel):
    def __init__(self, chain: _Chain) -> None:
        super().__init__(chain)
        layer = chain.first
        self._how = (layer.padding, layer.stride, layer.dilation, layer.groups)

    def _shape(self, x: torch.Tensor) -> object:
        return x.shape

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        layer, norm = self._chain.first, self._chain.norm
        if norm is None or norm.running_mean is None or norm.running_var is None:
            return layer.weight, layer.bias
        return fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )

    def _ordered(self, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        ordered: torch.Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how, list(shape))
        return ordered

    def _computed(self, x: torch.Tensor) -> torch.Tensor:
        after = self._chain.activation
        given: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._how, after.name, [], after.form
        )
        return given


class _Product(_Kernel):
    def _folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        layer = self._chain.first
        return (layer.weight if type(layer) is nn.Linear else layer.weight.t().contiguous()), layer.bias

    def _ordered(self, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        return ordered

    def _computed(self, x: torch.Tensor) -> torch.Tensor:
        after = self._chain.activation
        given: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, after.name, [], after.form
        )
        return given


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    """What a follower does where the module before it has done it."""
    return x


def _possible(model: nn.Module) -> bool:
    # No public names, so a version of torch may lack them.
    kernels = (
        "_convolution_pointwise",
        "_linear_pointwise",
        "_reorder_convolution_weight",
        "_reorder_linear_weight",
    )
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in kernels)
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in model.parameters())
    )


def _chains(model: nn.Module, stages: Sequence[nn.Module], trial: Callable[[], object]) -> list[_Chain]:
    """The chains of ``model``, found by watching ``trial``."""
    chains: dict[nn.Module, _Chain] = {}
    calls: dict[nn.Module, int] = {}
    growing: tuple[_Chain, torch.Tensor, int] | None = None  # a chain, what it gave, at which version

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
            chain = chains.setdefault(module, _Chain(module))
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
        chain if all(calls[module] == 1 for module in (first, *chain.followers)) else _Chain(first)
        for first, chain in chains.items()
    ]


def _begins(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if type(module) is nn.Linear:
        return True
    # GPT-2's linear layers, whose weights are transposed.
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def _activation(module: nn.Module) -> Activation | None:
    """What ``module`` does to each number, if the kernels have it. Libraries have many classes for few functions."""
    if any(True for _ in (*module.parameters(), *module.buffers())):
        return None
    try:
        done = module.forward(GRID.clone())
    except Exception:  # of anybody's module that takes more than numbers in a row: it is none
        return None
    if not isinstance(done, torch.Tensor) or done.shape != GRID.shape:
        return None
    return next((one for one in ACTIVATIONS if torch.allclose(done, one(GRID), 1e-5, 1e-6)), None)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= APART * other.abs().max())
