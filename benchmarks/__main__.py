"""``python -m benchmarks``: measure every topic, or some, print their rows and put them into docs/performance.md.

    python -m benchmarks [--quick] [--only TOPIC ...] [--clock wall|processor]

Ends with 1 where a bound is not met or a topic failed; the table is written all the same.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Row, machine, short
from benchmarks.page import FULL, QUICK, filled
from clipstudy import device

#: In the order of the table.
TOPICS = {
    "study": "The whole text study",
    "extraction": "Extraction",
    "overlap": "Stages at a time",
    "probes": "Probes",
    "clusters": "Clusters",
    "reconstruction": "Reconstruction",
    "visualise": "Visualisation",
    "keeping": "Queue, MLflow and command line",
    "dashboard": "The dashboard with many runs",
    "memory": "Memory",
    "growth": "Growth",
    "gpu": "On a GPU",
}
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    told = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    told.add_argument("--quick", action="store_true", help="smaller and fewer repeats: ten minutes, not an hour")
    told.add_argument("--only", nargs="+", choices=TOPICS, help="these topics; the page keeps its other sections")
    told.add_argument("--clock", choices=figures.CLOCKS, default="wall", help="processor: for a busy machine")
    asked = told.parse_args()
    figures.use(asked.clock)
    device.prepare()  # as a worker does
    began, failed = time.perf_counter(), []
    found: dict[str, list[Row]] = {}
    stamp = ""
    for topic in asked.only or TOPICS:
        print(f"\n{TOPICS[topic]}", flush=True)
        found[topic] = []
        try:
            for row in importlib.import_module(f"benchmarks.{topic}").rows(asked.quick):
                found[topic].append(row)
                print("  " + line(row), flush=True)
        except Exception:  # what is measured already is not to be lost
            traceback.print_exc()
            failed.append(topic)
        stamp = written(found, quick=asked.quick, clock=asked.clock)  # nor is it where a run is ended early
    minutes = (time.perf_counter() - began) / 60
    everything = [row for rows in found.values() for row in rows]
    broken = [row for row in everything if row.met is False]
    bound = [row for row in everything if row.met is not None]
    print(f"\n{stamp}, {minutes:.0f} min: {len(bound) - len(broken)} of {len(bound)} bounds are met.")
    if failed:
        print(f"Not measured, since it failed: {', '.join(failed)}.")
    print("the table is in docs/performance.md" + " where it had no full run's" * asked.quick)
    if broken or failed:
        sys.exit(1)


def written(found: Mapping[str, Sequence[Row]], *, quick: bool, clock: str) -> str:
    """Put the rows of each topic into the page; how they were measured, in words."""
    rate = f"a matrix product of side {figures.SIDE} at {figures.gemm_rate() / 1e9:.0f} GFLOP/s"
    stamp = f"{QUICK if quick else FULL}, {clock} time, {date.today()}, {rate}"
    sections = {TOPICS[topic]: rows for topic, rows in found.items()}
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(text, sections, stamp, machine(), list(TOPICS.values())), encoding="utf-8")
    return stamp


def line(row: Row) -> str:
    said = f"{short(row.value)} {row.unit}".strip()
    judged = {None: "", True: f"  {row.bound}: met", False: f"  {row.bound}: NOT MET"}[row.met]
    spread = f"  ({short(min(row.found))}–{short(max(row.found))})" if len(row.found) > 1 else ""
    return f"{row.what:66} {said}{spread}{judged}  {row.said}"


if __name__ == "__main__":
    main()
