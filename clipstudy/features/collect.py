"""Vectors by (view, layer): what the store holds is read, the rest is collected row by row.

What a batch gave is written by one thread and brought to the disk by others, so that whoever encodes waits for neither:
both let go of the interpreter for nearly all of their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy.errors import ModelError
from clipstudy.features.cache import MemorySheet, Sheet, Store, discard_all, dtype_of

#: Files that are brought to the disk at once: each waits for it, not for the processor.
CLOSERS = 8
#: Most bytes of a batch that wait to be written, unless one batch alone has more.
WAITING = 2**26
#: So many bytes are brought to the disk while more are written, so that the end waits for no more than these.
SYNCED = 2**23
#: A file or array of features: (view, layer).
Cell = tuple[str, int]


@dataclass(frozen=True)
class Arrival:
    """Rows of some cells, on their way from the device."""

    cells: Sequence[Cell]
    bytes: int
    landed: Callable[[], NDArray[np.float32]]  #: waits until they are there: ``[cells, rows, …]``


class Vectors:
    """Vectors of texts or images at the layers extracted; read from the store's memory maps one layer at a time."""

    def __init__(self, arrays: Mapping[Cell, NDArray[Any]], spoiled: Mapping[Cell, str], native: str) -> None:
        self._arrays = arrays
        self._spoiled = spoiled
        self._native = native

    def vectors(self, layer: int, view: str) -> NDArray[np.float32]:
        """The vectors of what was given, in its order: ``[N, width]``, float32.

        Raises:
            ModelError: the model gave values that are not finite at this layer.
            KeyError: the layer or view was not extracted.
        """
        return np.array(self._cell(self.called(view), layer), dtype=np.float32)

    def called(self, view: str) -> str:
        """``view`` itself, or what the model's own summary (``native``) is."""
        return self._native if view == "native" else view

    def _cell(self, view: str, layer: int) -> NDArray[Any]:
        if (view, layer) in self._spoiled:
            raise ModelError(self._spoiled[view, layer])
        return self._arrays[view, layer]


class Collection:
    """The cells of one extraction, each filled from its first row on. Used in a ``with``: what was not finished leaves
    no trace.

    Args:
        model: the model's name, for messages.
        of: what is given to it, in words: ``12,000 texts``.
        keys: view → the store's key.
        shapes: cell → shape of its array.
    """

    def __init__(
        self, model: str, of: str, store: Store | None, keys: Mapping[str, str], shapes: Mapping[Cell, tuple[int, ...]]
    ) -> None:
        self._model, self._of, self._store, self._keys = model, of, store, keys
        self.arrays: dict[Cell, NDArray[Any]] = {}
        self.spoiled: dict[Cell, str] = {}
        self._sheets: dict[Cell, Sheet] = {}
        self._writer = ThreadPoolExecutor(1, "features")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._disk = ThreadPoolExecutor(CLOSERS, "features-disk")
        self._syncing: Future[None] | None = None
        self._unsynced = 0  #: bytes written since that began
        try:
            for (view, layer), shape in shapes.items():
                held = store.read(keys[view], view, layer, shape) if store else None
                if held is not None:
                    self.arrays[view, layer] = held
                elif not shape[0]:  # nothing is to come: no reason to pass anything through the model
                    self.arrays[view, layer] = np.empty(shape, dtype_of(view))
                elif store:
                    self._sheets[view, layer] = store.sheet(keys[view], view, layer, shape)
                else:
                    self._sheets[view, layer] = MemorySheet(shape, dtype_of(view))
        except BaseException:
            discard_all(self._sheets.values())
            raise
        #: What is still to be computed.
        self.layers = sorted({layer for _, layer in self._sheets})
        self.views = sorted({view for view, _ in self._sheets})

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pool in (self._writer, self._disk):
            pool.shutdown(cancel_futures=True)
        discard_all(self._sheets.values())

    def expect(self, arrivals: Sequence[Arrival]) -> None:
        """Have ``arrivals`` of a batch appended by another thread, after those before. Waits while too many bytes wait.

        Raises: what went wrong with those before.
        """
        size = sum(arrival.bytes for arrival in arrivals)
        self._waiting.append((self._writer.submit(self._append_all, arrivals), size))
        while len(self._waiting) > 1 and (
            self._waiting[0][0].done() or sum(size for _, size in self._waiting) > WAITING
        ):
            self._waiting.popleft()[0].result()

    def _append_all(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            for cell, values in zip(arrival.cells, arrival.landed(), strict=True):
                self.append(cell, values)

    def append(self, cell: Cell, values: NDArray[np.float32]) -> None:
        """Append rows to ``cell``, if that is wanted. Values that are not finite spoil the cell."""
        sheet = self._sheets.get(cell)
        if sheet is None or cell in self.spoiled or not len(values):
            return
        if not np.isfinite(values).all():
            view, layer = cell
            self.spoiled[cell] = (
                f"[models.{self._model}] layer {layer} has values that are not finite (view {view}). Its "
                'weights are broken or overflow; try dtype = "float32", or fetch the checkpoint again.'
            )
            return
        sheet.append(values)
        self._unsynced += values.nbytes
        if self._unsynced > SYNCED and (not self._syncing or self._syncing.done()):
            self._unsynced, before = 0, self._syncing
            self._syncing = self._disk.submit(self._sync)
            if before:
                before.result()

    def _sync(self) -> None:
        for sheet in self._sheets.values():
            sheet.sync()

    def finish(self) -> None:
        """Write what waits, and close every sheet that was not spoiled; its array is then in ``arrays``."""
        while self._waiting:
            self._waiting.popleft()[0].result()
        if self._syncing:
            self._syncing.result()
        whole = [cell for cell in self._sheets if cell not in self.spoiled]
        closed = list(self._disk.map(lambda cell: self._sheets[cell].close(), whole))
        for cell, array in zip(whole, closed, strict=True):
            self.arrays[cell] = array
            del self._sheets[cell]
        if self._store:
            for key in {self._keys[view] for view, _ in whole}:
                self._store.label(key, f"{self._model}, {self._of}")
            self._store.prune()  # what was just mapped stays readable even where the budget is too small for it
