"""Tiny image checkpoints in the libraries' own file layouts, with random weights: what the contract runs on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file, save_model
from torch import nn

from clipstudy.pocket.training import models as pocket
from clipstudy.spec import ModelSpec
from tests.torch import own_models


@dataclass(frozen=True)
class Sample:
    """A checkpoint with what is known about it."""

    spec: ModelSpec
    native: str
    maps: bool  #: its states are maps, not tokens
    cls: bool
    sides: tuple[int, ...]  #: rows of the map at each layer


def unsettle(model: nn.Module) -> Any:
    """Random numbers in place of what starts as the identity, which would hide a norm that was forgotten."""
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
    return model


def of_pocket(name: str, folder: Path) -> Sample:
    """One of the pocket models, untrained, as ``pocket pretrain`` would save it."""
    torch.manual_seed(7)
    pocket.save(name, unsettle(pocket.build(name)), folder)
    clip, maps = name.startswith("clip"), "resnet" in name
    spec = ModelSpec(
        name, "open_clip" if clip else "timm", str(folder), 4, modality="image", tower="image" if clip else None
    )
    return Sample(spec, "gap" if maps else "cls", maps, not maps, (16, 16, 8, 4, 2) if maps else (8,) * 5)


def of_timm(architecture: str, args: dict[str, Any], native: str, sides: tuple[int, ...], cls: bool, folder: Path):
    """Any of timm's architectures, made small."""
    torch.manual_seed(8)
    model = unsettle(timm.create_model(architecture, num_classes=0, **args))
    seen = {
        "input_size": [3, 32, 32],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": [0.4] * 3,
        "std": [0.3] * 3,
    }
    folder.mkdir(parents=True)
    described = {"architecture": architecture, "num_classes": 0, "model_args": args, "pretrained_cfg": seen}
    (folder / "config.json").write_text(json.dumps(described))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    spec = ModelSpec(folder.name, "timm", f"local-dir:{folder}", len(sides) - 1, modality="image")
    return Sample(spec, native, "patch_size" not in args, cls, sides)


def of_own(factory: str, modules: tuple[str, ...], sides: tuple[int, ...], folder: Path) -> Sample:
    """A model that no library knows; :data:`OWN` must be trusted to load it."""
    torch.manual_seed(9)
    folder.mkdir(parents=True)
    save_model(unsettle(getattr(own_models, factory)()), str(folder / "weights.safetensors"))
    cls = factory == "Patches"
    spec = ModelSpec(
        folder.name,
        "torch",
        f"{own_models.__name__}:{factory}",
        len(modules),
        modality="image",
        pretrained=str(folder / "weights.safetensors"),
        view="cls" if cls else None,
        modules=modules,
        size=32,
        mean=(0.4, 0.5, 0.6),
        std=(0.3, 0.2, 0.1),
    )
    return Sample(spec, "cls" if cls else "gap", not cls, cls, sides)


#: The package of the models that no library knows.
OWN = own_models.__name__.rpartition(".")[0]
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
BUILDERS = {
    **{name: partial(of_pocket, name) for name in ("clip-resnet", "clip-vit", "resnet", "vit", "vit-pairs")},
    # Mean-pooled, without a class token, as SigLIP's and the first ViTs of several papers are.
    "vit-gap": partial(
        of_timm,
        "vit_base_patch16_224",
        {**SMALL_VIT, "depth": 3, "class_token": False, "global_pool": "avg", "fc_norm": False},
        "gap",
        (4,) * 4,
        False,
    ),
    # A class token and four registers, as DINOv2 has them.
    "vit-registers": partial(
        of_timm, "vit_small_patch14_reg4_dinov2", {**SMALL_VIT, "depth": 2}, "cls", (4,) * 3, True
    ),
    "convnext": partial(
        of_timm, "convnext_tiny", {"depths": [1, 1, 2, 1], "dims": [4, 8, 12, 16]}, "gap", (8, 8, 4, 2, 1), False
    ),
    "own-stages": partial(of_own, "Convolutions", ("stages.0", "stages.1", "stages.2"), (16, 8, 4, 2)),
    "own-patches": partial(of_own, "Patches", ("blocks.0", "blocks.1", "blocks.2"), (4,) * 4),
}


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    """Smooth noise, RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
