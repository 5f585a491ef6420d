"""SentEval's probe the plain way, one after another: what ``clipstudy.probes.mlp`` is measured and tested against."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from clipstudy.probes.mlp import Inputs, Labels, Recipe


@dataclass(frozen=True)
class PlainFit:
    predictions: np.ndarray  #: ``[n_test]``
    dev_accuracy: float
    l2: float
    epochs: int
    evaluations: int


def fit_one(inputs: Inputs, labels: Labels, n_classes: int, recipe: Recipe, seed: int, l2: float) -> PlainFit:
    """One probe: ``nn.Module``, autograd, ``torch.optim.Adam(weight_decay=l2, fused=True)``, a loop over batches."""
    train, dev, test = (torch.as_tensor(x) for x in (inputs.train, inputs.dev, inputs.test))
    targets = torch.as_tensor(labels.train)
    width = train.shape[1]
    order = np.random.RandomState(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.hidden:
            model = nn.Sequential(
                nn.Linear(width, recipe.hidden),
                nn.Dropout(recipe.dropout),
                nn.Sigmoid(),
                nn.Linear(recipe.hidden, n_classes),
            )
        else:
            model = nn.Sequential(nn.Linear(width, n_classes))
        optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=l2, fused=True)
        loss_of = nn.CrossEntropyLoss()
        best, strikes, passes, evaluations, stop = -1.0, 0, 0, 0, False
        kept = copy.deepcopy(model)
        while not stop and (passes <= recipe.max_epoch if recipe.early_stop else evaluations < recipe.periods):
            model.train()
            for _ in range(recipe.epoch_size):
                permutation = torch.from_numpy(order.permutation(len(train)))
                for rows in permutation.split(recipe.batch_size):
                    loss = loss_of(model(train[rows]), targets[rows])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
            passes += recipe.epoch_size
            evaluations += 1
            model.eval()
            with torch.no_grad():
                right = (model(dev).argmax(1).numpy() == labels.dev).mean()
            if right > best:
                best, kept = float(right), copy.deepcopy(model)
            elif recipe.early_stop:
                stop = strikes >= recipe.tenacity
                strikes += 1
        kept.eval()
        with torch.no_grad():
            predictions = kept(test).argmax(1).numpy()
    return PlainFit(predictions, best, l2, passes, evaluations)


def fit_grid(inputs: Inputs, labels: Labels, n_classes: int, recipe: Recipe, seed: int) -> PlainFit:
    """One probe for each weight decay; the best on dev, the first of equals (two decimals of a percentage decide)."""
    fits = [fit_one(inputs, labels, n_classes, recipe, seed, l2) for l2 in recipe.l2]
    return fits[int(np.argmax([round(100 * f.dev_accuracy, 2) for f in fits]))]
