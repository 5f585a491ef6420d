"""What the report says of a study in words, below the headings: its models, its data sets, its claims. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from clipstudy.claims import Judgement
from clipstudy.dashboard import markup
from clipstudy.dashboard.inks import Ink
from clipstudy.results import boards, verdicts
from clipstudy.results.boards import Board
from clipstudy.wording import counted


def about(shown: Board, notes: Sequence[str], study_note: str, gone: str) -> str:
    """How much there is and when it was measured; what is missing. What it was made of is :func:`sources`."""
    ended = sorted(r.tags["ended"] for r in shown.results if r.tags.get("ended"))
    when = ""
    if ended:
        days = sorted({ended[0][:10], ended[-1][:10]})
        when = f" Measured {' to '.join(days)} (UTC)."
    inits = len({r.model for r in shown.results})
    facts = (
        f"{counted(len(shown.results), 'result')}: {counted(len(shown.families), 'model')}"
        f"{f' ({inits} counting each initialisation)' if inits > len(shown.families) else ''}, "
        f"{counted(len(shown.tasks), 'task')}.{when}"
    )
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    count = f"{counted(len(notes), 'note')} on what is missing or left out"
    # A few are read at once; many would push the charts off the page.
    noted = f"<details{' open' * (len(notes) <= 5)}><summary>{count}</summary><ul>{listed}</ul></details>" * bool(notes)
    said = boards.note_of(shown.results)
    note = markup.callout("" if said in study_note else said)  # the head of the page says it
    about = markup.paragraph(boards.note_of(shown.results, "description"))
    return f"{note}{markup.callout(gone)}{about}<p>{escape(facts)}</p>{noted}"


def sources(shown: Board, colors: Mapping[str, Ink]) -> str:
    """Which weights and rows the numbers are of, by their fingerprints."""
    return _models(shown, colors) + _datasets(shown)


def _models(shown: Board, colors: Mapping[str, Ink]) -> str:
    lines = []
    for family in shown.families:
        members = [r for r in shown.results if r.family == family]
        first = members[0]
        weights = markup.several(r.params.get("model.pretrained", "") for r in members)
        checkpoint = markup.several(r.params.get("model.checkpoint", "") for r in members)
        untrained = first.tags.get("init") == "random"
        inits = len({r.model for r in members})
        kind = f"untrained, {counted(inits, 'initialisation')}" if untrained else "pretrained"
        identity = markup.several(
            r.params.get("resolved.checkpoint") or r.params.get("model.revision", "") for r in members
        )
        lines.append(
            f"<tr><th scope=row>{markup.swatch(colors[family])}{escape(first.tags.get('model_title') or family)}</th>"
            f"<td>{markup.code(checkpoint)}{' ' + markup.code(weights) if weights else ''}</td>"
            f"<td>{markup.code(identity, 24)}</td>"
            f"<td class=number>{escape(first.tags.get('blocks', ''))}</td><td>{escape(kind)}</td></tr>"
        )
    head = "<tr><th>Model</th><th>Checkpoint</th><th>Weights resolved to</th><th class=number>Blocks</th><th></th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _datasets(shown: Board) -> str:
    lines = []
    for name in sorted({r.tags.get("dataset", "") for r in shown.results}):
        members = [r for r in shown.results if r.tags.get("dataset", "") == name]
        source = markup.several(
            r.params.get("resolved.source") or r.params.get("dataset.hub") or r.params.get("dataset.path", "")
            for r in members
        )
        revision = markup.several(
            r.params.get("resolved.data") or r.params.get("dataset.revision", "") for r in members
        )
        counts = []
        for split in ("train", "test"):
            found = sorted({round(r.metrics[f"items/{split}"].value) for r in members if f"items/{split}" in r.metrics})
            counts.append(f"{found[0]:,}" + (f"–{found[-1]:,}" if len(found) > 1 else "") if found else "")
        lines.append(
            f"<tr><th scope=row>{escape(name)}</th><td>{markup.code(source)}</td><td>{markup.code(revision, 24)}</td>"
            f"<td class=number>{counts[0]}</td><td class=number>{counts[1]}</td></tr>"
        )
    head = (
        "<tr><th>Data set</th><th>Source</th><th>Fingerprint or revision</th>"
        "<th class=number>n train</th><th class=number>n test</th></tr>"
    )
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def judged(judgements: Sequence[Judgement], shown: Board) -> str:
    """What was judged as one table; what was not, folded up, with what it lacks."""
    if unplayed := verdicts.unplayed(judgements):
        return markup.paragraph(unplayed)
    told, silent = [], []
    for judgement, row in zip(judgements, verdicts.rows(judgements), strict=True):
        said = f"<th scope=row class=quote><b>{row.claim}</b> “{escape(row.quote)}”"
        if judgement.deciding is None:
            todo = f" <code>{escape(row.todo)}</code>" if row.todo else ""
            silent.append(f"<tr>{said}</th><td>{escape(row.verdict)}</td><td>{escape(row.why)}{todo}</td></tr>")
            continue
        decisive = f"<br>{escape(row.conditions)}" if row.conditions else ""
        remark = f"<br><small>{escape(row.why)}</small>" if row.why else ""
        told.append(
            f"<tr>{said}<br><small>{escape(row.models)}: {escape(row.compared)}</small></th>"
            f'<td class="verdict {row.verdict}">{escape(row.verdict)}</td>'
            f"<td>{escape(row.statistic)}{decisive}{remark}</td>"
            f"<td class=number>{escape(row.value)}</td><td class=number>{escape(row.p)}</td>"
            f"<td class=number>{escape(row.n)}</td></tr>"
        )
    head = "".join(f"<th{' class=number' * (at > 2)}>{name}</th>" for at, name in enumerate(verdicts.TESTED))
    table = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(told)}</tbody></table></div>'
        if told
        else ""
    )
    head = "".join(f"<th>{name}</th>" for name in verdicts.UNTESTED)
    rest = (
        f"<details><summary>{counted(len(silent), 'verdict')}: not run or not testable here</summary>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(silent)}</tbody></table></div></details>"
    ) * bool(silent)
    return (
        f"{markup.callout(boards.note_of(shown.results))}"
        f"<p>{escape(verdicts.totals(judgements))}. {escape(verdicts.KEY)}</p>{table}{rest}"
        f"{markup.paragraph(verdicts.METHOD)}"
    )
