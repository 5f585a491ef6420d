"""Probes as `classify` fits them by its profiles: what is timed and compared is what a study runs."""

from __future__ import annotations

from clipstudy.probes.mlp import Recipe
from clipstudy.tasks import classify
from clipstudy.tasks.parts import arms
from clipstudy.tasks.task import options


def _of(profile: str, probe: str) -> Recipe:
    return arms.recipe(options(classify, {"profile": profile}), probe)


SENTEVAL, LINEAR, JAWAHAR = _of("senteval", "mlp"), _of("senteval", "linear"), _of("jawahar", "mlp")
