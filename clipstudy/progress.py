"""Long work tells how far it is: bars on a terminal, plain lines in a log. Rate and time left in both."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from clipstudy.wording import duration

log = logging.getLogger(__name__)

#: From when on a pace is one: so many steps; or so many seconds, and of all steps this share.
ENOUGH_STEPS, ENOUGH_SECONDS, ENOUGH_SHARE = 2, 5.0, 0.01


class Progress(Protocol):
    """Told (what, done, of) as often as one likes; of what is under way, parts count."""

    def __call__(self, what: str, done: float, of: int) -> None: ...
    def batch(self, title: str) -> None:
        """A new batch begins."""
        ...

    def say(self, line: str) -> None:
        """One line that stays."""
        ...

    def close(self) -> None: ...


def for_stderr() -> Progress:
    """Bars where standard error is a terminal, else lines in the log."""
    return Bars() if sys.stderr.isatty() else Lines()


@dataclass
class Stage:
    """One kind of work under way. Its pace is reckoned from where it was first told of: what was there by then (in the
    cache, of an earlier run) took none of the time since."""

    began: float
    first: float
    done: float
    told: float = 0.0

    def goes_on(self, done: float, of: float) -> bool:
        """False: what is told now is of the same kind of work, begun once more."""
        return self.done <= done and self.done < of

    def paced(self, what: str, of: float, now: float) -> str:
        """As :func:`paced`, of this stage at the moment ``now`` (monotonic seconds)."""
        return paced(what, self.done, of, now - self.began, self.first)


class Lines:
    """A line every ``every`` seconds for each stage, and when it ends; stages may take turns."""

    def __init__(self, every: float = 20.0) -> None:
        self.every, self.title = every, ""
        self.stages: dict[str, Stage] = {}

    def batch(self, title: str) -> None:
        self.title = title
        self.stages.clear()
        log.info("%s", title)

    def say(self, line: str) -> None:
        log.info("%s", line)

    def __call__(self, what: str, done: float, of: int) -> None:
        now = time.monotonic()
        stage = self.stages.get(what)
        if stage is None or not stage.goes_on(done, of):
            self.stages[what] = Stage(now, done, done, now)
            return
        stage.done = done
        ended = done >= of and now - stage.began >= 1.0  # not what was over at once
        if ended or now - stage.told >= self.every:
            stage.told = now
            log.info("%s: %s", self.title, stage.paced(what, of, now))

    def close(self) -> None:
        pass


def paced(what: str, done: float, of: float, seconds: float, first: float = 0) -> str:
    """``encode 300/1200, 52.1/s, 17 s left``, where ``seconds`` ago ``first`` were done; a dash for the time left while
    too little is done to reckon with."""
    text = f"{what} {done:.0f}/{of:.0f}"
    made = done - first
    rate = made / seconds if seconds > 0 else 0.0
    if done >= of:
        return text + (f", {rate:,.1f}/s" if rate else "") + f" in {duration(seconds)}"
    enough = made >= ENOUGH_STEPS or (seconds >= ENOUGH_SECONDS and made >= ENOUGH_SHARE * of)
    if not (rate and enough):
        return f"{text}, – left"
    return f"{text}, {rate:,.1f}/s, {duration((of - done) / rate)} left"


class Bars:
    """One bar a stage, cleared when the batch ends; lines that stay go above them. A terminal that was closed is shown
    nothing, which is no reason to end what is under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Rich

        self.rich = Rich(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[paced]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.stages: dict[str, tuple[Any, Stage]] = {}
        self.title = ""

    def batch(self, title: str) -> None:
        for bar, _ in self.stages.values():
            self.rich.remove_task(bar)
        self.stages.clear()
        self.title = title

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self.rich.console.print(line, markup=False, highlight=False)

    def __call__(self, what: str, done: float, of: int) -> None:
        with contextlib.suppress(OSError):
            self._show(what, done, of)

    def _show(self, what: str, done: float, of: int) -> None:
        self.rich.start()
        now = time.monotonic()
        known = self.stages.get(what)
        if known is None or not known[1].goes_on(done, of):
            if known is not None:
                self.rich.remove_task(known[0])
            known = self.stages[what] = self.rich.add_task(self.title, total=of, paced=""), Stage(now, done, done)
        bar, stage = known
        stage.done = done
        self.rich.update(bar, completed=done, total=of, paced=stage.paced(what, of, now))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.rich.stop()
