"""Pairs of texts as a model that is fine-tuned reads them: apart or as one, whole, cut or in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipstudy.tasks.parts.pairs import windows

if TYPE_CHECKING:
    from clipstudy.backbones.backbone import Pieces, TextBackbone
    from clipstudy.data.pairs import Pair
    from clipstudy.probes.tuning import Item
    from clipstudy.tasks.finetune import Options


@dataclass(frozen=True)
class ShownText:
    """One text, or two to be joined, and each marked word's number in it (None: not in this window)."""

    texts: tuple[tuple[str, ...], ...]
    marks: tuple[int | None, ...]


def shown_texts(pair: Pair, options: Options, question_only: bool) -> list[list[ShownText]]:
    """What is shown of a pair, side by side, window by window."""
    texts, marked = (pair.first, pair.second), pair.marked if options.marked else None
    if question_only or options.sides == "apart":
        return [
            [
                ShownText((words,), () if marked is None else (_within(marked[side], begin, words),))
                for begin, words in _stretches(text, options)
            ]
            for side, text in enumerate(texts[:1] if question_only else texts)
        ]
    # The question is with each window of its passage; only the budget shortens it.
    [question, *_] = _stretches(pair.first, options) if options.long == "budget" else [(0, pair.first)]
    windowed = []
    for begin, words in _stretches(pair.second, options):
        first, second = (words, question[1]) if _turned(pair, options) else (question[1], words)
        marks: tuple[int | None, ...] = ()
        if marked is not None:  # pairs about a word are never turned
            mark = _within(marked[1], begin, words)
            marks = (_within(marked[0], 0, first), None if mark is None else len(first) + mark)
        windowed.append(ShownText((first, second), marks))
    return [windowed]


def items(backbone: TextBackbone, pairs: Sequence[Pair], options: Options, question_only: bool) -> list[Item]:
    """The pairs as ``backbone`` reads them. Where two joined texts are too long, the passage is cut."""
    from clipstudy.probes.tuning import Item, Shown

    asked = [shown_texts(pair, options, question_only) for pair in pairs]
    flat = [one for sides in asked for side in sides for one in side]
    if len(flat[0].texts) == 1:
        encoded = backbone.pieces([one.texts[0] for one in flat])
    else:
        joined = [(one.texts[0], one.texts[1]) for one in flat]
        encoded = backbone.joined(joined, int(_turned(pairs[0], options)))
    shown = iter(
        Shown(pieces, tuple(_positions(pieces, mark) for mark in one.marks))
        for one, pieces in zip(flat, encoded, strict=True)
    )
    return [Item(tuple(tuple(next(shown) for _ in side) for side in sides)) for sides in asked]


def _positions(pieces: Pieces, word: int | None) -> tuple[int, ...]:
    """Where the pieces of a word are; nowhere, of a word that is not in this window."""
    return () if word is None else tuple(at for at, own in enumerate(pieces.words) if own == word)


def _turned(pair: Pair, options: Options) -> bool:
    """Does the passage, a pair's second text, come first where both are joined?"""
    return options.order == "passage_first" and pair.marked is None


def _stretches(words: Sequence[str], options: Options) -> list[tuple[int, tuple[str, ...]]]:
    """What ``long`` makes of a text: stretches of its words, and where each begins."""
    if options.long == "truncate":
        return [(0, tuple(words))]
    cut = [(at * options.window, part) for at, part in enumerate(windows(words, options.window))]
    return cut if options.long == "windows" else cut[:1]


def _within(mark: int, begin: int, words: Sequence[str]) -> int | None:
    """The marked word's number in a stretch that begins at ``begin``; None: it is not in there."""
    return mark - begin if begin <= mark < begin + len(words) else None


def longest(pair: Pair, question_only: bool) -> int:
    """Words of the longer text that is shown of the pair."""
    return len(pair.first) if question_only else max(len(pair.first), len(pair.second))


def cut(item: Item) -> bool:
    """Did the model's limit cut anything that is shown of the pair?"""
    return any(shown.pieces.truncated for side in item.sides for shown in side)


def unseen(item: Item) -> bool:
    """Is there a side none of whose windows shows one of its marked words?"""
    return any(not any(marks) for side in item.sides for marks in zip(*(shown.marks for shown in side), strict=True))
