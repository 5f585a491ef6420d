"""What decoders of four stages cost: one pass for all of them against a run each, and the model's time for one.

`reconstruct` as it is, for a few steps, on drawn scenes; models untrained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, Stopwatch, now, ratios
from clipstudy import backbones, tasks
from clipstudy.features import pictures
from clipstudy.pocket import pictures as scenes
from clipstudy.spec import DatasetSpec, ModelSpec
from clipstudy.tasks.task import Bench, Frozen, options

STEPS, BATCH, HELD_OUT = 2, 16, 16
COLUMNS = {"image": "img", "label": "coarse_label"}


def rows(quick: bool) -> Iterator[Row]:
    kind = tasks.load("reconstruct")
    asked = options(kind, {"steps": STEPS, "batch_size": BATCH, "draws": 10}, "image")
    with tempfile.TemporaryDirectory() as folder:
        data = kind.read(drawn(Path(folder), STEPS * BATCH * 2, HELD_OUT), asked)
        spec = model("resnet18")
        backbone = backbones.load(spec, "cpu")
        pictures.calibrate(backbone, data.pictures)

        def took(stages: Any) -> tuple[float, float]:
            """Seconds: all, and the model's own."""
            timed, began = Stopwatch(backbone), now()
            list(kind.measure(Frozen(spec, timed), data, stages, (0,), asked, Bench()))  # type: ignore[arg-type]
            return now() - began, timed.seconds

        turns = [(took([1, 2, 3, 4]), [took([stage]) for stage in (1, 2, 3, 4)]) for _ in range(1 if quick else 5)]
    said = f"ResNet-18 at 224 px, {STEPS} steps of {BATCH} images"
    together, model_together = zip(*(one for one, _ in turns), strict=True)
    apart = [sum(whole for whole, _ in each) for _, each in turns]
    last = [each[-1][1] for _, each in turns]
    yield Row("decoders of 4 stages: four runs / one pass", ratios(apart, together), least=1.0, said=said)
    yield Row("the model's time: 4 decoders / 1", ratios(model_together, last), most=1.3, said=f"{said}; stage 4 alone")


def model(name: str) -> ModelSpec:
    return ModelSpec(name, "timm", name, 4, modality="image", init="random", batch_size=BATCH)


def drawn(folder: Path, train: int, held_out: int) -> DatasetSpec:
    """Scenes of 64 px, written to ``folder``."""
    scenes.write(folder, seed=0, sizes={"train": train, "test": held_out}, size=64)
    return DatasetSpec("scenes", "images", path=str(folder), columns=COLUMNS, unseen_labels="drop")
