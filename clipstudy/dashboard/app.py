"""The dashboard: what the report shows, asked for piece by piece; beside it the runs, their pictures and the queue.

An address is the only state. Choosing something writes the address; the address draws the page. Every value that a
browser sends goes through ``address``, which gives back a place, whatever came.
"""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate
from flask import Response, abort, request
from plotly.io.json import to_json_plotly
from werkzeug.serving import BaseWSGIServer, make_server

from clipstudy.dashboard import address, guard
from clipstudy.dashboard.pages import claims, components, gallery, layers, queue, runs, tables
from clipstudy.dashboard.pages.components import Control, Desk, Shown
from clipstudy.errors import ClipstudyError
from clipstudy.redaction import redact

PAGES: dict[str, Any] = {page.KIND.PATH: page for page in (layers, tables, claims, gallery, runs, queue)}
#: Pages whose table can be taken away as a file.
FILES: dict[str, Any] = {"layers": layers, "tables": tables}
INDEX = """<!DOCTYPE html>
<html lang="en"><head>{%metas%}<meta name="color-scheme" content="light dark"><title>{%title%}</title>
<link rel="icon" href="data:,">{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""
#: Milliseconds after which the queue's page looks again, and any page that shows nothing because MLflow is away.
TICK = 5000


def application(desk: Desk, hosts: Sequence[str] = (), token: str | None = None) -> Dash:
    """The application on ``desk``; its ``server`` is what any WSGI server runs.

    Args:
        hosts: names, besides the loopback's, that visitors may know this machine by.
        token: what they must know; None: nothing.
    """
    app = Dash(
        "clipstudy",
        title=desk.dashboard.title,
        index_string=INDEX,
        update_title="",
        assets_folder=str(Path(__file__).with_name("page")),
        assets_ignore=r"^page\.js$",
        suppress_callback_exceptions=True,
        enable_mcp=False,
        add_log_handler=False,
    )
    app.layout = _frame(desk)
    _callbacks(app, desk)
    _files(app, desk)
    guard.protect(app.server, hosts, token, app.csp_hashes())
    return app


def listen(app: Dash, host: str, port: int) -> BaseWSGIServer:
    """A server that is bound and waits for ``serve_forever``; port 0 takes a free one. It logs no addresses.

    Raises:
        OSError: that address and port cannot be had.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # Bound here: where that fails the library prints a text of its own and ends the program.
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        return make_server(host, port, app.server, threaded=True, fd=bound.fileno())


# -- the frame ---------------------------------------------------------------------------------------------------


def _frame(desk: Desk) -> Component:
    return html.Div(
        [
            dcc.Location(id="at", refresh=False),
            dcc.Store(id="chosen"),
            dcc.Store(id="drawn"),
            dcc.Interval(id="tick", interval=TICK, disabled=True),
            html.A("Skip to the results", href="#main", className="skip"),
            html.Header([html.H1(desk.dashboard.title), html.Nav(id="pages", **components.labelled("Pages"))]),
            html.Div(
                [
                    # Open where there is room beside the results; page/app.js folds it on a narrow screen.
                    html.Details(
                        [
                            html.Summary("What to show"),
                            html.Form(id="controls", **components.labelled("What to show")),
                        ],
                        id="choices",
                        open=True,
                    ),
                    html.Main(
                        [
                            html.P("Working …", id="working", role="status", hidden=True),
                            html.Div(id="did", role="status"),
                            html.Div(id="body"),
                        ],
                        id="main",
                        tabIndex="-1",
                    ),
                ],
                className="room",
            ),
            html.Div(id="said", role="status", className="unseen"),
        ]
    )


def _navigation(here: str, study: str) -> list[Component]:
    links = []
    for path, page in PAGES.items():
        known = {"study": study} if study else {}
        links.append(
            html.Li(
                dcc.Link(page.TITLE, href=address.href(page.KIND(**known)), className="here" if path == here else "")
            )
        )
    return [html.Ul(links)]


# -- what happens --------------------------------------------------------------------------------------------------


#: The controls of whichever page is shown.
CONTROLS = {"type": "control", "key": ALL}


def _callbacks(app: Dash, desk: Desk) -> None:
    _showing(app, desk)
    _choosing(app)
    _sorting(app)
    app.clientside_callback(
        ClientsideFunction("clipstudy", "title"),
        Output("said", "title"),
        Input("said", "children"),
        State("at", "pathname"),
    )
    if desk.allow_actions and desk.engine is not None:
        _actions(app, desk)


def _showing(app: Dash, desk: Desk) -> None:
    """The address draws the page."""

    @app.callback(
        Output("controls", "children"),
        Output("chosen", "data"),
        Output("body", "children"),
        Output("pages", "children"),
        Output("said", "children"),
        Output("tick", "disabled"),
        Output("tick", "interval"),
        Output("drawn", "data"),
        Input("at", "pathname"),
        Input("at", "search"),
        Input("tick", "n_intervals"),
        State(CONTROLS, "id"),
        State(CONTROLS, "value"),
        State("chosen", "data"),
        State("drawn", "data"),
        running=[(Output("working", "hidden"), False, True)],
    )
    def show(
        path: object, query: object, _: object, ids: object, values: object, before: object, drawn: object
    ) -> tuple[Any, ...]:
        page = PAGES.get(path) if isinstance(path, str) else None
        if page is None:
            return [], {}, _lost(path), _navigation("", ""), "There is no such page", True, TICK, ""
        place, wrong = address.parse(page.KIND, query)
        offered, shown = _made(page, place, desk)
        known = desk.records.now()
        trouble = known.trouble
        body = [*components.callout(trouble), *components.complaints(wrong), *shown.body]
        data = {c.key: {"value": c.value, "options": [_plain(option) for option in c.options]} for c in offered}
        # Drawn anew, a control would lose the focus and close its list: only where it offers or holds something else.
        same = isinstance(before, dict) and data == before and _values(ids, values) == _values_of(offered)
        # Nothing was ever read: the page has nothing to lose by being drawn anew.
        away = bool(trouble) and known.read is None
        again = shown.again or (TICK if page is queue or away else 0)
        # What is the same when the page looks again is left: under a click or a marked text it would be gone.
        digest = hashlib.sha256(to_json_plotly(body).encode()).hexdigest() if again else ""
        return (
            no_update if same else [components.drawn(control) for control in offered],
            data,
            no_update if digest and digest == drawn else body,
            _navigation(page.KIND.PATH, place.study),
            shown.said,
            not again,
            again or TICK,
            digest,
        )


def _made(page: Any, place: address.Place, desk: Desk) -> tuple[list[Control], Shown]:
    """What ``page`` offers to choose and what it shows."""
    offered: list[Control] = []
    try:
        offered = page.controls(place, desk)
        return offered, page.body(place, desk)
    except ClipstudyError as error:  # files that runs keep are read while a page is made
        again = TICK if error.transient else 0
        said = components.nothing(page.TITLE, redact(error.message))
        return offered, Shown("What runs keep cannot be read", said, again)


def _choosing(app: Dash) -> None:
    """Choosing something writes the address."""

    @app.callback(
        Output("at", "search"),
        Input(CONTROLS, "value"),
        State(CONTROLS, "id"),
        State("at", "pathname"),
        State("at", "search"),
        State("chosen", "data"),
        prevent_initial_call=True,
    )
    def choose(values: object, ids: object, path: object, query: object, before: object) -> Any:
        page = PAGES.get(path) if isinstance(path, str) else None
        if page is None or not isinstance(before, dict):
            raise PreventUpdate
        given = {key: value for key, value in _values(ids, values).items() if key in before}
        old = {key: _sorted(told.get("value")) for key, told in before.items() if isinstance(told, dict)}
        new = {key: value for key, value in given.items() if value != old.get(key)}
        place, _ = address.parse(page.KIND, query)
        after = address.changed(place, new)
        if after == place:
            raise PreventUpdate
        return _query(after)


def _sorting(app: Dash) -> None:
    """Sorting the runs writes the address, too."""

    @app.callback(
        Output("at", "search", allow_duplicate=True),
        Input("runs", "columnState"),
        State("at", "pathname"),
        State("at", "search"),
        prevent_initial_call=True,
    )
    def sort(state: object, path: object, query: object) -> str:
        if path != runs.KIND.PATH or not isinstance(state, list):
            raise PreventUpdate
        place, _ = address.parse(runs.KIND, query)
        after = runs.sorted_by(place, state)
        if after == place:
            raise PreventUpdate
        return _query(after)


def _actions(app: Dash, desk: Desk) -> None:
    @app.callback(
        Output("tick", "disabled", allow_duplicate=True), Input("cells", "selectedRows"), prevent_initial_call=True
    )
    def wait(rows: object) -> bool:
        """The page does not look again while cells are ticked: drawn anew, it would forget which."""
        return bool(rows)

    @app.callback(
        Output("did", "children"),
        Output("tick", "n_intervals"),
        Input({"type": "act", "verb": ALL}, "n_clicks"),
        State("cells", "selectedRows"),
        State("tick", "n_intervals"),
        prevent_initial_call=True,
    )
    def act(clicks: object, rows: object, ticks: object) -> Any:
        asked = ctx.triggered_id
        verb = asked.get("verb") if isinstance(asked, dict) else None
        if verb not in ("retry", "cancel") or not isinstance(clicks, list) or not any(clicks) or desk.engine is None:
            raise PreventUpdate
        chosen = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        try:
            did = queue.act(desk.engine, verb, chosen, desk.records.study)
        except ClipstudyError as error:
            did = redact(error.message)
        return did, (ticks if isinstance(ticks, int) else 0) + 1

    @app.callback(Output("did", "children", allow_duplicate=True), Input("at", "pathname"), prevent_initial_call=True)
    def elsewhere(path: object) -> str:
        """What was done on one page is no news on another."""
        return ""


# -- files -----------------------------------------------------------------------------------------------------------


def _files(app: Dash, desk: Desk) -> None:
    @app.server.after_request
    def lost(answer: Response) -> Response:
        """Every address has the same frame, which says that there is no such page; a script sees it by the status."""
        if request.url_rule is not None and request.url_rule.rule == "/<path:path>" and request.path not in PAGES:
            answer.status_code = 404
        return answer

    @app.server.errorhandler(ClipstudyError)
    def unread(error: ClipstudyError) -> Response:
        """What a file is made of cannot be read: as pages say it, and to a script by the status."""
        return Response(redact(error.message), 503 if error.transient else 404, mimetype="text/plain")

    @app.server.get("/take/<name>.<ending>")
    def take(name: str, ending: str) -> Response:
        page = FILES.get(name) or abort(404)
        place, _ = address.parse(page.KIND, request.query_string.decode(errors="replace"))
        made = page.file(place, desk, ending) or abort(404)
        file_name, kind, text = made
        answer = Response(text, mimetype=kind)
        answer.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
        return answer

    @app.server.get("/picture/<run_id>/<path:name>")
    def picture(run_id: str, name: str) -> Response:
        content = (desk.records.knows(run_id) and desk.files.picture(run_id, name)) or abort(404)
        answer = Response(content, mimetype="image/png")
        answer.headers["Cache-Control"] = "private, max-age=3600"
        return answer


# -- inside ------------------------------------------------------------------------------------------------------


def _lost(path: object) -> list[Component]:
    there = ", ".join(PAGES)
    said = f'There is no page "{path[:80] if isinstance(path, str) else ""}". What exists: {there}.'
    return components.nothing("No such page", said)


def _query(place: address.Place) -> str:
    _, mark, query = address.href(place).partition("?")
    return mark + query


def _plain(option: Any) -> list[str]:
    return [str(option["value"]), str(option.get("search", option["label"]))]


def _values(ids: object, values: object) -> dict[str, Any]:
    """Key → value of what the controls hold; several in an order that does not depend on who ticked what first."""
    if not isinstance(ids, list) or not isinstance(values, list) or len(ids) != len(values):
        return {}
    pairs = zip(ids, values, strict=True)
    return {i["key"]: _sorted(v) for i, v in pairs if isinstance(i, dict) and isinstance(i.get("key"), str)}


def _values_of(controls: Sequence[Control]) -> dict[str, Any]:
    return {control.key: _sorted(control.value) for control in controls}


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(text for text in value if isinstance(text, str))
    return value or None
