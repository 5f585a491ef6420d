"""Extracted features on disk: one file for each (key, view, layer), read as memory maps.

Summaries of texts are kept in half precision: probes do not notice. Ends of spans are few and kept in single
precision: k-means does notice, and would end in another optimum for the same seed.

A file is written under a temporary name and renamed, so whoever finds it finds it whole; what is found is verified
all the same, and dropped where a disk or a copy cut it short. No file is ever unpickled.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
#: A writer that died leaves its temporary file; after a day nobody is still writing it.
ABANDONED_SECONDS = 86_400.0


class Sheet(Protocol):
    """Where rows of features are collected."""

    def write(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None: ...

    def close(self) -> NDArray[Any]:
        """What was collected, read-only."""
        ...

    def discard(self) -> None: ...


@dataclass(frozen=True)
class Entry:
    """One file of the store."""

    path: Path
    key: str
    view: str
    layer: int
    bytes: int
    used: float  #: seconds since the epoch, last read or written


class Store:
    """The features kept under one folder, up to a number of bytes.

    Args:
        path: the folder; made when first written to.
        budget_bytes: what :meth:`prune` leaves at most, least recently used files going first; None: no bound.
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path, budget_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.budget_bytes = budget_bytes
        self._clock = clock

    def read(self, key: str, view: str, layer: int, shape: tuple[int, ...]) -> NDArray[Any] | None:
        """The memory map of one file, or None. A file that is not whole, or not of ``shape``, is removed."""
        path = self._file(key, view, layer)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):  # cut short, or no .npy at all
            path.unlink(missing_ok=True)
            return None
        header = getattr(array, "offset", 0)
        if array.shape != shape or array.dtype not in (HALF, SINGLE) or size != header + array.nbytes:
            path.unlink(missing_ok=True)
            return None
        now = self._clock()
        with contextlib.suppress(OSError):  # pruned meanwhile, or a store that may only be read
            os.utime(path, (now, now))
        return array

    def sheet(self, key: str, view: str, layer: int, shape: tuple[int, ...]) -> FileSheet:
        """A new file to be filled; it exists for others once closed."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileSheet(self._file(key, view, layer), shape, SINGLE if view == "span" else HALF)

    def entries(self) -> list[Entry]:
        """Every file of the store, least recently used first."""
        found = []
        for path in self.path.glob("*.npy"):
            key, view, layer = path.name.removesuffix(".npy").split(".")
            try:
                stat = path.stat()
            except FileNotFoundError:  # another worker pruned it
                continue
            found.append(Entry(path, key, view, int(layer), stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: (entry.used, entry.path))

    def prune(self, budget_bytes: int | None = None) -> list[Entry]:
        """Remove the least recently used files until the rest fit, and abandoned temporary files.

        Whoever has a file mapped keeps reading it. Returns what was removed.
        """
        for path in self.path.glob("*.tmp"):
            try:
                if self._clock() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
        budget = self.budget_bytes if budget_bytes is None else budget_bytes
        removed = []
        if budget is not None:
            entries = self.entries()
            total = sum(entry.bytes for entry in entries)
            for entry in entries:
                if total <= budget:
                    break
                entry.path.unlink(missing_ok=True)
                total -= entry.bytes
                removed.append(entry)
        return removed

    def _file(self, key: str, view: str, layer: int) -> Path:
        return self.path / f"{key}.{view}.{layer}.npy"


class FileSheet:
    """Rows streamed to a file. Half precision is widened when a value comes that it cannot hold."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path = path
        self._draft, self._array = self._new(shape, dtype)

    def write(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        if self._array.dtype == HALF and np.abs(values).max(initial=0.0) > np.finfo(HALF).max:
            self._widen()
        self._array[rows] = values

    def close(self) -> NDArray[Any]:
        self._array.flush()
        del self._array
        self._draft.replace(self._path)
        array: NDArray[Any] = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return array

    def discard(self) -> None:
        self._draft.unlink(missing_ok=True)

    def _widen(self) -> None:
        narrow, written = self._draft, self._array
        self._draft, self._array = self._new(written.shape, SINGLE)
        self._array[...] = written
        narrow.unlink()

    def _new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Path, np.memmap[Any, Any]]:
        draft = self._path.with_name(f"{self._path.name}.{uuid4().hex}.tmp")
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=dtype, shape=shape)
        return draft, array


class MemorySheet:
    """Rows kept in memory, in single precision: for when there is no store."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._array = np.zeros(shape, dtype=np.float32)

    def write(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        self._array[rows] = values

    def close(self) -> NDArray[Any]:
        self._array.flags.writeable = False
        return self._array

    def discard(self) -> None:
        pass


def discard_all(sheets: Iterable[Sheet]) -> None:
    for sheet in sheets:
        sheet.discard()
