"""From the words of a command to the cells that it means, and what to say where there are none."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from clipstudy.errors import ClipstudyError, QueueError
from clipstudy.job import Selection
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Engine

    from clipstudy.job import Group
    from clipstudy.spec import Study


def selection(
    model: list[str] | None,
    task: list[str] | None,
    layer: list[str] | None,
    everything: bool,
    verb: str,
    study: str | None = None,
) -> Selection:
    """The cells that the options name; all of them only with ``everything``. ``verb``, with what else must be typed, is
    for the error that says so."""
    if not (everything or model or task or layer or study):
        raise ClipstudyError(f"No cells chosen. Add --model, --task or --layer, or type: clipstudy {verb} --all")
    return Selection(tuple(model or ()), tuple(task or ()), layers(layer), study_name(study))


def layers(given: list[str] | None) -> tuple[int, ...]:
    """``7`` and ``0-3`` as numbers."""
    from clipstudy import tasksfile

    found: set[int] = set()
    for text in given or ():
        first, dash, last = text.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isdecimal() and len(end) < 100 for end in ends) or int(ends[0]) > int(ends[1]):
            raise ClipstudyError(f'--layer "{text}": expected a number or a range, as in --layer 7 or --layer 0-3')
        if int(ends[1]) > tasksfile.DEEPEST:
            raise ClipstudyError(f'--layer "{text}": no model has more than {tasksfile.DEEPEST} layers')
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return tuple(sorted(found))


def command(verb: str, study: str | None, selection: Selection) -> str:
    """``clipstudy VERB`` for the models and tasks that ``selection`` names of the study file ``study``, to be typed."""
    words = ["clipstudy", verb, *(("--study", study) if study else ())]
    words += [word for pattern in selection.models for word in ("--model", pattern)]
    words += [word for pattern in selection.tasks for word in ("--task", pattern)]
    return shlex.join(words)


def study_name(given: str | None) -> str | None:
    """A study's name, as it is or out of its file."""
    from clipstudy import tasksfile

    if given is None or not given.endswith(".toml"):
        return given
    return tasksfile.load(tasksfile.find(given, Settings.read().home)).name


def existing(engine: Engine, selection: Selection) -> Selection:
    """``selection``, if there are such cells in the table.

    Raises QueueError, which says what there is.
    """
    from clipstudy.queue import jobs

    if selection == Selection():
        return selection
    names = jobs.names(engine)
    if not names:
        raise QueueError("Nothing is enqueued. Type: clipstudy enqueue --all")
    studies = {study for study, _, _ in names}
    within = [name for name in names if selection.study in (None, name[0])] or names
    _, models, tasks = (set(column) for column in zip(*within, strict=True))
    if unknown := unknown_name(selection, study=studies, model=models, task=tasks):
        where = f"Of study {selection.study}, the job table" if selection.study in studies else "The job table"
        raise QueueError(f"{where} has {unknown}")
    if not jobs.rows(engine, selection, limit=1, newest_only=False):
        raise QueueError(
            "The job table has each of these names, but no cell that has them all"
            + (f" at layer {', '.join(map(str, selection.layers))}" if selection.layers else "")
            + ". To list the cells that exist, type: clipstudy status --rows"
        )
    return selection


def unknown_name(selection: Selection, **there: Iterable[str]) -> str | None:
    """The first name or pattern of ``selection`` that takes none of those ``there``: no model "brt". Did you mean …"""
    from clipstudy.errors import did_you_mean

    study = () if selection.study is None else (selection.study,)
    named = {"study": study, "model": selection.models, "task": selection.tasks}
    for what, names in there.items():
        for pattern in named[what]:
            if pattern not in names and (what == "study" or not any(Selection((pattern,)).takes(n, "") for n in names)):
                if what == "model" and any(Selection((f"{pattern}-[0-9]*",)).takes(n, "") for n in names):
                    return f'no model "{pattern}", but one for each of its init_seeds. Write them all as "{pattern}-*".'
                return f'no {what} "{pattern}". {did_you_mean(pattern, names)}'
    return None


def where_numbers_are(word: str) -> str:
    """What lists the numbers of jobs: those of the model or task that ``word`` is, or nearly is, else all."""
    from clipstudy.cli import stores
    from clipstudy.errors import near
    from clipstudy.queue import jobs

    try:
        names = jobs.names(stores.engine(Settings.read()))
    except ClipstudyError:
        names = set()
    there = {"model": {model for _, model, _ in names}, "task": {task for _, _, task in names}}
    for what, known in sorted(there.items(), key=lambda item: word not in item[1]):
        if name := word if word in known else near(word, known):
            return f"To list jobs of the {what} {name}, type: clipstudy status --rows {shlex.join([f'--{what}', name])}"
    return "To list them, type: clipstudy status --rows"


def wrong(study: Study, selection: Selection, groups: Sequence[tuple[Group, tuple[int, ...]]]) -> str | None:
    """What is wrong with a selection of the study's cells that came to ``groups``."""
    if unknown := unknown_name(selection, model=study.models, task=study.tasks):
        return f"{study.path}: {unknown}"
    if unable := _unable(study, selection, bool(groups)):
        return f"{study.path}: {unable}"
    if selection.layers and (absent := _absent(study, selection, bool(groups))):
        return f"{study.path}: {absent}"
    if groups:
        return None
    return f"{study.path}: nothing matches: {_apart(study, selection)}. Fix the models or the tasks."


def _apart(study: Study, selection: Selection) -> str:
    """Why none of the models chosen is put to any of the tasks chosen."""
    chosen = Selection(models=selection.models), Selection(tasks=selection.tasks)
    models = [model for name, model in study.models.items() if chosen[0].takes(name, "")]
    tasks = [task for name, task in study.tasks.items() if chosen[1].takes("", name)]
    alike = [(model, task) for model in models for task in tasks if model.modality == task.modality]
    if not alike:
        read, of = ({one.modality for one in several} for several in (models, tasks))
        return f"the models chosen read {' or '.join(sorted(read))}s, the tasks chosen need {' or '.join(sorted(of))}s"
    put = [(model, task) for model, task in alike if Selection(models=task.models).takes(model.name, "")]
    if not put:
        model, task = alike[0]
        return f"[tasks.{task.name}] models = {json.dumps(task.models)} leaves {model.name} out"
    kind, name = next((("model", model.name) for model, _ in put if model.optional), ("task", put[0][1].name))
    return f"the {kind} {name} is optional, and runs only where it is named: --{kind} {name}"


def _absent(study: Study, selection: Selection, some: bool) -> str | None:
    """What is wrong with the layers of a selection that took ``some`` cells, or none."""
    from clipstudy.job import plan
    from clipstudy.results.units import ranges
    from clipstudy.spec import WHOLE_MODEL

    if some:
        chosen = [m for m in study.models.values() if any(selection.takes(m.name, task) for task in study.tasks)]
        deepest = max(m.layers for m in chosen)
        # A layer that a task leaves out is no error: `--layer 0-12` of a task of four stages means those.
        beyond = [k for k in selection.layers if k > deepest]
        there = f"the models chosen have layers 0 to {deepest}"
    else:
        beyond = list(selection.layers)
        layers = {k for _, own in plan(study, replace(selection, layers=())) for k in own}
        if layers == {WHOLE_MODEL}:
            return "the cells chosen are measured on whole models, not on layers. Leave out --layer."
        there = f"the cells chosen have layers {ranges(sorted(layers - {WHOLE_MODEL}))}"
        if not layers:  # the models cannot be asked that at any layer
            return None
    return f"no cell at layer {', '.join(map(str, beyond))}; {there}. Fix --layer." if beyond else None


def _unable(study: Study, selection: Selection, others: bool) -> str | None:
    """What is wrong where a model is asked by name what it cannot be; or by a pattern, and there are no ``others``."""
    for task, models in study.unable.items():
        alike = [m.name for m in study.models.values() if m.modality == study.tasks[task].modality]
        asked = [m for m in alike if selection.takes(m, task)]
        refused = [m for m in asked if m in models]
        named = [m for m in refused if m in selection.models and task in selection.tasks]
        if wrong := named or (refused if refused == asked and not others else []):
            able = ", ".join(m for m in alike if m not in models) or "none"
            return (
                f"[models.{wrong[0]}] has no attention, which [tasks.{task}] looks at. Models of this study that can "
                f"run it: {able}. Fix --model or --task."
            )
    return None
