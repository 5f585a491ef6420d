"""A model's blocks, found by watching them run, and their outputs, taken by hooks: one way for every library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from clipstudy.errors import DeviceError, ModelError, said


def find(model: nn.Module, depth: int, trial: Callable[[], object], name: str) -> Sequence[nn.Module]:
    """The ``depth`` blocks of ``model``: the list of modules that a forward pass calls one after another.

    Names differ from model to model (``encoder.layer``, ``h``, ``layers``), and a model may hold other lists of the
    same length (norms, experts); so the lists of the right length are watched while ``trial`` runs the model, and
    among those whose members were each called once, in order, the one with the most weights is taken.

    Raises:
        ModelError: there is no such list.
    """
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    calls: dict[int, list[int]] = {id(blocks): [] for blocks in lists}

    def note(blocks: list[nn.Module], index: int) -> Callable[..., None]:
        return lambda *_: calls[id(blocks)].append(index)

    hooks = [block.register_forward_pre_hook(note(b, i)) for b in lists for i, block in enumerate(b)]
    try:
        trial()
    finally:
        remove(hooks)
    in_order = [blocks for blocks in lists if calls[id(blocks)] == list(range(depth))]
    if not in_order:
        raise ModelError(
            f"[models.{name}] {type(model).__name__} has no list of {depth} blocks that it calls one after another, so "
            "its layers cannot be told apart. Choose a model whose blocks are separate modules."
        )
    return max(in_order, key=lambda blocks: sum(p.numel() for block in blocks for p in block.parameters()))


class _Enough(Exception):
    """Raised inside a forward pass when the highest layer asked for is known: what would follow is read by nobody."""


def run(
    blocks: Sequence[nn.Module],
    layers: Iterable[int],
    forward: Callable[[], torch.Tensor],
    final_norm: bool,
    gradients: bool = False,
) -> dict[int, torch.Tensor]:
    """States of ``layers`` from one call of ``forward``, which ends at the highest of them.

    Args:
        layers: 0 is what enters block 0; k is the raw output of block k.
        forward: runs the model and returns its last states *after* the final norm.
        final_norm: give layer ``len(blocks)`` as ``forward`` returns it, not raw.
        gradients: keep what flows back from the states.
    """
    asked = set(layers)
    top = max(asked)
    normed = final_norm and top == len(blocks)
    states: dict[int, torch.Tensor] = {}

    def keep(layer: int, values: Iterable[Any]) -> None:
        states[layer] = _tensor(values)
        if layer == top and not normed:
            raise _Enough

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(0, (*args, *kwargs.values()))

    def leave(layer: int) -> Callable[..., None]:
        def note(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            keep(layer, output if isinstance(output, tuple) else (output,))

        return note

    hooks = []
    for layer in asked:
        if layer == 0:
            hooks.append(blocks[0].register_forward_pre_hook(enter, with_kwargs=True))
        else:
            hooks.append(blocks[layer - 1].register_forward_hook(leave(layer)))
    try:
        with torch.set_grad_enabled(gradients), suppress(_Enough):
            last = forward()
            if normed:
                states[top] = last
    finally:
        remove(hooks)
    return states


def remove(hooks: Iterable[torch.utils.hooks.RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


def place(model: nn.Module, device: str) -> None:
    """Freeze ``model`` and move it to ``device``.

    Raises:
        DeviceError: there is no such device here, or the model does not fit on it.
    """
    model.eval().requires_grad_(False)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f'the model cannot be put on device "{device}" ({said(error)}). '
            "`clipstudy worker --device auto` takes what there is."
        ) from error


def _tensor(values: Iterable[Any]) -> torch.Tensor:
    # Blocks pass more than their states (masks, caches, weights); the states come first and are floating.
    return next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
