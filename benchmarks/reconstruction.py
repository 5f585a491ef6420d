"""What decoders of four stages cost: one pass for all of them against a run each, and the model's time for one.

`reconstruct` as it is, for a few steps, on drawn scenes; models untrained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, Stopwatch, in_turns, ratios
from clipstudy import backbones, tasks
from clipstudy.features import pictures
from clipstudy.pocket.images import pictures as scenes
from clipstudy.spec import DatasetSpec, ModelSpec
from clipstudy.tasks.task import Bench, Frozen, options

STEPS, BATCH, HELD_OUT = 2, 16, 16
STAGES = (1, 2, 3, 4)
COLUMNS = {"image": "img", "label": "coarse_label"}


def rows(quick: bool) -> Iterator[Row]:
    kind = tasks.load("reconstruct")
    asked = options(kind, {"steps": STEPS, "batch_size": BATCH, "draws": 10}, "image")
    passes: dict[tuple[int, ...], list[float]] = {}  # stages decoded → seconds of the model's own, one a call
    with tempfile.TemporaryDirectory() as folder:
        data = kind.read(drawn(Path(folder), STEPS * BATCH * 2, HELD_OUT), asked)
        spec = model("resnet18")
        backbone = backbones.load(spec, "cpu")
        pictures.calibrate(backbone, data.pictures)

        def of(*stages: int) -> Callable[[], None]:
            def call() -> None:
                timed: Any = Stopwatch(backbone)
                list(kind.measure(Frozen(spec, timed), data, stages, (0,), asked, Bench()))
                passes.setdefault(stages, []).append(timed.seconds)

            return call

        singly = {f"stage {stage}": of(stage) for stage in STAGES}
        seconds = in_turns(1 if quick else 5, together=of(*STAGES), **singly)
    said = f"ResNet-18 at 224 px, {STEPS} steps of {BATCH} images"
    apart = [sum(turn) for turn in zip(*(seconds[stage] for stage in singly), strict=True)]
    yield Row("decoders of 4 stages: four runs / one pass", ratios(apart, seconds["together"]), least=1.0, said=said)
    four, one = (passes[stages][1:] for stages in (STAGES, STAGES[-1:]))  # the first call warmed up
    yield Row("the model's time: 4 decoders / 1", ratios(four, one), most=1.3, said=f"{said}; stage 4 alone")


def model(name: str) -> ModelSpec:
    return ModelSpec(name, "timm", name, 4, modality="image", init="random", batch_size=BATCH)


def drawn(folder: Path, train: int, held_out: int) -> DatasetSpec:
    """Scenes of 64 px, written to ``folder``."""
    scenes.write(folder, seed=0, sizes={"train": train, "test": held_out}, size=64)
    return DatasetSpec("scenes", "images", path=str(folder), columns=COLUMNS, unseen_labels="drop")
