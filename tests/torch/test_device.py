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
    assert ("Other processes hold 40.5 GiB of it: later it may" in caught.value.message) is passing


def test_without_a_gpu_nobody_else_holds_one() -> None:
    with pytest.raises(DeviceError) as caught:
        device.fitting(does_not_fit, "one text of 9 tokens does not fit.")
    assert not caught.value.transient


ILLEGAL = "CUDA error: an illegal memory access was encountered"
FULL = "CUDA error: out of memory"


@pytest.mark.parametrize(
    ("said", "then", "broken"),
    [
        (ILLEGAL, ILLEGAL, True),
        ("CUDA error: device-side assert triggered", "CUDA error: device-side assert triggered", True),
        (ILLEGAL, FULL, False),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul", None, False),
        ("mat1 and mat2 shapes cannot be multiplied", ILLEGAL, False),
    ],
)
def test_after_what_a_process_cannot_use_its_gpu_any_more(
    monkeypatch: pytest.MonkeyPatch, said: str, then: str | None, broken: bool
) -> None:
    """Only where it answers nothing else any more."""
    monkeypatch.setattr(device, "_used", lambda: [1])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *_, **named: Answers(then))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda number: None)
    assert device.broken(RuntimeError(said)) is broken


class Answers:
    def __init__(self, error: str | None) -> None:
        self.error = error

    def cpu(self) -> None:
        if self.error is not None:
            raise RuntimeError(self.error)


def test_no_words_break_a_gpu_that_nobody_uses() -> None:
    assert not device.broken(ValueError(f"row 7: label {ILLEGAL!r}"))


@pytest.mark.parametrize(
    ("text", "full"),
    [
        (FULL, True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        (ILLEGAL, False),
    ],
)
def test_how_libraries_say_that_memory_ran_out(text: str, full: bool) -> None:
    assert device.out_of_memory(RuntimeError(text)) is full
