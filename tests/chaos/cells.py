"""A study of cells that cost next to nothing, whose answers are known beforehand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from clipstudy.job import Group
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec

#: Cells of one group: as many as a model of nine blocks has layers.
SIBLINGS = 10

Plan = list[tuple[Group, tuple[int, ...]]]


def answer(model: str, layer: int, version: int) -> float:
    """What the cell's metric must be, wherever and however often it was computed."""
    return zlib.crc32(f"{model} {layer} {version}".encode()) / 2**32


def plan(
    study: str, jobs: int, *, millis: float = 0, version: int = 1, siblings: int = SIBLINGS, poison: Sequence[int] = ()
) -> Plan:
    """At least ``jobs`` cells in groups of ``siblings``, each taking ``millis`` to compute.

    Args:
        version: part of the digest, and of the answers.
        poison: layers that kill whatever process computes them, in the first group.
    """
    groups = []
    for number in range(-(-jobs // siblings)):
        options = {
            "profile": "plain",
            "version": version,
            "millis": millis,
            "poison": tuple(poison) if number == 0 else (),
        }
        model = ModelSpec(f"m{number}", "made_up", f"made/up-{number}", siblings - 1)
        data = DatasetSpec("nothing", "senteval", path="nothing.txt")
        groups.append(
            (Group(study, model, data, TaskSpec("cheap", "cheap", "nothing", "accuracy", options=options)),
             tuple(range(siblings)))
        )  # fmt: skip
    return groups
