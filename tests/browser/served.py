"""A dashboard on the loopback, and a page of it in a browser: what the tests of its pages stand on."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from PIL import Image
from sqlalchemy import Engine

from clipstudy.dashboard import app, panels
from clipstudy.dashboard.pages.components import Desk
from clipstudy.dashboard.panels import Dashboard
from clipstudy.dashboard.records import Records
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result
from clipstudy.tracking import Tracking
from tests.servers import running


class Held(Tracking):
    """Results and files in memory, where a store of real runs would take minutes to make."""

    def __init__(self, results: Sequence[Result], files: Mapping[str, Mapping[str, bytes]] | None = None) -> None:
        super().__init__("sqlite:///nowhere.db", "nowhere")
        self.held, self.kept = list(results), dict(files or {})

    def results(
        self,
        study: str | None = None,
        since: datetime | None = None,
        parent_run_id: str | None = None,
        known: Collection[str] = (),
    ) -> list[Result]:
        return [result for result in self.held if study in (None, result.study)]

    def files(self, run_id: str) -> list[str]:
        return sorted(self.kept.get(run_id, {}))

    def artifact(self, run_id: str, name: str) -> bytes:
        try:
            return self.kept[run_id][name]
        except KeyError:
            raise ClipstudyError(f"Run {run_id} kept no {name}") from None

    def identity(self) -> str:
        return "held"

    def gone(self) -> str:
        return ""

    def experiment(self) -> str:
        return "1"

    def run_of(self, job: object) -> str | None:
        return None


def picture(color: str, width: int = 96, height: int | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height or width), color).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def serving(desk: Desk, **how: Any) -> Iterator[str]:
    """The address of a dashboard on ``desk``, while it is served."""
    server = app.listen(app.application(desk, **how), "127.0.0.1", 0)
    with running(server):
        yield f"http://127.0.0.1:{server.port}"


def desk(
    results: Sequence[Result],
    dashboard: Dashboard | None = None,
    files: Mapping[str, Mapping[str, bytes]] | None = None,
    engine: Engine | None = None,
    allow_actions: bool = False,
    study: str | None = None,
) -> Desk:
    shown = dashboard or panels.load(panels.default())
    records = Records(Held(results, files), study, shown.order)
    return Desk(records, shown, "http://127.0.0.1:5000", engine, allow_actions)
