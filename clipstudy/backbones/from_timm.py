"""Image models of timm: residual networks, vision transformers, and what has their build."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained, split_model_name_tag
from torch import nn

from clipstudy.backbones import checkpoint, vision
from clipstudy.backbones.building import building
from clipstudy.backbones.described import HUB, LOCAL
from clipstudy.backbones.vision import Anatomy, Vision
from clipstudy.errors import ModelError, did_you_mean, said
from clipstudy.hub import Repository
from clipstudy.spec import ModelSpec


def load(spec: ModelSpec, device: str) -> Vision:
    """Load an image model: safetensors only.

    ``spec.checkpoint`` is one of timm's names with its tag (``resnet50.tv_in1k``; the tag names the weights), a Hub id,
    or a folder in timm's layout (``./x``, ``/x``, timm's own ``local-dir:FOLDER``).

    Raises:
        ModelError: the name, tag, configuration or weights are missing, broken, or not what the table says.
        DeviceError: it cannot be put on ``device``.
    """
    _check(spec)
    name, folder = _found(spec)
    if spec.init == "random":
        model = _create(spec, name, None)
        vision.open_branches(model)
        described = [] if folder is None else checkpoint.description_in(folder)
        identity = checkpoint.fingerprint(described, f"random init, {checkpoint.weights_of(model)}")
    else:
        assert folder is not None
        weights = _weights(spec, folder)
        model = _create(spec, name, weights)
        described = checkpoint.description_in(folder)
        identity = checkpoint.commit_of(folder) or checkpoint.fingerprint([*described, weights])
    with checkpoint.describing(spec, vision.PREPARED):
        seen = resolve_data_config({}, model=model)
        built = anatomy(
            spec,
            model,
            transform=create_transform(**seen, is_training=False),
            whole=create_transform(**{**seen, "crop_pct": 1.0, "crop_mode": "squash"}, is_training=False),
            size=tuple(seen["input_size"][1:]),
            mean=seen["mean"],
            deviation=seen["std"],
        )
    checkpoint.check_depth(spec, len(built.stages))
    resolved = {
        "checkpoint": identity,
        "timm": checkpoint.release(timm.__version__),
        "torch": checkpoint.release(torch.__version__),
        "dtype": spec.dtype,
        "final_norm": str(spec.final_norm).lower(),
        "input": json.dumps(seen, sort_keys=True),
    }
    if _is_name(spec):  # two architectures may have the same weights: GELU and QuickGELU, one padding and another
        resolved["architecture"] = split_model_name_tag(name)[0]
    return Vision(spec, model.to(checkpoint.DTYPES[spec.dtype]), built, resolved, device)


def wanted(spec: ModelSpec) -> list[Repository]:
    """What :func:`load` reads of the Hub."""
    _check(spec)
    home = _home(spec)
    repository = checkpoint.repository_of(home, weights=spec.init == "pretrained") if home else None
    return [] if repository is None else [repository]


def _check(spec: ModelSpec) -> None:
    vision.check(spec)
    here = f"[models.{spec.name}]"
    if spec.tower is not None:
        raise ModelError(f'{here} tower = "{spec.tower}", but models of timm have one tower. Remove the key.')
    if spec.pretrained is not None:
        raise ModelError(
            f'{here} pretrained is a key of source "open_clip". Name the weights by the checkpoint\'s tag '
            '(checkpoint = "resnet50.tv_in1k").'
        )


def _found(spec: ModelSpec) -> tuple[str, Path | None]:
    """What timm calls the model, and the folder of its files; None: an untrained model by its name needs none."""
    home = _home(spec)
    folder = checkpoint.folder_of(home, weights=spec.init == "pretrained") if home else None
    if _is_name(spec):
        return spec.checkpoint.removeprefix(HUB), folder
    assert folder is not None
    config = folder / "config.json"
    try:
        known = json.loads(config.read_text(encoding="utf-8"))
        architecture = known.get("architecture") if isinstance(known, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" has no config.json that can be read ({error}). '
            "Give a checkpoint in timm's layout."
        ) from error
    if not isinstance(architecture, str) or not is_model(architecture):
        raise ModelError(
            f'[models.{spec.name}] {config}: architecture is "{architecture}", no model of timm {timm.__version__}. '
            f"{_near(str(architecture))} Give a checkpoint in timm's layout."
        )
    _check_input(spec, known, config)
    return f"{LOCAL}{folder}", folder


def _check_input(spec: ModelSpec, known: dict[str, Any], config: Path) -> None:
    """The size of the pictures that a description asks for, if it does: timm builds a model for any."""
    prepared = known.get("pretrained_cfg", known)  # older descriptions say all at the top
    size = prepared.get("input_size") if isinstance(prepared, dict) else None
    sides = size if isinstance(size, list) else []
    if size is not None and (len(sides) != 3 or any(type(side) is not int or side < 1 for side in sides)):
        raise ModelError(
            f"[models.{spec.name}] {config}: input_size is {json.dumps(size)[:80]}, expected [3, height, width] in "
            "pixels. Fetch the checkpoint again."
        )


def _is_name(spec: ModelSpec) -> bool:
    """Is the checkpoint one of timm's names, not a path or a Hub id?"""
    reference = spec.checkpoint.removeprefix(HUB)
    return "/" not in reference and not reference.startswith((LOCAL, ".", "~"))


def _home(spec: ModelSpec) -> ModelSpec | None:
    """``spec`` with the path or Hub id of its files as its checkpoint; None: an untrained model by name has none."""
    if _is_name(spec):
        named = _named(spec)
        return replace(spec, checkpoint=named) if named else None
    reference = spec.checkpoint.removeprefix(HUB)
    # What timm marks as a path must not be looked up on the Hub.
    if reference.startswith((LOCAL, ".", "/", "~")):
        reference = str(Path(reference.removeprefix(LOCAL)).expanduser().absolute())
    return replace(spec, checkpoint=reference)


def _named(spec: ModelSpec) -> str | None:
    """The Hub id of the weights that one of timm's names stands for; None: an untrained model needs none."""
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    architecture, tag = split_model_name_tag(spec.checkpoint)
    if not is_model(architecture):
        raise ModelError(f"{here} is not a model of timm {timm.__version__}. {_near(architecture)} Fix the key.")
    tags = [name.partition(".")[2] for name in list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ModelError(f"{here}: {architecture} has no tag {tag}. {did_you_mean(tag, tags)} Fix the key.")
    if spec.init == "random":
        return None
    if not tag:
        first = f"{architecture}.{tags[0]}" if tags else architecture
        raise ModelError(
            f"{here} names no weights, and what timm takes then changes from version to version. Write the tag too, "
            f'as in "{first}". {did_you_mean("", tags)}'
        )
    home: str | None = getattr(get_pretrained_cfg(spec.checkpoint), "hf_hub_id", None)
    if not home:
        raise ModelError(f"{here} has no weights on the Hub. {did_you_mean(tag, tags)} Choose another tag.")
    return home


def _weights(spec: ModelSpec, folder: Path) -> Path:
    files = {file.name: file for file in checkpoint.weights_in(folder, spec)}
    if len(files) > 1 and "model.safetensors" not in files:
        raise ModelError(
            f"[models.{spec.name}] {folder} holds {len(files)} safetensors files ({', '.join(files)}). Keep one, or "
            "call it model.safetensors."
        )
    return files.get("model.safetensors") or next(iter(files.values()))


def _create(spec: ModelSpec, name: str, weights: Path | None) -> Any:
    # The weights are always a file here: what timm would fetch by itself may be pickled.
    source = {"file": str(weights), "source": None} if weights else {}
    with building(spec):
        try:
            return timm.create_model(name, pretrained=weights is not None, pretrained_cfg_overlay=source)
        except checkpoint.BROKEN as error:
            raise ModelError(
                f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" cannot be loaded ({said(error)}). Weights and '
                "configuration do not belong together; fetch the checkpoint again."
            ) from error


def anatomy(spec: ModelSpec, model: Any, **prepared: Any) -> Anatomy:
    """How ``model``, one of timm's, is built; ``prepared`` says how its images are (transform, size, mean, deviation).

    Raises:
        ModelError: its layers are not known.
    """
    stages = _stages(model)
    nhwc = getattr(model, "output_fmt", "NCHW") == "NHWC"
    if stages is None:
        raise ModelError(
            f"[models.{spec.name}] {spec.checkpoint} is a {type(model).__name__}, whose layers are not known here. "
            "Choose a residual network or a vision transformer."
        )
    grid = None if nhwc else _grid(model)
    # CaiT and XCiT have their class token join behind the blocks, so no layer has it.
    late = any(getattr(model, name, None) is not None for name in ("blocks_token_only", "cls_attn_blocks"))
    cls = grid is not None and not late and getattr(model, "cls_token", None) is not None
    return Anatomy(
        stages,
        model.forward_features,
        **prepared,
        grid=grid,
        prefix=0 if late else getattr(model, "num_prefix_tokens", 0),
        cls=cls,
        normed=(nhwc or grid is not None)
        and not late
        and not isinstance(getattr(model, "norm", nn.Identity()), nn.Identity),
        nhwc=nhwc,
        native="cls" if cls and getattr(model, "global_pool", None) == "token" else "gap",
    )


def _stages(model: Any) -> Sequence[nn.Module] | None:
    if all(hasattr(model, f"layer{k}") for k in (1, 2, 3, 4)):
        return [model.layer1, model.layer2, model.layer3, model.layer4]
    if all(hasattr(model, f"s{k}") for k in (1, 2, 3, 4)):  # RegNet
        return [model.s1, model.s2, model.s3, model.s4]
    for held in (getattr(model, name, None) for name in ("stages", "blocks", "layers")):
        if isinstance(held, nn.Sequential | nn.ModuleList):
            return list(held)
    return None


def _grid(model: Any) -> tuple[int, int] | None:
    """Rows and columns of a model's patches; None: its layers give maps."""
    for name in ("patch_embed", "stem"):  # a mixer's is its stem
        grid = getattr(getattr(model, name, None), "grid_size", None)
        if grid is not None:
            rows, columns = grid
            return rows, columns
    return None


def _near(architecture: str) -> str:
    """The few of timm's thousand names that are nearest."""
    return did_you_mean(architecture, difflib.get_close_matches(architecture, list_models(), n=6))
