"""A table's file, whatever its format: the names of its columns, and its cells as they stand."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import tempfile
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipstudy.data import decoded
from clipstudy.errors import DataError, said

#: What a table may be, by ending in small letters, and what it is read as.
ENDINGS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json"}

#: A cell that quotes enclose: those within are doubled.
ENCLOSED = re.compile(r'"(?:[^"]|"")*"')

#: A parquet file may unfold to so many times its bytes, and have so many rows a byte (what compresses like that is no
#: text or image); or to so little that it does no harm.
MOST_UNPACKED, MOST_ROWS, SMALL = 1000, 64, 1 << 24
#: Bytes of columns that are read into memory; more are unpacked to a file, of which it maps what is looked at.
IN_MEMORY = 1 << 26


def header(path: Path) -> list[str]:
    """The names of a file's columns; none where they are not in one place, or cannot be read: :func:`read` says why."""
    kind = ENDINGS[path.suffix.lower()]
    if kind == "parquet":
        import pyarrow.parquet

        with contextlib.suppress(OSError, pyarrow.ArrowException):
            return list(pyarrow.parquet.read_schema(path).names)
    if kind in ("csv", "tsv"):
        with contextlib.suppress(OSError, ValueError, csv.Error), path.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines, delimiter="," if kind == "csv" else "\t"), [])
    return []


class Cells(NamedTuple):
    """What was asked for of one file."""

    rows: int
    columns: Mapping[str, list[Any]]  #: those asked for that it has, each of ``rows`` cells; None: an empty cell
    there: Sequence[str]  #: the names of all its columns


def read(path: Path, columns: Collection[str]) -> Cells:
    """Cells of a file as they stand, but class numbers as their names (None: a number that names no class, a hidden
    label), and images as their bytes, views of the file's memory map where there are many.

    Raises:
        DataError: it is not of the format that its name says.
    """
    kind = ENDINGS[path.suffix.lower()]
    try:
        if kind == "parquet":
            return _parquet(path, columns)
        if kind == "json":
            return _json(path, columns)
        # Not by the library's own reader: pandas takes a line's extra cell for a row name and shifts the others.
        table = _csv(path) if kind == "csv" else _tsv(path)
        return Cells(table.num_rows, _lists(table, columns), table.column_names)
    except Exception as error:  # each format's library raises its own, under the library's
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if getattr(cause, "errno", None) is not None:
            raise  # the disk's fault, not the file's
        if kind != "parquet":
            decoded(path)  # raises where no text was to be found in it
        raise DataError(f"{path} cannot be read as {kind} ({said(cause)}). Fix or fetch the file.") from None


def _lists(table: Any, columns: Collection[str]) -> dict[str, list[Any]]:
    return {name: table.column(name).to_pylist() for name in columns if name in table.column_names}


def _parquet(path: Path, columns: Collection[str]) -> Cells:
    """Not by the library's own reader: it would refuse a file for the type of a column that nobody asked for, take
    brackets in a name for a pattern, and give the rows of a file that was there before, if it was as old."""
    import pyarrow.parquet

    about, size = _check_size(path)
    schema = about.schema.to_arrow_schema()
    wanted = [name for name in dict.fromkeys(columns) if name in schema.names]
    with pyarrow.parquet.ParquetFile(path) as file:
        # By all columns: to ask of one how large it is ends the process where the file is damaged (pyarrow 25).
        table = file.read(wanted) if size <= IN_MEMORY else _mapped(path, file, wanted)
    names = _class_names(schema, wanted)
    cells = {name: _cells(table.column(name), names.get(name)) for name in wanted}
    return Cells(table.num_rows, cells, schema.names)


def _mapped(path: Path, file: Any, columns: Sequence[str]) -> Any:
    """Columns of a parquet file as a memory-mapped Arrow table: unpacked once, beside what the ``datasets`` library
    keeps, under a name that its content gives."""
    import datasets
    import pyarrow

    home = Path(datasets.config.HF_DATASETS_CACHE) / "clipstudy"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    chosen = hashlib.sha256(json.dumps(columns).encode()).hexdigest()
    place = home / f"{digest[:32]}-{chosen[:8]}.arrow"
    if not place.exists():
        home.mkdir(parents=True, exist_ok=True)
        part = home / f"{place.name}.{uuid.uuid4().hex}.part"
        schema = pyarrow.schema([file.schema_arrow.field(name) for name in columns])
        try:
            with part.open("xb") as written, pyarrow.ipc.new_stream(written, schema) as unpacked:
                for batch in file.iter_batches(columns=columns):
                    unpacked.write_batch(batch)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(place))).read_all()


def _class_names(schema: Any, columns: Sequence[str]) -> dict[str, Sequence[str]]:
    """The names of classes that the ``datasets`` library wrote beside columns of their numbers."""
    import datasets

    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (told.get("info") or {}).get("features") or {}
    chosen = datasets.Features.from_dict({name: features[name] for name in columns if name in features})
    found = {}
    for field in chosen.arrow_schema:
        feature = chosen[field.name]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is not None and field.type == schema.field(field.name).type:  # else it is told of another column
            found[field.name] = names
    return found


def _json(path: Path, columns: Collection[str]) -> Cells:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises
    # Under a plain name, as brackets in it would be a pattern; and read anew each time, as the library knows a file
    # again by its age alone.
    with tempfile.TemporaryDirectory() as fresh:
        plain = Path(fresh) / "rows.json"
        plain.symlink_to(path.resolve())
        rows: Any = datasets.Dataset.from_json(str(plain), cache_dir=fresh, keep_in_memory=True)
    cells = {}
    for name in columns:
        if name in rows.column_names:
            # Of all that the library decodes, the JSON that it stores mixed cells as: the rest it would open, by the
            # path or address that a cell names.
            mixed = isinstance(rows.features[name], datasets.Json)
            cells[name] = list(rows[name]) if mixed else rows.data.column(name).to_pylist()
    return Cells(len(rows), cells, rows.column_names)


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


def _check_size(path: Path) -> tuple[Any, int]:
    """What a parquet file says of itself, and the bytes that it unfolds to. Raises ValueError where those are many
    times what any data does."""
    import pyarrow.parquet

    about = pyarrow.parquet.read_metadata(path)
    return about, check_unpacked(about, path.stat().st_size)


def check_unpacked(about: Any, size: int) -> int:
    """The bytes that a parquet file of ``size`` bytes unfolds to, as its metadata says. Raises ValueError where no data
    unfolds to so many."""
    unpacked = sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
    if unpacked > max(MOST_UNPACKED * size, SMALL) or about.num_rows > max(MOST_ROWS * size, SMALL):
        raise ValueError(f"{size} bytes that unfold to {unpacked} and {about.num_rows} rows: more than any data does")
    return int(unpacked)


def _cells(stored: Any, names: Sequence[str] | None) -> list[Any]:
    """A column's values, class numbers as their ``names``."""
    if (encoded := _encoded(stored)) is not None:
        return encoded
    values: list[Any] = stored.to_pylist()
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
