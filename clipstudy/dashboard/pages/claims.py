"""Claims: what the course report states, quoted, with the verdict of this study's own tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from clipstudy.claims import CLAIMS, DRAWS, Verdict
from clipstudy.dashboard import records
from clipstudy.dashboard.address import Claims
from clipstudy.dashboard.pages import components, layers
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.dashboard.records import Judged
from clipstudy.errors import ClipstudyError
from clipstudy.redaction import redact
from clipstudy.results import boards, verdicts
from clipstudy.results.boards import Board
from clipstudy.results.verdicts import Row

KIND = Claims
TITLE = "Claims"
#: Milliseconds between two looks for verdicts that are being worked out.
SOON = 1000
OLDER = "New results have come in since these were tested. They are tested again at most once per minute."
FAILED = "New results have come in since these were tested, and could not be tested:"


def controls(place: Claims, desk: Desk) -> list[Control]:
    try:
        found = Counter(row.verdict for row in verdicts.rows(desk.records.judged(desk.study(place)).judgements or ()))
    except ClipstudyError:
        found = Counter()
    there = {str(verdict): f"{verdict} ({found[verdict]})" for verdict in Verdict if found[verdict]}
    chosen = [verdict for verdict in there if not place.verdict or verdict in place.verdict]
    shown = [Control("verdict", "Verdicts", components.options(there, there), chosen or list(there), "ticks")]
    return [*components.studies(place, desk), *(shown if there else [])]


def body(place: Claims, desk: Desk) -> Shown:
    board = desk.board(place)
    if not board.results:
        return Shown("Nothing is recorded yet", layers.empty())
    try:
        judged = desk.records.judged(desk.study(place))
    except ClipstudyError as error:
        # What was away may be back: a test that failed may be tried again after LOOK.
        again = math.ceil(1000 * records.LOOK) if error.transient else 0
        return Shown("No verdicts", components.nothing(TITLE, redact(error.message)), again)
    if judged.judgements is None:
        return _being_tested(board, judged.testing or 0.0)
    rows = verdicts.rows(judged.judgements)
    unplayed = verdicts.unplayed(judged.judgements)
    there = {row.verdict for row in rows}
    kept = there & set(place.verdict) or there
    shown = [row for row in rows if row.verdict in kept]
    wrong = [
        *components.unknown("study", [place.study], desk.records.now().studies),
        *components.unknown("verdict here", place.verdict, there),
    ]
    return Shown(
        f"{len(shown)} verdicts on {len({row.claim for row in shown})} claims",
        [
            *components.complaints(wrong),
            *components.callout(boards.note_of(board.results)),
            *components.callout(
                f"{gone}. Without them no claim can be tested." if (gone := desk.records.tracking.gone()) else ""
            ),
            html.H2(TITLE),
            html.P(f"{verdicts.totals(judged.judgements)}. {verdicts.KEY}"),
            *components.callout(judged.trouble and f"{FAILED} {judged.trouble}"),
            *([html.P(OLDER)] if judged.older and not judged.trouble else []),
            *components.callout(unplayed),
            _judged([row for row in shown if row.statistic]),
            _silent([row for row in shown if not row.statistic and not unplayed]),
            html.P(verdicts.METHOD, className="notes"),
            *components.notes(place, desk),
        ],
        again=_again(judged),
    )


# -- inside ------------------------------------------------------------------------------------------------------


def _again(judged: Judged) -> int:
    """Milliseconds after which there may be other verdicts; 0: there is nothing new to test."""
    if judged.testing is not None:
        return SOON
    return 0 if judged.due is None else max(SOON, math.ceil(1000 * judged.due))


def _being_tested(board: Board, seconds: float) -> Shown:
    """What is asked, while there is no answer yet."""
    lines = [
        html.Tr([html.Th([html.Strong(claim.number), f" “{claim.quote}”"], scope="row", className="quote")])
        for claim in CLAIMS
    ]
    said = (
        f"{len(CLAIMS)} claims are being tested on {len(board.results):,} results, for {seconds:.0f} s so far: what "
        f"the runs kept of every test item is read and resampled {DRAWS:,} times. The verdicts will appear here."
    )
    table = html.Table([html.Thead(html.Tr(html.Th("Claim"))), html.Tbody(lines)])
    return Shown(
        f"{len(CLAIMS)} claims are being tested",
        [html.H2(TITLE), html.P(said, role="status"), html.Div(table, className="wide")],
        again=SOON,
    )


def _judged(rows: Sequence[Row]) -> Component:
    """What was tested, with the inequality that the verdict hangs on."""
    lines = []
    for row in rows:
        compared = html.Small(f"{row.models}: {row.compared}")
        decisive: list[str | Component] = [html.Br(), row.conditions] if row.conditions else []
        remark = [html.Br(), html.Small(row.why)] if row.why else []
        lines.append(
            html.Tr(
                [
                    html.Th(
                        [html.Strong(row.claim), f" “{row.quote}”", html.Br(), compared], scope="row", className="quote"
                    ),
                    html.Td(row.verdict, className=f"verdict {row.verdict}"),
                    html.Td([row.statistic, *decisive, *remark]),
                    *(html.Td(text, className="number") for text in (row.value, row.p, row.n)),
                ]
            )
        )
    head = [html.Th(name, className="number" * (at > 2)) for at, name in enumerate(verdicts.TESTED)]
    table = html.Table([html.Thead(html.Tr(head)), html.Tbody(lines)], id="judged")
    return html.Div(table if lines else None, className="wide")


def _silent(rows: Sequence[Row]) -> Component:
    """What could not be tested, and what it lacks."""
    lines = []
    for row in rows:
        todo: list[str | Component] = [" ", html.Code(row.todo)] if row.todo else []
        quote = html.Th([html.Strong(row.claim), f" “{row.quote}”"], scope="row", className="quote")
        lines.append(html.Tr([quote, html.Td(row.verdict), html.Td([row.why, *todo])]))
    head = html.Tr([html.Th(name) for name in verdicts.UNTESTED])
    table = html.Table([html.Thead(head), html.Tbody(lines)], id="silent")
    return html.Div(table if lines else None, className="wide")
