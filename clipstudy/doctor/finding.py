"""What an examination finds. A value, to be printed or read by a script."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How well what was looked at is."""

    OK = "ok"
    WARNING = "warning"  #: it works, and may not for long, or not as you think
    WRONG = "wrong"
    MENDED = "mended"  #: was wrong, and has been looked at again since


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    level: Level
    what: str  #: what was looked at: "job table", "leases", "Hub"
    says: str
    do: str = ""  #: what to type; empty where nothing need be done, or `says` ends with it
