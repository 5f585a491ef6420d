"""A whole model trained for one task from one seed: what `finetune` calls a probe.

What the model says of an item is a linear layer's word on its summary token, with the marked words' states beside it,
or on [u; v; |u − v|; u ∘ v] of two texts read apart. The labels of the reported split do not come here, so nothing
that is chosen (the epoch) can have looked at them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipstudy.backbones.backbone import Pieces, TextBackbone
from clipstudy.device import fitting
from clipstudy.errors import ModelError

#: Deviation of the head's first weights, as BERT's own.
DEVIATION = 0.02
#: Items that are scored at once, at least.
SCORED = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    learning_rate: float
    batch_size: int
    epochs: int  #: at most
    patience: int  #: ends it: so many epochs that are no better on the development part
    warmup: float  #: share of all steps over which the rate rises to ``learning_rate``
    linear: bool  #: then it falls to 0, where it is not constant
    weight_decay: float  #: of matrices; biases and norms have none
    dropout: float  #: before the head; the model's own is as its configuration has it
    clip: float = 1.0  #: most that the gradient's norm may be


@dataclass(frozen=True)
class Shown:
    """A text, or two as one, as the model reads it, and the positions of each marked word's pieces in it."""

    pieces: Pieces
    marks: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Item:
    """What is shown of one row: one side, or two that are read apart; each whole or in windows, which are averaged."""

    sides: tuple[tuple[Shown, ...], ...]

    @property
    def length(self) -> int:
        return sum(len(shown.pieces.ids) for side in self.sides for shown in side)


@dataclass(frozen=True)
class Parts:
    """The three splits: to fit on, to choose the best epoch on, and to predict. The last has no labels here, so that
    nothing can be chosen by them."""

    train: Sequence[Item]
    train_labels: NDArray[np.int64]
    development: Sequence[Item]
    development_labels: NDArray[np.int64]
    reported: Sequence[Item]
    classes: int


@dataclass(frozen=True)
class Epoch:
    """One pass over train. What was right in it was counted as it went, dropout and all."""

    loss: float
    train_accuracy: float
    dev_accuracy: float


@dataclass(frozen=True)
class Tuned:
    """What one training gave."""

    predictions: NDArray[np.int32]  #: classes on the reported split, at the epoch that was best on development
    epochs: tuple[Epoch, ...]
    chosen: int  #: which of ``epochs`` that is, from 0: of equals the first
    portion: int  #: items that were in memory at once: the batch, or less where that did not fit

    @property
    def best(self) -> Epoch:
        return self.epochs[self.chosen]


def steps(recipe: Recipe, rows: int) -> int:
    """The most steps that a training on so many rows takes."""
    return recipe.epochs * math.ceil(rows / recipe.batch_size)


def tune(backbone: TextBackbone, parts: Parts, recipe: Recipe, seed: int, tick: Callable[[int], None]) -> Tuned:
    """Train ``backbone``, which is changed.

    The result depends on the weights, the parts, the recipe and the seed alone: head, dropout and order are drawn from
    generators of this training's own. (On a GPU sums are of no fixed order, and a batch that had to be halved draws
    other dropout; both are as another seed would be.)

    Args:
        tick: told the steps done, after each step and while scoring; may raise to stop.

    Raises:
        DeviceError: not even one item fits in the device's memory.
        ModelError: the loss is not finite.
    """
    device = next(backbone.module.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _Training(backbone, parts, recipe, seed, device, tick).all()


class Head(nn.Module):
    """The linear layer on top: vectors of one side, or of two as [u; v; |u − v|; u ∘ v] (Conneau et al. 2017, EMNLP,
    InferSent), → classes."""

    def __init__(self, width: int, item: Item, classes: int, dropout: float) -> None:
        super().__init__()
        self.marks = len(item.sides[0][0].marks)
        side = width * (1 + self.marks)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(side if len(item.sides) == 1 else 4 * side, classes)
        nn.init.normal_(self.out.weight, std=DEVIATION)
        nn.init.zeros_(self.out.bias)

    def forward(self, sides: Tensor) -> Tensor:
        """``[B, sides, side]`` → ``[B, classes]``."""
        if sides.shape[1] == 1:
            return self.out(self.dropout(sides[:, 0]))
        u, v = sides.unbind(1)
        return self.out(self.dropout(torch.cat([u, v, (u - v).abs(), u * v], dim=1)))


class _Portions:
    """Work on a batch in portions that fit in memory. Where one does not, portions are half as large from then on."""

    def __init__(self, size: int, name: str) -> None:
        self.size, self._name = size, name

    def each(self, batch: list[int], act: Callable[[list[int]], T], undo: Callable[[], None]) -> list[T]:
        """``act`` on every portion; all of them again, after ``undo``, where one did not fit."""
        hopeless = (
            f"not even one item fits in the device's memory when [models.{self._name}] is trained. Lower max_tokens in "
            "the task's options, or use another device."
        )

        def all_portions() -> list[T]:
            return [act(batch[at : at + self.size]) for at in range(0, len(batch), self.size)]

        while (done := fitting(all_portions, hopeless if self.size == 1 else None)) is None:
            undo()
            self.size //= 2
        return done


class _Training:
    """One model in training, from its first epoch to its predictions."""

    def __init__(
        self,
        backbone: TextBackbone,
        parts: Parts,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        tick: Callable[[int], None],
    ) -> None:
        self._backbone, self._parts, self._recipe, self._seed, self._device = backbone, parts, recipe, seed, device
        self._head = Head(backbone.width, parts.train[0], parts.classes, recipe.dropout).to(device)
        self._model = nn.ModuleList([backbone.module, self._head]).requires_grad_(True)
        weights = list(self._model.parameters())
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay},
                {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
        )
        self._order = torch.Generator().manual_seed(seed)
        self._portions = _Portions(recipe.batch_size, backbone.name)
        self._scored = _Portions(max(SCORED, recipe.batch_size), backbone.name)
        self._tick, self._steps = tick, 0

    def all(self) -> Tuned:
        epochs: list[Epoch] = []
        best, chosen, predictions = -1, 0, np.empty(0, dtype=np.int32)
        truth = self._parts.development_labels
        for _ in range(self._recipe.epochs):
            loss, train_accuracy = self._pass()
            right = int((self._predict(self._parts.development) == truth).sum())
            epochs.append(Epoch(loss, train_accuracy, right / len(truth)))
            if right > best:
                best, chosen = right, len(epochs) - 1
                predictions = self._predict(self._parts.reported)
            elif len(epochs) - 1 - chosen >= self._recipe.patience:
                break
        return Tuned(predictions, tuple(epochs), chosen, self._portions.size)

    def _pass(self) -> tuple[float, float]:
        """One epoch: its mean loss, and the share that was right."""
        self._model.train()
        rows, loss, right = len(self._parts.train), 0.0, 0
        order = torch.randperm(rows, generator=self._order).tolist()
        for at in range(0, rows, self._recipe.batch_size):
            batch = order[at : at + self._recipe.batch_size]
            learn = partial(self._learn, of=len(batch))
            for portion_loss, portion_right in self._portions.each(batch, learn, self._forget):
                loss, right = loss + portion_loss * len(batch), right + portion_right
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss of [models.{self._backbone.name}] is not finite after {self._steps} steps of training "
                    f"(seed {self._seed}). Lower learning_rate in the task's options."
                )
            nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.clip)
            for group in self._optimizer.param_groups:
                group["lr"] = self._recipe.learning_rate * self._share()
            self._optimizer.step()
            self._forget()
            self._steps += 1
            self._tick(self._steps)
        return loss / rows, right / rows

    def _learn(self, portion: list[int], *, of: int) -> tuple[float, int]:
        """Gradients of a portion of a batch of ``of`` items: its share of the batch's mean loss, and how many right."""
        logits = self._logits([self._parts.train[i] for i in portion])
        truth = torch.as_tensor(self._parts.train_labels[portion], device=self._device)
        loss = nn.functional.cross_entropy(logits, truth, reduction="sum") / of
        loss.backward()
        return loss.item(), int((logits.argmax(1) == truth).sum())

    def _forget(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def _share(self) -> float:
        """Share of the learning rate at this step."""
        total = steps(self._recipe, len(self._parts.train))
        warm = round(self._recipe.warmup * total)
        if self._steps < warm:
            return (self._steps + 1) / (warm + 1)
        return (total - self._steps) / (total - warm) if self._recipe.linear else 1.0

    @torch.no_grad()
    def _predict(self, items: Sequence[Item]) -> NDArray[np.int32]:
        self._model.eval()
        predictions = np.full(len(items), -1, dtype=np.int32)
        order = sorted(range(len(items)), key=lambda i: -items[i].length)  # neighbours need little padding

        def score(portion: list[int]) -> None:
            predictions[portion] = self._logits([items[i] for i in portion]).argmax(1).cpu().numpy()

        step = self._scored.size  # which may shrink meanwhile
        for at in range(0, len(order), step):
            self._scored.each(order[at : at + step], score, lambda: None)
            self._tick(self._steps)
        return predictions

    def _logits(self, items: Sequence[Item]) -> Tensor:
        logits: Tensor = self._head(_sides(self._backbone, items, self._head.marks, self._device))
        return logits


def _sides(backbone: TextBackbone, items: Sequence[Item], marks: int, device: torch.device) -> Tensor:
    """Every side's vector, its summary token's state and its marked words' behind it: ``[B, sides, side]``."""
    several = len(items[0].sides)
    windows = [
        (i * several + s, window)
        for i, item in enumerate(items)
        for s, side in enumerate(item.sides)
        for window in side
    ]
    longest = max(len(window.pieces.ids) for _, window in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    mask, second = (torch.zeros(len(windows), longest, dtype=torch.bool) for _ in range(2))
    for row, (_, window) in enumerate(windows):
        length = len(window.pieces.ids)
        ids[row, :length], mask[row, :length] = torch.tensor(window.pieces.ids), True
        if window.pieces.second is not None:
            second[row, window.pieces.second : length] = True
    states = backbone.last(ids, mask, second).float()

    def mean(at: Sequence[tuple[int, int, int]]) -> Tensor:
        """Mean of the states at (side, row, position) for each side; zeros for a side that has none."""
        owners, rows, positions = torch.tensor(at, dtype=torch.long).reshape(-1, 3).T.to(device)
        total = states.new_zeros(len(items) * several, states.shape[-1])
        count = states.new_zeros(len(total), 1).index_add(0, owners, states.new_ones(len(owners), 1))
        return total.index_add(0, owners, states[rows, positions]) / count.clamp(min=1)

    summaries = [(side, row, window.pieces.summary(backbone.native)) for row, (side, window) in enumerate(windows)]
    words = [
        [(side, row, position) for row, (side, window) in enumerate(windows) for position in window.marks[mark]]
        for mark in range(marks)
    ]
    return torch.cat([mean(at) for at in (summaries, *words)], dim=1).reshape(len(items), several, -1)
