"""Work that does not fit in a GPU's memory: whether another time it may. On stand-ins of torch's numbers."""

from __future__ import annotations

import pytest
import torch

from clipstudy import device
from clipstudy.errors import DeviceError

GB = 2**30


def does_not_fit() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("free", "passing"), [((79, 1), True), ((79, 41), False), ((10, 41), False)], ids=["full", "ours", "another's card"]
)
def test_what_others_hold_may_be_free_later(
    monkeypatch: pytest.MonkeyPatch, free: tuple[int, int], passing: bool
) -> None:
    """This process has 38.5 of 80 GB of the second GPU, and none of the first."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda number: int(number * 38.5 * GB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free[number] * GB, 80 * GB))
    with pytest.raises(DeviceError, match="one text of 9 tokens does not fit") as caught:
        device.fitting(does_not_fit, "one text of 9 tokens does not fit.")
    assert caught.value.transient is passing
    assert ("Other processes hold 40.5 GB of it now" in caught.value.message) is passing


def test_without_a_gpu_nobody_else_holds_one() -> None:
    with pytest.raises(DeviceError) as caught:
        device.fitting(does_not_fit, "one text of 9 tokens does not fit.")
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA error: device-side assert triggered", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: out of memory", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_after_what_a_process_cannot_use_its_gpu_any_more(text: str, broken: bool) -> None:
    assert device.broken(RuntimeError(text)) is broken
