"""What the pocket models are trained to do: one loss an objective, and the batches that it wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from clipstudy.pocket.images.scenes import Scene, rerender
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.text.wordlist import END, MASK, PAD, START
from clipstudy.pocket.training import batches
from clipstudy.pocket.training.models import MODELS, PocketModel, encode_image, encode_text

#: Share of words to be guessed, and how: most are masked, some replaced, the rest left (Devlin et al. 2019, §3.1; they
#: mask 15%). Small models learn faster from more.
MASKED, HIDDEN, REPLACED = 0.2, 0.8, 0.1
#: Temperature of the pairs of renders (Chen et al. 2020).
TEMPERATURE = 0.2


class Objective:
    """A model's objective as an endless series of losses, each on a fresh batch.

    ``helper`` is trained along and then thrown away: the projection that only the loss needs. ``after`` is to be
    called after each step.
    """

    helper: nn.Module | None = None

    def losses(self) -> Iterator[torch.Tensor]:
        raise NotImplementedError

    def after(self) -> None:
        pass


class MaskedWords(Objective):
    """Guess words from both sides (Devlin et al. 2019), without the next-sentence task."""

    def __init__(self, model: Any, seed: int, batch: int) -> None:
        self.model, self.lines = model, batches.line_batches(seed, batch)
        self.draw = torch.Generator().manual_seed(seed)

    def losses(self) -> Iterator[torch.Tensor]:
        for ids in self.lines:
            chosen = to_guess(ids, self.draw)
            yield F.cross_entropy(guesses(self.model, corrupted(ids, chosen, self.draw), chosen), ids[chosen])


def to_guess(ids: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """True where a word is to be guessed, ``[B, T]``: ``MASKED`` of all words, at least one a batch."""
    known = wordlist.numbers()
    special = torch.tensor([known[token] for token in (PAD, START, END)])
    chance = torch.rand(ids.shape, generator=draw).masked_fill(torch.isin(ids, special), 1.0)
    return (chance < MASKED) | (chance == chance.min())


def corrupted(ids: torch.Tensor, chosen: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """``ids`` with most of the chosen ones masked, some replaced by another word and the rest left: ``[B, T]``."""
    known = wordlist.numbers()
    how = torch.rand(ids.shape, generator=draw)
    words = torch.randint(known[START] + 1, known[END], ids.shape, generator=draw)
    ids = torch.where(chosen & (how < HIDDEN), known[MASK], ids)
    return torch.where(chosen & (how >= HIDDEN) & (how < HIDDEN + REPLACED), words, ids)


def guesses(model: Any, ids: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Logits ``[chosen, words]``. Only chosen positions go through the large last table."""
    states = model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state
    logits: torch.Tensor = model.cls(states[chosen])
    return logits


class NextWord(Objective):
    """Guess each next word, and the end, from what came before (Radford et al. 2019)."""

    def __init__(self, model: Any, seed: int, batch: int) -> None:
        self.model, self.lines = model, batches.line_batches(seed, batch)

    def losses(self) -> Iterator[torch.Tensor]:
        for ids in self.lines:
            yield next_word(self.model, ids).mean()


def next_word(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Surprise (nats) of every token but the first, in order, padding left out."""
    seen, wanted = ids[:, :-1], ids[:, 1:]
    # Padding comes last and no token looks ahead, so it need not be masked.
    states = model.transformer(seen, attention_mask=torch.ones_like(seen)).last_hidden_state
    real = wanted != 0
    return F.cross_entropy(model.lm_head(states[real]), wanted[real], reduction="none")


class Captions(Objective):
    """Tell which caption goes with which picture (Radford et al. 2021), InfoNCE both ways.

    In a small world captions repeat within a batch; all pictures that a caption is true to the letter of are right
    answers, in equal parts.
    """

    def __init__(self, model: Any, seed: int, batch: int) -> None:
        self.model = model
        self.scenes = batches.captioned(batches.scene_batches(seed, batch), seed)

    def losses(self) -> Iterator[torch.Tensor]:
        for scenes, captions in self.scenes:
            ids = batches.caption_ids(captions)
            seen = F.normalize(self.model.encode_image(batches.pixels(scenes)), dim=-1)
            read = F.normalize(read_captions(self.model, ids), dim=-1)
            yield info_nce(seen, read, self.model.logit_scale.exp(), same_lines(ids))

    def after(self) -> None:
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=float(np.log(100)))


def read_captions(model: Any, ids: torch.Tensor, parts: int = 4) -> torch.Tensor:
    """``encode_text``, the lines parted by length, so that less of the work is on padding."""
    lengths = (ids != 0).sum(dim=1)
    order = lengths.argsort(stable=True)
    vectors = torch.cat([encode_text(model, ids[part, : int(lengths[part].max())]) for part in order.chunk(parts)])
    return vectors[order.argsort()]


def same_lines(ids: torch.Tensor) -> torch.Tensor:
    """``[B, B]``: True where two lines are equal."""
    return (ids[:, None] == ids[None]).all(dim=2)


def info_nce(one: torch.Tensor, other: torch.Tensor, scale: Any, same: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of unit vectors ``[B, d]`` against ``same [B, B]``, the mean of both directions."""
    logits = scale * one @ other.T
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Classes(Objective):
    """Name the main object's fine class."""

    def __init__(self, model: Any, seed: int, batch: int) -> None:
        self.model, self.scenes = model, batches.scene_batches(seed, batch)

    def losses(self) -> Iterator[torch.Tensor]:
        for scenes in self.scenes:
            yield F.cross_entropy(self.model(batches.pixels(scenes)), batches.fine_labels(scenes))


class Pairs(Objective):
    """Tell which two pictures show the same object, from pictures alone (Chen et al. 2020).

    The two are not crops of one picture: the object is drawn again in another size, place and light, among other
    things. So the renderer's knowledge of what an object is takes part, which photographs would not give. What a pair
    has in common is the colour, the texture and the shape. (With the colour drawn anew as well, and a temperature of
    0.1, so small a transformer did not get off the plateau of guessing in as many steps.) Half a batch of scenes is
    drawn twice: as many pictures a step as the other models see.
    """

    def __init__(self, model: Any, seed: int, batch: int) -> None:
        self.model, self.scenes = model, batches.scene_batches(seed, batch)
        self.draw = np.random.default_rng([seed, 6])
        width = model.num_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Norms over the batch (as in SimCLR's projection): the vectors of untrained pictures are all but equal, and
            # without them nothing would tell one from another to begin with.
            self.helper = nn.Sequential(
                nn.Linear(width, 4 * width),
                nn.BatchNorm1d(4 * width),
                nn.GELU(),
                nn.Linear(4 * width, width),
                nn.BatchNorm1d(width, affine=False),
            )

    def losses(self) -> Iterator[torch.Tensor]:
        assert self.helper is not None
        for scenes in self.scenes:
            first = scenes[: len(scenes) // 2]
            drawn = batches.pixels([*first, *self.again(first)])
            vectors = F.normalize(self.helper(encode_image("vit-pairs", self.model, drawn)), dim=-1)
            yield nt_xent(vectors)

    def again(self, scenes: list[Scene]) -> list[Scene]:
        return rerender(self.draw, scenes)


def nt_xent(vectors: torch.Tensor) -> torch.Tensor:
    """Each of ``[2B, d]`` unit vectors is to find its pair, B further on, among all others."""
    half = len(vectors) // 2
    logits = (vectors @ vectors.T / TEMPERATURE).masked_fill(torch.eye(2 * half, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(2 * half).roll(half))


def objective(name: str, model: Any, seed: int, batch: int) -> Objective:
    """The objective of pocket model ``name`` over ``model``, with data that follow from ``seed``."""
    kinds: dict[str, Any] = {
        "masked words": MaskedWords,
        "next word": NextWord,
        "captions": Captions,
        "classes": Classes,
        "pairs": Pairs,
    }
    described: PocketModel = MODELS[name]
    made: Objective = kinds[described.objective](model, seed, batch)
    return made
