"""What MLflow holds, as pages read it: all of it once, then what came since.

Reading a run costs MLflow one to three milliseconds, so ten thousand are half a minute. Therefore

- what is known is kept in a file as well, and the next dashboard begins with it;
- a look asks for the runs that ended lately and are not known, which are few. A run keeps the time at which it was
  computed, however late it was recorded (a tracking server may have been away), so a look goes back ``OVERLAP`` behind
  the newest run that is known;
- now and then everything is read again, while pages show what is known: that finds what came later still, and what
  was deleted.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clipstudy.claims import Judgement
from clipstudy.dashboard import charts, evidence, shelf, tables
from clipstudy.dashboard.charts import Ink
from clipstudy.dashboard.planned import Planned
from clipstudy.dashboard.tables import Board
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result
from clipstudy.settings import redact
from clipstudy.tracking import Tracking, newest_runs

OVERLAP = timedelta(hours=1)
#: Known runs that a look leaves out by name; where more than these ended lately, it goes back less far.
MOST_NAMED = 300
#: Seconds between two looks, and between two readings of everything; these take at most one part in SHARE of the time.
LOOK, WHOLE, SHARE = 5.0, 600.0, 50
#: Seconds after which everything is read for the first time where it was kept: the first pages come before.
GRACE = 20.0
PNG = b"\x89PNG\r\n\x1a\n"


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


class Records:
    """The results of one study, or of all, and the pictures that their runs keep. Safe in many threads.

    Args:
        order: patterns of models: which are drawn first.
        kept: the folder that holds from one dashboard to the next what is known; None: nothing is kept.
        planned: asks the job table what the studies planned; by default there is none.
    """

    def __init__(
        self,
        tracking: Tracking,
        study: str | None = None,
        order: tuple[str, ...] = (),
        kept: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        planned: Callable[[], Planned] = dict,
    ) -> None:
        self.tracking = tracking
        self.study, self._order, self._kept, self._clock, self._planned = study, order, kept, clock, planned
        self._lock = threading.Lock()
        self._known = Snapshot()
        self._runs: frozenset[str] = frozenset()
        self._looked = self._due = -float("inf")
        self._reading: threading.Thread | None = None
        self._boards: dict[str, Board] = {}
        self._inks: dict[str, Ink] = {}
        self._pictures: dict[str, tuple[str, ...]] = {}
        self._judging = threading.Lock()
        self._judged: dict[str, tuple[Board, list[Judgement]]] = {}

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
            self._boards[study] = tables.board([r for r in self._known.results if r.study == study], self._order)
        return self._boards[study]

    def inks(self) -> dict[str, Ink]:
        """One ink a model, the same on every page, whatever is chosen there."""
        self.now()
        with self._lock:
            known = self._known
            only = self._board(known.studies[0]) if len(known.studies) == 1 else None
            self._inks = self._inks or charts.inks(only or tables.board(known.results, self._order))
            return self._inks

    def judged(self, study: str) -> list[Judgement]:
        """The claims' verdicts on one study. They are tested anew where its results changed, one visitor at a time.

        Raises:
            TrackingUnreachable: MLflow does not answer.
        """
        board = self.board(study)
        with self._judging:
            if study not in self._judged or self._judged[study][0] is not board:
                found = evidence.judged(board.results, self.tracking.artifact)
                self._judged[study] = board, found.get(study, [])
            return self._judged[study][1]

    def pictures(self, run_id: str) -> tuple[str, ...]:
        """The names of the PNG files that a known run keeps. A finished run keeps what it has, so it is asked once."""
        self.now()
        if run_id not in self._runs:
            return ()
        if run_id not in self._pictures:
            self._pictures[run_id] = tuple(n for n in self.tracking.files(run_id) if n.lower().endswith(".png"))
        return self._pictures[run_id]

    def picture(self, run_id: str, name: str) -> bytes | None:
        """The file's bytes; None where no known run keeps such a picture, or it is none."""
        if name not in self.pictures(run_id):
            return None
        content = self.tracking.artifact(run_id, name)
        return content if content.startswith(PNG) else None

    def size(self, run_id: str, name: str) -> tuple[int, int] | None:
        """Width and height of a picture in pixels, as its header says."""
        content = self.picture(run_id, name)
        return (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) if content else None

    # -- inside; the lock is held but where it is said otherwise ---------------------------------------------------

    def _begin(self) -> None:
        """The first look: from what was kept, else by reading everything."""
        if self._kept is None or (held := shelf.load(self._kept, self._store())) is None:
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
        else:
            self._known = replace(self._known, read=datetime.now(UTC), trouble="")

    def _know(self, found: Iterable[Result]) -> None:
        results = tuple(found)
        if results != self._known.results:
            before, after = _by_study(self._known.results), _by_study(results)
            # A study that nothing came to keeps its board, and with it the verdicts on its claims.
            self._boards = {s: board for s, board in self._boards.items() if before.get(s) == after.get(s)}
            self._inks = {}
            self._runs = frozenset(r.run_id for r in results)
        self._known = Snapshot(results, datetime.now(UTC), self._known.planned)

    def _everything(self) -> list[Result]:
        """Reads all runs, and says when that is due again. Needs no lock."""
        began = self._clock()
        found = self.tracking.results(self.study)
        self._due = self._clock() + max(WHOLE, SHARE * (self._clock() - began))
        if self._kept is not None and found:
            shelf.save(self._kept, self._store(), found)
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


def _by_study(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        found[result.study].append(result)
    return found


def merged(known: Iterable[Result], news: Iterable[Result]) -> list[Result]:
    """One list of both, a run once, of each cell and digest the newest run."""
    return newest_runs({result.run_id: result for result in (*known, *news)}.values())
