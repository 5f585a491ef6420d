"""Several batches at a time on processor cores, each on a core of its own.

Cores that share a batch wait for one another after every operation, and what is between the matrix products (norms,
attention, the library's own Python) leaves most of them idle. A core with a batch of its own waits for none. Weights
are shared; whoever reads them has modules of their own, since hooks and libraries write to those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Reader = TypeVar("Reader")
Batch = TypeVar("Batch")
Result = TypeVar("Result")

#: Readers at most: each needs the interpreter between two operations, and only one of them has it at a time.
MOST = 8


def number() -> int:
    """How many readers torch's threads are enough for."""
    return min(torch.get_num_threads(), MOST)


def threads(readers: int) -> int:
    """Threads of each of so many readers."""
    return max(1, torch.get_num_threads() // readers)


def in_order(
    work: Callable[[Reader, Batch], Result], readers: Sequence[Reader], batches: Iterable[Batch]
) -> Generator[Result]:
    """What ``work`` gives of each batch, in the order of the batches; each reader does one at a time, in a thread of
    its own with its share of torch's threads. A reader alone works in the thread that asks.

    Batches are taken a few ahead, so that what makes them runs while the readers are at work. Whoever does not want all
    that is given closes the generator.
    """
    if len(readers) == 1:
        for batch in batches:
            yield work(readers[0], batch)
        return
    free: SimpleQueue[Reader] = SimpleQueue()
    for reader in readers:
        free.put(reader)

    def by_one(batch: Batch) -> Result:
        reader = free.get()
        try:
            return work(reader, batch)
        finally:
            free.put(reader)

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(len(readers), "encoder", _share, (threads(len(readers)),))
    try:
        for batch in batches:
            waiting.append(pool.submit(by_one, batch))
            if len(waiting) > 2 * len(readers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _share(threads: int) -> None:
    """Have this thread's operations run on so many. ``torch.set_num_threads`` would set it for later threads, too."""
    torch.get_num_threads()  # the first thing asked of torch in a thread sets the limit of all
    threadpool_limits(threads, "openmp")
