"""What the doctor says of a machine: each way to be unfit, and what to type."""

from __future__ import annotations

import errno
import shutil
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest

from clipstudy.device import Gpu
from clipstudy.doctor import machine
from clipstudy.doctor.finding import Level
from clipstudy.queue import dialect
from clipstudy.settings import Settings
from clipstudy.tracking import Tracking
from tests.servers import answering, silent

GB = 2**30


def settings(tmp_path: Path, **environment: str) -> Settings:
    return Settings.read({"CLIPSTUDY_HOME": str(tmp_path), "CLIPSTUDY_CACHE": str(tmp_path / "cache"), **environment})


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    (fine,) = machine.packages()
    assert fine.level is Level.OK and f"torch {metadata.version('torch')}" in fine.says
    needed = ["torch>=999", "nowhere-to-be-found>=1.2", "numpy>=1", "ruff>=999; extra == 'dev'"]
    monkeypatch.setattr(machine, "requires", lambda name: needed)
    old, missing = machine.packages()
    assert {old.level, missing.level} == {Level.WRONG}
    assert old.says.endswith("is here, expected >=999") and old.do == "pip install 'torch>=999'"
    assert missing.says == "nowhere-to-be-found is not here, expected >=1.2"


def test_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (fine,) = machine.device(settings(tmp_path, CLIPSTUDY_DEVICE="cpu"))
    assert fine.level is Level.OK and "cpu" in fine.says
    (wrong,) = machine.device(settings(tmp_path, CLIPSTUDY_DEVICE="cuda:7"))
    assert wrong.level is Level.WRONG and "What exists: " in wrong.says


def test_a_driver_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    *_, told = machine.device(settings(tmp_path, CLIPSTUDY_DEVICE="cpu"))
    assert told.level is Level.WARNING and "torch sees no GPU" in told.says and "nvidia-smi" in told.do


def test_a_gpu_that_is_there_and_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes on the CPU by choice is told nothing of drivers. The GPU is made up."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.devices, "find", lambda asked: "cuda:0" if asked == "auto" else asked)
    (told,) = machine.device(settings(tmp_path, CLIPSTUDY_DEVICE="cpu"))
    assert told.level is Level.OK


def test_gpus_are_listed_with_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is made up: no GPU is here."""
    monkeypatch.setattr(machine.devices, "find", lambda asked: "cuda:0")
    monkeypatch.setattr(machine.devices, "described", lambda place: "cuda:0 (H100)")
    _, told = machine.device(settings(tmp_path), lambda: (Gpu(0, "H100", 60 * GB, 80 * GB),))
    assert told.says == "cuda:0 (H100): 60.0 of 80.0 GiB free"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f.what for f in machine.places(settings(tmp_path))} == {"disk"}
    assert machine.place("CLIPSTUDY_CACHE", tmp_path / "a" / "b").says.endswith("will be made")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere")):  # no folder; one that even root cannot write to
        wrong = machine.place("CLIPSTUDY_CACHE", folder)
        assert wrong.level is Level.WRONG and "cannot be written to" in wrong.says
        assert wrong.do == "export CLIPSTUDY_CACHE=ANOTHER_FOLDER"
        of_database = machine.place("CLIPSTUDY_DATABASE", folder)
        assert of_database.do == "export CLIPSTUDY_DATABASE=sqlite:///ANOTHER_FOLDER/clipstudy.db"
    for free, level in ((GB // 2, Level.WRONG), (5 * GB, Level.WARNING), (50 * GB, Level.OK)):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        assert machine.place("HF_HOME", tmp_path).level is level
        if level is not Level.OK:
            assert machine.place("CLIPSTUDY_DATABASE", tmp_path).do.endswith("=sqlite:///ANOTHER_FOLDER/clipstudy.db")


def test_a_place_below_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuses)
    wrong = machine.place("HF_HOME", tmp_path / "x")
    assert wrong.level is Level.WRONG and "cannot be written to (Permission denied)" in wrong.says


def asked(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Any:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    return machine.hub()


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert machine.hub().level is Level.OK and "HF_HUB_OFFLINE" in machine.hub().says
    monkeypatch.setattr(machine, "PATIENCE", 0.3)
    with silent() as url:
        began = time.monotonic()
        told = asked(monkeypatch, url)
        assert time.monotonic() - began < 5 and told.level is Level.WARNING
        assert told.says.startswith("HEAD http://127.0.0.1:") and "clipstudy fetch" in told.do
    assert asked(monkeypatch, "http://127.0.0.1:9").level is Level.WARNING


@pytest.mark.parametrize(("status", "level"), [(200, Level.OK), (401, Level.OK), (503, Level.WARNING)])
def test_hub_that_answers(monkeypatch: pytest.MonkeyPatch, status: int, level: Level) -> None:
    monkeypatch.setattr(machine, "PATIENCE", 20.0)
    with answering(status) as url:
        told = asked(monkeypatch, url)
    assert told.level is level


def test_the_hubs_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(monkeypatch, "http://me:secret@127.0.0.1:9")
    assert "secret" not in told.says and "***" in told.says


def test_clocks() -> None:
    there = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    at = there.timestamp()
    assert machine.clock(there, at - 0.1, at + 0.1).level is Level.OK
    assert machine.clock(there, at - 30, at + 30).level is Level.OK  # a slow answer is no skew
    behind, ahead = machine.clock(there, at - 61, at - 60), machine.clock(there, at + 60, at + 61)
    assert "this machine's is 60 s behind the database's" in behind.says
    assert "this machine's is 60 s ahead of the database's" in ahead.says
    assert {behind.level, ahead.level} == {Level.WARNING}


def test_a_table_of_another_version(tmp_path: Path, migrated_file: Path) -> None:
    shutil.copy(migrated_file, tmp_path / "jobs.db")
    engine = dialect.connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    assert [finding.level for finding in machine.table(engine)] == [Level.OK, Level.OK]
    with dialect.writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    (told,) = machine.table(engine)
    assert told.level is Level.WRONG and told.says.endswith("Type: clipstudy init")
    engine.dispose()
    (nothing,) = machine.table(dialect.connect(f"sqlite:///{tmp_path / 'none.db'}"))
    assert nothing.level is Level.WRONG and not (tmp_path / "none.db").exists()


def test_mlflow(tmp_path: Path, store: Tracking) -> None:
    assert machine.mlflow(store).level is Level.OK
    nothing = machine.mlflow(Tracking(f"sqlite:///{tmp_path / 'none.db'}", ""))
    assert nothing.level is Level.WARNING and nothing.do == "clipstudy init"
    assert not (tmp_path / "none.db").exists()
    away = machine.mlflow(Tracking("http://me:secret@127.0.0.1:9", ""))
    assert away.level is Level.WRONG and "CLIPSTUDY_TRACKING" in away.says and "secret" not in away.says
