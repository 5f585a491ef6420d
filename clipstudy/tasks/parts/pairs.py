"""Pairs of texts as the kinds of task that measure them read them, and what becomes of long ones."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clipstudy.errors import DataError, did_you_mean
from clipstudy.spec import DatasetSpec

if TYPE_CHECKING:
    from clipstudy.data.pairs import Pairs

#: Readers of data sets of pairs.
PAIR_READERS = ("boolq", "wic")
#: A text longer than a model reads: cut there; cut into windows; the first window alone, so that every model sees the
#: same words.
Long = Literal["truncate", "windows", "budget"]
#: The arm that is shown the first text alone.
ALONE = "question_only"


@dataclass(frozen=True)
class OfPairs:
    """What is made of a data set of pairs."""

    pairs: Pairs

    @property
    def fingerprint(self) -> str:
        return self.pairs.fingerprint

    @property
    def source(self) -> str:
        return self.pairs.source


def pairs_of(dataset: DatasetSpec) -> Pairs:
    """What the dataset's reader reads. Raises DataError as the reader does, or that it reads no pairs."""
    if dataset.reader not in PAIR_READERS:  # a row that no study file was checked for
        known = did_you_mean(dataset.reader, PAIR_READERS)
        raise DataError(f'[datasets.{dataset.name}] reader: found "{dataset.reader}". {known} Fix the key.')
    pairs: Pairs = importlib.import_module(f"clipstudy.data.{dataset.reader}").read(dataset)
    return pairs


def windows(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """``words`` cut into stretches of ``size``, the last one shorter."""
    return [tuple(words[at : at + size]) for at in range(0, len(words), size)]
