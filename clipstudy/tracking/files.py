"""The files that runs keep: where they are, written in one go, read back by name."""

from __future__ import annotations

import functools
import tempfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from clipstudy.errors import ClipstudyError
from clipstudy.outcome import LOG, Artifact
from clipstudy.redaction import redact
from clipstudy.tracking import store
from clipstudy.tracking.entry import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

#: Schemes of folders of this machine; and of addresses that MLflow asks the server about once more, which may lead to
#: one. Any other is the server's own, an object store's, or that of a plugin which somebody installed here.
FOLDERS, ASKED_AGAIN = ("", "file", "dbfs"), ("runs", "models")


class Opened:
    """One MLflow store or server, opened at the first call. Its methods are for the rooms of this package."""

    def __init__(self, tracking_uri: str, artifacts_uri: str) -> None:
        store.check(tracking_uri)
        store.set_defaults()
        self.uri = tracking_uri
        self.artifacts_uri = artifacts_uri
        self._lock = threading.Lock()
        self._opened: tuple[MlflowClient, str] | None = None

    def connect(self) -> tuple[MlflowClient, str]:
        """MLflow's client and the experiment's id, as :func:`store.connect`; the same at every call."""
        with self._lock:
            if self._opened is None:
                self._opened = store.connect(self.uri, self.artifacts_uri)
            return self._opened

    def empty(self) -> bool:
        """Whether there is no store yet. A reader asks first: connecting would make one."""
        file = store.sqlite_file(self.uri)
        return file is not None and not file.exists()

    def reaching(self) -> AbstractContextManager[None]:
        """As :func:`store.reaching`: MLflow's errors in the house's words."""
        return store.reaching(self.uri)


class Files(Opened):
    """The files of a store's runs."""

    def artifact(self, run_id: str, name: str) -> bytes:
        """A file that was kept with the run.

        Raises:
            ClipstudyError: the run kept none of that name.
        """
        with self.reaching():
            client, _ = self.connect()
            if _within(run_id) and _within(name):
                if (here := self._folder(run_id)) is not None:
                    if name in _files(here):
                        return (here / name).read_bytes()
                else:
                    kept = self._repository(client.get_run(run_id))
                    folder = str(PurePosixPath(name).parent)
                    if any(file.path == name for file in kept.list_artifacts(None if folder == "." else folder)):
                        with tempfile.TemporaryDirectory() as place:
                            return Path(kept.download_artifacts(name, place)).read_bytes()
            raise ClipstudyError(
                f"Run {run_id} kept no {name}: its kind of task makes none, or the file was removed. "
                "Type: clipstudy rerun --model NAME --task NAME" + (f" ({gone})" if (gone := self.gone()) else "")
            )

    def files(self, run_id: str) -> list[str]:
        """The names of all files that were kept with the run, those in folders too."""
        with self.reaching():
            client, _ = self.connect()
            if (here := self._folder(run_id)) is not None:
                return _files(here)
            kept = self._repository(client.get_run(run_id))
            names: list[str] = []
            folders: list[str | None] = [None]
            while folders:
                for file in kept.list_artifacts(folders.pop()):
                    if _within(file.path):
                        (folders if file.is_dir else names).append(file.path)
            return sorted(names)

    def gone(self) -> str:
        """Why no run has files: the folder that the store names is not on this machine; empty where it is."""
        if self.empty() or (place := self._place()) is None or place.is_dir():
            return ""
        return (
            f"The runs' files are not here: the store says that they are in {place}. Copy that folder too, and set "
            "CLIPSTUDY_ARTIFACTS to where it is"
        )

    def _place(self) -> Path | None:
        """The folder of all runs' files; None where no file system of this machine should have it, and where a server
        is asked, which chooses no folder of ours.

        The store names it once and for all. Where it came here from another machine together with its files, they are
        in the folder that the settings name.
        """
        if urlsplit(self.uri).scheme in store.SERVERS:
            return None
        named = urlsplit(self._artifact_location)
        if named.scheme != "file":
            return None
        place, here = Path(unquote(named.path)), Path(self.artifacts_uri)
        return here if not place.is_dir() and here.is_dir() else place

    @functools.cached_property
    def _artifact_location(self) -> str:
        client, experiment = self.connect()
        with self.reaching():
            return str(client.get_experiment(experiment).artifact_location)

    def _folder(self, run_id: str) -> Path | None:
        """Where MLflow puts the files of a run, if that is a folder of this machine."""
        place = self._place()
        return None if place is None else place / run_id / "artifacts"

    def _repository(self, run: Run) -> ArtifactRepository:
        """Where the run's files are, by the very answer that is checked here: MLflow's client, given the run's id,
        would ask the server once more, which may then say something else.

        Raises:
            ClipstudyError: a server names a folder of this machine (ours excepted), or what may lead to one.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self._check_place(run)
        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)

    def _check_place(self, run: Run) -> None:
        from mlflow.utils.file_utils import local_file_uri_to_path

        said = run.info.artifact_uri or ""
        scheme = urlsplit(said).scheme
        if urlsplit(self.uri).scheme not in store.SERVERS or scheme not in FOLDERS + ASKED_AGAIN:
            return
        at = redact(said)
        if scheme in FOLDERS:
            folder = Path(local_file_uri_to_path(said)).resolve()  # as MLflow takes it, whatever the address looks like
            if self.artifacts_uri and folder.is_relative_to(Path(self.artifacts_uri).resolve()):
                return
            at = f"in the folder {folder} of this machine"
        raise ClipstudyError(
            f"MLflow at {redact(self.uri)} says that files of run {run.info.run_id} are {at}, which it may not choose. "
            "Start it with --artifacts-destination, so that it keeps them; or, where you both share a folder, set "
            "CLIPSTUDY_ARTIFACTS to it."
        )

    def _keep(self, run: Run, entry: Entry) -> None:
        """The entry's files, in one go; writing a file again replaces it."""
        files = [*entry.artifacts]
        if entry.log:
            files.append(Artifact(LOG, entry.log.encode(errors="replace")))
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for artifact in files:
                if not _within(artifact.name):
                    raise ValueError(f"an artifact cannot be called {artifact.name!r}")
                path = Path(folder) / artifact.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(artifact.content)
            self._repository(run).log_artifacts(folder)


def _within(name: str) -> bool:
    """Does an artifact's name stay in the folder that it is put into? A server's names are asked as well as ours."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not {"\0", "\\"} & set(name)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
