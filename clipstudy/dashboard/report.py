"""One self-contained HTML page: charts, tables with their downloads, what the numbers are. Needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import NamedTuple

from clipstudy.claims import Judgement
from clipstudy.dashboard import markup, panels, report_panels, report_sections
from clipstudy.dashboard.inks import inks_of
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.report_panels import Asked
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result
from clipstudy.results import boards
from clipstudy.results.boards import Board
from clipstudy.results.planned import Planned, gaps, left_out
from clipstudy.results.run_files import RunFiles
from clipstudy.results.views import View

PAGE = Path(__file__).with_name("page")
#: The page may run what is in it and fetch nothing, whatever a name in it says.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

METHODS = """
<li><b>Intervals</b> are 95% intervals that the task itself recorded with each run: for probes, a bootstrap over probe
seeds and test items; for clusterings, quantiles over span samples and k-means seeds (with one sample, over seeds only,
which is stated where it is so). Tables give half the width (±), or both ends where the value is far from the middle. An
accuracy of 0 or 1 has Wilson's interval instead, because a bootstrap of equal values has no width.</li>
<li><b>Untrained twins</b> are pooled over their initialisations: the mean, with se² = variance between initialisations
/ k + mean se² within a run (the test items are the same for all, so this part is not divided by k), and an interval as
wide as so few initialisations require (Student's distribution).</li>
<li><b>Averages</b> are plain means over tasks, for tasks and layers that every model shown has; se² = Σ se² / T².</li>
<li><b>Best layer</b>: the best on the dev split where a task scores one, otherwise on the test set itself, which
flatters it. Bold in tables, as is whatever the two intervals, treated as independent, cannot tell from it.</li>
<li><b>Layer k</b> is the raw output of block k; layer 0 is the embedding output (for images, the stem's).</li>
<li><b>Dashed lines</b> are baselines that need no model. A <b>dash or cross</b> over a bar is a baseline of that layer
alone, because chance depends on how large an area a map covers; the legend names each. <b>Hollow bars</b> († in
tables): with at least one seed, a single class is predicted, so the number says little about the layer.</li>
<li>Two bars whose intervals overlap may still differ: comparisons of models are paired on the same items, not read off
this page.</li>
"""


class Section(NamedTuple):
    """A part of the page that its contents name."""

    anchor: str
    title: str
    body: str  #: HTML, below its heading
    css: str = ""  #: its class

    @property
    def html(self) -> str:
        css = f' class="{self.css}"' if self.css else ""
        return f'<section id="{self.anchor}"{css}><h2>{escape(self.title)}</h2>{self.body}</section>'


def write(
    results: Iterable[Result],
    path: Path,
    *,
    dashboard: Dashboard,
    study_note: str = "",
    judged: Mapping[str, Sequence[Judgement]] | None = None,
    files: RunFiles | None = None,
    planned: Planned | None = None,
) -> None:
    """Writes the report of ``results`` to ``path``, whole or not at all.

    Args:
        study_note: a sentence that stands out at the head of the page.
        judged: study → the verdicts of its claims; None: a page without them.
        files: where panels find pictures and each seed's values; None: a page without them.
        planned: what the job table has of these studies; None: there is none, so what is missing is not known.

    Raises:
        ClipstudyError: the file cannot be written.
    """
    text = page(results, dashboard, study_note, judged or {}, files, planned or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ClipstudyError(f"{path}: the report cannot be written ({error.strerror}). Name another --out.") from error


def page(
    results: Iterable[Result],
    dashboard: Dashboard,
    study_note: str = "",
    judged: Mapping[str, Sequence[Judgement]] | None = None,
    files: RunFiles | None = None,
    planned: Planned | None = None,
) -> str:
    """The page's HTML: one study after another, as a task's name may mean something else in each."""
    from plotly.offline import get_plotlyjs

    found = list(results)
    studies = sorted({r.study for r in found})
    colors = inks_of(boards.board(found, dashboard.order))  # a model has one colour on the whole page
    sections: list[Section] = []
    for number, study in enumerate(studies, 1):
        shown = boards.board([r for r in found if r.study == study], dashboard.order)
        # Of several studies, the sections of each have anchors and titles of their own.
        anchor, name = (f"study-{number}-", f"{study}: ") if len(studies) > 1 else ("", "")
        views = [(panel, panels.views(panel, shown)) for panel in dashboard.panels]
        notes = [*shown.notes, *gaps(planned or {}, study, shown), *_unseen(views, shown)]
        about = report_sections.about(shown, notes, study_note, left_out(planned or {}, study, shown))
        sections.append(Section(f"{anchor}about", f"{name}What this is", about))
        asked = [
            Asked(replace(panel, title=f"{name}{panel.title}"), own, shown, colors, f"{anchor}panel-{at}", files)
            for at, (panel, own) in enumerate(views, 1)
            if own
        ]
        sections += [Section(one.anchor, one.panel.title, report_panels.drawn(one), "panel") for one in asked]
        if judgements := (judged or {}).get(study):
            told = report_sections.judged(judgements, shown)
            sections.append(Section(f"{anchor}claims", f"{name}Claims", told))
        sections.append(Section(f"{anchor}sources", f"{name}Models and data", report_sections.sources(shown, colors)))
    sections.append(Section("methods", "What the numbers mean", f"<ul>{METHODS}</ul>"))
    title = dashboard.title + (f": {', '.join(studies)}" if studies else "")
    body = "".join(section.html for section in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{(PAGE / 'page.css').read_text()}</style></head>\n<body>"
        f'<a class="skip" href="#main">Skip to the results</a><header><h1>{escape(title)}</h1>'
        f"{markup.paragraph(dashboard.description)}{markup.callout(study_note)}{_contents(sections)}</header>"
        f'<main id="main">{body}</main>'
        f"<script>{get_plotlyjs()}</script><script>{(PAGE / 'page.js').read_text()}</script></body></html>\n"
    )


# -- parts of the page -------------------------------------------------------------------------------------------


def _unseen(views: Sequence[tuple[Panel, Sequence[View]]], shown: Board) -> list[str]:
    """Notes on panels without results, and on results without a panel.

    Args:
        views: what each panel draws of ``shown``.
    """
    empty = [panel.title for panel, own in views if not own and panel.others is None]
    missed = set(shown.tasks) - {view.task for _, own in views for view in own}
    notes = [f"no result of this study belongs on these panels: {', '.join(empty)}"] if empty else []
    if missed:
        notes.append(f"recorded, but not shown on any panel of this dashboard: {', '.join(sorted(missed))}")
    return notes


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    return f"<nav aria-label=Contents><ul>{links}</ul></nav>"
