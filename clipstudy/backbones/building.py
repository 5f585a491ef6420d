"""A model while it is built from its description: by its seed, and only as far as memory goes.

A description may ask for any size, by mistake or by malice. The kernel would end the process, which could then not say
why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from clipstudy.device import seeded
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec

#: Bytes that may be asked for between two looks at what is free.
UNSEEN = 64 * 2**20


@contextmanager
def building(spec: ModelSpec) -> Iterator[None]:
    """What is drawn within is drawn by the table's ``init_seed``.

    Raises:
        ModelError: more is asked for within than this machine has memory free. A limit of a container's is not seen.
    """
    with seeded(spec.init_seed), _WithinMemory(spec):
        yield


def free() -> int:
    """Bytes of memory that nobody holds, or that the system gives up when asked."""
    return int(psutil.virtual_memory().available)


class _WithinMemory(TorchDispatchMode):
    """Looks at what is free before new tensors are made. They are filled as soon as they are made, so what was made
    before is no longer free."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self._spec, self._unseen = spec, 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device", torch.device("cpu")) != torch.device("meta") and _makes(func):
            like = tree_map_only(torch.Tensor, lambda one: one.to("meta"), args)
            self._look(func(*like, **{**kwargs, "device": "meta", "pin_memory": False}).nbytes)
        return func(*args, **kwargs)

    def _look(self, more: int) -> None:
        self._unseen += more
        if self._unseen <= UNSEEN:
            return
        wanted, self._unseen = self._unseen, 0
        if wanted > (there := free()):
            large = ModelError(
                f'[models.{self._spec.name}] checkpoint = "{self._spec.checkpoint}" is too large for this machine: a '
                f"part of it takes {wanted / 2**30:.1f} GiB of memory, and {there / 2**30:.1f} GiB are free. "
                "Choose a smaller model, or a machine with more memory."
            )
            # What others hold now they may give back: it is tried again.
            large.transient = wanted <= psutil.virtual_memory().total
            raise large


def _makes(func: Any) -> bool:
    """Does this operator make a tensor of a size that it is told?"""
    return any(one.name == "pin_memory" for one in func._schema.arguments)
