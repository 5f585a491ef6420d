"""What a chart draws, exactly; and that the figure draws it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipstudy.dashboard.charts import (
    GREY,
    PALETTE,
    BarsInfo,
    Ink,
    LineInfo,
    SeriesInfo,
    bars,
    bars_figure,
    bars_info,
    inks,
    lighter,
    signs,
)
from clipstudy.dashboard.tables import Board, Cell, Curve, Level, View, board, view
from clipstudy.outcome import Estimate
from clipstudy.spec import WHOLE_MODEL
from tests.made_up import MODELS, SHIFT, Model, result, results

BLUE, ORANGE = Ink("#0072B2"), Ink("#E69F00")


def _view(**changed: object) -> View:
    cells = (
        Cell(0, "embedding", Estimate(0.5, 0.25, 0.625), 0.0, 1000, one_class=True),
        Cell(1, "block 1", Estimate(0.75, 0.625, 0.875), 1.0, 1000),
    )
    twin = (Cell(1, "block 1", Estimate(0.25), 1.0, inits=3),)
    curves = (Curve("bert", "BERT", None, cells, 1), Curve("b0", "BERT, untrained", "bert", twin, None))
    values: dict[str, object] = {
        "task": "shift",
        "title": "Bigram shift",
        "category": "syntactic",
        "metric": "accuracy",
        "modality": "text",
        "curves": curves,
        "baselines": (("majority class", 0.5),),
    }
    return View(**(values | changed))  # type: ignore[arg-type]


INFO = BarsInfo(
    title="Bigram shift",
    x_title="layer (0 = embedding)",
    y_title="accuracy (%)",
    ticks=[(0.0, "0"), (1.0, "1")],
    series=[
        SeriesInfo(
            name="BERT",
            ink=BLUE,
            x=[0.0, 1.0],
            y=[50.0, 75.0],
            above=[12.5, 12.5],
            below=[25.0, 12.5],
            hollow=[True, False],
            texts=[
                "BERT, embedding: 50.0 ± 18.8, 1,000 test items, a probe predicts one class only",
                "BERT, block 1: 75.0 ± 12.5, 1,000 test items",
            ],
        ),
        SeriesInfo(
            name="BERT, untrained",
            ink=Ink("#0072B2", twin=True),
            x=[1.0],
            y=[25.0],
            above=[0.0],
            below=[0.0],
            hollow=[False],
            texts=["BERT, untrained, block 1: 25.0, 3 initialisations"],
        ),
    ],
    lines=[LineInfo("majority class", 50.0)],
    top=92.75,
)
COLORS = {"bert": BLUE, "b0": Ink("#0072B2", twin=True)}


def test_bars_over_layers() -> None:
    assert bars_info(_view(), COLORS) == INFO


def test_lines_over_depth() -> None:
    info = bars_info(_view(), COLORS, "depth")
    assert info.joined and info.ticks == [] and info.x_title == "depth (fraction of the model's blocks)"
    assert info.series[0].x == [0.0, 1.0]
    figure = bars_figure(info)
    assert [trace.type for trace in figure.data] == ["scatter", "scatter"]


def test_seeds_are_points_over_their_bar() -> None:
    view_ = _view()
    first, second = view_.curves[0].cells
    curve = replace(view_.curves[0], cells=(replace(first, points=(0.25, 0.75)), replace(second, points=(0.95,))))
    info = bars_info(replace(view_, curves=(curve,)), COLORS)
    assert info.series[0].points == [(0.0, 25.0), (0.0, 75.0), (1.0, 95.0)]
    assert info.top == pytest.approx(95 * 1.06), "no point leaves the picture"
    hollow, filled, points = sorted(bars_figure(info).data, key=lambda t: (t.type, t.x[-1]))
    assert (list(points.x), list(points.y), points.mode) == ([0.0, 0.0, 1.0], [25.0, 75.0, 95.0], "markers")
    assert points.offsetgroup == hollow.offsetgroup == filled.offsetgroup


def test_what_a_model_reaches_as_a_whole_is_a_line_of_its_colour() -> None:
    levels = (Level("bert", "zero-shot", Estimate(0.6)), Level("b0", "zero-shot", Estimate(0.602)))
    info = bars_info(_view(levels=levels), COLORS)
    assert info.lines == [
        LineInfo("majority class", 50.0),
        LineInfo("zero-shot", 60.0, BLUE.color),
        LineInfo("", pytest.approx(60.2), BLUE.color),
    ]
    drawn = [(shape.line.color, shape.line.dash) for shape in bars_figure(info).layout.shapes]
    assert drawn == [(GREY, "dash"), (BLUE.color, "dot"), (BLUE.color, "dot")]
    assert signs([_view(levels=levels)]) == [
        "□ hollow: a probe predicts one class only",
        "⋯ dotted: the model's zero-shot accuracy",
    ]


def test_a_task_of_the_whole_model_has_one_place() -> None:
    cell = Cell(WHOLE_MODEL, "whole model", Estimate(0.75))
    whole = _view(curves=(Curve("bert", "BERT", None, (cell,), None),))
    for x in ("layer", "depth"):
        info = bars_info(whole, COLORS, x)
        assert (info.x_title, info.ticks, info.joined) == ("", [(-1.0, "whole model")], False)


def test_units_and_images() -> None:
    info = bars_info(_view(metric="nmi", modality="image"), COLORS)
    assert (info.x_title, info.y_title, info.series[0].y) == ("layer (0 = stem)", "NMI", [0.5, 0.75])
    assert bars_info(_view(metric="native/accuracy"), COLORS).y_title == "accuracy (%), native"


def test_an_interval_beside_its_estimate_draws_no_negative_bar() -> None:
    cell = Cell(0, "embedding", Estimate(0.5, 0.6, 0.7))
    info = bars_info(_view(curves=(Curve("bert", "BERT", None, (cell,), None),)), COLORS)
    assert info.series[0].below == [0.0] and info.series[0].above == [pytest.approx(20.0)]


def test_labels_of_near_baselines_are_put_together() -> None:
    info = bars_info(
        _view(baselines=(("span length", 0.51), ("majority class", 0.5), ("random clusters", 0.1))), COLORS
    )
    assert info.lines == [
        LineInfo("random clusters", 10.0),
        LineInfo("majority class,<br>span length", 50.0),
        LineInfo("", 51.0),
    ]


def test_one_color_a_model_and_a_twin_has_its_models_hue() -> None:
    shown = board(results())
    colors = inks(shown)
    assert set(colors) == {model.family for model in MODELS}
    for model in MODELS:
        assert colors[model.family].twin == bool(model.twin_of)
        if model.twin_of:
            assert colors[model.family].color == colors[model.twin_of].color
    assert len({ink.color for ink in colors.values()}) == 3
    assert inks(Board(shown.results[::-1])) == inks(Board(shown.results)), "whatever the order of the results"


def test_a_twin_without_its_model_and_more_models_than_colors() -> None:
    alone = board([result(Model("t", "T", "gone"))])
    assert inks(alone) == {"t": Ink(PALETTE[0], twin=True)}
    many = board([result(Model(f"m{i}", f"M{i}")) for i in range(10)])
    assert len(inks(many)) == 10


def test_lighter() -> None:
    assert lighter("#000000", 0.5) == "#808080" and lighter("#0072B2", 0) == "#0072B2"


def test_the_figure_draws_the_info() -> None:
    figure = bars_figure(INFO)
    filled, hollow, twin = sorted(figure.data, key=lambda t: (t.name, t.marker.color.startswith("rgba")))
    assert (list(filled.x), list(filled.y)) == ([1.0], [75.0]) and filled.marker.color == "#0072B2"
    assert (list(hollow.x), list(hollow.y)) == ([0.0], [50.0]) and hollow.marker.color == "rgba(0,0,0,0)"
    assert hollow.offsetgroup == filled.offsetgroup != twin.offsetgroup
    assert (list(hollow.error_y.array), list(hollow.error_y.arrayminus)) == ([12.5], [25.0])
    assert twin.marker.pattern.shape == "/" and twin.marker.color == lighter("#0072B2")
    assert not twin.error_y.visible
    assert [shape.y0 for shape in figure.layout.shapes] == [50.0]
    assert [note.text for note in figure.layout.annotations] == ["majority class"]
    assert figure.layout.yaxis.range == (0.0, 92.75), "bars begin at zero"
    assert sum(trace.showlegend for trace in figure.data) == 2


def test_negative_values_are_in_the_picture() -> None:
    cell = Cell(0, "embedding", Estimate(-0.25, -0.5, 0.0))
    below = _view(metric="selectivity", baselines=(), curves=(Curve("bert", "BERT", None, (cell,), None),))
    low, high = bars(below, COLORS).layout.yaxis.range
    assert low < -50 and high > low


def test_an_empty_view_is_a_figure_too() -> None:
    assert bars(_view(curves=(), baselines=()), COLORS).data == ()


def test_names_are_text() -> None:
    nasty = "<a href='https://x'>x</a> & %{y}"
    shown = board([result(Model("m", nasty), SHIFT, task_title=nasty)])
    found = view(shown, "bigram_shift")
    assert found
    figure = bars(found, inks(shown))
    assert "<a" not in figure.to_json().replace("\\u003c", "<")
    assert figure.layout.title.text == "&lt;a href='https://x'&gt;x&lt;/a&gt; &amp; %{y}"


def test_what_a_study_says_of_itself_stands_under_the_title() -> None:
    figure = bars(_view(note="<made up>"), {"bert": BLUE, "b0": Ink("#0072B2", True)})
    assert figure.layout.title.subtitle.text == "&lt;made up&gt;"


def test_a_long_word_on_the_study_is_broken_into_lines() -> None:
    said = "These are stand-ins, and their figures say nothing of what they stand in for, " * 3
    lines = bars(_view(note=said), {"bert": BLUE, "b0": Ink("#0072B2", True)}).layout.title.subtitle.text.split("<br>")
    assert " ".join(lines) == said.strip() and max(map(len, lines)) <= 72
