"""What a page, a terminal and a script are told of verdicts and of published numbers."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipstudy import claims, tasksfile
from clipstudy.dashboard import charts, report
from clipstudy.dashboard.inks import inks_of
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.series import bars_info
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Status
from clipstudy.metrics import Difference
from clipstudy.outcome import Estimate, Result
from clipstudy.published import Published
from clipstudy.results import boards, comparisons, evidence, sheets, verdicts, views
from clipstudy.results.planned import Planned
from clipstudy.tasks.parts import files
from tests.made_up import BERT, SHIFT, Model, Task, result

NUMBER = Published(
    "Some & Body 2020", "BERT", "tense", "accuracy", "percent", 80.0, "source", "same", "near", 1, role="bert"
)
TENSE = Task("tense", "Tense", "semantic")
POCKET = {"model.checkpoint": "package:clipstudy/pocket/checkpoints/bert"}


def measured(value: float = 0.79, layer: int = 1, model: Model = BERT, **tags: str) -> Result:
    return result(model, TENSE, layer, {"accuracy": Estimate(value, value - 0.01, value + 0.01)}, role="bert", **tags)


# -- verdicts --------------------------------------------------------------------------------------------------------


def pair(model: str, role: str, **more: object) -> Result:
    found = {"accuracy": Estimate(0.6, 0.55, 0.65)}
    cell = result(Model(model, model), Task("wic", "WiC", "pairs"), -1, found, role=role, layers="-1", kind="finetune")
    return replace(cell, **more)  # type: ignore[arg-type]


def predictions(right: list[list[bool]], arm: str = "both", other: bool = True) -> bytes:
    """As fine-tuning keeps them: an arm's columns a seed each, and those of another arm."""
    columns = {"id": [str(i) for i in range(len(right[0]))], "label": ["T"] * len(right[0])}
    for seed, row in enumerate(right):
        columns[f"{arm}/seed_{seed}"] = ["T" if said else "F" for said in row]
    if other:
        columns["second/seed_0"] = ["F"] * len(right[0])
    buffer = io.BytesIO()
    pq.write_table(pa.table({k: pa.array(v).dictionary_encode() for k, v in columns.items()}), buffer)
    return buffer.getvalue()


def test_only_the_headline_arm_is_scored() -> None:
    right = [[True, False, True, True], [True, True, True, True]]
    (one,) = evidence.measured([pair("c", "clip_text")], lambda run, name: predictions(right))
    assert one.scores is not None and one.scores.tolist() == [right]
    assert (one.layers, one.kind, len(one.items)) == ((-1,), "finetune", 4)


def test_one_model_may_play_several_parts() -> None:
    found = evidence.measured([pair("v", "gpt2 clip_text")], lambda run, name: predictions([[True, False]]))
    assert [(one.model, one.role) for one in found] == [("v", "clip_text"), ("v", "gpt2")]
    assert len(marks([replace(measured(), tags={**measured().tags, "role": "other bert"})], [NUMBER])) == 1


def test_an_untrained_twin_plays_no_role() -> None:
    twin = pair("c", "clip_text")
    twin = replace(twin, tags={**twin.tags, "init": "random"})
    assert evidence.measured([twin], lambda run, name: b"") == []


@pytest.mark.parametrize("content", [b"", b"no table", predictions([[True, False]])[:-9]])
def test_predictions_that_cannot_be_read_are_told_of(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (one,) = evidence.measured([pair("c", "clip_text")], lambda run, name: content)
    assert one.scores is None and "predictions.parquet cannot be read" in caplog.text


def test_a_server_that_is_away_is_not_taken_for_a_file_that_is_gone() -> None:
    def away(run: str, name: str) -> bytes:
        raise TrackingUnreachable

    def gone(run: str, name: str) -> bytes:
        raise ClipstudyError("kept none")

    with pytest.raises(TrackingUnreachable):
        evidence.measured([pair("c", "clip_text")], away)
    (one,) = evidence.measured([pair("c", "clip_text")], gone)
    assert one.scores is None and one.layers == (-1,) and not one.lost
    elsewhere = "The runs' files are not here. Copy that folder"
    (one,) = evidence.measured([pair("c", "clip_text")], gone, elsewhere)
    assert one.lost == elsewhere, "nothing need be measured again"


# What each kind keeps, as its own room writes it.


def kept(model: Model, kind: str, layer: int, metrics: dict[str, float], init: int = 0, **tags: str) -> Result:
    found = {name: Estimate(value) for name, value in metrics.items()}
    more = {"kind": kind, "layers": "0,1,2", "blocks": "2", **tags}
    made = result(model, Task("looked", "Looked", "image"), layer, found, init, **more)
    params = {"option.split": "test", "resolved.data": "sha256:1"}
    return replace(made, run_id=f"{made.model} {layer}", params=params)


def test_errors_of_images_are_read_with_their_floor_and_the_twins_of_all_initialisations() -> None:
    rng = np.random.default_rng(0)
    errors = {f"{model} {layer}": rng.random((2, 5)) for model in ("c", "t-0", "t-1") for layer in (1, 2)}
    floor = rng.random(5)

    def fetch(run: str, name: str) -> bytes:
        assert name == "images.parquet"
        seeds = {f"mse/seed_{seed}": row for seed, row in enumerate(errors[run])}
        return files.parquet({**seeds, "mse/mean_image": floor, "ssim/seed_0": floor})

    both = {"mse": 0.5, "baseline/mean_image": 0.5}
    own = [kept(Model("c", "C"), "reconstruct", layer, both, role="clip_rn50") for layer in (0, 1, 2)]
    untrained = Model("t", "C, untrained", twin_of="c")
    twins = [kept(untrained, "reconstruct", layer, both, init) for init in (0, 1) for layer in (1, 2)]
    found = {(one.role, one.metric): one for one in evidence.measured([*own, *twins], fetch)}
    assert set(found) == {(r, m) for r in ("clip_rn50", "untrained clip_rn50") for m in both} - {
        ("untrained clip_rn50", "baseline/mean_image")
    }
    loss, mean = found["clip_rn50", "mse"], found["clip_rn50", "baseline/mean_image"]
    assert loss.layers == mean.layers == (1, 2) and loss.items == mean.items and len(set(loss.items)) == 5
    assert loss.scores is not None and np.array_equal(loss.scores, [errors["c 1"], errors["c 2"]])
    assert mean.scores is not None and np.array_equal(mean.scores, [[floor]] * 2) and not mean.seeded
    twin = found["untrained clip_rn50", "mse"]
    assert (twin.model, twin.twin_of, twin.items, twin.seeded, twin.inits) == ("t", "c", loss.items, True, 2)
    assert twin.scores is not None and twin.scores.shape == (2, 2, 5)
    assert np.allclose(twin.scores[1], [errors["t-0 2"].mean(axis=0), errors["t-1 2"].mean(axis=0)])


def test_pictures_are_those_that_have_a_score() -> None:
    columns = {"row": [4, 7, 9], "label": ["a", "b", "a"], "jaccard": [0.5, float("nan"), 0.25],
               "best/edges": [0.1, 0.2, 0.3]}  # fmt: skip
    cells = [kept(Model("v", "V"), "attend", 1, {"jaccard": 0.4, "best/edges": 0.2}, role="dino", layers="1")]
    found = {one.metric: one for one in evidence.measured(cells, lambda run, name: files.parquet(columns))}
    overlap, edges, never = found["jaccard"], found["best/edges"], found["diversity"]
    assert overlap.scores is not None and overlap.scores.tolist() == [[[0.5, 0.25]]]
    assert overlap.items == (edges.items[0], edges.items[2]) and edges.items[1].endswith(" 7")
    assert (never.layers, never.missing, never.scores) == ((), (), None)  # it ran, and has none
    del columns["row"]
    assert all(one.scores is None for one in evidence.measured(cells, lambda run, name: files.parquet(columns)))


@pytest.mark.parametrize("content", [b"", b"channel,seed,edge_density\n", b"channel,seed,edge_density\n3,0,0.1\n5,0"])
def test_a_table_of_channels_that_was_cut_short(content: bytes) -> None:
    cells = [kept(Model("r", "R"), "visualise", layer, {"edge_density": 0.3}, role="rn50") for layer in (1, 2)]
    (one,) = [one for one in evidence.measured(cells, lambda run, name: content) if one.metric == "edge_density"]
    assert one.scores is None and one.layers == (1, 2)


def test_channels_are_a_layers_own_and_seeds_theirs() -> None:
    rows = {1: [(3, 0, 0.1), (5, 0, 0.2), (3, 1, 0.3), (5, 1, 0.4)], 2: [(9, 0, 0.5), (9, 1, 0.6)]}

    def fetch(run: str, name: str) -> bytes:
        assert name == "images.csv"
        return files.text(("channel", "seed", "edge_density"), rows[int(run[-1])])

    cells = [kept(Model("r", "R"), "visualise", layer, {"edge_density": 0.3}, role="rn50") for layer in (1, 2)]
    one = next(one for one in evidence.measured(cells, fetch) if one.metric == "edge_density")
    assert (one.unit, one.items) == (claims.Unit.CHANNELS, ()) and one.scores is not None
    assert one.scores[0].tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert one.scores[1][:, 0].tolist() == [0.5, 0.6] and np.isnan(one.scores[1][:, 1]).all()


def test_other_data_has_other_items_and_a_layer_that_is_missing_is_named() -> None:
    def fetch(run: str, name: str) -> bytes:
        return files.parquet({"mse/seed_0": [0.1, 0.2]})

    first, second = (kept(Model(m, m), "reconstruct", 1, {"mse": 0.1}, role="rn50") for m in "ab")
    second = replace(second, params={**second.params, "resolved.data": "sha256:2"})
    a, b = evidence.measured([first, second], fetch)
    assert not set(a.items) & set(b.items) and a.missing == (2,)


def test_everything_that_the_claims_read_is_kept_somewhere() -> None:
    assert {reading.metric for reading in claims.wanted()} == set(evidence.SCORE_FILES)


def judgements(low: str = "g") -> list[claims.Judgement]:
    rng = np.random.default_rng(0)
    files = {"c": rng.random((5, 500)) < 0.85, low: rng.random((5, 500)) < 0.5}
    cells = [
        pair(model, role, run_id=model, metrics={"accuracy": Estimate(float(files[model].mean()))})
        for model, role in (("c", "clip_text"), (low, "gpt2"))
    ]
    return evidence.judged(cells, lambda run, name: predictions(files[run].tolist()))["paper"]


def test_a_row_says_verdict_statistic_interval_p_and_n() -> None:
    row = next(r for r in verdicts.rows(judgements()) if r.claim == "C17")
    assert (row.verdict, row.n, row.p) == ("supported", "500", "< 0.001")
    assert row.models == "clip_text = c, gpt2 = g"
    assert row.statistic == row.compared == "WiC(clip_text) > WiC(gpt2)"
    assert row.value.endswith(" points") and "[" in row.value and row.why.startswith("how the course report gave CLIP")
    missing = next(r for r in verdicts.rows(judgements()) if r.claim == "C19")
    assert (missing.verdict, missing.statistic, missing.value, missing.p) == ("not run", "", "", "")
    assert "phrases" in missing.why and missing.todo.startswith("clipstudy enqueue --model")


def test_the_value_has_the_direction_of_its_inequality() -> None:
    """ "a < b" that fails shows how far a lies above b."""
    rng = np.random.default_rng(0)
    rising = np.linspace(0.2, 0.5, 12)[:, None, None] + 0.01 * rng.standard_normal((12, 2, 5))
    bert = claims.Measured("bert", "bert", "phrases", "phrase_clusters", "nmi", 12, tuple(range(1, 13)), rising,
                           tuple("abcde"), claims.Unit.SAMPLES)  # fmt: skip
    row = verdicts.rows(claims.judge([bert]))[0]
    assert (row.claim, row.verdict, row.n) == ("C1", "refuted", "5")
    assert row.statistic == "Spearman(layer, NMI(bert)) < 0" and 0.9 < float(row.value.split()[0]) <= 1


def test_of_several_stages_the_one_is_named() -> None:
    part = claims.Part(
        "loss(a) at stages 1, 2 < loss(b) at stages 1, 2", "stage 2", "mse", Difference(0, 0, 0, 1, 0), 1, 1
    )
    assert verdicts._statistic(part) == "loss(a) < loss(b), stage 2"
    assert verdicts._statistic(replace(part, text="loss(a) at stage 2", where="stage 2")) == "loss(a) at stage 2"


def test_the_roles_of_the_pocket_study_are_those_of_the_claims() -> None:
    study = tasksfile.load(tasksfile.find("pocket", Path.cwd()))
    played = {role for model in study.models.values() for role in (model.role or "").split()}
    assert played == {r.role.removeprefix(claims.UNTRAINED) for claim in claims.CLAIMS for r in claim.reads}
    twins = {model.twin_of for model in study.models.values() if model.init == "random"}
    originals = {model.name for model in study.models.values() if model.role == "clip_rn50"}
    assert originals <= twins  # C25 asks for the untrained one


def test_json_has_every_part_and_only_finite_numbers() -> None:
    told = json.loads(json.dumps([verdicts.plain(j) for j in judgements()], allow_nan=False))
    assert {row["claim"] for row in told} == {claim.number for claim in claims.CLAIMS}
    supported = next(row for row in told if row["claim"] == "C17")
    assert supported["statistic"] in supported["parts"] and supported["statistic"]["p_holds"] < 0.05


def test_claims_and_verdicts_are_counted_apart() -> None:
    found = judgements()
    assert len(found) == len(claims.CLAIMS)
    assert verdicts.totals(found).endswith(f"({len(claims.CLAIMS)} claims)")
    again = verdicts.totals([*found, found[0]])
    assert again.endswith(
        f"({len(found) + 1} verdicts on {len(claims.CLAIMS)} claims: some are tested on several models)"
    )


def test_only_a_study_itself_says_whom_its_verdicts_concern() -> None:
    def section(one: Result) -> str:
        page = report.page([one], Dashboard("D", (Panel("P"),)), judged={"paper": judgements()})
        return page.split('<section id="claims">')[1].split("</section>")[0]

    assert "Small models." in section(measured(note="Small models."))
    assert "callout" not in section(replace(measured(), params=POCKET)) + section(measured())


def test_the_page_has_a_section_of_claims_and_interprets_no_name() -> None:
    hostile = "<script>alert(1)</script>"
    told = {"paper": judgements(hostile)}
    page = report.page([pair("c", "clip_text"), measured()], Dashboard("D", (Panel("P"),)), judged=told)
    section = page.split('<section id="claims">')[1].split("</section>")[0]
    assert "performance of CLIP is better in comparison to GPT2 when evaluated on WIC" in section
    assert "verdict supported" in section and "verdicts: not run or not testable here" in section
    assert hostile not in section and "&lt;script&gt;alert" in section
    assert '<a href="#claims">Claims</a>' in page and verdicts.METHOD[:40] in section
    assert 'id="claims"' not in report.page([measured()], Dashboard("D", (Panel("P"),)))


# -- published numbers -----------------------------------------------------------------------------------------------


def marks(results: list[Result], numbers: list[Published]) -> tuple[views.Mark, ...]:
    view = boards.view(boards.board(results), "tense")
    assert view is not None
    return comparisons.marked(view, numbers).marks


def test_a_comparable_number_is_a_mark_on_its_models_bar() -> None:
    (mark,) = marks([measured(), measured(layer=2)], [NUMBER])
    assert mark == views.Mark("bert", 1, 0.8, "BERT: Some & Body 2020", False)
    assert marks([measured()], [replace(NUMBER, read="memory")])[0].from_memory


@pytest.mark.parametrize(
    "other", [{"role": "gpt2"}, {"task": "wic"}, {"metric": "ami"}, {"data": "split"}, {"method": "other"}]
)
def test_what_does_not_compare_is_not_drawn(other: dict[str, str]) -> None:
    assert marks([measured()], [replace(NUMBER, **other)]) == ()  # type: ignore[arg-type]


def test_nothing_published_is_drawn_on_stand_ins_or_untrained_models() -> None:
    assert marks([replace(measured(), params=POCKET)], [NUMBER]) == ()
    assert marks([measured(note="These are stand-ins.")], [NUMBER]) == ()
    twin = measured(model=Model("bert-untrained", "BERT, untrained", "bert"))
    assert marks([measured(), twin], [NUMBER]) == marks([measured()], [NUMBER])
    assert comparisons.compared([replace(measured(), params=POCKET)], [NUMBER]) == []
    assert comparisons.compared([measured(note="These are stand-ins.")], [NUMBER]) == []
    assert comparisons.compared([twin], [NUMBER]) == []


def test_nothing_published_is_drawn_on_a_part_of_the_rows() -> None:
    limited = replace(measured(), params={"dataset.limit": "500"})
    assert marks([limited], [NUMBER]) == () and comparisons.compared([limited], [NUMBER]) == []


def test_a_number_of_a_view_is_held_to_the_headline_where_that_is_the_view() -> None:
    """`profile = "jawahar"` asks [CLS] alone, and records it as its headline."""
    native = replace(NUMBER, metric="native/accuracy")
    asked = replace(measured(), params={"option.views": '["native"]'})
    both = replace(measured(), params={"option.views": '["mean", "native"]'})
    other = {"accuracy": Estimate(0.5), "native/accuracy": Estimate(0.6)}
    both, asked = replace(both, metrics=other), replace(asked, metrics={"accuracy": Estimate(0.7)})
    assert [found.measured.value for found in comparisons.compared([both], [native])] == [0.6]
    assert [found.measured.value for found in comparisons.compared([asked], [native])] == [0.7]
    assert marks([both], [native]) == () and len(marks([asked], [native])) == 1


@pytest.mark.parametrize("x", ["layer", "depth"])
def test_a_chart_draws_marks_where_their_bars_are_and_hollow_from_memory(x: str) -> None:
    results = [measured(), measured(layer=2)]
    shown = boards.board(results)
    view = boards.view(shown, "tense")
    assert view is not None
    both = [NUMBER, replace(NUMBER, layer=2, value=97.0, read="memory"), replace(NUMBER, layer=7)]
    info = bars_info(comparisons.marked(view, both), inks_of(shown), x)
    (drawn,) = info.marks
    assert (drawn.x, drawn.hollow) == (info.series[0].x, [False, True])
    assert drawn.y == pytest.approx([80.0, 97.0]) and info.top > 97
    assert drawn.texts[1] == "published (from memory): 97.0, BERT: Some & Body 2020"
    figure = go.Figure(charts.bars_figure(info))
    trace = figure.data[-1]
    # Filled dark, or hollow: white with a dark rim.
    assert list(trace.marker.color) == list(trace.marker.line.color)[::-1] == ["#1B1F24", "#FFFFFF"]
    assert trace.offsetgroup == "0"


def test_a_comparison_is_a_difference_inside_or_outside_the_tolerance() -> None:
    (near,), (far,) = (comparisons.compared([measured(value)], [NUMBER]) for value in (0.785, 0.7))
    assert near.difference == pytest.approx(-0.015) and near.inside
    assert far.difference == pytest.approx(-0.1) and not far.inside
    (told,) = comparisons.compared([measured(0.7)], [replace(NUMBER, read="memory")])
    assert told.difference is told.inside is None
    spread = replace(NUMBER, spread=6.0)
    assert spread.tolerance == pytest.approx(0.12) and comparisons.compared([measured(0.7)], [spread])[0].inside
    assert math.isclose(replace(NUMBER, unit="share", value=0.8).tolerance, 0.05)


@pytest.mark.parametrize(("value", "apart", "inside"), [(0.78, -0.02, True), (0.83, 0, True), (0.88, 0.03, False)])
def test_a_range_is_compared_at_its_nearer_end(value: float, apart: float, inside: bool) -> None:
    (found,) = comparisons.compared([measured(value)], [replace(NUMBER, upper=85.0)])
    assert found.difference == pytest.approx(apart) and found.inside is inside
    (line,) = sheets.published(boards.board([measured(value)]), [found.number]).lines
    assert line[1][1].text == "80.0–85.0"


def test_cancelled_cells_are_tried_again_and_not_enqueued() -> None:
    recorded = replace(result(BERT, SHIFT), study="pocket", tags=result(BERT, SHIFT).tags | {"role": "bert"})
    lacking = {
        ("pocket", "bert", "phrases"): {Status.CANCELLED: 2},
        ("other", "gpt2", "phrases"): {Status.CANCELLED: 1},
    }

    def todo(planned: Planned) -> dict[str, str]:
        found = evidence.judged([recorded], lambda run, name: b"", planned)["pocket"]
        return {one.claim.number: one.todo for one in found}

    again = "clipstudy retry --study pocket --cancelled; clipstudy worker --drain --study pocket"
    assert todo(lacking)["C1"] == again != todo({})["C1"]
    queued = {("pocket", "bert", "phrases"): {Status.QUEUED: 2}}
    assert todo(queued)["C1"] == todo({})["C1"] and "enqueue" in todo({})["C1"]


def test_of_a_study_without_roles_it_is_said_once() -> None:
    (found,) = evidence.judged([result(BERT, SHIFT)], lambda run, name: b"").values()
    assert "the key “role”" in verdicts.unplayed(found) and not any(one.todo for one in found)
    assert verdicts.unplayed(judgements()) == ""


def test_what_to_type_names_a_study_that_comes_with_the_package() -> None:
    for study, end in (("pocket", " --study pocket"), ("mine", "")):
        recorded = replace(result(BERT, SHIFT), study=study, tags={"role": "bert"})
        (judgements,) = evidence.judged([recorded], fetch=lambda run, name: b"").values()
        todo = [one.todo for one in judgements if one.todo]
        assert todo and all(one.startswith("clipstudy enqueue") for one in todo)
        assert all(one.endswith(end) and ("--study" in one) == bool(end) for one in todo)
