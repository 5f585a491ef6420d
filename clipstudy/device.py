"""Which device a worker computes on, and a clear word where it does not exist."""

from __future__ import annotations

from clipstudy.errors import DeviceError


def find(asked: str) -> str:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as the device that torch takes.

    Raises:
        DeviceError: it does not exist here; says which ones do.
    """
    import torch

    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if asked == "auto":
        return here[-1] if here[-1] == "mps" else here[min(1, len(here) - 1)]
    wanted = "cuda:0" if asked == "cuda" else asked
    if wanted in here:
        return wanted
    why = "" if torch.cuda.is_available() or not wanted.startswith("cuda") else " (torch sees no CUDA device)"
    raise DeviceError(
        f'device "{asked}" does not exist here{why}. What exists: {", ".join(here)}. '
        "Type: clipstudy worker --device auto"
    )


def described(device: str) -> str:
    """The device as a person calls it: ``cuda:0 (NVIDIA H100)``, ``cpu (2 threads)``."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device == "cpu" else device


def out_of_memory(error: BaseException) -> bool:
    """Did the device or the machine run out of memory? Libraries say so in their own ways."""
    import torch

    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )
