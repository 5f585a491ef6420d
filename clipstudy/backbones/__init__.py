"""Where models come from: one room a library. Importing this module costs nothing; ``load`` imports the library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from clipstudy.errors import ModelError, did_you_mean
from clipstudy.spec import ModelSpec

if TYPE_CHECKING:
    from clipstudy.backbones.backbone import TextBackbone

#: The ``source`` of a model's table → the module that loads it, by its ``load(spec, device)``.
MODULES = {
    "transformers": "clipstudy.backbones.from_transformers",
    "open_clip": "clipstudy.backbones.from_open_clip",
}
SOURCES = tuple(MODULES)


def load(spec: ModelSpec, device: str) -> TextBackbone:
    """The frozen model that ``spec`` describes, on ``device`` (a torch name: ``cpu``, ``cuda:0``, ``mps``).

    Raises:
        ModelError: the source is unknown, or its checkpoint is missing, broken or not what the table says.
        DeviceError: there is no such device here.
    """
    if spec.source not in MODULES:
        raise ModelError(
            f'[models.{spec.name}] source = "{spec.source}" is unknown: {did_you_mean(spec.source, SOURCES)} '
            "Mend the source key."
        )
    backbone: TextBackbone = importlib.import_module(MODULES[spec.source]).load(spec, device)
    return backbone
