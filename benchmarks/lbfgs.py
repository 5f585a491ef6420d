"""Multinomial logistic regression by full-batch L-BFGS, many members as one: what stands beside the stack's Adam.

Each member minimises the mean cross-entropy + l2 / 2 · |weights|², the bias included, as Adam's L2 has it. Two-loop
recursion (Nocedal & Wright 2006, algorithm 7.4) with a step halved until Armijo's condition holds, each member by
itself; members of one layer share the product with its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

HISTORY, ITERATIONS, HALVINGS = 10, 200, 20
ARMIJO = 1e-4
#: Largest entry of the gradient at which a member is done.
FLAT = 1e-4


@torch.no_grad()
def fit(x: Tensor, y: Tensor, classes: int, decays: tuple[float, ...]) -> Tensor:
    """Weights and bias of every layer and weight decay, ``[L, K, C, d + 1]``.

    Args:
        x: features of L layers, ``[L, n, d]``.
        y: labels, ``[n]``.
    """
    rows = _with_one(x)
    decay = torch.tensor(decays)
    weights = x.new_zeros(len(x), len(decays), classes, rows.shape[2])
    value, gradient = _loss(weights, rows, y, decay)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for iteration in range(ITERATIONS):
        moving = ~_flat(gradient)
        if not moving.any():
            break
        direction = -_two_loops(gradient, steps)
        if iteration == 0:  # nothing is known of the curvature yet
            direction = direction / gradient.norm(dim=(2, 3), keepdim=True).clamp(min=1)
        slope = (direction * gradient).sum((2, 3))
        length = moving.to(x.dtype)
        for _ in range(HALVINGS):
            trial = weights + length[..., None, None] * direction
            trial_value, trial_gradient = _loss(trial, rows, y, decay)
            steep = trial_value > value + ARMIJO * length * slope
            if not steep.any():
                break
            length = torch.where(steep, length / 2, length)
        s, g = trial - weights, trial_gradient - gradient
        product = (s * g).sum((2, 3))
        # A member that stands still, or sees no curvature, leaves no step behind.
        rho = torch.where(product > 1e-12, 1 / product.clamp(min=1e-12), torch.zeros_like(product))
        steps = [*steps, (s, g, rho)][-HISTORY:]
        weights, value, gradient = trial, trial_value, trial_gradient
    return weights


@torch.no_grad()
def flat(weights: Tensor, x: Tensor, y: Tensor, decays: tuple[float, ...]) -> Tensor:
    """Which members are done, ``[L, K]`` (bool): no entry of their gradient is above :data:`FLAT`."""
    _, gradient = _loss(weights, _with_one(x), y, torch.tensor(decays))
    return _flat(gradient)


def predict(weights: Tensor, x: Tensor) -> Tensor:
    """Classes ``[L, K, n]`` of the rows of ``x [L, n, d]``."""
    return _logits(weights, _with_one(x)).argmax(3).transpose(1, 2)


def _flat(gradient: Tensor) -> Tensor:
    return gradient.abs().amax((2, 3)) <= FLAT


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)


def _logits(weights: Tensor, rows: Tensor) -> Tensor:
    """``[L, n, K, C]``."""
    return torch.bmm(rows, weights.flatten(1, 2).mT).unflatten(2, weights.shape[1:3])


def _loss(weights: Tensor, rows: Tensor, y: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Value ``[L, K]`` and gradient ``[L, K, C, d + 1]``."""
    spread = _logits(weights, rows).log_softmax(3)
    truth = y[None, :, None, None].expand(*spread.shape[:3], 1)
    value = -spread.gather(3, truth).squeeze(3).mean(1) + decay / 2 * weights.square().sum((2, 3))
    error = spread.exp_().scatter_add_(3, truth, spread.new_tensor(-1.0).expand(truth.shape)) / len(y)
    gradient = torch.bmm(error.flatten(2, 3).mT, rows).unflatten(1, weights.shape[1:3])
    return value, gradient + decay[:, None, None] * weights


def _two_loops(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian's product with ``gradient``, as the last steps tell it."""
    q = gradient.clone()
    taken = []
    for s, g, rho in reversed(steps):
        a = rho * (s * q).sum((2, 3))
        q -= a[..., None, None] * g
        taken.append(a)
    if steps:
        s, g, rho = steps[-1]
        square = g.square().sum((2, 3))
        scale = torch.where(rho > 0, (s * g).sum((2, 3)) / square.clamp(min=1e-30), torch.ones_like(rho))
        q *= scale[..., None, None]
    for (s, g, rho), a in zip(steps, reversed(taken), strict=True):
        q += (a - rho * (g * q).sum((2, 3)))[..., None, None] * s
    return q
