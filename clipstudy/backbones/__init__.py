"""Where models come from: one room a library. Importing this module costs nothing; ``load`` imports the library."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipstudy.backbones import described, trust
from clipstudy.errors import ModelError, did_you_mean
from clipstudy.settings import PACKAGE, locate
from clipstudy.spec import Modality, ModelSpec

if TYPE_CHECKING:
    from clipstudy.backbones.backbone import ImageBackbone, TextBackbone
    from clipstudy.hub import Repository

#: The ``source`` of a model's table → the module that loads it (``load(spec, device)``) and says what of the Hub that
#: reads (``wanted(spec)``).
MODULES = {
    "transformers": "clipstudy.backbones.from_transformers",
    "open_clip": "clipstudy.backbones.from_open_clip",
    "timm": "clipstudy.backbones.from_timm",
    "torch": "clipstudy.backbones.from_torch",
}
SOURCES = tuple(MODULES)
#: What each source's models take in.
MODALITIES: Mapping[str, tuple[Modality, ...]] = {
    "transformers": ("text",),
    "open_clip": ("text", "image"),
    "timm": ("image",),
    "torch": ("image",),
}


def load(spec: ModelSpec, device: str) -> TextBackbone | ImageBackbone:
    """The frozen model that ``spec`` describes, on ``device`` (a torch name: ``cpu``, ``cuda:0``, ``mps``): a text or
    an image model, as its ``modality`` says.

    Raises:
        ModelError: the source is unknown or has no models of that modality, or its checkpoint is missing, broken or
            not what the table says.
        DeviceError: there is no such device here.
    """
    backbone: TextBackbone | ImageBackbone = _module(spec).load(spec, device)
    return backbone


def wanted(spec: ModelSpec) -> list[Repository]:
    """What :func:`load` reads of the Hub: nothing where all of it is on this machine by itself.

    Raises:
        ModelError: as :func:`load`, as far as the table alone tells.
    """
    repositories: list[Repository] = _module(spec).wanted(located(spec))
    return repositories


def located(spec: ModelSpec) -> ModelSpec:
    """``spec`` with its paths as this machine has them.

    Raises:
        ModelError: a path leads into a package that is not installed here.
    """
    return replace(
        spec,
        checkpoint=_place(spec, "checkpoint", spec.checkpoint),
        pretrained=_place(spec, "pretrained", spec.pretrained) if spec.pretrained else spec.pretrained,
    )


def _place(spec: ModelSpec, key: str, reference: str) -> str:
    path = locate(reference, spec.base)
    if path is not None and path.parts[0] == PACKAGE:
        package = reference.removeprefix(PACKAGE).partition("/")[0]
        code = key == "checkpoint" and spec.source == "torch"
        raise ModelError(
            f'[models.{spec.name}] {key} = "{reference}": there is no package "{package}" here. '
            + ('Code is named by its import path alone: "package.module:factory".' if code else "Install it.")
        )
    return reference if path is None else str(path)


def doubt(spec: ModelSpec) -> str | None:
    """Why a worker like this process would refuse ``spec``, as far as that shows without its library; None: it may
    well load."""
    try:
        here = located(spec)
    except ModelError as error:
        return error.message
    if spec.source == "transformers" and described.is_path(here) and not Path(here.checkpoint).is_dir():
        return described.absent(here)
    if spec.source == "torch":
        return trust.refusal(here)
    return described.wrong_depth(here, described.depth(here))


def _module(spec: ModelSpec) -> Any:
    """The room of ``spec.source``, imported."""
    if spec.source not in MODULES:
        raise ModelError(
            f'[models.{spec.name}] source = "{spec.source}" is unknown. {did_you_mean(spec.source, SOURCES)} '
            "Fix the source key."
        )
    if spec.modality not in MODALITIES[spec.source]:
        (other,) = MODALITIES[spec.source]
        raise ModelError(
            f'[models.{spec.name}] modality = "{spec.modality}", but source = "{spec.source}" has {other} models. '
            f'Write modality = "{other}", or take another source.'
        )
    return importlib.import_module(MODULES[spec.source])
