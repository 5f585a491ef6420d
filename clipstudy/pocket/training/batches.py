"""Fresh batches without end: lines for the language models, scenes for those that see.

The same seed gives the same batches whoever asks, so models that share a seed share their data, in order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from clipstudy.pocket.dice import Dice
from clipstudy.pocket.images.drawing import render
from clipstudy.pocket.images.scenes import COLOURS, Scene, sample
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.text.captions import Caption, caption
from clipstudy.pocket.text.mixture import mixture
from clipstudy.pocket.training.models import DEVIATION, MEAN, SIDE

#: How many lines are two at once. Questions over passages are longer than any sentence, and positions that training
#: never reached would mean nothing.
JOINED = 1 / 8
#: So many batches are drawn at a time and sorted by length, so that little of a batch is padding.
DRAWN = 16
#: What a seed is raised by for pictures and lines that no model is trained on.
HELD_OUT = 1_000_000

T = TypeVar("T")


def padded(lines: Sequence[Sequence[int]]) -> torch.Tensor:
    """Lines of numbers as ``[B, T]`` (long), with 0, which is ``PAD``, on the right."""
    longest = max(map(len, lines))
    return torch.tensor([[*line, *(0,) * (longest - len(line))] for line in lines])


def line_batches(seed: int, batch: int) -> Iterator[torch.Tensor]:
    """Ids ``[batch, T]`` of text from the mixture, each batch of about one length, batches in random order."""
    lines, draw = _joined(mixture(seed), random.Random(f"joined/{seed}")), random.Random(f"batches/{seed}")
    while True:
        drawn = sorted(islice(lines, DRAWN * batch), key=len)
        batches = [drawn[start : start + batch] for start in range(0, len(drawn), batch)]
        draw.shuffle(batches)
        for words in batches:
            yield padded([wordlist.encode(line) for line in words])


def _joined(lines: Iterator[tuple[str, ...]], draw: random.Random) -> Iterator[tuple[str, ...]]:
    for line in lines:
        yield (*line, *next(lines)) if draw.random() < JOINED else line


def scene_batches(seed: int, batch: int) -> Iterator[list[Scene]]:
    """Scenes whose fine classes are as balanced as a batch allows."""
    rng = np.random.default_rng([seed, 5])
    while True:
        yield sample(rng, batch)


def captioned(scenes: Iterator[list[Scene]], seed: int) -> Iterator[tuple[list[Scene], list[Caption]]]:
    """Each batch of scenes with a caption a scene."""
    dice = Dice(f"pretraining captions/{seed}")
    for batch in scenes:
        yield batch, [caption(scene, dice) for scene in batch]


def caption_ids(captions: Sequence[Caption]) -> torch.Tensor:
    return padded([wordlist.encode(one.sentence.words) for one in captions])


def pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    """The scenes drawn, as models take them: ``[B, 3, SIDE, SIDE]`` float32, normalised, channels last in memory."""
    images = torch.from_numpy(render(scenes, SIDE).images).permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (images.float().div_(255) - mean).div_(deviation)


def fine_labels(scenes: Sequence[Scene]) -> torch.Tensor:
    return torch.tensor([scene.fine for scene in scenes])


def object_labels(scenes: Sequence[Scene]) -> torch.Tensor:
    """What two renders of one object have in common: its fine class and its colour, as one number."""
    names = list(COLOURS)
    return torch.tensor([scene.fine * len(names) + names.index(scene.main.colour) for scene in scenes])
