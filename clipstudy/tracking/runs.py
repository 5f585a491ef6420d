"""Runs in MLflow: one a job, one parent a group; written so that every step can be repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from clipstudy.errors import TrackingUnreachable
from clipstudy.job import Group
from clipstudy.outcome import Estimate, Result, estimates, flat
from clipstudy.settings import redact
from clipstudy.tracking import entry as entries
from clipstudy.tracking import inputs, store
from clipstudy.tracking.entry import LONGEST_PARAM, PREFIX, Entry, clip, milliseconds, safe_key
from clipstudy.tracking.files import Files

if TYPE_CHECKING:
    from mlflow.entities import Run

#: Runs of one answer: a server at work beside others takes seconds for them, and a request is given fifteen.
PAGE = 250
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

    def record(self, entry: Entry, parent_run_id: str) -> str:
        """Writes ``entry`` as one closed run and gives the run's id; recording it again changes nothing.

        The run is made first and looked for second: of two recorders that meet, the later one sees both runs, and
        both keep the oldest.
        """
        from mlflow.exceptions import MlflowException

        with self.reaching():
            client, _ = self.connect()
            run = self._own_run(entry, parent_run_id)
            run_id: str = run.info.run_id
            if run.info.status != "RUNNING":
                return run_id  # closing is the last step, so nothing is missing
            when = milliseconds(entry.ended)
            numbers = flat(entries.safe_metrics(entry.metrics)) | entries.place(entry)
            points = [(name, value, when, max(entry.layer, 0)) for name, value in numbers.items()]
            try:
                self._log(run_id, points, _new(entries.entry_params(entry), run))
            except MlflowException:
                # Another recorder of this entry wrote the same parameters at the same moment: they are there now.
                self._log(run_id, points, _new(entries.entry_params(entry), client.get_run(run_id)))
            self._check_place(run)
            self._keep(run_id, entry)
            client.set_terminated(run_id, "FINISHED" if entry.kind == "finished" else "FAILED", when)
            return run_id

    def parent(
        self,
        group: Group,
        resolved: Mapping[str, str] | str | None,
        run_id: str | None,
        started: datetime | None = None,
    ) -> str:
        """The group's parent run, found by ``run_id`` or its tag, or made. The caller holds the group's lock.

        ``resolved`` is what the group's first batch resolved at run time, as a mapping or as JSON; ``started`` when
        that batch began, so that the parent spans its children.
        """
        with self.reaching():
            client, experiment = self.connect()
            if run_id is not None and self._is_active(run_id):
                return run_id
            run = self._oldest(self.search({"group": entries.group_key(group), "level": "parent"}))
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
            params = entries.group_params(group) | {f"resolved.{k}": str(v) for k, v in values.items()}
            self._log(run.info.run_id, [], _new(params, run))
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

    def sweep(self) -> int:
        """Deletes what a request left behind that reached MLflow when its sender had given up: a run that is open,
        while another of the same entry (or group) is closed. How many.

        Safe while others record: whoever looks for an entry's run takes the closed one.
        """
        with self.reaching():
            client, _ = self.connect()
            swept = 0
            for run in list(self.search({}, ["attributes.status = 'RUNNING'"])):
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
        return newest_runs(result for result in found if study in (None, result.study))

    def run_of(self, study: str, job: int, attempt: int) -> str | None:
        """The id of the run that records this attempt, finished or failed; None: it is not recorded.

        The latest of several: job ids start anew with a new job table.
        """
        if self.empty():
            return None
        with self.reaching():
            found = list(self.search({"job": str(job), "attempt": str(attempt), "level": "job"} | _plain(study)))
        mine = [run for run in found if run.data.tags[PREFIX + "study"] == study]
        return max(mine, key=lambda run: run.info.start_time).info.run_id if mine else None

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

    def _own_run(self, entry: Entry, parent_run_id: str) -> Run:
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
        mine = client.create_run(experiment, began, tags, entry.title)
        return self._oldest(self.search({"entry": entry.key})) or mine

    def _oldest(self, runs: Iterable[Run]) -> Run | None:
        """The run to keep: one that is closed already, else the oldest. The others are duplicates and deleted."""
        client, _ = self.connect()
        ordered = sorted(runs, key=_age)
        for duplicate in ordered[1:]:
            client.delete_run(duplicate.info.run_id)
        return ordered[0] if ordered else None

    def _is_active(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        client, _ = self.connect()
        try:
            return bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

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


def _plain(study: str | None) -> dict[str, str]:
    """The filter for a study, where MLflow's filters can say its name; the caller looks again."""
    return {"study": study} if study and "'" not in study else {}


def _alike(run: Run) -> dict[str, str]:
    """The tags that only runs of the same entry have, or parents of the same group; empty: it is neither."""
    tags = {
        name: run.data.tags[PREFIX + name] for name in ("level", "entry", "group") if PREFIX + name in run.data.tags
    }
    match tags.get("level"):
        case "job":
            return {"entry": tags["entry"]}
        case "parent":
            return {"group": tags["group"], "level": "parent"}
    return {}


def _age(run: Run) -> tuple[bool, int, str]:
    return run.info.status == "RUNNING", int(run.data.tags.get(PREFIX + "claimed", 0)), run.info.run_id


def _result(run: Run) -> Result:
    tags = {k.removeprefix(PREFIX): v for k, v in run.data.tags.items() if k.startswith(PREFIX)}
    numbers = {name: value for name, value in run.data.metrics.items() if name not in entries.PLACE}
    metrics: dict[str, Estimate] = estimates(numbers)
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
