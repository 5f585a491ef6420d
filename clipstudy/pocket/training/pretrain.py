"""Pretraining a pocket model from nothing: how long, how fast, and what came of it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from clipstudy.errors import ModelError
from clipstudy.pocket.training import evaluation, models
from clipstudy.pocket.training.objectives import objective

log = logging.getLogger(__name__)

#: What came of a pretraining, beside the checkpoint.
RECORD = "pretraining.json"
#: Points of a loss curve, each the mean of the steps since the one before.
POINTS = 100


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Steps are counted, not seconds: a busy machine gives the same model."""

    steps: int
    batch: int  #: lines, or pictures
    rate: float = 1e-3  #: the highest; it rises over ``warm_up`` steps and falls to nothing along a cosine
    warm_up: int = 200
    decay: float = 0.05  #: AdamW's, of matrices alone
    clip: float = 1.0  #: longest gradient

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm_up = min(self.warm_up, max(self.steps // 5, 1))
        if step < warm_up:
            return self.rate * (step + 1) / warm_up
        return self.rate * (1 + math.cos(math.pi * (step - warm_up) / (self.steps - warm_up))) / 2


#: Twins have one recipe: the two language models, and all five that see. Both read or see 576,000.
TEXT = Recipe(steps=9_000, batch=64)
PICTURES = Recipe(steps=4_500, batch=128, rate=2e-3)
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {name: PICTURES if model.sees else TEXT for name, model in models.MODELS.items()}
)


@dataclass(frozen=True)
class Pretrained:
    """A pretraining and its figures (``evaluation.figures``), those of the same model before its first step beside
    them."""

    name: str
    objective: str
    seed: int
    recipe: Recipe
    parameters: int
    curve: tuple[tuple[int, float], ...]  #: (steps done, mean loss since the point before, in nats)
    figures: Mapping[str, float]
    untrained: Mapping[str, float]
    floors: Mapping[str, float]
    seconds: float  #: of training alone; not in the record, which the same seed gives again


def pretrain(
    name: str,
    folder: Path,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], object] | None = None,
    held: int = evaluation.HELD,
) -> Pretrained:
    """Train pocket model ``name`` and write its checkpoint and ``RECORD`` into ``folder``.

    Everything follows from the seed: first weights, data and their order. On one machine, with one number of threads,
    two runs give equal files; elsewhere equal weights but for rounding.

    Args:
        steps: instead of the recipe's; the schedule is fitted to them.
        progress: told (what, steps done, of).
        held: held-out sentences or pictures behind each figure.

    Raises:
        KeyError: there is no pocket model of that name.
        ModelError: the loss is no number any more.
    """
    recipe = RECIPES[name] if steps is None else replace(RECIPES[name], steps=steps)
    model = models.build(name, seed)
    untrained = evaluation.figures(name, model, held, seed)
    began = time.monotonic()
    curve = train(name, model, recipe, seed, progress)
    seconds = time.monotonic() - began
    models.save(name, model, folder)
    # Figures are of what was written: half precision, read back by the model's own library.
    figures = evaluation.figures(name, models.load(name, folder), held, seed)
    floors = evaluation.floors(name, held, seed)
    what, size = models.MODELS[name].objective, models.size(model)
    done = Pretrained(name, what, seed, recipe, size, curve, figures, untrained, floors, seconds)
    record = {key: value for key, value in asdict(done).items() if key != "seconds"}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("%s: %d steps in %.0f s, %s (untrained %s)", name, recipe.steps, seconds, figures, untrained)
    return done


def train(
    name: str,
    model: Any,
    recipe: Recipe,
    seed: int = 0,
    progress: Callable[[str, int, int], object] | None = None,
) -> tuple[tuple[int, float], ...]:
    """Train ``model`` in place; its loss curve."""
    aim = objective(name, model, seed, recipe.batch)
    helper = aim.helper if aim.helper is not None else nn.Identity()
    weights = [*model.parameters(), *helper.parameters()]
    optimizer = _optimizer(weights, recipe)
    model.train()
    if models.MODELS[name].sees:
        model.to(memory_format=torch.channels_last)  # convolutions are a third faster
    every = max(recipe.steps // POINTS, 1)
    curve: list[tuple[int, float]] = []
    recent = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, loss in zip(range(recipe.steps), aim.losses(), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, recipe.clip)
            optimizer.step()
            aim.after()
            recent += loss.item()
            if (step + 1) % every == 0:
                if not math.isfinite(recent):
                    raise ModelError(f"{name}: the loss is {recent} by step {step + 1}. Lower the recipe's rate.")
                curve.append((step + 1, recent / every))
                recent = 0.0
            if progress is not None:
                progress(name, step + 1, recipe.steps)
    model.eval()
    return tuple(curve)


def _optimizer(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW. Norms, biases and the temperature are not decayed."""
    matrices, rest = ([w for w in weights if (w.ndim > 1) is large] for large in (True, False))
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)
