"""The queue's face: every verb about rows, whichever room does it."""

from clipstudy.queue.claims import (
    any_queued,
    beat,
    bury,
    claim,
    disown,
    ended_by,
    fail,
    release,
    requeue_expired,
)
from clipstudy.queue.enqueue import Enqueued, enqueue
from clipstudy.queue.status import Throughput, counts, get, group_of, kinds, names, pin, rows, throughput, totals
from clipstudy.queue.verbs import cancel, rerun, retry, set_priority
from clipstudy.queue.workers import WorkerInfo, beat_worker, forget, forget_silent, register, workers

__all__ = [
    "Enqueued",
    "Throughput",
    "WorkerInfo",
    "any_queued",
    "beat",
    "beat_worker",
    "bury",
    "cancel",
    "claim",
    "counts",
    "disown",
    "ended_by",
    "enqueue",
    "fail",
    "forget",
    "forget_silent",
    "get",
    "group_of",
    "kinds",
    "names",
    "pin",
    "register",
    "release",
    "requeue_expired",
    "rerun",
    "retry",
    "rows",
    "set_priority",
    "throughput",
    "totals",
    "workers",
]
