"""`clipstudy doctor`: is this machine fit, and do job table, outbox and MLflow say the same?

``machine`` asks about what is around the study, ``comparison`` compares the three, ``mending`` makes them agree,
``consistency`` says what was found.
"""

from __future__ import annotations

from collections.abc import Iterator

from clipstudy.doctor import consistency, machine
from clipstudy.doctor.finding import Finding, Level
from clipstudy.errors import ClipstudyError
from clipstudy.queue import dialect
from clipstudy.settings import Settings
from clipstudy.tracking import open as open_tracking

__all__ = ["Finding", "Level", "examine"]


def examine(settings: Settings, *, fix: bool = False) -> Iterator[Finding]:
    """Everything, one finding after another; with ``fix`` the three are first made to agree, then looked at again."""
    yield from machine.packages()
    yield from machine.device(settings)
    yield from machine.places(settings)
    yield machine.hub()
    tracking, answers = None, False
    try:
        tracking = open_tracking(settings)
    except ClipstudyError as error:
        yield Finding(Level.WRONG, "MLflow", error.message)
    else:
        answer = machine.mlflow(tracking)
        yield answer
        answers = answer.level is not Level.WRONG
    try:
        engine = dialect.connect(settings.database)
    except ClipstudyError as error:
        yield Finding(Level.WRONG, "job table", error.message)
        return
    try:
        usable = True
        for finding in machine.table(engine):
            usable = usable and finding.level is not Level.WRONG
            yield finding
        if usable:
            yield from consistency.examine(engine, tracking, fix, answers)
    finally:
        engine.dispose()
