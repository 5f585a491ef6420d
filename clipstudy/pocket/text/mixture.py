"""The text that the pocket models are pretrained on, and the words in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from clipstudy.pocket.dice import Dice
from clipstudy.pocket.images.scenes import sample
from clipstudy.pocket.text.captions import Caption, caption
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.vocabulary import all_words


def mixture(seed: int, share: float = 0.5) -> Iterator[tuple[str, ...]]:
    """Endless text for the language models: sentences of the language, and captions at this ``share`` of the lines.

    Captions are all that a contrastive model reads. With them in its own text, a language model has seen every word
    and construction that its contrastive counterpart has.
    """
    language, dice = Language(f"mixture/{seed}"), Dice(f"mixture/{seed}")
    pictured = _endless_captions(seed)
    while True:
        yield next(pictured).sentence.words if dice.chance(share) else language.sentence().words


def _endless_captions(seed: int) -> Iterator[Caption]:
    rng, dice = np.random.default_rng([seed, 3]), Dice(f"mixture captions/{seed}")
    while True:
        for scene in sample(rng, 256):
            yield caption(scene, dice)


def vocabulary(seed: int = 0, lines: int = 2000) -> list[str]:
    """Every word of the language and of captions, commonest first in a sample of ``mixture``, the rest in order.

    A tokeniser made of it never meets a word that it does not know.
    """
    counts: dict[str, int] = dict.fromkeys(sorted(all_words()), 0)
    for words in islice(mixture(seed), lines):
        for word in words:
            counts[word] += 1
    return sorted(counts, key=lambda word: (-counts[word], word))
