"""Dashboards in TOML: what they show, and what they say about a slip."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from clipstudy.dashboard import panels
from clipstudy.dashboard.panels import Dashboard, Panel, parse
from clipstudy.errors import StudyError
from clipstudy.results import comparisons
from clipstudy.results.boards import board
from tests.made_up import TASKS, results


def test_the_shipped_dashboard_shows_every_kind_of_task() -> None:
    dashboard = panels.load(panels.default())
    for task in TASKS:
        assert any(panel.takes(task.name, task.category) for panel in dashboard.panels), task


def test_a_shipped_caption_is_true_of_any_study_s_tasks() -> None:
    """A study of one's own may have a category of that name, too: the caption says nothing of certain tasks."""
    words = re.compile(r"tense|number|parse|passage|answer|sense|BERT|GPT|\d{3}", re.IGNORECASE)
    assert not [p.title for p in panels.load(panels.default()).panels if p.category and words.search(p.caption)]


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
    x = "stage"
    category = ["surface", "sem*"]
    metric = "headline"
    average = true
    caption = "Some."
    """
    assert parse(text, "mine.toml") == Dashboard(
        "Mine",
        (
            Panel("One", ("tree_depth", "bigram_*"), metric="native/accuracy", x="depth"),
            Panel("All", category=("surface", "sem*"), x="stage", average=True, caption="Some."),
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
    rest = '[[panel]]\ntitle = "Words"\ncategory = ["s*"]\n[[panel]]\ntitle = "Best"\ndraw = "best"\n'
    words, _, others = panels.parse(f'{rest}[[panel]]\ntitle = "Rest"\nrest = true\n', "d").panels
    drawn = [[view.task for view in panels.views(panel, shown)] for panel in (words, others)]
    assert all(drawn) and sorted(drawn[0] + drawn[1]) == sorted(shown.tasks)
    assert {view.metric for view in panels.views(Panel("N", metric="native/accuracy"), shown)} == {"native/accuracy"}
    mean, _ = panels.averaged(Panel("P", average=True), found)
    assert mean and mean.title == "P: average"
    assert panels.averaged(Panel("P"), found) == (None, ())


def test_a_panel_of_some_models_at_some_depths() -> None:
    found = [replace(r, tags=r.tags | {"role": "clip_text other"}) if r.model == "clip-text" else r for r in results()]
    shown = board(found)
    (one,) = panels.views(Panel("P", ("bigram_shift",), models=("other", "gpt2"), depths=(0.25, 1)), shown)
    assert [(curve.family, [cell.layer for cell in curve.cells]) for curve in one.curves] == [
        ("clip-text", [3, 12]),
        ("gpt2", [3, 12]),
    ]
    assert [curve.best for curve in one.curves] == [
        max(curve.cells, key=lambda cell: cell.estimate.value).layer for curve in one.curves
    ], "of those that are shown"
    assert panels.views(Panel("P", depths=(0.3,)), shown) == []


def test_six_lines_are_a_panel() -> None:
    text = """
    [[panel]]
    title = "Word order"
    tasks = ["bigram_shift"]
    models = ["bert", "gpt2"]
    seeds = true
    caption = "Which layers notice two words that changed places?"
    """
    (panel,) = parse(text, "mine.toml").panels
    assert (panel.models, panel.seeds, panel.draw) == (("bert", "gpt2"), True, "bars")
    assert [len(view.curves) for view in panels.views(panel, board(results()))] == [2]


def test_a_name_like_one_that_is_recorded_is_told() -> None:
    panel = Panel("Word order", ("bigramshift", "tree_depth", "bi*", "not recorded yet"), models=("brt", "gpt2"))
    shown = board(results())
    assert panels.misspelt(Dashboard("Mine", (panel,)), shown) == [
        'panel "Word order": no result has the task "bigramshift". Did you mean "bigram_shift"?',
        'panel "Word order": no result has the model "brt". Did you mean "bert"?',
    ]
    assert panels.misspelt(panels.load(panels.default()), shown) == []


def test_the_reports_figures_are_a_dashboard() -> None:
    paper = panels.find("paper", Path("/nowhere"))
    titles = [panel.title.split(".")[0] for panel in paper.panels]
    assert titles[:-1] == [*(f"Figure {k}" for k in range(1, 6)), "Table 1", "Figure 6", "Figure 7", "Figure 9"]
    assert paper.panels[-1].metric == "native/accuracy", "beside Jawahar et al.'s Table 2, which is of [CLS]"
    drawn = {panel.title.split(".")[0]: panel.draw for panel in paper.panels}
    assert (drawn["Figure 1"], drawn["Figure 2"], drawn["Table 1"]) == ("pictures", "bars", "published")
    assert comparisons.numbers(paper.panels[5].source), "its pattern takes the report's numbers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "d.toml: not TOML"),
        ('title = "x"', r"d.toml: no panel. Add a table \[\[panel\]\]"),
        ('panel = "x"', "no panel"),
        ('titel = "x"\n[[panel]]\ntitle = "a"', "d.toml: unknown key 'titel'. Did you mean \"title\"\\?"),
        ('[[panel]]\ntasks = ["a"]', "panel 1: has no title"),
        ('[[panel]]\ntitle = "a"\n[[panel]]\ntitle = "b"\ncatgory = "c"', 'panel 2: .*Did you mean "category"'),
        ('[[panel]]\ntitle = "a"\nx = "layers"', "x = 'layers'. Did you mean \"layer\""),
        ('[[panel]]\ntitle = "a"\naverage = "yes"', "average = 'yes' is not true or false"),
        ('[[panel]]\ntitle = "a"\ntasks = "a"', "tasks = 'a' is not a list of texts"),
        ('[[panel]]\ntitle = "a"\ncategory = [1]', "category = .* is not a text or a list of texts"),
        ('[[panel]]\ntitle = "a"\ndraw = "bar"', "draw = 'bar'. Did you mean \"bars\""),
        ('[[panel]]\ntitle = "a"\ndepths = [true]', "depths = .* is not a list of numbers"),
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
    with pytest.raises(StudyError, match=r"nowhere\.toml: cannot be read: no such file.*layers\.toml"):
        panels.find(str(tmp_path / "dashboards" / "nowhere.toml"), tmp_path)
    missing = r"no dashboard \"layerz\" in .* Did you mean \"layers\"\? What exists: layers, paper"
    with pytest.raises(StudyError, match=missing):
        panels.find("layerz", tmp_path)
    checkout = panels.default().parent
    with pytest.raises(StudyError) as told:
        panels.find("layerz", checkout.parent)
    assert told.value.message.count(str(checkout)) == 1
