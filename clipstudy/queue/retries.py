"""What becomes of a row whose attempt ended without an outcome. Pure: a failure and three counts in, a value out."""

from __future__ import annotations

import random
from dataclasses import dataclass

from clipstudy.job import FailureKind, Status

FIRST_DELAY_S = 5.0
LONGEST_DELAY_S = 600.0
_MOST_DOUBLINGS = 60  #: far past the longest delay, and far from what no float holds
#: So many failures that were not the job's own are free (about two hours of a server that is away); then they count.
FREE_SETBACKS = 20


@dataclass(frozen=True)
class Verdict:
    """Where the row goes, what its counts are then, and after how many seconds it may be claimed."""

    status: Status
    tries: int
    infra: int
    delay: float = 0.0


def verdict(kind: FailureKind, retry: bool, tries: int, max_tries: int, infra: int, seed: int) -> Verdict:
    """Queued again or failed. ``tries`` includes the attempt that ended; siblings that fail together share ``seed``."""
    if kind is FailureKind.INFRA and retry and infra < FREE_SETBACKS:
        return Verdict(Status.QUEUED, max(tries - 1, 0), infra + 1, delay(infra + 1, seed))
    infra += kind is FailureKind.INFRA
    if retry and tries < max_tries:
        return Verdict(Status.QUEUED, tries, infra, delay(max(tries, infra), seed))
    return Verdict(Status.FAILED, tries, infra)


def delay(failures: int, seed: int) -> float:
    """Seconds until the next attempt: doubled with each failure up to ten minutes, between half and the whole of that.

    The jitter comes from ``seed``, a group's number: groups spread out, siblings come back together.
    """
    full = min(FIRST_DELAY_S * 2.0 ** min(max(failures - 1, 0), _MOST_DOUBLINGS), LONGEST_DELAY_S)
    return full * random.Random(f"{seed}:{failures}").uniform(0.5, 1.0)


def together(instant: float, delay: float) -> float:
    """``instant`` moved up to the next stroke of a clock that strikes four times a ``delay``.

    Siblings of a failed batch are written one after another; on the stroke they become ready at the same time, and
    are claimed as one batch again instead of one by one.
    """
    stroke = delay / 4
    return instant if stroke <= 0 else (instant // stroke + 1) * stroke
