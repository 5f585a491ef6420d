"""What MLflow holds, looked at run by run, and put right there. For ``clipstudy doctor``: a study needs none of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast

from clipstudy.tracking import pretraining
from clipstudy.tracking.entry import PREFIX, milliseconds
from clipstudy.tracking.runs import Tracking

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
Level = Literal["job", "parent", "pretraining"]


@dataclass(frozen=True)
class Recorded:
    """One active run of ours."""

    id: str
    level: Level
    status: str  #: MLflow's: RUNNING, FINISHED, FAILED, KILLED, SCHEDULED
    group: str  #: study/model/task/digest, as `entry.group_key` writes it
    title: str
    made: datetime  #: on the recorder's clock
    job: int = -1  #: of a job's run: the row that it records
    attempt: int = 0
    layer: int = 0
    entry: str = ""  #: the same for two runs that record one and the same attempt
    parent: str | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether nobody has closed it yet."""
        return self.status in ("RUNNING", "SCHEDULED")


def runs(tracking: Tracking) -> list[Recorded]:
    """Every active run of a job or a group, and the pretrainings that are open.

    Raises:
        TrackingUnreachable: MLflow does not answer.
    """
    if tracking.empty():
        return []
    with tracking.reaching():
        found = [run for level in ("parent", "job") for run in tracking.search({"level": level})]
        beside = tracking.connect()[0].get_experiment_by_name(pretraining.EXPERIMENT)
        if beside is not None:
            running = ["attributes.status = 'RUNNING'"]
            found += tracking.search({"level": "pretraining"}, running, beside.experiment_id)
    return [one for run in found if (one := _recorded(run))]


def state(tracking: Tracking, run_id: str) -> tuple[str, bool] | None:
    """A run's status and whether it is active (not in MLflow's trash); None: there is no such run."""
    from mlflow.exceptions import MlflowException

    if tracking.empty():
        return None
    with tracking.reaching():
        try:
            info = tracking.connect()[0].get_run(run_id).info
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no run's id
                return None
            raise
        return info.status, info.lifecycle_stage == "active"


def close(tracking: Tracking, run: Recorded, status: str) -> None:
    """Give ``run`` this status; it ends when its attempt did, or when it was made."""
    with tracking.reaching():
        tracking.connect()[0].set_terminated(run.id, status, milliseconds(run.ended or run.made))


def delete(tracking: Tracking, run_id: str) -> None:
    """Into MLflow's trash, from where ``mlflow runs restore`` brings it back; one that is there already stays."""
    found = state(tracking, run_id)
    if found is not None and found[1]:
        with tracking.reaching():
            tracking.connect()[0].delete_run(run_id)


def restore(tracking: Tracking, run_id: str) -> None:
    """Out of MLflow's trash."""
    with tracking.reaching():
        tracking.connect()[0].restore_run(run_id)


def gather(tracking: Tracking, parent: str, children: Iterable[Recorded]) -> None:
    """Nest ``children`` under ``parent``, draw its curves from their results, and close it: FINISHED where one of them
    has a result, else FAILED. Doing it again changes nothing."""
    children = list(children)
    with tracking.reaching():
        client, _ = tracking.connect()
        for child in children:
            if child.parent != parent:
                client.set_tag(child.id, PARENT, parent)
    tracking.project(parent, tracking.results(parent_run_id=parent))
    with tracking.reaching():
        wanted = expected(children)
        info = client.get_run(parent).info
        if info.status != wanted:
            client.set_terminated(parent, wanted, info.end_time or info.start_time)


def expected(children: Iterable[Recorded]) -> str:
    """The status of a parent run of these children."""
    return "FINISHED" if any(child.status == "FINISHED" for child in children) else "FAILED"


def _recorded(run: Run) -> Recorded | None:
    """None: somebody tagged a run of another kind like ours."""
    try:
        return _read(run)
    except (ValueError, KeyError, OverflowError, OSError):
        return None


def _read(run: Run) -> Recorded:
    tags, info = run.data.tags, run.info
    made = int(tags.get(PREFIX + "claimed", 0)) / 1e9 or info.start_time / 1e3
    level = cast(Level, tags[PREFIX + "level"])
    common = {
        "id": info.run_id,
        "status": info.status,
        "group": tags.get(PREFIX + "group", ""),
        "title": info.run_name or info.run_id,
        "made": datetime.fromtimestamp(made, UTC),
    }
    if level != "job":
        return Recorded(level=level, **common)
    return Recorded(
        level=level,
        **common,
        job=int(tags.get(PREFIX + "job", -1)),
        attempt=int(tags.get(PREFIX + "attempt", 0)),
        layer=int(tags.get(PREFIX + "layer", 0)),
        entry=tags.get(PREFIX + "entry", ""),
        parent=tags.get(PARENT),
        started=_instant(tags.get(PREFIX + "started")),
        ended=_instant(tags.get(PREFIX + "ended")),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
