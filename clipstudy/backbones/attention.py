"""The attention of a model's blocks, taken while they run: one way for every library.

Fused kernels never write the matrix of attention weights down, and libraries compute queries and keys each in its own
way (norms, rotations, one projection or three). So the calls of torch's two attention functions are watched instead:
what such a call is given decides the weights exactly, whoever prepared it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from clipstudy.backbones import blocks
from clipstudy.errors import ModelError

#: Told a layer and its weights ``[B, heads, T, T]``, float32, each row (a query's) with the sum 1.
Take = Callable[[int, torch.Tensor], None]


def run(
    model: nn.Module,
    stages: Sequence[nn.Module],
    layers: Collection[int],
    forward: Callable[[], object],
    take: Take,
    name: str,
) -> None:
    """Tell ``take`` the attention weights of ``layers`` (1..depth), lowest first, in one call of ``forward``.

    One layer's weights are in memory at a time, unless ``take`` keeps them.

    Raises:
        ModelError: a block that computes no attention that can be seen, or more than one.
    """
    seen: dict[int, int] = dict.fromkeys(layers, 0)

    def note(layer: int, weights: torch.Tensor) -> None:
        seen[layer] += 1
        take(layer, weights)

    calls = _Calls(note)
    hooks = []
    for layer in seen:
        hooks.append(stages[layer - 1].register_forward_pre_hook(calls.inside(layer)))
        hooks.append(stages[layer - 1].register_forward_hook(calls.inside(None)))
    try:
        with torch.no_grad(), _fused(model), calls:
            forward()
    finally:
        blocks.remove(hooks)
    for layer, times in seen.items():
        if times != 1:
            raise ModelError(
                f"[models.{name}] layer {layer} is a {type(stages[layer - 1]).__name__} that calls torch's attention "
                f"{times} times, expected once. Choose a vision transformer with one attention a block."
            )


def weights(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The weights that ``scaled_dot_product_attention`` gives ``value``, whose arguments these are: ``[…, T, T]``,
    float32."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask.float()
    return scores.softmax(dim=-1)


class _Calls(TorchFunctionMode):
    """While it is entered, the attention calls inside one block at a time are told to ``note``."""

    def __init__(self, note: Take) -> None:
        super().__init__()
        self._note = note
        self._layer: int | None = None

    def inside(self, layer: int | None) -> Callable[..., None]:
        """A hook that says where the model is: in that layer's block, or (None) in none that matters."""

        def tell(*_: object) -> None:
            self._layer = layer

        return tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._layer is None:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._note(self._layer, weights(*args, **kwargs))
        elif func is F.multi_head_attention_forward:  # its own call of the kernel is out of sight, but it can be asked
            answer: Any = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            self._note(self._layer, answer[1].float())
            return answer
        return func(*args, **kwargs)


@contextmanager
def _fused(model: nn.Module) -> Iterator[None]:
    """timm can be told to multiply queries and keys by itself, out of sight; for a while it calls torch instead."""
    own: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", True) is False]
    for module in own:
        module.fused_attn = True
    try:
        yield
    finally:
        for module in own:
            module.fused_attn = False
