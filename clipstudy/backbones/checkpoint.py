"""A checkpoint's files: found on disk or on the Hub, verified before anything is loaded, and fingerprinted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn

from clipstudy import hub
from clipstudy.backbones import described
from clipstudy.errors import ModelError, said
from clipstudy.hub import PICKLES, Part, Repository
from clipstudy.spec import ModelSpec

#: What decides a tokenizer and a model's shape, in the Hub's file layout.
DESCRIPTION = (
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
)
#: What reading and building a model raise where its description holds other values than it should.
BROKEN = (
    ValueError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    StrictDataclassError,
)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
#: What a model may be computed in, by the name that its table gives it.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextlib.contextmanager
def describing(spec: ModelSpec, what: str) -> Iterator[None]:
    """Raises ModelError where what is done within, by what the checkpoint says of itself, cannot be done."""
    try:
        yield
    except BROKEN as error:
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" says {what} in a way that cannot be followed '
            f"({type(error).__name__}: {said(error)}). Fetch it again, or choose another one."
        ) from error


def check_dtype(spec: ModelSpec) -> None:
    """Raises ModelError where the table says none of :data:`DTYPES`."""
    if spec.dtype not in DTYPES:
        raise ModelError(f'[models.{spec.name}] dtype = "{spec.dtype}" is unknown. Write one of: {", ".join(DTYPES)}.')


def check_depth(spec: ModelSpec, depth: int | None, parts: str = "blocks or stages") -> None:
    """Raises ModelError where the table says another number of layers than the checkpoint has ``parts``."""
    if why := described.wrong_depth(spec, depth, parts):
        raise ModelError(why)


def folder_of(spec: ModelSpec, weights: bool) -> Path:
    """The folder that holds the files of ``spec.checkpoint``: itself where it is one, else the Hub's snapshot.

    Only safetensors are fetched, and no code. With HF_HUB_OFFLINE=1, or no network, what the cache holds is taken.

    Raises:
        ModelError: neither a folder nor in the cache nor on the Hub; no such revision; no access.
    """
    repository = repository_of(spec, weights)
    return Path(spec.checkpoint).expanduser() if repository is None else hub.snapshot(repository)


def repository_of(spec: ModelSpec, weights: bool) -> Repository | None:
    """What :func:`folder_of` reads of the Hub; None where the checkpoint is a folder here.

    Raises:
        ModelError: it is written as a path, and there is no such folder.
    """
    path = Path(spec.checkpoint).expanduser()
    if path.is_dir():
        return None
    if described.is_path(spec):
        raise ModelError(described.absent(spec))
    parts = (
        Part("configuration or tokenizer", DESCRIPTION),
        *((Part("safetensors weights", WEIGHTS),) if weights else ()),
    )
    return Repository(f"models.{spec.name}", "checkpoint", spec.checkpoint, parts, revision=spec.revision)


def weights_in(folder: Path, spec: ModelSpec) -> list[Path]:
    """The safetensors files in ``folder``, every one of them whole.

    Raises:
        ModelError: there is none (only pickled weights, say), one that the index names is missing, or one is corrupt.
    """
    files = sorted(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all(isinstance(name, str) for name in named):
                raise TypeError("weight_map names no files")
        except BROKEN as error:
            raise ModelError(f"[models.{spec.name}] {index} is not a readable index. Fetch it again.") from error
        missing = sorted(named - {f.name for f in files})
        if missing:
            raise ModelError(
                f"[models.{spec.name}] {index.name} names {len(named)} files, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing in {folder}. Fetch the checkpoint again."
            )
    if not files:
        pickled = sorted(f.name for pattern in PICKLES for f in folder.glob(pattern))
        found = f"only {', '.join(pickled)} (files that can run code)" if pickled else "no weights at all"
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" has no safetensors weights: found {found}. '
            "Take a revision that has them, or save the model again with safetensors."
        )
    for file in files:
        verify(file, spec)
    return files


def verify(file: Path, spec: ModelSpec) -> None:
    """Check that ``file`` is safetensors and not cut short.

    Raises:
        ModelError: it is not.
    """
    if file.suffix != ".safetensors":
        raise ModelError(
            f'[models.{spec.name}] weights "{file}" are not safetensors, and other formats can run code. Choose '
            "weights that are published as .safetensors."
        )
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"[models.{spec.name}] {file} is corrupt or was cut short ({error}). Delete it and fetch it again."
        ) from error


def fingerprint(files: Iterable[Path], *more: str) -> str:
    """``sha256:…`` over names and contents of ``files``, wherever they lie, and over ``more``."""

    def named(file: Path) -> tuple[str, bytes]:
        with file.open("rb") as stream:
            return file.name, hashlib.file_digest(stream, "sha256").digest()

    total = hashlib.sha256("\n".join(more).encode())
    for name, content in sorted(map(named, files)):
        total.update(name.encode() + content)
    return f"sha256:{total.hexdigest()}"


def weights_of(model: nn.Module) -> str:
    """SHA-256 over a model's weights. It identifies random ones: a seed means other numbers in another torch."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def description_in(folder: Path) -> list[Path]:
    return sorted({file for pattern in DESCRIPTION for file in folder.glob(pattern)})


def commit_of(folder: Path) -> str | None:
    """The commit that ``folder`` is the snapshot of, in the layout of the Hub's cache
    (``models--OWNER--NAME/snapshots/COMMIT``); None where it is any other folder, whose files may change."""
    snapshots = folder.absolute().parent
    in_cache = snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--")
    return folder.name if in_cache and re.fullmatch("[0-9a-f]{40}", folder.name) else None


def release(version: str) -> str:
    """``2.13`` of ``2.13.0+cpu``: hosts that differ in the rest compute the same features."""
    return ".".join(version.split("+")[0].split(".")[:2])
