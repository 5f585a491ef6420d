"""Any Hub or local table, read by its column names. Never a loading script, never remote code."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy import hub
from clipstudy.data import COLUMNS, files, fingerprint, formats
from clipstudy.data.labelled import Labelled, checked
from clipstudy.errors import DataError, did_you_mean
from clipstudy.hub import Part, Repository
from clipstudy.spec import DatasetSpec
from clipstudy.wording import counted

#: What others call the split that is ``dev`` here.
DEV = ("validation", "valid", "val", "eval", "development")


#: One of several parts of a split, as the Hub numbers them from 0.
PART = re.compile(r"-(\d{1,9})-of-(\d{1,9})(?=-|$)", re.ASCII)


@dataclass(frozen=True)
class Table:
    """One split of a table."""

    columns: Mapping[str, list[Any]]  #: by the names that the reader uses; equally long, no value missing
    fingerprint: str
    source: str  #: for messages: the folder, or ``id@commit``
    files: tuple[tuple[Path, int], ...] = ()  #: where the rows come from, in order, and how many from each

    def where(self, row: int) -> str:
        """File and row (from 0 in it), for messages."""
        for path, rows in self.files:
            if row < rows:
                return f"{path}, row {row} (from 0)"
            row -= rows
        raise IndexError(row)


class NoSplit(DataError):
    """There is no such split. Name one in `splits`."""

    def __init__(self, message: str, there: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.there = there  #: paths of the tables that there are


def read(spec: DatasetSpec) -> Labelled[tuple[str, ...]]:
    """A labelled text data set: ``columns`` names its ``text`` and ``label``, ``splits`` its train, dev and test.

    Raises:
        DataError: a text that is empty or no text, and all that :func:`load` and ``labelled.checked`` refuse.
    """
    parts, tables = [], []
    for split in ("train", "dev", "test"):
        table = load(spec, split, COLUMNS["table"])
        rows = []
        for row, (text, label) in enumerate(zip(table.columns["text"], table.columns["label"], strict=True)):
            words = tuple(text.split()) if isinstance(text, str) else ()
            if not words:
                raise _refused(spec, split, table.source, row, f"text is {shown(text)}", "a text")
            if not is_label(label):
                raise _refused(spec, split, table.source, row, f"label is {shown(label)}", "one label")
            rows.append((words, str(label)))
        parts.append(rows)
        tables.append(table)
    train, dev, test = parts
    print_ = fingerprint(table.fingerprint.encode() for table in tables)
    return checked(spec, train, dev, test, print_, tables[0].source)


def load(spec: DatasetSpec, split: str, columns: Sequence[str]) -> Table:
    """Columns of one split, from the tables of a Hub repository at a commit or of a local folder. Class numbers become
    names; images stay encoded, and on the disk until they are looked at.

    Args:
        columns: names that the reader uses; ``spec.columns`` may call them otherwise.

    Raises:
        NoSplit: no such split or config.
        DataError: no such repository, revision or column; a malformed file; a value that is missing, or
            a number that names no class; no network and nothing cached.
    """
    name = spec.splits.get(split, split)
    folder, source = _snapshot(spec, split) if spec.hub else (files(spec), str(files(spec)))
    found = _split_files(spec, folder, source, name)
    called = {column: spec.columns.get(column, column) for column in columns}
    values: dict[str, list[Any]] = {column: [] for column in columns}
    lengths = []
    for path in found:
        cells = formats.read(path, called.values())
        lengths.append((path, cells.rows))
        for column, own in called.items():
            if own not in cells.columns:
                raise _no_column(spec, column, own, path, cells.there)
            values[column] += cells.columns[own]
    for column, held in values.items():
        for row, cell in enumerate(held):
            if cell is None or (isinstance(cell, list) and None in cell):
                what = f"{column} is absent or hidden (a number that names no class)"
                raise _refused(spec, split, source, row, what, f"{'an' if column == 'image' else 'a'} {column}")
    return Table(values, fingerprint(path.read_bytes() for path in found), source, tuple(lengths))


def holds(spec: DatasetSpec, name: str) -> bool:
    """Is there a table of the split that is called ``name`` in the data set's local folder?"""
    try:
        return bool(_split_files(spec, files(spec), "", name))
    except NoSplit:
        return False
    except DataError:  # there are several, or a part is missing: who reads them says so
        return True


def doubt(
    spec: DatasetSpec, splits: Sequence[str] = ("train", "dev", "test"), columns: Sequence[str] = COLUMNS["table"]
) -> str | None:
    """What :func:`load` would refuse of local files, as far as their names and those of their columns show."""
    try:
        folder = files(spec)
        for split in splits:
            for path in _split_files(spec, folder, str(folder), spec.splits.get(split, split)):
                there = formats.header(path)
                for column in columns:
                    if there and (own := spec.columns.get(column, column)) not in there:
                        raise _no_column(spec, column, own, path, there)
    except DataError as error:
        return error.message
    return None


def _no_column(spec: DatasetSpec, column: str, own: str, path: Path, there: Sequence[str]) -> DataError:
    return DataError(
        f'[datasets.{spec.name}.columns] {column} = "{own}": {path} has no such column. '
        f"{did_you_mean(own, there)} {_columns_remedy(path, column, there)}"
    )


def _refused(spec: DatasetSpec, split: str, source: str, row: int, what: str, want: str) -> DataError:
    return DataError(
        f'[datasets.{spec.name}] {source}, split "{split}", row {row} (from 0): {what}, expected {want}. Fix or remove '
        "the row, or name another split in `splits`."
    )


def is_label(cell: Any) -> bool:
    """Is a cell one label: a text, a number, a truth value or a date?"""
    if isinstance(cell, list | dict | bytes) or formats.is_encoded(cell):
        return False
    return bool(cell == cell) and str(cell).strip() != ""


def shown(cell: Any) -> str:
    """A cell, or its beginning, for messages."""
    return f"{len(bytes(cell))} bytes" if formats.is_encoded(cell) else f'"{str(cell)[:40]}"'


def _columns_remedy(path: Path, column: str, there: Sequence[str]) -> str:
    """What to write so that ``column`` is found among the columns that ``path`` has."""
    between = next((what for mark, what in (("\t", "tabs"), (";", "semicolons")) if mark in there[0]), None)
    if len(there) == 1 and between and path.suffix.lower() == ".csv":
        return f"Its columns have {between} between them: save it with commas{', or as .tsv' * (between == 'tabs')}."
    fix = f'Write the one meant: columns = {{ {column} = "…" }}'
    return f"{fix}. Names stand in a csv's first line." if path.suffix.lower() in (".csv", ".tsv") else fix


def _split_files(spec: DatasetSpec, folder: Path, source: str, name: str) -> list[Path]:
    """The files of one split in the Hub's layouts: ``<split>/0000.parquet``, ``<split>-00000-of-00001.parquet`` and
    ``<split>.parquet``, under a folder named as the config or anywhere; or a file of that very name."""
    where = f"[datasets.{spec.name}]"
    if folder.is_file():
        raise DataError(
            f"{where} path: {folder} is one file, but each split is read from files of its own. Name their folder, "
            f"with {name}.csv (or .tsv, .parquet, .jsonl) in it."
        )
    paths = {p: p.relative_to(folder).parts for p in sorted(folder.rglob("*")) if p.suffix.lower() in formats.ENDINGS}
    tables = {p: parts for p, parts in paths.items() if not any(part.startswith(".") for part in parts)}
    named = re.compile(rf"{re.escape(name)}(-\d.*)?")
    found = {
        path: parts[:-2] if parts[-2:-1] == (name,) else parts[:-1]
        for path, parts in tables.items()
        if (parts[-2:-1] == (name,) or path.name == name or named.fullmatch(path.stem))
        and (spec.config is None or spec.config in parts[:-1])
    }
    if not found:
        # Of the Hub's, those of other splits are not here.
        there = list(dict.fromkeys(["/".join(parts) for parts in tables.values()] + _published(spec, source)))
        there = there or _other(folder)
        config = f' of config "{spec.config}"' if spec.config else ""
        raise NoSplit(
            f'{where} splits: {source} has no table for "{name}"{config}. {did_you_mean(name, there)} A split is '
            f"{name}.csv (or .tsv, .parquet, .jsonl), or files in a folder {name}/. {_split_remedy(name, there)}",
            there,
        )
    if len({(home, path.suffix) for path, home in found.items()}) > 1:
        those = ", ".join("/".join(tables[path]) for path in found)
        raise DataError(
            f'{where}: {source} has several tables for "{name}": {those}. Name a folder in `config`, or a file in '
            "`splits`."
        )
    _check_parts(where, source, name, list(found))
    return list(found)


def _check_parts(where: str, source: str, name: str, paths: Sequence[Path]) -> None:
    """Raises DataError where the tables of one split are not all its parts, each once: ``train-00000-of-00002``. In a
    folder of the split's name there may be several such series."""
    if any(path.name == name for path in paths) or PART.search(name):  # that very file was meant
        return
    remedy = f'or name one file in `splits`: splits = {{ … = "{paths[0].name}" }}'
    series: dict[str, list[tuple[int, int]]] = {}
    for path in paths:
        if part := PART.search(path.stem):
            series.setdefault(path.stem[: part.start()], []).append((int(part[1]), int(part[2])))
    of_series = sum(map(len, series.values()))
    alone = [path for path in paths if path.parent.name != name]
    beside = len(alone) > 1 and (any(path.stem == name for path in alone) or of_series not in (0, len(paths)))
    if beside or any(len({of for _, of in parts}) > 1 for parts in series.values()):
        those = ", ".join(path.name for path in paths)
        raise DataError(
            f'{where}: {source} has several tables for "{name}" that are not parts of one: {those}. Remove those that '
            f"are not meant, {remedy}"
        )
    for stem, parts in series.items():
        numbers, of = sorted(number for number, _ in parts), parts[0][1]
        if numbers not in (list(range(of)), list(range(1, of + 1))):
            raise DataError(
                f'{where}: {source} has {counted(len(parts), "file")} of the {of} parts of "{stem}". Bring those that '
                f"are missing and remove what is there twice, {remedy}"
            )


def _other(folder: Path) -> list[str]:
    """What a folder without a table holds, for a message: a few names, folders with a slash."""
    return [p.name + "/" * p.is_dir() for p in sorted(folder.iterdir()) if not p.name.startswith(".")][:12]


def likely_dev(there: Sequence[str]) -> str | None:
    """What tables call ``dev``, by their paths; None: none looks like it."""
    words = {word for path in there for word in re.split(r"[/.]|-\d", path)}
    return next((word for word in DEV if word in words), None)


def _split_remedy(name: str, there: Sequence[str]) -> str:
    """What to write where no table is called ``name``."""
    if name == "dev" and (likely := likely_dev(there)):
        return f'Write: splits = {{ dev = "{likely}" }}'
    without = " Where you have none, put some rows of train aside for it." if name in ("dev", "test") else ""
    return f'Where it has another name, write that: splits = {{ {name} = "…" }}.{without}'


def wanted(spec: DatasetSpec, splits: Mapping[str, bool]) -> Repository:
    """What :func:`load` reads of the Hub for ``splits``: each with whether it must be there."""
    parts = tuple(
        Part(f'table for "{name}"', tuple(_patterns(spec.config, name)), required)
        for name, required in {spec.splits.get(split, split): must for split, must in splits.items()}.items()
    )
    return Repository(f"datasets.{spec.name}", "hub", str(spec.hub), parts, "dataset", spec.revision)


def _snapshot(spec: DatasetSpec, split: str) -> tuple[Path, str]:
    # Not by the name that `datasets` takes: offline it does not read the Hub's cache.
    folder = hub.snapshot(wanted(spec, {split: True}))
    return folder, f"{spec.hub}@{folder.name}"


def _patterns(config: str | None, name: str) -> Iterator[str]:
    """Which of a repository's files may be tables of a split, as :func:`_split_files` reads them: others are not
    downloaded. A ``*`` also stands for folders."""
    split = glob.escape(name)
    folders = [f"{glob.escape(config)}/", f"*/{glob.escape(config)}/"] if config else [""]
    for folder in folders:
        for under in (folder, f"{folder}*/"):
            yield f"{under}{split}"
            yield from (f"{under}{split}{rest}{end}" for rest in ("", "-[0-9]*", "/*") for end in formats.ENDINGS)


def _published(spec: DatasetSpec, source: str) -> list[str]:
    """The tables of a Hub repository, for a message: none where the Hub does not answer."""
    from huggingface_hub import HfApi

    listed: list[str] = []
    if spec.hub:
        with contextlib.suppress(Exception):  # whatever goes wrong here, the message above it matters more
            listed = HfApi().list_repo_files(spec.hub, repo_type="dataset", revision=source.rpartition("@")[2])
    return [path for path in listed if path.lower().endswith(tuple(formats.ENDINGS))]
