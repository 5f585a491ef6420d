"""Draining workers on a SLURM cluster: submitted by submitit, watched by squeue, ended by scancel.

The cluster knows only processes; what is computed, and what a vanished worker leaves behind, the job table knows. So
nothing is kept here: a fleet is what SLURM lists under the name that :func:`name` derives from the job table's URL.

submitit pickles a Python function for each job, and a compute node would unpickle it. What a worker has to do is a line
of shell, so of submitit's executor only the half is used that writes a script for such a line and hands it to sbatch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from clipstudy.errors import AWAY, BUG, FleetError, did_you_mean
from clipstudy.job import Status
from clipstudy.queue import jobs
from clipstudy.redaction import redact
from clipstudy.settings import Settings
from clipstudy.supervisor import STOPPED

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: Seconds before a job's time limit at which its worker is told to give back what it holds.
NOTICE = 120
#: Exit codes of a worker whose job is queued again: it was told to leave, which it says itself or (128 + the signal's
#: number) where the signal met it before it could listen. An scancel ends the script too, and nothing is queued again.
_AGAIN = (STOPPED, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
#: And those with which it ends where the next time may go better: a database that is away, a GPU that broke.
_SOMETIMES = (AWAY, BUG)
#: So often at most in its job's life: what always ends so (a database that is not known by that name) would go on.
_MOST = 20
_WITHOUT = "Without a cluster, start workers by hand: clipstudy worker --drain"
_SPLIT = "\t"


@dataclass(frozen=True)
class Wanted:
    """What is asked of the cluster."""

    workers: int
    gpus: int = 1  #: of each worker's job; 0: it computes on the CPU
    cpus: int | None = None
    memory: str | None = None  #: as sbatch has it: 32G
    time: str | None = None  #: as sbatch has it: 4:00:00 or 1-12
    partition: str | None = None
    options: Mapping[str, str | bool] = field(default_factory=dict)  #: further ones of sbatch: account → vision
    words: tuple[str, ...] = ()  #: further ones of `clipstudy worker`


@dataclass(frozen=True)
class Submitted:
    """An array of workers that SLURM has taken."""

    job: str  #: the array's number; its members are JOB_0, JOB_1, …
    workers: int
    script: Path
    logs: str  #: pattern of the members' logs


@dataclass(frozen=True)
class Member:
    """One job of the fleet."""

    job: str  #: ARRAY_INDEX: what scancel takes
    number: str  #: its own number, which its workers bear in their names
    state: str  #: SLURM's: PENDING, RUNNING, COMPLETED, …
    partition: str
    ran: str  #: as squeue has it: 1-02:03:04
    where: str  #: its node, or in brackets why it waits
    log: Path
    workers: tuple[jobs.WorkerInfo, ...] = ()  #: those of the job table that run in it


def name(settings: Settings) -> str:
    """What SLURM calls the jobs that work on this job table."""
    database = make_url(settings.database).render_as_string(hide_password=True)
    return f"clipstudy-{hashlib.sha256(database.encode()).hexdigest()[:8]}"


def folder(settings: Settings) -> Path:
    """Where scripts and logs are. On a cluster it must lie on a disk that the nodes share."""
    return settings.home / "mlruns" / "fleet"


def check() -> None:
    """Raises FleetError where this machine has none of SLURM's programs."""
    _present("sbatch", "srun", "sinfo", "squeue")


def submit(settings: Settings, wanted: Wanted) -> Submitted:
    """Hand an array of draining workers to SLURM.

    Raises FleetError: no SLURM here, a database that nodes cannot share, an unknown partition, or what sbatch refuses.
    """
    check()
    _shared(settings)
    partitions = [line.split(_SPLIT)[0] for line in _ask("sinfo", "--noheader", "--format=%R")]
    if wanted.partition and not set(wanted.partition.split(",")) <= set(partitions):
        unknown = next(p for p in wanted.partition.split(",") if p not in partitions)
        raise FleetError(f'--partition "{unknown}": this cluster has none. {did_you_mean(unknown, partitions)}')
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    logs = folder(settings)
    logs.mkdir(parents=True, exist_ok=True)
    executor = SlurmExecutor(logs)
    executor.update_parameters(**_parameters(settings, wanted))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # what sbatch says is said once, below
            job = executor._submit_command(_command(wanted))
    except FailedJobError as error:
        for script in logs.glob(".submission_file_*"):
            if not script.is_symlink():
                script.unlink()
        raise FleetError(_refused(str(error))) from error
    return Submitted(job.job_id, wanted.workers, job.paths.submission_file, str(logs / f"{job.job_id}_*.log"))


def members(settings: Settings, engine: Engine) -> list[Member]:
    """The fleet of this job table as SLURM lists it: what waits and runs, and for some minutes what has ended."""
    columns = ("%i", "%A", "%T", "%P", "%M", "%R")
    lines = _ask(
        "squeue", "--me", "--array", "--states=all", f"--name={name(settings)}", "--noheader", "--sort=i",
        f"--format={_SPLIT.join(columns)}",
    )  # fmt: skip
    does: dict[str | None, str] = {}  # the workers' own table says what they did at their last sign of life
    for row in jobs.rows(engine, statuses=[Status.RUNNING], newest_only=False):
        does[row.worker] = f"{row.model} · {row.task}"
    at_work = [replace(worker, batch=does.get(worker.name)) for worker in jobs.workers(engine)]
    found = []
    for line in lines:
        job, number, state, partition, ran, where = line.split(_SPLIT)
        here = tuple(w for w in at_work if f":slurm-{number}:" in w.name)
        found.append(Member(job, number, state, partition, ran, where, folder(settings) / f"{job}.log", here))
    return found


def cancel(settings: Settings, engine: Engine, wanted: Sequence[str]) -> list[str]:
    """End jobs of this fleet: members (1234_5), whole arrays (1234), or all where none is named. Workers give back
    what they hold. Returns the members that were waiting or running."""
    live = [m.job for m in members(settings, engine) if m.state in LIVE]
    for one in wanted:
        if not any(one in (job, job.split("_")[0]) for job in live):
            raise FleetError(f'"{one}" is no job of this fleet. {did_you_mean(one, live)} See: clipstudy fleet status')
    ended = [job for job in live if not wanted or job in wanted or job.split("_")[0] in wanted]
    if ended:
        _ask("scancel", *ended)
    return ended


#: States of a job that has not ended.
LIVE = frozenset(["PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "PREEMPTED", "STOPPED"])


def _parameters(settings: Settings, wanted: Wanted) -> dict[str, object]:
    """In submitit's words; what it has none for goes to sbatch as it is."""
    further = {
        "array": f"0-{wanted.workers - 1}",
        "output": str(folder(settings) / "%A_%a.log"),
        "requeue": True,
        "signal": f"USR1@{NOTICE}",
        **wanted.options,
    }
    codes = " | ".join(map(str, _AGAIN))
    # Not $SLURM_JOB_ID: of an array's last member it is the whole array's.
    often = " | ".join(map(str, _SOMETIMES))
    few = f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {_MOST} ]'
    again = 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    return {
        "job_name": name(settings),
        "partition": wanted.partition,
        "time": wanted.time,
        "gpus_per_node": wanted.gpus or None,
        "cpus_per_task": wanted.cpus,
        "mem": wanted.memory,
        "wckey": None,  # submitit's own default is "submitit", which a cluster may not know
        "stderr_to_stdout": True,
        "use_srun": False,  # it is in the command, whose log then is the script's: one a member
        "additional_parameters": further,
        "teardown": [
            "code=$?",
            f"case $code in {codes}) {again} ;; {often}) {few} && {again} ;; esac",
            "exit $code",
        ],
    }


def _command(wanted: Wanted) -> str:
    """Under srun, which is whom a cluster's signals reach; a batch script would not pass them on."""
    device = ("--gpu", ",".join(map(str, range(wanted.gpus)))) if wanted.gpus else ("--device", "cpu")
    cpus = [f"--cpus-per-task={wanted.cpus}"] if wanted.cpus else []  # srun does not take it from sbatch
    worker = [sys.executable, "-m", "clipstudy", "worker", "--drain", *device, *wanted.words]
    return shlex.join(["srun", "--unbuffered", *cpus, *worker])


def _shared(settings: Settings) -> None:
    for variable, url, instead in (
        ("CLIPSTUDY_DATABASE", settings.database, "a Postgres: CLIPSTUDY_DATABASE=postgresql://user@host/name"),
        ("CLIPSTUDY_TRACKING", settings.tracking, "an MLflow server: CLIPSTUDY_TRACKING=http://host:5000"),
    ):
        if url.startswith("sqlite"):
            raise FleetError(
                f"{variable} is {redact(url)}, a file that one machine alone can use. What a cluster's nodes share is "
                f"{instead}. {_WITHOUT}"
            )


def _present(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise FleetError(
            f"There is no {' and no '.join(missing)} on this machine, so no SLURM cluster to submit to. Type this on "
            f"the cluster's login node (there perhaps first: module load slurm). {_WITHOUT}"
        )


def _ask(*command: str) -> list[str]:
    """The lines that one of SLURM's programs prints."""
    _present(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise FleetError(f"{command[0]} has not answered for two minutes. Try: scontrol ping") from None
    if done.returncode:
        raise FleetError(
            f"{command[0]} says: {_complaints(done.stderr) or 'nothing'}. Is the cluster up? Try: scontrol ping"
        )
    return done.stdout.splitlines()


def _refused(stderr: str) -> str:
    text = _complaints(stderr)
    if "gres" in text or "--gpus" in text:
        then = "Nodes with GPUs, or so many, may be in another --partition; --gpus-per-worker 0 asks for none."
    elif "--time" in text:
        then = "Write 4:00:00 for hours, 1-12 for days and hours, 90 for minutes."
    elif "ontact" in text:
        then = "Is the cluster up? Try: scontrol ping"
    else:
        then = "Fix the option, or add what the cluster wants by --sbatch KEY=VALUE (--sbatch account=NAME)."
    return f"sbatch refused: {text}. {then}"


def _complaints(stderr: str) -> str:
    """SLURM's complaints without their prefixes, each once."""
    lines = [re.sub(r"^(\w+: )?(error|fatal): ", "", line).strip().rstrip(".") for line in stderr.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))
