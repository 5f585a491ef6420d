"""The first look reads everything; the next ones what is new; trouble is told beside what was known before."""

from __future__ import annotations

import errno
import gzip
import json
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from clipstudy.dashboard import records, results_file
from clipstudy.dashboard.address import Claims
from clipstudy.dashboard.pages import claims
from clipstudy.dashboard.pages.components import Desk, Shown
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.records import Records, merged
from clipstudy.errors import ClipstudyError, DatabaseUnreachable, TrackingUnreachable
from clipstudy.job import Group
from clipstudy.outcome import Result
from clipstudy.results import evidence
from clipstudy.results.run_files import PNG, RunFiles
from clipstudy.tracking import Tracking
from clipstudy.tracking.entry import PREFIX, group_tags
from tests.made_up import MODELS, SHIFT, Model, Task, result, results
from tests.queue.samples import group


class Source(Tracking):
    """Remembers what it was asked, and may be away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder / 'mlflow.db'}", str(folder))
        self.held: list[Result] = []
        self.asked: list[datetime | None] = []
        self.named: list[Collection[str]] = []
        self.away = False

    def results(
        self,
        study: str | None = None,
        since: datetime | None = None,
        parent_run_id: str | None = None,
        known: Collection[str] = (),
    ) -> list[Result]:
        if self.away:
            raise TrackingUnreachable("away: postgresql://me:secret@host/db")
        self.asked.append(since)
        self.named.append(known)
        late = [r for r in self.held if since is None or datetime.fromisoformat(r.tags["ended"]) >= since]
        return [r for r in late if r.run_id not in known]

    def identity(self) -> str:
        return "made up"

    def files(self, run_id: str) -> list[str]:
        return ["a.png", "b/c.PNG", "log.txt", "fake.png"]

    def artifact(self, run_id: str, name: str) -> bytes:
        return b"<svg>" if name == "fake.png" else PNG + name.encode()


def beside(known: Records) -> None:
    """Waits until everything has been read that is read beside the pages."""
    while reading := known._reading:
        reading.join(10)


def at(hour: int, layer: int, **tags: str) -> Result:
    made = result(layer=layer, **{"ended": f"2026-11-24T{hour:02}:00:00+00:00"} | tags)
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
    assert set(source.named[-1]) == {r.run_id for r in source.held[:2]}, "what is known is not read again"
    assert [(r.layer, r.tags["ended"][11:13]) for r in found.results] == [(0, "01"), (2, "06"), (1, "07")]
    source.held = source.held[-1:]
    time[0] += records.WHOLE + 1
    assert len(known.now().results) == 3, "nobody waits for everything to be read again"
    beside(known)
    assert [r.layer for r in known.now().results] == [1], "what was deleted is gone when it has been"


def test_a_look_that_ends_while_a_board_is_made_leaves_none_of_before_it(tmp_path: Path) -> None:
    source = Source(tmp_path)

    class Overtaken(Records):
        def now(self) -> records.Snapshot:
            """Another visitor's look ends between this one's and what it does with it."""
            before = super().now()
            if len(source.held) == 1:
                source.held += [at(6, 1)]
                self._looked = -float("inf")
                super().now()
            return before

    known = Overtaken(source)
    source.held = [at(5, 0)]
    study = source.held[0].study
    assert [r.layer for r in known.board(study).results] == [0, 1] and known.inks()


def test_a_look_leaves_out_few_runs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that ended lately only the newest are named, and the look goes no further back than these."""
    monkeypatch.setattr(records, "MOST_NAMED", 2)
    time = [0.0]
    source = Source(tmp_path)
    known = Records(source, clock=lambda: time[0])
    source.held = [at(5, 0, ended=f"2026-11-24T05:{m:02}:00+00:00") for m in (0, 10, 20)]
    source.held = [replace(r, run_id=f"r{n}", layer=n) for n, r in enumerate(source.held)]
    known.now()
    time[0] += records.LOOK
    known.now()
    assert source.asked[-1] == datetime.fromisoformat("2026-11-24T05:10:00+00:00")
    assert source.named[-1] == ["r1", "r2"]


def test_the_next_dashboard_begins_with_what_was_known(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.held = [at(1, 0), at(5, 1), at(6, 2)]
    time = [0.0]
    first = Records(source, kept=tmp_path / "kept")
    first.now()
    source.held += [at(7, 3)]
    del source.held[0]
    second = Records(source, kept=tmp_path / "kept", clock=lambda: time[0])
    assert [r.layer for r in second.now().results] == [0, 1, 2, 3], "what is kept, and what a look found"
    assert source.asked[1] is not None
    time[0] += records.GRACE
    second.now()
    beside(second)
    assert [r.layer for r in second.now().results] == [1, 2, 3]
    assert results_file.load(tmp_path / "kept", second._store()) == source.held
    another = Records(source, "another", kept=tmp_path / "kept")
    another.now()
    assert source.asked[-1] is None, "of another study nothing is kept"


def test_results_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    results_file.save(tmp_path, "store", results(MODELS[:2]))
    assert results_file.load(tmp_path, "store") == results(MODELS[:2])
    assert results_file.load(tmp_path, "another store") is None
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o077 == 0, "the results are this user's alone"


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b'{"version": 1, "results": [{"run_id": 3}]}')[:-9]],
    ids=["empty", "no gzip", "cut"],
)
def test_a_broken_file_counts_as_none(content: bytes, tmp_path: Path) -> None:
    results_file.save(tmp_path, "store", [result()])
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert results_file.load(tmp_path, "store") is None
    for wrong in ([], {}, {"version": 0, "results": []}, {"version": 1, "results": [{"run_id": "r"}]}):
        file.write_bytes(gzip.compress(json.dumps(wrong).encode()))
        assert results_file.load(tmp_path, "store") is None


def test_where_nothing_can_be_kept_all_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    source = Source(tmp_path)
    source.held = [at(1, 0)]
    assert len(Records(source, kept=tmp_path / "file").now().results) == 1


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
    kept = known.board("paper")
    source.held += [result(study="another", ended="2026-11-24T03:00:00+00:00")]
    time[0] += records.LOOK
    assert known.now().studies == ("another", "paper")
    assert known.board("paper") is kept, "nothing came to it"


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
    assert known.knows(run) and not known.knows("another")
    files = RunFiles(source)
    assert files.pictures(run) == ["a.png", "b/c.PNG", "fake.png"]
    assert files.picture(run, "b/c.PNG") == PNG + b"b/c.PNG"
    for wrong in ("log.txt", "../a.png", "/etc/a.png", "fake.png", ""):
        assert files.picture(run, wrong) is None


class Slow(Source):
    """A store whose files come when they are let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.let = threading.Event()
        self.broken: Exception | None = None

    def artifact(self, run_id: str, name: str) -> bytes:
        self.let.wait(30)
        raise self.broken or ClipstudyError("kept none")


def wic(role: str, minute: int) -> Result:
    ended = f"2026-11-24T01:{minute:02}:00+00:00"
    task = Task("wic", "WiC", "pairs")
    return result(Model(role, role), task, -1, role=role, layers="-1", kind="finetune", ended=ended)


def test_a_visitor_does_not_wait_for_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE", 0.0)
    source, time = Slow(tmp_path), [0.0]
    source.held = [wic("gpt2", 0), wic("clip_text", 1)]
    known = Records(source, clock=lambda: time[0])
    assert known.judged("paper").judgements is None and known.judged("paper").testing == 0
    source.let.set()
    monkeypatch.setattr(records, "PATIENCE", 30.0)
    first = known.judged("paper")
    assert first.judgements and first.testing is None and not first.older
    # A study at work is not tested without end; what is shown meanwhile says that it is older.
    source.held.append(wic("bert", 2))
    time[0] += records.LOOK
    later = known.judged("paper")
    assert later.judgements is first.judgements and later.older and later.testing is None
    assert later.due == records.KEEP - records.LOOK and first.due is None
    assert claims_page(known).again == 1000 * later.due, "an open page looks when another test may begin"
    time[0] += later.due
    again = known.judged("paper")
    assert again.judgements is not first.judgements and not again.older
    assert claims_page(known).again == 0, "nothing is new"


def test_verdicts_that_could_not_be_had_are_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE", 30.0)
    source, time = Slow(tmp_path), [0.0]
    source.held, source.broken = [wic("gpt2", 0), wic("clip_text", 1)], TrackingUnreachable()
    source.let.set()
    known = Records(source, clock=lambda: time[0])
    for _ in range(2):  # choices and body of one page
        with pytest.raises(TrackingUnreachable):
            known.judged("paper")
        source.broken = None
    time[0] += records.LOOK + 1
    assert known.judged("paper").judgements


def claims_page(known: Records) -> Shown:
    return claims.body(Claims(), Desk(known, Dashboard("D", (Panel("P"),)), ""))


def test_a_disk_that_does_not_answer_is_no_test_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system's ETIMEDOUT is a TimeoutError, as is that of a result which is waited for."""
    monkeypatch.setattr(records, "PATIENCE", 30.0)
    source = Slow(tmp_path)
    source.held, source.broken = [wic("gpt2", 0), wic("clip_text", 1)], OSError(errno.ETIMEDOUT, "timed out")
    assert isinstance(source.broken, TimeoutError)
    source.let.set()
    known = Records(source)
    with pytest.raises(TrackingUnreachable, match="timed out"):
        known.judged("paper")
    shown = claims_page(known)
    assert shown.said == "No verdicts" and "timed out" in str(shown.body)


def test_verdicts_stay_where_newer_ones_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE", 30.0)
    source, time = Slow(tmp_path), [0.0]
    source.held = [wic("gpt2", 0), wic("clip_text", 1)]
    source.let.set()
    known = Records(source, clock=lambda: time[0])
    first = known.judged("paper")
    source.held.append(wic("bert", 2))
    source.broken = TrackingUnreachable("away: postgresql://me:secret@host/db")
    time[0] += records.KEEP
    found = known.judged("paper")
    assert found.judgements is first.judgements and found.older and found.due == records.LOOK
    assert "away" in found.trouble and "secret" not in found.trouble
    shown = claims_page(known)
    assert "verdicts on" in shown.said and claims.FAILED in str(shown.body) and shown.again == 1000 * records.LOOK
    source.broken = None
    time[0] += records.LOOK
    again = known.judged("paper")
    assert again.judgements is not first.judgements and again == (again.judgements, None, False, "", None)


def test_one_study_is_tested_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE", 0.0)
    at_work, most, ended, let = [0], [0], threading.Semaphore(0), threading.Event()
    before = set(threading.enumerate())

    def judged(results: Collection[Result], *given: object) -> dict[str, list[object]]:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        assert let.wait(30)
        at_work[0] -= 1
        ended.release()
        return {}

    monkeypatch.setattr(evidence, "judged", judged)
    source = Source(tmp_path)
    studies = ["a", "b", "c"]
    source.held = [result(study=study, ended="2026-11-24T01:00:00+00:00") for study in studies]
    known = Records(source)
    for study in studies:
        assert known.judged(study).judgements is None
    assert all(thread.daemon for thread in set(threading.enumerate()) - before), (
        "nothing holds the program up at its end"
    )
    let.set()
    assert all(ended.acquire(timeout=30) for _ in studies)
    assert most == [1]


def test_a_run_that_comes_twice_counts_once() -> None:
    assert merged([at(1, 0)], [at(1, 0), at(2, 3)]) == [at(1, 0), at(2, 3)]


def test_models_are_called_as_the_job_table_calls_them(tmp_path: Path) -> None:
    source, named = Source(tmp_path), group("bert", study="paper")
    tags = {key.removeprefix(PREFIX): value for key, value in group_tags(named).items()} | {"role": "gpt2"}
    source.held = [replace(result(MODELS[0], SHIFT, 1), tags={**tags, "ended": "2026-11-24T12:00:00+00:00"})]
    now = replace(named, model=replace(named.model, label="Ernie", role="bert"))
    (shown,) = Records(source, groups=lambda: [now]).now().results
    assert (shown.tags["model_title"], shown.tags["role"], shown.tags["ended"]) == (
        "Ernie", "bert", "2026-11-24T12:00:00+00:00",
    )  # fmt: skip
    plain = replace(named, model=replace(named.model, role=None))
    assert "role" not in Records(source, groups=lambda: [plain]).now().results[0].tags
    other = replace(now, task=replace(now.task, options={"hidden": 7}))
    assert Records(source, groups=lambda: [other]).now().results[0].tags["role"] == "gpt2", "of other settings"

    def away() -> list[Group]:
        raise DatabaseUnreachable

    assert Records(source, groups=away).now().results[0].tags["role"] == "gpt2"

    said: list[Callable[[], list[Group]]] = [lambda: [now]]
    seconds = [0.0]
    known = Records(source, clock=lambda: seconds[0], groups=lambda: said[0]())
    assert known.now().results[0].tags["role"] == "bert"
    said[0] = away
    for more in (records.NAMES, 2 * records.WHOLE):  # a look without news, and a reading of everything
        seconds[0] += more + 1
        assert known.now().results[0].tags["role"] == "bert", "as it was said last"
    said[0] = lambda: [plain]
    seconds[0] += records.NAMES + 1
    assert "role" not in known.now().results[0].tags, "with no news from MLflow"
