"""What MLflow holds, as pages read it: all of it once, then what came since. The first page waits; the others do not.

A run keeps the time at which it was computed, however late it was recorded (a tracking server may have been away). So a
look goes back ``OVERLAP`` behind the newest run that is known, and now and then everything is read again, which also
finds what came later still and what was deleted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from clipstudy.claims import Judgement
from clipstudy.dashboard import charts, evidence, tables
from clipstudy.dashboard.charts import Ink
from clipstudy.dashboard.tables import Board
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result
from clipstudy.settings import redact
from clipstudy.tracking import Tracking, newest_runs

OVERLAP = timedelta(hours=1)
#: Seconds between two looks, and between two readings of everything.
LOOK, WHOLE = 5.0, 600.0
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Snapshot:
    """What was known at one time."""

    results: tuple[Result, ...] = ()
    read: datetime | None = None
    trouble: str = ""  #: why nothing newer is known

    @property
    def studies(self) -> tuple[str, ...]:
        return tuple(sorted({result.study for result in self.results}))


class Records:
    """The results of one study, or of all, and the pictures that their runs keep. Safe in many threads.

    Args:
        order: patterns of models: which are drawn first.
    """

    def __init__(
        self,
        tracking: Tracking,
        study: str | None = None,
        order: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tracking = tracking
        self._study, self._order, self._clock = study, order, clock
        self._lock = threading.Lock()
        self._known = Snapshot()
        self._looked = self._whole = -float("inf")
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
                self._read()
            except ClipstudyError as error:
                self._known = replace(self._known, trouble=redact(error.message))
            self._looked = self._clock()
            return self._known

    def board(self, study: str) -> Board:
        """The newest settings of one study."""
        known = self.now()
        with self._lock:
            if study not in self._boards:
                self._boards[study] = tables.board([r for r in known.results if r.study == study], self._order)
            return self._boards[study]

    def inks(self) -> dict[str, Ink]:
        """One ink a model, the same on every page, whatever is chosen there."""
        known = self.now()
        with self._lock:
            self._inks = self._inks or charts.inks(tables.board(known.results, self._order))
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
        if not any(result.run_id == run_id for result in self.now().results):
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

    def _read(self) -> None:
        began = self._clock()
        ended = [datetime.fromisoformat(r.tags["ended"]) for r in self._known.results if r.tags.get("ended")]
        if not ended or began - self._whole > WHOLE:
            found = self.tracking.results(self._study)
            self._whole = began
        else:
            news = self.tracking.results(self._study, since=max(ended) - OVERLAP)
            found = merged(self._known.results, news)
        if tuple(found) != self._known.results:
            self._boards, self._inks = {}, {}
        self._known = Snapshot(tuple(found), datetime.now(UTC))


def merged(known: Iterable[Result], news: Iterable[Result]) -> list[Result]:
    """One list of both, a run once, of each cell and digest the newest run."""
    return newest_runs({result.run_id: result for result in (*known, *news)}.values())
