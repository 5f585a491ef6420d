"""Dashboards in TOML: what they show, and what they say about a slip."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipstudy.dashboard import panels
from clipstudy.dashboard.panels import Dashboard, Panel, parse
from clipstudy.dashboard.tables import board
from clipstudy.errors import StudyError
from tests.made_up import TASKS, results


def test_the_shipped_dashboard_shows_every_kind_of_task() -> None:
    dashboard = panels.load(panels.default())
    for task in TASKS:
        assert any(panel.takes(task.name, task.category) for panel in dashboard.panels), task


def test_a_dashboard() -> None:
    text = """
    title = "Mine"
    order = ["gpt2"]
    [[panel]]
    title = "One"
    tasks = ["tree_depth", "bigram_*"]
    metric = "native/accuracy"
    x = "depth"
    [[panel]]
    title = "All"
    category = ["surface", "sem*"]
    metric = "headline"
    average = true
    caption = "Some."
    """
    assert parse(text, "mine.toml") == Dashboard(
        "Mine",
        (
            Panel("One", ("tree_depth", "bigram_*"), metric="native/accuracy", x="depth"),
            Panel("All", category=("surface", "sem*"), average=True, caption="Some."),
        ),
        order=("gpt2",),
    )


def test_tasks_come_in_the_order_in_which_a_panel_names_them() -> None:
    shown = board(results())
    found = panels.views(Panel("P", ("tree_depth", "bigram_*")), shown)
    assert [view.task for view in found] == ["tree_depth", "bigram_shift"]
    assert [view.task for view in panels.views(Panel("P", category=("surface",)), shown)] == [
        "sentence_length",
        "word_content",
    ]
    assert len(panels.views(Panel("Everything"), shown)) == 10
    assert {view.metric for view in panels.views(Panel("N", metric="native/accuracy"), shown)} == {"native/accuracy"}
    mean, _ = panels.averaged(Panel("P", average=True), found)
    assert mean and mean.title == "P: average"
    assert panels.averaged(Panel("P"), found) == (None, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "d.toml: not TOML"),
        ('title = "x"', r"d.toml: no panel. Add a table \[\[panel\]\]"),
        ('panel = "x"', "no panel"),
        ('titel = "x"\n[[panel]]\ntitle = "a"', "d.toml: unknown key 'titel'; did you mean \"title\"\\?"),
        ('[[panel]]\ntasks = ["a"]', "panel 1: has no title"),
        ('[[panel]]\ntitle = "a"\n[[panel]]\ntitle = "b"\ncatgory = "c"', 'panel 2: .*did you mean "category"'),
        ('[[panel]]\ntitle = "a"\nx = "layers"', "x = 'layers'; did you mean \"layer\""),
        ('[[panel]]\ntitle = "a"\naverage = "yes"', "average = 'yes' is not true or false"),
        ('[[panel]]\ntitle = "a"\ntasks = "a"', "tasks = 'a' is not a list of texts"),
        ('[[panel]]\ntitle = "a"\ncategory = [1]', "category = .* is not a text or a list of texts"),
    ],
)
def test_slips_are_named(text: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        parse(text, "d.toml")


def test_a_dashboard_of_ones_own_comes_before_the_shipped_one(tmp_path: Path) -> None:
    assert panels.find("layers", tmp_path).title == panels.load(panels.default()).title
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "layers.toml").write_text('title = "Mine"\n[[panel]]\ntitle = "a"\n')
    assert panels.find("layers", tmp_path).title == "Mine"
    assert panels.find(str(tmp_path / "dashboards" / "layers.toml"), Path("/")).title == "Mine"
    with pytest.raises(StudyError, match=r"layerz\.toml.*did you mean \"layers\.toml\""):
        panels.find("layerz", tmp_path)
