"""What is found: an Outcome leaves a task, a Result comes back from MLflow. Frozen values; nothing here runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: How an attempt ended.
End = Literal["finished", "failed"]

#: What an outcome's log is called among its artifacts.
LOG = "log.txt"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, where one was computed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file to be kept with the run: a name without folders above it, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Outcome:
    """What a task found at one layer.

    Metric names: the headline view and probe have no prefix (``accuracy``); every other arm has its own
    (``native/accuracy``, ``native/linear/accuracy``), which MLflow's UI shows as sections.
    """

    layer: int
    metrics: Mapping[str, Estimate]
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()

    def numbers(self) -> dict[str, float]:
        """Every number by its MLflow name: ``accuracy``, ``accuracy.low``, ``accuracy.high``."""
        return flat(self.metrics)


@dataclass(frozen=True)
class Result:
    """One FINISHED run read back from MLflow."""

    run_id: str
    study: str
    model: str
    task: str
    layer: int
    metrics: Mapping[str, Estimate]
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """What figures show as one model: all initialisations of an untrained twin, else the model alone."""
        return self.tags.get("family") or self.model


def flat(metrics: Mapping[str, Estimate]) -> dict[str, float]:
    """Every number by its MLflow name: ``accuracy``, and of its interval ``accuracy.low`` and ``accuracy.high``."""
    numbers: dict[str, float] = {}
    for name, estimate in metrics.items():
        numbers[name] = estimate.value
        if estimate.low is not None and estimate.high is not None:
            numbers[f"{name}.low"], numbers[f"{name}.high"] = estimate.low, estimate.high
    return numbers


def estimates(numbers: Mapping[str, float]) -> dict[str, Estimate]:
    """The reverse of :func:`flat`."""
    found = {}
    for name, value in numbers.items():
        if name.endswith((".low", ".high")) and name.rsplit(".", 1)[0] in numbers:
            continue
        found[name] = Estimate(value, numbers.get(f"{name}.low"), numbers.get(f"{name}.high"))
    return found


def metrics_to_json(metrics: Mapping[str, Estimate]) -> str:
    """JSON with every number checked: NaN and infinities are a bug of the task, not something to store."""
    bad = [name for name, value in flat(metrics).items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"not finite: {', '.join(bad)}")
    return json.dumps(flat(metrics), sort_keys=True, allow_nan=False)


def metrics_from_json(text: str) -> dict[str, Estimate]:
    """The reverse of :func:`metrics_to_json`."""
    return estimates(json.loads(text))
