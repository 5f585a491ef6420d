"""``[models.NAME]`` → ModelSpec: twins, and one model for each of ``init_seeds``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from clipstudy import backbones
from clipstudy.backbones.backbone import IMAGE_SUMMARIES, SUMMARIES
from clipstudy.errors import did_you_mean
from clipstudy.spec import Modality, ModelSpec
from clipstudy.tasksfile.tables import WORKED_OUT, built, good_name, good_seeds, keys

#: Layers of a model, and cells are rows: more is a slip of the pen.
DEEPEST = 10_000
#: Key that not every source uses → those that do. Elsewhere it would change nothing but the digest.
USED_BY = {
    "tower": ("transformers", "open_clip"),
    "revision": ("transformers", "timm"),
    "pretrained": ("open_clip", "torch"),
    "bos": ("transformers",),
    "max_tokens": ("transformers", "open_clip"),
}


_DEFAULTS = {f.name: f.default for f in fields(ModelSpec)}


def read(tables: Mapping[str, Any], base: str, problems: list[str]) -> dict[str, ModelSpec]:
    """The models by name; relative paths start from ``base``."""
    found = list(_expanded(tables, base, problems))
    twice = [name for name, count in Counter(m.name for m in found).items() if count > 1]
    problems.extend(f"[models.{name}]: a model that init_seeds make has this name too. Rename one" for name in twice)
    return {m.name: m for m in found}


def _expanded(tables: Mapping[str, Any], base: str, problems: list[str]) -> Iterator[ModelSpec]:
    whole = {name: _inherited(name, tables, problems) for name in tables}
    for name, values in whole.items():
        where = f"[models.{name}]"
        if values is None or not good_name(where, name, problems):
            continue
        seeds = values.pop("init_seeds", None)
        named = values.get("layers")
        if isinstance(named, list) and all(isinstance(module, str) for module in named):
            values |= {"layers": len(named), "modules": named}
        values = {"modality": _modality(values), **values, "name": name, "family": name, "base": base}
        spec = built(ModelSpec, values, where, problems)
        if spec is None:
            continue
        problems.extend(f"{where} {p}" for p in _model_problems(spec))
        if spec.twin_of and spec.init != "random":
            problems.append(f'{where} twin_of: found "{spec.twin_of}" without init = "random": a twin is untrained')
        if seeds is None:
            yield spec
        elif spec.init != "random":
            problems.append(f'{where} init_seeds: found {seeds!r} without init = "random"')
        elif good_seeds(f"{where} init_seeds", seeds, problems):
            # One model an initialisation: each is a cell of its own, and the report pools the family.
            yield from (replace(spec, name=f"{name}-{seed}", init_seed=seed) for seed in seeds)


def _inherited(name: str, tables: Mapping[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """A twin has every key of the model that it is the twin of, and its own."""
    values = tables[name]
    where = f"[models.{name}]"
    if not isinstance(values, dict):
        problems.append(f"{where}: found {values!r}, expected a table")
        return None
    for key in WORKED_OUT & values.keys():
        problems.append(f"{where} {key}: unknown key. {did_you_mean(key, keys(ModelSpec))}")
        return None
    twin = values.get("twin_of")
    if twin is None:
        return dict(values)
    original = tables.get(twin) if isinstance(twin, str) else None
    if not isinstance(original, dict) or twin == name or "twin_of" in original:
        known = [n for n, v in tables.items() if n != name and isinstance(v, dict) and "twin_of" not in v]
        problems.append(f'{where} twin_of: found "{twin}", no such model. {did_you_mean(str(twin), known)}')
        return None
    # A twin plays its own part; and a mistake in the original's table is told there, once.
    taken = {f.name for f in fields(ModelSpec)} - {"role", "label", "optional"}
    return {k: v for k, v in original.items() if k in taken} | values


def _modality(values: Mapping[str, Any]) -> Modality:
    """What a model takes in whose table does not say so: its tower's, or all that its source has."""
    there = backbones.MODALITIES.get(str(values.get("source")), ())
    return "image" if values.get("tower") == "image" or there == ("image",) else "text"


def _model_problems(spec: ModelSpec) -> Iterator[str]:
    if spec.source not in backbones.SOURCES:
        yield f'source: found "{spec.source}". {did_you_mean(spec.source, backbones.SOURCES)}'
    elif spec.modality not in backbones.MODALITIES[spec.source]:
        there = backbones.MODALITIES[spec.source]
        yield f'modality: found "{spec.modality}", but source = "{spec.source}" has {" and ".join(there)} models'
    if spec.layers < 1 or spec.batch_size < 1:
        yield f"layers and batch_size: found {spec.layers} and {spec.batch_size}, expected 1 or more"
    if spec.layers > DEEPEST:
        yield f"layers: found {spec.layers}, expected {DEEPEST} or fewer"
    summaries = SUMMARIES if spec.modality == "text" else IMAGE_SUMMARIES
    if spec.view not in (None, *summaries):
        yield f'view: found "{spec.view}". {did_you_mean(str(spec.view), summaries)}'
    dtypes = ["float32", "bfloat16"]
    if spec.dtype not in dtypes:
        yield f'dtype: found "{spec.dtype}". {did_you_mean(spec.dtype, dtypes)}'
    if spec.max_tokens is not None and spec.max_tokens < 3:
        yield f"max_tokens: found {spec.max_tokens}, expected 3 or more"
    for key, sources in USED_BY.items():
        if getattr(spec, key) != _DEFAULTS[key] and spec.source in backbones.SOURCES and spec.source not in sources:
            yield f'{key}: source = "{spec.source}" does not use it. Remove the key'
    if spec.max_tokens is not None and spec.modality == "image":
        yield "max_tokens: an image has no tokens to be counted. Remove the key"
    if spec.init_seed and spec.init != "random":
        yield f'init_seed: found {spec.init_seed} without init = "random"'
    if spec.source in backbones.SOURCES:
        yield from _own_code(spec) if spec.source == "torch" else _no_own_code(spec)


def _own_code(spec: ModelSpec) -> Iterator[str]:
    """What a module of the user's own must say, since no library knows it."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", spec.checkpoint):
        yield f'checkpoint: found "{spec.checkpoint}", expected "package.module:factory", what builds the model'
    if spec.final_norm:
        yield "final_norm: which of its modules is the last norm is not known. Remove the key, and name it a layer"
    if spec.init == "pretrained" and spec.pretrained is None:
        yield 'pretrained: missing. Name a safetensors file of its weights, or write init = "random"'
    if spec.modules is None:
        yield f'layers: found {spec.layers}, expected the names of its modules, as in ["layer1", "layer2"]'
    elif len(set(spec.modules)) < len(spec.modules):
        yield f"layers: found {list(spec.modules)}, expected each name once"
    if spec.size is None or spec.size < 1:
        yield f"size: found {spec.size}, expected the side of its pictures in pixels"
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and (len(values) != 3 or (key == "std" and min(values) <= 0)):
            yield f"{key}: found {list(values)}, expected three numbers{', more than 0' if key == 'std' else ''}"


def _no_own_code(spec: ModelSpec) -> Iterator[str]:
    if spec.modules is not None:
        yield f'layers: found {list(spec.modules)}, but source = "{spec.source}" numbers its layers. Write how many'
    for key in ("size", "mean", "std"):
        if getattr(spec, key) is not None:
            yield f'{key}: source = "{spec.source}" takes it from the checkpoint\'s configuration. Remove the key'
