"""What a panel draws besides bars, and the tables of differences and of published numbers, in a browser."""

from __future__ import annotations

from urllib.parse import quote

from clipstudy.results import comparisons, sheets
from clipstudy.results.boards import board
from tests.browser import exhibits
from tests.browser.served import desk
from tests.browser.visiting import NASTY, Open, cells, choose, drawn, go, said


def test_whatever_a_panel_draws(visit: Open) -> None:
    """Heat maps, both kinds of table, pictures, points and zero-shot lines: the numbers of the runs."""
    page = visit(desk(exhibits.RESULTS, exhibits.DASHBOARD, exhibits.FILES))
    said(page, "Maps: 1 map")
    page.locator("figure .js-plotly-plot .xtitle").wait_for(state="attached")
    heat = page.eval_on_selector(".js-plotly-plot", "e => e.data[0].z.map(row => [...row])")
    assert heat == exhibits.LIKENESS
    with page.expect_download() as caught:
        page.get_by_role("link", name="Likeness: BERT as CSV").click()
    assert caught.value.suggested_filename == "paper-Likeness--BERT.csv"
    choose(page, "Table 1")
    said(page, "Table 1: 1 line")
    assert cells(page, "sheet") == [["Questions, BERT", "71.0 ± 1.0", "69.2", "+1.8", "unknown", "unknown"]]
    choose(page, "Best")
    said(page, "Best: 2 lines")
    choose(page, "Pictures")
    said(page, "Pictures: 1 picture")
    page.wait_for_function("() => document.querySelector('.album img')?.naturalWidth === 41")
    choose(page, "Images")
    said(page, "Images: 1 chart")
    assert [trace["y"] for trace in drawn(page, "Images, probed")] == [[50.0], [25.0, 75.0]]
    choose(page, "hidden")
    page.wait_for_url("**/?panel=Images&seeds=hidden")
    page.wait_for_function("() => document.querySelector('.js-plotly-plot').data.length === 1")
    page.locator(".legend", has_text="dotted: zero-shot, in the model's colour").wait_for()
    go(page, "/?panel=Images&seeds=points")
    assert [trace["y"] for trace in drawn(page, "Images, probed")] == [[50.0], [25.0, 75.0]]


def test_hostile_names_stay_text_in_whatever_a_panel_draws(visit: Open) -> None:
    found, dashboard, files = exhibits.hostile(NASTY)
    page = visit(desk(found, dashboard, files))
    for at in range(len(dashboard.panels)):
        go(page, f"/?panel={quote(f'{NASTY} {at}')}")
        said(page, f"{NASTY} {at}: ")
        assert NASTY in page.inner_text("#body")
        assert page.locator("b, img:not(.album img), #body h2 *").count() == 0


def test_published_numbers_beside_measured_ones(visit: Open) -> None:
    page = visit(desk(exhibits.RESULTS, exhibits.DASHBOARD, exhibits.FILES), "/tables?table=published")
    shown = sheets.published(board(exhibits.RESULTS), comparisons.numbers())
    found = cells(page, "sheet")
    assert found[0][:3] == ["Questions, BERT", "71.0 ± 1.0", "69.2"]
    assert [row[:2] for row in found] == [[name, entries[0].text] for name, entries in shown.lines]


def test_a_models_zero_shot_accuracy_is_in_the_table_of_its_layers(visit: Open) -> None:
    page = visit(desk(exhibits.RESULTS, exhibits.DASHBOARD, exhibits.FILES), "/tables?table=layers&task=images")
    assert cells(page, "sheet") == [["1", "50.0 ± 10.0"], ["zero-shot", "30.0"]]


def test_differences_are_paired_on_the_same_items(visit: Open) -> None:
    """BERT is right where GPT-2 is not, on the same 40 items: the page says so, though recorded intervals overlap."""
    page = visit(desk(*exhibits.paired()), "/tables?table=differences&first=bert&second=gpt2")
    ((task, difference, p, on, *_),) = cells(page, "sheet")
    assert (task, difference.split(" ")[0], on) == ("Bigram shift, accuracy (%)", "+25.0", "40 test items")
    assert p == "0.002", "ten items differ, all one way: 2 / 2**10"
    assert page.locator("#sheet .ag-cell.best").count() == 2
