"""What a worker holds at most: each figure from a process of its own.

python -m benchmarks.memory classify ROWS LAYERS | reconstruct MODEL | jobs NUMBER
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Row, exponent, peak_of
from clipstudy import device

WIDTH, CLASSES = 768, 6
#: Jobs after which a worker's memory is taken as settled.
WARM = 0.2


def rows(quick: bool) -> Iterator[Row]:
    sizes = (6_000, 4) if quick else (120_000, 13)
    yield Row(
        f"`classify` on {sizes[0]:,} rows × {sizes[1]} layers × {WIDTH}",
        [peak_of("-m", "benchmarks.memory", "classify", *map(str, sizes))],
        unit="GB",
        most=6,
        said="features of the store; train, dev and test as SentEval has them, one pass of every probe",
    )
    yield Row(
        f"`reconstruct` from {'ResNet-18' if quick else 'ResNet-50'} at 224 px, batches of 16",
        [peak_of("-m", "benchmarks.memory", "reconstruct", "resnet18" if quick else "resnet50")],
        unit="GB",
        most=4,
    )
    number = 40 if quick else 1000
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "jobs", str(number)], check=True, capture_output=True, text=True
    )
    held = json.loads(done.stdout.splitlines()[-1])
    late = held[int(WARM * len(held)) :]
    yield Row(
        f"memory of a worker after {number:,} jobs / after {int(WARM * number):,}",
        [late[-1] / late[0]],
        most=1.05,
        said=f"{late[-1] / 1e9:.2f} GB in the end; memory ~ jobs^{exponent(range(1, len(late) + 1), late):.3f}",
    )


def classify_full(number: int, layers: int) -> None:
    """`classify` on features of a store that was filled with noise."""
    from clipstudy import tasks
    from clipstudy.data.labelled import Labelled, Rows
    from clipstudy.features.cache import Store
    from clipstudy.features.extract import Coverage, Features, Text
    from clipstudy.tasks.parts.items import Sentences
    from clipstudy.tasks.task import Bench, options

    kind = tasks.load("classify")
    asked = options(kind, {"views": ["mean"], "early_stop": False, "epoch_size": 1, "draws": 10}, "text")
    rng = np.random.default_rng(0)
    parts, at = [], 0
    for size in (number * 10 // 12, number // 12, number // 12):
        items = tuple((f"word-{i % 977}", "and", "more") for i in range(at, at + size))
        parts.append(Rows(items, tuple(map(str, rng.integers(0, CLASSES, size)))))
        at += size
    labelled = Labelled(*parts, "noise", "noise")
    data = Sentences(labelled, tuple(Text(words) for part in parts for words in part.items))
    with tempfile.TemporaryDirectory() as folder:
        store, arrays = Store(Path(folder)), {}
        for layer in range(layers):
            sheet = store.sheet("noise", "mean", layer, (at, WIDTH))
            for start in range(0, at, 1000):
                sheet.append(rng.standard_normal((min(1000, at - start), WIDTH), np.float32))
            arrays["mean", layer] = sheet.close()
        everything = np.arange(at)
        nothing = np.zeros(0, dtype=bool)
        coverage = Coverage(at, at, 0, 0, 0, 0, 0, 0)
        features = Features(arrays, {}, everything, np.zeros(at, dtype=bool), everything[:0], nothing, coverage, "mean")
        list(kind.measure(features, data, range(layers), range(5), asked, Bench()))


def reconstruct(name: str) -> None:
    from benchmarks.reconstruction import BATCH, drawn, model
    from clipstudy import backbones, tasks
    from clipstudy.features import pictures
    from clipstudy.tasks.task import Bench, Frozen, options

    kind = tasks.load("reconstruct")
    asked = options(kind, {"steps": 3, "batch_size": BATCH, "draws": 10}, "image")
    with tempfile.TemporaryDirectory() as folder:
        data = kind.read(drawn(Path(folder), 3 * BATCH, BATCH), asked)
        spec = model(name)
        backbone = backbones.load(spec, "cpu")
        pictures.calibrate(backbone, data.pictures)
        list(kind.measure(Frozen(spec, backbone), data, (1, 2, 3, 4), (0,), asked, Bench()))


def jobs(number: int) -> None:
    """Bytes that a worker holds after each of so many jobs, as JSON."""
    import psutil

    from benchmarks.growth import small
    from benchmarks.keeping import worker

    with tempfile.TemporaryDirectory() as folder:
        groups = [
            replace(group, task=replace(group.task, name=f"task-{k}", seeds=(k,)))
            for k in range(-(-number // 3))
            for group in small(Path(folder), models=1, tasks=1, limit=20)
        ]
        one = worker(Path(folder), groups)
        one.habits = replace(one.habits, layers_per_batch=1)
        held = []
        while one.step() and len(held) < number:
            held.append(psutil.Process().memory_info().rss)
        one.engine.dispose()
    assert len(held) == number, f"{len(held)} of {number} jobs were done"
    print(json.dumps(held))


if __name__ == "__main__":
    verb, *given = sys.argv[1:]
    device.prepare()  # as a worker does
    if verb == "classify":
        classify_full(*map(int, given))
    elif verb == "reconstruct":
        reconstruct(*given)
    elif verb == "jobs":
        jobs(int(*given))
    else:
        sys.exit(__doc__)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB", file=sys.stderr)
