"""Files that runs keep, as bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def parquet(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    """A table from its columns by name, or from its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns)) if isinstance(columns, Mapping) else pa.Table.from_pylist(list(columns))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def text(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table as comma-separated values."""
    held = io.StringIO()
    table = csv.writer(held, lineterminator="\n")
    table.writerow(list(header))
    table.writerows(list(row) for row in rows)
    return held.getvalue().encode()
