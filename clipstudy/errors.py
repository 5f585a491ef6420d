"""The error tree. A ClipstudyError is one the user can mend: it prints without a traceback and ends with what to do.

::

    ClipstudyError
    ├── StudyError           tasks.toml (or a dashboard's TOML) says something that cannot be run
    ├── DataError            a data file is missing, malformed or cannot serve the task
    ├── ModelError           a checkpoint is missing, broken or lacks the layer asked for
    ├── DeviceError          the device asked for does not exist or ran out of memory
    ├── QueueError           the job table
    │   ├── DatabaseUnreachable
    │   │   └── DatabaseBusy
    │   ├── Unreadable
    │   ├── NotMigrated
    │   ├── NetworkFilesystem
    │   └── NoSuchJob
    ├── TrackingUnreachable  MLflow does not answer
    ├── NoResults            nothing recorded yet that could be drawn
    ├── FleetError           the cluster cannot be asked, or refuses
    ├── NotFetched           what a study reads of the network is not here, or not whole
    ├── Outdated             cells of a later method than this version measures by
    └── GroupChanged         a checkpoint, data file or method changed between two batches of one group

Anything else that is raised is a bug, and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

#: Characters of a line of a message, from its beginning and its end: what is quoted between may be a whole file.
LONGEST = 8000
#: Seconds within which signals to stop are one word: SLURM tells each process of a step, and a supervisor its workers.
ECHO = 1.0
#: Exit code of a command that met a database or a server that is away (EX_UNAVAILABLE of sysexits.h).
AWAY = 69
#: Exit code of a command that ended by an error of its own (EX_SOFTWARE).
BUG = 70
#: What steers a terminal or turns the order of letters round, and what is no letter at all (as which Python writes file
#: names that are not UTF-8); a message may quote any file.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ClipstudyError(Exception):
    """Something that you can fix went wrong."""

    #: True where trying again later may succeed with nothing changed (a server that was away).
    transient = False
    #: Who did not answer, and how that showed, where nothing else is wrong: ``the Hub (ConnectError)``.
    silent = ""

    def __init__(self, message: str | None = None) -> None:
        text = message or " ".join((self.__doc__ or "").split())
        lines = (x if len(x) <= 2 * LONGEST else f"{x[:LONGEST]} … {x[-LONGEST:]}" for x in text.split("\n"))
        super().__init__(printable("\n".join(lines)))

    @property
    def message(self) -> str:
        return str(self.args[0])


class StudyError(ClipstudyError):
    """The study file cannot be run as it is. Fix the table and key named, then: clipstudy enqueue --all --dry-run"""


class DataError(ClipstudyError):
    """A data file cannot be used. Fix the file and row named, or the dataset's table in the study file."""


class ModelError(ClipstudyError):
    """A checkpoint cannot be used. Check the model's table in the study file."""


class DeviceError(ClipstudyError):
    """The device does not exist here. Try --device auto, which takes what there is."""


class QueueError(ClipstudyError):
    """The job table cannot be used. Check CLIPSTUDY_DATABASE."""


class DatabaseUnreachable(QueueError):
    """The job database does not answer. Check CLIPSTUDY_DATABASE and that the server runs, then try again."""

    transient = True


class DatabaseBusy(DatabaseUnreachable):
    """Another process holds what this one waits for. Try again; if it stays so, end what holds it."""


class Unreadable(QueueError):
    """The job table holds settings that this version cannot read. Update clipstudy, or type: clipstudy enqueue --all"""


class NotMigrated(QueueError):
    """The job database has not been set up, or is of another version. Type: clipstudy init"""


class NetworkFilesystem(QueueError):
    """SQLite cannot be shared over a network file system. Use Postgres: CLIPSTUDY_DATABASE=postgresql://user@host/name"""


class NoSuchJob(QueueError):
    """There is no such job. `clipstudy status --rows` lists them."""


class TrackingUnreachable(ClipstudyError):
    """MLflow does not answer. Check CLIPSTUDY_TRACKING; what was computed is kept in the outbox meanwhile."""

    transient = True


class NoResults(ClipstudyError):
    """Nothing is recorded yet. `clipstudy status` says what is queued, running or failed. To begin with nothing:
    clipstudy init, clipstudy enqueue --all, clipstudy worker --drain"""


class FleetError(ClipstudyError):
    """The cluster does not take this. Without one: clipstudy worker --drain"""


class NotFetched(ClipstudyError):
    """What the study reads is not here whole. Type, on a machine with network: clipstudy fetch"""


class Outdated(ClipstudyError):
    """This clipstudy is older than the one that enqueued. Update it, then start the worker again."""


class GroupChanged(ClipstudyError):
    """A checkpoint, a data file or the method changed since this group began. Type: clipstudy rerun --model NAME --task
    NAME"""


def printable(text: str) -> str:
    """``text`` without what steers a terminal (line ends and tabs excepted) or cannot be written as UTF-8."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """``found`` against what exists, as the tail of a message: a near match first, then the list."""
    names = sorted(known)
    return f"{nearest(found, names)}What exists: {', '.join(names) or 'none'}."


def nearest(found: str, known: Iterable[str]) -> str:
    """``Did you mean "bert"? `` where a name is :func:`near`; else nothing."""
    name = near(found, known)
    return f'Did you mean "{name}"? ' if name else ""


def near(found: str, known: Iterable[str]) -> str | None:
    """The name that is nearly ``found``, or in which a word begins with it; None: there is none."""
    names = sorted(known)
    alike = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    if len(found) > 1:
        part = re.compile(rf"(?<![^\W_]){re.escape(found)}", re.IGNORECASE)
        alike += sorted(filter(part.search, names), key=len)
    return alike[0] if alike else None


@contextmanager
def writing(place: object, remedy: str, kind: type[ClipstudyError] = ClipstudyError) -> Iterator[None]:
    """Raises ``kind``, which ends with ``remedy``, where what is done within cannot write to ``place``."""
    try:
        yield
    except OSError as error:
        raise kind(f"{place} cannot be written to ({error.strerror or error}). {remedy}") from error


def said(error: BaseException, most: int = 200) -> str:
    """What a library's error says, in at most so many characters: its first line, and the next where that only
    announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:most] or type(error).__name__
