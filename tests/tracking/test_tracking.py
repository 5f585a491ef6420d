"""What goes into MLflow comes back, once, whatever falls in between. On SQLite and on a real server."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clipstudy.dashboard import records
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Group, Job, Status
from clipstudy.outcome import Artifact, Estimate, flat
from clipstudy.spec import WHOLE_MODEL, DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tracking import Entry, Tracking, audit, environment, store
from clipstudy.tracking.entry import LONGEST_KEY, clip, entry_params, entry_tags, place, safe_key

Make = Callable[..., Entry]


def runs(tracking: Tracking, study: str, level: str = "job") -> list[Any]:
    """The study's active runs in MLflow, asked past our own reading."""
    client, experiment = tracking.connect()
    asked = f"tags.`clipstudy.study` = '{study}' and tags.`clipstudy.level` = '{level}'"
    return list(client.search_runs([experiment], asked))


def row(made: Entry) -> Job:
    """The job table's row of an entry."""
    spec = made.group
    names = spec.study, spec.model.name, spec.task.name, spec.digest
    return Job(made.job, 1, *names, made.layer, made.label, Status.FAILED, made.attempt, 1, 3)


class Dying:
    """A client of MLflow's, or a store of its files, whose process ends at one call: before it is done, or after."""

    def __init__(self, client: Any, method: str, when: str) -> None:
        self._client, self._method, self._when = client, method, when

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name != self._method:
            return real

        def call(*args: Any, **kwargs: Any) -> None:
            if self._when == "after":
                real(*args, **kwargs)
            raise InterruptedError(name)

        return call


def test_recorded_entries_come_back(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, {"checkpoint": "abc"}, None)
    recorded = {}
    for layer in (0, 7, 12):
        made = entry(layer)
        recorded[layer] = made.result(tracking.record(made, parent))
    found = {result.layer: result for result in tracking.results(study)}
    assert found == recorded
    assert found[7].metrics["accuracy"] == Estimate(0.609375, 0.5, 0.75)
    assert found[7].tags["depth"] == "0.583" and found[0].tags["layer_label"] == "embedding"
    assert found[7].params["option.hidden"] == "50" and found[7].params["device"] == "cpu"


def test_what_a_person_sees(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, '{"checkpoint": "abc"}', None)
    tracking.record(entry(7), parent)
    [child], [above] = runs(tracking, study), runs(tracking, study, "parent")
    assert child.info.run_name == "bert · bigram_shift · block 7" and above.info.run_name == "bert · bigram_shift"
    assert child.data.tags["mlflow.parentRunId"] == parent == above.info.run_id
    assert "block 7 of **BERT**" in child.data.tags["mlflow.note.content"]
    assert child.info.status == "FINISHED"
    assert (child.info.start_time, child.info.end_time) == (1793534400123 - 7, 1793534409123)
    assert child.data.tags["mlflow.source.name"] == "clipstudy" == above.data.tags["mlflow.source.name"]
    assert above.data.params["resolved.checkpoint"] == "abc"
    client, experiment = tracking.connect()
    inputs = client.get_run(parent).inputs
    assert [(d.dataset.name, d.dataset.source_type) for d in inputs.dataset_inputs] == [("senteval", "hugging_face")]
    about = client.get_experiment(experiment).tags
    assert about["mlflow.experimentKind"] == "custom_model_development" and "parent" in about["mlflow.note.content"]
    [model] = client.search_logged_models([experiment], f"model_id = '{inputs.model_inputs[0].model_id}'")
    assert model.name == "bert" and model.params["model.checkpoint"] == "bert-base-uncased"


def test_data_of_two_models_are_the_same_data(tracking: Tracking, study: str, group: Group) -> None:
    """MLflow tells data sets apart by name and digest: those of two models must not differ, other rows must."""
    another = replace(group, model=replace(group.model, name="gpt2"))
    changed = replace(group, dataset=replace(group.dataset, revision="other"))
    client, _ = tracking.connect()

    def digest(group: Group, resolved: dict[str, str]) -> str:
        (given,) = client.get_run(tracking.parent(group, resolved, None)).inputs.dataset_inputs
        return str(given.dataset.digest)

    assert digest(group, {}) == digest(another, {}) != digest(changed, {})
    rows = {"data": "sha256:0123456789abcdef"}
    assert digest(replace(group, note="n", study=f"{study} 2"), rows) == "0123456789ab"


def test_a_parent_says_what_its_group_resolved_last(tracking: Tracking, study: str, group: Group) -> None:
    """MLflow's parameters are for good; a group that begins anew may find other data."""

    def said(checkpoint: str) -> tuple[str, str | None]:
        run = tracking.connect()[0].get_run(tracking.parent(group, {"checkpoint": checkpoint, "data": "1"}, None))
        assert "clipstudy.resolved.data" not in run.data.tags
        return run.data.params["resolved.checkpoint"], run.data.tags.get("clipstudy.resolved.checkpoint")

    assert [said(one) for one in ("a", "a", "b", "a")] == [("a", None), ("a", None), ("a", "b"), ("a", "a")]


def test_a_model_has_one_entry(tracking: Tracking, study: str, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recorders that make one at the same time, of two groups, keep the first."""
    client, experiment = tracking.connect()
    group = replace(group, model=replace(group.model, checkpoint=study))
    search, made = type(client).search_logged_models, []

    def late(self: object, *args: object, **words: object) -> object:
        if not made:  # another recorder asks and makes its own between our question and our answer
            made.append("begun")
            other = replace(group, task=replace(group.task, name="other"))
            made.append(tracking.parent(other, None, None))
            return []
        return search(self, *args, **words)

    monkeypatch.setattr(type(client), "search_logged_models", late)
    parent = tracking.parent(group, None, None)
    of = [client.get_run(run).inputs.model_inputs[0].model_id for run in (parent, made[1])]
    entries = client.search_logged_models([experiment], f"params.`model.checkpoint` = '{study}'")
    assert of == [entry.model_id for entry in entries] * 2


def test_layers_stand_in_their_order(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    """Those of one batch began at one moment; MLflow's pages list the latest first."""
    parent = tracking.parent(group, None, None)
    for layer in (3, 0, 12, 1):
        tracking.record(entry(layer), parent)
    client, experiment = tracking.connect()
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert [run.data.tags["clipstudy.layer"] for run in found] == ["0", "1", "3", "12"]


def test_recording_again_changes_nothing(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    first = tracking.record(entry(), parent)
    assert tracking.record(entry(), parent) == first
    assert [run.info.run_id for run in runs(tracking, study)] == [first]
    assert len(tracking.connect()[0].get_metric_history(first, "accuracy")) == 1


def test_of_two_closed_runs_the_one_that_the_table_names_stays(
    tracking: Tracking, study: str, group: Group, entry: Make
) -> None:
    parent = tracking.parent(group, None, None)
    named = tracking.record(entry(), parent)
    tracking.connect()[0].delete_run(named)  # by a recorder that had seen it open a moment ago
    other = tracking.record(entry(), parent)
    tracking.settle(named, other)
    assert [run.info.run_id for run in runs(tracking, study)] == [named] != [other]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["create_run", "search_runs", "log_batch", "log_artifacts", "set_terminated"])
def test_a_crash_at_any_step_is_only_a_delay(
    step: str, when: str, tracking: Tracking, study: str, group: Group, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracking.parent(group, None, None)
    made = entry(artifacts=(Artifact("confusion.csv", b"1,2\n"), Artifact("figures/a.txt", b"x")), log="all went well")
    client, experiment = tracking.connect()
    tracking._opened = (Dying(client, step, when), experiment)  # type: ignore[assignment]
    repository = tracking._repository
    with monkeypatch.context() as patch, pytest.raises(InterruptedError, match=step):
        patch.setattr(tracking, "_repository", lambda run: Dying(repository(run), step, when))
        tracking.record(made, parent)
    tracking._opened = (client, experiment)

    run_id = tracking.record(made, parent)
    [run] = runs(tracking, study)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.data.metrics == flat(made.metrics) | place(made)
    assert run.data.params == entry_params(made)
    assert {f.path for f in client.list_artifacts(run_id)} == {"confusion.csv", "figures", "log.txt"}
    assert len(client.get_metric_history(run_id, "accuracy")) == 1


@pytest.mark.parametrize("step", ["create_run", "log_batch", "log_inputs"])
def test_a_crash_while_making_the_parent(step: str, tracking: Tracking, study: str, group: Group) -> None:
    client, experiment = tracking.connect()
    tracking._opened = (Dying(client, step, "after"), experiment)  # type: ignore[assignment]
    with pytest.raises(InterruptedError):
        tracking.parent(group, {"checkpoint": "abc"}, None)
    tracking._opened = (client, experiment)
    parent = tracking.parent(group, {"checkpoint": "abc"}, None)
    [run] = runs(tracking, study, "parent")
    assert run.info.run_id == parent and run.data.params["resolved.checkpoint"] == "abc"
    assert len(run.inputs.dataset_inputs) == 1 and len(client.get_run(parent).inputs.model_inputs) == 1


def test_two_recorders_of_one_entry_keep_one_run(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    both = threading.Barrier(2, timeout=30)

    class Meeting:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def create_run(self, *args: Any, **kwargs: Any) -> Any:
            both.wait()  # neither has found a run of the other's
            run = self._client.create_run(*args, **kwargs)
            both.wait()
            return run

    recorders = [Tracking(tracking.uri, tracking.artifacts_uri) for _ in range(2)]
    for recorder in recorders:
        client, experiment = tracking.connect()
        recorder._opened = (Meeting(client), experiment)  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as pool:
        ids = [f.result() for f in [pool.submit(r.record, entry(), parent) for r in recorders]]
    [run] = runs(tracking, study)
    assert ids == [run.info.run_id] * 2
    assert run.info.status == "FINISHED" and run.data.metrics == flat(entry().metrics) | place(entry())


def test_a_recorder_that_slept_keeps_what_another_has_closed(
    tracking: Tracking, study: str, group: Group, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fell asleep when it was about to make its run; the other one's is closed, and done in the table, by now."""
    parent = tracking.parent(group, None, None)
    other, made = Tracking(tracking.uri, tracking.artifacts_uri), tracking._made
    closed: list[str] = []

    def asleep(of: Entry, under: str) -> Any:
        closed.append(other.record(of, under))
        monkeypatch.setattr(time, "time_ns", lambda: 1)  # and its clock is behind: its own run looks older
        return made(of, under)

    monkeypatch.setattr(tracking, "_made", asleep)
    assert tracking.record(entry(), parent) == closed[0]
    [run] = runs(tracking, study)
    assert (run.info.run_id, run.info.status) == (closed[0], "FINISHED")


def test_runs_that_somebody_tagged_like_ours_are_passed_by(
    tracking: Tracking, study: str, group: Group, entry: Make
) -> None:
    parent = tracking.parent(group, None, None)
    tracking.record(entry(), parent)
    client, experiment = tracking.connect()
    for tags in (
        {"level": "job"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "x", "job": "?"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "--3"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "3", "attempt": "x"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "3", "blocks": "²"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "3", "layers": "0,1,…"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "3", "depth": "deep"},
        {"level": "job", "study": study, "model": "m", "task": "t", "layer": "9" * 5000},
    ):
        for status in ("FINISHED", "RUNNING"):
            foreign = client.create_run(experiment, tags={f"clipstudy.{name}": value for name, value in tags.items()})
            if status != "RUNNING":
                client.set_terminated(foreign.info.run_id, status)
    assert len(tracking.results(study)) == 1 and tracking.sweep() == 0
    for claimed in ("x", "9" * 30):
        same = {"study": study, "level": "job", "entry": entry().key, "claimed": claimed}
        client.create_run(experiment, tags={f"clipstudy.{name}": value for name, value in same.items()})
    assert tracking.record(entry(), parent) == tracking.results(study)[0].run_id and tracking.sweep() == 2
    assert [one.job for one in audit.runs(tracking) if one.group == entry_tags(entry())["clipstudy.group"]][-1:] == [
        107
    ]


def test_failed_attempts_are_runs_but_not_results(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    error = "ValueError: " + "x" * 9000
    failed = entry(kind="failed", metrics={}, error=error, log="Traceback …")
    run_id = tracking.record(failed, parent)
    tracking.record(entry(attempt=2), parent)
    [result] = tracking.results(study)
    assert result.tags["attempt"] == "2"
    run = next(r for r in runs(tracking, study) if r.info.run_id == run_id)
    assert run.info.status == "FAILED" and run.info.run_name.endswith("(attempt 1 failed)")
    assert (
        run.data.tags["clipstudy.error"].startswith("ValueError")
        and "9012 characters" in run.data.tags["clipstudy.error"]
    )
    assert [f.path for f in tracking.connect()[0].list_artifacts(run_id)] == ["log.txt"]


def test_the_newest_attempt_counts(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    old = entry(metrics={"accuracy": Estimate(0.1)})
    new = entry(attempt=2, ended=old.ended + timedelta(hours=1), metrics={"accuracy": Estimate(0.9)})
    tracking.record(new, parent)
    tracking.record(old, parent)
    tracking.record(entry(3), parent)
    assert {r.layer: r.metrics["accuracy"].value for r in tracking.results(study)} == {7: 0.9, 3: 0.546875}


def test_a_new_job_table_does_not_meet_old_runs(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    """Job 107, attempt 1 of a table that was begun anew is another run than that of the old table."""
    parent = tracking.parent(group, None, None)
    later = entry(started=entry().started + timedelta(days=1), ended=entry().ended + timedelta(days=1))
    assert tracking.record(entry(), parent) != tracking.record(later, parent)
    assert len(runs(tracking, study)) == 2 and len(tracking.results(study)) == 1


def test_only_what_changed_is_fetched(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    for layer in range(4):
        tracking.record(entry(layer), parent)
    assert [r.layer for r in tracking.results(study, since=entry(2).ended)] == [2, 3]
    assert [r.layer for r in tracking.results(parent_run_id=parent)] == [0, 1, 2, 3]
    assert tracking.results("no such study") == []


def test_known_runs_are_not_fetched_again(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    first, second = (tracking.record(entry(layer), parent) for layer in (1, 2))
    assert [r.run_id for r in tracking.results(study, since=entry(1).ended, known=[first])] == [second]
    assert tracking.results(study, since=entry(1).ended, known=[first, second]) == []


def test_a_look_that_finds_nothing_is_one_question(
    tracking: Tracking, study: str, group: Group, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the dashboard asks MLflow: all runs once, then only those that it does not know."""
    parent = tracking.parent(group, None, None)
    for layer in range(3):
        tracking.record(entry(layer), parent)
    client, _ = tracking.connect()
    answers: list[int] = []
    ask = client.search_runs

    def counted(*given: Any, **named: Any) -> Any:
        page = ask(*given, **named)
        answers.append(len(page))
        return page

    time = [0.0]
    known = records.Records(tracking, study, clock=lambda: time[0])
    monkeypatch.setattr(client, "search_runs", counted)
    for layers, expected in ((3, [3]), (3, [0]), (4, [1]), (4, [0])):
        if layers > len(known._runs) > 0:
            monkeypatch.setattr(client, "search_runs", ask)
            tracking.record(entry(3), parent)
            monkeypatch.setattr(client, "search_runs", counted)
        answers.clear()
        assert len(known.now().results) == layers and answers == expected
        assert len(known.now().results) == layers and answers == expected, "a look a moment ago is good enough"
        time[0] += records.LOOK


def test_the_parent_is_found_again(tracking: Tracking, study: str, group: Group) -> None:
    parent = tracking.parent(group, None, None)
    assert tracking.parent(group, None, parent) == parent == tracking.parent(group, None, None)
    other = replace(group, task=replace(group.task, options={"hidden": 0}))
    assert tracking.parent(other, None, None) != parent
    tracking.connect()[0].delete_run(parent)
    again = tracking.parent(group, None, parent)
    assert again != parent and tracking.parent(group, None, "0" * 32) == again


def test_projection_is_idempotent(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    results = [entry(layer).result(tracking.record(entry(layer), parent)) for layer in (0, 1, 12)]
    client, _ = tracking.connect()
    for _ in range(2):
        tracking.project(parent, results)
        tracking.project(parent, results[:1])
        points = [(p.step, p.value) for p in client.get_metric_history(parent, "accuracy")]
        assert sorted(points) == [(0, 0.5), (1, 0.515625), (12, 0.6875)]
        assert len(client.get_metric_history(parent, "native/accuracy.low")) == 3
    run = client.get_run(parent)
    assert run.info.status == "FINISHED" and run.info.end_time == 1793534400123 + 14000


def test_a_parent_of_failures_is_closed_and_a_later_result_redeems_it(
    tracking: Tracking, group: Group, entry: Make
) -> None:
    parent = tracking.parent(group, None, None)
    tracking.record(entry(kind="failed", metrics={}, error="ValueError"), parent)
    client, _ = tracking.connect()
    ends = []
    for _ in range(2):
        tracking.project(parent, [])
        run = client.get_run(parent)
        assert run.info.status == "FAILED"
        ends.append(run.info.end_time)
    assert ends[0] == ends[1] >= 1793534400123
    made = entry(attempt=2, metrics={})  # a result need not have a number
    tracking.project(parent, [made.result(tracking.record(made, parent))])
    assert client.get_run(parent).info.status == "FINISHED"
    tracking.project(parent, [])
    assert client.get_run(parent).info.status == "FINISHED"


def test_of_two_recorders_the_one_without_results_does_not_have_the_last_word(
    tracking: Tracking, group: Group, entry: Make
) -> None:
    """One recorded failures alone, the other results of the same group, and closes the parent in between."""
    parent = tracking.parent(group, None, None)
    result = entry().result(tracking.record(entry(), parent))
    other = Tracking(tracking.uri, tracking.artifacts_uri)
    client, experiment = tracking.connect()

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def set_terminated(self, *args: Any) -> None:
            other.project(parent, [result])
            client.set_terminated(*args)

    tracking._opened = (Late(), experiment)  # type: ignore[assignment]
    tracking.project(parent, [])
    tracking._opened = (client, experiment)
    assert client.get_run(parent).info.status == "FINISHED"


def test_what_late_requests_left_is_swept(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    kept, client = tracking.record(entry(), parent), tracking.connect()[0]
    tracking.project(parent, [entry().result(kept)])
    of_nobody = []
    for run_id in (kept, parent):  # the same request once more, after its sender had given up
        run = client.get_run(run_id)
        of_nobody.append(client.create_run(run.info.experiment_id, None, run.data.tags).info.run_id)
    in_hand = client.create_run(tracking.experiment(), None, {**run.data.tags, "clipstudy.group": "another"})
    assert tracking.sweep() == 2
    assert [client.get_run(run_id).info.lifecycle_stage for run_id in of_nobody] == ["deleted"] * 2
    assert [run.info.run_id for run in runs(tracking, study, "job")] == [kept]
    assert client.get_run(in_hand.info.run_id).info.lifecycle_stage == "active"
    client.delete_run(in_hand.info.run_id)
    assert tracking.sweep() == 0


def test_a_run_that_is_closed_meanwhile_is_not_swept(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    kept, (client, experiment) = tracking.record(entry(), parent), tracking.connect()
    tracking.project(parent, [entry().result(kept)])

    class Earlier:
        """Its first search is answered as if the run had not been closed yet."""

        def __init__(self) -> None:
            self.searches = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def search_runs(self, experiments: Any, asked: str, **named: Any) -> Any:
            self.searches += 1
            return client.search_runs(experiments, asked.replace("'RUNNING'", "'FINISHED'"), **named)

    earlier = Earlier()
    tracking._opened = (earlier, experiment)  # type: ignore[assignment]
    assert tracking.sweep() == 0 and earlier.searches > 1
    tracking._opened = (client, experiment)
    assert [run.info.run_id for run in runs(tracking, study, "job")] == [kept]


def test_layers_and_depths_are_compared_as_numbers(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    """As a person filters in MLflow's UI; yet no result is called ``layer`` or ``depth``."""
    parent = tracking.parent(group, None, None)
    for layer in (0, 2, 7, 12):
        made = entry(layer)
        tracking.project(parent, [made.result(tracking.record(made, parent))])
    client, experiment = tracking.connect()

    def found(asked: str) -> list[int]:
        page = client.search_runs([experiment], f"{asked} and tags.`clipstudy.study` = '{study}'")
        return sorted(int(run.data.tags["clipstudy.layer"]) for run in page)

    assert found("metrics.depth > 0.5") == [7, 12]
    assert found("metrics.layer < 7 and metrics.accuracy > 0.5") == [2]
    assert all(set(r.metrics) == set(entry().metrics) for r in tracking.results(study))
    assert not {"layer", "depth"} & set(client.get_run(parent).data.metrics)


def test_an_attempts_run_is_looked_up(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    failed = tracking.record(entry(kind="failed", metrics={}, error="ValueError", log="Traceback …"), parent)
    again = tracking.record(entry(attempt=2), parent)
    job = row(entry())
    assert (tracking.run_of(job), tracking.run_of(replace(job, attempt=2))) == (failed, again)
    assert tracking.artifact(failed, "log.txt").decode() == "Traceback …"
    others: list[dict[str, Any]] = [
        {"attempt": 3},
        {"id": 108},
        {"study": "another"},
        {"layer": 1},
        {"task": "another"},
    ]
    for other in others:
        assert tracking.run_of(replace(job, **other)) is None, other
    anew = tracking.record(entry(started=entry().started + timedelta(days=1)), parent)
    assert tracking.run_of(job) == anew
    made = entry().started + timedelta(days=2)
    assert tracking.run_of(replace(job, created_at=made)) is None, "of a job table that was begun anew since"


def test_a_task_of_the_whole_model(tracking: Tracking, study: str, group: Group, entry: Make) -> None:
    whole = replace(group, task=replace(group.task, layers="whole"))
    parent = tracking.parent(whole, None, None)
    made = entry(group=whole, layer=WHOLE_MODEL, label="whole model")
    tracking.project(parent, [made.result(tracking.record(made, parent))])
    [result] = tracking.results(study)
    assert result.layer == WHOLE_MODEL and "depth" not in result.tags
    assert runs(tracking, study)[0].data.metrics == flat(made.metrics)
    assert [p.step for p in tracking.connect()[0].get_metric_history(parent, "accuracy")] == [0]


def test_artifacts_come_back(tracking: Tracking, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    run_id = tracking.record(entry(artifacts=(Artifact("predictions.parquet", b"PAR1\0\n"),)), parent)
    assert tracking.artifact(run_id, "predictions.parquet") == b"PAR1\0\n"
    with pytest.raises(ClipstudyError, match=r"kept no predictions\.parquet"):
        tracking.artifact(tracking.record(entry(8), parent), "predictions.parquet")


def test_hostile_names(tracking: Tracking, study: str, entry: Make) -> None:
    nasty = "'; DROP TABLE runs; -- \"`%_\\ <b>é漢\u202e\ud800\0"
    model = ModelSpec(nasty, "transformers", nasty, 12, label=nasty)
    dataset = DatasetSpec(nasty, "senteval", path="../" + nasty)
    group = Group(study + nasty, model, dataset, TaskSpec(nasty, "classify", nasty, "accuracy", options={nasty: nasty}))
    made = entry(
        group=group,
        metrics={"../../etc/passwd": Estimate(1.0), "f1/N?P": Estimate(0.5, 0.25, 0.75), "f1/N!P": Estimate(0.75)},
        params={"": "empty", "a" * 300: "b" * 7000, "/absolute": nasty, **{f"p{i}": "x" for i in range(150)}},
        tags={nasty: nasty * 1000},
        log=nasty,
    )
    parent = tracking.parent(group, {nasty: nasty}, None)
    run_id = tracking.record(made, parent)
    assert tracking.record(made, parent) == run_id and tracking.parent(group, None, None) == parent
    tracking.project(parent, [made.result(run_id)])
    [found] = tracking.results(clip(study + nasty, 8000))
    assert found == made.result(run_id)
    assert len(found.metrics) == 3


def test_artifacts_stay_in_their_run(tracking: Tracking, group: Group, entry: Make) -> None:
    parent = tracking.parent(group, None, None)
    for name in ("../up.txt", "/abs.txt", "", "a/../../b"):
        with pytest.raises(ValueError, match="cannot be called"):
            tracking.record(entry(artifacts=(Artifact(name, b""),)), parent)


def test_long_logs_are_whole(tracking: Tracking, group: Group, entry: Make) -> None:
    """Over 1,000 metrics, in several requests."""
    parent = tracking.parent(group, None, None)
    many = {f"arm{i}/accuracy": Estimate(i / 1000, 0.0, 1.0) for i in range(700)}
    run_id = tracking.record(entry(metrics=many), parent)
    assert tracking.connect()[0].get_run(run_id).data.metrics == flat(many) | {"layer": 7.0, "depth": 7 / 12}


def test_keys() -> None:
    assert safe_key("native/linear/accuracy.low") == "native/linear/accuracy.low"
    assert safe_key("a?b") != safe_key("a!b")
    assert len(safe_key("x" * 999)) <= LONGEST_KEY and safe_key("x" * 999) != safe_key("x" * 998)


def test_the_environment_names_versions_and_host() -> None:
    found = environment()
    assert found["version.torch"] and found["version.mlflow"] and found["host"] and found["version.clipstudy"]


# -- the store itself --------------------------------------------------------------------------------------------


def _open_and_run(uri: str, artifacts: str) -> str:
    tracking = Tracking(uri, artifacts)
    tracking.prepare()
    client, experiment = tracking.connect()
    client.create_run(experiment)
    return experiment


def test_eight_processes_open_a_fresh_store(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mlflow.db"
    file.parent.mkdir()
    file.with_name("mlflow.db.new").write_text("what a process leaves that is killed while it makes the store")
    where = f"sqlite:///{file}", str(tmp_path / "artifacts")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "clipstudy.tracking"])  # eight imports of mlflow would be the whole test
    with ProcessPoolExecutor(8, context) as pool:
        experiments = [f.result(timeout=200) for f in [pool.submit(_open_and_run, *where) for _ in range(8)]]
    assert len(set(experiments)) == 1
    client, experiment = Tracking(*where).connect()
    assert len(client.search_runs([experiment])) == 8
    assert client.get_experiment(experiment).artifact_location == (tmp_path / "artifacts").as_uri()
    assert file.read_bytes()[18:20] == b"\2\2"  # the header says WAL
    assert not file.with_name("mlflow.db.new").exists()


def test_a_process_killed_while_it_makes_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store appears whole or not at all."""

    def killed(self: Path, target: Path) -> None:
        raise InterruptedError

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(InterruptedError):
        Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts")).prepare()
    assert not (tmp_path / "mlflow.db").exists()


def test_readers_make_no_store(tmp_path: Path) -> None:
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path))
    assert (
        tracking.results() == [] and tracking.run_of(Job(1, 1, "s", "m", "t", "d", 0, "", Status.DONE, 1, 1, 3)) is None
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_recorded_by_few_requests(
    sqlite_store: tuple[str, str], study: str, group: Group, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than a run needs at the least: before it is made, and before it is closed, another is looked for."""
    tracking = Tracking(*sqlite_store)
    parent = tracking.parent(group, None, None)
    asked: Counter[str] = Counter()

    class Counting:
        def __init__(self, client: Any) -> None:
            self.client = client

        def __getattr__(self, name: str) -> Any:
            asked[name] += 1
            return getattr(self.client, name)

    client, experiment = tracking.connect()
    tracking._opened = Counting(client), experiment  # type: ignore[assignment]
    tracking.record(entry(metrics={f"arm{i}/accuracy": Estimate(0.5, 0.25, 0.75) for i in range(10)}), parent)
    assert asked == {"search_runs": 2, "create_run": 1, "log_batch": 1, "set_terminated": 1}


def test_a_copy_that_may_not_be_written_to_is_read(
    sqlite_store: tuple[str, str],
    study: str,
    group: Group,
    entry: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On another machine: no right to write, another folder, the runs' files not there, then there."""
    first = Tracking(*sqlite_store)
    parent = first.parent(group, None, None)
    run_id = first.record(entry(artifacts=(Artifact("maps/a.png", b"png"),)), parent)
    copy = tmp_path / "a copy"
    copy.mkdir()
    with contextlib.closing(sqlite3.connect(store.sqlite_file(first.uri))) as whole:
        whole.execute("VACUUM INTO ?", [str(copy / "mlflow.db")])
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as other, other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("UPDATE experiments SET artifact_location = 'file:///another/machine' WHERE name = 'clipstudy'")
    monkeypatch.setattr(store.os, "access", lambda path, mode: mode != store.os.W_OK)  # root may write everywhere
    monkeypatch.chdir(tmp_path)
    before = {file.name: file.stat() for file in copy.iterdir()}

    moved = Tracking(f"sqlite:///{copy / 'mlflow.db'}", str(copy / "artifacts"))
    (found,) = moved.results(study)
    assert found.run_id == run_id and found.metrics == first.results(study)[0].metrics
    assert moved.files(run_id) == [] and "/another/machine" in moved.gone() and "CLIPSTUDY_ARTIFACTS" in moved.gone()
    with pytest.raises(ClipstudyError, match="not here"):
        moved.artifact(run_id, "maps/a.png")
    assert {file.name: file.stat() for file in copy.iterdir()} == before, "not even a lock is written"
    assert list(tmp_path.iterdir()) == [copy]

    (copy / "artifacts" / run_id / "artifacts" / "maps").mkdir(parents=True)
    (copy / "artifacts" / run_id / "artifacts" / "maps" / "a.png").write_bytes(b"png")
    assert moved.gone() == "" and moved.files(run_id) == ["maps/a.png"]
    assert moved.artifact(run_id, "maps/a.png") == b"png"

    with pytest.raises(TrackingUnreachable, match="may not be written to"):
        moved.prepare()
    (copy / "mlflow.db-wal").write_bytes(b"what was not written yet")
    with pytest.raises(TrackingUnreachable, match="VACUUM INTO"):
        Tracking(moved.uri, "").results()
