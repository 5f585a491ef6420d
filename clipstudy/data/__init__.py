"""Readers of data sets: one room a layout, chosen by a dataset table's ``reader``.

A reader turns files (or a Hub table) into frozen values and a fingerprint of what was read. It knows no task.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipstudy import checksum
from clipstudy.errors import DataError
from clipstudy.hub import Repository, remedy
from clipstudy.settings import Settings, locate
from clipstudy.spec import DatasetSpec, Modality

#: Keys that several readers use: how many rows of each split are taken; what part of train is cut off as dev; what is
#: read of a table here, and of one on the Hub.
_LIMIT = ("limit", "limit_seed")
_DEVELOPMENT = ("development", "development_seed")
_TABLE = ("config", "splits", "columns")
_HUB = (*_TABLE, "revision")
#: All that a reader of pairs uses.
_PAIRS = {"path": ("splits", *_LIMIT, *_DEVELOPMENT), "hub": (*_HUB, *_LIMIT, *_DEVELOPMENT)}
#: reader → where it reads from (`path`: local files; `hub`: a Hub data set) → the other keys that it uses then.
READERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    # Chunked sentences, `word POS chunk` a line; or the Hub's table of them.
    "conll2000": {
        "path": ("splits", "exclude"),
        "hub": (*_HUB, "exclude"),
    },
    # Questions over passages: the released jsonl, SuperGLUE's, or a Hub table of either's columns.
    "boolq": _PAIRS,
    # One word in two sentences: the released data and gold, SuperGLUE's jsonl, or a Hub table of its columns.
    "wic": _PAIRS,
    # `tr|va|te<TAB>label<TAB>sentence` a line, as in SentEval's probing files.
    "senteval": {
        "path": ("url", "checksum", *_LIMIT, "unseen_labels"),
    },
    # Any table (parquet, csv, tsv, jsonl) with named text and label columns.
    "table": {
        "path": (*_TABLE, *_LIMIT, "unseen_labels"),
        "hub": (*_HUB, *_LIMIT, "unseen_labels"),
    },
    # Images: tables that hold them, as the Hub's CIFAR-100 does, or a folder of class folders a split.
    "images": {
        "path": (*_TABLE, *_LIMIT, *_DEVELOPMENT, "unseen_labels", "unreadable"),
        "hub": (*_HUB, *_LIMIT, *_DEVELOPMENT, "unseen_labels", "unreadable"),
    },
}
#: What a released file may be called, by ending: names of data, which no program takes for its own.
TEXTS = (".txt", ".tsv", ".csv")
#: reader → the splits that it reads of a Hub data set, and whether each must be there.
SPLITS: Mapping[str, Mapping[str, bool]] = {
    "conll2000": {"train": True, "test": False},
    "boolq": {"train": True, "dev": True},
    "wic": {"train": True, "dev": True},
    "table": {"train": True, "dev": True, "test": True},
    "images": {"train": True, "dev": False, "test": True},
}
#: reader → the columns of a table that it uses, which `columns` may say other names of.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "conll2000": ("tokens", "pos_tags", "chunk_tags"),
    "boolq": ("question", "passage", "label"),
    "wic": ("word", "sentence1", "sentence2", "start1", "end1", "start2", "end2", "label"),
    "table": ("text", "label"),
    "images": ("image", "label", "mask"),
}


@dataclass(frozen=True)
class Released:
    """A file as its authors released it, at an address of theirs."""

    table: str  #: ``datasets.sentence_length``
    url: str
    checksum: str
    path: Path  #: where the reader looks for it


def wanted(spec: DatasetSpec) -> Repository | Released | None:
    """What the reader takes from elsewhere: of the Hub, or a released file; None: its files are here by themselves.

    Raises:
        DataError: ``path`` is no place that a file may be put.
    """
    from clipstudy.data import table  # a reader, which this module cannot import at the top

    if spec.hub:
        return table.wanted(spec, SPLITS[spec.reader])
    if spec.url is None or spec.checksum is None:
        return None
    return Released(f"datasets.{spec.name}", spec.url, spec.checksum, _writable(spec))


def modality(reader: str) -> Modality:
    """What a reader gives."""
    return "image" if reader == "images" else "text"


def files(spec: DatasetSpec) -> Path:
    """The local file or folder of ``spec``, which must exist and, where the table says a checksum, have that.

    Raises:
        DataError: it does not, with what is there instead; or it may not be looked at.
    """
    path = _place(spec)
    if not _exists(spec, path):
        raise DataError(_absent(spec, path))
    if not spec.checksum:
        return path
    with _readable(spec, path):
        found = checksum.like(spec.checksum, path)
    if found != spec.checksum:
        raise DataError(
            f"[datasets.{spec.name}] checksum: {path} is {found}, expected {spec.checksum}: it is not the file "
            "that the study was declared on. Delete it and fetch it again, or, if you mean this one, write its "
            "checksum."
        )
    return path


def to_fetch(spec: DatasetSpec) -> bool:
    """Whether ``spec`` is a released file that is not here yet: only `clipstudy fetch` brings it, no worker does."""
    try:
        return spec.url is not None and not _exists(spec, _place(spec))
    except DataError:
        return False  # it has no place, or none that may be looked at; :func:`doubt` says why


def doubt(spec: DatasetSpec) -> str | None:
    """Why a worker like this process would refuse ``spec``, as far as that shows without reading its rows; None: its
    path is there, or is the Hub's, or :func:`to_fetch`."""
    if spec.hub or to_fetch(spec):
        return None
    try:
        if not _exists(spec, path := _place(spec)):
            return _absent(spec, path)
    except DataError as error:
        return error.message
    from clipstudy.data import images, table  # readers, which this module cannot import at the top

    return {"table": table.doubt, "images": images.doubt}.get(spec.reader, lambda spec: None)(spec)


@contextlib.contextmanager
def _readable(spec: DatasetSpec, path: Path) -> Iterator[None]:
    """
    Raises:
        DataError: inside, this machine does not let ``path`` be looked at.
    """
    try:
        yield
    except PermissionError as error:  # another may pass by itself, and is no fault of the table
        raise DataError(
            f"[datasets.{spec.name}] path: {path} cannot be looked at ({error.strerror}). Fix the path or "
            f"its rights. Type: ls -ld {path} {path.parent}"
        ) from error


def _exists(spec: DatasetSpec, path: Path) -> bool:
    with _readable(spec, path):
        return path.exists()


def _absent(spec: DatasetSpec, path: Path) -> str:
    fetch = f"Fetch it on a machine with network ({remedy(f'datasets.{spec.name}')})."
    fix = spec.hint or (fetch if spec.url else "Fix the path.")
    return f"[datasets.{spec.name}] path: {path} does not exist. In {path.parent}: {_listed(path.parent)}. {fix}"


def _listed(folder: Path) -> str:
    """What ``folder`` holds, for a message: some of it, by name."""
    try:
        return ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    except PermissionError:
        return "what may not be listed"
    except OSError:
        return "no such folder"


def _place(spec: DatasetSpec) -> Path:
    """Where ``spec.path`` is on this machine, existing or not."""
    where = f"[datasets.{spec.name}] path"
    path = locate(spec.path or "", spec.base)
    if path is None:
        raise DataError(f'{where} = "{spec.path}" is not a path: begin it with "./", "/" or "${{CLIPSTUDY_CACHE}}/".')
    if "${" in str(path):
        variable = str(path).partition("${")[2].partition("}")[0]
        raise DataError(f'{where} = "{spec.path}": {variable} is not set here. Set it, then: clipstudy retry --failed')
    return path


def _writable(spec: DatasetSpec) -> Path:
    """Where ``spec.path`` is, if a file from elsewhere may be put there: whoever wrote the study file chose both, and a
    file that is put in the right place is run, or believed, by something else."""
    path, settings = _place(spec), Settings.read()
    own = re.match(r"\$\{CLIPSTUDY_\w+\}/", spec.path or "")  # a folder that the environment names
    named = locate(own[0], spec.base) if own else None
    real = path.resolve()
    # The root of the disk is nobody's own, whatever variable says so: every file lies below it.
    roots = {root.resolve() for root in (Path(spec.base), settings.home, settings.cache, named) if root}
    roots.discard(Path(real.anchor))
    inside = [real.relative_to(root) for root in roots if real.is_relative_to(root)]
    where = f'[datasets.{spec.name}] path = "{spec.path}": nothing is fetched to {real}'
    if not inside:
        raise DataError(
            f"{where}, which is neither in the study file's folder nor in CLIPSTUDY_HOME nor in the cache. Write a "
            'path there ("./data/…", "${CLIPSTUDY_CACHE}/…"), or put the file there yourself and remove url.'
        )
    if real.suffix not in TEXTS or any(part.startswith(".") for part in min(inside, key=lambda p: len(p.parts)).parts):
        raise DataError(
            f"{where}: expected a name that ends with {' or '.join(TEXTS)}, in no hidden folder. Fix the path."
        )
    return path


def within(spec: DatasetSpec, folder: Path, name: str) -> Path:
    """The file or folder ``name`` of ``folder``, existing or not.

    Raises:
        DataError: it leads out of ``folder``.
    """
    path = Path(os.path.normpath(folder / name))
    if "\0" in name or not path.is_relative_to(os.path.normpath(folder)):
        raise DataError(f'[datasets.{spec.name}] splits: "{name}" is not in {folder}. Name what is there.')
    return path


def fingerprint(chunks: Iterable[bytes]) -> str:
    """``sha256:…`` over the bytes that were read."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Only ``LF`` or ``CR LF`` ends one: sentences hold stranger separators."""
    return decoded(path).replace("\r\n", "\n").split("\n")


def decoded(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark left out.

    Raises:
        DataError: it is a folder, may not be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Convert the file, then retry.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder where a file is wanted. Name the file in `path`.") from None
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Fix its rights. Type: ls -l {path}") from None
