"""`clipstudy demo`: the pocket study from nothing to a page, in minutes and with no network.

It does what a user would type: prepare the data, create the stores, enqueue every cell, let workers run, write the
report. Unless it is asked for the whole study, the study is thinned, and each task kind has a budget of time: cells
that are still queued when their kind's is spent are cancelled, and ``clipstudy retry --study pocket --cancelled``
queues them again.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clipstudy import device as devices
from clipstudy import tasksfile
from clipstudy.errors import ClipstudyError, writing
from clipstudy.job import SETTLED, Group, Job, Selection, Status, plan
from clipstudy.pocket import corpora
from clipstudy.pocket.baskets import Sizes
from clipstudy.progress import Progress
from clipstudy.queue import dialect, jobs, migration
from clipstudy.settings import Settings, locate
from clipstudy.spec import DatasetSpec, Study, TaskSpec
from clipstudy.supervisor import Crew, alike
from clipstudy.tracking import open as open_tracking
from clipstudy.wording import counted, duration

if TYPE_CHECKING:
    from sqlalchemy import Engine

STUDY = "pocket"
#: A group and the layers wanted of it.
Planned = tuple[Group, tuple[int, ...]]


@dataclass(frozen=True)
class Thin:
    """What is left of a task kind where minutes must do."""

    budget: float  #: seconds that all workers together may spend on its cells
    options: Mapping[str, Any] = field(default_factory=dict)  #: in place of the study's
    seeds: int = 3  #: at most


#: By task kind. Of views and probes the first, the headline arm, stays.
THIN: Mapping[str, Thin] = MappingProxyType({
    "attend": Thin(12.0, {"pictures": 200}),
    "classify": Thin(220.0, {"max_epoch": 60}),
    "classify_pairs": Thin(45.0, {"max_epoch": 60}),
    "finetune": Thin(30.0, {"epochs": 2, "question_only": False}, seeds=1),
    "phrase_clusters": Thin(35.0, {"restarts": 1, "arms": []}, seeds=1),
    "reconstruct": Thin(45.0, {"steps": 120}, seeds=1),
    "similarity": Thin(10.0),
    "visualise": Thin(30.0, {"channels": 8, "steps": 64, "natural": 64}, seeds=1),
    "zero_shot": Thin(10.0),
})  # fmt: skip
ARMS = ("views", "probes")
#: Rows a split of the thinned study: a test split of so many has a standard error of 1.8 points at most.
ROWS = 800
#: Of the corpora, whole and thinned study alike.
SIZES = Sizes()
#: What counts as done while it runs: an outcome that only waits for MLflow is computed.
DONE = (Status.COMPUTED, Status.DONE)
#: What is still to be computed.
WAITING = (Status.QUEUED, Status.RUNNING)
#: Seconds between two looks at the table.
LOOK = 1.0
#: Processes on a machine without an accelerator. Each holds its own libraries in memory, so not one a core.
WORKERS = 2


@dataclass(frozen=True)
class Ended:
    """How it went."""

    statuses: Mapping[Status, int]  #: cells of the study in each
    computed: int  #: cells that this call computed
    seconds: float

    @property
    def done(self) -> int:
        """Cells that are recorded, of earlier calls too."""
        return self.statuses.get(Status.DONE, 0)

    @property
    def failed(self) -> int:
        """Cells that failed for good."""
        return self.statuses.get(Status.FAILED, 0)

    @property
    def unfinished(self) -> int:
        """Cells that were neither measured nor given up, or that MLflow has not taken, when the workers had left."""
        return sum(number for status, number in self.statuses.items() if status not in SETTLED)

    @property
    def left_out(self) -> int:
        """Cells that the budgets had no room for."""
        return self.statuses.get(Status.CANCELLED, 0)


def budgets() -> dict[str, float]:
    """Task kind → seconds that all workers together may spend on it."""
    return {kind: thin.budget for kind, thin in THIN.items()}


def foretold(seconds_by_kind: Mapping[str, float], workers: int) -> str:
    """How long so many workers will take; empty where nothing bounds it."""
    whole = sum(seconds_by_kind.values())
    if not whole:
        return ""
    return (
        f"each task kind has a time budget, {duration(whole)} in total: about {duration(whole / workers)} on "
        f"{counted(workers, 'worker')}, which finish what they have begun"
    )


def thinned(study: Study) -> Study:
    """``study`` small enough for minutes: fewer rows and arms, one initialisation of each untrained twin."""
    models = {name: model for name, model in study.models.items() if not model.init_seed}
    datasets = {name: _fewer_rows(dataset) for name, dataset in study.datasets.items()}
    tasks = {name: _fewer_arms(task) for name, task in study.tasks.items()}
    return replace(study, models=models, datasets=datasets, tasks=tasks)


def _fewer_rows(dataset: DatasetSpec) -> DatasetSpec:
    # Chunks are drawn by the task itself, so many of each label.
    return dataset if dataset.reader == "conll2000" else replace(dataset, limit=ROWS)


def _fewer_arms(task: TaskSpec) -> TaskSpec:
    thin = THIN.get(task.kind)
    if thin is None:  # a kind that nobody has measured yet: whole
        return task
    first = {key: value[:1] for key, value in task.options.items() if key in ARMS}
    return replace(task, seeds=task.seeds[: thin.seeds], options={**task.options, **first, **thin.options})


def run(settings: Settings, *, full: bool, device: str, progress: Progress) -> Ended:
    """Bring the pocket study to its end on ``device``. What is done already is not done again.

    Raises:
        ClipstudyError: its models are not here, or the device is not; or nothing can be written here.
    """
    began = time.monotonic()
    engine = dialect.connect(settings.database)
    migration.migrate(engine)
    whole = tasksfile.load(tasksfile.find(STUDY, settings.home))
    _check_models(whole)
    rounds = in_rounds(plan(whole if full else thinned(whole), Selection()))
    before = jobs.enqueue(engine, list(chain(*rounds)), dry_run=True)
    unfinished = sum(number for status, number in before.present.items() if status not in SETTLED)
    done = before.present.get(Status.DONE, 0)
    if before.new or unfinished or (full and before.revived):
        with writing(logs := log_file(settings, 0).parent, "Go to a folder of your own, then type: clipstudy demo"):
            logs.mkdir(parents=True, exist_ok=True)
        progress.say("making the pocket corpora from their seed (once only)")
        # In processes of their own: what they need of torch, MLflow and memory is given back before the workers start.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            made = pool.submit(corpora.prepare, settings.cache / STUDY, sizes=SIZES)
            device = pool.submit(_prepare, settings, device).result()
            made.result()
        for number, groups in enumerate(rounds):
            jobs.enqueue(engine, groups, priority=-number)
        if not full and (said := foretold(budgets(), _worker_count(device))):
            progress.say(said)
        with _workers(settings, engine, device) as crew:
            _watch(engine, whole, crew, {} if full else budgets(), progress)
    counts = jobs.counts(engine, Selection(study=STUDY))
    statuses = {status: sum(cell.get(status, 0) for cell in counts.values()) for status in Status}
    return Ended(statuses, max(statuses[Status.DONE] - done, 0), time.monotonic() - began)


def in_rounds(planned: Iterable[Planned]) -> list[list[Planned]]:
    """The groups in the order of their worth where the time is too short for all: the first task of each trained model,
    then the second of each, so that no model and no picture of the course report is left out as a whole; twins last.
    CLIP's towers and the others take turns: what was measured of either alone would compare nothing."""
    tasks: Counter[str] = Counter()
    rounds: dict[tuple[bool, int], list[Planned]] = defaultdict(list)
    for group, layers in planned:
        rounds[group.model.init == "random", tasks[group.model.name]].append((group, layers))
        tasks[group.model.name] += 1
    return [_by_turns(rounds[key]) for key in sorted(rounds)]


def _by_turns(planned: list[Planned]) -> list[Planned]:
    parts = [[one for one in planned if ("clip" in (one[0].model.role or "")) is clip] for clip in (True, False)]
    return [one for pair in zip_longest(*parts) for one in pair if one is not None]


def _prepare(settings: Settings, device: str) -> str:
    """Create MLflow's stores, and say which device ``device`` means here."""
    found = devices.find(device)
    open_tracking(settings).prepare()
    return found


def _check_models(study: Study) -> None:
    """
    Raises:
        ClipstudyError: checkpoints of the study are not here.
    """
    places = {name: locate(model.checkpoint, model.base) for name, model in study.models.items()}
    missing = [place for place in places.values() if place is not None and not place.is_dir()]
    if missing:
        raise ClipstudyError(
            f"The pocket models are missing: {missing[0]} is not a folder. They come with the package: install it "
            f"again, or train them, which takes an hour or two: clipstudy pocket pretrain --folder {missing[0].parent}"
        )


def _worker_count(device: str) -> int:
    """How many workers there are."""
    return min(WORKERS, os.cpu_count() or 1) if device == "cpu" else 1


@contextmanager
def _workers(settings: Settings, engine: Engine, device: str) -> Iterator[Crew]:
    """Workers of this study alone, that end when nothing of it is queued; told to stop where the block is left early.

    Without an accelerator WORKERS of them, with one thread each: so small products gain nothing from two threads.
    """
    posts = alike(_worker_count(device), device, threads=1)
    with ExitStack() as files:
        logs = {post.name: files.enter_context(log_file(settings, k).open("w")) for k, post in enumerate(posts)}

        def say(post: str, line: str) -> None:
            print(line, file=logs[post], flush=True)

        with Crew(posts, engine, ["--drain", "--study", STUDY], say) as crew:
            yield crew


def log_file(settings: Settings, number: int) -> Path:
    """What worker ``number``, from 0, prints."""
    return settings.home / "mlruns" / f"demo-worker-{number + 1}.log"


def _watch(
    engine: Engine,
    study: Study,
    crew: Crew,
    seconds_by_kind: Mapping[str, float],
    progress: Progress,
) -> None:
    """Tell how far the study is, and keep to the budgets, until all workers have ended."""
    tasks_of: dict[str, list[str]] = defaultdict(list)
    for task in study.tasks.values():
        tasks_of[task.kind].append(task.name)
    progress.batch(study.name)
    spent: set[str] = set()
    while True:
        at_work = crew.tend()
        rows = jobs.rows(engine, Selection(study=study.name))
        now = dialect.now(engine)
        live = [row for row in rows if row.status not in (Status.CANCELLED, Status.SUPERSEDED)]
        if not seconds_by_kind:
            progress("cells", sum(row.status in DONE for row in live), len(live))
        used = 0.0
        for kind, tasks in tasks_of.items():
            cells = [row for row in live if row.task in tasks]
            budget, so_far = seconds_by_kind.get(kind, math.inf), seconds(cells, now)
            over = all(row.status not in WAITING for row in cells)
            used += seconds_by_kind.get(kind, 0.0) if over else min(so_far, budget)
            if kind not in spent and so_far > budget:
                spent.add(kind)
                left = jobs.cancel(engine, Selection(study=study.name, tasks=tuple(tasks)), running=False)
                if left:
                    progress.say(f"{kind}: time budget of {budget:.0f} s spent, {counted(left, 'cell')} left out")
        if seconds_by_kind:
            # Cells differ too much to tell the time by; a budget with nothing left to do counts as spent.
            whole = sum(seconds_by_kind.get(kind, 0.0) for kind in tasks_of)
            progress("budget in seconds", used, round(whole))
        if not at_work:
            break
        time.sleep(LOOK)
    progress.close()


def seconds(cells: Iterable[Job], now: datetime) -> float:
    """What workers spent on ``cells`` so far: from the claim of each batch to its last outcome, or until now."""
    batches: dict[tuple[int, datetime], datetime] = {}
    for cell in cells:
        if cell.started_at is not None:
            batch = cell.group_id, cell.started_at
            end = now if cell.status is Status.RUNNING else cell.ended_at or cell.started_at
            batches[batch] = max(end, batches.get(batch, end))
    return sum((end - started).total_seconds() for (_, started), end in batches.items())
