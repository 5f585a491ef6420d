"""The job table's summary, in words."""

from __future__ import annotations

from clipstudy import queueview
from clipstudy.job import Status
from clipstudy.queue.jobs import Throughput


def test_what_was_left_out_is_said() -> None:
    still = Throughput(0, 0.0, 0)
    assert queueview._summary({Status.DONE: 3}, still, 0) == "3 of 3 cells done"
    some = {Status.DONE: 3, Status.QUEUED: 1, Status.CANCELLED: 1200, Status.SUPERSEDED: 9}
    assert queueview._summary(some, still, 0) == "3 of 4 cells done, 1,200 more cancelled"
