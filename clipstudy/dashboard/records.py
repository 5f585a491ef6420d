"""What MLflow holds, as pages read it: all of it once, then what came since.

Reading a run costs MLflow some milliseconds, so ten thousand take a minute or so. Therefore

- what is known is kept in a file as well, and the next dashboard begins with it;
- a look asks for the runs that ended lately and are not known, which are few. A run keeps the time at which it was
  computed, however late it was recorded (a tracking server may have been away), so a look goes back ``OVERLAP`` behind
  the newest run that is known;
- now and then everything is read again, while pages show what is known: that finds what came later still, and what
  was deleted.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from clipstudy.claims import Judgement
from clipstudy.dashboard import results_file
from clipstudy.dashboard.inks import Ink, inks_of
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Group
from clipstudy.outcome import Result
from clipstudy.redaction import redact
from clipstudy.results import boards, evidence
from clipstudy.results.boards import Board
from clipstudy.results.planned import Planned
from clipstudy.results.presented import presented
from clipstudy.tracking import Tracking, newest_runs

OVERLAP = timedelta(hours=1)
#: Known runs that a look leaves out by name; where more than these ended lately, it goes back less far.
MOST_NAMED = 300
#: Seconds between two looks, and between two readings of everything; these take at most one part in SHARE of the time.
LOOK, WHOLE, SHARE = 5.0, 600.0, 50
#: Seconds after which everything is read for the first time where it was kept: the first pages come before.
GRACE = 20.0
#: Seconds for which names, roles and categories stay as the job table said them: to read them takes every group.
NAMES = 60.0
#: Seconds that a visitor waits for verdicts, and seconds for which they are shown though results came since: a study at
#: work would be tested without end.
PATIENCE, KEEP = 1.0, 60.0


@dataclass(frozen=True)
class Snapshot:
    """What was known at one time."""

    results: tuple[Result, ...] = ()
    read: datetime | None = None
    planned: Planned = field(default_factory=dict)
    trouble: str = ""  #: why nothing newer is known

    @functools.cached_property
    def studies(self) -> tuple[str, ...]:
        return tuple(sorted({result.study for result in self.results}))


class Judged(NamedTuple):
    """The verdicts on a study's claims."""

    judgements: list[Judgement] | None  #: None: none yet
    testing: float | None = None  #: for so many seconds they are being tested; None: they are not
    older: bool = False  #: results came since
    trouble: str = ""  #: why these could not be tested
    due: float | None = None  #: after so many seconds another test may begin; None: there is nothing new to test


class _Test:
    """The claims of one study being tested, or tested."""

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self.board, self._clock = board, clock
        self.began = self.ended = clock()
        self.verdicts: Future[list[Judgement]] = Future()

    def run(self, study: str, tracking: Tracking, turn: threading.Lock, planned: Planned) -> None:
        with turn:
            self.began = self._clock()
            try:
                found = evidence.judged(self.board.results, tracking.artifact, planned, tracking.gone()).get(study, [])
            except Exception as error:  # told to whoever waits
                self.ended = self._clock()
                self.verdicts.set_exception(_told(error))
            else:
                self.verdicts.set_result(found)

    def due(self, board: Board) -> float | None:
        """Seconds until another one may begin on ``board``; None: there is no need of one. What failed is tried again,
        but not for every part of one page."""
        if not self.verdicts.done():
            return None
        if self.verdicts.exception() is not None:
            return self.ended + LOOK - self._clock()
        return None if self.board is board else self.began + KEEP - self._clock()


class Records:
    """The results of one study, or of all. Safe in many threads.

    Args:
        order: patterns of models: which are drawn first.
        kept: the folder that holds from one dashboard to the next what is known; None: nothing is kept.
        planned: asks the job table what the studies planned; by default there is none.
        groups: asks it what their models and tasks are called now.
    """

    def __init__(
        self,
        tracking: Tracking,
        study: str | None = None,
        order: tuple[str, ...] = (),
        kept: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        planned: Callable[[], Planned] = dict,
        groups: Callable[[], Iterable[Group]] = tuple,
    ) -> None:
        self.tracking = tracking
        self.study, self._order, self._kept, self._clock = study, order, kept, clock
        self._planned, self._groups = planned, groups
        self._named: tuple[Group, ...] = ()
        self._names_due = -float("inf")
        self._lock = threading.Lock()
        self._known = Snapshot()
        self._runs: frozenset[str] = frozenset()
        self._looked = self._due = -float("inf")
        self._reading: threading.Thread | None = None
        self._boards: dict[str, Board] = {}
        self._inks: dict[str, Ink] = {}
        self._judging, self._turn = threading.Lock(), threading.Lock()
        self._tests: dict[str, _Test] = {}
        self._judged: dict[str, list[Judgement]] = {}

    def now(self) -> Snapshot:
        """What is known, looked up again where the last look is old. Trouble is told, not raised."""
        with self._lock:
            if self._clock() - self._looked < LOOK:
                return self._known
            try:
                if self._known.read is None:
                    self._begin()
                else:
                    self._look()
                self._known = replace(self._known, planned=self._planned())
            except ClipstudyError as error:
                self._known = replace(self._known, trouble=redact(error.message))
            self._looked = self._clock()
            if self._clock() >= self._due and self._reading is None:
                self._reading = threading.Thread(target=self._read_again, daemon=True)
                self._reading.start()
            return self._known

    def board(self, study: str) -> Board:
        """The newest settings of one study."""
        self.now()
        with self._lock:
            return self._board(study)

    def _board(self, study: str) -> Board:
        """Of what is known while the lock is held: a look that ended since ``now`` leaves no board of before it."""
        if study not in self._boards:
            self._boards[study] = boards.board([r for r in self._known.results if r.study == study], self._order)
        return self._boards[study]

    def inks(self) -> dict[str, Ink]:
        """One ink a model, the same on every page, whatever is chosen there."""
        self.now()
        with self._lock:
            known = self._known
            only = self._board(known.studies[0]) if len(known.studies) == 1 else None
            self._inks = self._inks or inks_of(only or boards.board(known.results, self._order))
            return self._inks

    def judged(self, study: str) -> Judged:
        """The claims' verdicts on one study, tested beside the pages where its results changed, one study at a time.
        Where they cannot be tested, those known before with the trouble.

        Raises:
            ClipstudyError: they cannot be tested (MLflow does not answer, say), and none are known.
        """
        board = self.board(study)
        with self._judging:
            test = self._tests.get(study)
            if test is None or ((due := test.due(board)) is not None and due <= 0):
                test = self._tests[study] = _Test(board, self._clock)
                given = study, self.tracking, self._turn, self._known.planned
                threading.Thread(target=test.run, args=given, daemon=True).start()
        wait([test.verdicts], max(0.0, test.began + PATIENCE - self._clock()))
        known = self._judged.get(study)
        if not test.verdicts.done():
            return Judged(known, self._clock() - test.began, known is not None)
        error = test.verdicts.exception()
        if isinstance(error, ClipstudyError) and known is not None:
            return Judged(known, older=True, trouble=redact(error.message), due=test.due(board))
        found = self._judged[study] = test.verdicts.result()
        return Judged(found, older=test.board is not board, due=test.due(board))

    def knows(self, run_id: str) -> bool:
        """Is it a run whose results are shown?"""
        self.now()
        return run_id in self._runs

    # -- inside; the lock is held but where it is said otherwise ---------------------------------------------------

    def _begin(self) -> None:
        """The first look: from what was kept, else by reading everything."""
        if self._kept is None or (held := results_file.load(self._kept, self._store())) is None:
            self._know(self._everything())
        else:
            self._know(held)
            self._due = self._clock() + GRACE
            self._look()

    def _look(self) -> None:
        """Adds what is new."""
        lately = [r for r in self._known.results[-MOST_NAMED:] if r.tags.get("ended")]
        if not lately:
            self._know(self.tracking.results(self.study))
            return
        first, last = (datetime.fromisoformat(r.tags["ended"]) for r in (lately[0], lately[-1]))
        since = last - OVERLAP if len(lately) < MOST_NAMED else max(last - OVERLAP, first)
        if news := self.tracking.results(self.study, since=since, known=[r.run_id for r in lately]):
            self._know(merged(self._known.results, news))
        elif self._clock() >= self._names_due:
            self._know(self._known.results)
        else:
            self._known = replace(self._known, read=datetime.now(UTC), trouble="")

    def _know(self, found: Iterable[Result]) -> None:
        results = tuple(self._presented(found))
        if results != self._known.results:
            before, after = _by_study(self._known.results), _by_study(results)
            # A study that nothing came to keeps its board, and with it the verdicts on its claims.
            self._boards = {s: board for s, board in self._boards.items() if before.get(s) == after.get(s)}
            self._inks = {}
            self._runs = frozenset(r.run_id for r in results)
        self._known = Snapshot(results, datetime.now(UTC), self._known.planned)

    def _presented(self, found: Iterable[Result]) -> Iterable[Result]:
        if self._clock() >= self._names_due:
            # Where the job table is away, as it said last; the look at what is planned tells of it.
            with contextlib.suppress(ClipstudyError):
                self._named = tuple(self._groups())
            self._names_due = self._clock() + NAMES
        return presented(found, self._named)

    def _everything(self) -> list[Result]:
        """Reads all runs, and says when that is due again. Needs no lock."""
        began = self._clock()
        found = self.tracking.results(self.study)
        self._due = self._clock() + max(WHOLE, SHARE * (self._clock() - began))
        if self._kept is not None and found:
            results_file.save(self._kept, self._store(), found)
        return found

    def _read_again(self) -> None:
        """Everything once more, beside the pages. Runs without the lock until all is read."""
        try:
            found = self._everything()
        except ClipstudyError:
            self._due = self._clock() + WHOLE  # the next look tells what is wrong
        except Exception:  # a thread's own end would be seen by nobody, and what is known is still shown
            logging.getLogger(__name__).exception("the results could not be read again")
            self._due = self._clock() + WHOLE
        else:
            with self._lock:
                self._know(found)
                self._looked = -float("inf")  # what came meanwhile
        finally:
            self._reading = None

    def _store(self) -> str:
        """Which results these are; another store, or one made anew in its place, has others."""
        return f"{self.tracking.identity()} {self.study or ''}"


def _told(error: Exception) -> Exception:
    """A file system that does not answer is trouble too, and a :class:`TimeoutError` of its own no test that runs."""
    if isinstance(error, OSError):
        return TrackingUnreachable(f"Files that runs keep cannot be read ({error}). Check the disk that they are on.")
    return error


def _by_study(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        found[result.study].append(result)
    return found


def merged(known: Iterable[Result], news: Iterable[Result]) -> list[Result]:
    """One list of both, a run once, of each cell and digest the newest run."""
    return newest_runs({result.run_id: result for result in (*known, *news)}.values())
