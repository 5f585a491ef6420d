"""Workers on a SLURM cluster: a real one with Postgres and an MLflow server; and what is said where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipstudy.job import Job, Status
from clipstudy.queue import dialect, jobs
from tests import servers
from tests.acceptance.conftest import Place, Typed, totals
from tests.cluster import cluster

SECONDS = 120


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    try:
        with cluster() as environment:
            yield environment
    except LookupError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    with servers.mlflow(folder) as url:
        yield url


@pytest.fixture
def on_cluster(
    place: Place,
    slurm: dict[str, str],
    mlflow: str,
    new_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The place's study, to be computed on the cluster; its commands come by `typed`, asked for after this."""
    place.environment |= slurm | {"CLIPSTUDY_DATABASE": new_database(), "CLIPSTUDY_TRACKING": mlflow}


def slurm_says(place: Place, *command: str) -> str:
    return subprocess.run(command, env=place.env(), capture_output=True, text=True, check=True).stdout


def until(what: Callable[[], object], where: Callable[[], object], every: float = 1.0) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, where()
        time.sleep(every)


@pytest.mark.postgres
def test_two_workers_drain_the_queue_and_one_is_preempted(place: Place, on_cluster: None, typed: Typed) -> None:
    """What was being computed when the notice came is computed again, with no try spent; the job comes back by itself;
    everything is done once. The job's files hold no pickle and no password."""
    file = place.folder / "tasks.toml"
    file.write_text(file.read_text().replace("max_epoch = 3", "max_epoch = 3000, tenacity = 3000"))
    typed("init")
    typed("enqueue", "--task", "order", "--model", "bert", "--model", "bert-untrained-0")
    told = json.loads(typed("fleet", "submit", "--workers", "2", "--gpus-per-worker", "0", "--json").out)
    assert told["workers"] == 2

    def members() -> dict[str, dict[str, object]]:
        return {m["job"]: m for m in json.loads(typed("fleet", "status", "--json").out)["jobs"]}

    def said() -> str:
        return "\n".join(p.read_text() for p in sorted((place.folder / "mlruns" / "fleet").glob("*.log")))

    def running() -> list[Job]:
        return jobs.rows(engine, statuses=[Status.RUNNING])

    assert set(members()) == {f"{told['job']}_0", f"{told['job']}_1"}
    engine = dialect.connect(place.environment["CLIPSTUDY_DATABASE"])
    until(lambda: len(running()) > 1, said, every=0.1)
    found = running()
    worker = str(found[0].worker)
    preempted = worker.split(":slurm-")[1].split(":")[0]  # not asked for, which takes seconds: it may be done by then
    held = [job for job in found if job.worker == worker]
    slurm_says(place, "scancel", "--signal=USR1", preempted)
    until(lambda: set(totals(typed)) == {"done"}, said)
    until(lambda: {m["state"] for m in members().values()} == {"COMPLETED"}, lambda: (said(), members()))

    after = {j.id: j for j in jobs.rows(engine)}
    engine.dispose()
    assert {j.tries for j in after.values()} == {1}, said()
    assert max(after[j.id].attempt for j in held) == 2, said()
    assert "Restarts=1 " in slurm_says(place, "scontrol", "show", "job", preempted)
    assert "SIGUSR1: giving back what is not done" in said()
    runs = json.loads(typed("results", "--format", "json").out)
    assert len(runs) == len(after) == 6
    files = list((place.folder / "mlruns" / "fleet").iterdir())
    assert {f.suffix for f in files} == {".sh", ".log"}
    assert not any("postgresql" in f.read_text() for f in files if f.suffix == ".sh")


@pytest.mark.postgres
def test_a_more_urgent_job_takes_the_place_of_a_worker(place: Place, on_cluster: None, typed: Typed) -> None:
    """SLURM's own preemption: it sends SIGTERM, kills after the grace time, and queues the job again."""
    file = place.folder / "tasks.toml"
    file.write_text(file.read_text().replace("max_epoch = 3", "max_epoch = 3000, tenacity = 3000"))
    typed("init")
    typed("enqueue", "--task", "order", "--model", "bert")
    told = json.loads(typed("fleet", "submit", "--gpus-per-worker", "0", "--cpus-per-worker", "4", "--json").out)
    engine = dialect.connect(place.environment["CLIPSTUDY_DATABASE"])

    def said() -> str:
        return "\n".join(p.read_text() for p in sorted((place.folder / "mlruns" / "fleet").glob("*.log")))

    until(lambda: jobs.rows(engine, statuses=[Status.RUNNING]), said, every=0.1)
    held = jobs.rows(engine, statuses=[Status.RUNNING])
    alone = ["--partition", "urgent", "--cpus-per-task", "4", "--output", "/dev/null"]
    slurm_says(place, "sbatch", *alone, "--wrap", "sleep 1")
    until(lambda: set(totals(typed)) == {"done"}, said)
    after = {j.id: j for j in jobs.rows(engine)}
    engine.dispose()
    assert {j.tries for j in after.values()} == {1}, said()
    assert max(after[j.id].attempt for j in held) == 2, said()
    assert "SIGTERM: giving back what is not done" in said()
    assert "Restarts=1 " in slurm_says(place, "scontrol", "show", "job", f"{told['job']}_0")


@pytest.mark.postgres
def test_what_waits_is_shown_and_cancelled(place: Place, on_cluster: None, typed: Typed) -> None:
    typed("init")
    said = typed("fleet", "submit", code=2).err
    assert "Nothing is queued" in said and said.endswith("Type: clipstudy enqueue --all\n")
    typed("enqueue", "--task", "phrases")
    assert "lists no worker" in typed("fleet", "status").out
    refused = typed("fleet", "submit", code=2).err
    assert "gres" in refused and "--gpus-per-worker 0" in refused
    refused = typed("fleet", "submit", "--gpus-per-worker", "0", "--time", "soon", code=2).err
    assert "sbatch refused: Invalid --time specification" in refused and "4:00:00 for hours" in refused
    unknown = typed("fleet", "submit", "--partition", "urgnt", code=2).err
    assert 'Did you mean "urgent"? What exists: common, urgent.' in unknown
    assert "expected KEY=VALUE" in typed("fleet", "submit", "--sbatch", "account=", code=2).err

    later = ["--gpus-per-worker", "0", "--sbatch", "begin=now+1hour", "--sbatch", "hold", "--partition", "urgent"]
    said = typed("fleet", "submit", "--workers", "3", "--memory", "500M", "--time", "1:00:00", *later).out
    job = said.split()[1].rstrip(":")
    shown = typed("fleet", "status").out
    assert shown.count("pending") == 3 and "9 queued" in shown
    until(lambda: "JobHeldUser" in typed("fleet", "status").out, lambda: shown)  # once SLURM has looked at it
    assert f'Did you mean "{job}_1"' in typed("fleet", "cancel", f"{job}_11", code=2).err
    assert "clipstudy fleet cancel --all" in typed("fleet", "cancel", code=2).err
    assert json.loads(typed("fleet", "cancel", f"{job}_1", "--json").out) == {"cancelled": [f"{job}_1"]}
    assert typed("fleet", "cancel", "--all").out == "2 workers cancelled\n"
    until(lambda: "pending" not in typed("fleet", "status").out, lambda: typed("fleet", "status").out)
    assert totals(typed) == {"queued": 9}


def test_where_there_is_no_cluster(place: Place, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("enqueue", "--all")
    alone = typed("fleet", "submit", code=2).err
    assert "a file that one machine alone can use" in alone and "CLIPSTUDY_DATABASE=postgresql://" in alone
    monkeypatch.setenv("PATH", str(place.folder))
    missing = typed("fleet", "status", code=2).err
    assert "There is no squeue on this machine" in missing and "clipstudy worker --drain" in missing


def test_the_cluster_that_does_not_answer_is_named(place: Place, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("enqueue", "--all")
    program = place.folder / "squeue"
    program.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.folder}:{os.environ['PATH']}")
    assert "Unable to contact slurm controller. Is the cluster up?" in typed("fleet", "status", code=2).err
