"""One panel as the report's HTML, below its heading: charts, heat maps, tables or pictures, each with what takes it
away."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from clipstudy.dashboard import charts, heat, markup, panels
from clipstudy.dashboard.charts import Figure
from clipstudy.dashboard.inks import Ink
from clipstudy.dashboard.panels import Panel
from clipstudy.results import comparisons, sheets, units, writers
from clipstudy.results.boards import Board
from clipstudy.results.likeness import likenesses
from clipstudy.results.run_files import RunFiles, seeded
from clipstudy.results.sheets import Sheet
from clipstudy.results.views import Curve, View, models_of


@dataclass(frozen=True)
class Asked:
    """A panel and what it is drawn from."""

    panel: Panel
    views: Sequence[View]
    shown: Board  #: of the panel's study
    colors: Mapping[str, Ink]
    anchor: str  #: of the panel's section; its charts' begin with it
    files: RunFiles | None


def drawn(asked: Asked) -> str:
    """What lies below the panel's heading."""
    panel = asked.panel
    body = {
        "bars": _bars,
        "heatmap": _heatmaps,
        "best": _best_layers,
        "published": _published,
        "pictures": _pictures,
    }[panel.draw](asked)
    return markup.paragraph(panel.caption) + body


def _bars(asked: Asked) -> str:
    found = [comparisons.levelled(comparisons.marked(view), asked.shown) for view in asked.views]
    if asked.panel.seeds and asked.files is not None:
        found = [seeded(view, asked.files) for view in found]
    mean, notes = panels.averaged(asked.panel, found)
    everything = ([mean] if mean else []) + found
    legend = "".join(f"<li>{markup.swatch(asked.colors[c.family])}{escape(c.title)}</li>" for c in models_of(found))
    legend += "".join(f"<li>{escape(text)}</li>" for text in charts.signs(found))
    wide = panels.first_is_wide(len(everything), mean is not None)
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
    maps = [found for view in asked.views for found in likenesses(view, asked.shown)]
    if not maps:
        return markup.paragraph("No run of these tasks compared layers one by one.")
    drawn = []
    for i, found in enumerate(maps):
        sheet = sheets.likeness(found)
        table = f"<details><summary>Table</summary>{markup.table(sheet)}</details>{markup.taken(sheet, found.study)}"
        drawn.append(_chart(heat.figure(heat.info(found)), heat.spoken(found), table, f"{asked.anchor}-{i}"))
    return f'<p>{escape(heat.SIGNS)}</p><div class="figures maps">{"".join(drawn)}</div>'


def _best_layers(asked: Asked) -> str:
    return _said(sheets.best(asked.views), _study_of(asked.views))


def _published(asked: Asked) -> str:
    tasks = {view.task for view in asked.views}
    numbers = [number for number in comparisons.numbers(asked.panel.source) if number.task in tasks]
    shown = panels.narrowed(asked.panel, asked.shown)
    return _said(sheets.beside_published(asked.views, shown, numbers), _study_of(asked.views))


def _pictures(asked: Asked) -> str:
    """Pictures of each task, layers down and models across, as the gallery has them."""
    if asked.files is None:
        return markup.paragraph("This page was made without the runs' pictures.")
    albums = "".join(_album(view, asked.panel, asked.colors, asked.files) for view in asked.views)
    return albums or markup.paragraph("No run of these tasks keeps such a picture.")


def _album(view: View, panel: Panel, colors: Mapping[str, Ink], files: RunFiles) -> str:
    figures = []
    for curve, layer, run, name in files.album(view, panel.picture):
        if content := files.picture(run.run_id, name):
            caption = f"{markup.swatch(colors[curve.family])}{escape(curve.title)}, layer {layer}"
            source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            alt = f"{curve.title}, {run.tags.get('layer_label', layer)}: {name}"
            image = f'<img src="{source}" alt="{escape(alt)}">'
            said = markup.explained(*files.explained(run.run_id, name))
            figures.append(f"<figure><figcaption>{caption}</figcaption>{image}{said}</figure>")
    heading = f"<h3>{escape(view.title)}</h3>{markup.callout(view.note)}"
    return f'{heading}<div class="album">{"".join(figures)}</div>' if figures else ""


def _said(sheet: Sheet, study: str) -> str:
    if not sheet.lines:
        return markup.paragraph(units.sentence(sheet.empty))
    return f"{markup.paragraph(units.sentence(sheet.said))}{markup.table(sheet)}{markup.taken(sheet, study)}"


def _summary(found: Sequence[View]) -> str:
    """The panel at a glance: each task's best layer for each model."""
    titles = {curve.family: curve.title for curve in models_of(found)}
    lines = []
    for view in found:
        if not units.better(view.metric):
            continue
        at = {curve.family: curve for curve in view.curves}
        cells = "".join(f"<td class=number>{_best(at.get(family), view.metric)}</td>" for family in titles)
        lines.append(
            f"<tr><th scope=row>{escape(view.title)}<br><small>{escape(units.axis_title(view.metric))}</small></th>"
            f"{cells}</tr>"
        )
    if not lines:
        return ""
    head = "".join(f"<th class=number>{escape(title)}</th>" for title in titles.values())
    return (
        f'<div class="wide"><table><caption>Best layer of each model: value {units.INTERVAL}, and the layer</caption>'
        f"<thead><tr><th>Task</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _best(curve: Curve | None, metric: str) -> str:
    if curve is None or (cell := curve.chosen) is None:
        return "—"
    mark = "†" if cell.one_class else ""
    where = f"<small>layer {cell.layer}</small>" if curve.best is not None else f"<small>{escape(cell.label)}</small>"
    return f"{escape(units.shown_value(cell.estimate, metric))}{mark}<br>{where}"


def _figure(view: View, panel: Panel, colors: Mapping[str, Ink], anchor: str, full: bool) -> str:
    drawn = charts.bars(view, colors, panel.x, wide=full)
    return _chart(drawn, writers.spoken(view), markup.paragraph(writers.caption(view)) + _table(view), anchor, full)


def _chart(figure: Figure, label: str, below: str, anchor: str, full: bool = False) -> str:
    from plotly.io.json import to_json_plotly

    data = markup.inert(to_json_plotly(figure))
    return (
        f'<figure id="{anchor}"{" class=full" if full else ""}>'
        f'<div class="chart" role="img" aria-label="{escape(label)}"></div>'
        f'<script type="application/json" class="figure">{data}</script>{below}</figure>'
    )


def _table(view: View) -> str:
    sheet = sheets.by_layer(view)
    table = markup.table(replace(sheet, title=writers.over(view), head=("Layer", *sheet.head[1:])))
    named = writers.file_name(_study_of([view]), view.task or view.title, view.metric)
    links = markup.downloads(view, writers.DOWNLOADS, named, view.title)
    return f"<details><summary>Table</summary>{table}</details>{links}"


def _study_of(views: Sequence[View]) -> str:
    return next((curve.study for view in views for curve in view.curves), "")
