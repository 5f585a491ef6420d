"""Results in a file between one dashboard and the next. What is wrong with a file makes it count as none."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clipstudy.outcome import Result, estimates, flat

VERSION = 1


def load(folder: Path, store: str) -> list[Result] | None:
    """What was kept of ``store``, as it was given; None: nothing that can be read."""
    try:
        with gzip.open(_file(folder, store), "rt", encoding="utf-8") as file:
            held = json.load(file)
        return [_result(row) for row in held["results"]] if held["version"] == VERSION else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(folder: Path, store: str, results: Iterable[Result]) -> None:
    """Keeps ``results``, for this user alone. Where that cannot be, the next dashboard reads MLflow."""
    rows = [vars(result) | {"metrics": flat(result.metrics)} for result in results]
    part = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, part = tempfile.mkstemp(".tmp", dir=folder)  # no other user may read it
        with os.fdopen(number, "wb") as raw, gzip.open(raw, "wt", compresslevel=1, encoding="utf-8") as file:
            json.dump({"version": VERSION, "results": rows}, file)
        Path(part).replace(_file(folder, store))
    except OSError:
        if part is not None:
            Path(part).unlink(missing_ok=True)


def _file(folder: Path, store: str) -> Path:
    return folder / f"{hashlib.sha256(store.encode()).hexdigest()[:20]}.json.gz"


def _result(row: dict[str, Any]) -> Result:
    return Result(**row | {"metrics": estimates(row["metrics"])})
