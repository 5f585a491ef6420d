"""What a process does before it computes."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from clipstudy import device
from clipstudy.errors import DeviceError

#: Makes and frees 16 MB, over and over, and prints how often the kernel had to give it a page.
FREEING = """
import resource, sys
import numpy as np
from clipstudy import device

if sys.argv[1] == "prepared":
    device.prepare()
for turn in range(21):
    one, other = np.ones(2**21), np.ones(2**21)
    del one, other
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FREEING, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep what is freed")
def test_memory_that_is_freed_is_kept_for_what_comes_next() -> None:
    assert faults("prepared") < 1000
    assert faults("not prepared") > 20_000


@pytest.mark.parametrize(
    ("most", "kept"),
    [(2**40, device.LARGEST_KEPT), (device.LARGEST_KEPT_BEFORE, device.LARGEST_KEPT_BEFORE), (0, None)],
)
def test_a_library_that_refuses_to_keep_large_blocks_is_asked_for_less_or_left_alone(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: int | None
) -> None:
    """Older glibc takes no more than 32 MB, and is worse off with half of the settings than with none."""
    taken: dict[int, int] = {}

    def mallopt(what: int, value: int) -> int:
        if what == device._M_MMAP_THRESHOLD and value > most:
            return 0
        taken[what] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    device.prepare()
    wanted = {device._M_MMAP_THRESHOLD: kept, device._M_TRIM_THRESHOLD: device.MOST_KEPT} if kept else {}
    assert taken == wanted


def test_a_driver_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **how: object) -> None:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DeviceError, match=r"for two minutes .* Type: nvidia-smi$"):
        device.gpus()
