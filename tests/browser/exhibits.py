"""Made-up results and files of which a dashboard can draw everything that panels draw."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.outcome import Estimate, Result
from clipstudy.spec import WHOLE_MODEL
from tests.browser.served import Held, picture
from tests.made_up import BERT, MODELS, SHIFT, Task, result

LIKE = Task("like", "Likeness", "similarity", "cka")
QUESTIONS = Task("boolq", "Questions", "pairs")
PROBED, NAMED = Task("images", "Images, probed", "images"), Task("named", "Images, named", "zero")
LIKENESS = [[1.0, 0.5], [0.5, 1.0]]
WHOLE = {"layers": "-1", "layer_label": "whole model", "depth": ""}


def predictions(right: list[list[bool]]) -> bytes:
    """As `classify` keeps them: a row an item, a column a seed."""
    label = np.array(["a", "b"] * (len(right[0]) // 2))
    said = {f"mean/mlp/seed_{k}": np.where(row, label, "c") for k, row in enumerate(right)}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"label": label, **said}), buffer)
    return buffer.getvalue()


def _like(layer: int) -> Result:
    row = {f"cka/{j}": Estimate(value) for j, value in enumerate(LIKENESS[layer])}
    return replace(result(BERT, LIKE, layer, {"cka": Estimate(1.0), **row}, layers="0,1"), params={"reference": "bert"})


PROBE = result(BERT, PROBED, 1, {"accuracy": Estimate(0.5, 0.4, 0.6)}, dataset="d", layers="1", modality="image")
RESULTS = [
    _like(0),
    _like(1),
    result(BERT, QUESTIONS, WHOLE_MODEL, {"accuracy": Estimate(0.71, 0.70, 0.72)}, role="bert", **WHOLE),
    PROBE,
    result(BERT, NAMED, WHOLE_MODEL, {"accuracy": Estimate(0.3)}, kind="zero_shot", dataset="d", **WHOLE),
]
FILES = {
    PROBE.run_id: {
        "predictions.parquet": predictions([[True, False, False, False], [True, True, True, False]]),
        "maps.png": picture("red", 41),
        "other.png": picture("blue", 42),
    }
}
DASHBOARD = Dashboard(
    "Everything",
    (
        Panel("Maps", category=("similarity",), draw="heatmap"),
        Panel("Table 1", ("boolq",), draw="published", source=("*CSCI 566*",)),
        Panel("Best", ("boolq", "images", "like"), draw="best"),
        Panel("Pictures", ("images",), draw="pictures", picture=("maps*",)),
        Panel("Images", ("images",), seeds=True),
    ),
)


def store() -> Held:
    return Held(RESULTS, FILES)


def hostile(name: str) -> tuple[list[Result], Dashboard, dict[str, dict[str, bytes]]]:
    """The same with every name ``name``."""
    tags = {"model_title": name, "layer_label": name, "note": name, "description": name}
    found = [replace(r, tags=r.tags | tags | {"task_title": f"{name} {r.task}"}) for r in RESULTS]
    files = {run: {(n if n.endswith("t") else f"{name.replace('/', '')}.png"): f for n, f in of.items()}
             for run, of in FILES.items()}  # fmt: skip
    panels = tuple(replace(p, title=f"{name} {at}", caption=name, picture=()) for at, p in enumerate(DASHBOARD.panels))
    return found, Dashboard(name, panels), files


def paired() -> tuple[list[Result], None, dict[str, dict[str, bytes]]]:
    """Two models of wide recorded intervals, whose seeds agree item by item."""
    first = [True] * 30 + [False] * 10
    second = [True] * 20 + [False] * 20
    runs = [
        result(model, SHIFT, 1, {"accuracy": Estimate(value, value - 0.15, value + 0.15)}, layers="1")
        for model, value in ((BERT, 0.75), (MODELS[1], 0.5))
    ]
    files = {
        run.run_id: {"predictions.parquet": predictions([right] * 3)}
        for run, right in zip(runs, (first, second), strict=True)
    }
    return runs, None, files
