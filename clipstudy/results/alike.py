"""Were models measured alike on a task? Whoever edits a task and runs it for one model again leaves the others' results
of the older settings beside it, and no difference between such numbers is one between models."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from clipstudy import tasksfile
from clipstudy.outcome import Result

#: Keys of a data set that say where it lies: of what is in it, the fingerprint of its rows tells.
WHERE = frozenset({"dataset.path", "dataset.hub", "dataset.revision", "dataset.checksum"})
#: What decides of a task what is measured. Not its seeds: more of them measure the same, only better.
DECISIVE = ("option.", "dataset.", "task.method", "task.kind", "task.reference", "resolved.data", "resolved.reference")
#: Options of which no number depends: draws of a bootstrap move an interval's ends by less than they are told with.
WITHOUT = frozenset({"option.draws", "option.shown"})
#: What sets an untrained twin apart from its model.
OF_TWINS = frozenset({"model.init", "model.init_seed", "model.pretrained"})
#: How settings are called that are more than the name of an option.
NAMED = dict.fromkeys(("task.reference", "resolved.reference"), "the reference") | {
    "task.method": "the method's version"
}
#: Keys that only the computing process knows: of a run that has none, nothing is known.
FOUND_OUT = "resolved."
#: What a key that a run does not have is set to: only what says something is recorded.
UNSET = "not set"
#: A value longer than this is not told.
LONGEST = 40

#: Setting → model (family) → its values of it: several where its initialisations differ.
Unlike = Mapping[str, Mapping[str, tuple[str, ...]]]


def unlike(results: Iterable[Result]) -> Unlike:
    """The settings in which ``results``, of one task of one study, were not measured alike.

    Initialisations of one untrained twin are one model; they and the model that they are twins of must be alike in the
    models' own settings, too, but for what makes a twin.
    """
    made: dict[tuple[str, ...], Result] = {}
    for result in results:
        made.setdefault((result.model, result.tags.get("digest", ""), result.params.get("resolved.data", "")), result)
    shared: list[Result] = list(made.values())
    groups = {"": shared}
    for run in shared:
        groups.setdefault(run.tags.get("twin_of") or run.family, []).append(run)
    found: dict[str, dict[str, set[str]]] = {}
    for owner, runs in groups.items():
        for key in {key for run in runs for key in run.params if _decides(key, of_model=bool(owner))}:
            values: dict[str, set[str]] = defaultdict(set)
            for run in runs:
                if key in run.params or not key.startswith(FOUND_OUT):
                    values[run.family].add(run.params.get(key, UNSET))
            if len(set().union(*values.values())) > 1:
                found.setdefault(key, {}).update(values)
    return {key: {family: tuple(sorted(values)) for family, values in of.items()} for key, of in found.items()}


def behind(results: Iterable[Result], found: Unlike) -> list[str]:
    """The models whose settings are others than those of the newest of ``results``, as a command names them: of a twin
    every initialisation."""
    newest: dict[str, Result] = {}
    for run in sorted(results, key=lambda run: run.tags.get("ended", "")):
        newest[""] = newest[run.family] = newest[run.tags.get("twin_of") or run.family] = run

    def is_behind(family: str, key: str, values: tuple[str, ...]) -> bool:
        own = newest[family]
        last = newest[own.tags.get("twin_of") or family] if key.startswith("model.") else newest[""]
        return values != (last.params.get(key, UNSET),)

    late = sorted({family for key, of in found.items() for family, v in of.items() if is_behind(family, key, v)})
    return [family if newest[family].model == family else f"{family}-*" for family in late]


def _decides(key: str, *, of_model: bool) -> bool:
    if of_model:
        return key.startswith("model.") and key not in OF_TWINS
    return key.startswith(DECISIVE) and key not in WHERE | WITHOUT


def said(found: Unlike, titles: Mapping[str, str] | None = None) -> str:
    """``hidden is 200 (BERT), 50 (CLIP text, GPT-2)``; empty where all are alike.

    Args:
        titles: what models are called; by default by their names.
    """
    return "; ".join(dict.fromkeys(_said(key, of, titles or {}) for key, of in sorted(found.items())))


def again(study: str, task: str, models: Iterable[str]) -> str:
    """What to type so that these ``models``, too, are measured with the newest settings."""
    own = ["--study", study] if study in tasksfile.shipped() else []
    named = [word for model in models for word in ("--model", model)]
    return f"clipstudy enqueue {shlex.join([*own, '--task', task, *named])}; clipstudy worker --drain"


def _said(key: str, of: Mapping[str, tuple[str, ...]], titles: Mapping[str, str]) -> str:
    name = NAMED.get(key, key.partition(".")[2])
    whose: dict[str, list[str]] = defaultdict(list)
    for family, values in of.items():
        for value in values:
            whose[value].append(titles.get(family, family))
    some = {value: ", ".join(sorted(models)) for value, models in sorted(whose.items())}
    if any(len(value) > LONGEST for value in some):
        return f"{name} differs ({'; '.join(some.values())})"
    return f"{name} is {', '.join(f'{value} ({models})' for value, models in some.items())}"
