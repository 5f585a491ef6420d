"""What shows of a model before it is loaded, by its name and the description beside its weights. Light: JSON."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from clipstudy.settings import locate
from clipstudy.spec import ModelSpec

#: What timm and open_clip put before a folder, and before a Hub id.
LOCAL, HUB = "local-dir:", "hf-hub:"
#: What transformers' descriptions call the number of blocks.
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
#: How the names of timm's architectures begin that have no attention, and of those that are vision transformers.
CONVOLUTIONAL = ("resnet", "resnext", "wide_resnet", "seresne", "convnext", "regnet", "efficientnet", "vgg")
TRANSFORMERS = ("vit_", "deit_", "deit3_", "beit", "eva")


def has_attention(spec: ModelSpec) -> bool | None:
    """Has an image model attention from patch to patch? None: that shows only when it is loaded."""
    if spec.source == "open_clip":
        tower = _within(_open_clip(spec), "vision_cfg")
        if "layers" not in tower or tower.get("timm_model_name"):
            return None
        return not isinstance(tower["layers"], list)  # a residual tower's says how many in each stage
    if spec.source == "timm":
        name = _timm(spec)
        return False if name.startswith(CONVOLUTIONAL) else True if name.startswith(TRANSFORMERS) else None
    return None


def wrong_depth(spec: ModelSpec, depth: int | None, parts: str = "blocks or stages") -> str | None:
    """What to say where the table says another number of layers than the checkpoint has ``parts``; None: it does not,
    or ``depth`` is not known."""
    if depth in (None, spec.layers):
        return None
    return (
        f"[models.{spec.name}] layers = {spec.layers}, but the checkpoint has {depth} {parts}. Write layers = {depth}."
    )


def depth(spec: ModelSpec) -> int | None:
    """How many blocks or stages the description beside a local checkpoint says; None: it does not, or there is none."""
    folder = locate(spec.checkpoint, spec.base)
    found: Any = None
    if folder is not None and spec.source == "transformers":
        config = _json(folder / "config.json")
        text = _within(config, "text_config") or config
        found = next((text[key] for key in DEPTHS if key in text), None)
    elif folder is not None and spec.source == "open_clip":
        tower = _within(_open_clip(spec), "vision_cfg" if spec.modality == "image" else "text_cfg")
        if not tower.keys() & {"timm_model_name", "hf_model_name"}:
            found = tower.get("layers")
            found = len(found) if isinstance(found, list) else found
    return found if type(found) is int else None


def _open_clip(spec: ModelSpec) -> dict[str, Any]:
    folder = locate(spec.checkpoint, spec.base)
    if folder is not None:
        return _within(_json(folder / "open_clip_config.json"), "model_cfg")
    package = importlib.util.find_spec("open_clip")
    places = (package and package.submodule_search_locations) or []
    return next((_json(Path(place) / "model_configs" / f"{spec.checkpoint}.json") for place in places), {})


def _timm(spec: ModelSpec) -> str:
    """The architecture's name, or nothing."""
    folder = locate(spec.checkpoint.removeprefix(LOCAL), spec.base)
    if folder is not None:
        return str(_json(folder / "config.json").get("architecture", ""))
    name = spec.checkpoint.removeprefix(HUB)
    return name.removeprefix("timm/") if name.count("/") <= name.startswith("timm/") else ""


def _within(table: dict[str, Any], key: str) -> dict[str, Any]:
    held = table.get(key)
    return held if isinstance(held, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    """An object from a file; an empty one where there is none: loading the model says what is wrong with it."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def is_path(spec: ModelSpec) -> bool:
    """Is the checkpoint written as a path, which no Hub id looks like?"""
    return spec.checkpoint.startswith((".", "/", "~")) or spec.checkpoint.count("/") > 1


def absent(spec: ModelSpec) -> str:
    """What to say of a path that leads nowhere."""
    path = Path(spec.checkpoint).expanduser()
    return f'[models.{spec.name}] checkpoint: there is no folder "{path}". Fix the path, or give a Hub id (owner/name).'
