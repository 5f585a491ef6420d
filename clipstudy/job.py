"""One cell's life: what a job is, which moves are legal, and how a study becomes cells. Pure."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from clipstudy.errors import Unreadable, said
from clipstudy.spec import (
    WHOLE_MODEL,
    DatasetSpec,
    JobKey,
    ModelSpec,
    Study,
    TaskSpec,
    dataset_from,
    digest,
    model_from,
    plain,
    task_from,
)

#: The largest number, of a row or of a priority, that a column of Postgres holds.
LARGEST = 2**31 - 1


class Status(StrEnum):
    """Where a job is. ``MOVES`` says from where it may go where."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPUTED = "computed"  #: its outcome is in the outbox, not yet in MLflow
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  #: its settings were changed before it ran


class FailureKind(StrEnum):
    """Whose fault it was that an attempt ended badly."""

    CODE = "code"  #: the job itself raised: bad data, bad options, a bug
    INFRA = "infra"  #: what it needs was away: database, tracking server, hub, memory
    LOST = "lost"  #: its worker vanished; the lease ran out


#: From where a job may go where. What is not here is a bug in the queue.
MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.SUPERSEDED}),
    Status.RUNNING: frozenset({Status.COMPUTED, Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.COMPUTED: frozenset({Status.DONE}),
    Status.DONE: frozenset({Status.QUEUED}),  # rerun
    Status.FAILED: frozenset({Status.QUEUED, Status.SUPERSEDED}),  # retry
    Status.CANCELLED: frozenset({Status.QUEUED, Status.SUPERSEDED}),  # enqueued again, or retried
    Status.SUPERSEDED: frozenset({Status.QUEUED}),  # its settings came back
}

#: Statuses after which nothing happens by itself.
SETTLED = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED, Status.SUPERSEDED})


@dataclass(frozen=True)
class Group:
    """What the jobs of one (study, model, task) share: the resolved specification that workers read, whatever the
    study file says by then."""

    study: str
    model: ModelSpec
    dataset: DatasetSpec
    task: TaskSpec
    note: str = ""  #: the study's
    description: str = ""  #: the study's

    @property
    def digest(self) -> str:
        """A short hash of the tables that decide the result."""
        return digest(self.model, self.dataset, self.task)

    def to_json(self) -> str:
        """As the job table keeps it; :meth:`from_json` reads it back."""
        return json.dumps(
            {
                "study": self.study,
                "note": self.note,
                "description": self.description,
                "model": plain(self.model),
                "dataset": plain(self.dataset),
                "task": plain(self.task),
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Group:
        """The reverse of :meth:`to_json`, also of what an older version wrote.

        Raises:
            Unreadable: a newer version wrote it, or it is broken.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(
                study=values["study"],
                note=values.get("note", ""),
                description=values.get("description", ""),
                model=model_from(values["model"]),
                dataset=dataset_from(values["dataset"]),
                task=task_from(values["task"]),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable(
                f"The job table holds settings that this version cannot read ({type(error).__name__}: {said(error)}): "
                "a newer version wrote them, or they are broken. Update clipstudy, or type: clipstudy enqueue --all; "
                "then: clipstudy retry --all"
            ) from error


@dataclass(frozen=True)
class Job:
    """One row of the table, as it was when it was read. Times are UTC, on the database's clock."""

    id: int
    group_id: int
    study: str
    model: str
    task: str
    digest: str
    layer: int
    label: str  #: how the layer is called
    status: Status
    attempt: int  #: only ever grows: the fencing token
    tries: int  #: what counts against max_tries
    max_tries: int
    priority: int = 0
    run_after: datetime | None = None
    worker: str | None = None
    lease_until: datetime | None = None
    failure: FailureKind | None = None
    error: str | None = None
    run_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Batch:
    """Queued siblings claimed in one statement: one model load, one pass, one stacked fit."""

    group_id: int
    group: Group
    jobs: tuple[Job, ...]
    resolved: str | None = None  #: what the group's first batch resolved at run time (JSON)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer numbers, in the order of ``jobs``."""
        return tuple(job.layer for job in self.jobs)


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended without an outcome."""

    kind: FailureKind
    error: str  #: one line that a person reads
    log: str = ""  #: the attempt's log, traceback included
    #: False: trying again cannot help (a user must mend something first).
    retry: bool = True


@dataclass(frozen=True)
class Selection:
    """Which cells a verb is about. Names are shell patterns; empty means all."""

    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    study: str | None = None

    def takes(self, model: str, task: str) -> bool:
        """Whether a pattern takes the model, and one the task."""
        return _any(model, self.models) and _any(task, self.tasks)

    def takes_layer(self, layer: int) -> bool:
        """Whether the layer is among those asked for."""
        return not self.layers or layer in self.layers


def plan(study: Study, selection: Selection) -> list[tuple[Group, tuple[int, ...]]]:
    """The study's groups, each with the layers asked for, in the study's order.

    A model or task marked optional takes part only where a pattern of the selection names it; a model that lacks what
    a task looks at takes no part in it, as one of another modality.
    """
    groups = []
    for model in study.models.values():
        for task in study.tasks.values():
            if model.modality != task.modality or not selection.takes(model.name, task.name):
                continue
            if not _any(model.name, task.models) or model.name in study.unable.get(task.name, ()):
                continue
            if (model.optional and not selection.models) or (task.optional and not selection.tasks):
                continue
            layers = tuple(k for k in layers_of(model, task) if selection.takes_layer(k))
            if layers:
                dataset = study.datasets[task.dataset]
                groups.append((Group(study.name, model, dataset, task, study.note, study.description), layers))
    return groups


def keys(groups: Iterable[tuple[Group, Sequence[int]]]) -> list[JobKey]:
    """Every (model, task, layer) of a plan, in its order."""
    return [JobKey(group.model.name, group.task.name, k) for group, layers in groups for k in layers]


def layers_of(model: ModelSpec, task: TaskSpec) -> tuple[int, ...]:
    """The layer numbers of ``model`` that ``task`` wants, lowest first."""
    match task.layers:
        case "all":
            return tuple(range(model.layers + 1))
        case "blocks":
            return tuple(range(1, model.layers + 1))
        case "stages":  # of a residual network its four, of a transformer of twelve blocks 3, 6, 9 and 12
            return tuple(sorted({-(-model.layers * quarter // 4) for quarter in (1, 2, 3, 4)}))
        case "last":
            return (model.layers,)
        case "whole":
            return (WHOLE_MODEL,)


def layer_label(model: ModelSpec, layer: int) -> str:
    """How a person calls the layer: ``embedding``, ``block 7``, its module's own name, ``whole model``."""
    if layer == WHOLE_MODEL:
        return "whole model"
    if layer == 0:
        return "embedding" if model.modality == "text" else "stem"
    if model.modules:
        return model.modules[layer - 1]
    return f"block {layer}"


def _any(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
