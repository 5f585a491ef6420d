"""Downloading what is missing, each file compared with its publisher's checksum."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clipstudy import hub
from clipstudy.data import Released
from clipstudy.errors import ClipstudyError, NotFetched
from clipstudy.fetch import released
from clipstudy.fetch.items import MEGA, Failure, Survey
from clipstudy.fetch.manifest import record
from clipstudy.hub import Repository
from clipstudy.progress import Progress


def fetch_all(surveys: Iterable[Survey], manifest: Path, progress: Progress) -> list[Failure]:
    """Fetch each item and write it into ``manifest`` at once, so that what was broken off goes on there. Returns what
    failed; the others are fetched all the same."""
    failed = []
    for surveyed in surveys:
        progress.batch(surveyed.item.name)
        try:
            fetch(surveyed, progress)
            record(manifest, surveyed)
        except ClipstudyError as error:
            failed.append(Failure(surveyed.item, error))
    return failed


def fetch(surveyed: Survey, progress: Progress) -> None:
    """Download what is missing of one item, and compare every file with its publisher's checksum.

    What came whole stays, so that a fetch that was broken off goes on where it stopped.

    Raises:
        ModelError, DataError: the publisher does not answer, or there is no room.
        NotFetched: what came, or what was here, is not what the publisher states. It is deleted.
    """
    source = surveyed.item.source
    if isinstance(source, Released):
        if surveyed.missing:
            released.download(source, surveyed.entries[0], progress)
        return
    _from_hub(source, surveyed, progress)


def _from_hub(source: Repository, surveyed: Survey, progress: Progress) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # ``progress`` tells

    total, before = surveyed.to_download, 0
    for entry in surveyed.missing:
        bar = _bar(progress, before, total)
        with hub.hub_errors(source):
            hf_hub_download(source.id, entry.path, repo_type=source.kind, revision=surveyed.commit, tqdm_class=bar)
        before += entry.size
    # All of it is here: this only writes down which commit the revision is, as readers look it up without network.
    folder = hub.snapshot(source)
    if folder.name != surveyed.commit:
        raise NotFetched(f"{source.where} moved from {surveyed.commit} to {folder.name} meanwhile. Run it again.")
    damaged = [path for entry in surveyed.entries if not entry.is_at(path := folder / entry.path)]
    for path in damaged:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    if damaged:
        raise NotFetched(
            f"{source.where}: {', '.join(path.name for path in damaged)} came damaged (not the checksum that the Hub "
            f"states). It is deleted. Run the command again."
        )


def _bar(progress: Progress, before: int, total: int) -> Any:
    """A class of progress bars, as huggingface_hub takes one, that show nothing themselves and tell ``progress``."""
    from tqdm import tqdm

    class Counted(tqdm):  # type: ignore[misc]  # the library is untyped
        def __init__(self, *args: Any, **more: Any) -> None:
            self.bytes = int(more.get("initial") or 0)
            super().__init__(*args, **(more | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            self.bytes += int(n or 0)
            progress("MB", (before + self.bytes) // MEGA, total // MEGA)

    return Counted
