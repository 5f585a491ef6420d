"""What was fetched of a study, written down: by it one can tell, with no network, whether all is here and whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipstudy import checksum, hub
from clipstudy.data import Released
from clipstudy.errors import ClipstudyError, NotFetched, writing
from clipstudy.fetch.items import Item, Survey
from clipstudy.hub import Entry, Repository
from clipstudy.lock import locked

#: Of the manifest's layout.
VERSION = 1
#: Characters of a study's name in its file's, at most.
LONGEST = 150


def manifest_path(cache: Path, study: str) -> Path:
    """Where what was fetched of a study is written down."""
    name = quote(study, safe=" ")
    if len(name) > LONGEST:  # letters of other alphabets are nine characters each
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return cache / "fetched" / f"{name}.json"


def record(path: Path, surveyed: Survey) -> None:
    """Write what was fetched into the manifest ``path``, beside what it holds of other items; safe in several processes
    at once.

    Raises:
        NotFetched: it cannot be written.
    """
    remedy = "Make room, or choose another folder (export CLIPSTUDY_CACHE=FOLDER); what was fetched is kept."
    with writing(path, remedy, NotFetched):
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
        try:
            if not at.is_file():
                yield f"{entry.path} is missing"
            elif not entry.is_at(at):
                yield f"{entry.path} is {checksum.like(entry.checksum, at)}, fetched was {entry.checksum}"
        except OSError as error:
            yield f"{entry.path[:80]} cannot be read ({error.strerror or error})"


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
