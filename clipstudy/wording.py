"""Numbers in sentences."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """``cell`` where ``number`` is 1, else ``cells``."""
    return noun if number == 1 else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``1,200 cells``."""
    return f"{number:,} {plural(number, noun)}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
