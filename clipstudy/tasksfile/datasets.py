"""``[datasets.NAME]`` → DatasetSpec."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clipstudy import checksum, data
from clipstudy.data import formats
from clipstudy.errors import did_you_mean
from clipstudy.spec import DatasetSpec
from clipstudy.tasksfile.tables import built, good_name


def read(tables: Mapping[str, Any], base: str, problems: list[str]) -> dict[str, DatasetSpec]:
    """The data sets by name; relative paths start from ``base``."""
    return {dataset.name: dataset for dataset in _each(tables, base, problems)}


def _each(tables: Mapping[str, Any], base: str, problems: list[str]) -> Iterator[DatasetSpec]:
    for name, values in tables.items():
        where = f"[datasets.{name}]"
        if not isinstance(values, dict):
            problems.append(f"{where}: found {values!r}, expected a table")
            continue
        if not good_name(where, name, problems):
            continue
        spec = built(DatasetSpec, {**values, "name": name, "base": base}, where, problems)
        if spec is None:
            continue
        problems.extend(f"{where} {p}" for p in _problems(spec, values))
        yield spec


def _problems(spec: DatasetSpec, given: Collection[str]) -> Iterator[str]:
    if spec.limit is not None and spec.limit < 2:
        yield f"limit: found {spec.limit}, expected 2 or more rows a split"
    if not 0 <= spec.unreadable < 1:
        yield f"unreadable: found {spec.unreadable}, expected a share of a split's images, 0 or more and less than 1"
    if not 0 < spec.development < 1:
        yield f"development: found {spec.development}, expected a share of train, more than 0 and less than 1"
    if spec.reader not in data.READERS:
        # Who writes the format of a table's file means the reader of tables.
        meant = "table" if f".{spec.reader}" in formats.ENDINGS else spec.reader
        yield f'reader: found "{spec.reader}". {did_you_mean(meant, data.READERS)}'
        return
    places = data.READERS[spec.reader]
    named = [place for place in ("path", "hub") if place in given]
    if len(named) != 1 or named[0] not in places:
        found, want = " and ".join(named) or "neither", " or ".join(places)
        yield f'path or hub: found {found}. reader = "{spec.reader}" wants one: {want}'
        return
    if spec.checksum is not None and not checksum.well_formed(spec.checksum):
        yield f'checksum: found "{spec.checksum}", expected "sha256:" and 64 or "git:" and 40 hexadecimal digits'
    if spec.url is not None and not spec.url.startswith(("https://", "http://")):
        yield f'url: found "{spec.url}", expected an address that begins with https:// or http://'
    for split in sorted(spec.exclude.keys() - {"train", "dev", "test"} - spec.splits.keys()):
        yield f'exclude: "{split}" is no split. {did_you_mean(split, ["train", "dev", "test", *spec.splits])}'
    if spec.url is not None and not spec.url.isascii():
        yield f'url: found "{spec.url}", expected ASCII characters. Percent-encode the others: ü is %C3%BC'
    if spec.url is not None and "@" in spec.url.partition("://")[2].partition("/")[0]:
        yield "url: found a login in it, and a study file goes into the job table. Write the address without"
    if spec.url is not None and spec.checksum is None:
        yield "url: found without a checksum. Write one, so that a file that changed there is told from the one meant"
    used = ("reader", "hint", named[0], *places[named[0]])
    for key in given:
        if key not in used:
            yield f'{key}: reader = "{spec.reader}" does not use it beside `{named[0]}`. {did_you_mean(key, used)}'
    # A key of these that no reader asks for would change nothing, and nobody would be told.
    if spec.reader != "conll2000":  # its tasks may name any split
        yield from _unasked("splits", spec.splits, data.SPLITS.get(spec.reader, ()))
    yield from _unasked("columns", spec.columns, data.COLUMNS.get(spec.reader, ()))


def _unasked(key: str, given: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """The names on the left of ``splits`` or ``columns`` that the reader does not use."""
    for own, theirs in given.items() if known else ():
        if own not in known:
            turned = f' Write it the other way round: {key} = {{ {theirs} = "{own}" }}' if theirs in known else ""
            yield f'{key}: found {own} = "{theirs}". {did_you_mean(own, known)}{turned}'
