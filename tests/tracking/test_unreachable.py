"""A server that is away, refuses, or hangs says so in seconds and in the house's words."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.outcome import Artifact
from clipstudy.tracking import Tracking
from tests.servers import answering, free_port, silent


def refused(url: str, match: str) -> float:
    begun = time.monotonic()
    with pytest.raises(TrackingUnreachable, match=match) as caught:
        Tracking(url, "").results()
    assert caught.value.transient
    return time.monotonic() - begun


def test_nothing_listens() -> None:
    assert refused(f"http://127.0.0.1:{free_port()}", "CLIPSTUDY_TRACKING") < 10


def test_the_password_is_not_told() -> None:
    with pytest.raises(TrackingUnreachable) as caught:
        Tracking("http://me:secret@127.0.0.1:1", "").results()
    assert "secret" not in caught.value.message and "***" in caught.value.message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_server_errors(status: int) -> None:
    with answering(status) as url:
        assert refused(url, "does not answer") < 10


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_store_of_files_that_is_away(status: int) -> None:
    run: Any = SimpleNamespace(info=SimpleNamespace(run_id="r", artifact_uri="mlflow-artifacts:/1/r/artifacts"))
    entry: Any = SimpleNamespace(artifacts=(Artifact("a.txt", b"a"),), log="")
    with answering(status) as url:
        tracking = Tracking(url, "")
        with pytest.raises(TrackingUnreachable, match="does not answer"), tracking.reaching():
            tracking._keep(run, entry)


@pytest.mark.parametrize("status", [404, 400])
def test_what_answers_is_something_else(status: int) -> None:
    """A proxy while MLflow is started anew, or a wrong port: a worker waits, and its user reads what to look at."""
    with answering(status) as url:
        refused(url, "is not MLflow, or one older than 3 .*Check CLIPSTUDY_TRACKING: its scheme, port and path")


def test_a_login_is_wanted() -> None:
    with answering(401) as url:
        refused(url, "MLFLOW_TRACKING_USERNAME")


def test_a_real_server_that_does_not_know_the_host(server: str) -> None:
    refused(server.replace("127.0.0.1", "localhost"), "--allowed-hosts localhost")


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with silent() as url:
        assert refused(url, "does not answer") < 10


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("mlruns", r"sqlite:///mlruns/mlflow\.db"),
        ("./mlruns", r"sqlite:///mlruns/mlflow\.db"),
        ("/data/runs", r"sqlite:////data/runs/mlflow\.db"),
        ("file:///data/runs", r"sqlite:////data/runs/mlflow\.db"),
        ("s3://bucket/runs", "unknown"),
    ],
)
def test_stores_that_mlflow_does_not_take(uri: str, match: str) -> None:
    with pytest.raises(ClipstudyError, match=match) as caught:
        Tracking(uri, "")
    assert not caught.value.transient


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _text(path: Path) -> Path:
    path.write_text("no database, but long enough to be looked at" * 100)
    return path


@pytest.mark.parametrize("make", [_folder, _text])
def test_files_that_are_no_store(make: Callable[[Path], Path], tmp_path: Path) -> None:
    file = make(tmp_path / "mlflow.db")
    begun = time.monotonic()
    with pytest.raises(TrackingUnreachable, match="cannot be opened"):
        Tracking(f"sqlite:///{file}", str(tmp_path)).prepare()
    assert time.monotonic() - begun < 10


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingUnreachable, match="cannot be written"):
        Tracking(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", str(tmp_path)).prepare()


def test_a_deleted_experiment(sqlite_store: tuple[str, str]) -> None:
    tracking = Tracking(*sqlite_store)
    client, experiment = tracking.connect()
    client.delete_experiment(experiment)
    try:
        with pytest.raises(ClipstudyError, match=f"restore --experiment-id {experiment}"):
            Tracking(*sqlite_store).prepare()
    finally:
        client.restore_experiment(experiment)
