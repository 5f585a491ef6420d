"""What is printed: tables and paragraphs on a narrow screen, titles of tables of results, a worker's last line."""

from __future__ import annotations

import pytest

from clipstudy.attempt import Tally
from clipstudy.cli import results, screen, work
from clipstudy.job import Status
from clipstudy.queue.jobs import Enqueued
from clipstudy.results import boards
from tests.made_up import MODELS, TASKS, result
from tests.made_up import results as made_up

HEAD = ["task", "BERT", "GPT-2", "CLIP text (ResNet)", "CLIP text (ViT)", "ViT, supervised", "BERT, untrained"]
ROWS = [
    ["Coordination inversion, accuracy (%)", *[f"8{n}.3 ± 0.7 (4)" for n in range(6)]],
    ["Reconstruction of pictures, mean squared error", *[f"0.12{n} ± 0.012 (12)" for n in range(6)]],
]


@pytest.fixture(params=[60, 80, 100, 200])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def test_no_word_and_no_short_cell_is_broken(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    screen.table(HEAD, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert words == {word for row in (HEAD, *ROWS) for cell in row for word in cell.split()}
    for _, *cells in ROWS:
        assert all(sum(cell in line for line in lines) == 1 for cell in cells)


def test_as_few_tables_as_there_is_room_for(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    screen.table(HEAD, ROWS)
    tables = capsys.readouterr().out.split("\n\n")
    assert len(tables) == {60: 3, 80: 2, 100: 2, 200: 1}[width]
    assert all("Reconstruction" in table for table in tables)


def test_columns_as_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    screen.table(["layer", "accuracy"], [[str(k), f"0.{k}00 [0.1, 0.9]"] for k in range(4)], transpose=True)
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.split() == ["layer", "0", "1", "accuracy", "0.000", "[0.1,", "0.9]", "0.100", "[0.1,", "0.9]"]
    assert second.split()[:4] == ["layer", "2", "3", "accuracy"]


def test_a_word_wider_than_the_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen.table(["[what]", "size"], [["x" * 100, "12.0 MB"]])
    said = capsys.readouterr().out
    assert said.count("x") == 100 and "12.0 MB" in said and "[what]" in said


def test_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert screen.paragraph("word " * 12, 4).split("\n") == ["word " * 8 + "word", "    word word word"]
    assert screen.shortened("word " * 12, 4) == "word " * 8 + "word …"
    assert screen.shortened("word " * 3, 4) == "word word word"


def test_modules_that_are_layers_are_named() -> None:
    own, other = MODELS[0], MODELS[1]
    rows = [result(own, layer=k, layer_label=name) for k, name in enumerate(("stem", "features.2", "features.5"))]
    rows += [result(other, layer=k) for k in range(4)]
    board = boards.board(rows)
    view = boards.view(board, board.tasks[0])
    assert view is not None
    assert results._modules(view) == {"1": "1 (features.2)", "2": "2 (features.5)"}


def test_results_come_in_the_order_of_the_page() -> None:
    shuffled = sorted(made_up(), key=lambda r: r.task, reverse=True)
    assert [*results.board(shuffled).tasks] == [
        *(task.name for task in TASKS if task.category in ("phrase", "surface")),
        *sorted(task.name for task in TASKS if task.category == "syntactic"),
        *sorted(task.name for task in TASKS if task.category == "semantic"),
    ]


def test_a_worker_says_why_it_recorded_other_numbers_than_it_computed() -> None:
    own = Tally(computed=14, recorded=14, busy=2.0, keeping=0.1)
    assert (
        work._tallied(own) == "14 cells computed, 0 failed, 14 recorded; 5.0% of the time went to the queue and MLflow"
    )
    for tally in (Tally(computed=14, recorded=10, busy=1.0), Tally(recorded=4)):
        assert "(workers record each other's results, too)" in work._tallied(tally)
    assert "of the time" not in work._tallied(Tally(computed=2, recorded=2)), (
        "the database went away amid its only round"
    )
    assert "each other" not in work._tallied(Tally(computed=14, recorded=10, waiting=4, busy=1.0))


def test_settings_that_are_back_are_told_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures show what ran last; nothing of these will run by itself."""
    back = Enqueued(present={Status.DONE: 3}, returned=(("bert", "t"), ("my gpt", "t")))
    work._print_enqueued("s", 6, 2, back, dry_run=False)
    told = capsys.readouterr().out
    assert "2 groups had these settings before" in told
    assert "clipstudy rerun --study s --model bert --task t; clipstudy rerun --study s --model 'my gpt'" in told
    work._print_enqueued("s", 6, 2, back, dry_run=True)
    assert "rerun" not in capsys.readouterr().out, "they are not back yet"
