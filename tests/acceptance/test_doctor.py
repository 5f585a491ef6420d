"""`clipstudy doctor` and `clipstudy worker --workers`, as they are typed."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from clipstudy.queue import dialect, jobs
from clipstudy.settings import Settings
from tests.acceptance.conftest import Place, Typed, totals


def test_doctor(place: Place, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clipstudy init" in typed("doctor", code=1).out  # there is no job table yet
    typed("init")
    well = json.loads(typed("doctor", "--json").out)
    assert well["well"] and {f["level"] for f in well["findings"]} <= {"ok", "warning"}

    typed("enqueue", "--task", "phrases", "--model", "bert")
    engine = dialect.connect(Settings.read().database)
    jobs.claim(engine, "dead", lease=timedelta(0))
    engine.dispose()
    said = typed("doctor", code=1).out
    line = next(line for line in said.splitlines() if line.startswith("wrong"))
    assert "3 cells running under a lease that ran out" in line and "→ clipstudy doctor --fix" in said
    assert totals(typed) == {"running": 3}
    told = json.loads(typed("doctor", "--json", code=1).out)
    assert not told["well"] and [f["what"] for f in told["findings"] if f["level"] == "wrong"] == ["leases"]

    assert "mended   leases" in typed("doctor", "--fix").out
    assert totals(typed) == {"queued": 3}
    assert ", 0 wrong, 0 mended" in typed("doctor", "--fix").out


def test_doctor_where_the_stores_cannot_be_used(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSTUDY_TRACKING", "./mlruns")
    assert "a plain folder, which MLflow no longer takes" in typed("doctor", code=1).out.replace("\n" + " " * 20, " ")
    monkeypatch.delenv("CLIPSTUDY_TRACKING")
    monkeypatch.setenv("CLIPSTUDY_DATABASE", "mysql://me:s3cret@host/name")
    said = typed("doctor", code=1).out
    assert "cannot hold the job table" in said and "s3cret" not in said


def test_gpus_that_are_not_there(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipstudy import device

    typed("enqueue", "--all")
    said = typed("worker", "--gpu", "x", code=2).err  # torch is asked, in a process of its own
    assert '--gpu "x": expected 0, or 0,1, or all. GPUs here: ' in said and "Type: clipstudy worker --" in said
    monkeypatch.setattr(device, "gpus", lambda: ())
    for asked in ("all", "0,1"):
        said = typed("worker", "--gpu", asked, code=2).err
        assert "GPUs here: none (torch sees no CUDA device). Type: clipstudy worker --device cpu" in said
    monkeypatch.setattr(device, "gpus", lambda: (device.Gpu(0, "H100", 2**20, 2**36), device.Gpu(1, "H100", 0, 2**36)))
    said = typed("worker", "--gpu", "all", "--min-memory", "0.5", code=2).err
    assert "GPU 1 (H100) is left out: 0.0 of 64.0 GB free, expected 0.5" in said and "--min-memory" in said


def test_what_cannot_be_said_together(typed: Typed) -> None:
    assert "name --gpu alone" in typed("worker", "--gpu", "0", "--workers", "2", code=2).err
