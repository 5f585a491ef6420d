"""What a study planned, as the job table says, beside what it has results of. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

from clipstudy.job import Status
from clipstudy.results.boards import Board, is_pocket
from clipstudy.wording import counted

#: (study, model, task) → how many of its cells are in which status.
Planned = Mapping[tuple[str, str, str], Mapping[Status, int]]
#: What a cell is whose result is yet to come, or did not come, in words.
OPEN = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.COMPUTED: "not in MLflow yet",
    Status.FAILED: "failed",
}
#: The study that `clipstudy demo` makes.
DEMO = "pocket"


def left_out(planned: Planned, study: str, shown: Board) -> str:
    """A sentence on the study's cancelled cells, of which kinds they are and what runs them; empty: there are none."""
    cancelled: Counter[str] = Counter()
    for (of, _, task), statuses in planned.items():
        if of == study:
            cancelled[task] += statuses.get(Status.CANCELLED, 0)
    if not (number := cancelled.total()):
        return ""
    titles = {r.task: r.tags.get("task_title", r.task) for r in shown.results}
    which = "; ".join(f"{titles.get(task, task)}: {count:,}" for task, count in cancelled.most_common() if count)
    demo = study == DEMO and any(map(is_pocket, shown.results))
    why = "left out by the demo's time budget" if demo else "cancelled"
    were = "was" if number == 1 else "were"
    return f"{counted(number, 'cell')} {were} {why} ({which}). To run them, type: {again(study)}"


def unfinished(planned: Planned) -> str:
    """A sentence on the cells that are not done, or are being done again; empty: there are none."""
    found = Counter[Status]()
    for statuses in planned.values():
        found.update({status: number for status, number in statuses.items() if status in OPEN})
    of = [f"{found[status]:,} {word}" for status, word in OPEN.items() if found[status]]
    return f"Not all cells are done: {', '.join(of)} (for more: clipstudy status)." if of else ""


def again(study: str) -> str:
    """What runs the study's cancelled cells."""
    named = shlex.quote(study)  # a study file's name needs none, but rows may be of anybody
    return f"clipstudy retry --study {named} --cancelled; clipstudy worker --drain --study {named}"


def was_cancelled(planned: Planned, study: str, model: str, task: str) -> bool:
    """Is there a cancelled cell of them? ``model`` is a pattern; an empty name stands for any."""
    return any(
        of == study and fnmatchcase(one, model or "*") and task in ("", on) and statuses.get(Status.CANCELLED)
        for (of, one, on), statuses in planned.items()
    )


def gaps(planned: Planned, study: str, shown: Board) -> list[str]:
    """A line for each model on the tasks that were planned with it and have no result of it at all."""
    there = {(r.model, r.task) for r in shown.results}
    missing: dict[str, list[str]] = {}
    for of, model, task in planned:
        if of == study and (model, task) not in there:
            missing.setdefault(model, []).append(task)
    return [f"{model}: no result yet on {', '.join(sorted(tasks))}" for model, tasks in sorted(missing.items())]
