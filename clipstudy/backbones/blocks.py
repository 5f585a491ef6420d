"""A model's blocks, found by watching them run, and their outputs, taken by hooks: one way for every library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import torch
from torch import nn

from clipstudy.errors import DeviceError, ModelError, said


def find(model: nn.Module, depth: int, trial: Callable[[], object], name: str) -> Sequence[nn.Module]:
    """The ``depth`` blocks of ``model``: the modules of a list that a forward pass calls one after another, each given
    what the one before it gave. One that is called again and again (ALBERT's) is there as often.

    Names differ from model to model (``encoder.layer``, ``h``, ``layers``), and a model may hold other lists that are
    called as often (norms, experts, the halves of blocks); so the lists are watched while ``trial`` runs the model, and
    among those whose members pass the states on the one with the most weights is taken.

    Raises:
        ModelError: there is no such list, or the states change between two of its blocks: then layers are not clear.
    """
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) <= depth]
    seen = _watch({block for held in lists for block in held}, trial)
    found: list[list[nn.Module]] = []
    broken: list[int] = []
    for held in lists:
        places = {block: k for k, block in enumerate(dict.fromkeys(held))}
        calls = [call for call in seen if call.module in places]
        order = [places[call.module] for call in calls]
        if len(calls) != depth or order != sorted(order) or len(set(order)) != len(places):
            continue
        gaps = _gaps(calls)
        if not gaps:
            found.append([call.module for call in calls])
        elif len(gaps) < depth - 1:
            broken += gaps
    if found:
        return max(found, key=lambda blocks: sum(p.numel() for block in set(blocks) for p in block.parameters()))
    if broken:
        raise ModelError(
            f"[models.{name}] {type(model).__name__} changes its states between blocks {broken[0]} and "
            f"{broken[0] + 1}: what the one gives is not what the next one reads, so its layers are not clear. Choose "
            "a model whose blocks follow one another directly."
        )
    raise ModelError(
        f"[models.{name}] {type(model).__name__} has no list of {depth} blocks that it calls one after another, each "
        "given what the one before it gave, so its layers cannot be told apart. Choose a model whose blocks are "
        "separate modules."
    )


def severed(stages: Sequence[nn.Module], trial: Callable[[], object]) -> int | None:
    """The first of ``stages``, counted from 1, that gives something else than the next one is given in ``trial``, or
    that is not called once in its turn; None: there is none."""
    calls = _watch(set(stages), trial)
    for k, stage in enumerate(stages):
        if k >= len(calls) or calls[k].module is not stage or calls[k].gave is None:
            return max(k, 1)
    return next(iter(_gaps(calls)), None)


def _gaps(calls: Sequence[_Call]) -> list[int]:
    """The calls, counted from 1, that gave something else than the next one was given."""
    return [k for k, (one, after) in enumerate(pairwise(calls), 1) if not _same(one.gave, after.given)]


@dataclass
class _Call:
    """One call of a module: the states that it was given and that it gave, as they were then."""

    module: nn.Module
    given: torch.Tensor | None
    gave: torch.Tensor | None = None


def _watch(modules: Collection[nn.Module], trial: Callable[[], object]) -> list[_Call]:
    """The calls of ``modules`` while ``trial`` runs, in the order in which they began."""
    calls: list[_Call] = []
    open_: list[_Call] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        open_.append(_Call(module, _copy((*args, *kwargs.values()))))
        calls.append(open_[-1])

    def leave(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        open_.pop().gave = _copy(_listed(output))

    hooks = []
    for module in modules:
        hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave))
    try:
        trial()
    finally:
        remove(hooks)
    return calls


def _copy(values: Iterable[Any]) -> torch.Tensor | None:
    try:
        return _tensor(values).detach().clone()
    except StopIteration:
        return None


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """The same states, whatever their precision; places without a number are the same, too."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return torch.equal(one.float().nan_to_num(), other.float().nan_to_num())


class _Enough(Exception):
    """Raised inside a forward pass when the highest layer asked for is known: what would follow is read by nobody."""


def run(
    blocks: Sequence[nn.Module],
    layers: Iterable[int],
    forward: Callable[[], torch.Tensor],
    final_norm: bool,
    gradients: bool = False,
    copied: bool = False,
) -> dict[int, torch.Tensor]:
    """States of ``layers`` from one call of ``forward``, which ends at the highest of them; from a second call, with
    each state copied at once, where the model goes on to work in a state's own place (an in-place activation).

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
    versions: dict[int, int] = {}

    def keep(layer: int, values: Iterable[Any]) -> None:
        states[layer] = _tensor(values).clone() if copied else _tensor(values)
        versions[layer] = states[layer]._version
        if layer == top and not normed:
            raise _Enough

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if 0 not in states:
            keep(0, (*args, *kwargs.values()))

    def leave(layer: int) -> Callable[..., None]:
        block = blocks[layer - 1]
        others = count(sum(one is block for one in blocks[: layer - 1]), -1)  # calls of it before this layer's

        def note(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            if next(others) == 0:
                keep(layer, _listed(output))

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
                states[top], versions[top] = last, last._version
    finally:
        remove(hooks)
    if any(states[layer]._version != version for layer, version in versions.items()):
        return run(blocks, asked, forward, final_norm, gradients, copied=True)
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
            "Try --device auto, which takes what there is."
        ) from error


def _listed(output: Any) -> tuple[Any, ...]:
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def _tensor(values: Iterable[Any]) -> torch.Tensor:
    # Blocks pass more than their states (masks, caches, weights); the states come first and are floating.
    return next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
