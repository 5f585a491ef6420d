"""A table's file, whatever its format: the names of its columns, and its cells as they stand."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipstudy.data import decoded
from clipstudy.errors import DataError, said

#: What a table may be, by ending in small letters, and what it is read as.
ENDINGS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json"}

#: A cell that quotes enclose: those within are doubled.
ENCLOSED = re.compile(r'"(?:[^"]|"")*"')

#: A parquet file may unfold to so many times its bytes, and have so many rows a byte (what compresses like that is no
#: text or image); or to so little that it does no harm.
MOST_UNPACKED, MOST_ROWS, SMALL = 1000, 64, 1 << 24


def header(path: Path) -> list[str]:
    """The names of a file's columns; none where they are not in one place, or cannot be read: :func:`rows` says why."""
    kind = ENDINGS[path.suffix.lower()]
    if kind == "parquet":
        import pyarrow.parquet

        with contextlib.suppress(OSError, pyarrow.ArrowException):
            return list(pyarrow.parquet.read_schema(path).names)
    if kind in ("csv", "tsv"):
        with contextlib.suppress(OSError, ValueError, csv.Error), path.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines, delimiter="," if kind == "csv" else "\t"), [])
    return []


def rows(path: Path) -> Any:
    """A file as a ``datasets.Dataset``.

    Raises:
        DataError: it is not of the format that its name says.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises
    kind = ENDINGS[path.suffix.lower()]
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


def cells(rows: Any, column: str) -> list[Any]:
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
