"""SentEval's probe, stacked: layers × seeds × weight decays × label sets are fitted as one batch of small MLPs.

The classifier is SentEval's as released (Conneau & Kiela 2018, ``senteval/tools/{classifier,validation}.py``):
Linear → Dropout → Sigmoid → Linear, Adam with L2 in the gradient, the dev split scored every ``epoch_size`` passes,
the best model on dev kept. Two of its habits decide results and are kept: the count of evaluations without
improvement is never reset, and each weight decay starts from the same seed, so that retraining with the chosen one
gives again the fit already made (it is therefore not made twice).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from clipstudy.probes.inputs import Inputs, Labels, standardise
from clipstudy.probes.stack import Member, Shape, Stack, predict

__all__ = ["JAWAHAR", "LINEAR", "SENTEVAL", "Inputs", "Labels", "ProbeFit", "Recipe", "fit", "standardise"]

#: Training state kept at once. On a CPU a few dozen members already hide the cost between operations; a GPU wants more.
_BUDGET = {"cpu": 32 * 2**20, "cuda": 2 * 2**30}
#: Features in memory at once: members of as many layers are trained together as fit, and of one at least.
_FEATURES = {"cpu": 3 * 2**29, "cuda": 16 * 2**30}


@dataclass(frozen=True)
class Recipe:
    """How a probe is trained. The defaults are SentEval's MLP as released."""

    hidden: int = 50  #: hidden units; 0: logistic regression
    dropout: float = 0.0
    l2: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)  #: weight decays tried; the best on dev is taken
    learning_rate: float = 1e-3
    batch_size: int = 64
    epoch_size: int = 4  #: passes between two scores on dev
    tenacity: int = 5  #: stops at evaluation number tenacity + 1 without improvement, counted over the whole fit
    max_epoch: int = 200  #: no further evaluation period begins after more passes than this
    early_stop: bool = True  #: False: exactly ``periods`` evaluation periods
    periods: int = 1

    @property
    def longest(self) -> int:
        """Passes of a fit that nothing stops early, a period more or less."""
        return self.max_epoch if self.early_stop else self.periods * self.epoch_size

    def finished(self, member: Member) -> bool:
        if not self.early_stop:
            return member.passes >= self.longest
        return member.strikes > self.tenacity or member.passes > self.longest


SENTEVAL = Recipe()
LINEAR = Recipe(hidden=0)
#: interpret_bert's released probe returns inside its loop: one evaluation period, no early stopping.
JAWAHAR = Recipe(early_stop=False, periods=1)


@dataclass(frozen=True)
class ProbeFit:
    """The probes of one layer on one label set, one a seed, each with the weight decay that was best on dev."""

    predictions: np.ndarray  #: classes on the test split, int32 ``[S, n_test]``
    dev_accuracy: np.ndarray  #: ``[S]``
    l2: np.ndarray  #: the weight decay taken, ``[S]``
    epochs: np.ndarray  #: passes made by the fit that was taken, ``[S]``

    @property
    def one_class(self) -> np.ndarray:
        """Bool ``[S]``: the probe predicts one class only, so its optimisation decided, not the representation."""
        return (self.predictions == self.predictions[:, :1]).all(axis=1)


def fit(
    inputs: Sequence[Inputs | Callable[[], Inputs]],
    labels: Sequence[Labels],
    n_classes: int,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    on_progress: Callable[[float, int], None] | None = None,
    budget: int | None = None,
) -> list[list[ProbeFit]]:
    """Fit every layer × seed × weight decay × label set.

    A fit depends on (the layer's features, the labels, the recipe, the seed) alone, never on what else is in the
    call or on ``budget``. A member that stops early makes room for the next one at once.

    Args:
        inputs: one a layer, or a callable that loads it; called once, in order, when its turn comes, and let go
            after its last fit. Neighbouring layers of equal width are trained together.
        labels: label sets over the same rows, values 0..n_classes-1.
        on_progress: called with (fits done, fits in all) after every evaluation period; may raise to stop. A fit that
            goes on counts by its passes, of as many as those that ended made, so that the pace is even.
        budget: bytes of training state (weights, gradients, moments) kept at once.

    Returns:
        ``[layer][label set]``.

    Raises:
        DataError: a layer's features hold NaN or infinities; names the layer's position.
        ValueError: rows and labels differ in number, labels are out of range, or the splits differ in width.
    """
    place = torch.device(device)
    room = budget or _BUDGET.get(place.type, _BUDGET["cuda"])
    while True:
        try:
            return _fit(inputs, labels, n_classes, recipe, seeds, place, on_progress, room)
        except torch.OutOfMemoryError:
            # What is fitted together decides no result, so fewer at a time give the same.
            if room < 2**20:
                raise
            room //= 2
        torch.cuda.empty_cache()  # outside the handler, whose traceback would keep the tensors alive


@torch.no_grad()
def _fit(
    inputs: Sequence[Inputs | Callable[[], Inputs]],
    labels: Sequence[Labels],
    n_classes: int,
    recipe: Recipe,
    seeds: Sequence[int],
    place: torch.device,
    on_progress: Callable[[float, int], None] | None,
    budget: int,
) -> list[list[ProbeFit]]:
    train, dev, test = (
        _targets([getattr(labelled, split) for labelled in labels], n_classes, place)
        for split in ("train", "dev", "test")
    )
    rows = Inputs(train.shape[1], dev.shape[1], test.shape[1])
    total = len(inputs) * len(seeds) * len(recipe.l2) * len(labels)
    results: dict[tuple[int, int, int, float], _Found] = {}
    features = _FEATURES.get(place.type, _FEATURES["cuda"])
    coming = _members(inputs, rows, len(labels), recipe, seeds, place)
    head = next(coming, None)
    stack: Stack | None = None
    leave: list[Member] = []
    done = 0.0
    while head or (stack and len(leave) < len(stack.members)):
        if head and (stack is None or len(leave) == len(stack.members)):
            stack, leave = Stack(Shape(head.width, recipe.hidden, n_classes), place), []
        assert stack is not None
        room = max(1, budget // stack.shape.nbytes()) - len(stack.members) + len(leave)
        enter: list[Member] = []
        held = {member.layer: member.inputs.nbytes for member in stack.members if member not in leave}
        while head and head.width == stack.shape.width and len(enter) < room:
            held[head.layer] = head.inputs.nbytes
            if len(held) > 1 and sum(held.values()) > features:
                break
            enter.append(head)
            head = next(coming, None)
        stack.change(leave, enter)
        stack.train(
            train,
            passes=recipe.epoch_size,
            batch_size=recipe.batch_size,
            dropout=recipe.dropout,
            rate=recipe.learning_rate,
        )
        leave = []
        for position, member in enumerate(stack.members):
            _score(member, stack.current(position), dev[member.labels])
            if recipe.finished(member):
                leave.append(member)
                guessed = predict(member.weights, member.inputs.test).to("cpu", torch.int32).numpy()
                results[member.key] = _Found(member.best, member.passes, guessed)
        if on_progress:
            going_on = [member.passes for member in stack.members if member not in leave]
            done = max(done, _done([found.passes for found in results.values()], going_on, recipe))
            on_progress(done, total)
    return [
        [_chosen(results, layer, labelled, recipe, seeds, rows.dev) for labelled in range(len(labels))]
        for layer in range(len(inputs))
    ]


def _done(ended: Sequence[int], going_on: Sequence[int], recipe: Recipe) -> float:
    """How many fits the passes made come to: where many are trained together, most end at about the same time."""
    likely = sum(ended) / len(ended) if ended else recipe.longest
    return len(ended) + sum(passes / max(likely, passes + recipe.epoch_size) for passes in going_on)


class _Found(NamedTuple):
    best: int
    passes: int
    predictions: np.ndarray


def _members(
    inputs: Sequence[Inputs | Callable[[], Inputs]],
    rows: Inputs,
    sets: int,
    recipe: Recipe,
    seeds: Sequence[int],
    device: torch.device,
) -> Iterator[Member]:
    """Every member in order, each layer loaded when its first member is asked for."""
    for layer, given in enumerate(inputs):
        loaded = (given() if callable(given) else given).tensors(layer, device)
        found = Inputs(len(loaded.train), len(loaded.dev), len(loaded.test))
        if found != rows:
            raise ValueError(f"layer {layer}: {found} rows of features against {rows} labels")
        for seed, labelled, l2 in itertools.product(seeds, range(sets), recipe.l2):
            yield Member(layer, seed, l2, labelled, loaded)


def _score(member: Member, weights: list[torch.Tensor], dev: torch.Tensor) -> None:
    """Score on dev; keep the weights where it is strictly better, count a strike where not."""
    right = int((predict(weights, member.inputs.dev) == dev).sum())
    if right > member.best:
        member.best, member.weights = right, [w.clone() for w in weights]
    else:
        member.strikes += 1


def _chosen(
    results: dict[tuple[int, int, int, float], _Found],
    layer: int,
    labelled: int,
    recipe: Recipe,
    seeds: Sequence[int],
    dev_rows: int,
) -> ProbeFit:
    """For each seed the weight decay that was best on dev; equally good ones: the first."""
    taken, decays = [], []
    for seed in seeds:
        fits = [results[layer, seed, labelled, l2] for l2 in recipe.l2]
        # SentEval compares percentages of two decimals, so finer differences do not choose.
        choice = int(np.argmax([round(100 * f.best / dev_rows, 2) for f in fits]))
        taken.append(fits[choice])
        decays.append(recipe.l2[choice])
    return ProbeFit(
        predictions=np.stack([f.predictions for f in taken]),
        dev_accuracy=np.array([f.best / dev_rows for f in taken]),
        l2=np.array(decays),
        epochs=np.array([f.passes for f in taken]),
    )


def _targets(sets: Sequence[np.ndarray], n_classes: int, device: torch.device) -> torch.Tensor:
    """One split's labels of every set, ``[label sets, n]``."""
    stacked = np.stack([np.asarray(labelled, dtype=np.int64) for labelled in sets])
    if stacked.size == 0 or stacked.min() < 0 or stacked.max() >= n_classes:
        raise ValueError(f"labels must be 0..{n_classes - 1} and not empty")
    return torch.from_numpy(stacked).to(device)
