"""A lock on a file."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from clipstudy.lock import locked


def _hold(path: Path, ready: object) -> None:
    with locked(path):
        ready.set()  # type: ignore[attr-defined]
        multiprocessing.Event().wait()


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path), pytest.raises(TimeoutError, match=r"a\.lock"), locked(path, 0.1):
        pass
    with locked(path, 0):
        assert path.read_bytes() == b""


def test_a_process_that_is_killed_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=_hold, args=(path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(TimeoutError), locked(path, 0):
        pass
    holder.kill()
    holder.join()
    with locked(path, 10):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "a.lock"):
        pass
