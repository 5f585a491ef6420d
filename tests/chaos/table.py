"""The rows of `make chaos`: kept in a file from day to day, and drawn into docs/reliability.md."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy.wording import counted
from tests.chaos import faults
from tests.chaos.faults import FAULTS
from tests.chaos.house import Fault

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "chaos" / "rows.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
MARKS = ("<!-- chaos: begin -->", "<!-- chaos: end -->")
HOUSES = {
    "embedded": "SQLite, MLflow on SQLite",
    "served": "Postgres, MLflow server",
    "mixed": "SQLite, MLflow server",
}
#: What is under test, below `clipstudy`.
PROTOCOL = (
    "queue/**/*.py", "tracking/**/*.py",
    "worker.py", "attempt.py", "heartbeat.py", "recorder.py", "supervisor.py", "run.py", "lock.py",
)  # fmt: skip
#: What makes no row, and the faults, of which each row has one.
OTHERS = ("table.py", "test_*.py", "faults.py")
#: Constants of the faults.
PLAIN = (str, int, float, frozenset)


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
    code: str = ""  #: see `code`; empty: of an earlier version that did not say
    #: ``rate`` as a share of a quiet run's on the same setup, of as many cells that take as long. None: the machine had
    #: other work meanwhile, and times are upper bounds.
    goodput: float | None = None

    def stands(self, fault: Fault, jobs: int) -> bool:
        """Whether it need not be run again where ``jobs`` cells are asked for. One that broke stands, too."""
        return self.code == code(fault) and self.jobs >= jobs


def hashed(root: Path) -> str:
    """A short hash of the sources of what is under test, and of the test, but for the faults."""
    found = [path for pattern in PROTOCOL for path in (root / "clipstudy").glob(pattern)]
    chaos = (root / "tests" / "chaos").rglob("*.py")
    found += [path for path in chaos if not any(path.match(pattern) for pattern in OTHERS)]
    sources = hashlib.sha256()
    for path in sorted(found):
        content = path.read_bytes()
        sources.update(f"{path.relative_to(root)} {len(content)}\0".encode() + content)
    return sources.hexdigest()[:12]


#: Of the sources as they were when this process began: a day later they may be others.
CODE = hashed(ROOT)


def code(fault: Fault) -> str:
    """A short hash of all that makes a row of ``fault``: of the sources in common, and of what the fault does."""
    return hashlib.sha256(f"{CODE} {_made_of(vars(fault))}".encode()).hexdigest()[:12]


def _made_of(value: Any, within: tuple[Any, ...] = ()) -> str:
    """Values as they are written, functions of the faults by their source and all that they use of that file.

    Args:
        within: functions whose source is there already.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_made_of(one, within)}" for key, one in value.items())
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    if not inspect.isfunction(value):
        return repr(value)
    if value.__module__ != faults.__name__ or value in within:
        return value.__qualname__
    used = inspect.getclosurevars(value)
    named = {**used.nonlocals, **used.globals}
    here = {name: one for name, one in named.items() if inspect.isfunction(one) or isinstance(one, PLAIN)}
    return f"{inspect.getsource(value)} {_made_of(here, (*within, value))}"


def rows() -> list[Row]:
    """All that are kept, in the table's order."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    order = {fault.name: number for number, fault in enumerate(FAULTS)}
    known = [row for row in (Row(**json.loads(line)) for line in lines) if row.fault in order]
    return sorted(known, key=lambda row: (order[row.fault], row.house))


def keep(row: Row) -> None:
    """Put ``row`` in the place of what there was of its fault and house."""
    others = [other for other in rows() if (other.fault, other.house) != (row.fault, row.house)]
    KEPT.write_text("".join(f"{json.dumps(vars(one))}\n" for one in [*others, row]))


def belongs(fault: Fault, house: str) -> bool:
    """Whether ``fault`` is about ``house``, and not run on another that has the same."""
    has = {"embedded": {"embedded"}, "served": {"postgres", "server"}, "mixed": {"server"}}[house]
    twice = house == "mixed" and fault.name != "quiet" and "server" not in fault.needs
    return not twice and fault.needs <= has | {"root"}


def drawn(found: Sequence[Row]) -> str:
    """``found`` as Markdown, what was not run below it."""
    counts = ["jobs", "done", "failed", "given up", "lost", "twice", "disagree", "attempts", "injections"]
    head = ["fault", "setup", *counts, "recovery", "worst", "goodput", "run on"]
    now = {fault.name: code(fault) for fault in FAULTS}
    earlier = [row for row in found if row.code != now.get(row.fault)]
    told = f"{counted(len(found), 'row')}: in {sum(row.kept for row in found)} the promise held."
    if earlier:
        told += f" {len(earlier)} of them (†) are of an earlier version of the code: `make chaos` runs these again."
    lines = [told, "", _line(head)]
    lines.append(_line(["---", "---", *["--:"] * (len(head) - 3), "---"]))
    for row in found:
        cells = [row.jobs, row.done, row.failed, row.given_up, row.lost, row.twice, row.disagree, row.attempts]
        share = "–" if row.goodput is None else f"{row.goodput:.0%}"
        timed = [_seconds(row.median, row.goodput is None), _seconds(row.worst, row.goodput is None), share]
        shown = [row.fault, row.house, *cells, row.blows, *timed, f"{row.date}{' †' * (row in earlier)}"]
        lines.append(_line(shown if row.kept else [f"**{one}**" for one in shown]))
    for row in found:
        if not row.kept:
            lines += ["", f"**{row.fault} on {row.house}**: {'; '.join(row.told)}"]
    there = {(row.fault, row.house) for row in found}
    for house in HOUSES:
        missing = [f.name for f in FAULTS if belongs(f, house) and (f.name, house) not in there]
        if missing:
            lines += ["", f"Not run on {house}: {', '.join(missing)}."]
    lines += ["", "What each fault is:", ""]
    lines += [f"- **{name}**: {what}" for name, what in dict.fromkeys((row.fault, row.what) for row in found)]
    return "\n".join(lines)


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _seconds(number: float | None, at_most: bool) -> str:
    return "–" if number is None else f"{'≤ ' if at_most else ''}{number:.1f} s"


def write(found: Sequence[Row]) -> None:
    """Draw ``found`` into the page."""
    text = PAGE.read_text()
    head, tail = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    PAGE.write_text(f"{head}{MARKS[0]}\n\n{drawn(found)}\n\n{MARKS[1]}{tail}")
