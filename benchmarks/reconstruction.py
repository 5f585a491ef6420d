"""What decoders of four stages cost the model, against the decoder of one: they are trained on the same passes.

    python -m benchmarks.reconstruction [--full]

`reconstruct` as it is, for a few steps: ResNet-18 at 224 px, with ``--full`` ResNet-50 too; both untrained, on drawn
scenes. Prints a line a model: the model's own processor time with four stages against one, all of the time likewise,
the share of it that is the model's, and the most memory that the process held. Fails where the first ratio is more than
MOST.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clipstudy import backbones, tasks
from clipstudy.features import pictures
from clipstudy.pocket import pictures as scenes
from clipstudy.spec import DatasetSpec, ModelSpec
from clipstudy.tasks.task import Bench, Frozen, options

STEPS, BATCH, HELD_OUT, ROUNDS = 4, 16, 16, 2
MOST = 1.3


class Timed:
    """A model that counts the processor time of its passes."""

    def __init__(self, backbone: Any) -> None:
        self._backbone, self.seconds = backbone, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def states(self, pixels: torch.Tensor, layers: Sequence[int]) -> Any:
        started = time.process_time()
        found = self._backbone.states(pixels, layers)
        self.seconds += time.process_time() - started
        return found


def main(full: bool) -> None:
    kind = tasks.load("reconstruct")
    asked = options(kind, {"steps": STEPS, "batch_size": BATCH, "draws": 10}, "image")
    print(f"{STEPS} steps of {BATCH} images, {torch.get_num_threads()} threads; four stages / the last one")
    print(f"{'':12}{'model':>8}{'all':>8}{'share of the model':>22}{'most memory':>14}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        scenes.write(Path(folder), seed=0, sizes={"train": STEPS * BATCH * 2, "test": HELD_OUT}, size=64)
        columns = {"image": "img", "label": "coarse_label"}
        data = kind.read(DatasetSpec("scenes", "images", path=folder, columns=columns), asked)
        for name in ("resnet18", "resnet50")[: 1 + full]:
            spec = ModelSpec(name, "timm", name, 4, modality="image", init="random", batch_size=BATCH)
            backbone = backbones.load(spec, "cpu")
            pictures.calibrate(backbone, data.pictures, BATCH)
            times: dict[int, list[tuple[float, float]]] = {1: [], 4: []}
            for _ in range(ROUNDS):  # in turns, so that a busy moment of the machine hits both alike
                for stages, found in times.items():
                    timed, started = Timed(backbone), time.process_time()
                    given = Frozen(spec, timed)  # type: ignore[arg-type]
                    list(kind.measure(given, data, range(5 - stages, 5), (0,), asked, Bench()))
                    found.append((timed.seconds, time.process_time() - started))
            (own_one, one), (own, four) = (map(min, zip(*found, strict=True)) for found in times.values())
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"{name:12}{own / own_one:8.2f}{four / one:8.2f}{own / four:22.2f}{held:11.1f} GB", flush=True)
            worst = max(worst, own / own_one)
    if worst > MOST:
        sys.exit(f"four stages cost the model more than {MOST} times what one does")


if __name__ == "__main__":
    main("--full" in sys.argv[1:])
