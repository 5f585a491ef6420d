"""The command that serves the dashboard."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from clipstudy.cli import ports, selecting, stores
from clipstudy.cli.options import DashboardName, Study
from clipstudy.errors import ClipstudyError, NoResults, NotMigrated
from clipstudy.job import Selection
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from dash import Dash
    from sqlalchemy import Engine
    from werkzeug.serving import BaseWSGIServer

    from clipstudy.dashboard.records import Records, Snapshot

Names = Annotated[
    list[str] | None, typer.Option("--allow-host", help="A host name that visitors may use; may be repeated.")
]


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8050,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback requires CLIPSTUDY_TOKEN.")] = (
        "127.0.0.1"
    ),
    allow_host: Names = None,
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Let visitors retry and cancel cells of the queue.")
    ] = False,
    study: Study = None,
    dashboard: DashboardName = "layers",
) -> None:
    """Serve charts, tables, pictures, runs and the queue to a browser, from what MLflow and the job table hold.

    Visitors can change nothing unless --allow-actions is given.
    """
    from clipstudy.dashboard import app, guard, panels
    from clipstudy.dashboard.pages.components import Desk
    from clipstudy.dashboard.records import Records
    from clipstudy.queue import jobs
    from clipstudy.tracking import open as open_tracking

    settings = Settings.read()
    token = os.environ.get("CLIPSTUDY_TOKEN") or None
    guard.check(host, token)
    shown = panels.find(dashboard, settings.home)
    engine = _queue(settings)
    planned, groups = (
        (partial(jobs.counts, engine), partial(stores.groups, engine)) if engine is not None else (dict, tuple)
    )
    name = selecting.study_name(study)
    records = Records(
        open_tracking(settings), name, shown.order, settings.cache / "dashboard", planned=planned, groups=groups
    )
    results = _first_look(records, name)
    desk = Desk(records, shown, _mlflow(settings.tracking), engine, allow_actions)
    server = _listening(app.application(desk, [host, *(allow_host or ())], token), host, port)
    where = f"[{host}]" if ":" in host else host
    typer.echo(f"{results:,} results on http://{where}:{server.port} (Ctrl-C stops it)", err=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _first_look(records: Records, study: str | None) -> int:
    """Read what there is, before the first visitor comes, who would wait for it: how many results.

    Raises:
        NoResults: MLflow and the job table know other studies, not this one.
        ClipstudyError: MLflow cannot be read.
    """
    known = records.now()
    if known.trouble:
        raise ClipstudyError(known.trouble)
    if study is not None and not known.results and (why := _unknown(study, records, known)):
        raise NoResults(why)
    if known.results and (gone := records.tracking.gone()):
        typer.echo(f"no pictures and no paired tests: {gone}.", err=True)
    return len(known.results)


def _listening(served: Dash, host: str, port: int) -> BaseWSGIServer:
    """A server of the pages, bound. Raises ClipstudyError where the address or the port cannot be had."""
    from clipstudy.dashboard import app

    try:
        return app.listen(served, host, port)
    except OSError as error:
        raise ports.refused("dashboard", host, port, error, " (or --port 0, which takes a free one)") from None


def _queue(settings: Settings) -> Engine | None:
    """The job table; None where there is none yet: results can be looked at without one."""
    try:
        return stores.engine(settings)
    except NotMigrated as error:
        typer.echo(f"no queue to show: {error.message}", err=True)
        return None


def _unknown(study: str, records: Records, known: Snapshot) -> str | None:
    """Why there is nothing to show of a study that neither MLflow nor the job table has; None where it is enqueued, or
    where they have no study at all: its results may come."""
    planned = {of for of, _, _ in known.planned}
    there = planned | {result.study for result in records.tracking.results()}
    if study in planned or not there:
        return None
    return f"There is {selecting.unknown_name(Selection(study=study), study=there)}"


def _mlflow(tracking: str) -> str:
    """Where MLflow's own pages are: on the server, without a login that its address may hold; else `clipstudy ui`'s."""
    found = urlsplit(tracking)
    if found.scheme not in ("http", "https"):
        return "http://127.0.0.1:5000"
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path.rstrip('/')}"
