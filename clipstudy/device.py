"""Which device a worker computes on, which GPUs there are, and a clear word where one does not exist."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from clipstudy.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

#: Bytes of a block that is given back to the system as soon as it is freed: more than the states of any one layer,
#: less than a table of features.
LARGEST_KEPT = 128 * 2**20
#: The same for glibc's older versions, which refuse to keep larger ones.
LARGEST_KEPT_BEFORE = 32 * 2**20
#: Bytes of freed blocks that are kept at most.
MOST_KEPT = 512 * 2**20
#: Bytes of a GPU beyond what this process reserved that are not its own context's.
_NOTICED = 2**30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch numbers it in this process. Memory in bytes."""

    index: int
    name: str
    free: int
    total: int

    @property
    def visible_as(self) -> str:
        """What CUDA_VISIBLE_DEVICES says for a process that shall see this one alone."""
        return visible().get(self.index, str(self.index))


def visible() -> dict[int, str]:
    """torch's numbers → what CUDA_VISIBLE_DEVICES calls them (a number, a UUID); empty where it is not set."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return dict(enumerate(name.strip() for name in listed.split(",") if name.strip()))


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch sees, with the memory that is free now.

    Asked in a process of its own: whoever asks torch for a GPU's memory takes some hundred megabytes of it.

    Raises:
        DeviceError: torch cannot be asked, or does not answer.
    """
    asked = [sys.executable, "-m", "clipstudy.device"]
    try:
        done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            "torch has not said for two minutes which GPUs there are, so their driver may hang. Type: nvidia-smi"
        ) from None
    if done.returncode:
        raise DeviceError("torch cannot be asked for its GPUs; what it said is above. Type: clipstudy doctor")
    return tuple(Gpu(**one) for one in json.loads(done.stdout))


def _ask() -> tuple[Gpu, ...]:
    import torch

    return tuple(
        Gpu(i, torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)) for i in range(torch.cuda.device_count())
    )


def find(asked: str) -> str:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as the device that torch takes.

    Raises:
        DeviceError: it does not exist here; says which ones do.
    """
    import torch

    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    here = ["cpu", *cuda, *mps]
    if asked == "auto":
        return next(iter([*mps, *cuda]), "cpu")
    wanted = "cuda:0" if asked == "cuda" else asked
    if wanted in here:
        return wanted
    why = "" if torch.cuda.is_available() or not wanted.startswith("cuda") else " (torch sees no CUDA device)"
    raise DeviceError(
        f'device "{asked}" does not exist here{why}. What exists: {", ".join(here)}. '
        "Try --device auto, which takes what there is."
    )


def prepare(threads: int | None = None) -> None:
    """What a process does once, before it computes.

    Args:
        threads: so many at a time for one operation; None: as many as torch finds good.
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    _keep_freed_memory()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What torch draws within is drawn by ``seed``: on the CPU and in a fork of its generator, so that it is the same
    on every device, and nobody else's draws are disturbed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is needed next, where it is glibc.

    By itself it gives large blocks back at once. A pass needs as much again a moment later, and the kernel would clear
    every page of it anew; residual networks, whose maps are large, lose most by it.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        # Where the first cannot be set the second must not: it alone would fix the first at its least, 128 kB.
        if mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) or mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BEFORE):
            mallopt(_M_TRIM_THRESHOLD, MOST_KEPT)


def described(device: str) -> str:
    """The device as a person calls it: ``cuda:0 (NVIDIA H100)``, ``cpu (2 threads)``."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device == "cpu" else device


def registered(device: str) -> str:
    """The device as the list of workers shows it: of several processes that each see one GPU, every one is cuda:0."""
    kind, _, number = device.partition(":")
    outside = visible().get(int(number)) if kind == "cuda" and number.isdecimal() else None
    return device if outside in (None, number) else f"{device} (GPU {outside})"


def out_of_memory(error: BaseException) -> bool:
    """Did the device or the machine run out of memory? Libraries say so in their own ways."""
    import torch

    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
        or "status_alloc_failed" in text  # cuBLAS
    )


def broken(error: BaseException) -> bool:
    """Can this process not use its GPU any more? After an illegal access, a failed assertion in a kernel or a hardware
    error CUDA answers every call with that error until the process ends."""
    import torch

    known = isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()
    if not known or not torch.cuda.is_initialized():
        return False
    try:  # many of its errors are of one call alone
        for number in _used():
            torch.cuda.synchronize(number)
            torch.ones(1, device=f"cuda:{number}").cpu()
    except RuntimeError as still:
        return not out_of_memory(still)
    return False


def fitting(work: Callable[[], T], hopeless: str | None) -> T | None:
    """What ``work`` gives, or None where it does not fit in the device's memory, which holds none of it by then.

    Args:
        hopeless: what to tell whoever asked for it, where no smaller portion can be tried; None: one can.

    Raises:
        DeviceError: it does not fit, and that is hopeless; or may pass, where other processes hold some of a GPU.
    """
    import torch

    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if hopeless is not None:
            raise _hopeless(hopeless) from error
    # Outside the handler, whose traceback would keep the work's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _hopeless(told: str) -> DeviceError:
    others = held_by_others()
    if others < _NOTICED:
        return DeviceError(told)
    passing = DeviceError(f"{told} Other processes hold {others / 2**30:.1f} GiB of it: later it may.")
    passing.transient = True
    return passing


def held_by_others() -> int:
    """Bytes that other processes hold of the GPU that this one uses; 0: it uses none."""
    import torch

    found = 0
    with suppress(RuntimeError):  # then it is not known
        for number in _used():
            free, total = torch.cuda.mem_get_info(number)
            found = max(found, total - free - torch.cuda.memory_reserved(number))
    return found


def _used() -> list[int]:
    """torch's numbers of the GPUs on which this process holds memory. To ask about another would take some there."""
    import torch

    there = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return [number for number in there if torch.cuda.memory_reserved(number)]


def sent(values: Tensor, device: str) -> Tensor:
    """``values`` on ``device``; a GPU is not waited for: it reads by itself from memory that stays in its place."""
    if not device.startswith("cuda"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def landing(values: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Begin to copy ``values`` off their device; what is returned waits for that copy alone, and gives them.

    A GPU goes on with what is asked of it next meanwhile: the copy goes into memory that it can write to by itself.
    """
    import torch

    if values.device.type != "cuda":
        landed = values.cpu()
        return landed.numpy
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> NDArray[np.float32]:
        done.synchronize()
        found: NDArray[np.float32] = host.numpy()
        return found

    return wait


class Stopwatch:
    """Seconds that what runs within :meth:`running` takes: on a GPU by its own clock, since a call there returns before
    the work is done."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block's time is added to ``seconds``."""
        import torch

        began, events = time.perf_counter(), None
        if torch.cuda.is_available():
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began
            if events:
                events[1].record()
                self._events.append(events)

    @property
    def seconds(self) -> float:
        """So far; waits for the GPU. Of both clocks the one that ran longer: the other saw the call alone."""
        for _, end in self._events:
            end.synchronize()
        return max(self._seconds, sum(start.elapsed_time(end) for start, end in self._events) / 1000)


if __name__ == "__main__":
    print(json.dumps([asdict(gpu) for gpu in _ask()]))
