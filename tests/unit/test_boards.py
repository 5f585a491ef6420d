"""Which results count, how they are pooled and averaged, and how tables leave the house."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipstudy import metrics
from clipstudy.dashboard import panels, report_panels
from clipstudy.dashboard.address import Layers
from clipstudy.dashboard.inks import inks_of
from clipstudy.dashboard.pages import layers
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.report_panels import Asked
from clipstudy.outcome import Estimate, Result
from clipstudy.results import boards, sheets, units, views, writers
from clipstudy.results.boards import board, newest, view
from clipstudy.results.pooling import average, pooled
from clipstudy.results.units import INTERVAL, Z, around, half_width, standard_error
from clipstudy.results.views import Cell, Curve, View
from clipstudy.spec import WHOLE_MODEL
from tests.browser.served import desk
from tests.made_up import BERT, MODELS, SHIFT, Model, Task, result, results

TWIN = Model("bert-untrained", "BERT, untrained", "bert")
DEPTH = Task("tree_depth", "Tree depth", "syntactic")


def test_only_the_newest_settings_count() -> None:
    old = [result(layer=k, digest="old", ended="2026-11-01T00:00:00+00:00") for k in range(13)]
    new = [result(layer=k, digest="new", ended="2026-11-02T00:00:00+00:00") for k in range(2)]
    kept, older = newest([*new, *old])
    assert kept == new and older == [("bert", "bigram_shift", "older settings (old)", 13)]
    notes = board([*old, *new]).notes
    assert "bert · bigram_shift: 13 results of older settings (old) not shown" in notes
    assert "bert · bigram_shift: no result yet for layers 2–12" in notes


def test_newest_is_what_began_last_not_what_ended_last() -> None:
    """Older settings at work when newer ones were enqueued may end after these."""
    slow = [result(layer=k, digest="old", started="2026-11-01T08", ended="2026-11-01T20") for k in range(2)]
    new = [result(layer=k, digest="new", started="2026-11-01T10", ended="2026-11-01T11") for k in range(2)]
    assert newest([*slow, *new])[0] == new


def test_settings_that_were_put_back_and_run_again_are_newest() -> None:
    again = result(layer=3, digest="old", ended="2026-11-03T00:00:00+00:00")
    kept, _ = newest(
        [result(layer=0, digest="old", ended="2026-11-01"), result(digest="new", ended="2026-11-02"), again]
    )
    assert [r.layer for r in kept] == [0, 3]


def test_one_curve_is_of_one_checkpoint() -> None:
    """After a rerun that found other weights and stopped half way, and of the same data throughout."""
    old = [result(layer=k, ended="2026-11-01") for k in range(13)]
    again = result(layer=7, ended="2026-11-02")
    new = replace(again, params=again.params | {"resolved.checkpoint": "beef"})
    kept, older = newest([*old, new])
    assert kept == [new] and older == [("bert", "bigram_shift", f"another checkpoint ({'0123abcd' * 5})", 13)]
    other = replace(again, params=again.params | {"resolved.data": "e"})
    assert newest([*old, other])[1] == [("bert", "bigram_shift", f"other data ({'f' * 64})", 13)]
    assert newest([*old, again])[0] == [*old, again], "the same once more"


def test_the_best_and_what_cannot_be_told_from_it() -> None:
    best, near = Cell(1, "1", Estimate(0.80, 0.77, 0.83)), Cell(2, "2", Estimate(0.77, 0.74, 0.80))
    far, bare = Cell(3, "3", Estimate(0.75, 0.72, 0.78)), Cell(4, "4", Estimate(0.80))
    assert math.hypot(0.03, 0.03) < 0.05, "the intervals overlap all the same"
    assert [views.is_near(best, cell, "accuracy") for cell in (best, near, far, bare)] == [True, True, False, False]
    assert views.is_near(far, best, "accuracy"), "what is better than what dev chose"
    assert not views.is_near(far, best, "mse") and not views.is_near(None, best, "accuracy")


def test_a_grid_puts_in_bold_what_cannot_be_told_from_the_best() -> None:
    values = {0: (0.6, 0.02), 1: (0.61, 0.02), 2: (0.5, 0.02)}
    runs = [result(layer=k, metrics={"accuracy": Estimate(v, v - h, v + h)}) for k, (v, h) in values.items()]
    found = view(board(runs), "bigram_shift")
    assert found
    _, body = writers.grid(found)
    assert [cells[0][1] for _, cells in body[:3]] == [True, True, False]
    assert [row.best for row in writers.rows(found)] == [False, True, False], "the best layer is one"


def test_a_baseline_is_of_what_it_measures_whatever_the_headline() -> None:
    """A majority class of two halves has an accuracy of 0.5, and a macro F1 of 0.33."""
    metrics = {"accuracy": Estimate(0.8), "macro_f1": Estimate(0.79), "baseline/majority": Estimate(0.5)}
    shown = board([result(layer=1, metrics=metrics, metric="macro_f1", kind="classify")])
    headline, accuracy = view(shown, SHIFT.name), view(shown, SHIFT.name, "accuracy")
    assert headline and headline.metric == "macro_f1" and headline.baselines == ()
    assert accuracy and accuracy.baselines == (("majority class", 0.5),)


def test_what_only_describes_has_no_best_layer() -> None:
    task = Task("drawn", "What excites", "visualisation", "high_frequency")
    runs = [result(task=task, layer=k, metrics={"high_frequency": Estimate(0.1 * k)}) for k in (1, 2)]
    shown = board(runs)
    found = view(shown, "drawn")
    assert found and found.curves[0].best is None and found.curves[0].chosen is None
    assert not any(best for _, cells in writers.grid(found)[1] for _, best in cells)
    assert "bold" not in writers.said(found)
    assert sheets.glance(shown) == []
    sheet = sheets.best([found])
    assert sheet.lines == () and "neither higher nor lower is better: What excites" in sheet.said


def test_a_view_of_one_task() -> None:
    metrics = {"accuracy": Estimate(0.8, 0.7, 0.9), "items/test": Estimate(500), "baseline/majority": Estimate(0.5)}
    shown = board([result(layer=0, metrics=metrics), result(layer=12, metrics=metrics | {"one_class": Estimate(0.2)})])
    found = view(shown, "bigram_shift")
    assert found is not None
    [curve] = found.curves
    assert curve.cells == (
        Cell(0, "embedding", Estimate(0.8, 0.7, 0.9), 0.0, 500),
        Cell(12, "block 12", Estimate(0.8, 0.7, 0.9), 1.0, 500, one_class=True),
    )
    assert curve.missing == tuple(range(1, 12)) and curve.best == 0
    assert found.baselines == (("majority class", 0.5),) and found.title == "Bigram shift"
    assert view(shown, "bigram_shift", "native/accuracy") is None and view(shown, "no such task") is None


def test_an_arm_has_its_own_baselines_and_flags() -> None:
    metrics = {
        "nmi": Estimate(0.5),
        "multi/nmi": Estimate(0.4),
        "ami": Estimate(0.3),
        "multi/one_class": Estimate(1.0),
        "baseline/random": Estimate(0.01),
        "multi/baseline/random": Estimate(0.02),
    }
    shown = board([result(task=Task("phrases", "Phrases", "phrase", "nmi"), metrics=metrics)])
    headline, arm, other = (view(shown, "phrases", m) for m in (None, "multi/nmi", "ami"))
    assert headline and arm and other
    assert (headline.baselines, arm.baselines, other.baselines) == (
        (("random clusters", 0.01),),
        (("random clusters", 0.02),),
        (),
    )
    assert not headline.curves[0].cells[0].one_class and arm.curves[0].cells[0].one_class


def test_what_differs_from_layer_to_layer_has_no_line_for_all() -> None:
    """As chance has for a map: it depends on how large an area the map takes."""
    task = Task("attention", "Attention", "attention", "jaccard")
    found = [
        result(task=task, layer=k, layers="1,2", metrics={
            "jaccard": Estimate(value), "baseline/random_mask": Estimate(chance), "baseline/centre": Estimate(middle),
        })
        for k, value, chance, middle in ((1, 0.28, 0.30, 0.200), (2, 0.25, 0.10, 0.202))
    ]  # fmt: skip
    one = view(board(found), task.name)
    assert one and one.baselines == (("centre", pytest.approx(0.201)),)
    assert [cell.baselines for cell in one.curves[0].cells] == [(("random mask", 0.3),), (("random mask", 0.1),)]
    first, second = one.curves[0].cells
    assert views.floor_of(one, first) == ("random mask", 0.3)
    assert views.floor_of(one, second) == one.baselines[0]
    assert dict(writers.grid(one)[1])["random mask"] == [("0.100–0.300", False)]


def test_no_model_is_judged_by_what_the_measuring_itself_reaches() -> None:
    task = Task("pixels", "Pixels", "reconstruction", "mse")
    floors = {"baseline/mean_image": Estimate(0.08), "baseline/raw_pixels": Estimate(0.01)}
    found = view(board([result(task=task, layer=1, metrics={"mse": Estimate(0.05), **floors})]), task.name)
    assert found and dict(found.baselines) == {"mean image": 0.08, views.CEILING: 0.01}
    assert views.floor_of(found) == ("mean image", 0.08)


def test_intervals_over_seeds_alone_are_told() -> None:
    task = Task("phrases", "Phrases", "phrase", "nmi")
    for samples, said in ((1, "One sample of spans: the intervals cover k-means seeds only."), (5, "")):
        rows = [result(task=task, metrics={"nmi": Estimate(0.4, 0.39, 0.41), "samples": Estimate(samples)})]
        found = view(board(rows), task.name)
        assert found and found.caption == said


def test_the_best_layer_is_chosen_on_the_development_set() -> None:
    scores = {0: (0.80, 0.90), 1: (0.85, 0.70), 2: (0.85, 0.60)}
    rows = [
        result(layer=k, metrics={"accuracy": Estimate(test), "dev_accuracy": Estimate(dev)})
        for k, (test, dev) in scores.items()
    ]
    found = view(board(rows), "bigram_shift")
    assert found and found.curves[0].best == 0
    without = [result(layer=k, metrics={"accuracy": Estimate(test)}) for k, (test, _) in scores.items()]
    found = view(board(without), "bigram_shift")
    assert found and found.curves[0].best == 1, "the first of equals"


def test_the_best_layer_of_an_average_is_chosen_there_too() -> None:
    scores = {0: (0.80, 0.90), 1: (0.85, 0.70), 2: (0.85, 0.60)}
    rows = [
        result(task=task, layer=k, metrics={"accuracy": Estimate(test), "dev_accuracy": Estimate(dev)})
        for task in (SHIFT, DEPTH)
        for k, (test, dev) in scores.items()
    ]
    parts = [found for task in (SHIFT, DEPTH) if (found := view(board(rows), task.name))]
    mean, _ = average(parts, "Both")
    assert mean and mean.curves[0].best == 0
    bare = replace(parts[1], curves=tuple(replace(curve, dev={}) for curve in parts[1].curves))
    mean, _ = average([parts[0], bare], "Both")
    assert mean and mean.curves[0].best == 1, "one task has none"


def test_an_average_has_the_mean_of_what_each_layer_has_of_its_own() -> None:
    chance = [Cell(1, "1", Estimate(0.3), baselines=(("random mask", value),)) for value in (0.1, 0.2)]
    parts = [_view(name, Curve("bert", "BERT", None, (cell,), None)) for name, cell in zip("ab", chance, strict=True)]
    mean, _ = average(parts, "Both")
    assert mean and mean.curves[0].cells[0].baselines == (("random mask", pytest.approx(0.15)),)


def test_lower_is_better_for_errors() -> None:
    task = Task("reconstruction", "Reconstruction", "pixels", "mse")
    found = view(board([result(task=task, layer=k, metrics={"mse": Estimate(k + 1.0)}) for k in range(3)]), task.name)
    assert found and found.curves[0].best == 0


def test_initialisations_of_a_twin_are_pooled() -> None:
    values = (0.60, 0.62, 0.67)
    se = 0.01
    rows = [
        result(TWIN, layer=0, init=i, metrics={"accuracy": Estimate(v, v - Z * se, v + Z * se)})
        for i, v in enumerate(values)
    ]
    found = view(board(rows), "bigram_shift")
    assert found
    [curve] = found.curves
    [cell] = curve.cells
    assert (curve.family, curve.twin_of, cell.inits) == ("bert-untrained", "bert", 3)
    between = 0.0013 / 3  # the sample variance of the three values
    free = (between + se**2) ** 2 / (between**2 / 2)
    assert 3 < free < 3.1
    half = stats.t.ppf(0.975, free) * math.sqrt(between + se**2)
    assert (cell.estimate.value, cell.estimate.low, cell.estimate.high) == pytest.approx(
        (0.63, 0.63 - half, 0.63 + half)
    )


def test_pooled_intervals_hold_the_truth() -> None:
    """Nominal 95% intervals of three initialisations, whose spread exceeds what a single run knows of itself."""
    rng = np.random.default_rng(0)
    held: list[bool] = []
    for shift, values in zip(rng.normal(0, 0.01, 2000), rng.normal(0.5, 0.03, (2000, 3)), strict=True):
        found = pooled([Estimate(v + shift, v + shift - Z * 0.01, v + shift + Z * 0.01) for v in values], "accuracy")
        assert found.low is not None and found.high is not None
        held.append(found.low <= 0.5 <= found.high)
    assert 0.9 < sum(held) / len(held) < 0.99  # of those of a normal distribution 87 in 100 do


def test_one_estimate_is_not_touched() -> None:
    lopsided = Estimate(0.5, 0.1, 0.6)
    assert pooled([lopsided], "accuracy") is lopsided


def test_shares_of_all_or_none_are_pooled_and_averaged_within_0_and_1() -> None:
    """As wide as a difference of two such shares is taken to be, and no wider than a share can be."""
    rows = [
        result(TWIN, task, layer=0, init=i, metrics={"accuracy": Estimate(v, v, v), "items/test": Estimate(10)})
        for task, v in ((SHIFT, 1.0), (DEPTH, 0.0))
        for i in range(2)
    ]
    views = [found for task in (SHIFT, DEPTH) if (found := view(board(rows), task.name))]
    every, none = (found.curves[0].cells[0].estimate for found in views)
    share = metrics.share_interval(10, 10)
    assert (every.value, every.low, every.high) == pytest.approx(share)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 1 - share.low))
    error = metrics.not_certain(metrics.Difference(0, 0, 0, 1, 0), 10, 0).error
    assert [standard_error(e) for e in (every, none)] == pytest.approx([error, error], rel=1e-5)
    mean, _ = average([views[0], replace(views[0], title="again")], "All")
    assert mean is not None
    both = mean.curves[0].cells[0].estimate
    assert both.high == 1 and standard_error(both) == pytest.approx(error / math.sqrt(2), rel=1e-5)
    assert around(0.9, 0.1, "nmi").high == pytest.approx(0.9 + Z * 0.1), "not all that is measured ends at 1"


def test_what_a_twins_initialisations_have_in_common_is_not_averaged_away() -> None:
    """The same three are behind each task: five tasks do not make them fifteen."""
    tasks = [Task(f"task{k}", f"Task {k}", "semantic") for k in range(5)]
    offsets = (-0.03, 0.01, 0.02)
    rows = [
        result(TWIN, task, 1, {"accuracy": Estimate(v, v - Z * 0.001, v + Z * 0.001)}, init)
        for task in tasks
        for init, offset in enumerate(offsets)
        if (v := 0.5 + offset)
    ]
    shown = board(rows)
    mean, _ = average([found for task in tasks if (found := view(shown, task.name))], "Semantic")
    assert mean is not None
    found = mean.curves[0].cells[0].estimate
    within = 0.001 / math.sqrt(5)
    alone = pooled([Estimate(0.5 + o, 0.5 + o - Z * within, 0.5 + o + Z * within) for o in offsets], "accuracy")
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert half_width(found) > 0.06, "Student's at two degrees of freedom"


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6), st.floats(0, 0.05))
def test_pooling_never_narrows_below_one_run(values: list[float], se: float) -> None:
    """The items are shared: more initialisations do not make them more."""
    found = pooled([Estimate(v, v - Z * se, v + Z * se) for v in values], "accuracy")
    width = standard_error(found)
    assert width is not None and width >= se - 1e-9
    assert min(values) - 1e-9 <= found.value <= max(values) + 1e-9


def _view(task: str, *curves: Curve, metric: str = "accuracy", baselines: tuple[tuple[str, float], ...] = ()) -> View:
    return View(task, task.title(), "syntactic", metric, "text", curves, baselines)


def _curve(family: str, *estimates: Estimate, first: int = 0) -> Curve:
    cells = tuple(Cell(k, f"block {k}", e, k / 12) for k, e in enumerate(estimates, first))
    return Curve(family, family.upper(), None, cells, None)


def test_the_average_of_a_category() -> None:
    a = _view(
        "a", _curve("bert", Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.8)), baselines=(("majority class", 0.2),)
    )
    b = _view("b", _curve("bert", Estimate(0.9, 0.8, 1.0)), baselines=(("majority class", 0.4), ("human", 1.0)))
    mean, notes = average([a, b], "Syntactic")
    assert mean is not None and notes == ()
    other, _ = average([b, a], "Syntactic")
    assert other is not None and other.baselines == mean.baselines, "a baseline that not all have, whichever is first"
    [curve] = mean.curves
    assert [cell.layer for cell in curve.cells] == [0], "only layers that both tasks have"
    estimate = curve.cells[0].estimate
    assert estimate.value == pytest.approx(0.7)
    half = half_width(estimate)
    assert half == pytest.approx(math.sqrt(0.1**2 + 0.1**2) / 2)
    assert mean.baselines == (("majority class", pytest.approx(0.3)),) and mean.caption == "Mean of A, B."


def test_only_tasks_that_every_model_has_are_averaged() -> None:
    e = Estimate(0.5)
    views = [
        _view("a", _curve("bert", e), _curve("gpt2", e)),
        _view("b", _curve("bert", e), _curve("gpt2", e)),
        _view("c", _curve("bert", e)),
        _view("d", _curve("bert", e), metric="nmi"),
    ]
    mean, notes = average(views, "Syntactic")
    assert mean is not None and mean.caption == "Mean of A, B."
    assert notes == (
        "D: measured as NMI, not in the average",
        "C: not in the average, as some models have no result yet",
    )
    assert mean.curves[0].cells[0].estimate == e, "no interval where a part has none"
    assert average(views[:1], "One") == (None, ())
    assert average([], "None") == (None, ())


def test_a_twin_that_lacks_a_task_does_not_keep_the_models_from_their_average() -> None:
    e = Estimate(0.5)
    twin = replace(_curve("bert-untrained", e), twin_of="bert", title="BERT, untrained")
    views = [_view("a", _curve("bert", e), twin), _view("b", _curve("bert", e))]
    mean, notes = average(views, "Syntactic")
    assert mean is not None and [curve.family for curve in mean.curves] == ["bert"]
    assert notes == ("BERT, untrained: not in the average, as some tasks have no result of it yet",)
    both, notes = average([views[0], _view("b", _curve("bert", e), twin)], "Syntactic")
    assert both is not None and [curve.family for curve in both.curves] == ["bert", "bert-untrained"] and notes == ()


def test_models_come_in_the_order_asked_for_twins_after_their_models() -> None:
    shown = board(results(tasks=[SHIFT]), order=["gpt2", "clip*"])
    assert shown.families == (
        "gpt2",
        "gpt2-untrained",
        "clip-text",
        "clip-text-untrained",
        "bert",
        "bert-untrained",
    )
    found = view(shown, "bigram_shift")
    assert found and tuple(curve.family for curve in found.curves) == shown.families


RESNET = Model("resnet", "ResNet"), Model("resnet-untrained", "ResNet, untrained", "resnet")


@pytest.mark.parametrize("order", [("rn50*", "vit"), ("resnet", "*"), ("vit", "*-untrained", "resnet")])
def test_a_twin_is_behind_its_model_whichever_pattern_takes_either(order: tuple[str, ...]) -> None:
    """By its part, which a twin does not play, or by a later or an earlier pattern that takes the twin's own name."""
    resnet, twin = (result(model) for model in RESNET)
    roles = replace(resnet, tags=resnet.tags | {"role": "rn50"}), twin
    runs = [*roles, *(result(Model(name, name)) for name in ("a", "vit", "z"))]
    shown = board(runs, order)
    assert shown.families[shown.families.index("resnet") + 1] == "resnet-untrained"
    found = view(shown, SHIFT.name)
    assert found and tuple(curve.family for curve in found.curves) == shown.families
    alone = board([twin, *runs[2:]], order)
    assert "resnet-untrained" in alone.families, "without its model, it has a place, too"


def test_a_twin_is_behind_its_own_studys_model() -> None:
    shown = board([result(model, study=study) for study in ("paper", "pocket") for model in RESNET])
    found = view(shown, SHIFT.name)
    assert found and [(curve.study, bool(curve.twin_of)) for curve in found.curves] == [
        ("paper", False),
        ("paper", True),
        ("pocket", False),
        ("pocket", True),
    ]


def _of_two_tasks() -> list[Result]:
    """The first task has no result of BERT's twin, and the second none of BERT."""
    return [result(BERT), result(MODELS[1]), result(TWIN, DEPTH), result(MODELS[1], DEPTH)]


def test_models_of_several_tasks_come_in_one_order() -> None:
    shown = board(_of_two_tasks())
    found = [one for task in (SHIFT, DEPTH) if (one := view(shown, task.name))]
    assert [curve.family for curve in views.models_of(found)] == ["bert", "bert-untrained", "gpt2"]
    assert sheets.best(found).head == ("task", "BERT", "BERT, untrained", "GPT-2")


def test_a_legend_has_a_twin_behind_its_model() -> None:
    dashboard = Dashboard("D", (Panel("P", (SHIFT.name, DEPTH.name)),))
    shown = board(_of_two_tasks())
    panel = dashboard.panels[0]
    asked = Asked(panel, panels.views(panel, shown), shown, inks_of(shown), "p", None)
    of_report = re.findall(r"</span>([^<]+)</li>", report_panels.drawn(asked))
    page = layers.body(Layers(), desk(_of_two_tasks(), dashboard))
    legend = next(part for part in page.body if getattr(part, "className", "") == "legend")
    of_page = [item.children[1] for item in legend.children if isinstance(item.children, list)]
    assert of_report == of_page == ["BERT", "BERT, untrained", "GPT-2"]


def test_two_studies_do_not_mix() -> None:
    shown = board([result(), result(study="pocket", metrics={"accuracy": Estimate(0.1)})])
    found = view(shown, "bigram_shift")
    assert found and [(c.title, c.cells[0].estimate.value) for c in found.curves] == [
        ("paper: BERT", 0.75),
        ("pocket: BERT", 0.1),
    ]


def _two_studies(one: float, other: float) -> list[Result]:
    """BERT on two tasks in two studies; each study has its own sample of the data, so its own majority class."""
    return [
        result(
            task=task,
            layer=layer,
            study=study,
            layers="0,1",
            metrics={"accuracy": Estimate(value + 0.01 * layer), "baseline/majority": Estimate(value / 2)},
        )
        for task, gap in ((SHIFT, 0.0), (DEPTH, 0.1))
        for study, value in (("paper", one + gap), ("pocket", other + gap))
        for layer in (0, 1)
    ]


def test_an_average_keeps_studies_apart() -> None:
    shown = board(_two_studies(0.8, 0.2))
    views = [found for task in shown.tasks if (found := view(shown, task))]
    mean, notes = average(views, "Syntactic")
    assert mean and notes == ()
    assert [(c.study, c.title, [cell.estimate.value for cell in c.cells]) for c in mean.curves] == [
        ("paper", "paper: BERT", pytest.approx([0.85, 0.86])),
        ("pocket", "pocket: BERT", pytest.approx([0.25, 0.26])),
    ]
    assert mean.baselines == (
        ("paper: majority class", pytest.approx(0.425)),
        ("pocket: majority class", pytest.approx(0.125)),
    )


def test_a_task_that_one_study_lacks_is_not_averaged() -> None:
    found = _two_studies(0.8, 0.2)
    lacking = board([r for r in found if (r.study, r.task) != ("pocket", "tree_depth")])
    views = [v for task in lacking.tasks if (v := view(lacking, task))]
    assert average(views, "Syntactic") == (None, ("Tree depth: not in the average, as some models have no result yet",))


def test_baselines_are_each_studys_own() -> None:
    found = view(board(_two_studies(0.8, 0.2)), "bigram_shift")
    assert found and found.baselines == (("paper: majority class", 0.4), ("pocket: majority class", 0.1))
    alone = view(board([r for r in _two_studies(0.8, 0.2) if r.study == "pocket"]), "bigram_shift")
    assert alone and alone.baselines == (("majority class", 0.1),)


def test_a_gap_in_one_study_is_not_filled_by_another() -> None:
    whole = _two_studies(0.8, 0.2)
    gone = [r for r in whole if (r.study, r.task, r.layer) != ("pocket", "tree_depth", 1)]
    assert board(whole).notes == ()
    assert board(gone).notes == ("pocket: bert · tree_depth: no result yet for layer 1",)


def test_clusterings_say_how_many_spans_they_are_scored_on() -> None:
    metrics = {"nmi": Estimate(0.4), "spans": Estimate(16_556), "items/test": Estimate(1999.5)}
    found = view(board([result(task=Task("phrases", "Phrases", "phrase", "nmi"), metrics=metrics)]), "phrases")
    assert found and writers.grid(found)[1][-1] == ("test items", [("2,000", False)])


@pytest.mark.parametrize(
    ("estimate", "metric", "text"),
    [
        (Estimate(0.8534, 0.8464, 0.8604), "accuracy", "85.3 ± 0.7"),
        (Estimate(0.8534), "native/accuracy", "85.3"),
        (Estimate(0.1234, 0.1134, 0.1334), "nmi", "0.123 ± 0.010"),
        (Estimate(21.5, 21.0, 22.0), "psnr", "21.50 ± 0.50"),
        (Estimate(1.0, 0.9638, 1.0), "accuracy", "100.0 [96.4, 100.0]"),
        (Estimate(0.0, 0.0, 0.0362), "accuracy", "0.0 [0.0, 3.6]"),
        (Estimate(0.5, 0.45, 0.56), "accuracy", "50.0 ± 5.5"),
        (Estimate(0.9994, 0.9986, 0.9996), "accuracy", "99.9 ± 0.1"),
        (Estimate(2.0), "epochs", "2.000"),
    ],
)
def test_values_as_people_read_them(estimate: Estimate, metric: str, text: str) -> None:
    assert units.shown_value(estimate, metric) == text


# -- writers -----------------------------------------------------------------------------------------------------

NASTY = '=cmd|"/c calc"!A1 & 50% <b>_x_</b> | \\ {y} ~^#$ †\n'


def _shown() -> View:
    cells = (
        Cell(0, "embedding", Estimate(0.5, 0.45, 0.55), 0.0, 1000, one_class=True),
        Cell(1, "block 1", Estimate(0.8, 0.75, 0.85), 0.5, 1002),
    )
    other = (Cell(1, "block 1", Estimate(0.7), 0.5, 1000),)
    curves = (Curve("bert", "BERT", None, cells, 1), Curve("odd", NASTY, None, other, None))
    return View("shift", "Bigram shift", "syntactic", "accuracy", "text", curves)


def test_the_grid() -> None:
    header, body = writers.grid(_shown())
    assert header == ["BERT", NASTY]
    assert body == [
        ("0 (embedding)", [("50.0 ± 5.0†", False), ("—", False)]),
        ("1", [("80.0 ± 5.0", True), ("70.0", False)]),
        ("test items", [("1,000–1,002", False), ("1,000", False)]),
    ]


def test_csv_holds_raw_values_and_runs_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(writers.to_csv(_shown()))))
    assert [(r["family"], r["layer"], r["value"], r["low"], r["n"], r["best"]) for r in rows] == [
        ("bert", "0", "0.5", "0.45", "1000", "False"),
        ("bert", "1", "0.8", "0.75", "1002", "True"),
        ("odd", "1", "0.7", "", "1000", "False"),
    ]
    assert rows[2]["model"] == "'" + NASTY


def test_json_round_trip() -> None:
    rows = json.loads(writers.to_json(_shown()))
    assert len(rows) == 3 and rows[2]["model"] == NASTY and rows[2]["half_width"] is None
    assert rows[0]["one_class"] is True and rows[1]["half_width"] == pytest.approx(0.05)


def test_latex_is_escaped() -> None:
    text = writers.to_latex(_shown())
    assert r"\begin{tabular}{lrr}" in text and text.count(r"\toprule") == 1
    assert r"\textbf{80.0 $\pm$ 5.0}" in text and r"50.0 $\pm$ 5.0$\dagger$ & ---" in text
    assert r"\& 50\% \textless{}b\textgreater{}\_x\_" in text
    assert r"\textbackslash{} \{y\} \textasciitilde{}\textasciicircum{}\#\$ $\dagger$" in text
    assert all(line.count("&") - line.count(r"\&") == 2 for line in text.splitlines() if line.endswith(r"\\"))


def test_markdown_is_escaped() -> None:
    lines = writers.to_markdown(_shown()).splitlines()
    assert lines[0].startswith(f"**Bigram shift**, accuracy (%), mean {INTERVAL}; bold: the model's best layer")
    assert r"\<b\>\_x\_\</b\> \| \\" in lines[2]
    assert lines[5] == "| 1 | **80.0 ± 5.0** | 70.0 |"


def test_whole_model_tasks() -> None:
    task = Task("boolq", "BoolQ", "downstream")
    rows = [result(task=task, layer=WHOLE_MODEL, layers="-1", layer_label="whole model", depth="")]
    found = view(board(rows), "boolq")
    assert found and found.curves[0].best is None and found.curves[0].cells[0].depth is None
    assert writers.grid(found)[1] == [("whole model", [("75.0 ± 5.0", False)])]
    assert average([found, found], "Downstream") == (None, ())


def test_ranges() -> None:
    assert units.ranges([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"


def test_bert_is_its_own_family() -> None:
    assert result(BERT, family="").family == "bert"


def test_what_a_study_says_of_itself_is_on_every_table() -> None:
    said = "Pocket models: 100% made up."
    found = view(board([result(note=said), result(MODELS[1], note=said)]), "bigram_shift")
    assert found is not None and found.note == said
    assert f"*{said}*" in writers.to_markdown(found)
    assert r"both ends]). Pocket models: 100\% made up.}" in writers.to_latex(found)
    assert {row["note"] for row in json.loads(writers.to_json(found))} == {said}
    assert view(board([result()]), "bigram_shift").note == ""  # type: ignore[union-attr]


def test_of_a_study_that_says_something_else_now_the_last_word_counts() -> None:
    old, new = result(note="Old.", ended="2026-11-01"), result(layer=1, note="New.", ended="2026-11-02")
    assert boards.note_of([new, old]) == "New."
    assert boards.note_of([new, result(study="other", note="Other.", ended="2026-10-01")]) in (
        "New. Other.",
        "Other. New.",
    )


def test_a_board_is_gone_through_once() -> None:
    """Pages ask for the same views again and again, of thousands of results."""
    shown = board(results(MODELS[:2]))
    assert view(shown, "bigram_shift") is view(shown, "bigram_shift")
    assert view(shown, "bigram_shift", "native/accuracy") is not view(shown, "bigram_shift")
    assert view(shown, "bigram_shift", "no such metric") is None
    assert "native/accuracy" in shown.metrics["bigram_shift"] and set(shown.by_task) == set(shown.tasks)


@pytest.mark.parametrize(("value", "ends"), [(1.0, (0.722, 1.0)), (0.0, (0.0, 0.278)), (0.5, (0.5, 0.5))])
def test_ten_of_ten_are_not_certain(value: float, ends: tuple[float, float]) -> None:
    """Where all draws of a bootstrap are equal since the share is 0 or 1; any other interval is as it was recorded."""
    found = {"accuracy": Estimate(value, value, value), "items/test": Estimate(10)}
    shown = view(board([result(BERT, SHIFT, 1, found)]), "bigram_shift")
    assert shown is not None
    told = shown.curves[0].cells[0].estimate
    assert (told.value, told.low, told.high) == pytest.approx((value, *ends), abs=1e-3)
    bare = result(BERT, SHIFT, 1, found | {"accuracy": Estimate(value)})
    assert boards.estimate(bare.metrics, "accuracy") == Estimate(value), "no interval was asked for"


def test_no_interval_of_a_share_goes_beyond_0_or_1() -> None:
    measured = {name: Estimate(0.97, 0.93, 1.01) for name in ("native/accuracy", "macro_f1", "nmi")}
    found = boards.estimates(measured)
    assert found["native/accuracy"] == found["macro_f1"] == Estimate(0.97, 0.93, 1.0)
    assert found["nmi"] == measured["nmi"], "only shares of items are cut"
    one = measured | {"accuracy": Estimate(1.0, 1.0, 1.0), "items/test": Estimate(10)}
    assert boards.estimates(one)["accuracy"] == boards.estimate(one, "accuracy") != one["accuracy"]


def test_a_glance_has_trained_models_at_their_best_layers_and_what_needs_none() -> None:
    without = {"baseline/majority": Estimate(0.5), "baseline/random": Estimate(0.6)}
    runs = [
        result(model, layer=layer, metrics=without | {"accuracy": Estimate(value, value - 0.01, value + 0.01)})
        for model, layer, value in ((BERT, 0, 0.7), (BERT, 4, 0.8), (TWIN, 0, 0.65))
    ]
    ((head, ((_, *cells),)),) = sheets.glance(board(runs))
    assert head == ["task", "BERT", "no model"]
    assert cells == ["80.0 ± 1.0 (4)", "60.0"]
