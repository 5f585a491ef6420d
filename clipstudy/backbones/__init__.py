"""Where models come from: one room a library. Importing this module costs nothing; ``load`` imports the library."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clipstudy.errors import ModelError, did_you_mean
from clipstudy.spec import Modality, ModelSpec

if TYPE_CHECKING:
    from clipstudy.backbones.backbone import ImageBackbone, TextBackbone

#: The ``source`` of a model's table → the module that loads it, by its ``load(spec, device)``.
MODULES = {
    "transformers": "clipstudy.backbones.from_transformers",
    "open_clip": "clipstudy.backbones.from_open_clip",
    "timm": "clipstudy.backbones.from_timm",
}
SOURCES = tuple(MODULES)
#: What each source's models take in.
MODALITIES: Mapping[str, tuple[Modality, ...]] = {
    "transformers": ("text",),
    "open_clip": ("text", "image"),
    "timm": ("image",),
}


def load(spec: ModelSpec, device: str) -> TextBackbone | ImageBackbone:
    """The frozen model that ``spec`` describes, on ``device`` (a torch name: ``cpu``, ``cuda:0``, ``mps``): a text or
    an image model, as its ``modality`` says.

    Raises:
        ModelError: the source is unknown or has no models of that modality, or its checkpoint is missing, broken or
            not what the table says.
        DeviceError: there is no such device here.
    """
    if spec.source not in MODULES:
        raise ModelError(
            f'[models.{spec.name}] source = "{spec.source}" is unknown: {did_you_mean(spec.source, SOURCES)} '
            "Mend the source key."
        )
    if spec.modality not in MODALITIES[spec.source]:
        (other,) = MODALITIES[spec.source]
        raise ModelError(
            f'[models.{spec.name}] modality = "{spec.modality}", but source = "{spec.source}" has {other} models. '
            f'Write modality = "{other}", or take another source.'
        )
    backbone: TextBackbone | ImageBackbone = importlib.import_module(MODULES[spec.source]).load(spec, device)
    return backbone
