"""Image towers of open_clip's two-tower models: CLIP's residual network, its vision transformer, models of timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from torch import nn

from clipstudy.backbones import checkpoint, from_timm
from clipstudy.backbones.vision import Anatomy
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec


def check(spec: ModelSpec, config: Mapping[str, Any]) -> None:
    """Raises ModelError where open_clip's description says another depth; a tower of timm shows its own when built."""
    described = config.get("vision_cfg", {})
    if described.get("timm_model_name"):
        return
    layers = described.get("layers", open_clip.CLIPVisionCfg.layers)
    checkpoint.check_depth(spec, len(layers) if isinstance(layers, list | tuple) else layers)


def preprocessing(spec: ModelSpec, tower: Any) -> PreprocessCfg:
    """How the tower's images are prepared: what its description says, and what its weights' tag does."""
    tag = open_clip.get_pretrained_cfg(spec.checkpoint, spec.pretrained) if spec.pretrained else {}
    seen = PreprocessCfg(**merge_preprocess_dict(tower.preprocess_cfg, tag or _of_all_tags(spec, tower)))
    # Two sides come as a list from a description, which open_clip does not take.
    return replace(seen, size=tuple(seen.size)) if isinstance(seen.size, list) else seen


def _of_all_tags(spec: ModelSpec, tower: Any) -> dict[str, Any]:
    """Weights in a file do not say how images are prepared, and an architecture's description seldom does: what all of
    open_clip's own weights of that name have in common. Nothing where there are none, or nothing is trained.

    Raises:
        ModelError: they differ.
    """
    tags = open_clip.list_pretrained_tags_by_model(spec.checkpoint)
    known = [open_clip.get_pretrained_cfg(spec.checkpoint, tag) for tag in tags]
    ways = {str(merge_preprocess_dict(tower.preprocess_cfg, of)): of for of in known}
    if len(ways) > 1 and spec.init == "pretrained":
        raise ModelError(
            f'[models.{spec.name}] pretrained = "{spec.pretrained}" does not say how images are prepared, and '
            f"open_clip's own weights of {spec.checkpoint} differ in it ({', '.join(tags)}). Put the file into a "
            'folder with its open_clip_config.json, and name that: checkpoint = "./FOLDER"'
        )
    return dict(next(iter(ways.values()))) if len(ways) == 1 else {}


def anatomy(spec: ModelSpec, tower: Any, seen: PreprocessCfg) -> Anatomy:
    prepared: dict[str, Any] = {
        "transform": image_transform_v2(seen, is_train=False),
        "whole": image_transform_v2(replace(seen, resize_mode="squash"), is_train=False),
        "size": seen.input_size[1:],
        "mean": seen.mean,
        "deviation": seen.std,
    }
    if isinstance(tower, TimmModel):
        return from_timm.anatomy(spec, tower.trunk, **prepared)
    if isinstance(tower, ModifiedResNet):
        return Anatomy([tower.layer1, tower.layer2, tower.layer3, tower.layer4], tower, **prepared)
    if not isinstance(tower, VisionTransformer):
        raise ModelError(
            f"[models.{spec.name}] {spec.checkpoint} has a {type(tower).__name__} as its image tower, whose layers are "
            "not known here. Choose a CLIP model."
        )
    pooled_first = tower.attn_pool is not None or tower.final_ln_after_pool

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = tower.transformer(tower._embeds(pixels))
        return states if pooled_first else tower.ln_post(states)

    return Anatomy(
        list(tower.transformer.resblocks),
        forward,
        **prepared,
        grid=tuple(tower.grid_size),
        prefix=1,
        cls=True,
        normed=not pooled_first and not isinstance(tower.ln_post, nn.Identity),
        native="cls" if tower.attn_pool is None and tower.pool_type == "tok" else "gap",
    )
