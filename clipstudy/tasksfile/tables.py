"""What every table of a study file is checked for: its keys, its name, its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from clipstudy.errors import did_you_mean
from clipstudy.spec import ANY_SEED, ModelSpec, TaskSpec
from clipstudy.tasks.task import BadOption, build

#: Keys of a spec that are expanded or worked out here, not written by the user.
WORKED_OUT = {"name", "family", "base", "method", "modules"}


def section(tables: Mapping[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    """The file's table ``[name]``; empty where there is none."""
    value = tables.get(name, {})
    if not isinstance(value, dict):
        problems.append(f"[{name}]: found {value!r}, expected a table")
        return {}
    return dict(value)


def built(cls: Any, values: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    """A ``cls`` of a table's ``values``; None where that has problems, each of which is told of ``where``."""
    unknown = [k for k in values if k not in {f.name for f in fields(cls)}]
    problems.extend(f"{where} {k}: unknown key. {did_you_mean(k, keys(cls))}" for k in unknown)
    missing = [f.name for f in fields(cls) if f.name not in values and _required(f)]
    noun = cls.__name__.removesuffix("Spec").lower()
    problems.extend(f"{where} {k}: missing. Every {noun} needs one." for k in missing)
    if unknown or missing:
        return None
    try:
        return build(cls, values)
    except BadOption as bad:
        problems.append(f"{where} {bad.key}: {bad.why}")
        return None


def keys(cls: Any) -> list[str]:
    """What a user may write in a table of ``cls``."""
    extra = ["init_seeds"] if cls is ModelSpec else []
    worked_out = WORKED_OUT | ({"modality"} if cls is TaskSpec else set())
    return [f.name for f in fields(cls) if f.name not in worked_out] + extra


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def good_seeds(where: str, value: Any, problems: list[str]) -> bool:
    """Is ``value`` a list of seeds? If not, that is a problem ``where``."""
    whole = isinstance(value, list | tuple) and all(type(s) is int and s in ANY_SEED for s in value)
    good = bool(value) and whole and len(set(value)) == len(value)
    if not good:
        expected = f"a list of different whole numbers from 0 to {ANY_SEED[-1]}"
        problems.append(f"{where}: found {value!r}, expected {expected}")
    return good


def good_name(where: str, name: str, problems: list[str]) -> bool:
    """May a model, data set or task be called so? If not, that is a problem ``where``."""
    # Names become shell patterns, MLflow tags and file names: keep them to what is the same in all three.
    good = bool(name) and len(name) <= 80 and all(c.isalnum() or c in "-_." for c in name) and name.isascii()
    if not good:
        problems.append(f"{where}: a name has letters, digits, '-', '_' and '.', at most 80")
    return good
