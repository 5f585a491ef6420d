"""Were models measured alike on a task? Whoever edits a task and runs it for one model again leaves the others' results
of the older settings beside it, and no difference between such numbers is one between models. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from clipstudy.outcome import Result

#: Keys of a data set that say where it lies: of what is in it, the fingerprint of its rows tells.
WHERE = frozenset({"dataset.path", "dataset.hub", "dataset.revision", "dataset.checksum"})
#: What decides of a task what is measured. Not its seeds: more of them measure the same, only better.
DECISIVE = ("option.", "dataset.", "task.method", "resolved.data")
#: A value longer than this is not told.
LONGEST = 40

#: Setting → model (family) → its values of it: several where its initialisations differ.
Unlike = Mapping[str, Mapping[str, tuple[str, ...]]]


def unlike(results: Iterable[Result]) -> Unlike:
    """The settings in which ``results``, of one task of one study, were not measured alike.

    Initialisations of one untrained twin are one model; of these, the models' own settings must be alike, too. A
    setting that a run does not know (it is of a version that had none such) is not held against it.
    """
    made: dict[tuple[str, ...], Result] = {}
    for result in results:
        made.setdefault((result.model, result.tags.get("digest", ""), result.params.get("resolved.data", "")), result)
    shared: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    own: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in made.values():
        family = run.tags.get("family") or run.model
        for key, value in run.params.items():
            if key.startswith(DECISIVE) and key not in WHERE:
                shared[key][family].add(value)
            elif key.startswith("model.") and key != "model.init_seed":
                own[key][family].add(value)
    found = {key: dict(of) for key, of in shared.items() if len(set.union(*of.values())) > 1}
    found |= {
        key: {family: values for family, values in of.items() if len(values) > 1}
        for key, of in own.items()
        if any(len(values) > 1 for values in of.values())
    }
    return {key: {family: tuple(sorted(values)) for family, values in of.items()} for key, of in found.items()}


def said(found: Unlike, titles: Mapping[str, str] | None = None) -> str:
    """``hidden is 200 (BERT), 50 (CLIP text, GPT-2)``; empty where all are alike.

    Args:
        titles: what models are called; by default by their names.
    """
    return "; ".join(_said(key, of, titles or {}) for key, of in sorted(found.items()))


def _said(key: str, of: Mapping[str, tuple[str, ...]], titles: Mapping[str, str]) -> str:
    name = "the method's version" if key == "task.method" else key.partition(".")[2]
    whose: dict[str, list[str]] = defaultdict(list)
    for family, values in of.items():
        for value in values:
            whose[value].append(titles.get(family, family))
    some = {value: ", ".join(sorted(models)) for value, models in sorted(whose.items())}
    if any(len(value) > LONGEST for value in some):
        return f"{name} differs ({'; '.join(some.values())})"
    return f"{name} is {', '.join(f'{value} ({models})' for value, models in some.items())}"
