"""Many small probes trained as one: every member is an MLP of its own, and each operation serves all of them.

One probe on its own spends most of its time between the operations. Stacked, the matrix products become batched
ones (``torch.bmm``), the backward pass is four more of them, and Adam's fused kernel runs over whole slices of the
stack. Members that read the same rows in the same order (one layer and seed, several weight decays or label sets)
share one gathered batch.

A member's numbers depend on its features, labels, weight decay and seed alone: nothing is mixed over members, and
batches are padded to whole vectors, since an element's last bit may depend on its place past the last whole one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from clipstudy.probes.inputs import Inputs

#: Batches are padded to a multiple of this many rows: two of the widest float32 vectors, twice over.
_LANES = 64


@dataclass(frozen=True)
class Shape:
    """Sizes of one member: ``width`` → ``hidden`` → ``classes``; ``hidden`` 0 is logistic regression."""

    width: int
    hidden: int
    classes: int

    def parameters(self) -> list[tuple[int, int]]:
        """Shapes of weight, bias, weight, bias, in the order in which ``torch.nn`` would draw them."""
        sizes = [self.width, self.hidden, self.classes] if self.hidden else [self.width, self.classes]
        return [s for fan_in, out in pairwise(sizes) for s in ((out, fan_in), (out, 1))]

    def nbytes(self) -> int:
        """Memory of one member in training: weights, gradients, Adam's two moments, the best weights so far."""
        return 5 * 4 * sum(rows * columns for rows, columns in self.parameters())


class Stream:
    """The randomness of one seed, from its first draw on: initial weights, then permutations and dropout masks.

    Drawn in the order and from the generators of SentEval's classifier (NumPy's legacy generator for permutations,
    torch's CPU generator for the rest), on the CPU whatever the device, so that a seed means the same fit everywhere.
    """

    def __init__(self, seed: int, shape: Shape) -> None:
        self._order = np.random.RandomState(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.initial: list[Tensor] = []
        for weight, bias in zip(shape.parameters()[::2], shape.parameters()[1::2], strict=True):
            bound = weight[1] ** -0.5  # nn.Linear's own rule: uniform within 1/sqrt(fan in), bias included
            for size in (weight, bias):
                self.initial.append(torch.empty(size).uniform_(-bound, bound, generator=self._generator))

    def permutation(self, rows: int) -> np.ndarray:
        return self._order.permutation(rows)

    def mask(self, rows: int, hidden: int, dropout: float) -> Tensor:
        """One batch's dropout mask, scaled by 1 / (1 - dropout): ``[rows, hidden]``."""
        kept = torch.empty(rows, hidden).bernoulli_(1 - dropout, generator=self._generator)
        return kept.div_(1 - dropout)


@dataclass(eq=False)
class Member:
    """One probe: what it is fitted on, and how far it has come."""

    layer: int  #: position in the call's layers
    seed: int
    l2: float
    labels: int  #: position in the call's label sets
    inputs: Inputs
    stream: Stream | None = None  #: set when training starts; shared by those of one seed that start together
    passes: int = 0
    steps: int = 0
    strikes: int = 0  #: evaluations without improvement, over the whole fit
    best: int = -1  #: dev rows right at best
    weights: list[Tensor] = field(default_factory=list)  #: the best weights so far

    @property
    def width(self) -> int:
        return int(self.inputs.train.shape[1])

    @property
    def key(self) -> tuple[int, int, int, float]:
        return self.layer, self.seed, self.labels, self.l2


class Stack:
    """The members in training, their weights and Adam's moments stacked along the first dimension, ``[P, …]``.

    Members of one (stream, layer) form a group and share its batch. They are laid out in columns: column j holds
    the j-th member of every group that has one, groups with more members first, so that the batches a column reads
    are always the first few and no batch is ever copied.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape
        self.members: list[Member] = []
        self._device = device
        self._groups: list[list[Member]] = []
        self._columns: list[tuple[slice, int]] = []  # (positions in the stack, number of groups)
        self._weights, *self._moments = (
            [torch.empty(0, *size, device=device) for size in shape.parameters()] for _ in range(3)
        )

    def change(self, leave: Sequence[Member], enter: Sequence[Member]) -> None:
        """Take finished members out and new ones in."""
        streams = {seed: Stream(seed, self.shape) for seed in {member.seed for member in enter}}
        for member in enter:
            member.stream = streams[member.seed]
        before = {member: i for i, member in enumerate([*self.members, *enter])}
        groups: dict[tuple[Stream | None, int], list[Member]] = defaultdict(list)
        for member in before.keys() - set(leave):
            groups[member.stream, member.layer].append(member)
        for group in groups.values():
            group.sort(key=lambda member: member.key)
        self._groups = sorted(groups.values(), key=lambda group: (-len(group), group[0].layer, group[0].seed))
        self.members, self._columns = [], []
        for j in range(max(map(len, self._groups), default=0)):
            column = [group[j] for group in self._groups if len(group) > j]
            start = len(self.members)
            self.members += column
            self._columns.append((slice(start, start + len(column)), len(column)))

        taken = [before[member] for member in self.members]

        def stacked(old: list[Tensor], new: list[list[Tensor]]) -> list[Tensor]:
            return [torch.cat([a, *(b[k][None].to(self._device) for b in new)])[taken] for k, a in enumerate(old)]

        fresh = [torch.zeros(size) for size in self.shape.parameters()]
        self._weights = stacked(self._weights, [streams[member.seed].initial for member in enter])
        self._moments = [stacked(moment, [fresh] * len(enter)) for moment in self._moments]
        self._gradients = [torch.empty_like(weight) for weight in self._weights]

    def train(self, targets: Tensor, *, passes: int, batch_size: int, dropout: float, rate: float) -> None:
        """``passes`` passes over the training rows, each in an order of its own, the last partial batch included.

        Args:
            targets: training labels of every label set, ``[label sets, n]``.
            rate: Adam's learning rate.
        """
        rows = targets.shape[1]
        batches = -(-rows // batch_size)
        padded = -(-batch_size // _LANES) * _LANES
        streams = list(dict.fromkeys(group[0].stream for group in self._groups if group[0].stream))
        stream_of = [streams.index(group[0].stream) for group in self._groups if group[0].stream]
        group_of = [i for column, count in self._columns for i in range(count)]
        sets = [member.labels for member in self.members]
        # 1/rows on a batch's real rows and 0 on its padding: it averages the loss and takes the padding out of it.
        share = torch.zeros(batches, padded)
        for i in range(batches):
            count = min(batch_size, rows - i * batch_size)
            share[i, :count] = 1 / count
        share = share.to(self._device)
        x = torch.empty(len(self._groups), padded, self.shape.width, device=self._device)
        z = torch.empty(len(self.members), self._weights[0].shape[1], padded, device=self._device)
        runs = self._runs(rate)
        for _ in range(passes):
            orders = np.zeros((len(streams), batches * batch_size), dtype=np.int64)
            for order, stream in zip(orders, streams, strict=True):
                order[:rows] = stream.permutation(rows)
            order = np.zeros((batches, len(streams), padded), dtype=np.int64)
            order[:, :, :batch_size] = orders.reshape(len(streams), batches, batch_size).swapaxes(0, 1)
            index = torch.from_numpy(order).to(self._device)[:, stream_of]
            y = targets[torch.tensor(sets, device=self._device)[:, None], index[:, group_of]]
            for i in range(batches):
                self._gather(index[i], x)
                mask = None
                if dropout:
                    drawn = torch.zeros(len(streams), padded, self.shape.hidden)
                    count = min(batch_size, rows - i * batch_size)
                    for k, stream in enumerate(streams):
                        drawn[k, :count] = stream.mask(count, self.shape.hidden, dropout)
                    mask = drawn[stream_of].to(self._device)[group_of].mT
                self._differentiate(x, y[i][:, None], share[i], mask, z)
                for run in runs:
                    adam(**run)
        for member in self.members:
            member.passes += passes
            member.steps += passes * batches

    def current(self, position: int) -> list[Tensor]:
        """The weights, as they are now, of the member at ``position``."""
        return [weight[position] for weight in self._weights]

    def _gather(self, index: Tensor, out: Tensor) -> None:
        """Each group's rows ``index [U, B]`` of its own layer into ``out [U, B, d]``."""
        start = 0
        # Neighbours of one layer in one call.
        for _, run in groupby(self._groups, key=lambda group: group[0].layer):
            groups = list(run)
            stop = start + len(groups)
            source = groups[0][0].inputs.train
            torch.index_select(source, 0, index[start:stop].flatten(), out=out[start:stop].flatten(0, 1))
            start = stop

    def _differentiate(self, x: Tensor, y: Tensor, share: Tensor, mask: Tensor | None, z: Tensor) -> None:
        """Gradients of each member's mean cross-entropy over its batch.

        Written out rather than left to autograd: with members first and rows last nothing is transposed or copied,
        and the gradients land where Adam reads them.

        Args:
            x: the groups' batches, ``[U, B, d]``.
            y: labels, ``[P, 1, B]``.
            share: each row's weight in the mean, ``[B]``.
            mask: dropout, ``[P, hidden, B]``.
            z: room for the first layer's output, ``[P, hidden or classes, B]``.
        """
        weight, bias, *top = self._weights
        for at, count in self._columns:
            torch.baddbmm(bias[at], weight[at], x[:count].mT, out=z[at])
        if top:
            if mask is not None:
                z *= mask
            active = z.sigmoid_()
            error = _softmax_error(torch.baddbmm(top[1], top[0], active), y, share)
            torch.bmm(error, active.mT, out=self._gradients[2])
            torch.sum(error, 2, keepdim=True, out=self._gradients[3])
            error = torch.ops.aten.sigmoid_backward(torch.bmm(top[0].mT, error), active)
            if mask is not None:
                error *= mask
        else:
            error = _softmax_error(z, y, share)
        for at, count in self._columns:
            torch.bmm(error[at], x[:count], out=self._gradients[0][at])
        torch.sum(error, 2, keepdim=True, out=self._gradients[1])

    def _runs(self, rate: float) -> list[dict[str, Any]]:
        """Arguments of Adam, one call for all members of one weight decay.

        Each member's parameters are tensors of their own there: in one long slice an element's rounding would
        depend on its place, hence on the neighbours.
        """
        positions: dict[float, list[int]] = defaultdict(list)
        for i, member in enumerate(self.members):
            positions[member.l2].append(i)

        def cut(tensors: list[Tensor], at: list[int]) -> list[Tensor]:
            return [tensor[i] for i in at for tensor in tensors]

        return [
            {
                "params": cut(self._weights, at),
                "grads": cut(self._gradients, at),
                "exp_avgs": cut(self._moments[0], at),
                "exp_avg_sqs": cut(self._moments[1], at),
                "max_exp_avg_sqs": [],
                "state_steps": [
                    torch.tensor(float(self.members[i].steps), device=self._device) for i in at for _ in self._weights
                ],
                "weight_decay": l2,  # added to the gradient, as torch.optim.Adam's is
                "lr": rate,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-8,
                "amsgrad": False,
                "maximize": False,
                "fused": True,
            }
            for l2, at in positions.items()
        ]


def predict(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """The classes, ``[n]``, that one member gives to the rows of ``x [n, d]``; of equal scores the lowest class."""
    *hidden, (top, top_bias) = zip(weights[::2], weights[1::2], strict=True)
    for weight, bias in hidden:
        x = torch.addmm(bias.mT, x, weight.mT).sigmoid_()
    return torch.addmm(top_bias.mT, x, top.mT).argmax(1)


def _softmax_error(logits: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """Derivative by the logits ``[P, C, B]`` of the cross-entropy, its rows weighted by ``share [B]``."""
    error = logits.softmax(1)
    error.scatter_add_(1, y, error.new_tensor(-1.0).expand(y.shape))
    return error.mul_(share)
