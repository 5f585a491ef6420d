"""Labelled texts or images in three splits: what every reader of a classification data set gives."""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipstudy.errors import DataError
from clipstudy.spec import DatasetSpec

log = logging.getLogger(__name__)

#: A text as its words, or an image.
T = TypeVar("T")


@dataclass(frozen=True)
class Rows(Generic[T]):
    """One split: texts or images, and their labels; equally long."""

    items: tuple[T, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Labelled(Generic[T]):
    """A labelled data set in three splits."""

    train: Rows[T]
    dev: Rows[T]
    test: Rows[T]
    fingerprint: str
    source: str
    dropped: int = 0  #: rows of dev and test left out, since train lacks their label
    unreadable: int = 0  #: rows of any split left out, since nothing can read them

    @property
    def parts(self) -> tuple[Rows[T], Rows[T], Rows[T]]:
        """Train, dev, test: the order in which features are asked for."""
        return self.train, self.dev, self.test

    @property
    def classes(self) -> tuple[str, ...]:
        """The label names, sorted: the order of class numbers."""
        return tuple(sorted(set(self.train.labels)))

    @property
    def class_number(self) -> dict[str, int]:
        """Each label's number among :attr:`classes`."""
        return {label: number for number, label in enumerate(self.classes)}


def checked(
    spec: DatasetSpec,
    train: Sequence[tuple[T, str]],
    dev: Sequence[tuple[T, str]],
    test: Sequence[tuple[T, str]],
    print_: str,
    source: str,
) -> Labelled[T]:
    """The three splits, checked and thinned to ``spec.limit``. Texts of dev and test that train has too are told.

    Raises:
        DataError: an empty split; fewer than two classes; two labels that differ in the white space around them alone;
            a label that train lacks, since no probe could learn it, unless ``unseen_labels = "drop"`` leaves such rows
            out.
    """
    _check_spelling(spec, source, {label for part in (train, dev, test) for _, label in part})
    splits = {}
    for name, part in (("train", train), ("dev", dev), ("test", test)):
        if not part:
            raise DataError(f'[datasets.{spec.name}] split "{name}" of {source} is empty. Fix the file or `splits`.')
        kept = stratified([label for _, label in part], spec.limit, spec.limit_seed)
        splits[name] = Rows(tuple(part[i][0] for i in kept), tuple(part[i][1] for i in kept))
    known, dropped = set(splits["train"].labels), 0
    for name in ("dev", "test"):
        rows = splits[name]
        kept = [i for i, label in enumerate(rows.labels) if label in known]
        new = sorted(set(rows.labels) - known)
        if new and (spec.unseen_labels == "error" or not kept):
            raise DataError(
                f'[datasets.{spec.name}] {source}: label "{new[0]}" is in {name} but not in train, so nothing can '
                f"learn it ({len(new)} such labels, {len(rows) - len(kept)} rows). Train has {_some(known)}. "
                f"Fix the file, {'raise `limit`, ' if spec.limit else ''}or leave such rows out and count them: "
                'unseen_labels = "drop"'
            )
        dropped += len(rows) - len(kept)
        splits[name] = Rows(tuple(rows.items[i] for i in kept), tuple(rows.labels[i] for i in kept))
    if len(known) < 2:
        raise DataError(f'[datasets.{spec.name}] {source} has one class only ("{min(known)}"). Fix the file.')
    if isinstance(splits["train"].items[0], tuple):
        texts = {name: [item for item in rows.items if isinstance(item, tuple)] for name, rows in splits.items()}
        tell_repeated(spec, source, "texts", texts, lambda name, number: " ".join(texts[name][number])[:40])
    return Labelled(splits["train"], splits["dev"], splits["test"], print_, source, dropped)


def _check_spelling(spec: DatasetSpec, source: str, labels: Iterable[str]) -> None:
    """Raises DataError where two labels look the same to a person."""
    by_look: dict[str, str] = {}
    for label in sorted(labels):
        other = by_look.setdefault(label.strip(), label)
        if other != label:
            raise DataError(
                f"[datasets.{spec.name}] {source}: the labels {other!r} and {label!r} differ in white space alone, and "
                "would be two classes. Remove the white space in the file."
            )


def _some(labels: Iterable[str], most: int = 8) -> str:
    """The first of some labels, for a message."""
    names = sorted(labels)
    return ", ".join(f'"{name}"' for name in names[:most]) + (f" and {len(names) - most} more" * (len(names) > most))


def tell_repeated(
    spec: DatasetSpec,
    source: str,
    what: str,
    splits: Mapping[str, Sequence[Hashable]],
    example: Callable[[str, int], str],
) -> None:
    """Warn of items that are in train too, as what a probe scores on them may be memory; and of a dev that is test.

    Args:
        what: the items are.
        splits: each split's, as what is the same where two are the same.
        example: how to say the item of that number in that split.
    """
    if splits["dev"] == splits["test"]:
        log.warning(
            "[datasets.%s] %s: dev and test are the same rows, so what is chosen on the one is reported on the other. "
            "To measure what a probe has learnt, name two in `splits`.",
            spec.name, source,
        )  # fmt: skip
    fitted = set(splits["train"])
    for name in ("dev", "test"):
        items = splits[name]
        if again := [number for number, item in enumerate(items) if item in fitted]:
            log.warning(
                '[datasets.%s] %s: %d of %d %s of %s are in train, too ("%s"), so a probe may know them by heart. '
                "To measure what it has learnt, remove them from either split.",
                spec.name, source, len(again), len(items), what, name, example(name, again[0]),
            )  # fmt: skip


def stratified(labels: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Row numbers (ascending) of a sample of ``limit`` rows that keeps each label's share, by largest remainder.

    Files are often sorted by label, so a sample is never the head of the file.
    """
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    counts = Counter(labels)
    exact = {label: limit * n / len(labels) for label, n in counts.items()}
    take = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(counts, key=lambda label: (take[label] - exact[label], label))
    for label in by_remainder[: limit - sum(take.values())]:
        take[label] += 1
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    draw = random.Random(seed)
    return sorted(row for label in sorted(counts) for row in draw.sample(rows_of[label], take[label]))
