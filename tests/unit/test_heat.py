"""Heat maps hold the numbers of the runs."""

from __future__ import annotations

import plotly.graph_objects as go

from clipstudy.dashboard import heat
from clipstudy.outcome import Estimate, Result
from clipstudy.results import sheets, writers
from clipstudy.results.boards import board, view
from clipstudy.results.likeness import Likeness, likenesses
from clipstudy.results.views import View
from tests.made_up import BERT, Model, Task, result

LIKE = Task("like_bert", "Likeness", "similarity", "cka")
GPT2 = Model("gpt2", "GPT-2", blocks=1)
TWIN = Model("gpt2-untrained", "GPT-2, untrained", "gpt2", blocks=1, inits=2)
VALUES = {(0, 0): 0.5, (0, 1): 0.25, (1, 0): 0.125, (1, 1): 0.75}


def compared(model: Model, add: float = 0.0, init: int = 0) -> list[Result]:
    found = []
    for layer in (0, 1):
        row = {j: VALUES[layer, j] + add for j in (0, 1)}
        metrics = {f"cka/{j}": Estimate(v, v - 0.01, v + 0.01) for j, v in row.items()}
        metrics |= {"cka": Estimate(max(row.values())), "nearest": Estimate(layer), "native/cka/0": Estimate(0.1)}
        one = result(model, LIKE, layer, metrics, init)
        found.append(Result(**{**vars(one), "params": {"reference": "bert"}}))
    return found


def seen(results: list[Result]) -> tuple[View, list[Likeness]]:
    shown = board([*results, result(BERT)], ("gpt2",))
    found = view(shown, LIKE.name)
    assert found
    return found, likenesses(found, shown)


def test_a_map_is_what_the_runs_recorded() -> None:
    _, (found,) = seen(compared(GPT2))
    assert (found.model, found.reference, found.layers, found.others) == ("GPT-2", "BERT", (0, 1), (0, 1))
    assert heat.info(found) == heat.HeatInfo(
        title="Likeness: GPT-2",
        x_title="layer of BERT (block; 0 = embedding)",
        y_title="layer (block; 0 = embedding)",
        x=["0", "1"],
        y=["0", "1"],
        z=[[0.5, 0.25], [0.125, 0.75]],
        texts=[
            ["GPT-2, layer 0 · BERT, layer 0: 0.500 ± 0.010", "GPT-2, layer 0 · BERT, layer 1: 0.250 ± 0.010"],
            ["GPT-2, layer 1 · BERT, layer 0: 0.125 ± 0.010", "GPT-2, layer 1 · BERT, layer 1: 0.750 ± 0.010"],
        ],
        nearest=[(0, 0), (1, 1)],
    )
    drawn = go.Figure(heat.figure(heat.info(found)))
    assert [list(row) for row in drawn.data[0].z] == [[0.5, 0.25], [0.125, 0.75]]
    assert (drawn.data[0].zmin, drawn.data[0].zmax) == (0, 1), "all maps on one scale"
    assert [(s.x0, s.y0) for s in drawn.layout.shapes] == [(-0.5, -0.5), (0.5, 0.5)]


def test_its_table_holds_the_same_numbers() -> None:
    _, (found,) = seen(compared(GPT2))
    sheet = sheets.likeness(found)
    assert sheet.head == ("layer", "0 (embedding)", "1")
    assert [[(e.value, e.bold) for e in entries] for _, entries in sheet.lines] == [
        [(0.5, True), (0.25, False)],
        [(0.125, False), (0.75, True)],
    ]


def test_a_twins_initialisations_are_pooled() -> None:
    _, (found,) = seen([*compared(TWIN), *compared(TWIN, 0.1, init=1)])
    cell = found.cells[0][0]
    assert cell and round(cell.value, 6) == 0.55 and cell.low is not None and cell.low < 0.5


def test_a_layer_of_the_reference_that_one_run_lacks() -> None:
    gone = compared(GPT2)
    gone[1] = Result(**{**vars(gone[1]), "metrics": {k: v for k, v in gone[1].metrics.items() if k != "cka/1"}})
    _, (found,) = seen(gone)
    info = heat.info(found)
    assert info.z[1] == [0.125, None] and info.texts[1][1].endswith("not measured") and info.nearest[1] == (0, 1)


def test_a_model_is_compared_with_the_others_alone() -> None:
    """Its likeness to itself is 1 whatever it learnt; as a map it is still of interest."""
    shown = board([*compared(BERT), *compared(GPT2)])
    found = view(shown, LIKE.name)
    assert found and [curve.family for curve in found.curves] == ["gpt2"] and "BERT" in writers.caption(found)
    assert [one.family for one in likenesses(found, shown)] == ["bert", "gpt2"]
    alone = board(compared(BERT))
    found = view(alone, LIKE.name)
    assert found and [curve.family for curve in found.curves] == ["bert"], "where nothing else is there yet"
    both = view(shown, LIKE.name)
    assert both and [curve.family for curve in sheets.only(both, ["bert"]).curves] == ["bert"]


def test_no_map_where_layers_were_not_compared() -> None:
    shown = board([result()])
    found = view(shown, "bigram_shift")
    assert found and likenesses(found, shown) == []
