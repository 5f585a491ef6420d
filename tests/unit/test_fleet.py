"""What is handed to a cluster, where there is none: stand-ins take the place of SLURM's programs, submitit is real."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipstudy import fleet
from clipstudy.settings import Settings

PROGRAMS = {"sinfo": "echo common", "srun": ":", "sbatch": 'echo "Submitted batch job 71"'}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, does in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_submitit_hands_over_a_line_of_shell(tmp_path: Path, programs: None) -> None:
    """By a half of it that is not its public face: whether this version has it is seen here."""
    home = {"CLIPSTUDY_HOME": str(tmp_path), "CLIPSTUDY_DATABASE": "postgresql://h/d"}
    settings = Settings.read(home | {"CLIPSTUDY_TRACKING": "http://h:5000"})
    submitted = fleet.submit(settings, fleet.Wanted(2, gpus=0, memory="3G", options={"account": "vision"}))
    assert (submitted.job, submitted.workers) == ("71", 2)
    script = submitted.script.read_text()
    for line in ("--array=0-1", "--signal=USR1@120", "--mem=3G", "--account=vision", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert "-m clipstudy worker --drain --device cpu" in script
    assert "case $code in 75 | 138 | 143) scontrol requeue" in script, "who was told to leave"
    assert '69 | 70) [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ] && scontrol requeue' in script, (
        "who met no database, some times"
    )
    assert [file.suffix for file in fleet.folder(settings).iterdir() if "pkl" in file.suffix] == []
