"""Every weight and data set of a study, downloaded once, so that machines without network can run it.

What is fetched is what the backbones and readers declare that they read (``backbones.wanted``, ``data.wanted``). The
Hub's files go into the Hub's own cache (HF_HOME), released files to their ``path``; each is compared with the checksum
that its publisher states. The manifest, a JSON file a study under the cache folder, says what came: by it
:func:`verify` tells, with no network, whether all is here and whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from clipstudy import backbones, checksum, data, hub
from clipstudy.data import Released
from clipstudy.errors import ClipstudyError, DataError, NotFetched
from clipstudy.hub import Entry, Repository
from clipstudy.job import Group
from clipstudy.lock import locked
from clipstudy.progress import Progress

#: Of the manifest's layout.
VERSION = 1
SILENT_SECONDS = 30.0  #: after which a server that says nothing is given up
BLOCK = 1 << 20  #: bytes read at once
MEGA = 10**6

Source = Repository | Released


@dataclass(frozen=True)
class Item:
    """One repository at one revision, or one released file, and the tables that read it."""

    source: Source
    tables: tuple[str, ...]  #: ``models.bert``, ``datasets.wic``

    @property
    def key(self) -> str:
        """How the manifest calls it."""
        if isinstance(self.source, Released):
            return self.source.url
        return f"{self.source.kind}:{self.source.id}@{self.source.revision or 'main'}"

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.source.url if isinstance(self.source, Released) else self.source.id


@dataclass(frozen=True)
class Survey:
    """An item as its publisher has it now, beside what is on this machine."""

    item: Item
    commit: str | None  #: what the revision stands for; None: a released file
    entries: tuple[Entry, ...]
    here: frozenset[str]  #: paths of the entries that need no download

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def missing(self) -> tuple[Entry, ...]:
        """What is yet to be downloaded."""
        return tuple(entry for entry in self.entries if entry.path not in self.here)

    @property
    def to_download(self) -> int:
        """Bytes of that."""
        return sum(entry.size for entry in self.missing)


def wanted(groups: Iterable[Group]) -> list[Item]:
    """What the models and data sets of ``groups`` take from elsewhere, each repository once. Local files are left out.

    Raises:
        ModelError, DataError: a table names what cannot be.
    """
    groups = list(groups)
    models = {model.name: model for group in groups for model in (group.model, group.task.reference) if model}
    datasets = {group.dataset.name: group.dataset for group in groups}
    items: dict[str, Item] = {}
    for source in (
        *(source for model in models.values() for source in backbones.wanted(model)),
        *(source for spec in datasets.values() if (source := data.wanted(spec))),
    ):
        item = Item(source, (source.table,))
        items[item.key] = _joined(items[item.key], item) if item.key in items else item
    return list(items.values())


def _joined(one: Item, other: Item) -> Item:
    """Two tables that read one repository, each its own parts of it."""
    source = one.source
    if isinstance(source, Repository) and isinstance(other.source, Repository):
        source = replace(source, parts=tuple(dict.fromkeys((*source.parts, *other.source.parts))))
    return Item(source, tuple(dict.fromkeys((*one.tables, *other.tables))))


def survey_all(items: Iterable[Item]) -> tuple[list[Survey], list[str]]:
    """What :func:`survey` found of the items, and what it refused.

    Raises:
        NotFetched: HF_HUB_OFFLINE forbids to ask.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise NotFetched(
            "HF_HUB_OFFLINE is set, so nothing can be fetched. On a machine with network take it away "
            "(HF_HUB_OFFLINE=0 clipstudy fetch); here see what there is (clipstudy fetch --verify)."
        )
    found, refused = [], []
    for item in items:
        try:
            found.append(survey(item))
        except ClipstudyError as error:
            refused.append(error.message)
    return found, refused


def fetch_all(surveys: Iterable[Survey], manifest: Path, progress: Progress) -> list[str]:
    """Fetch each item and write it into ``manifest`` at once, so that what was broken off goes on there. Returns what
    failed; the others are fetched all the same."""
    failed = []
    for surveyed in surveys:
        progress.batch(surveyed.item.name)
        try:
            fetch(surveyed, progress)
        except ClipstudyError as error:
            failed.append(error.message)
        else:
            record(manifest, surveyed)
    return failed


def survey(item: Item) -> Survey:
    """Ask the publisher what there is, and look what is here. Nothing is downloaded.

    Raises:
        ModelError, DataError: the publisher does not answer, or has not what is wanted.
    """
    source = item.source
    if isinstance(source, Released):
        whole = source.path.is_file() and checksum.like(source.checksum, source.path) == source.checksum
        size = source.path.stat().st_size if whole else _size(source)
        entry = Entry(source.path.name, size, source.checksum)
        return Survey(item, None, (entry,), frozenset({entry.path} if whole else ()))
    from huggingface_hub import try_to_load_from_cache

    commit, entries = hub.listing(source)
    here = (
        entry.path
        for entry in entries
        if isinstance(try_to_load_from_cache(source.id, entry.path, revision=commit, repo_type=source.kind), str)
    )
    return Survey(item, commit, entries, frozenset(here))


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
            _download(source, surveyed.entries[0], progress)
        return
    _download_from_hub(source, surveyed, progress)


def _download_from_hub(source: Repository, surveyed: Survey, progress: Progress) -> None:
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
    damaged = [path for entry in surveyed.entries if _differs(path := folder / entry.path, entry)]
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


def _size(source: Released) -> int:
    """Bytes of a released file, as its server states them; 0 where it does not."""
    with _answer(source, "HEAD") as answer:
        return int(answer.headers.get("Content-Length") or 0)


def _download(source: Released, entry: Entry, progress: Progress) -> None:
    """Beside its place under another name until it is whole and the one meant."""
    if os.path.lexists(source.path):
        raise DataError(
            f"[{source.table}] path: {source.path} is there already, and is not the file that checksum says. It may be "
            "yours: move it away, or fix path; then run it again."
        )
    try:
        source.path.parent.mkdir(parents=True, exist_ok=True)
        part = source.path.with_name(f"{source.path.name}.{os.getpid()}.part")
        try:
            with _answer(source) as answer, part.open("wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    progress("MB", file.tell() // MEGA, entry.size // MEGA)
            if (found := checksum.like(source.checksum, part)) != source.checksum:
                raise DataError(
                    f"[{source.table}] url: {source.url} is now {found}, expected {source.checksum}: the file changed "
                    "there, or came damaged. Run the command again; if it stays so and you mean the new one, write its "
                    "checksum."
                )
            part.replace(source.path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"[{source.table}] {source.path} cannot be written: {error}. Fix path, or make room."
        ) from error


@contextlib.contextmanager
def _answer(source: Released, method: str = "GET") -> Iterator[Any]:
    request = urllib.request.Request(source.url, method=method, headers={"User-Agent": "clipstudy"})
    try:
        with urllib.request.urlopen(request, timeout=SILENT_SECONDS) as answer:
            yield answer
    except HTTPError as error:
        raise DataError(
            f"[{source.table}] url: {source.url} answers {error.code} {error.reason}. Fix the url."
        ) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"[{source.table}] url: {source.url} does not answer ({getattr(error, 'reason', error)}). Run it again on "
            "a machine with network."
        ) from error


def manifest_path(cache: Path, study: str) -> Path:
    """Where what was fetched of a study is written down."""
    return cache / "fetched" / f"{quote(study, safe=' ')}.json"


def record(path: Path, surveyed: Survey) -> None:
    """Write what was fetched into the manifest ``path``, beside what it holds of other items; safe in several processes
    at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        _record(path, surveyed)


def _record(path: Path, surveyed: Survey) -> None:
    item = surveyed.item
    tables, files = list(item.tables), {e.path: {"size": e.size, "checksum": e.checksum} for e in surveyed.entries}
    patterns = list(item.source.allow) if isinstance(item.source, Repository) else []
    items = dict(_read(path))
    before = items.get(item.key)
    if before and surveyed.commit and before["commit"] == surveyed.commit:  # what other tables read of it is here still
        tables, patterns = _union(before["tables"], tables), _union(before["patterns"], patterns)
        files = {**before["files"], **files}
    items[item.key] = {"tables": tables, "commit": surveyed.commit, "patterns": patterns, "files": files}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"version": VERSION, "items": items}, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys((*first, *second)))


def verify(items: Iterable[Item], path: Path) -> Iterator[tuple[Item, list[str]]]:
    """Each item with what is wrong with it here, by the manifest ``path``; without network. No problems: it is whole.

    Raises:
        NotFetched: the manifest cannot be read.
    """
    held = _read(path)
    for item in items:
        yield item, list(_problems(item, held.get(item.key)))


def _problems(item: Item, held: Any) -> Iterator[str]:
    source = item.source
    if held is None:
        yield "was not fetched"
        return
    entries = [Entry(name, about["size"], about["checksum"]) for name, about in held["files"].items()]
    if isinstance(source, Released):
        folder = source.path.parent
        if entries[0].checksum != source.checksum:
            yield f"the table wants {source.checksum}, fetched was {entries[0].checksum}"
    else:
        if not set(source.allow) <= set(held["patterns"]):
            yield "was fetched for less than the tables read now"
        try:
            folder = hub.cached(source)
        except ClipstudyError:
            yield f"is not in the Hub's cache, fetched was {held['commit']}"
            return
        if folder.name != held["commit"]:
            yield f"is at commit {folder.name} in the Hub's cache, fetched was {held['commit']}"
            return
    for entry in entries:
        at = folder / entry.path
        if not at.is_file():
            yield f"{entry.path} is missing"
        elif _differs(at, entry):
            yield f"{entry.path} is {checksum.like(entry.checksum, at)}, fetched was {entry.checksum}"


def _differs(path: Path, entry: Entry) -> bool:
    return not path.is_file() or checksum.like(entry.checksum, path) != entry.checksum


def _read(path: Path) -> Mapping[str, Any]:
    """The items of a manifest; none where there is no manifest."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise NotFetched(f"{path} is of another version. Delete it, then type: {hub.remedy()}")
        return {key: _whole(item) for key, item in manifest["items"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise NotFetched(f"{path} cannot be read ({error}). Delete it, then type: {hub.remedy()}") from error


def _whole(item: Any) -> dict[str, Any]:
    """An item of a manifest with all that :func:`record` writes. Raises what Python does where it lacks some."""
    files = {
        str(name): {"size": int(about["size"]), "checksum": str(about["checksum"])}
        for name, about in item["files"].items()
    }
    if not files:
        raise ValueError("an item has no files")
    tables, patterns = (list(map(str, item[key])) for key in ("tables", "patterns"))
    return {"tables": tables, "commit": item["commit"], "patterns": patterns, "files": files}
