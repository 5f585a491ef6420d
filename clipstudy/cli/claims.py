"""Commands that hold results against what others said: claims, published."""

from __future__ import annotations

import fnmatch
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipstudy.cli import results, screen, selecting, stores
from clipstudy.cli.options import Json, Study
from clipstudy.errors import ClipstudyError, nearest
from clipstudy.job import Selection
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from clipstudy.published import Published
    from clipstudy.results.comparisons import Comparison
    from clipstudy.results.verdicts import Row


#: Of a number's row; and those that are said once where a source's rows have them in common.
COLUMNS = ("task", "model", "layers", "metric", "value", "known from", "data", "method")
COMMON = ("model", "layers", "metric", "known from", "data", "method")


def claims(study: Study = None, as_json: Json = False) -> None:
    """Judge the course report's claims by what is recorded: verdict, statistic with its 95% interval, p and n."""
    from clipstudy.results import boards, evidence, verdicts
    from clipstudy.tracking import open as open_tracking

    found, settings = results.recorded(study), Settings.read()
    planned = stores.planned(settings, Selection(study=selecting.study_name(study)))
    tracking = open_tracking(settings)
    judged = evidence.judged(found, tracking.artifact, planned, tracking.gone())
    about = {name: boards.note_of([r for r in found if r.study == name]) for name in judged}
    if as_json:
        rows = [{"study": name, "about": about[name], **verdicts.plain(j)} for name, js in judged.items() for j in js]
        typer.echo(json.dumps(rows))
        return
    shown: dict[str, list[Row]] = {}
    short = False
    for name, judgements in judged.items():
        typer.echo(f"\n{name}: {verdicts.totals(judgements)}")
        if about[name]:
            typer.echo(about[name])
        if unplayed := verdicts.unplayed(judgements):
            typer.echo(unplayed)
            continue
        shown[name] = verdicts.rows(judgements)
        for _, same_claim in itertools.groupby(shown[name], lambda row: row.claim):
            short |= _print_claim(list(same_claim))
    if shown:
        typer.echo(f"\n{verdicts.KEY}\n{verdicts.METHOD}")
        if short:
            typer.echo("To read the full quotations: clipstudy claims --json")
        typer.echo(_goes_on(shown))


def _goes_on(shown: Mapping[str, Iterable[Row]]) -> str:
    """What to type after the claims ``shown`` of each study: what runs what was not run, or what draws it all."""
    commands = {row.todo for rows in shown.values() for row in rows if row.todo}
    if not commands:
        return f"With the figures: {shlex.join(['clipstudy', 'report', '--study', next(iter(shown))])}"
    own = any(command.startswith("clipstudy enqueue") and "--study" not in command for command in commands)
    file = ", with --study FILE where the study is not tasks.toml" if own else ""
    return f"To run what is not run, type what follows its →{file}; then: clipstudy worker --drain; clipstudy claims"


def _print_claim(rows: list[Row]) -> bool:
    """A claim in the course report's words, and under it the verdict for each choice of models and what that hangs on.
    Were the words too many for a line?"""
    from clipstudy.results import verdicts

    head = f"{rows[0].claim:<4} "
    quoted = screen.shortened(rows[0].quote, len(head) + 2)
    typer.echo(f'{head}"{quoted}"')
    margin = " " * len(head)
    for row in rows:
        reasons = [row.why]
        if row.statistic:
            decided = f"{row.statistic} ({row.models}); {verdicts.MARGIN.lower()} {row.value}, p {row.p}, n {row.n}"
            reasons = [decided, row.conditions, row.why]
        typer.echo(margin + screen.paragraph(f"{row.verdict}: {'. '.join(filter(None, reasons))}.", len(margin)))
        if row.todo:
            typer.echo(f"{margin}→ {row.todo}")  # one line, to be copied
    return quoted.endswith(" …")


def published(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK|MODEL]…", help="Only these tasks or models, by shell pattern.")
    ] = None,
    study: Study = None,
    as_json: Json = False,
) -> None:
    """List published numbers, each with its source, next to what was measured where a model plays the role."""
    from clipstudy import published as numbers
    from clipstudy.errors import NoResults
    from clipstudy.results import comparisons

    shown = _named(numbers.load(), names or [])
    try:
        measured = comparisons.compared(results.recorded(study), shown)
    except NoResults:
        if study is not None:
            raise
        measured = []  # the numbers are worth reading before anything is measured
    if as_json:
        plain = [{**asdict(n), "comparable": n.comparable, "verified": n.verified, "share": n.share} for n in shown]
        typer.echo(json.dumps({"published": plain, "compared": [_plain(c) for c in measured]}))
        return
    sources: dict[str, list[list[str]]] = {}
    for curve in numbers.curves(shown):
        sources.setdefault(_source(curve[0]), []).append(_row(curve))
    for source, rows in sources.items():
        _print_source(source, rows)
    typer.echo('known from: "memory" means that it was not read again; no result is judged by it')
    typer.echo("data, method: are they the study's own? Only the same data and the same or a near method compare")
    if measured:
        typer.echo("\nMeasured here")
        head = ["task", "layer", "model", "measured", "published", "difference", "tolerance", "compares", "source"]
        screen.table(head, [_beside(c) for c in measured])
    else:
        typer.echo(
            "\nNo result recorded here has the role, task, metric and layer of a published number. Studies of "
            "stand-ins, and of data sets with a limit, are not compared."
        )


def _named(found: tuple[Published, ...], names: list[str]) -> list[Published]:
    """Those of the tasks or models named. Raises ClipstudyError, which says what there is."""
    tasks = {number.task for number in found}
    models = {name for number in found for name in (number.model, number.role) if name}
    for pattern in names:
        if not fnmatch.filter(tasks | models, pattern):
            raise ClipstudyError(
                f'No published number has the task or model "{pattern}". {nearest(pattern, tasks | models)}'
                f"What exists:\n  tasks: {', '.join(sorted(tasks))}\n  models: {', '.join(sorted(models))}"
            )
    return [n for n in found if not names or any(_is(n, pattern) for pattern in names)]


def _is(number: Published, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (number.task, number.model, number.role))


def _print_source(source: str, rows: list[list[str]]) -> None:
    """The numbers of one source; what they have in common is said above them."""
    columns = list(zip(COLUMNS, *rows, strict=True))
    alike = [len(set(cells)) == 1 and name in COMMON for name, *cells in columns]
    common = [f"{name}: {cell}" for same, (name, cell, *_) in zip(alike, columns, strict=True) if same and cell]
    typer.echo(screen.paragraph(source, 2))
    if common:
        typer.echo("  " + screen.paragraph("; ".join(common), 2))
    head, *body = zip(*(column for same, column in zip(alike, columns, strict=True) if not same), strict=True)
    screen.table(list(head), [list(row) for row in body])
    typer.echo()


def _row(curve: tuple[Published, ...]) -> list[str]:
    """One number, or one for each layer."""
    first = curve[0]
    layers = "" if first.layer < 0 else str(first.layer)
    if len(curve) > 1:
        layers += f"–{curve[-1].layer}"
    known = first.read if first.verified else f"{first.read} (unverified)"
    value = " ".join(map(_value, curve)) + ("%" if first.unit == "percent" else "")
    return [first.task, first.model, layers, first.metric, value, known, first.data, first.method]


def _value(number: Published) -> str:
    upper = "" if number.upper is None else f"–{number.upper:g}"
    spread = "" if number.spread is None else f" ± {number.spread:g}"
    return f"{number.value:g}{upper}{spread}"


def _source(number: Published) -> str:
    return f"{number.place}: {number.note}" if number.note else number.place


def _beside(comparison: Comparison) -> list[str]:
    from clipstudy.results import units

    number = comparison.number
    metric = units.unit(number.metric)
    apart, within, compares = "–", "–", "no: from memory"
    if comparison.difference is not None:
        apart = metric.text(comparison.difference, "+")
        within = f"{'inside' if comparison.inside else 'outside'} ± {metric.text(number.tolerance)}"
        compares = "yes" if number.comparable else f"no: data {number.data}, method {number.method}"
    return [
        number.task,
        "" if number.layer < 0 else str(number.layer),
        comparison.model,
        units.shown_value(comparison.measured, number.metric),
        "–".join(dict.fromkeys(map(metric.text, number.ends))) + ("" if number.verified else " (from memory)"),
        apart,
        within,
        compares,
        number.place,
    ]


def _plain(comparison: Comparison) -> dict[str, Any]:
    number = comparison.number
    return {
        "study": comparison.study,
        "model": comparison.model,
        "task": number.task,
        "layer": number.layer,
        "metric": number.metric,
        "measured": asdict(comparison.measured),
        "published": number.share,
        "published_upper": number.ends[1],
        "source": number.place,
        "from_memory": not number.verified,
        "comparable": number.comparable,
        "difference": comparison.difference,
        "tolerance": number.tolerance,
        "inside": comparison.inside,
    }
