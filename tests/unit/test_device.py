"""What a process does before it computes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
