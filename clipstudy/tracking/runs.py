"""Runs in MLflow: one a job, one parent a group; written so that every step can be repeated."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from clipstudy.errors import TrackingUnreachable
from clipstudy.job import Group, Job
from clipstudy.outcome import Estimate, Result, estimates, flat
from clipstudy.redaction import redact
from clipstudy.tracking import entry as entries
from clipstudy.tracking import inputs, store
from clipstudy.tracking.entry import LONGEST_PARAM, PREFIX, Entry, clip, milliseconds, safe_key
from clipstudy.tracking.files import Files

if TYPE_CHECKING:
    from mlflow.entities import Run

#: Runs of one answer: a server at work beside others takes seconds for them, and a request is given fifteen.
PAGE = 250
#: Milliseconds by which the clocks of a job table and of what it records may seem to differ.
SLACK_MS = 2000
#: Tags of ours that are whole numbers; and what such a number is: anybody who may write to MLflow may write another.
NUMBERS = ("layer", "attempt", "blocks")
WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
#: A layer's depth, a share of the model's, as our tag has it; a whole model's is none.
DEPTH = re.compile(r"(\d(\.\d{1,9})?)?", re.ASCII)
#: MLflow's limits of one log_batch.
MOST_METRICS, MOST_PARAMS = 1000, 100


class Tracking(Files):
    """One MLflow store or server. Cheap to make: nothing is imported or contacted before the first call.

    Every method raises TrackingUnreachable where MLflow does not answer.
    """

    def prepare(self) -> None:
        """Makes the store and the experiment where they are not there yet; safe in several processes at once.

        Raises:
            TrackingUnreachable: the store may be read, but not written to.
        """
        file = store.sqlite_file(self.uri)
        if file is not None and store.sealed(file):
            raise TrackingUnreachable(
                f"The MLflow store {file} may not be written to (the file, or its folder). Check CLIPSTUDY_TRACKING."
            )
        self.connect()

    def answers(self) -> bool:
        """Whether MLflow answers the smallest of questions: where it does, what it refused is a single run's matter."""
        try:
            with self.reaching():
                client, experiment = self.connect()
                client.get_experiment(experiment)
        except TrackingUnreachable:
            return False
        return True

    def record(self, entry: Entry, parent_run_id: str) -> str:
        """Writes ``entry`` as one closed run and gives the run's id; recording it again changes nothing.

        Two recorders that meet keep the one that is closed already, else the oldest. Neither deletes a run that it
        finds closed: a recorder that slept may be the one who finds two, and the other one may be what the table names.
        One that is closed between the look and the deletion is restored by :meth:`settle`.
        """
        with self.reaching():
            client, _ = self.connect()
            run, mine = self._first(self.search({"entry": entry.key})), False
            if run is None:
                run, mine = self._made(entry, parent_run_id), True
            while run.info.status == "RUNNING":
                self._write(run, entry)
                same = sorted(self.search({"entry": entry.key}), key=_age)
                if not same or same[0].info.run_id == run.info.run_id:
                    closed = "FINISHED" if entry.kind == "finished" else "FAILED"
                    client.set_terminated(run.info.run_id, closed, milliseconds(entry.ended))
                    for left in same[1:]:  # by recorders that died, or that will find this one closed
                        if client.get_run(left.info.run_id).info.status == "RUNNING":
                            client.delete_run(left.info.run_id)
                    break
                if mine:
                    client.delete_run(run.info.run_id)
                run, mine = same[0], False
            return str(run.info.run_id)  # closing is the last step, so nothing is missing in one that is closed

    def settle(self, named: str, other: str) -> None:
        """The job table names the run ``named`` for an attempt that ``other`` records, too: that one stays alone."""
        with self.reaching():
            client, _ = self.connect()
            if client.get_run(named).info.lifecycle_stage != "active":
                client.restore_run(named)
            client.delete_run(other)

    def parent(
        self,
        group: Group,
        resolved: Mapping[str, str] | str | None,
        run_id: str | None,
        started: datetime | None = None,
    ) -> str:
        """The group's parent run, found by ``run_id`` or its tag, or made. The caller holds the group's lock.

        ``resolved`` is what the group's first batch resolved at run time, as a mapping or as JSON; ``started`` when
        that batch began, so that the parent spans its children. Parameters are for good: where a group that begins
        anew resolved something else than they say, a tag, ``clipstudy.resolved.…``, says what.
        """
        with self.reaching():
            client, experiment = self.connect()
            if run_id is not None and self.active(run_id):
                return run_id
            run = self._first(self.search({"group": entries.group_key(group), "level": "parent"}))
            if run is None:
                tags = (
                    entries.group_tags(group)
                    | entries.source()
                    | {
                        PREFIX + "level": "parent",
                        PREFIX + "claimed": str(time.time_ns()),
                        "mlflow.note.content": entries.note(group),
                    }
                )
                begin = None if started is None else milliseconds(started)
                run = client.create_run(experiment, begin, tags, entries.group_title(group))
            values = json.loads(resolved) if isinstance(resolved, str) else dict(resolved or {})
            resolved_now = {f"resolved.{k}": str(v) for k, v in values.items()}
            self._log(run.info.run_id, [], _new(entries.group_params(group) | resolved_now, run))
            for name, value in _changed(resolved_now, run).items():
                client.set_tag(run.info.run_id, name, value)
            inputs.log(client, experiment, run.info.run_id, group, values.get("data", ""))
            return str(run.info.run_id)

    def project(self, parent_run_id: str, results: Iterable[Result]) -> None:
        """Every metric of ``results`` on the parent run, step = layer (a whole-model task: step 0); the parent is
        closed at the latest end: FAILED while none of its jobs has a result, FINISHED from the first one on.

        Points carry their job's own end time, so doing it again adds nothing.
        """
        points, latest, finished = [], 0, False
        for result in results:
            finished = True
            when = milliseconds(datetime.fromisoformat(result.tags["ended"]))
            latest = max(latest, when)
            numbers = flat(entries.safe_metrics(result.metrics))
            points += [(name, value, when, max(result.layer, 0)) for name, value in numbers.items()]
        with self.reaching():
            client, _ = self.connect()
            self._log(parent_run_id, points, {})
            run = client.get_run(parent_run_id)
            finished = finished or run.info.status == "FINISHED"
            end = max(run.info.end_time or 0, latest) or None
            if not finished:
                client.set_terminated(parent_run_id, "FAILED", end)
                # Another recorder may have closed it meanwhile, with a result: that one's numbers are there by now.
                finished = bool(client.get_run(parent_run_id).data.metrics)
            if finished:
                client.set_terminated(parent_run_id, "FINISHED", end)

    def sweep(self, enough: Callable[[], bool] = lambda: False) -> int:
        """Deletes what a request left behind that reached MLflow when its sender had given up: a run that is open,
        while another of the same entry (or group) is closed. How many. No further run is asked about once it is
        ``enough``.

        Safe while others record: whoever looks for an entry's run takes the closed one.
        """
        with self.reaching():
            client, _ = self.connect()
            swept = 0
            for run in list(self.search({}, ["attributes.status = 'RUNNING'"])):
                if enough():
                    break
                if not (same := _alike(run)):
                    continue
                now = {one.info.run_id: one.info.status for one in self.search(same)}
                # It may have been closed since the first question: then it is the one to keep.
                if now.pop(run.info.run_id, None) == "RUNNING" and set(now.values()) - {"RUNNING"}:
                    client.delete_run(run.info.run_id)
                    swept += 1
            return swept

    def results(
        self,
        study: str | None = None,
        since: datetime | None = None,
        parent_run_id: str | None = None,
        known: Collection[str] = (),
    ) -> list[Result]:
        """FINISHED runs of jobs, the newest of each cell and digest, oldest first.

        Args:
            study: only this study's.
            since: only those that ended at or after it: what a cached table must add.
            parent_run_id: only the children of this run.
            known: ids of runs that are not asked for again, some hundreds at most.
        """
        if self.empty():
            return []
        wanted = {"level": "job"} | _plain(study)
        more = ["attributes.status = 'FINISHED'"]
        if since is not None:
            more.append(f"attributes.end_time >= {milliseconds(since)}")
        if parent_run_id is not None:
            more.append(f"tags.`mlflow.parentRunId` = '{parent_run_id}'")
        if known:
            more.append(f"attributes.run_id NOT IN ({', '.join(map(repr, known))})")
        with self.reaching():
            found = [_result(run) for run in self.search(wanted, more)]
        return newest_runs(result for result in found if result is not None and study in (None, result.study))

    def run_of(self, job: Job) -> str | None:
        """The id of the run that records the job's last attempt, finished or failed; None: it is not recorded.

        Job numbers start anew with a new job table, and two tables may record into one store: what is of another cell,
        or began before this row was made, is not its own. The latest of several.
        """
        if self.empty():
            return None
        own = {"study": job.study, "model": job.model, "task": job.task, "layer": str(job.layer)}
        since = 0 if job.created_at is None else milliseconds(job.created_at) - max(job.layer, 0) - SLACK_MS
        wanted = {"job": str(job.id), "attempt": str(job.attempt), "level": "job"}
        with self.reaching():
            found = list(self.search(wanted | _plain(job.study)))
        mine = [
            run
            for run in found
            if all(run.data.tags.get(PREFIX + name) == value for name, value in own.items())
            and run.info.start_time >= since
        ]
        return max(mine, key=lambda run: run.info.start_time).info.run_id if mine else None

    def active(self, run_id: str) -> bool:
        """Whether there is such a run, and not in MLflow's trash."""
        from mlflow.exceptions import MlflowException

        with self.reaching():
            try:
                return bool(self.connect()[0].get_run(run_id).info.lifecycle_stage == "active")
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def experiment(self) -> str:
        """The number of the experiment that holds the runs, for links into MLflow's own pages."""
        return self.connect()[1]

    def identity(self) -> str:
        """What tells these runs from those of any other store, or of one made anew in the same place."""
        if self.empty():
            return ""
        with self.reaching():
            client, experiment = self.connect()
            return f"{redact(self.uri)} {experiment} {client.get_experiment(experiment).creation_time}"

    def search(self, tags: Mapping[str, str], more: Sequence[str] = (), experiment: str | None = None) -> Iterator[Run]:
        """Active runs with these tags of ours, asked for page by page.

        Args:
            tags: names without PREFIX.
            more: further conditions, in the language of MLflow's filters.
            experiment: another one's number than that of the studies.
        """
        client, studies = self.connect()
        conditions = " and ".join([*(f"tags.`{PREFIX}{k}` = '{v}'" for k, v in tags.items()), *more])
        token = None
        while True:
            page = client.search_runs([experiment or studies], conditions, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    # -- inside -------------------------------------------------------------------------------------------------

    def _made(self, entry: Entry, parent_run_id: str) -> Run:
        client, experiment = self.connect()
        tags = (
            entries.entry_tags(entry)
            | entries.source(entry)
            | {
                PREFIX + "claimed": str(time.time_ns()),
                "mlflow.parentRunId": parent_run_id,
                "mlflow.note.content": entries.note(entry.group, entry),
            }
        )
        # Layers of one batch began together. MLflow lists later runs first: a millisecond a layer puts them in order.
        began = milliseconds(entry.started) - max(entry.layer, 0)
        return client.create_run(experiment, began, tags, entry.title)

    def _write(self, run: Run, entry: Entry) -> None:
        """Numbers, parameters and files of ``entry``; what is there already stays."""
        from mlflow.exceptions import MlflowException

        run_id, when = run.info.run_id, milliseconds(entry.ended)
        numbers = flat(entries.safe_metrics(entry.metrics)) | entries.place(entry)
        points = [(name, value, when, max(entry.layer, 0)) for name, value in numbers.items()]
        try:
            self._log(run_id, points, _new(entries.entry_params(entry), run))
        except MlflowException:
            # Another recorder of this entry wrote the same parameters at the same moment: they are there now.
            self._log(run_id, points, _new(entries.entry_params(entry), self.connect()[0].get_run(run_id)))
        self._keep(run, entry)

    @staticmethod
    def _first(runs: Iterable[Run]) -> Run | None:
        """The run to keep: one that is closed already, else the oldest; None: there is none."""
        return min(runs, key=_age, default=None)

    def _log(self, run_id: str, points: Sequence[tuple[str, float, int, int]], params: Mapping[str, str]) -> None:
        """One request where it fits MLflow's limits (it nearly always does)."""
        from mlflow.entities import Metric, Param

        client, _ = self.connect()
        metrics = [Metric(*point) for point in points]
        pairs = [Param(key, value) for key, value in params.items()]
        while metrics or pairs:
            room = MOST_METRICS - len(pairs[:MOST_PARAMS])
            client.log_batch(run_id, metrics[:room], pairs[:MOST_PARAMS])
            metrics, pairs = metrics[room:], pairs[MOST_PARAMS:]


def newest_runs(results: Iterable[Result]) -> list[Result]:
    """The newest of each cell and digest, oldest first."""
    newest: dict[tuple[str, ...], Result] = {}
    for result in sorted(results, key=lambda r: (r.tags.get("ended", ""), int(r.tags.get("attempt", 0)), r.run_id)):
        cell = (result.study, result.model, result.task, result.tags.get("digest", ""), str(result.layer))
        newest.pop(cell, None)
        newest[cell] = result
    return list(newest.values())


def _new(params: Mapping[str, str], run: Run) -> dict[str, str]:
    """What the run does not have yet: MLflow takes a parameter once, and a later version may word it otherwise."""
    named = {safe_key(key): clip(value, LONGEST_PARAM) for key, value in params.items()}
    return {key: value for key, value in named.items() if key not in run.data.params}


def _changed(resolved: Mapping[str, str], run: Run) -> dict[str, str]:
    """As tags: what differs from the run's parameters, or from what a tag said of them."""
    said = run.data.params | {name.removeprefix(PREFIX): value for name, value in run.data.tags.items()}
    named = {safe_key(key): clip(value, LONGEST_PARAM) for key, value in resolved.items()}
    return {PREFIX + key: value for key, value in named.items() if said.get(key, value) != value}


def _plain(study: str | None) -> dict[str, str]:
    """The filter for a study, where MLflow's filters can say its name; the caller looks again."""
    return {"study": study} if study and "'" not in study else {}


def _alike(run: Run) -> dict[str, str]:
    """The tags that only runs of the same entry have, or parents of the same group; empty: it is neither."""
    tags = {
        name: run.data.tags[PREFIX + name] for name in ("level", "entry", "group") if PREFIX + name in run.data.tags
    }
    match tags:
        case {"level": "job", "entry": entry}:
            return {"entry": entry}
        case {"level": "parent", "group": group}:
            return {"group": group, "level": "parent"}
    return {}


def _age(run: Run) -> tuple[bool, int, str]:
    claimed = run.data.tags.get(PREFIX + "claimed", "")
    return run.info.status == "RUNNING", int(claimed) if WHOLE.fullmatch(claimed) else 0, run.info.run_id


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _result(run: Run) -> Result | None:
    """None: somebody tagged a run of another kind like ours."""
    tags = {k.removeprefix(PREFIX): v for k, v in run.data.tags.items() if k.startswith(PREFIX)}
    numbers = {name: value for name, value in run.data.metrics.items() if name not in entries.PLACE}
    metrics: dict[str, Estimate] = estimates(numbers)
    counts = [tags[name] for name in NUMBERS if name in tags] + [k for k in tags.get("layers", "").split(",") if k]
    if not {"study", "model", "task", "layer"} <= tags.keys() or not all(map(WHOLE.fullmatch, counts)):
        return None
    if not DEPTH.fullmatch(tags.get("depth", "")) or not _is_instant(tags.get("ended", "")):
        return None
    return Result(
        run_id=run.info.run_id,
        study=tags["study"],
        model=tags["model"],
        task=tags["task"],
        layer=int(tags["layer"]),
        metrics=metrics,
        params=dict(run.data.params),
        tags={k: v for k, v in tags.items() if k != "claimed"},
    )
