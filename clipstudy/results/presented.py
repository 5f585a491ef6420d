"""Names, roles and categories as the study says them now. A run is tagged with those of the day on which it was
measured. Editing them measures nothing anew: figures and claims follow the job table, which every `enqueue` brings up
to date. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clipstudy.job import Group
from clipstudy.outcome import Result
from clipstudy.tracking.entry import PREFIX, group_key, group_tags

#: Tags of a group that decide nothing of what is measured.
SAID = (
    "model_title", "family", "role", "twin_of", "task_title", "category", "metric", "layers", "note", "description",
)  # fmt: skip


def presented(results: Iterable[Result], groups: Iterable[Group]) -> list[Result]:
    """``results``, each with what its group says now; as it is tagged where ``groups`` has none of its settings."""
    now: dict[str, dict[str, str]] = {}
    for group in groups:
        tags = {key.removeprefix(PREFIX): value for key, value in group_tags(group).items()}
        now[group_key(group)] = {key: tags[key] for key in SAID if key in tags}
    return [_said(result, now.get(result.tags.get("group", ""))) for result in results]


def _said(result: Result, now: dict[str, str] | None) -> Result:
    if now is None or all(result.tags.get(key) == now.get(key) for key in SAID):
        return result
    return replace(result, tags={key: value for key, value in result.tags.items() if key not in SAID} | now)
