"""`make chaos`: every fault on every kind of house; the table goes into docs/reliability.md.

A row that was run is kept in tests/chaos/rows.jsonl, and not run again while the sources of what is under test are the
same and it has as many cells as are asked for: all of them take most of a day. Ends with 1 where the promise was broken
in any row, or a row could not be run.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clipstudy.wording import counted
from tests.chaos import servers
from tests.chaos.faults import FAULTS
from tests.chaos.house import Backends, Fault, trial
from tests.chaos.table import HOUSES, PAGE, ROOT, Row, belongs, code, drawn, keep, rows, write

#: Seconds that the cells of a study keep its workers: see `trial`.
BUSY = 6.0
WORKERS = 3
#: What the others are compared with.
QUIET = next(fault for fault in FAULTS if fault.name == "quiet")
#: Bytes of the disk that runs full.
DISK = 96 * 2**20


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
        code=code(fault),
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="faults by name, shell patterns")
    parser.add_argument("--house", choices=HOUSES, action="append", help="one kind of house alone")
    parser.add_argument("--jobs", type=int, default=1000, help="cells a fault; a slow one gets a tenth (1000)")
    parser.add_argument("--again", action="store_true", help="run once more what need not be")
    parser.add_argument("--idle", action="store_true", help="nothing else runs on this machine: keep goodput, too")
    parser.add_argument("--list", action="store_true", help="say which faults there are, and do nothing")
    parser.add_argument("--draw", action="store_true", help="draw the table of the rows that are kept, and run nothing")
    asked = parser.parse_args()
    if asked.draw:
        write(rows())
        sys.exit()
    wanted = [fault for fault in FAULTS if matches(fault.name, asked.only)]
    if asked.list or not wanted:
        print(*(f"{fault.name:24} {fault.what}" for fault in FAULTS), sep="\n")
        sys.exit(None if asked.list else f"--only {' '.join(asked.only)}: there is no such fault")
    stand = {} if asked.again else {(row.fault, row.house): row for row in rows()}
    todo: dict[str, list[Fault]] = {}
    for house in asked.house or HOUSES:
        for fault in wanted:
            row = stand.get((fault.name, house))
            if not belongs(fault, house) or (row and row.stands(fault, share(fault, asked.jobs))):
                continue
            if "root" in fault.needs and os.geteuid() != 0:
                print(f"{fault.name} on {house}: not run: mounts a disk, which only root may")
                continue
            todo.setdefault(house, []).append(fault)
    number = sum(map(len, todo.values()))
    print(f"{counted(number, 'row')} to run: the others have as many cells as asked for, of this code", flush=True)
    could = all([work(house, faults, asked.jobs, asked.idle) for house, faults in todo.items()])
    found = rows()
    print(drawn(found))
    write(found)
    print(f"the table is in {PAGE.relative_to(ROOT)}")
    sys.exit(0 if could and all(row.kept for row in found) else 1)


def share(fault: Fault, jobs: int) -> int:
    """How many cells ``fault`` gets where ``jobs`` are asked for."""
    return max(jobs // 10, min(jobs, 60)) if fault.slow else jobs


def work(house: str, faults: list[Fault], jobs: int, idle: bool) -> bool:
    """Run ``faults`` and keep what came of them; whether all could be run."""
    could = True
    quiet: dict[str, float] = {}  # cells a second where nothing happens
    with servers.folder("clipstudy-chaos-") as folder, contextlib.ExitStack() as stack:
        backends = Backends(house, servers.unused_store(folder / "mlflow.db"))
        if house == "served":
            backends = replace(backends, postgres=servers.Postgres(folder / "postgres"))
            stack.callback(backends.postgres.close)
        if house != "embedded":
            backends = replace(backends, mlflow=servers.MLflow(folder / "mlflow"))
            stack.callback(backends.mlflow.close)
        for fault in faults:
            number = share(fault, jobs)
            plain = like(fault, number)
            try:
                row = run(fault, backends, folder, number)
                if idle and fault is not QUIET and plain.name not in quiet:
                    quiet[plain.name] = run(plain, backends, folder, number).rate
            except Exception:  # of the test's own doing: the others are run all the same
                print(f"{fault.name} on {house} could not be run", flush=True)
                traceback.print_exc()
                could = False
                continue
            if idle:
                row = replace(row, goodput=row.rate / quiet.setdefault(plain.name, row.rate))
            how = "kept" if row.kept else "BROKEN"
            found = f"{row.done}/{row.jobs} done, {row.failed} failed, {row.blows} blows, {row.took:.0f} s: {how}"
            print(f"{row.fault:24} {row.house:9} {found}", *row.told, sep="\n    ", flush=True)
            keep(row)
    return could


def like(fault: Fault, number: int) -> Fault:
    """Nothing, on ``number`` cells that take as long as those of ``fault``."""
    plan = {key: value for key, value in fault.plan.items() if key == "millis"}
    lasting = "".join(f" of {millis} ms" for millis in plan.values())
    return replace(QUIET, name=f"quiet, {number} cells{lasting}", plan=plan)


def matches(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    main()
