"""Opening MLflow: which stores are taken, the first use under a lock, and MLflow's errors in the house's words."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.lock import locked
from clipstudy.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "clipstudy"
#: Tags of an experiment: its kind, as MLflow's pages call it, and its description.
ABOUT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "What each layer of a model knows. One run a (model, task, layer), nested under one parent a (model, task), "
        "whose metrics have one step a layer: select the parents of several models to compare their curves. "
        "To see parents alone, search for ``tags.`clipstudy.level` = 'parent'``; one task, "
        "``tags.`clipstudy.task` = 'bigram_shift'``. `clipstudy dashboard` draws the same results as the report does."
    ),
}
SERVERS = ("http", "https")
#: How MLflow's client calls answers that no MLflow server gives: a proxy's own 404, https spoken to in http.
STRANGERS = ("ENDPOINT_NOT_FOUND", "BAD_REQUEST")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
#: Ours unless the user says otherwise. No retries inside MLflow: a request that was answered too late and is sent
#: again makes a second run; the outbox tries again by itself, and looks first.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def check(uri: str) -> None:
    """
    Raises:
        ClipstudyError: MLflow does not take such a store.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in SERVERS + DATABASES:
        return
    path = uri.removeprefix("file://").removeprefix("file:") or "mlruns"
    what = (
        "a plain folder, which MLflow no longer takes"
        if scheme in ("", "file")
        else f"of a kind ({scheme}) unknown here"
    )
    raise ClipstudyError(
        f"CLIPSTUDY_TRACKING is {redact(uri)!r}: {what}. "
        f"Say sqlite:///{Path(path) / 'mlflow.db' if scheme in ('', 'file') else 'mlruns/mlflow.db'} "
        "or the address of a server, http://host:5000"
    )


def set_defaults() -> None:
    """Before MLflow is imported: it reads some of these only then."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None: not a SQLite store."""
    return Path(uri.split("?")[0].split(":///", 1)[1]) if urlsplit(uri).scheme.startswith("sqlite") else None


def connect(uri: str, artifacts: str) -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, both made where they are not there yet. Safe in many processes at once.

    A SQLite store that may not be written to, a copy on another machine say, is opened for reading.

    Raises:
        TrackingUnreachable: the server or the database does not answer.
        ClipstudyError: the experiment was deleted, or the store is of another MLflow version.
    """
    file = sqlite_file(uri)
    if file is not None and sealed(file):
        return _read_only(file, uri)
    with reaching(uri), _first_use(file), _quiet():
        from mlflow import MlflowClient

        if file is not None and not (file.exists() and file.stat().st_size):
            _make(file)
        if file is not None:
            _write_ahead(file, uri)
        client = MlflowClient(tracking_uri=uri)
        # Artifact paths of a database store are fixed here, once and absolute; a server has its own.
        location = None if urlsplit(uri).scheme in SERVERS else artifacts
        if location and "://" not in location:
            location = Path(location).resolve().as_uri()
        return client, experiment(client, location)


def sealed(file: Path) -> bool:
    """Is there a store that may be read but not written to? SQLite writes beside the file too."""
    there = file.exists() and file.stat().st_size > 0
    return there and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def _read_only(file: Path, uri: str) -> tuple[MlflowClient, str]:
    """A client that reads ``file`` as it is and writes nothing, no lock either."""
    waiting = file.with_name(f"{file.name}-wal")
    if waiting.exists() and waiting.stat().st_size:
        raise TrackingUnreachable(
            f"The MLflow store {file} may not be written to, and a part of it still lies in {waiting.name}. Copy it "
            f"again without that: sqlite3 {file.name} \"VACUUM INTO 'copy.db'\", or let every program that uses it end "
            "first."
        )
    with reaching(uri), _quiet():
        from mlflow import MlflowClient

        # With its driver's name, or MLflow would make a folder called "file:" where the program was started.
        where = f"sqlite+pysqlite:///file:{quote(str(file.resolve()))}?mode=ro&immutable=1&uri=true"
        client = MlflowClient(tracking_uri=where)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise TrackingUnreachable(f"The MLflow store {file} may not be written to, and holds no study.")
        return client, found.experiment_id


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns MLflow's ways of saying "no answer" into ours; anything else passes."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except MlflowException as error:
        translated = _translate(error, uri)
        if translated is None:
            raise
        raise translated from error
    except OperationalError as error:  # the first connection to a database that is away
        raise TrackingUnreachable(
            f"The MLflow store {redact(uri)} does not answer ({_text_of(error)}). Check CLIPSTUDY_TRACKING."
        ) from error


def _text_of(error: Exception) -> str:
    text = redact(" ".join(str(error).split()))
    if refused := re.search(r"(Connection refused|Name or service not known|timed out|No route to host)", text):
        return refused[0].lower()
    return textwrap.shorten(text, 300, placeholder=" …")


def _translate(error: Exception, uri: str) -> ClipstudyError | None:
    where, text = redact(uri), _text_of(error)
    code, status = getattr(error, "error_code", ""), error.get_http_status_code()  # type: ignore[attr-defined]
    if "out-of-date database schema" in text:
        return ClipstudyError(f"The MLflow store {where} is of another MLflow version. Type: mlflow db upgrade {where}")
    if urlsplit(uri).scheme not in SERVERS:
        if code != "TEMPORARILY_UNAVAILABLE":
            return None
        return TrackingUnreachable(
            f"The MLflow store {where} does not answer ({text}). Check CLIPSTUDY_TRACKING; "
            "what was computed is kept in the outbox meanwhile."
        )
    if status == 403 or "403" in text.partition(":")[0]:
        return TrackingUnreachable(
            f"MLflow at {where} refuses this client (HTTP 403: {text}). Start the server with --allowed-hosts "
            f"{urlsplit(uri).hostname or ''} (or check its login), or fix CLIPSTUDY_TRACKING."
        )
    if status == 401:
        return TrackingUnreachable(
            f"MLflow at {where} wants a login. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if code in STRANGERS:
        return TrackingUnreachable(
            f"What answers at {where} is not MLflow, or one older than 3 ({text}). Check CLIPSTUDY_TRACKING: its "
            "scheme, port and path; what was computed is kept in the outbox meanwhile."
        )
    if status >= 500 or status == 429 or _lost_connection(error):
        return TrackingUnreachable(
            f"MLflow does not answer at {where} ({text}). Check CLIPSTUDY_TRACKING and that the server runs; "
            "what was computed is kept in the outbox meanwhile."
        )
    return None


def _lost_connection(error: BaseException | None) -> bool:
    import requests

    while error is not None:
        if isinstance(error, requests.exceptions.RequestException):
            return True
        error = error.__cause__ or error.__context__
    return False


def experiment(client: MlflowClient, location: str | None, name: str = EXPERIMENT) -> str:
    """The id of the experiment, made where it is not there yet.

    Args:
        location: where its runs' files go; None: where the server says.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=location, tags=ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was quicker
            assert found is not None
    if found.lifecycle_stage != "active":
        raise ClipstudyError(
            f"The experiment {name!r} was deleted in MLflow. "
            f"Type: mlflow experiments restore --experiment-id {found.experiment_id}; then: clipstudy doctor --fix"
        )
    return found.experiment_id


def _make(file: Path) -> None:
    """A fresh store, made elsewhere and moved here whole: a process that is killed amid MLflow's hundred migrations
    leaves a file that no version of MLflow can open again."""
    from mlflow import MlflowClient

    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").get_experiment_by_name(EXPERIMENT)
        with (
            contextlib.closing(sqlite3.connect(f"{folder}/mlflow.db")) as made,
            contextlib.closing(sqlite3.connect(new)) as copy,
        ):
            made.backup(copy)
    new.replace(file)


def _write_ahead(file: Path, uri: str) -> None:
    """Sets WAL, which stays with the file. Before MLflow opens it: on a file that cannot be used it would try for
    minutes."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise TrackingUnreachable(
            f"The MLflow store {redact(uri)} cannot be opened ({error}). Check CLIPSTUDY_TRACKING and that the file "
            "is a database that you may write to."
        ) from error


@contextlib.contextmanager
def _first_use(file: Path | None) -> Iterator[None]:
    """Several processes that open a fresh SQLite store at once break its schema for good: one after another."""
    with contextlib.ExitStack() as held:
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(file.with_name(file.name + ".lock")))
            except OSError as error:
                raise TrackingUnreachable(
                    f"The folder of the MLflow store {file} cannot be written to ({error.strerror}). "
                    "Check CLIPSTUDY_TRACKING."
                ) from error
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's first use prints one line a schema migration, about a hundred."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
