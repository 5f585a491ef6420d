"""Repositories of the Hugging Face Hub: which of their files are read, and where they are on this machine.

Who reads a repository declares it as a :class:`Repository`; reading (:func:`snapshot`) and fetching ahead
(``clipstudy fetch``) then mean the same files.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from clipstudy import checksum
from clipstudy.errors import ClipstudyError, DataError, ModelError

#: Files that can run code when they are opened.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.pkl", "*.pickle")
#: Never downloaded, whatever a pattern says.
NEVER = (*PICKLES, "*.py")

_LOCAL_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Part:
    """Files of a repository that serve one purpose."""

    what: str  #: for messages: ``safetensors weights``, ``split "train"``
    patterns: tuple[str, ...]  #: shell patterns of paths in the repository; ``*`` also stands for ``/``
    required: bool = True


@dataclass(frozen=True)
class Repository:
    """What a table of a study file reads of one repository."""

    table: str  #: ``models.bert``
    key: str  #: the key of that table that names it
    id: str  #: ``owner/name``
    parts: tuple[Part, ...]
    kind: Literal["model", "dataset"] = "model"
    revision: str | None = None  #: a commit, tag or branch; None: the main branch

    @property
    def where(self) -> str:
        """The key of the study file that names it, for messages."""
        return f'[{self.table}] {self.key} = "{self.id}"'

    @property
    def allow(self) -> tuple[str, ...]:
        """The patterns of all its parts, each once."""
        return tuple(dict.fromkeys(pattern for part in self.parts for pattern in part.patterns))

    @property
    def ignore(self) -> tuple[str, ...]:
        """Patterns of what is never downloaded, whatever ``allow`` says."""
        # A model's files lie at the top; what is below are other formats and tools of its authors.
        return NEVER if self.kind == "dataset" else ("*/*", *NEVER)

    @property
    def remedy(self) -> str:
        """The command that brings it here."""
        return remedy(self.table)


@dataclass(frozen=True)
class Entry:
    """One file of a repository at a commit."""

    path: str
    size: int  #: bytes
    checksum: str  #: as ``clipstudy.checksum`` writes it

    def is_at(self, path: Path) -> bool:
        """Whether the file ``path`` is this one, whole."""
        return path.is_file() and checksum.like(self.checksum, path) == self.checksum


def remedy(table: str = "") -> str:
    """The command that brings here what ``table`` of a study file reads, or all that the study does. A table does not
    know its file."""
    section, _, name = table.partition(".")
    command = "clipstudy fetch" + (f" --model {name}" if section == "models" else "")
    return f"{command}; with --study FILE where the study is not tasks.toml"


def snapshot(repository: Repository) -> Path:
    """The folder of ``repository``'s files at its revision; its name is the commit. What is missing is downloaded.

    With HF_HUB_OFFLINE=1, or no network, what the cache holds is taken.

    Raises:
        ModelError, DataError: neither on the Hub nor in the cache; no such revision; no access; no room on the disk.
    """
    return _folder(repository, allow_patterns=list(repository.allow), ignore_patterns=list(repository.ignore))


def cached(repository: Repository) -> Path:
    """The folder that the cache has for ``repository``'s revision, whole or not; its name is the commit.

    Raises:
        ModelError, DataError: there is none.
    """
    return _folder(repository, allow_patterns=[], local_files_only=True)


def _folder(repository: Repository, **which: Any) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(repository):
        return Path(snapshot_download(repository.id, repo_type=repository.kind, revision=repository.revision, **which))


def listing(repository: Repository) -> tuple[str, tuple[Entry, ...]]:
    """The commit that ``repository``'s revision stands for now, and its files that are read, asked of the Hub.

    Raises:
        ModelError, DataError: as :func:`snapshot`; or nothing there serves a part that is required.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    with hub_errors(repository):
        info: Any = HfApi().repo_info(
            repository.id, repo_type=repository.kind, revision=repository.revision, files_metadata=True
        )
    there = {file.rfilename: file for file in info.siblings or () if ".." not in PurePosixPath(file.rfilename).parts}

    def taken(patterns: tuple[str, ...]) -> list[str]:
        return list(filter_repo_objects(there, allow_patterns=list(patterns), ignore_patterns=list(repository.ignore)))

    for part in repository.parts:
        if part.required and not taken(part.patterns):
            listed = ", ".join(sorted(there)[:12]) or "nothing"
            raise _class_of(repository)(
                f"{repository.where} has no {part.what} at {info.sha}. What is there: {listed}. Fix the table, or "
                "take another revision."
            )
    return str(info.sha), tuple(_entry(there[path]) for path in sorted(taken(repository.allow)))


def _entry(file: Any) -> Entry:
    # Large files are kept beside Git, which then knows a pointer only.
    return Entry(file.rfilename, file.size or 0, f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}")


@contextlib.contextmanager
def hub_errors(repository: Repository) -> Iterator[None]:
    """What the Hub's client raises inside, as an error that names the table and ends with what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as library
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    error_class, where = _class_of(repository), repository.where
    # The root of what the HTTP library raises; which library that is depends on huggingface_hub's version.
    http_error: Any = library.HTTPError
    try:
        yield
    except HFValidationError as error:
        no = "is neither a folder here nor" if repository.kind == "model" else "is not"
        raise error_class(f"{where} {no} a Hub id (owner/name). Fix the key.") from error
    except RevisionNotFoundError as error:
        named = f'no revision "{repository.revision}"' if repository.revision else "no main branch, and names no other"
        raise error_class(
            f"{where} has {named}. Fix the revision key: a commit, tag or branch of that repository."
        ) from error
    except GatedRepoError as error:
        raise error_class(
            f"{where} asks for consent first. Accept its terms on the Hub, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise error_class(f"{where} is not on the Hub (or is private). Fix the key, or `hf auth login`.") from error
    except (LocalEntryNotFoundError, http_error, OSError) as error:
        if isinstance(error, OSError) and error.errno in _LOCAL_TROUBLE:
            raise error_class(f"{where} cannot be kept here: {error}. Make room, or set HF_HOME elsewhere.") from error
        at = f' at revision "{repository.revision}"' if repository.revision else ""
        offline = constants.HF_HUB_OFFLINE
        shown = type(error.__cause__ or error).__name__
        why = "may not be asked (HF_HUB_OFFLINE)" if offline else f"does not answer ({shown})"
        away = error_class(
            f"{where}{at} is not in the local cache, or not whole, and the Hub {why}. Fetch it on a machine with "
            f"network ({repository.remedy}), or give a local folder."
        )
        if not offline:
            away.transient, away.silent = True, f"the Hub ({shown})"
        raise away from error


def _class_of(repository: Repository) -> type[ClipstudyError]:
    return ModelError if repository.kind == "model" else DataError
