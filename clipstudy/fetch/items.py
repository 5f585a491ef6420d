"""What a study takes from elsewhere, and what of it is here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from clipstudy import backbones, data
from clipstudy.data import Released
from clipstudy.errors import ClipstudyError
from clipstudy.hub import Entry, Repository
from clipstudy.job import Group

Source = Repository | Released
#: Bytes of a megabyte, in which progress is told.
MEGA = 10**6


@dataclass(frozen=True)
class Item:
    """One repository at one revision, or one released file, and the tables that read it."""

    source: Source
    tables: tuple[str, ...]  #: ``models.bert``, ``datasets.wic``

    @property
    def key(self) -> str:
        """How the manifest calls it."""
        if isinstance(self.source, Released):
            return self.source.url
        return f"{self.source.kind}:{self.source.id}@{self.source.revision or 'main'}"

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.source.url if isinstance(self.source, Released) else self.source.id

    @property
    def readers(self) -> str:
        """``bert``, or ``bert +2`` where so many further tables read it."""
        first, *others = self.tables
        name = first.partition(".")[2]
        return f"{name} +{len(others)}" if others else name


@dataclass(frozen=True)
class Survey:
    """An item as its publisher has it now, beside what is on this machine."""

    item: Item
    commit: str | None  #: what the revision stands for; None: a released file
    entries: tuple[Entry, ...]
    here: frozenset[str]  #: paths of the entries that need no download

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def missing(self) -> tuple[Entry, ...]:
        """What is yet to be downloaded."""
        return tuple(entry for entry in self.entries if entry.path not in self.here)

    @property
    def to_download(self) -> int:
        """Bytes of that."""
        return sum(entry.size for entry in self.missing)


class Failure(NamedTuple):
    """An item that was not fetched, and why."""

    item: Item
    error: ClipstudyError


def told(failures: Iterable[Failure], again: str) -> list[str]:
    """Lines on ``failures``: who did not answer is said once, whatever was to come from there, and at the end that
    ``again`` is to be typed where there is a network."""
    failures = list(failures)
    away = [failure for failure in failures if failure.error.silent]
    lines = [failure.error.message for failure in failures if not failure.error.silent]
    if away:
        lines.append(f"No answer from {', '.join(dict.fromkeys(failure.error.silent for failure in away))}.")
        lines.append(f"Not reached: {_listed(failure.item for failure in away)}")
        lines.append(f"On a machine with network, type: {again}")
    return lines


def _listed(items: Iterable[Item]) -> str:
    """``models bert +2, gpt2; datasets wic``: who reads ``items``."""
    sections: dict[str, list[str]] = {}
    for item in items:
        sections.setdefault(item.tables[0].partition(".")[0], []).append(item.readers)
    return "; ".join(f"{section} {', '.join(names)}" for section, names in sections.items())


def wanted(groups: Iterable[Group]) -> list[Item]:
    """What the models and data sets of ``groups`` take from elsewhere, each repository once. Local files are left out.

    Raises:
        ModelError, DataError: a table names what cannot be.
    """
    groups = list(groups)
    models = {model.name: model for group in groups for model in (group.model, group.task.reference) if model}
    datasets = {group.dataset.name: group.dataset for group in groups}
    items: dict[str, Item] = {}
    for source in (
        *(source for model in models.values() for source in backbones.wanted(model)),
        *(source for spec in datasets.values() if (source := data.wanted(spec))),
    ):
        item = Item(source, (source.table,))
        items[item.key] = _joined(items[item.key], item) if item.key in items else item
    return list(items.values())


def _joined(one: Item, other: Item) -> Item:
    """Two tables that read one repository, each its own parts of it."""
    source = one.source
    if isinstance(source, Repository) and isinstance(other.source, Repository):
        source = replace(source, parts=tuple(dict.fromkeys((*source.parts, *other.source.parts))))
    return Item(source, tuple(dict.fromkeys((*one.tables, *other.tables))))
