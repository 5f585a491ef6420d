"""The store of features under several processes at a time: what is read is whole and the right one, whoever writes,
writes the same again, or prunes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipstudy.features.cache import Store
from tests.queue.processes import run_together

SHAPE = (64, 32)
KEYS, LAYERS, ROUNDS, PROCESSES = 3, 2, 60, 4
#: Room for half of what is written, so that every round misses something.
ROOM = KEYS * LAYERS * SHAPE[0] * SHAPE[1] * 2 // 2


def held(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What one file holds: in half precision exactly, and each row another."""
    return (np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32) % 101 + number).reshape(SHAPE)


def work(start: Callable[[], int], folder: str, seed: int) -> tuple[int, int, int]:
    """Read or else write each file in turn and now and then prune; how many were read, written and removed."""
    store, random = Store(Path(folder), ROOM), np.random.default_rng(seed)
    read = written = removed = 0
    start()
    for _ in range(ROUNDS):
        number = int(random.integers(KEYS * LAYERS))
        key, layer = f"key{number // LAYERS}", number % LAYERS
        if (found := store.read(key, "mean", layer, SHAPE)) is not None:
            read += 1
        else:
            sheet = store.sheet(key, "mean", layer, SHAPE)
            for rows in np.split(held(number), 8):
                sheet.append(rows)
            found = sheet.close()
            store.label(key, f"the {key}")
            written += 1
        removed += len(store.prune())
        assert np.array_equal(found, held(number)), f"{key}, layer {layer}"  # also where another removed the file
    return read, written, removed


def test_processes_share_a_store(tmp_path: Path) -> None:
    read, written, removed = np.sum(run_together(PROCESSES, work, str(tmp_path)), axis=0)
    assert read and removed and written > removed
    store = Store(tmp_path, ROOM)
    assert 0 < sum(entry.bytes for entry in store.entries()) <= ROOM and store.prune() == []
    for entry in store.entries():
        number = int(entry.key.removeprefix("key")) * LAYERS + entry.layer
        assert np.array_equal(store.read(entry.key, entry.view, entry.layer, SHAPE), held(number))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".npy", ".txt"}
