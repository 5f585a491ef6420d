"""Readers of data sets: one room a layout, chosen by a dataset table's ``reader``.

A reader turns files (or a Hub table) into frozen values and a fingerprint of what was read. It knows no task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipstudy.errors import DataError
from clipstudy.settings import locate
from clipstudy.spec import DatasetSpec, Modality

_PICKED = ("splits", "columns", "limit", "limit_seed", "development", "development_seed")
#: reader → where it reads from (`path`: local files; `hub`: a Hub data set) → the other keys that it uses then.
READERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    # Chunked sentences, `word POS chunk` a line; or the Hub's table of them.
    "conll2000": {
        "path": ("splits", "exclude"),
        "hub": ("config", "revision", "splits", "columns", "exclude"),
    },
    # Questions over passages: the released jsonl, SuperGLUE's, or a Hub table of either's columns.
    "boolq": {
        "path": ("splits", "limit", "limit_seed", "development", "development_seed"),
        "hub": ("config", "revision", "splits", "columns", "limit", "limit_seed", "development", "development_seed"),
    },
    # One word in two sentences: the released data and gold, SuperGLUE's jsonl, or a Hub table of its columns.
    "wic": {
        "path": ("splits", "limit", "limit_seed", "development", "development_seed"),
        "hub": ("config", "revision", "splits", "columns", "limit", "limit_seed", "development", "development_seed"),
    },
    # `tr|va|te<TAB>label<TAB>sentence` a line, as in SentEval's probing files.
    "senteval": {
        "path": ("limit", "limit_seed", "unseen_labels"),
    },
    # Any table (parquet, csv, jsonl) with named text and label columns.
    "table": {
        "path": ("config", "splits", "columns", "limit", "limit_seed", "unseen_labels"),
        "hub": ("config", "revision", "splits", "columns", "limit", "limit_seed", "unseen_labels"),
    },
    # Images: tables that hold them, as the Hub's CIFAR-100 does, or a folder of class folders a split.
    "images": {
        "path": (*_PICKED, "config", "unseen_labels"),
        "hub": (*_PICKED, "config", "unseen_labels", "revision"),
    },
}


def modality(reader: str) -> Modality:
    """What a reader gives."""
    return "image" if reader == "images" else "text"


def files(spec: DatasetSpec) -> Path:
    """The local file or folder of ``spec``, which must exist.

    Raises:
        DataError: it does not, with what is there instead.
    """
    where = f"[datasets.{spec.name}] path"
    path = locate(spec.path or "", spec.base)
    if path is None:
        raise DataError(
            f'{where} = "{spec.path}" is not a path: begin it with "./", "/" or "${{CLIPSTUDY_REAL_DATA}}/".'
        )
    if "${" in str(path):
        variable = str(path).partition("${")[2].partition("}")[0]
        raise DataError(f'{where} = "{spec.path}": {variable} is not set here. Set it, then: clipstudy retry --failed')
    if not path.exists():
        parent = path.parent
        there = ", ".join(sorted(p.name for p in parent.iterdir())[:12]) if parent.is_dir() else "no such folder"
        hint = spec.hint or "Mend the path."
        raise DataError(f"{where}: {path} does not exist. In {parent}: {there or 'nothing'}. {hint}")
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
        DataError: it is a folder, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Convert the file, then retry.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder where a file is wanted. Name the file in `path`.") from None
