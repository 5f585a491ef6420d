"""Which rows of `make chaos` stand, and that broken ones are kept, shown and told of."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos import faults, servers, table
from tests.chaos.faults import FAULTS
from tests.chaos.house import Backends, Fault, House
from tests.chaos.table import ROOT, Row, code

NAMED = {fault.name: fault for fault in FAULTS}
QUIET, KILL = NAMED["quiet"], NAMED["kill"]
HELD = Row(
    *("quiet", "Nothing.", "embedded", 40, 40, 0, 0, 0, 0, 0, 40, 0, None, None, 2.0, 20.0, True, "2026-01-02", ()),
    code=code(QUIET),
)
BROKEN = replace(
    HELD, fault="kill", what="SIGKILL.", done=39, lost=1, kept=False, told=("job 7 is running",), code=code(KILL)
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Rows and a page of one's own: none, and an empty table."""
    kept, page = tmp_path / "rows.jsonl", tmp_path / "reliability.md"
    page.write_text("before\n{}\nold\n{}\nafter\n".format(*table.MARKS))
    monkeypatch.setattr(table, "KEPT", kept)
    monkeypatch.setattr(table, "PAGE", page)
    monkeypatch.setattr(servers, "unused_store", lambda path: path)
    return kept, page


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["chaos", "--house", "embedded", *words])
    with pytest.raises(SystemExit) as ended:
        chaos.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_row_stands_where_it_has_the_cells_asked_for_and_is_of_this_code() -> None:
    assert HELD.stands(QUIET, 40) and not HELD.stands(QUIET, 41) and BROKEN.stands(KILL, 40)
    assert not replace(HELD, code="").stands(QUIET, 40) and not replace(HELD, code="0" * 12).stands(QUIET, 40)
    slow = next(fault for fault in FAULTS if fault.slow)
    assert [chaos.share(slow, jobs) for jobs in (1000, 100, 40)] == [100, 60, 40]
    assert [chaos.share(FAULTS[0], jobs) for jobs in (1000, 40)] == [1000, 40]


def test_other_sources_are_another_code_and_another_drawing_is_not(tmp_path: Path) -> None:
    for name in ("clipstudy/queue/deep/a.py", "clipstudy/worker.py", "clipstudy/spec.py", "tests/chaos/body.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [table.hashed(tmp_path)]
    for name in ("clipstudy/spec.py", "tests/chaos/table.py", "tests/chaos/test_table.py"):
        (tmp_path / name).write_text("other")
        assert table.hashed(tmp_path) == found[0], name
    for name in ("clipstudy/queue/deep/a.py", "clipstudy/worker.py", "tests/chaos/body.py"):
        (tmp_path / name).write_text("other")
        found.append(table.hashed(tmp_path))
    assert len(set(found)) == 4
    for pattern in table.PROTOCOL:
        assert list((ROOT / "clipstudy").glob(pattern)), f"{pattern} names nothing"


def test_a_row_is_of_its_own_faults_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({code(fault) for fault in FAULTS}) == len(FAULTS)
    before = {fault.name: code(fault) for fault in FAULTS}
    assert code(replace(KILL, every=2.0)) != code(KILL) != code(replace(KILL, orders={"point": "claim"}))
    assert code(replace(KILL, blow=faults.send(signal.SIGTERM))) != code(KILL)

    def some_worker(house: House) -> int | None:
        return None

    some_worker.__module__ = faults.__name__
    monkeypatch.setattr(faults, "some_worker", some_worker)
    others = {fault.name for fault in FAULTS if code(fault) != before[fault.name]}
    assert others == {"kill", "terminate", "no memory"}, "those that look it up; `sleep` was given it"


def test_what_does_not_stand_is_run_and_what_stands_is_not(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int]] = []

    def run(fault: Fault, backends: Backends, folder: Path, jobs: int) -> Row:
        ran.append((fault.name, jobs))
        return replace(HELD, fault=fault.name, jobs=jobs, code=code(fault))

    monkeypatch.setattr(chaos, "run", run)
    table.keep(replace(HELD, code=""))
    table.keep(replace(BROKEN, kept=True))
    here = ("--only", "quiet", "--only", "kill")
    assert typed(monkeypatch, *here, "--jobs", "40") == 0 and ran == [("quiet", 40)]
    assert capsys.readouterr().out.startswith("1 row to run")
    assert typed(monkeypatch, *here, "--jobs", "40") == 0 and len(ran) == 1
    assert typed(monkeypatch, *here, "--jobs", "50") == 0 and ran[1:] == [("quiet", 50), ("kill", 50)]
    assert typed(monkeypatch, *here, "--jobs", "40", "--again") == 0 and len(ran) == 5


def test_a_broken_row_takes_the_place_of_the_old_one_and_is_shown_and_ends_with_1(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, page = files
    table.keep(HELD)
    table.keep(replace(BROKEN, kept=True, lost=0, done=40, told=()))
    monkeypatch.setattr(chaos, "run", lambda *_: BROKEN)
    assert typed(monkeypatch, "--only", "kill", "--jobs", "40", "--again") == 1
    assert [(row["fault"], row["lost"]) for row in map(json.loads, kept.read_text().splitlines())] == [
        ("quiet", 0),
        ("kill", 1),
    ]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    assert "\n2 rows: in 1 the promise held.\n" in text
    assert "| **kill** | **embedded** | **40** | **39** | **0** | **0** | **1** |" in text
    assert "**kill on embedded**: job 7 is running" in text
    assert "| quiet | embedded | 40 | 40 | 0 |" in text
    assert typed(monkeypatch, "--only", "quiet", "--jobs", "40") == 1, "as long as it stands there"


def test_a_row_that_could_not_be_run_is_not_kept_and_ends_with_1(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(fault: Fault, *_: object) -> Row:
        if fault.name == "quiet":
            raise OSError("no room")
        return replace(HELD, fault=fault.name)

    monkeypatch.setattr(chaos, "run", run)
    assert typed(monkeypatch, "--only", "quiet", "--only", "kill") == 1
    assert [row.fault for row in table.rows()] == ["kill"]


def test_times_of_a_busy_machine_are_upper_bounds_and_no_goodput_is_shown() -> None:
    timed = replace(BROKEN, median=1.25, worst=2.5)
    assert "| **≤ 1.2 s** | **≤ 2.5 s** | **–** | **2026-01-02** |" in table.drawn([HELD, timed])
    assert "| **1.2 s** | **2.5 s** | **50%** | **2026-01-02** |" in table.drawn([replace(timed, goodput=0.5)])


def test_goodput_is_against_a_quiet_run_of_as_many_cells_that_take_as_long(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int]] = []

    def run(fault: Fault, backends: Backends, folder: Path, jobs: int) -> Row:
        ran.append((fault.name.partition(",")[0], jobs))
        rate = jobs / (1 + fault.plan.get("millis", 0)) / (1 if fault.name.startswith("quiet") else 4)
        return replace(HELD, fault=fault.name, jobs=jobs, rate=rate, code=code(fault))

    monkeypatch.setattr(chaos, "run", run)
    names = ("quiet", "kill", "terminate", "sleep", "sleep at: claim")
    assert typed(monkeypatch, "--idle", *(word for name in names for word in ("--only", name))) == 0
    assert ran == [("quiet", 1000), ("kill", 1000), ("terminate", 1000), ("sleep", 100), ("quiet", 100),
                   ("sleep at: claim", 100)]  # fmt: skip
    assert {row.fault: row.goodput for row in table.rows()} == {
        name: 1.0 if name == "quiet" else 0.25 for name in names
    }


def test_the_page_shows_the_rows_that_are_kept() -> None:
    shown = table.PAGE.read_text().split(table.MARKS[0])[1].split(table.MARKS[1])[0]
    assert shown.strip() == table.drawn(table.rows()), "what is under test has changed: make chaos CHAOS=--draw"


def test_rows_of_an_earlier_version_are_marked() -> None:
    old = replace(BROKEN, kept=True, code="0" * 12)
    assert "1 of them (†) are" in table.drawn([HELD, old]) and "| 2026-01-02 † |" in table.drawn([HELD, old])
    assert "†" not in table.drawn([HELD])


def test_the_study_of_a_quiet_run_has_a_name_that_mlflow_can_look_for() -> None:
    for fault in FAULTS:
        plain = chaos.like(fault, 100)
        assert "'" not in plain.name and plain.plan.get("millis") == fault.plan.get("millis")
