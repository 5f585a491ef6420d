"""A SLURM cluster of this machine alone, for a test: its own munge, controller, node, ports and folder, no systemd."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
#: Debian puts the daemons where only root's PATH leads.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=2000
PartitionName=common Nodes={host} Default=YES
PartitionName=urgent Nodes={host} PriorityTier=10 GraceTime=5
"""


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """What to add to the environment so that sbatch and its kin speak to it. Two partitions: `common`, and `urgent`,
    whose jobs preempt the others'. Four CPUs are pretended, and no GPU.

    Raises LookupError where the programs are not installed.
    """
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        raise LookupError(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="clipstudy-slurm-"))
    folder.chmod(0o755)  # munge wants its socket where everybody can come
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _start(folder, environment, daemons)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, environment: dict[str, str], daemons: list[subprocess.Popen[bytes]]) -> None:
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    host, ports = socket.gethostname().split(".")[0], _free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder, host=host, user=getpass.getuser(), controller_port=ports[0], node_port=ports[1]
        )
    )
    env = {**os.environ, **environment}
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    for command in (
        [
            "munged",
            "--foreground",
            f"--seed-file={folder}/munge.seed",
            *(f"--{k}={folder}/{v}" for k, v in files.items()),
        ],
        ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
        ["slurmd", "-D", "-f", f"{folder}/slurm.conf"],
    ):
        with (folder / f"{command[0]}.out").open("w") as out:
            daemons.append(subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=folder))
        if command[0] == "munged":
            _until(lambda: (folder / "munge.socket").exists(), folder)
    _until(lambda: _partitions(env) == {"idle"}, folder)


def _partitions(env: dict[str, str]) -> set[str]:
    asked = ["sinfo", "--noheader", "--format=%t"]
    return set(subprocess.run(asked, env=env, capture_output=True, text=True, timeout=30).stdout.split())


def _until(what: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "\n".join(file.read_text() for file in folder.glob("*.out"))
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
