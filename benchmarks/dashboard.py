"""How long the dashboard makes a person wait: every page on a study of 10,000 runs, in a SQLite store and by a server.

    python -m benchmarks.dashboard [--quick]

The runs are those that the recorder would write, put into MLflow's tables in bulk: 24 models × 32 tasks × 13 layers.
Each page is asked over HTTP, as a browser asks. By store: the first page where MLflow must be read in full (cold); the
first page of a dashboard that was started before (warm: what is known is kept in a file); a look at MLflow that finds
nothing new; and every page after that.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, measured
from clipstudy.dashboard import app, panels
from clipstudy.dashboard.pages.components import Desk
from clipstudy.dashboard.records import LOOK as LATER
from clipstudy.dashboard.records import Records
from clipstudy.job import Group, layer_label
from clipstudy.outcome import Estimate, flat
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tracking import Entry, Tracking
from clipstudy.tracking.entry import PREFIX, entry_params, entry_tags, milliseconds, note, place, safe_metrics
from tests import servers

MODELS, TASKS, BLOCKS = 24, 32, 12
#: Seconds: of a first page whose results lie in the cache, and of a look that finds nothing new.
FIRST, LOOK = 2.0, 0.3
BEGUN = datetime(2026, 11, 1, tzinfo=UTC)
CATEGORIES = ("surface", "syntactic", "semantic", "phrase")


def rows(quick: bool) -> Iterator[Row]:
    models, tasks = (2, 5) if quick else (MODELS, TASKS)
    with tempfile.TemporaryDirectory(prefix="clipstudy-dashboard-") as name:
        folder = Path(name)
        uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")
        count = fill(uri, artifacts, models, tasks)
        yield from visited("SQLite", Tracking(uri, artifacts), folder / "cache-sqlite", count)
        with servers.mlflow(folder) as url:
            yield from visited("server", Tracking(url, ""), folder / "cache-server", count)


def visited(store: str, tracking: Tracking, cache: Path, count: int) -> Iterator[Row]:
    """What a person sees who comes for the first time, comes again later, and then goes from page to page."""
    tracking.prepare()  # importing MLflow is no part of a page
    clock, shown = Clock(), panels.load(panels.default())

    def first_page() -> Desk:
        records = Records(tracking, None, shown.order, cache, clock)
        desk = Desk(records, shown, "http://127.0.0.1:5000")
        asked(app.application(desk), "/")
        if len(records.now().results) != count:
            raise RuntimeError(records.now().trouble or "not everything was read")
        return desk

    def look() -> None:
        clock.later += LATER
        desk.records.now()

    def row(what: str, act: Callable[[], object], repeats: int = 3, most: float | None = None) -> Row:
        return Row(f"{store}: {what}", measured(repeats, act=act)["act"], "s", most=most)

    yield replace(row("first page, cold", first_page, 1), said=f"{count:,} runs")
    yield row("first page, warm", first_page, most=FIRST)
    desk = first_page()
    yield row("a look, nothing new", look, most=LOOK)
    clock.stopped = True  # from here on nothing but the pages
    visitor = app.application(desk)
    for path, page in app.PAGES.items():
        for query in QUERIES.get(path, ("",)):
            yield row(f"{page.TITLE}{query and ' ' + query}", partial(asked, visitor, path, query))


QUERIES = {
    "/": ("", "?panel=All+tasks", "?panel=All+tasks&draw=average"),
    "/tables": ("", "?table=layers", "?table=differences"),
    "/runs": ("", "?first=model-0&second=model-1"),
}


class Clock:
    """A clock that can be put forward, and stopped."""

    later, stopped = 0.0, False

    def __call__(self) -> float:
        return 0.0 if self.stopped else time.monotonic() + self.later


def asked(visitor: Any, path: str, query: str = "") -> None:
    """The page's contents, as a browser asks for them."""
    name = next(key for key in visitor.callback_map if "body.children" in key)
    inputs = [("at", "pathname", path), ("at", "search", query), ("tick", "n_intervals", 0)]
    outputs = [part.rpartition(".") for part in name.strip(".").split("...")]
    request = {
        "output": name,
        "outputs": [{"id": part[0], "property": part[2]} for part in outputs],
        "inputs": [{"id": i, "property": p, "value": value} for i, p, value in inputs],
        "state": [[], [], {"id": "chosen", "property": "data", "value": None}],
        "changedPropIds": ["at.pathname"],
    }
    answer = visitor.server.test_client().post("/_dash-update-component", json=request)
    if answer.status_code != 200 or '"body"' not in answer.text:
        raise RuntimeError(f"{path}{query}: HTTP {answer.status_code}: {answer.text[:500]}")


# -- the store -------------------------------------------------------------------------------------------------------


def fill(uri: str, artifacts: str, models: int, tasks: int) -> int:
    """Record a study as the recorder does, but for the first run in bulk; the number of its runs."""
    tracking = Tracking(uri, artifacts)
    tracking.prepare()
    groups = [
        Group("big", model(m), DatasetSpec("rows", "senteval"), task(t)) for m in range(models) for t in range(tasks)
    ]
    parent = tracking.parent(groups[0], None, None)
    first = entry(groups[0], 0, 0)
    pattern = tracking.record(first, parent)
    cells = [(g, layer) for g in range(len(groups)) for layer in range(BLOCKS + 1)]
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as base, base:
        base.row_factory = sqlite3.Row
        run = dict(base.execute("SELECT * FROM runs WHERE run_uuid = ?", [pattern]).fetchone())
        written: dict[str, list[tuple[Any, ...]]] = {"tags": [], "params": [], "latest_metrics": [], "metrics": []}
        runs = []
        for number, (g, layer) in enumerate(cells[1:], 1):
            made = entry(groups[g], layer, number)
            key, when = uuid.UUID(int=number).hex, milliseconds(made.ended)
            runs.append(
                run
                | {
                    "run_uuid": key,
                    "name": made.title,
                    "start_time": milliseconds(made.started),
                    "end_time": when,
                    "artifact_uri": run["artifact_uri"].replace(pattern, key),
                }
            )
            tags = entry_tags(made) | {
                PREFIX + "claimed": str(time.time_ns()),
                "mlflow.parentRunId": parent,
                "mlflow.runName": made.title,
                "mlflow.note.content": note(made.group, made),
            }
            points = flat(safe_metrics(made.metrics)) | place(made)
            written["tags"] += [(k, v, key) for k, v in tags.items()]
            written["params"] += [(k, v, key) for k, v in entry_params(made).items()]
            written["latest_metrics"] += [(k, v, when, layer, False, key) for k, v in points.items()]
        names = list(run)
        base.executemany(
            f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [tuple(values[n] for n in names) for values in runs],
        )
        written["metrics"] = written["latest_metrics"]
        for table in ("tags", "params"):
            base.executemany(f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", written[table])
        for table in ("latest_metrics", "metrics"):
            base.executemany(
                f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)",
                written[table],
            )
    return len(cells)


def model(number: int) -> ModelSpec:
    """Eight models, each with two untrained twins."""
    family, twin = divmod(number, 3)
    name = f"model-{family}" if not twin else f"model-{family}-untrained-{twin}"
    init: dict[str, Any] = {"init": "random", "init_seed": twin, "twin_of": f"model-{family}"} if twin else {}
    pooled = f"model-{family}-untrained" if twin else f"model-{family}"
    return ModelSpec(name, "transformers", f"org/model-{family}", BLOCKS, family=pooled, **init)


def task(number: int) -> TaskSpec:
    name = f"task-{number:02}"
    return TaskSpec(name, "classify", "rows", "accuracy", category=CATEGORIES[number % len(CATEGORIES)])


def entry(group: Group, layer: int, number: int) -> Entry:
    rng = random.Random(number)
    began = BEGUN + timedelta(seconds=number)
    arms = ("", "native/", "linear/", "control/")
    values = {arm: rng.uniform(0.4, 0.9) for arm in arms}
    metrics = {f"{arm}accuracy": Estimate(v, v - 0.01, v + 0.01) for arm, v in values.items()}
    metrics |= {f"{arm}dev_accuracy": Estimate(v) for arm, v in values.items()}
    metrics |= {"baseline/majority": Estimate(0.3), "items/train": Estimate(100_000), "items/test": Estimate(10_000)}
    versions = {f"version.{name}": "1.0" for name in ("python", "torch", "transformers", "mlflow", "numpy")}
    return Entry(
        group=group,
        job=number,
        attempt=1,
        layer=layer,
        label=layer_label(group.model, layer),
        kind="finished",
        started=began,
        ended=began + timedelta(seconds=1),
        metrics=metrics,
        params={
            "device": "cpu",
            "host": "here",
            "resolved.checkpoint": "0" * 40,
            "resolved.data": "f" * 64,
            **versions,
        },
    )


if __name__ == "__main__":
    found = []
    for figure in rows("--quick" in sys.argv[1:]):
        print(f"{figure.what:<50}{figure.value:>8.3f} {figure.unit}  {figure.bound}  {figure.said}", flush=True)
        found.append(figure)
    sys.exit(any(figure.met is False for figure in found))
