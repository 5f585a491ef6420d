"""Extracted features on disk: one file for each (key, view, layer), read as memory maps.

Summaries of texts are kept in half precision: probes do not notice, unless a dimension varies by less than its values
are rounded to; then in single precision. Ends of spans are few and kept in single precision: k-means does notice, and
would end in another optimum for the same seed. Without a store they are rounded alike, so that a result does not depend
on whether there is one.

Rows are written one after another as they come: each to its place in a memory map would fault a page a row, and the
disk could not begin before all are there. Which row is whose, the extraction says.

A file is written under a temporary name, brought to the disk and renamed, so whoever finds it finds it whole. What is
found is verified all the same, since disks and copies lose pages: its size, and a check sum at its end over blocks
spread evenly through it, which costs the same however large the file is. What is not whole is dropped. No file is ever
unpickled. A text file beside those of a key says what they are, to a person who lists them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from clipstudy.errors import printable

log = logging.getLogger(__name__)

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
#: A writer that died leaves its temporary file; after a day nobody is still writing it.
ABANDONED_SECONDS = 86_400.0
#: How much of a file its check sum covers: blocks of so many bytes, and about so many of them.
BLOCK, BLOCKS = 4096, 64
#: The bytes that the check sum takes at the end of a file.
SUM = 4
#: A dimension is too coarse in half precision (11 bits) where it varies by less than this share of its size, so that
#: rounding would add more than 1/200 to its variance; one that varies by less than the second share is constant but for
#: the rounding of single precision (24 bits). Below the smallest normal number steps are even, of 2^-24.
COARSE, CONSTANT, SMALLEST = 2.0**-8, 2.0**-20, 2.0**-22
#: How many rows of each batch this is looked for in, and how many there must be to say how much a dimension varies.
LOOKED_AT, ENOUGH = 64, 8
#: Characters of what a key stands for.
LONGEST_LABEL = 200
#: What says that a folder cannot be made or written to, however often one tries: a full disk is another matter.
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
#: numpy parses a file's header as Python; Python 3.11 fails now and then where two threads parse at a time.
_PARSING = Lock()
_NAME = re.compile(r"(?P<key>[\w-]+)\.(?P<view>[\w-]+)\.(?P<layer>\d+)\.npy", re.ASCII)


class Sheet(Protocol):
    """Where rows of features are collected, from the first on."""

    def append(self, values: NDArray[np.float32]) -> None: ...

    def sync(self) -> None:
        """Bring to the disk what was appended so far, while another thread appends more."""
        ...

    def close(self) -> NDArray[Any]:
        """What was collected, read-only; rows that never came are zeros."""
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
    label: str = ""  #: what the key stands for: ``bert, 12,000 texts``; empty: nobody said


class Store:
    """The features kept under one folder, up to a number of bytes.

    Args:
        path: the folder; made when first written to. Where it cannot be, features are computed and not kept.
        budget_bytes: what :meth:`prune` leaves at most, least recently used files going first; None: no bound.
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path, budget_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.budget_bytes = budget_bytes
        self._clock = clock
        self._told = False  # that the folder cannot be written to

    def read(self, key: str, view: str, layer: int, shape: tuple[int, ...]) -> NDArray[Any] | None:
        """The memory map of one file, or None. What is not whole, or not of ``shape``, is removed; what cannot be read
        now is left: it may be whole."""
        path = self._file(key, view, layer)
        try:
            array = _mapped(path)
            whole = array.shape == shape and array.dtype in (HALF, SINGLE) and _whole(path, array)
        except (OSError, MemoryError):  # not there; no right to it, no memory, too many files open
            return None
        except (
            Exception
        ):  # cut short, or no .npy at all: a damaged header has numpy raise whatever Python's parser does
            whole = False
        if not whole:
            with contextlib.suppress(OSError):  # removed by another worker meanwhile, or a store that may only be read
                path.unlink()
            return None
        now = self._clock()
        with contextlib.suppress(OSError):  # pruned meanwhile, or a store that may only be read
            os.utime(path, (now, now))
        return array

    def sheet(self, key: str, view: str, layer: int, shape: tuple[int, ...]) -> Sheet:
        """A new file to be filled; it exists for others once closed. Rows in memory where no file can be made."""
        file, dtype = self._file(key, view, layer), dtype_of(view)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return FileSheet(file, shape, dtype)
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            if not self._told:
                self._told = True
                log.warning(
                    "%s cannot be written to (%s): features are held in memory and extracted again the next time. "
                    "Type: export CLIPSTUDY_CACHE=FOLDER",
                    self.path, error.strerror,
                )  # fmt: skip
            return MemorySheet(shape, dtype)

    def label(self, key: str, text: str) -> None:
        """Say what ``key`` stands for, for a person who lists what is kept."""
        with contextlib.suppress(OSError):  # its features are kept, whatever they are called
            self._label(key).write_text(text, encoding="utf-8")

    def entries(self) -> list[Entry]:
        """Every file of the store, least recently used first. What else lies in the folder is left alone."""
        found, labels = [], {path.stem: path for path in self._named("*.txt")}
        for path in self._named("*.npy"):
            try:
                about = path.stat()
            except OSError:  # another worker pruned it
                continue
            if (name := _NAME.fullmatch(path.name)) and stat.S_ISREG(about.st_mode):
                key = name["key"]
                label = _text(labels[key]) if key in labels else ""
                found.append(Entry(path, key, name["view"], int(name["layer"]), about.st_size, about.st_mtime, label))
        return sorted(found, key=lambda entry: (entry.used, entry.path))

    def prune(self, budget_bytes: int | None = None) -> list[Entry]:
        """Remove the least recently used files until the rest fit, and abandoned temporary files.

        Whoever has a file mapped keeps reading it. What may not be removed here is left. Returns what was removed.
        """
        for path in self._named("*.npy.*.tmp"):
            with contextlib.suppress(OSError):  # another worker removed it, or it is none of ours
                if self._clock() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()
        budget = self.budget_bytes if budget_bytes is None else budget_bytes
        removed = []
        if budget is not None:
            entries = self.entries()
            total = sum(entry.bytes for entry in entries)
            for entry in entries:
                if total <= budget:
                    break
                try:
                    entry.path.unlink(missing_ok=True)
                except OSError:
                    continue
                total -= entry.bytes
                removed.append(entry)
            left = set(entries) - set(removed)
            for key in {entry.key for entry in removed} - {entry.key for entry in left}:
                with contextlib.suppress(OSError):
                    self._label(key).unlink()
        return removed

    def _named(self, pattern: str) -> list[Path]:
        """What lies in the folder under such names; nothing where it may not be looked into."""
        try:
            return list(self.path.glob(pattern))
        except OSError:
            return []

    def _label(self, key: str) -> Path:
        return self.path / f"{key}.txt"

    def _file(self, key: str, view: str, layer: int) -> Path:
        name = f"{key}.{view}.{layer}.npy"
        if not _NAME.fullmatch(name):  # a view may come from a row that no study file was checked for
            raise ValueError(f"no features can be kept as {name!r}")
        return self.path / name


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return printable(file.readline(LONGEST_LABEL).strip())
    except OSError:  # another worker pruned it
        return ""


def _mapped(path: Path) -> NDArray[Any]:
    with _PARSING:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _whole(path: Path, array: NDArray[Any]) -> bool:
    end = getattr(array, "offset", 0) + array.nbytes
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != end + SUM:
            return False
        expected = _sum(file, end)
        file.seek(end)
        return file.read() == expected


def _sum(file: BinaryIO, end: int) -> bytes:
    """The check sum of the first ``end`` bytes: of all of them in a small file, of blocks spread evenly in a large
    one, the first and the last among them."""
    checksum = 0
    for start in sorted({*range(0, end, max(BLOCK, end // BLOCKS)), max(0, end - BLOCK)}):
        file.seek(start)
        checksum = zlib.crc32(file.read(min(BLOCK, end - start)), checksum)
    return checksum.to_bytes(SUM, "big")


def dtype_of(view: str) -> np.dtype[Any]:
    """What a view is kept in, while that does."""
    return SINGLE if view == "span" else HALF


class Precision:
    """What rows are kept in: half precision is given up when they come that it cannot hold."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._rows = 0
        self._origin: NDArray[np.float64] | None = None  #: the first row: sums of what is apart from it cancel nothing

    def of(self, values: NDArray[np.float32]) -> np.dtype[Any]:
        """The precision from these rows on ``[rows, …]``, the next ones in order."""
        if self._dtype == HALF and (
            np.abs(values).max(initial=0.0) > np.finfo(HALF).max or self._coarse(values[:LOOKED_AT])
        ):
            self._dtype = SINGLE
        return self._dtype if self._rows >= ENOUGH else SINGLE

    def _coarse(self, values: NDArray[np.float32]) -> bool:
        """Does a dimension of all rows looked at so far vary by less than half precision tells apart?"""
        rows = values.astype(np.float64)
        if self._origin is None:
            self._origin = rows[0]
            self._sum, self._squares = np.zeros_like(rows[0]), np.zeros_like(rows[0])
        apart = rows - self._origin
        self._rows += len(rows)
        self._sum += apart.sum(axis=0)
        self._squares += (apart**2).sum(axis=0)
        mean = self._sum / self._rows
        size = np.abs(self._origin + mean)
        spread = np.sqrt(np.maximum(self._squares / self._rows - mean**2, 0))
        coarse = (spread > CONSTANT * size) & (spread < np.maximum(COARSE * size, SMALLEST))
        return self._rows >= ENOUGH and bool(coarse.any())


class FileSheet:
    """Rows streamed to a file, in single precision until it is known that half of it holds them, and again when rows
    come that it does not hold."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._shape = path, shape
        self._lock = Lock()  # a file is not closed while it is brought to the disk
        self._precision = Precision(dtype)
        self._open(dtype)

    def append(self, values: NDArray[np.float32]) -> None:
        if (dtype := self._precision.of(values)) != self._dtype:
            self._convert(dtype)
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)

    def sync(self) -> None:
        with self._lock:
            os.fsync(self._file.fileno())

    def close(self) -> NDArray[Any]:
        end = self._start + math.prod(self._shape) * self._dtype.itemsize
        self._file.truncate(end)
        checksum = _sum(self._file, end)
        self._file.seek(end)
        self._file.write(checksum)
        self._file.flush()
        # Else the name may outlive a power loss and the content not.
        self.sync()
        self._file.close()
        kept = _mapped(self._draft)  # under its own name another worker may remove it at once
        self._draft.replace(self._path)
        return kept

    def discard(self) -> None:
        self._draft.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # of a full disk, which was told already
            self._file.close()

    def _convert(self, dtype: np.dtype[Any]) -> None:
        draft, file, start, before = self._draft, self._file, self._start, self._dtype
        with self._lock:
            self._open(dtype)
            try:
                file.seek(start)
                while block := file.read(2**20):
                    self._file.write(np.frombuffer(block, before).astype(dtype).data)
            finally:
                draft.unlink()
                file.close()

    def _open(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._draft = self._path.with_name(f"{self._path.name}.{uuid4().hex}.tmp")
        self._file = self._draft.open("w+b")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()


class MemorySheet:
    """Rows kept in memory, rounded as a file's are: for when there is no store."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._array = np.zeros(shape, dtype=np.float32)
        self._precision, self._dtype = Precision(dtype), dtype
        self._rows = 0

    def append(self, values: NDArray[np.float32]) -> None:
        dtype = self._precision.of(values)
        if dtype != self._dtype:
            self._array[: self._rows] = self._array[: self._rows].astype(dtype)
            self._dtype = dtype
        self._array[self._rows : self._rows + len(values)] = values.astype(dtype)
        self._rows += len(values)

    def sync(self) -> None:
        pass

    def close(self) -> NDArray[Any]:
        self._array.flags.writeable = False
        return self._array

    def discard(self) -> None:
        pass


def discard_all(sheets: Iterable[Sheet]) -> None:
    for sheet in sheets:
        sheet.discard()
