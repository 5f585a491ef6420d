"""Long work tells how far it is: bars on a terminal, plain lines in a log. Rate and time left in both."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Told (what, done, of) as often as one likes."""

    def __call__(self, what: str, done: int, of: int) -> None: ...
    def batch(self, title: str) -> None:
        """A new batch begins."""
        ...

    def say(self, line: str) -> None:
        """One line that stays."""
        ...

    def close(self) -> None: ...


def for_stream(stream: Any = None) -> Progress:
    """Bars where ``stream`` (standard error) is a terminal, else lines in the log."""
    return Bars() if (stream or sys.stderr).isatty() else Lines()


class Lines:
    """A line every ``every`` seconds for each stage, and when it ends; stages may take turns."""

    def __init__(self, every: float = 20.0) -> None:
        self.every, self.title = every, ""
        self.stages: dict[str, tuple[float, float, int]] = {}  # when it began, when it was told, how far it was

    def batch(self, title: str) -> None:
        self.title = title
        self.stages.clear()
        log.info("%s", title)

    def say(self, line: str) -> None:
        log.info("%s", line)

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        began, told, before = self.stages.get(what, (now, now, of + 1))
        if done < before or before >= of:  # it begins, for the first time or again
            began = told = now
        elif (done >= of and now - began >= 1.0) or now - told >= self.every:  # not what was over at once
            told = now
            log.info("%s: %s", self.title, paced(what, done, of, now - began))
        self.stages[what] = began, told, done

    def close(self) -> None:
        pass


def paced(what: str, done: int, of: int, seconds: float) -> str:
    """``encode 300/1200, 52.1/s, 17 s left``."""
    rate = done / seconds if seconds > 0 else 0.0
    text = f"{what} {done}/{of}" + (f", {rate:,.1f}/s" if rate else "")
    return text + (f", {duration((of - done) / rate)} left" if rate and done < of else f" in {duration(seconds)}")


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``1,200 cells``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Bars:
    """One bar a stage, cleared when the batch ends; lines that stay go above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Rich

        self.rich = Rich(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.stages: dict[str, Any] = {}
        self.title = ""

    def batch(self, title: str) -> None:
        for task in self.stages.values():
            self.rich.remove_task(task)
        self.stages.clear()
        self.title = title

    def say(self, line: str) -> None:
        self.rich.console.print(line, markup=False, highlight=False)

    def __call__(self, what: str, done: int, of: int) -> None:
        self.rich.start()
        if what not in self.stages:
            self.stages[what] = self.rich.add_task(f"{self.title} · {what}", total=of, rate="")
        task = self.rich.tasks[self.rich.task_ids.index(self.stages[what])]
        rate = f"{task.speed:,.1f}/s" if task.speed else ""
        self.rich.update(self.stages[what], completed=done, total=of, rate=rate)

    def close(self) -> None:
        self.rich.stop()
