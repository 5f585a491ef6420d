"""A row of the table: a ratio, how often it was measured, its bound; and the means to measure one.

Sides are measured in turns, forwards and backwards by turns, so that a busy moment of the machine hits all alike, and a
ratio is taken within a turn. The clock is the wall's; on a busy machine processor time is the fairer one for what runs
on one thread.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any


def _processor() -> float:
    """Seconds of this process and of those that it started and waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": _processor}
_clock = "wall"


def use(clock: str) -> None:
    """Measure by this one of :data:`CLOCKS` from now on."""
    global _clock
    _clock = clock


def clock() -> str:
    """The one of :data:`CLOCKS` in use."""
    return _clock


def now() -> float:
    """Seconds of the clock in use."""
    return CLOCKS[_clock]()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    found: Sequence[float]  #: one a repeat
    unit: str = "×"
    least: float | None = None  #: bounds of the median
    most: float | None = None
    said: str = ""  #: what a reader must know to understand the figure
    other: Row | None = None  #: meeting its bound will do, too

    @property
    def value(self) -> float:
        return statistics.median(self.found)

    @property
    def met(self) -> bool | None:
        """None: there is no bound."""
        if self.least is None and self.most is None:
            return None
        own = (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)
        return own or (self.other is not None and self.other.met is True)

    @property
    def bound(self) -> str:
        """In words; empty: there is none."""
        if self.least is None and self.most is None:
            return ""
        own = f"≤ {self.most:g}" if self.least is None else f"≥ {self.least:g}"
        return own if self.other is None else f"{own}, or {self.other.what} {self.other.bound}"

    def cells(self) -> list[str]:
        spread = f"{short(min(self.found))}–{short(max(self.found))}" if len(self.found) > 1 else ""
        met = {None: "", True: "met", False: "**not met**"}[self.met]
        return [
            self.what,
            f"{short(self.value)} {self.unit}".strip(),
            spread,
            str(len(self.found)),
            self.bound,
            met,
            self.said,
        ]


HEADER = ["what", "median", "min–max", "repeats", "bound", "", "how"]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def short(value: float) -> str:
    """Three figures: 0.0123, 1.23, 12.3, 123, 12,300."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{2 if abs(value) < 10 else 1}f}"


def in_turns(repeats: int, **sides: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each side, one a repeat. Each is called once before, so that nobody pays for warming up."""
    for call in sides.values():
        call()
    return measured(repeats, **sides)


def measured(repeats: int, **sides: Callable[[], Any]) -> dict[str, list[float]]:
    """The same without the first call: where that would take too long, or what is measured is the first call."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name, call in list(sides.items())[:: 1 if turn % 2 == 0 else -1]:
            began = now()
            call()
            found[name].append(now() - began)
    return found


def ratios(over: Sequence[float], under: Sequence[float], factor: float = 1.0) -> list[float]:
    """``factor · over / under``, turn by turn."""
    return [factor * a / b for a, b in zip(over, under, strict=True)]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """k of the fit seconds ~ size^k (least squares on logarithms): 1 is linear growth."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


class Stopwatch:
    """A model that counts the time of its passes: ``states`` of whatever is wrapped."""

    def __init__(self, backbone: Any) -> None:
        self._backbone, self.seconds = backbone, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def states(self, *given: Any, **named: Any) -> Any:
        began = now()
        found = self._backbone.states(*given, **named)
        self.seconds += now() - began
        return found


#: Of the matrices of that product: at half of it kernels do not yet run at their full rate.
SIDE = 2048


def gemm_rate(products: int = 2) -> float:
    """Multiplications and additions a second of one large matrix product by the fastest kernel that torch has for it:
    what the machine can do at all."""
    return _rate(_fastest_product(), products)


@cache
def _fastest_product() -> Callable[[], Any]:
    """Which of the libraries that torch brings is fastest differs between processors."""
    import torch

    one, other, out = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    products: list[Callable[[], Any]] = [partial(torch.mm, one, other, out=out)]
    if torch.backends.mkldnn.is_available():
        ordered = torch.ops.mkldnn._reorder_linear_weight(other, None)
        products.append(partial(torch.ops.mkldnn._linear_pointwise, one, ordered, None, "none", [], ""))
    found: dict[Callable[[], Any], list[float]] = {product: [] for product in products}
    for _ in range(5):
        for product, rates in found.items():
            rates.append(_rate(product, 2))
    return max(products, key=lambda product: statistics.median(found[product]))


def _rate(product: Callable[[], Any], products: int) -> float:
    product()
    began = now()
    for _ in range(products):
        product()
    return 2 * SIDE**3 * products / (now() - began)


def flops(call: Callable[[], Any]) -> int:
    """Multiplications and additions in the products and convolutions of ``call``, as torch counts them: those of one
    thread, so that ``call`` is given no more."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

    from clipstudy.backbones.kernels import packs

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return conv_flop_count(x, weight, out_shape)

    def product(x: Any, _weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return 2 * math.prod(out_shape) * int(x[-1])

    left_out = {  # by torch, and given shapes by it
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.mkldnn._convolution_pointwise: convolution,
        torch.ops.mkldnn._linear_pointwise: product,
    }
    if packs():
        left_out[torch.ops.mkl._mkl_linear] = product
    with threads(1), FlopCounterMode(display=False, custom_mapping=left_out) as counter:
        call()
    return int(counter.get_total_flops())


def real_rows() -> Path:
    """The folder of real rows."""
    found = Path(os.environ.get("CLIPSTUDY_REAL_DATA", ""))
    if not (found / "conll2000").is_dir():
        sys.exit(
            "CLIPSTUDY_REAL_DATA does not name the folder of real rows (docs/real-rows.md says what is in it). Type: "
            "make bench CLIPSTUDY_REAL_DATA=FOLDER"
        )
    return found


@contextmanager
def threads(number: int) -> Iterator[None]:
    """torch's threads within."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def least(call: Callable[[], Any], repeats: int) -> float:
    """The least seconds of a few calls: for growth, where a busy moment would bend the line."""
    return min(measured(repeats, call=call)["call"])


def told(file: str, key: str) -> str:
    """What one of the system's files of ``key: value`` lines says of ``key``; ``unknown``: nothing."""
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    return next((text.split(":")[1].strip() for text in lines if text.startswith(key)), "unknown")


def machine() -> Mapping[str, str]:
    """What the figures were measured on."""
    import numpy
    import sklearn
    import torch
    import transformers

    memory = told("/proc/meminfo", "MemTotal").split()[0]
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return {
        "processor": f"{told('/proc/cpuinfo', 'model name')}, {cores}",
        "memory": f"{int(memory) * 1024 / 1e9:.0f} GB" if memory.isdigit() else memory,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(
            f"{m.__name__} {m.__version__.split('+')[0]}" for m in (torch, transformers, sklearn, numpy)
        ),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
