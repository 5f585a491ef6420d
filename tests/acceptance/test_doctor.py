"""`clipstudy doctor` and `clipstudy worker --workers`, as they are typed."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from typing import Any

import pytest

from clipstudy import device, supervisor
from clipstudy.cli import stores, work
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
    typed("init")
    monkeypatch.setenv("CLIPSTUDY_TRACKING", "./mlruns")
    assert "a plain folder, which MLflow no longer takes" in typed("doctor", code=1).out.replace("\n" + " " * 20, " ")
    told = json.loads(typed("doctor", "--fix", "--json", code=1).out)["findings"]
    assert {("leases", "ok"), ("outbox", "ok"), ("runs", "warning")} <= {(f["what"], f["level"]) for f in told}
    monkeypatch.delenv("CLIPSTUDY_TRACKING")
    monkeypatch.setenv("CLIPSTUDY_DATABASE", "mysql://me:s3cret@host/name")
    said = typed("doctor", code=1).out
    assert "cannot hold the job table" in said and "s3cret" not in said


def test_doctor_where_the_settings_cannot_be_read(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPSTUDY_DATABASE", "CLIPSTUDY_TRACKING"):
        monkeypatch.setenv(name, "sqlite://x.db")
        assert f"export {name}=sqlite:///FOLDER/file.db" in typed("doctor", code=1).out.replace("\n" + " " * 20, " ")
        told = json.loads(typed("doctor", "--json", code=1).out)
        assert not told["well"] and [f["what"] for f in told["findings"]] == ["settings"]
        assert "which names no file" in typed("status", code=2).err
        monkeypatch.delenv(name)


def test_gpus_that_are_not_there(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("enqueue", "--all")
    said = typed("worker", "--gpu", "x", code=2).err  # torch is asked, in a process of its own
    assert '--gpu "x": expected 0, or 0,1, or all. GPUs here: ' in said and "Type: clipstudy worker --" in said
    monkeypatch.setattr(device, "gpus", lambda: ())
    for asked in ("all", "0,1"):
        said = typed("worker", "--gpu", asked, code=2).err
        assert "GPUs here: none (torch sees no CUDA device). Type: clipstudy worker --device cpu" in said
    monkeypatch.setattr(device, "gpus", lambda: (device.Gpu(0, "H100", 2**20, 2**36), device.Gpu(1, "H100", 0, 2**36)))
    said = typed("worker", "--gpu", "all", "--min-memory", "0.5", code=2).err
    assert "GPU 1 (H100) is left out: 0.0 of 64.0 GiB free, expected 0.5" in said and "--min-memory" in said
    said = typed("worker", "--gpu", "0", "--min-memory", "0.5", code=2).err
    assert "GPU 0 (H100) is left out: 0.0 of 64.0 GiB free, expected 0.5" in said


def test_what_cannot_be_said_together(typed: Typed) -> None:
    assert "name --gpu alone" in typed("worker", "--gpu", "0", "--workers", "2", code=2).err
    for place_of in (["--workers", "2"], ["--device", "cpu"], []):
        assert "name them with --gpu" in typed("worker", "--min-memory", "1", *place_of, code=2).err
    assert "not both" in typed("status", "--watch", "--json", code=2).err
    assert "not both" in typed("fleet", "cancel", "1234", "--all", code=2).err


@pytest.mark.parametrize("place_of", ["cpu", "cuda:0"])
def test_each_of_several_workers_has_the_threads_that_were_named(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, place_of: str
) -> None:
    def supervise(_engine: object, posts: list[supervisor.Post], words: list[str]) -> int:
        told.extend([*words, *post.words] for post in posts)
        return 0

    told: list[list[str]] = []
    typed("enqueue", "--all")
    monkeypatch.setattr(device, "find", lambda asked: asked)
    monkeypatch.setattr(work, "_supervise", supervise)
    typed("worker", "--workers", "2", "--device", place_of, "--threads", "4")
    assert len(told) == 2 and all(words[words.index("--threads") + 1] == "4" for words in told)


def test_whatever_ends_the_one_who_tends_them_stops_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[supervisor.Crew] = []

    class Broken(supervisor.Crew):
        def tend(self) -> bool:
            looks.append(self)
            if len(looks) == 1:
                raise ZeroDivisionError
            return super().tend()

    engine: Any = None
    monkeypatch.setattr(supervisor, "Crew", Broken)
    monkeypatch.setattr(supervisor, "obey_signals", lambda crew: None)
    with pytest.raises(ZeroDivisionError):
        work._supervise(engine, [], [])
    assert looks[-1].stopping == 1


@pytest.mark.parametrize(("words", "code"), [(["--drain"], supervisor.STOPPED), ([], 0)])
def test_a_worker_that_is_told_to_stop_as_it_starts(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    """It ends as one that was told later: whoever tends it goes by the code."""

    def told(_settings: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal ended nothing")

    monkeypatch.setattr(stores, "engine", told)
    typed("worker", *words, code=code)
