"""A kind that computes nothing much: it waits, and gives the answer that is known beforehand.

Profiles
    ``plain``  the only one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.task import LABELLED, Bench, Live, Needs
from tests.chaos.cells import answer

METHOD = 1
NEEDS = Needs.MODEL
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("plain",)}
LAYERS: LayerChoice = "all"
METRICS = LABELLED
METRIC = "accuracy"
SEEDS = (0,)
READERS = ("senteval",)
PROFILES: Mapping[str, Mapping[str, Any]] = {"plain": {}}

#: What a cell asks for while it is computed. Touched, so that a process that may not have it is told so.
WORKING_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Options:
    profile: str = "plain"
    version: int = 1
    millis: float = 0.0
    poison: tuple[int, ...] = ()


def read(dataset: DatasetSpec, options: Options) -> Any:
    return SimpleNamespace(texts=(), pictures=(), fingerprint="sha256:nothing", source="nothing.txt")


def views(options: Options) -> tuple[str, ...]:
    return ("mean",)


def metrics(options: Options) -> tuple[str, ...]:
    return ("accuracy",)


def measure(
    given: Live, data: Any, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    for done, layer in enumerate(layers):
        room = bytearray(WORKING_BYTES)
        time.sleep(options.millis / 1000)
        if layer in options.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        value = answer(given.spec.name, layer, options.version)
        del room
        bench.progress("fit", done + 1, len(layers))
        yield Outcome(layer, {"accuracy": Estimate(value)}, artifacts=(Artifact("answer.txt", f"{value}".encode()),))
