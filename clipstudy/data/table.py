"""Any Hub or local table, read by its column names. Never a loading script, never remote code."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy import hub
from clipstudy.data import COLUMNS, decoded, files, fingerprint
from clipstudy.data.labelled import Labelled, checked
from clipstudy.errors import DataError, did_you_mean, said
from clipstudy.hub import Part, Repository
from clipstudy.spec import DatasetSpec

#: What a table may be, by ending in small letters, and what it is read as.
FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json"}

#: A cell that quotes enclose: those within are doubled.
ENCLOSED = re.compile(r'"(?:[^"]|"")*"')

#: What others call the split that is ``dev`` here.
DEV = ("validation", "valid", "val", "eval", "development")

#: A parquet file may unfold to so many times its bytes, and have so many rows a byte (what compresses like that is no
#: text or image); or to so little that it does no harm.
MOST_UNPACKED, MOST_ROWS, SMALL = 1000, 64, 1 << 24


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
        rows = _rows(path)
        lengths.append((path, len(rows)))
        for column, own in called.items():
            if own not in rows.column_names:
                raise _no_column(spec, column, own, path, rows.column_names)
            values[column] += _cells(rows, own)
    for column, cells in values.items():
        for row, cell in enumerate(cells):
            if cell is None or (isinstance(cell, list) and None in cell):
                what = f"{column} is absent or hidden (a number that names no class)"
                raise _refused(spec, split, source, row, what, f"{'an' if column == 'image' else 'a'} {column}")
    return Table(values, fingerprint(path.read_bytes() for path in found), source, tuple(lengths))


def doubt(spec: DatasetSpec) -> str | None:
    """What :func:`read` would refuse of local files, as far as their names and those of their columns show."""
    try:
        folder = files(spec)
        for split in ("train", "dev", "test"):
            for path in _split_files(spec, folder, str(folder), spec.splits.get(split, split)):
                there = _header(path)
                for column in COLUMNS["table"]:
                    if there and (own := spec.columns.get(column, column)) not in there:
                        raise _no_column(spec, column, own, path, there)
    except DataError as error:
        return error.message
    return None


def _header(path: Path) -> list[str]:
    """The names of a file's columns; none where they are not in one place, or cannot be read: :func:`read` says why."""
    kind = FORMATS[path.suffix.lower()]
    if kind == "parquet":
        import pyarrow.parquet

        with contextlib.suppress(OSError, pyarrow.ArrowException):
            return list(pyarrow.parquet.read_schema(path).names)
    if kind in ("csv", "tsv"):
        with contextlib.suppress(OSError, ValueError, csv.Error), path.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines, delimiter="," if kind == "csv" else "\t"), [])
    return []


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
    if isinstance(cell, list | dict | bytes) or is_encoded(cell):
        return False
    return bool(cell == cell) and str(cell).strip() != ""


def shown(cell: Any) -> str:
    """A cell, or its beginning, for messages."""
    return f"{len(bytes(cell))} bytes" if is_encoded(cell) else f'"{str(cell)[:40]}"'


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
    paths = {p: p.relative_to(folder).parts for p in sorted(folder.rglob("*")) if p.suffix.lower() in FORMATS}
    tables = {p: parts for p, parts in paths.items() if not any(part.startswith(".") for part in parts)}
    named = re.compile(rf"{re.escape(name)}(-\d.*)?")
    found = {
        path: parts[:-2] if parts[-2:-1] == (name,) else parts[:-1]
        for path, parts in tables.items()
        if (parts[-2:-1] == (name,) or path.name == name or named.fullmatch(path.stem))
        and (spec.config is None or spec.config in parts[:-1])
    }
    if not found:
        there = ["/".join(parts) for parts in tables.values()] or _published(spec, source) or _other(folder)
        config = f' of config "{spec.config}"' if spec.config else ""
        raise NoSplit(
            f'{where} splits: {source} has no table for "{name}"{config}. {did_you_mean(name, there)} A split is '
            f"{name}.csv (or .tsv, .parquet, .jsonl), or files in a folder {name}/. {_split_remedy(name, there)}"
        )
    if len({(home, path.suffix) for path, home in found.items()}) > 1:
        those = ", ".join("/".join(tables[path]) for path in found)
        raise DataError(
            f'{where}: {source} has several tables for "{name}": {those}. Name a folder in `config`, or a file in '
            "`splits`."
        )
    return list(found)


def _other(folder: Path) -> list[str]:
    """What a folder without a table holds, for a message: a few names, folders with a slash."""
    return [p.name + "/" * p.is_dir() for p in sorted(folder.iterdir()) if not p.name.startswith(".")][:12]


def _split_remedy(name: str, there: Sequence[str]) -> str:
    """What to write where no table is called ``name``."""
    words = {word for path in there for word in re.split(r"[/.]|-\d", path)}
    if name == "dev" and (likely := next((word for word in DEV if word in words), None)):
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
            yield from (f"{under}{split}{rest}{end}" for rest in ("", "-[0-9]*", "/*") for end in FORMATS)


def _published(spec: DatasetSpec, source: str) -> list[str]:
    """The tables of a Hub repository, for a message: none where the Hub does not answer."""
    from huggingface_hub import HfApi

    listed: list[str] = []
    if spec.hub:
        with contextlib.suppress(Exception):  # whatever goes wrong here, the message above it matters more
            listed = HfApi().list_repo_files(spec.hub, repo_type="dataset", revision=source.rpartition("@")[2])
    return [path for path in listed if path.lower().endswith(tuple(FORMATS))]


def _rows(path: Path) -> Any:
    """A file as a ``datasets.Dataset``."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises
    kind = FORMATS[path.suffix.lower()]
    try:
        if kind == "parquet":
            about = _check_size(path)
            if not about.num_rows:  # of which the library makes nothing
                return datasets.Dataset(about.schema.to_arrow_schema().empty_table())
            return datasets.Dataset.from_parquet(str(path))
        if kind == "json":
            return datasets.Dataset.from_json(str(path))
        # Not by the library's own reader: pandas takes a line's extra cell for a row name and shifts the others.
        return datasets.Dataset(_csv(path) if kind == "csv" else _tsv(path))
    except Exception as error:  # each format's library raises its own, under the library's
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if getattr(cause, "errno", None) is not None:
            raise  # the disk's fault, not the file's
        if kind != "parquet":
            decoded(path)  # raises where no text was to be found in it
        raise DataError(f"{path} cannot be read as {kind} ({said(cause)}). Fix or fetch the file.") from None


def _csv(path: Path) -> Any:
    """A csv as an Arrow table. Raises ValueError where a quote does not end the cell that it begins: it would end
    another, and all rows up to there would be one."""
    if wrong := _misquoted(path, ","):
        raise ValueError(wrong)
    return _cut(path, ",", quoted=True)


def _tsv(path: Path) -> Any:
    """A tsv as an Arrow table. In some, quotes enclose cells, as in a csv; in others (GLUE's) they are text, and one at
    the beginning of a cell would take what follows, up to the next one, for a single cell."""
    import pyarrow

    try:
        plain = _cut(path, "\t", quoted=False)
    except pyarrow.ArrowInvalid:  # some line has other cells than the first: quotes may enclose tabs or line ends
        if _misquoted(path, "\t"):
            raise
        return _cut(path, "\t", quoted=True)
    columns = [plain.column_names, *(column.to_pylist() for column in plain.columns)]
    begun = [cell for column in columns for cell in column if cell.startswith('"')]
    return _cut(path, "\t", quoted=True) if begun and all(map(ENCLOSED.fullmatch, begun)) else plain


def _cut(path: Path, delimiter: str, quoted: bool) -> Any:
    """A text file as an Arrow table of texts, cells as they stand: "NA" is a word, "01" is not 1."""
    import pyarrow.csv

    # The whole file as one block: a block ends with a line, which a quoted cell need not.
    whole = pyarrow.csv.ReadOptions(block_size=min(path.stat().st_size + 1, 2**31 - 1))
    quote = '"' if quoted else False
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=quoted)
    with pyarrow.csv.open_csv(path, read_options=whole, parse_options=parse) as file:
        texts = dict.fromkeys(file.schema.names, pyarrow.string())
    return pyarrow.csv.read_csv(path, whole, parse, pyarrow.csv.ConvertOptions(column_types=texts))


def _misquoted(path: Path, delimiter: str) -> str:
    """Where a quote does not end the cell that it begins, and how it would; empty where all do."""
    text = decoded(path)
    if '"' not in text:
        return ""
    csv.field_size_limit(2**31 - 1)  # a cell may be a book
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for _ in rows:
            line = rows.line_num + 1
    except csv.Error:
        return f"line {line}: a quote begins a cell and does not end it; within quotes write a quote twice"
    return ""


def _check_size(path: Path) -> Any:
    """What a parquet file says of itself. Raises ValueError where that is that it unfolds to many times what any data
    does."""
    import pyarrow.parquet

    about, size = pyarrow.parquet.read_metadata(path), path.stat().st_size
    unpacked = sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
    if unpacked > max(MOST_UNPACKED * size, SMALL) or about.num_rows > max(MOST_ROWS * size, SMALL):
        raise ValueError(f"{size} bytes that unfold to {unpacked} and {about.num_rows} rows: more than any data does")
    return about


def _cells(rows: Any, column: str) -> list[Any]:
    """A column's values, class numbers as their names; None: a number that names no class (a hidden label)."""
    import datasets

    stored = rows.data.column(column)
    if (encoded := _encoded(stored)) is not None:
        return encoded
    feature = rows.features[column]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    # Of all that the library decodes, the JSON that it stores mixed cells as: the rest it would open, by the path or
    # address that a cell names.
    decoded = isinstance(feature, datasets.Json)
    values: list[Any] = list(rows[column]) if decoded else stored.to_pylist()
    return values if names is None else [_named(value, names) for value in values]


def _encoded(stored: Any) -> list[Any] | None:
    """The bytes of a column of images (the Hub's ``{bytes, path}``, or bytes alone), views of the file's memory map;
    None: it is another column."""
    import pyarrow
    import pyarrow.compute

    kind = stored.type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        stored = pyarrow.compute.struct_field(stored, "bytes")
    if not (pyarrow.types.is_binary(stored.type) or pyarrow.types.is_large_binary(stored.type)):
        return None
    return [cell.as_buffer() if cell.is_valid else None for cell in stored]


def is_encoded(cell: Any) -> bool:
    """Is a cell the bytes of something encoded, such as an image?"""
    import pyarrow

    return isinstance(cell, pyarrow.Buffer)


def _named(cell: Any, names: Sequence[str]) -> Any:
    if isinstance(cell, list):
        return [_named(one, names) for one in cell]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None
