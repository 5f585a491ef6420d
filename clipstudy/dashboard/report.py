"""One self-contained HTML page: charts, tables with their downloads, what the numbers are. Needs no network."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from clipstudy.claims import Judgement
from clipstudy.dashboard import beside, charts, heat, panels, sheets, tables, verdicts, writers
from clipstudy.dashboard.charts import Figure, Ink
from clipstudy.dashboard.kept import Kept, seeded
from clipstudy.dashboard.panels import Dashboard, Panel
from clipstudy.dashboard.planned import Planned, gaps, left_out
from clipstudy.dashboard.sheets import Sheet
from clipstudy.dashboard.tables import Board, Curve, View
from clipstudy.errors import ClipstudyError
from clipstudy.outcome import Result

PAGE = Path(__file__).with_name("page")
#: The page may run what is in it and fetch nothing, whatever a name in it says.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

METHODS = """
<li><b>Intervals</b> are 95% intervals, recorded with each run by the task itself: for probes a bootstrap over probe
seeds and test items, for clusterings quantiles over span samples and k-means seeds. Tables give half the width
(±).</li>
<li><b>Untrained twins</b> are pooled over their initialisations: the mean, with se² = variance between initialisations
/ k + mean se² within a run (the test items are the same for all, so this part is not divided by k).</li>
<li><b>Averages</b> are plain means over tasks, for tasks and layers that every model shown has; se² = Σ se² / T².</li>
<li><b>Best layer</b>: the best on the development set where a task scores one, otherwise on the test set itself, which
flatters it. Bold in tables, with whatever the two intervals, taken as independent, cannot tell from it.</li>
<li><b>Layer k</b> is the raw output of block k; layer 0 the embedding output (for images the stem's).</li>
<li><b>Dashed lines</b> are baselines that need no model. <b>Hollow bars</b> († in tables): at least one probe predicts
one class only, so the number says little about the layer.</li>
<li>Two bars whose intervals overlap may still differ: comparisons of models are paired on the same items, not read off
this page.</li>
"""


@dataclass(frozen=True)
class Download:
    """A way to take a table away."""

    name: str
    ending: str
    mime: str
    write: Callable[[View], str]


class Section(NamedTuple):
    """A part of the page that its contents name."""

    anchor: str
    title: str
    html: str


@dataclass(frozen=True)
class Asked:
    """A panel and what it is drawn from."""

    panel: Panel
    views: Sequence[View]
    shown: Board  #: of the panel's study
    colors: Mapping[str, Ink]
    anchor: str
    kept: Kept | None


DOWNLOADS = (
    Download("CSV", "csv", "text/csv", writers.to_csv),
    Download("LaTeX", "tex", "application/x-tex", writers.to_latex),
    Download("Markdown", "md", "text/markdown", writers.to_markdown),
    Download("JSON", "json", "application/json", writers.to_json),
)


def write(
    results: Iterable[Result],
    path: Path,
    *,
    dashboard: Dashboard,
    study_note: str = "",
    judged: Mapping[str, Sequence[Judgement]] | None = None,
    kept: Kept | None = None,
    planned: Planned | None = None,
) -> None:
    """Writes the report of ``results`` to ``path``, whole or not at all.

    Args:
        study_note: a sentence that stands out at the head of the page.
        judged: study → the verdicts of its claims; None: a page without them.
        kept: where panels find pictures and each seed's values; None: a page without them.
        planned: what the job table has of these studies; None: there is none, so what is missing is not known.

    Raises:
        ClipstudyError: the file cannot be written.
    """
    text = page(results, dashboard, study_note, judged or {}, kept, planned or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ClipstudyError(f"{path}: the report cannot be written ({error.strerror}). Name another file.") from error


def page(
    results: Iterable[Result],
    dashboard: Dashboard,
    study_note: str = "",
    judged: Mapping[str, Sequence[Judgement]] | None = None,
    kept: Kept | None = None,
    planned: Planned | None = None,
) -> str:
    """The page's HTML: one study after another, as a task's name may mean something else in each."""
    from plotly.offline import get_plotlyjs

    found = list(results)
    studies = sorted({r.study for r in found})
    colors = charts.inks(tables.board(found, dashboard.order))  # a model has one colour on the whole page
    sections: list[Section] = []
    for number, study in enumerate(studies, 1):
        shown = tables.board([r for r in found if r.study == study], dashboard.order)
        anchor, name = (f"study-{number}-", f"{study}: ") if len(studies) > 1 else ("", "")
        gone = left_out(planned or {}, study, shown)
        shown = replace(shown, notes=(*shown.notes, *gaps(planned or {}, study, shown)))
        sections += _study(shown, dashboard, colors, anchor, name, study_note, gone, kept)
        if judgements := (judged or {}).get(study):
            at, title = f"{anchor}claims", f"{name}Claims"
            sections.append(Section(at, title, _claims(judgements, shown, at, title)))
    title = dashboard.title + (f": {', '.join(studies)}" if studies else "")
    body = "".join(section.html for section in sections) or _nothing()
    script = f"<script>{get_plotlyjs()}</script>" if sections else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{(PAGE / 'page.css').read_text()}</style></head>\n<body>"
        f'<a class="skip" href="#main">Skip to the results</a><header><h1>{escape(title)}</h1>'
        f"{_paragraph(dashboard.description)}{_callout(study_note)}{_contents(sections)}</header>"
        f'<main id="main">{body}'
        f'<section id="methods"><h2>What the numbers are</h2><ul>{METHODS}</ul></section></main>'
        f"{script}<script>{(PAGE / 'page.js').read_text()}</script></body></html>\n"
    )


# -- parts of the page -------------------------------------------------------------------------------------------


def _study(
    shown: Board,
    dashboard: Dashboard,
    colors: Mapping[str, Ink],
    anchor: str,
    name: str,
    study_note: str,
    gone: str,
    kept: Kept | None,
) -> list[Section]:
    """What one study holds, then its panels; ``anchor`` and ``name`` tell its sections from another study's."""
    parts, unseen, empty = [], set(shown.tasks), []
    for number, panel in enumerate(dashboard.panels, 1):
        found = panels.views(panel, shown)
        unseen -= {view.task for view in found}
        if found:
            titled = replace(panel, title=f"{name}{panel.title}")
            at = f"{anchor}panel-{number}"
            parts.append(Section(at, titled.title, _panel(Asked(titled, found, shown, colors, at, kept))))
        else:
            empty.append(panel.title)
    notes = list(shown.notes)
    if empty:
        notes.append(f"no result yet for the panels {', '.join(empty)}")
    if unseen:
        notes.append(f"recorded, but on none of this dashboard's panels: {', '.join(sorted(unseen))}")
    at, title = f"{anchor}about", f"{name}What this is"
    return [Section(at, title, _about(shown, notes, colors, at, title, study_note, gone)), *parts]


def _about(
    shown: Board,
    notes: Sequence[str],
    colors: Mapping[str, Ink],
    anchor: str,
    title: str,
    study_note: str,
    gone: str,
) -> str:
    ended = sorted(r.tags["ended"] for r in shown.results if r.tags.get("ended"))
    when = ""
    if ended:
        days = sorted({ended[0][:10], ended[-1][:10]})
        when = f" Measured {' to '.join(days)} (UTC)."
    inits = len({r.model for r in shown.results})
    facts = (
        f"{_count(len(shown.results), 'result')}: {_count(len(shown.families), 'model')}"
        f"{f' ({inits} with each initialisation counted)' if inits > len(shown.families) else ''}, "
        f"{_count(len(shown.tasks), 'task')}.{when}"
    )
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    count = f"{_count(len(notes), 'note')} on missing cells and older settings"
    # A few are read at once; many would push the charts off the page.
    noted = f"<details{' open' * (len(notes) <= 5)}><summary>{count}</summary><ul>{listed}</ul></details>" * bool(notes)
    said = tables.note_of(shown.results)
    note = _callout("" if said in study_note else said) + _callout(gone)  # the head of the page says the first
    about = _paragraph(tables.note_of(shown.results, "description"))
    return (
        f'<section id="{anchor}"><h2>{escape(title)}</h2>{note}{about}<p>{escape(facts)}</p>{noted}'
        f"{_models(shown, colors)}{_datasets(shown)}</section>"
    )


def _models(shown: Board, colors: Mapping[str, Ink]) -> str:
    lines = []
    for family in shown.families:
        members = [r for r in shown.results if tables.family_of(r) == family]
        first = members[0]
        weights = _several(r.params.get("model.pretrained", "") for r in members)
        checkpoint = _several(r.params.get("model.checkpoint", "") for r in members)
        untrained = first.tags.get("init") == "random"
        inits = len({r.model for r in members})
        kind = f"untrained, {_count(inits, 'initialisation')}" if untrained else "pretrained"
        identity = _several(r.params.get("resolved.checkpoint") or r.params.get("model.revision", "") for r in members)
        lines.append(
            f"<tr><th scope=row>{_swatch(colors[family])}{escape(first.tags.get('model_title') or family)}</th>"
            f"<td>{_code(checkpoint)}{' ' + _code(weights) if weights else ''}</td><td>{_code(identity, 24)}</td>"
            f"<td class=number>{escape(first.tags.get('blocks', ''))}</td><td>{escape(kind)}</td></tr>"
        )
    head = "<tr><th>Model</th><th>Checkpoint</th><th>Weights resolved to</th><th class=number>Blocks</th><th></th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _datasets(shown: Board) -> str:
    lines = []
    for name in sorted({r.tags.get("dataset", "") for r in shown.results}):
        members = [r for r in shown.results if r.tags.get("dataset", "") == name]
        source = _several(
            r.params.get("resolved.source") or r.params.get("dataset.hub") or r.params.get("dataset.path", "")
            for r in members
        )
        revision = _several(r.params.get("resolved.data") or r.params.get("dataset.revision", "") for r in members)
        counts = []
        for split in ("train", "test"):
            found = sorted({round(r.metrics[f"items/{split}"].value) for r in members if f"items/{split}" in r.metrics})
            counts.append(f"{found[0]:,}" + (f"–{found[-1]:,}" if len(found) > 1 else "") if found else "")
        lines.append(
            f"<tr><th scope=row>{escape(name)}</th><td>{_code(source)}</td><td>{_code(revision, 24)}</td>"
            f"<td class=number>{counts[0]}</td><td class=number>{counts[1]}</td></tr>"
        )
    head = (
        "<tr><th>Data set</th><th>Source</th><th>Fingerprint or revision</th>"
        "<th class=number>n train</th><th class=number>n test</th></tr>"
    )
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _claims(judgements: Sequence[Judgement], shown: Board, anchor: str, title: str) -> str:
    """What was judged as one table; what was not, folded up, with what it lacks."""
    told, silent = [], []
    for judgement, row in zip(judgements, verdicts.rows(judgements), strict=True):
        said = f"<th scope=row class=quote><b>{row.claim}</b> “{escape(row.quote)}”"
        if judgement.deciding is None:
            todo = f" <code>{escape(row.todo)}</code>" if row.todo else ""
            silent.append(f"<tr>{said}</th><td>{escape(row.verdict)}</td><td>{escape(row.why)}{todo}</td></tr>")
            continue
        remark = f"<br><small>{escape(row.why)}</small>" if row.why else ""
        told.append(
            f"<tr>{said}<br><small>{escape(row.models)}: {escape(row.compared)}</small></th>"
            f'<td class="verdict {row.verdict}">{escape(row.verdict)}</td><td>{escape(row.statistic)}{remark}</td>'
            f"<td class=number>{escape(row.value)}</td><td class=number>{escape(row.p)}</td>"
            f"<td class=number>{escape(row.n)}</td></tr>"
        )
    head = (
        "<tr><th>Claim, and what was compared</th><th>Verdict</th><th>Decided by</th>"
        f"<th class=number>{verdicts.MARGIN}</th><th class=number>p</th><th class=number>n</th></tr>"
    )
    table = (
        f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(told)}</tbody></table></div>' if told else ""
    )
    rest = (
        f"<details><summary>{_count(len(silent), 'claim')} not run or not testable here</summary>"
        '<div class="wide"><table><thead><tr><th>Claim</th><th>Verdict</th><th>Why</th></tr></thead>'
        f"<tbody>{''.join(silent)}</tbody></table></div></details>"
    ) * bool(silent)
    return (
        f'<section id="{anchor}"><h2>{escape(title)}</h2>{_callout(verdicts.subject(shown.results))}'
        f"<p>{escape(verdicts.counted(judgements))}. {escape(verdicts.KEY)}</p>{table}{rest}"
        f"{_paragraph(verdicts.METHOD)}</section>"
    )


def _panel(asked: Asked) -> str:
    panel = asked.panel
    body = {
        "bars": _bars,
        "heatmap": _heatmaps,
        "best": _best_layers,
        "published": _published,
        "pictures": _pictures,
    }[panel.draw](asked)
    head = f"<h2>{escape(panel.title)}</h2>{_paragraph(panel.caption)}"
    return f'<section id="{asked.anchor}" class="panel">{head}{body}</section>'


def _bars(asked: Asked) -> str:
    found = [beside.levelled(beside.marked(view), asked.shown) for view in asked.views]
    if asked.panel.seeds and asked.kept is not None:
        found = [seeded(view, asked.kept) for view in found]
    mean, notes = panels.averaged(asked.panel, found)
    everything = ([mean] if mean else []) + found
    families = {curve.family: curve for view in found for curve in view.curves}
    legend = "".join(f"<li>{_swatch(asked.colors[f])}{escape(c.title)}</li>" for f, c in families.items())
    legend += "".join(f"<li>{escape(text)}</li>" for text in charts.signs(found))
    # Two charts a row; what would leave a gap in the last one, a lone chart or the average, gets a row of its own.
    wide = len(everything) % 2 == 1 and (mean is not None or len(everything) == 1)
    figures = "".join(
        _figure(view, asked.panel, asked.colors, f"{asked.anchor}-{i}", wide and i == 0)
        for i, view in enumerate(everything)
    )
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f'<ul class="legend">{legend}</ul>{_summary(everything)}'
        f'{f"<ul class=notes>{remarks}</ul>" if remarks else ""}<div class="figures">{figures}</div>'
    )


def _heatmaps(asked: Asked) -> str:
    maps = [found for view in asked.views for found in heat.likenesses(view, asked.shown)]
    if not maps:
        return _paragraph("No run of these tasks compared layers one by one.")
    drawn = []
    for i, found in enumerate(maps):
        info, sheet = heat.info(found), sheets.likeness(found)
        label = (
            f"{info.title}: CKA of each layer with each of {found.reference}. The table below holds the same numbers."
        )
        table = f"<details><summary>Table</summary>{_sheet(sheet)}</details>{_taken(sheet, found.study)}"
        drawn.append(_chart(heat.figure(info), label, table, f"{asked.anchor}-{i}"))
    return f'<p>{escape(heat.SIGNS)}</p><div class="figures maps">{"".join(drawn)}</div>'


def _best_layers(asked: Asked) -> str:
    return _said(sheets.best(asked.views), _study_of(asked.views))


def _published(asked: Asked) -> str:
    tasks = {view.task for view in asked.views}
    numbers = [number for number in beside.numbers(asked.panel.source) if number.task in tasks]
    return _said(sheets.published(panels.narrowed(asked.panel, asked.shown), numbers), _study_of(asked.views))


def _pictures(asked: Asked) -> str:
    """Pictures of each task, layers down and models across, as the gallery has them."""
    if asked.kept is None:
        return _paragraph("This page was made without the runs' pictures.")
    albums = "".join(_album(view, asked.panel, asked.colors, asked.kept) for view in asked.views)
    return albums or _paragraph("No run of these tasks keeps such a picture.")


def _album(view: View, panel: Panel, colors: Mapping[str, Ink], kept: Kept) -> str:
    figures = []
    for layer in view.layers:
        for curve in view.curves:
            runs = [run for cell in curve.cells if cell.layer == layer for run in cell.runs[:1]]
            caption = f"{_swatch(colors[curve.family])}{escape(curve.title)}, layer {layer}"
            for run in runs:
                for name in kept.pictures(run, panel.picture):
                    if content := kept.picture(run, name):
                        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
                        alt = f"{curve.title}, {run.tags.get('layer_label', layer)}: {name}"
                        image = f'<img src="{source}" alt="{escape(alt)}">'
                        figures.append(f"<figure><figcaption>{caption}</figcaption>{image}</figure>")
    heading = f"<h3>{escape(view.title)}</h3>{_callout(view.note)}"
    return f'{heading}<div class="album">{"".join(figures)}</div>' if figures else ""


def _said(sheet: Sheet, study: str) -> str:
    return f"{_paragraph(f'{sheet.said}.')}{_sheet(sheet)}{_taken(sheet, study)}"


def _sheet(sheet: Sheet) -> str:
    """A sheet as a table; numbers stand right, texts left."""
    sides = ["number" if numbers else "text" for numbers in sheet.numbers]
    head = "".join(f"<th class={side}>{escape(t)}</th>" for side, t in zip(sides, sheet.head[1:], strict=True))
    lines = []
    for name, entries in sheet.lines:
        cells = zip(sides, entries, strict=True)
        texts = "".join(f"<td class='{side}{' best' * e.bold}'>{escape(e.text)}</td>" for side, e in cells)
        lines.append(f"<tr><th scope=row>{escape(name)}</th>{texts}</tr>")
    caption = sheet.title + (f". {sheet.note}" if sheet.note else "")
    return (
        f"<div class=wide><table><caption>{escape(caption)}</caption>"
        f"<thead><tr><th>{escape(sheet.head[0])}</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _summary(found: Sequence[View]) -> str:
    """The panel at a glance: each task's best layer for each model."""
    titles = dict.fromkeys(curve.family for view in found for curve in view.curves)
    names = {curve.family: curve.title for view in found for curve in view.curves}
    lines = []
    for view in found:
        if not tables.better(view.metric):
            continue
        at = {curve.family: curve for curve in view.curves}
        cells = "".join(f"<td class=number>{_best(at.get(family), view.metric)}</td>" for family in titles)
        lines.append(
            f"<tr><th scope=row>{escape(view.title)}<br><small>{escape(tables.axis_title(view.metric))}</small></th>"
            f"{cells}</tr>"
        )
    if not lines:
        return ""
    head = "".join(f"<th class=number>{escape(names[family])}</th>" for family in titles)
    return (
        f'<div class="wide"><table><caption>Best layer: value ± half of the 95% interval, at which layer</caption>'
        f"<thead><tr><th>Task</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _best(curve: Curve | None, metric: str) -> str:
    if curve is None or (cell := curve.chosen) is None:
        return "—"
    mark = "†" if cell.one_class else ""
    where = f"<small>layer {cell.layer}</small>" if curve.best is not None else f"<small>{escape(cell.label)}</small>"
    return f"{escape(tables.shown_value(cell.estimate, metric))}{mark}<br>{where}"


def _figure(view: View, panel: Panel, colors: Mapping[str, Ink], anchor: str, full: bool) -> str:
    missing = [f"{curve.title} {tables.ranges(curve.missing)}" for curve in view.curves if curve.missing]
    note = f"Not there yet: {'; '.join(missing)}. " if missing else ""
    sources = "; ".join(dict.fromkeys(mark.source for mark in view.marks))
    caption = _paragraph(note + view.caption + (f" ◆ ◇ {sources}." if sources else ""))
    label = f"{view.title}: {tables.axis_title(view.metric)} by layer. The table below holds the same numbers."
    drawn = charts.bars(view, colors, panel.x, legend=False, wide=full)
    return _chart(drawn, label, caption + _table(view), anchor, full)


def _chart(figure: Figure, label: str, below: str, anchor: str, full: bool = False) -> str:
    from plotly.io.json import to_json_plotly

    return (
        f'<figure id="{anchor}"{" class=full" if full else ""}>'
        f'<div class="chart" role="img" aria-label="{escape(label)}"></div>'
        f'<script type="application/json" class="figure">{_inert(to_json_plotly(figure))}</script>{below}</figure>'
    )


def _table(view: View) -> str:
    header, body = writers.grid(view)
    head = "".join(f"<th class=number>{escape(title)}</th>" for title in header)
    lines = []
    for name, cells in body:
        texts = "".join(f"<td class='number{' best' * best}'>{escape(text)}</td>" for text, best in cells)
        lines.append(f"<tr><th scope=row>{escape(name)}</th>{texts}</tr>")
    caption = f"{view.title}, {tables.axis_title(view.metric)}{writers.bold(view)}" + f". {view.note}" * bool(view.note)
    return (
        f"<details><summary>Table</summary><div class=wide><table><caption>{escape(caption)}</caption>"
        f"<thead><tr><th>Layer</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></details><p class=downloads>{_downloads(view)}</p>"
    )


def _downloads(view: View) -> str:
    named = writers.file_name(_study_of([view]), view.task or view.title, view.metric)
    return " · ".join(_download(named, view.title, d.name, d.ending, d.mime, d.write(view)) for d in DOWNLOADS)


def _taken(sheet: Sheet, study: str) -> str:
    named = writers.file_name(study, sheet.title)
    links = (
        _download(named, sheet.title, name, ending, mime, write(sheet))
        for name, ending, mime, write in sheets.DOWNLOADS
    )
    return f"<p class=downloads>{' · '.join(links)}</p>"


def _download(named: str, title: str, name: str, ending: str, mime: str, text: str) -> str:
    return (
        f'<a download="{escape(named)}.{ending}" href="data:{mime};charset=utf-8,{quote(text)}" '
        f'aria-label="{escape(title)} as {name}">{name}</a>'
    )


def _study_of(views: Sequence[View]) -> str:
    return next((curve.study for view in views for curve in view.curves), "")


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    return f"<nav aria-label=Contents><ul>{links}<li><a href='#methods'>What the numbers are</a></li></ul></nav>"


def _nothing() -> str:
    return (
        '<section id="about"><h2>Nothing is recorded yet</h2><p>This page shows what MLflow holds, and it holds no '
        "finished result of this study. Type:</p><pre>clipstudy enqueue --all\nclipstudy worker --drain\n"
        "clipstudy report</pre></section>"
    )


def _swatch(ink: Ink) -> str:
    style = ";".join(f"{name}:{value}" for name, value in ink.style.items())
    return f'<span class="{ink.classes}" style="{style}"></span>'


def _callout(note: str) -> str:
    return f'<p class="callout" role="note">{escape(note)}</p>' if note else ""


def _paragraph(text: str) -> str:
    return f"<p>{escape(text.strip())}</p>" if text.strip() else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _several(values: Iterable[str]) -> str:
    """The one value, or the commonest and how many others there are."""
    counted = Counter(value for value in values if value)
    if not counted:
        return ""
    first = counted.most_common(1)[0][0]
    return first if len(counted) == 1 else f"{first} (+{len(counted) - 1})"


def _code(text: str, longest: int = 60) -> str:
    if not text:
        return ""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return f'<code title="{escape(text)}">{escape(short)}</code>'


def _inert(json_text: str) -> str:
    """JSON that no name in it can end early, for a script element."""
    for character in "<>&\u2028\u2029":
        json_text = json_text.replace(character, f"\\u{ord(character):04x}")
    return json_text
