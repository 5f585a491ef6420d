"""Pieces of the report's HTML. Every name goes in as text; none is taken for HTML. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import TypeVar
from urllib.parse import quote

from clipstudy.dashboard.inks import Ink
from clipstudy.results import sheets, writers
from clipstudy.results.sheets import Sheet
from clipstudy.results.writers import Download

T = TypeVar("T")

#: Characters of a text under a picture that are shown at once, and what stands before a longer one.
SHORT, EACH = 500, "each image, row by row"


def swatch(ink: Ink) -> str:
    style = ";".join(f"{name}:{value}" for name, value in ink.style.items())
    return f'<span class="{ink.classes}" style="{style}"></span>'


def callout(note: str) -> str:
    return f'<p class="callout" role="note">{escape(note)}</p>' if note else ""


def paragraph(text: str) -> str:
    return f"<p>{escape(text.strip())}</p>" if text.strip() else ""


def explained(title: str, captions: str) -> str:
    """What a picture's file says of it, under it: drawn into it, words cannot be read aloud."""
    said = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    each = escape(captions)
    if len(captions) > SHORT:
        each = f"<details><summary>{EACH}</summary>{each}</details>"
    return said + (f"<figcaption>{each}</figcaption>" if captions else "")


def several(values: Iterable[str]) -> str:
    """The one value, or the commonest and how many others there are."""
    counted = Counter(value for value in values if value)
    if not counted:
        return ""
    first = counted.most_common(1)[0][0]
    return first if len(counted) == 1 else f"{first} (+{len(counted) - 1})"


def code(text: str, longest: int = 60) -> str:
    if not text:
        return ""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return f'<code title="{escape(text)}">{escape(short)}</code>'


def inert(json_text: str) -> str:
    """JSON that no name in it can end early, for a script element."""
    for character in "<>&\u2028\u2029":
        json_text = json_text.replace(character, f"\\u{ord(character):04x}")
    return json_text


def table(sheet: Sheet) -> str:
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


def downloads(content: T, ways: Iterable[Download[T]], named: str, title: str) -> str:
    """Links that take ``content`` away.

    Args:
        named: the files, without their endings.
        title: what the content is called where a link is read aloud.
    """
    links = (
        f'<a download="{escape(named)}.{way.ending}" href="data:{way.mime};charset=utf-8,{quote(way.write(content))}" '
        f'aria-label="{escape(title)} as {way.name}">{way.name}</a>'
        for way in ways
    )
    return f"<p class=downloads>{' · '.join(links)}</p>"


def taken(sheet: Sheet, study: str) -> str:
    """:func:`downloads` of a sheet."""
    return downloads(sheet, sheets.DOWNLOADS, writers.file_name(study, sheet.title), sheet.title)
