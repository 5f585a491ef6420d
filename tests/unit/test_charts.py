"""What a chart draws, exactly; and that the figure draws it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from clipstudy.dashboard import charts
from clipstudy.dashboard.charts import NOTE_WIDTH, bars, bars_figure, heading, signs
from clipstudy.dashboard.inks import KNOWN_FLOORS, PALETTE, PATTERNS, Ink, floors_of, inks_of, lighter
from clipstudy.dashboard.labels import GREY
from clipstudy.dashboard.series import BarsInfo, FloorInfo, LineInfo, SeriesInfo, axes, bars_info
from clipstudy.job import layers_of
from clipstudy.outcome import Estimate, Result
from clipstudy.results.boards import Board, board, view
from clipstudy.results.views import Cell, Curve, Level, Mark, View
from clipstudy.spec import WHOLE_MODEL, ModelSpec, TaskSpec
from tests.made_up import MODELS, SHIFT, Model, result, results

BLUE, ORANGE = Ink("#0072B2"), Ink("#E69F00")


def drawn(figure: dict[str, Any]) -> go.Figure:
    """What Plotly makes of it; it raises where a key or a value is none of Plotly's."""
    return go.Figure(figure)


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
    x_title="layer (block; 0 = embedding)",
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
                "BERT, embedding: 50.0 ± 18.8, 1,000 test items, with at least one seed, a single class is predicted",
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
    figure = drawn(bars_figure(info))
    assert [trace.type for trace in figure.data] == ["scatter", "scatter"]


def test_seeds_are_points_over_their_bar() -> None:
    view_ = _view()
    first, second = view_.curves[0].cells
    curve = replace(view_.curves[0], cells=(replace(first, points=(0.25, 0.75)), replace(second, points=(0.95,))))
    info = bars_info(replace(view_, curves=(curve,)), COLORS)
    assert info.series[0].points == ((0.0, 25.0), (0.0, 75.0), (1.0, 95.0))
    assert info.top == pytest.approx(95 * 1.06), "no point leaves the picture"
    hollow, filled, points = sorted(drawn(bars_figure(info)).data, key=lambda t: (t.type, t.x[-1]))
    assert (list(points.x), list(points.y), points.mode) == ([0.0, 0.0, 1.0], [25.0, 75.0, 95.0], "markers")
    assert points.offsetgroup == hollow.offsetgroup == filled.offsetgroup


def test_what_a_model_reaches_as_a_whole_is_a_line_of_its_colour() -> None:
    levels = (Level("bert", "zero-shot", Estimate(0.6)), Level("b0", "zero-shot", Estimate(0.602)))
    info = bars_info(_view(levels=levels), COLORS)
    assert info.lines == [
        LineInfo("majority class", 50.0),
        LineInfo("zero-shot, BERT", 60.0, BLUE.color),
        LineInfo("zero-shot, BERT, untrained", pytest.approx(60.2), BLUE.color),
    ]
    lines = [(shape.line.color, shape.line.dash) for shape in drawn(bars_figure(info)).layout.shapes]
    assert lines == [(GREY, "dash"), (BLUE.color, "dot"), (BLUE.color, "dot")]
    assert signs([_view(levels=levels)]) == [
        "□ hollow: with at least one seed, a single class is predicted",
        "⋯ dotted: zero-shot, in the model's colour",
    ]


def test_a_level_is_named_after_its_model_where_there_are_several() -> None:
    """Not by its colour alone."""
    two = _view(levels=(Level("bert", "zero-shot", Estimate(0.6)), Level("b0", "first text alone", Estimate(0.7))))
    named = ["zero-shot, BERT", "first text alone, BERT, untrained"]
    assert [line.label for line in bars_info(two, COLORS).lines[1:]] == named
    one = _view().curves[0]
    alone = _view(curves=(one,), levels=(Level("bert", "zero-shot", Estimate(0.6)),))
    assert "zero-shot" in [line.label for line in bars_info(alone, COLORS).lines]
    both = tuple(replace(one, study=study, title=f"{study}: BERT") for study in ("paper", "pocket"))
    levels = tuple(Level("bert", "zero-shot", Estimate(y), study) for study, y in (("paper", 0.6), ("pocket", 0.5)))
    lines = bars_info(_view(curves=both, levels=levels, baselines=()), COLORS).lines
    assert [line.label for line in lines] == ["zero-shot, pocket: BERT", "zero-shot, paper: BERT"]


def test_a_task_of_the_whole_model_has_one_place() -> None:
    cell = Cell(WHOLE_MODEL, "whole model", Estimate(0.75))
    whole = _view(curves=(Curve("bert", "BERT", None, (cell,), None),))
    for x in ("layer", "depth"):
        info = bars_info(whole, COLORS, x)
        assert (info.x_title, info.ticks, info.joined) == ("", [(-1.0, "whole model")], False)


def test_units_and_images() -> None:
    info = bars_info(_view(metric="nmi", modality="image"), COLORS)
    assert (info.x_title, info.y_title, info.series[0].y) == ("layer (block; 0 = stem)", "NMI", [0.5, 0.75])
    stages = _view().curves[0].cells[1:]
    assert bars_info(_view(curves=(Curve("bert", "BERT", None, stages, None),)), COLORS).x_title == "layer (block)"
    assert bars_info(_view(metric="native/accuracy"), COLORS).y_title == "accuracy (%), native"


def test_an_interval_beside_its_estimate_draws_no_negative_bar() -> None:
    cell = Cell(0, "embedding", Estimate(0.5, 0.6, 0.7))
    info = bars_info(_view(curves=(Curve("bert", "BERT", None, (cell,), None),)), COLORS)
    assert info.series[0].below == [0.0] and info.series[0].above == [pytest.approx(20.0)]


NEAR = (("majority class", 0.5), ("chance", 0.5), ("span length", 0.51), ("random clusters", 0.1), ("centre", 0.56))


@pytest.mark.parametrize("x", ["layer", "depth"])
def test_labels_of_near_lines_stand_apart_in_the_order_of_their_lines(x: str) -> None:
    levels = Level("bert", "first text alone", Estimate(0.505)), Level("b0", "first text alone", Estimate(0.52))
    layout = drawn(bars(_view(baselines=NEAR, levels=levels, note="Made up."), COLORS, x)).layout
    low, high = layout.yaxis.range
    pixels = (layout.height - layout.margin.t - layout.margin.b) / (high - low)
    found = [(pixels * (high - a.y) + a.ay, len(a.text.split("<br>")), a.y, a.text) for a in layout.annotations]
    assert len(found) == len(NEAR) + len(levels), "each line has its own"
    assert found == sorted(found) and [y for *_, y, _ in found] == sorted((y for *_, y, _ in found), reverse=True)
    for (above, rows, *_), (below, more, *_) in pairwise(found):
        assert below - above >= 12 * (rows + more) / 2, "a line of 10 pixels' letters is 12 high"
    assert layout.annotations[-1].text == "random clusters" and layout.annotations[-1].ay == 0, "nothing is near it"
    assert max(len(part) for *_, text in found for part in text.split("<br>")) <= layout.margin.r / 6


def test_one_color_a_model_and_a_twin_has_its_models_hue() -> None:
    shown = board(results())
    colors = inks_of(shown)
    assert set(colors) == {model.family for model in MODELS}
    for model in MODELS:
        assert colors[model.family].twin == bool(model.twin_of)
        if model.twin_of:
            assert colors[model.family].color == colors[model.twin_of].color
    assert len({ink.color for ink in colors.values()}) == 3
    assert inks_of(Board(shown.results[::-1])) == inks_of(Board(shown.results)), "whatever the order of the results"


def test_a_twin_without_its_model_and_more_models_than_colors() -> None:
    alone = board([result(Model("t", "T", "gone"))])
    assert inks_of(alone) == {"t": Ink(PALETTE[0], twin=True)}
    number = len(PALETTE) * len(PATTERNS)
    twins = [Model(f"t{i:02}", f"T{i}", f"m{i:02}") for i in range(number)]
    many = inks_of(board([result(model) for model in [*twins, *(Model(f"m{i:02}", f"M{i}") for i in range(number))]]))
    assert len(set(many.values())) == 2 * number, "no two models look alike"
    for twin in twins:
        assert many[twin.family] == many[twin.twin_of]._replace(twin=True)


def test_towers_of_one_checkpoint_are_one_model() -> None:
    def found(name: str, checkpoint: str, modality: str) -> Result:
        return replace(result(Model(name, name), modality=modality), params={"model.checkpoint": checkpoint})

    runs = [found("a-text", "a", "text"), found("a-image", "a", "image"), found("b", "b", "image")]
    runs += [found("c", "c", "text"), found("c-other-view", "c", "text"), result(Model("no-checkpoint", "N"))]
    colors = inks_of(board(runs))
    assert colors["a-text"] == colors["a-image"]
    assert len(set(colors.values())) == 5, "two readings of one tower stand side by side"


@pytest.mark.parametrize("ink", [Ink(PALETTE[0], turn=3), Ink(PALETTE[0], twin=True, turn=3)])
def test_a_pattern_goes_over_bars_lines_and_swatches(ink: Ink) -> None:
    colors = {"bert": ink, "b0": BLUE}
    bar = drawn(bars(_view(), colors)).data[0]
    assert bar.marker.pattern.shape == "-" and "turn-3" in ink.classes
    line = drawn(bars(_view(), colors, "depth")).data[0]
    assert line.marker.symbol == ("cross-open", "cross") and line.line.dash == ("dot" if ink.twin else "longdash")


#: Machado, Oliveira & Fernandes (2009): how colours look, in linear RGB, to whom one kind of cone is missing.
SIGHT = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _linear(color: str) -> np.ndarray:
    share = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _luminance(color: str) -> float:
    return float(_linear(color) @ [0.2126, 0.7152, 0.0722])


def _oklab(linear: np.ndarray) -> np.ndarray:
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    axes = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
    return axes @ np.cbrt(cones @ np.clip(linear, 0, 1))


@pytest.mark.parametrize("color", PALETTE)
def test_every_color_stands_out_from_both_pages(color: str) -> None:
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3 : 1."""
    style = (Path(charts.__file__).parent / "page" / "page.css").read_text()
    pages = re.findall(r"--page: (#[0-9a-f]{6})", style)
    assert len(pages) == 2, "a light one and a dark one"
    for page in pages:
        dark, light = sorted((_luminance(color), _luminance(page)))
        assert (light + 0.05) / (dark + 0.05) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colors_are_apart_to_every_kind_of_vision(sight: str) -> None:
    """In Oklab, where 0.02 is a difference that can just be seen."""
    seen = [_oklab(np.array(SIGHT[sight]) @ _linear(color)) for color in PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.09


def test_lighter() -> None:
    assert lighter("#000000", 0.5) == "#808080" and lighter("#0072B2", 0) == "#0072B2"


def test_the_figure_draws_the_info() -> None:
    figure = drawn(bars_figure(INFO))
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


def test_negative_values_are_in_the_picture() -> None:
    cell = Cell(0, "embedding", Estimate(-0.25, -0.5, 0.0))
    below = _view(metric="selectivity", baselines=(), curves=(Curve("bert", "BERT", None, (cell,), None),))
    low, high = drawn(bars(below, COLORS)).layout.yaxis.range
    assert low < -50 and high > low


@pytest.mark.parametrize("lowest", [-0.5, 0.1])
def test_lines_over_depth_leave_nothing_out(lowest: float) -> None:
    """Ends of intervals, seeds, published numbers, what needs no model: the lowest of each."""
    cells = (Cell(0, "embedding", Estimate(0.3, 0.28, 0.32), 0.0), Cell(12, "block 12", Estimate(0.4), 1.0))
    low = replace(cells[0], estimate=Estimate(0.3, lowest, 0.32)), cells[1]
    seed, floor = replace(cells[0], points=(lowest,)), replace(cells[0], baselines=(("random mask", lowest),))
    mark = Mark("bert", 0, lowest, "a paper")
    for curve, marks, lines in (
        (low, (), ()),
        ((seed, cells[1]), (), ()),
        ((floor, cells[1]), (), ()),
        (cells, (mark,), ()),
        (cells, (), (("random clusters", lowest),)),
    ):
        shown = _view(metric="nmi", baselines=lines, marks=marks, curves=(Curve("bert", "BERT", None, curve, None),))
        bottom, top = drawn(bars(shown, COLORS, "depth")).layout.yaxis.range
        assert bottom < lowest < top and (bottom >= 0) is (lowest > 0)


def test_stages_of_models_of_different_depth_stand_side_by_side() -> None:
    def curve(family: str, blocks: int, layers: tuple[int, ...]) -> Curve:
        cells = tuple(Cell(k, f"block {k}", Estimate(0.5), round(k / blocks, 3)) for k in layers)
        return Curve(family, family, None, cells, None)

    residual, vit = curve("bert", 4, (1, 2, 3, 4)), curve("b0", 12, (3, 6, 9, 12))
    assert axes(_view(curves=(residual, vit))) == ["layer", "stage", "depth"]
    info = bars_info(_view(modality="image", curves=(residual, vit)), COLORS, "stage")
    assert [one.x for one in info.series] == [[1.0, 2.0, 3.0, 4.0]] * 2 and not info.joined
    assert info.ticks == [(float(k), str(k)) for k in (1, 2, 3, 4)] and "stage" in info.x_title
    assert info.series[1].texts[0].startswith("b0, block 3")
    every = curve("b0", 12, tuple(range(13)))
    assert axes(_view(curves=(residual, every))) == ["layer", "depth"]
    assert bars_info(_view(curves=(residual, every)), COLORS, "stage").x_title.startswith("layer")


@pytest.mark.parametrize("blocks", range(4, 40))
def test_layers_of_the_stages_are_in_stages_of_their_own(blocks: int) -> None:
    model = ModelSpec("m", "timm", "m", blocks, modality="image")
    layers = layers_of(model, TaskSpec("t", "classify", "d", "accuracy", layers="stages"))
    cells = tuple(Cell(k, str(k), Estimate(0.5), float(f"{k / blocks:.3f}")) for k in layers)
    info = bars_info(_view(curves=(Curve("bert", "BERT", None, cells, None),)), COLORS, "stage")
    assert info.series[0].x == [1.0, 2.0, 3.0, 4.0]


def test_what_each_layer_has_of_its_own_is_a_dash_over_its_bar() -> None:
    cells = tuple(Cell(k, f"block {k}", Estimate(0.3), 1.0, baselines=(("random mask", 0.1 * k),)) for k in (1, 2))
    view_ = _view(metric="jaccard", baselines=(), curves=(Curve("bert", "BERT", None, cells, None),))
    info = bars_info(view_, COLORS)
    assert info.series[0].floors == (
        FloorInfo(1.0, pytest.approx(0.1), "BERT, block 1, random mask: 0.100", "line-ew"),
        FloorInfo(2.0, pytest.approx(0.2), "BERT, block 2, random mask: 0.200", "line-ew"),
    )
    bar, rim, dash = sorted(drawn(bars_figure(info)).data, key=lambda trace: trace.type)
    assert (dash.marker.symbol, dash.offsetgroup) == (("line-ew", "line-ew"), bar.offsetgroup)
    assert list(dash.y) == list(rim.y) and dash.marker.line.width < rim.marker.line.width
    assert "– random mask, each layer's own" in signs([view_])


@pytest.mark.parametrize("x", ["layer", "depth"])
def test_chances_of_one_bar_look_each_its_own_way_and_the_legend_names_them(x: str) -> None:
    chances = (("swapped masks", 0.2), ("random mask", 0.1))
    cells = tuple(Cell(k, f"block {k}", Estimate(0.3), k / 2, baselines=chances) for k in (1, 2))
    view_ = _view(metric="jaccard", baselines=(), curves=(Curve("bert", "BERT", None, cells, None),))
    *_, rim, sign = drawn(bars(view_, COLORS, x)).data
    assert rim.marker.symbol == sign.marker.symbol == ("x-thin", "line-ew") * 2
    assert signs([view_])[-2:] == ["– random mask, each layer's own", "× swapped masks, each layer's own"]
    alone = replace(view_.curves[0], cells=tuple(replace(cell, baselines=chances[:1]) for cell in cells))
    assert signs([replace(view_, curves=(alone,))]) == ["× swapped masks, each layer's own"], "the same in every chart"


def test_chances_that_nobody_foresaw_look_unlike_those_beside_them() -> None:
    found = floors_of(["mine", "yours", "random mask"])
    assert found["random mask"] == floors_of(KNOWN_FLOORS)["random mask"] and len(set(found.values())) == 3
    assert len({*floors_of(KNOWN_FLOORS).values()}) == len(KNOWN_FLOORS)
    one, other = (_view(curves=(_curve_on(name),), baselines=()) for name in ("mine", "yours"))
    assert signs([one, other]) == ["– mine or yours, each layer's own"], "in two charts they may look alike"


def _curve_on(baseline: str) -> Curve:
    return Curve("bert", "BERT", None, (Cell(1, "block 1", Estimate(0.3), baselines=((baseline, 0.1),)),), None)


def test_an_empty_view_is_a_figure_too() -> None:
    assert drawn(bars(_view(curves=(), baselines=()), COLORS)).data == ()


def test_names_are_text() -> None:
    nasty = "<a href='https://x'>x</a> & %{y}"
    shown = board([result(Model("m", nasty), SHIFT, task_title=nasty)])
    found = view(shown, "bigram_shift")
    assert found
    figure = drawn(bars(found, inks_of(shown)))
    assert "<a" not in figure.to_json().replace("\\u003c", "<")
    assert figure.layout.title.text == "&lt;a href='https://x'&gt;x&lt;/a&gt; &amp; %{y}"


def test_what_a_study_says_of_itself_stands_under_the_title() -> None:
    figure = drawn(bars(_view(note="<made up>"), COLORS))
    assert figure.layout.title.subtitle.text == "&lt;made up&gt;"


def test_a_long_word_on_the_study_is_broken_into_lines() -> None:
    said = "These are stand-ins, and their figures say nothing of what they stand in for, " * 3
    for wide in (False, True):
        figure = drawn(bars(_view(note=said), COLORS, wide=wide))
        lines = figure.layout.title.subtitle.text.split("<br>")
        assert " ".join(lines) == said.strip() and NOTE_WIDTH / 2 < max(map(len, lines)) <= NOTE_WIDTH
        assert figure.layout.margin.t > 12 + 15 + 14 * len(lines), "it ends above the highest tick"
    long, _ = heading("Likeness to BERT's layers: CLIP text (ResNet), untrained", "")
    assert long["text"] == "Likeness to BERT's layers: CLIP text<br>(ResNet), untrained"
