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

from clipstudy.probes.inputs import Inputs, Labels
from clipstudy.probes.stack import Member, Shape, Stack, predict

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
    early_stop: bool = True  #: False: exactly one evaluation period

    @property
    def longest(self) -> int:
        """Passes of a fit that nothing stops early, a period more or less."""
        return self.max_epoch if self.early_stop else self.epoch_size

    def finished(self, member: Member) -> bool:
        """Is its training over, after this evaluation?"""
        if not self.early_stop:
            return member.passes >= self.longest
        return member.strikes > self.tenacity or member.passes > self.longest


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
    waiting = _Waiting(_members(inputs, rows, len(labels), recipe, seeds, place))
    stack: Stack | None = None
    stay: list[Member] = []
    leave: list[Member] = []
    done = 0.0
    while waiting.first or stay:
        if waiting.first and not stay:
            stack, leave = Stack(Shape(waiting.first.width, recipe.hidden, n_classes), place), []
        assert stack is not None
        room = max(1, budget // stack.shape.nbytes()) - len(stay)
        stack.change(leave, waiting.enter(stay, stack.shape.width, room, features))
        stack.train(
            train,
            passes=recipe.epoch_size,
            batch_size=recipe.batch_size,
            dropout=recipe.dropout,
            rate=recipe.learning_rate,
        )
        for position, member in enumerate(stack.members):
            _score(member, stack.current(position), dev[member.labels])
        stay = [member for member in stack.members if not recipe.finished(member)]
        leave = [member for member in stack.members if recipe.finished(member)]
        results |= {member.key: _found(member) for member in leave}
        if on_progress:
            ended = [found.passes for found in results.values()]
            done = max(done, _done(ended, [member.passes for member in stay], recipe))
            on_progress(done, total)
    return [
        [_chosen(results, layer, labelled, recipe, seeds, rows.dev) for labelled in range(len(labels))]
        for layer in range(len(inputs))
    ]


def _done(ended: Sequence[int], going_on: Sequence[int], recipe: Recipe) -> float:
    """How many fits the passes made come to: where many are trained together, most end at about the same time."""
    likely = sum(ended) / len(ended) if ended else recipe.longest
    return len(ended) + sum(passes / max(likely, passes + recipe.epoch_size) for passes in going_on)


class _Waiting:
    """Members that are not in training yet, in order. The first one's features are loaded, so that its width is
    known."""

    def __init__(self, members: Iterator[Member]) -> None:
        self._members = members
        self.first = next(members, None)

    def enter(self, beside: Sequence[Member], width: int, room: int, features: int) -> list[Member]:
        """Those that training begins with now.

        Args:
            beside: members that stay in training.
            width: of their features; the first one of another width waits until they have left.
            room: at most so many.
            features: bytes of features in memory at once, those of one layer in any case.
        """
        taken: list[Member] = []
        held = {member.layer: member.inputs.nbytes for member in beside}
        while self.first and self.first.width == width and len(taken) < room:
            held[self.first.layer] = self.first.inputs.nbytes
            if len(held) > 1 and sum(held.values()) > features:
                break
            taken.append(self.first)
            self.first = next(self._members, None)
        return taken


class _Found(NamedTuple):
    """What a fit came to."""

    best: int  #: rows of dev that are right
    passes: int
    predictions: np.ndarray  #: classes on the test split, int32 ``[n_test]``


def _found(member: Member) -> _Found:
    predictions = predict(member.weights, member.inputs.test).to("cpu", torch.int32).numpy()
    return _Found(member.best, member.passes, predictions)


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
        counts = Inputs(len(loaded.train), len(loaded.dev), len(loaded.test))
        if counts != rows:
            raise ValueError(f"layer {layer}: {counts} rows of features against {rows} labels")
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
