"""What twins have in common, and what sets them apart: read off the models and recipes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from clipstudy.pocket.text import wordlist
from clipstudy.pocket.training import models
from clipstudy.pocket.training.models import MODELS, PocketModel
from clipstudy.pocket.training.pretrain import RECIPES

#: Trunk → the models that have one of its kind; both CLIPs have the text trunk.
TWINS = {
    "text": ("bert", "gpt2", "clip-resnet", "clip-vit"),
    "residual": ("clip-resnet", "resnet"),
    "transformer": ("clip-vit", "vit", "vit-pairs"),
}
#: What follows from a model's kind, and cannot be read off its weights.
LOOKS = {"masked words": "both ways", "next word": "back", "captions": "back"}
HEADS = {
    "masked words": "a layer, then the words' table", "next word": "the words' table", "captions": "linear",
    "classes": "linear, 100 classes", "pairs": "thrown away",
}  # fmt: skip
TRAINED_ON = {
    "masked words": "sentences and captions, half and half", "next word": "sentences and captions, half and half",
    "captions": "pictures with their captions", "classes": "pictures with their class",
    "pairs": "pictures, each drawn twice",
}  # fmt: skip


@dataclass(frozen=True)
class Aspect:
    """One row of the table."""

    trunk: str
    name: str
    of: Mapping[str, str]  #: model → how it is with it

    @property
    def shared(self) -> bool:
        return len(set(self.of.values())) == 1


def aspects() -> list[Aspect]:
    """Every aspect of every trunk, what is shared first."""
    found = []
    for trunk, names in TWINS.items():
        described = {name: _describe(MODELS[name], trunk) for name in names}
        rows = [
            Aspect(trunk, aspect, {name: described[name][aspect] for name in names}) for aspect in described[names[0]]
        ]
        found += sorted(rows, key=lambda row: not row.shared)
    return found


def as_markdown() -> str:
    """A table for each trunk."""
    rows, parts = aspects(), []
    for trunk, names in TWINS.items():
        lines = [f"| {trunk} | shared | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        for row in (row for row in rows if row.trunk == trunk):
            cells = list(row.of.values())
            shown = [cells[0], *("″" for _ in cells[1:])] if row.shared else cells
            lines.append(f"| {row.name} | {'yes' if row.shared else '**no**'} | {' | '.join(shown)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def trunk_of(name: str, trunk: str, model: Any) -> list[nn.Module]:
    """The modules of ``model`` that make up its trunk: blocks, and for pictures the stem before them."""
    if trunk == "text":
        if MODELS[name].reads and MODELS[name].sees:
            return list(model.transformer.resblocks)
        return list(model.bert.encoder.layer if name == "bert" else model.transformer.h)
    tower = model.visual if MODELS[name].reads else model
    if trunk == "residual":
        stem = [tower.conv1, tower.bn1]
        stem += [tower.conv2, tower.bn2, tower.conv3, tower.bn3] if MODELS[name].reads else []
        return [*stem, tower.layer1, tower.layer2, tower.layer3, tower.layer4]
    if MODELS[name].reads:
        return [tower.conv1, tower.ln_pre, *tower.transformer.resblocks, tower.ln_post]
    return [tower.patch_embed, tower.norm_pre, *tower.blocks, tower.norm]


def _describe(model: PocketModel, trunk: str) -> dict[str, str]:
    recipe, built = RECIPES[model.name], models.build(model.name)
    weights = sum(models.size(part) for part in trunk_of(model.name, trunk, built))
    text = trunk == "text"
    common = {
        "weights in the trunk": f"{weights:,}",
        "all weights": f"{models.size(built):,}",
        "trained on": TRAINED_ON[model.objective],
        "trained to tell": model.objective,
        "head": "attention pool" if trunk == "residual" and model.reads else HEADS[model.objective],
        "steps × batch": f"{recipe.steps:,} × {recipe.batch}",
        "optimiser": f"AdamW, {recipe.rate:g}, decay {recipe.decay:g}, warm-up {recipe.warm_up}, cosine",
    }
    if text:
        return common | {
            "layers, width, heads": f"{models.TEXT_LAYERS}, {models.TEXT['width']}, {models.TEXT['heads']}",
            "lines read": f"{recipe.steps * recipe.batch:,}",
            "words, positions": f"{len(wordlist.tokens()):,}, {models.TEXT['context']}",
            "looks": LOOKS[model.objective],
            "norm": "after a block's parts" if model.name == "bert" else "before a block's parts",
            "summary token": {"bert": "first", "gpt2": "none"}.get(model.name, "last"),
        }
    shape = models.RESIDUAL if trunk == "residual" else models.TRANSFORMER
    return common | {
        "stages, size": f"{models.IMAGE_STAGES}, " + ", ".join(f"{key} {value}" for key, value in shape.items()),
        "pictures": f"{models.SIDE} × {models.SIDE}, mean {models.MEAN[0]}, deviation {models.DEVIATION[0]}",
        "scenes": f"{recipe.batch // (2 if model.objective == 'pairs' else 1)} a step, in the same order",
    }
