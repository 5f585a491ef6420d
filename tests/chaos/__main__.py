"""`make chaos`: every fault on every kind of house; the table goes into docs/reliability.md.

A row that is finished is kept in tests/chaos/rows.jsonl and not run again unless --again says so: all of them take most
of a day. Ends with 1 where the promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos import servers
from tests.chaos.faults import FAULTS
from tests.chaos.house import Backends, Fault, trial

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "chaos" / "rows.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
MARKS = ("<!-- chaos: begin -->", "<!-- chaos: end -->")
HOUSES = {
    "embedded": "SQLite, MLflow on SQLite",
    "served": "Postgres, MLflow server",
    "mixed": "SQLite, MLflow server",
}
#: Seconds that the cells of a study keep its workers: see `trial`.
BUSY = 6.0
WORKERS = 3
#: Bytes of the disk that runs full.
DISK = 96 * 2**20


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    what: str
    house: str
    jobs: int
    done: int
    failed: int
    given_up: int
    lost: int
    twice: int
    disagree: int
    attempts: int
    blows: int
    median: float | None  #: seconds
    worst: float | None
    took: float  #: seconds
    rate: float  #: cells done a second
    kept: bool
    date: str
    told: tuple[str, ...]  #: what was wrong


def run(fault: Fault, backends: Backends, folder: Path, jobs: int) -> Row:
    with place(fault, folder) as here:
        seen, verdict, wrong = trial(
            fault, backends, here / "house", jobs, busy=BUSY, workers=WORKERS, limit=180 + jobs / 2
        )
    return Row(
        fault=fault.name,
        what=fault.what,
        house=backends.name,
        jobs=verdict.jobs,
        done=verdict.done,
        failed=verdict.failed,
        given_up=verdict.given_up,
        lost=len(verdict.lost),
        twice=len(verdict.twice),
        disagree=len(verdict.disagree),
        attempts=verdict.attempts,
        blows=seen.blows,
        median=seen.median,
        worst=max(seen.recoveries, default=None),
        took=seen.took,
        rate=verdict.done / seen.took,
        kept=not wrong,
        date=time.strftime("%Y-%m-%d"),
        told=tuple(wrong[:20]),
    )


@contextlib.contextmanager
def place(fault: Fault, folder: Path) -> Iterator[Path]:
    """Where the house of ``fault`` stands: a disk of its own where that is to run full."""
    here = folder / re.sub(r"\W+", "-", fault.name)
    here.mkdir()
    if "root" not in fault.needs:
        yield here
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", here], check=True)
    try:
        yield here
    finally:
        subprocess.run(["umount", "-l", here], check=True)


def possible(fault: Fault, where: str) -> str | None:
    """None: it is; else why not."""
    has = {"embedded": {"embedded"}, "served": {"postgres", "server"}, "mixed": {"server"}}[where]
    if fault.needs - has - {"root"}:
        return "is not about such a house"
    if where == "mixed" and fault.name != "quiet" and "server" not in fault.needs:
        return "is about what the other houses have, too"
    if "root" in fault.needs and os.geteuid() != 0:
        return "mounts a disk, which only root may"
    return None


def rows() -> list[Row]:
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    order = {fault.name: number for number, fault in enumerate(FAULTS)}
    known = [row for row in (Row(**json.loads(line)) for line in lines) if row.fault in order]
    return sorted(known, key=lambda row: (order[row.fault], row.house))


def keep(row: Row) -> None:
    others = [other for other in rows() if (other.fault, other.house) != (row.fault, row.house)]
    KEPT.write_text("".join(f"{json.dumps(vars(one))}\n" for one in [*others, row]))


def table(found: list[Row]) -> str:
    quiet = {row.house: row.rate for row in found if row.fault == "quiet"}
    names = ["fault", "setup"]
    counts = ["jobs", "done", "failed", "given up", "lost", "twice", "disagree", "attempts", "injections"]
    head = [*names, *counts, "recovery", "worst", "goodput", "run on"]
    rules = ["---"] * len(names) + ["--:"] * (len(head) - len(names) - 1) + ["---"]
    lines = [line(head), line(rules)]
    for row in found:
        share = f"{row.rate / quiet[row.house]:.0%}" if row.house in quiet else "–"
        counted = [row.jobs, row.done, row.failed, row.given_up, row.lost, row.twice, row.disagree, row.attempts]
        recovery = [seconds(row.median), seconds(row.worst)]
        lines.append(line([row.fault, row.house, *counted, row.blows, *recovery, share, row.date]))
    there = {(row.fault, row.house) for row in found}
    for where in HOUSES:
        missing = [f.name for f in FAULTS if not possible(f, where) and (f.name, where) not in there]
        if missing:
            lines += ["", f"Not run on {where}: {', '.join(missing)}."]
    lines += ["", "What each fault is:", ""]
    lines += [f"- **{name}**: {what}" for name, what in dict((row.fault, row.what) for row in found).items()]
    return "\n".join(lines)


def line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def seconds(number: float | None) -> str:
    return "–" if number is None else f"{number:.1f} s"


def write(found: list[Row]) -> None:
    text = PAGE.read_text()
    head, tail = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    PAGE.write_text(f"{head}{MARKS[0]}\n\n{table(found)}\n\n{MARKS[1]}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="faults by name, shell patterns")
    parser.add_argument("--house", choices=HOUSES, action="append", help="one kind of house alone")
    parser.add_argument("--jobs", type=int, default=1000, help="cells a fault; a slow one gets a tenth (1000)")
    parser.add_argument("--again", action="store_true", help="run what is finished once more")
    parser.add_argument("--list", action="store_true", help="say which faults there are, and do nothing")
    asked = parser.parse_args()
    wanted = [fault for fault in FAULTS if matches(fault.name, asked.only)]
    if asked.list or not wanted:
        print(*(f"{fault.name:24} {fault.what}" for fault in FAULTS), sep="\n")
        sys.exit(None if asked.list else f"--only {' '.join(asked.only)}: there is no such fault")
    there = set() if asked.again else {(row.fault, row.house) for row in rows()}
    broken = False
    for where in asked.house or HOUSES:
        todo = [f for f in wanted if not possible(f, where) and (f.name, where) not in there]
        for fault in wanted:
            if (why := possible(fault, where)) and "root" in fault.needs:
                print(f"{fault.name} on {where}: not run: {why}")
        if todo:
            broken |= work(where, todo, asked.jobs)
    found = rows()
    print(table(found))
    write(found)
    print(f"the table is in {PAGE.relative_to(ROOT)}")
    sys.exit(1 if broken or not all(row.kept for row in found) else 0)


def work(where: str, todo: list[Fault], jobs: int) -> bool:
    """Run ``todo``; whether a promise was broken."""
    broken = False
    with servers.folder("clipstudy-chaos-") as folder, contextlib.ExitStack() as stack:
        backends = Backends(where, servers.unused_store(folder / "mlflow.db"))
        if where == "served":
            backends = replace(backends, postgres=servers.Postgres(folder / "postgres"))
            stack.callback(backends.postgres.close)
        if where != "embedded":
            backends = replace(backends, mlflow=servers.MLflow(folder / "mlflow"))
            stack.callback(backends.mlflow.close)
        for fault in todo:
            try:
                row = run(fault, backends, folder, max(jobs // 10, min(jobs, 60)) if fault.slow else jobs)
            except Exception:  # of the test's own doing: the others are run all the same
                print(f"{fault.name} on {where} could not be run", flush=True)
                traceback.print_exc()
                broken = True
                continue
            broken |= not row.kept
            how = "kept" if row.kept else "BROKEN"
            found = f"{row.done}/{row.jobs} done, {row.failed} failed, {row.blows} blows, {row.took:.0f} s: {how}"
            print(f"{row.fault:24} {row.house:9} {found}", *row.told, sep="\n    ", flush=True)
            if row.kept:
                keep(row)
    return broken


def matches(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    main()
