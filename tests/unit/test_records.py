"""The first look reads everything; the next ones what is new; trouble is told beside what was known before."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from clipstudy.dashboard import records
from clipstudy.dashboard.records import Records, merged
from clipstudy.errors import TrackingUnreachable
from clipstudy.outcome import Result
from clipstudy.tracking import Tracking
from tests.made_up import MODELS, SHIFT, result


class Source(Tracking):
    """Remembers what it was asked, and may be away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder / 'mlflow.db'}", str(folder))
        self.held: list[Result] = []
        self.asked: list[datetime | None] = []
        self.away = False

    def results(
        self, study: str | None = None, since: datetime | None = None, parent_run_id: str | None = None
    ) -> list[Result]:
        if self.away:
            raise TrackingUnreachable("away: postgresql://me:secret@host/db")
        self.asked.append(since)
        return [r for r in self.held if since is None or datetime.fromisoformat(r.tags["ended"]) >= since]

    def files(self, run_id: str) -> list[str]:
        return ["a.png", "b/c.PNG", "log.txt", "fake.png"]

    def artifact(self, run_id: str, name: str) -> bytes:
        return b"<svg>" if name == "fake.png" else records.PNG + name.encode()


def at(hour: int, layer: int, **tags: str) -> Result:
    made = result(layer=layer, ended=f"2026-11-24T{hour:02}:00:00+00:00", **tags)
    return replace(made, run_id=f"{made.run_id}-{hour}")


def test_only_what_is_new_is_read_again(tmp_path: Path) -> None:
    time = [0.0]
    source = Source(tmp_path)
    known = Records(source, clock=lambda: time[0])
    source.held = [at(1, 0), at(5, 1)]
    assert [r.layer for r in known.now().results] == [0, 1]
    source.held += [at(6, 2), at(7, 1)]
    known.now()
    assert len(source.asked) == 1, "a look a moment ago is good enough"
    time[0] += records.LOOK
    found = known.now()
    assert source.asked == [None, datetime.fromisoformat("2026-11-24T04:00:00+00:00")]
    assert [(r.layer, r.tags["ended"][11:13]) for r in found.results] == [(0, "01"), (2, "06"), (1, "07")]
    source.held = source.held[-1:]
    time[0] += records.WHOLE + 1
    assert [r.layer for r in known.now().results] == [1], "what was deleted is gone when everything is read again"


def test_boards_and_colours_follow_what_is_known(tmp_path: Path) -> None:
    time = [0.0]
    source = Source(tmp_path)
    known = Records(source, clock=lambda: time[0])
    source.held = [at(1, 0)]
    assert len(known.board("paper").results) == 1 and set(known.inks()) == {"bert"}
    assert known.board("paper") is known.board("paper")
    source.held += [result(MODELS[1], SHIFT, 0, ended="2026-11-24T02:00:00+00:00")]
    time[0] += records.LOOK
    assert len(known.board("paper").results) == 2 and set(known.inks()) == {"bert", "gpt2"}


def test_trouble_is_told_and_what_was_known_stays(tmp_path: Path) -> None:
    time = [0.0]
    source = Source(tmp_path)
    known = Records(source, clock=lambda: time[0])
    source.held = [at(1, 0)]
    known.now()
    source.away = True
    time[0] += records.LOOK
    now = known.now()
    assert len(now.results) == 1 and "away" in now.trouble and "secret" not in now.trouble
    source.away = False
    time[0] += records.LOOK
    assert known.now().trouble == ""


def test_pictures_of_known_runs_alone(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.held = [at(1, 0)]
    known, run = Records(source), source.held[0].run_id
    assert known.pictures(run) == ("a.png", "b/c.PNG", "fake.png")
    assert known.picture(run, "b/c.PNG") == records.PNG + b"b/c.PNG"
    for wrong in ("log.txt", "../a.png", "/etc/a.png", "fake.png", ""):
        assert known.picture(run, wrong) is None
    assert known.pictures("another") == () and known.picture("another", "a.png") is None


def test_a_run_that_comes_twice_counts_once() -> None:
    assert merged([at(1, 0)], [at(1, 0), at(2, 3)]) == [at(1, 0), at(2, 3)]
