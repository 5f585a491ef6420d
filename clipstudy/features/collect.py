"""Vectors by (view, layer): what the store holds is read, the rest is collected row by row."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipstudy.errors import ModelError
from clipstudy.features.cache import MemorySheet, Sheet, Store, discard_all

#: Files that are brought to the disk at once: each waits for it, not for the processor.
CLOSERS = 8
#: A file or array of features: (view, layer).
Cell = tuple[str, int]


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
    """The cells of one extraction. Used in a ``with``: what was not finished leaves no trace.

    Args:
        model: the model's name, for messages.
        keys: view → the store's key.
        shapes: cell → shape of its array.
    """

    def __init__(
        self, model: str, store: Store | None, keys: Mapping[str, str], shapes: Mapping[Cell, tuple[int, ...]]
    ) -> None:
        self._model, self._store = model, store
        self.arrays: dict[Cell, NDArray[Any]] = {}
        self.spoiled: dict[Cell, str] = {}
        self._sheets: dict[Cell, Sheet] = {}
        try:
            for (view, layer), shape in shapes.items():
                held = store.read(keys[view], view, layer, shape) if store else None
                if held is not None:
                    self.arrays[view, layer] = held
                elif store and shape[0]:
                    self._sheets[view, layer] = store.sheet(keys[view], view, layer, shape)
                else:
                    self._sheets[view, layer] = MemorySheet(shape)
        except BaseException:
            discard_all(self._sheets.values())
            raise
        #: What is still to be computed.
        self.layers = sorted({layer for _, layer in self._sheets})
        self.views = sorted({view for view, _ in self._sheets})

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        discard_all(self._sheets.values())

    def write(self, cell: Cell, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Put ``values`` into ``rows`` of ``cell``, if that is wanted. Values that are not finite spoil the cell."""
        sheet = self._sheets.get(cell)
        if sheet is None or cell in self.spoiled or not len(rows):
            return
        if not np.isfinite(values).all():
            view, layer = cell
            self.spoiled[cell] = (
                f"[models.{self._model}] layer {layer} has values that are not finite (view {view}). Its "
                'weights are broken or overflow; try dtype = "float32", or fetch the checkpoint again.'
            )
            return
        sheet.write(rows, values)

    def finish(self) -> None:
        """Close every sheet that was not spoiled; its array is then in ``arrays``."""
        whole = [cell for cell in self._sheets if cell not in self.spoiled]
        with ThreadPoolExecutor(CLOSERS) as pool:
            closed = list(pool.map(lambda cell: self._sheets[cell].close(), whole))
        for cell, array in zip(whole, closed, strict=True):
            self.arrays[cell] = array
            del self._sheets[cell]
        if self._store:
            self._store.prune()  # what was just mapped stays readable even where the budget is too small for it
