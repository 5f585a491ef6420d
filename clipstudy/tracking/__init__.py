"""The only room that speaks MLflow: what was computed goes in as runs, and comes back as results.

One run a job (``clipstudy.level = job``), nested under one parent run a group. Everything here can be repeated:
timestamps are frozen in the entry, a run is known by its entry's key, and MLflow ignores an identical point.
"""

from __future__ import annotations

from clipstudy.settings import Settings
from clipstudy.tracking.entry import Entry, environment
from clipstudy.tracking.runs import Tracking, newest_runs

__all__ = ["Entry", "Tracking", "environment", "newest_runs", "open"]


def open(settings: Settings) -> Tracking:
    """The records that ``settings`` point to. Nothing is contacted yet.

    Raises:
        ClipstudyError: the tracking URI is a plain folder, which MLflow no longer takes.
    """
    return Tracking(settings.tracking, settings.artifacts)
