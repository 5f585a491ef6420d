"""What a worker holds at most: each figure from a process of its own.

    python -m benchmarks.memory classify ROWS LAYERS | reconstruct MODEL | jobs NUMBER

The last line is the peak in GB; of ``jobs`` the bytes held after each job, as JSON.
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

from benchmarks.figures import Row, exponent, told
from clipstudy import device

WIDTH, CLASSES = 768, 6
#: Jobs after which a worker's memory is taken as settled.
WARM = 0.2


def rows(quick: bool) -> Iterator[Row]:
    sizes = (6_000, 4) if quick else (120_000, 13)
    yield Row(
        f"`classify` on {sizes[0]:,} rows × {sizes[1]} layers × {WIDTH}",
        [float(last_line("classify", *map(str, sizes)))],
        unit="GB",
        most=6,
        said="features of the store; train, dev and test as SentEval has them, one pass of every probe; the peak of a "
        "process that does nothing else",
    )
    yield Row(
        f"`reconstruct` from {'ResNet-18' if quick else 'ResNet-50'} at 224 px, batches of 16",
        [float(last_line("reconstruct", "resnet18" if quick else "resnet50"))],
        unit="GB",
        most=4,
        said="decoders of its four stages, 3 steps; the peak of a process that does nothing else",
    )
    number = 40 if quick else 1000
    held = json.loads(last_line("jobs", str(number)))
    late = held[int(WARM * len(held)) :]
    yield Row(
        f"memory of a worker after {number:,} jobs / after {int(WARM * number):,}",
        [late[-1] / late[0]],
        most=1.05,
        said=f"{late[-1] / 1e9:.2f} GB in the end; memory ~ jobs^{exponent(range(1, len(late) + 1), late):.3f}",
    )


def last_line(*words: str) -> str:
    """What this module says last, given ``words`` in a process of its own.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.splitlines()[-1]


def peak() -> float:
    """GB that this process held at most.

    Of its own memory, which begins anew with the program: what ``getrusage`` counts goes on from the peak of whoever
    started it. That is asked only where there is no /proc (macOS), so a figure from there may be the starter's.
    """
    own = told("/proc/self/status", "VmHWM").split()[0]
    if own.isdigit():
        return int(own) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


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


def jobs(number: int) -> list[int]:
    """Bytes that a worker holds after each of so many jobs."""
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
        held: list[int] = []
        while one.step() and len(held) < number:
            held.append(psutil.Process().memory_info().rss)
        one.engine.dispose()
    assert len(held) == number, f"{len(held)} of {number} jobs were done"
    return held


if __name__ == "__main__":
    device.prepare()  # as a worker does
    match sys.argv[1:]:
        case ["classify", number, layers]:
            classify_full(int(number), int(layers))
            print(peak())
        case ["reconstruct", name]:
            reconstruct(name)
            print(peak())
        case ["jobs", number]:
            print(json.dumps(jobs(int(number))))
        case _:
            sys.exit(__doc__)
