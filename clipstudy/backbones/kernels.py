"""What frozen modules compute by on processor cores: oneDNN's kernels, each with what follows it done within, or MKL's.

Both come with torch. On Intel's processors MKL's products of a few hundred tokens are the faster ones by more than an
activation costs that is done after them; on others oneDNN's are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: Numbers that tell an activation by what it does to them. The large ones are for those that stop growing somewhere.
_LARGE = torch.tensor([12.0, 25.0, 1e2, 1e3, 1e4, 1e6])
GRID = torch.cat([-_LARGE, torch.linspace(-9, 9, 181), _LARGE])
#: Whose processor this is, where the system says so.
_CPUINFO = Path("/proc/cpuinfo")
#: Rows for which MKL is told to pack weights.
TOKENS = 256


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


class Chain:
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
            found = activation(module)
            if found is None:
                return False
            self.activation = found
        self.followers.append(module)
        return True


class Kernel(ABC):
    """What a chain computes, in one call."""

    def __init__(self, chain: Chain) -> None:
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


class Convolution(Kernel):
    def __init__(self, chain: Chain) -> None:
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


class Product(Kernel):
    def _folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        layer = self._chain.first
        return (layer.weight.t() if is_conv1d(layer) else layer.weight), layer.bias

    def _ordered(self, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        return ordered

    def _computed(self, x: torch.Tensor) -> torch.Tensor:
        after = self._chain.activation
        given: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, after.name, [], after.form
        )
        return given


class Packed(Product):
    """A linear layer by MKL, weights packed; its activation comes after."""

    def _ordered(self, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        ordered: torch.Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), TOKENS)
        return ordered

    def _computed(self, x: torch.Tensor) -> torch.Tensor:
        # What is packed does not depend on the number of rows, of which the operator asks that it be the same.
        rows, (plain, _) = x.numel() // x.shape[-1], self._folded()
        given: torch.Tensor = torch.ops.mkl._mkl_linear(x, self._weight, plain, self._bias, rows)
        return self._chain.activation.of(given)


def product(chain: Chain) -> Kernel:
    """The faster kernel for a linear layer on this machine's processor."""
    return Packed(chain) if packs() else Product(chain)


@cache
def packs() -> bool:
    """Is this one of Intel's processors, and has torch MKL's packed products? They must be right for any number of
    rows."""
    names = ("_mkl_linear", "_mkl_reorder_linear_weight")
    if not torch.backends.mkl.is_available() or not all(hasattr(torch.ops.mkl, name) for name in names):
        return False
    if "GenuineIntel" not in (_CPUINFO.read_text(errors="replace") if _CPUINFO.exists() else ""):
        return False
    chain = Chain(nn.Linear(48, 80).requires_grad_(False))
    kernel = Packed(chain)
    return all(
        torch.allclose(kernel(x), chain.first(x), 1e-4, 1e-5)
        for x in (torch.linspace(-1, 1, 48 * rows).reshape(rows, 48) for rows in (1, 7, TOKENS, 3 * TOKENS + 1))
    )


class Attention:
    """torch's multi-head attention of a sequence to itself, by the products above: torch has its own way for it."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self._module = module
        self._into = product(Chain(_Joined(module)))
        self._out = product(Chain(module.out_proj))

    @staticmethod
    def knows(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
        return (
            type(module) is nn.MultiheadAttention
            and module.batch_first
            and module.in_proj_weight is not None  # keys and values as wide as queries
            and module.bias_k is None
            and not module.add_zero_attn
        )

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        itself = query is key and query is value and query.dim() == 3
        plain_mask = attn_mask is None or (attn_mask.dim() == 2 and attn_mask.is_floating_point())
        if need_weights or key_padding_mask is not None or not itself or not plain_mask:
            return type(self._module).forward(
                self._module, query, key, value, key_padding_mask, need_weights, attn_mask, **more
            )
        q, k, v = self._into(query).unflatten(2, (3, self._module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        given = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self._out(given.transpose(1, 2).flatten(2)), None


class _Joined:
    """Queries', keys' and values' products as one layer."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self._module = module

    @property
    def weight(self) -> torch.Tensor:
        return self._module.in_proj_weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self._module.in_proj_bias


def is_conv1d(module: object) -> bool:
    """GPT-2's linear layers, whose weights are transposed. (Told by name: their library is not imported for others.)"""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def possible(model: nn.Module) -> bool:
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


def activation(module: nn.Module) -> Activation | None:
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
