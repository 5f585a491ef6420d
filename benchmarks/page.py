"""docs/performance.md's table: one section per topic, each stamped with the run that measured it.

A run of some topics replaces their sections and keeps the others, so that one of them can be measured again without
the hour that all of them take. A quick run never replaces a full one's. Sections of different machines are never on
one page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from benchmarks.figures import Row, table

MARKS = ("<!-- bench: begin -->", "<!-- bench: end -->")
#: How the stamp of a run begins.
QUICK, FULL = "Quick run", "Full run"
_SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)


def filled(
    text: str, found: Mapping[str, Sequence[Row]], stamp: str, machine: Mapping[str, str], order: Sequence[str]
) -> str:
    """``text`` of the page with the sections of ``found`` in place of its own.

    Args:
        found: title of a section → its rows; one without rows leaves what the page has.
        stamp: says which run measured them.
        machine: what it ran on, by name.
        order: the titles that the page may have.

    Raises:
        ValueError: the page has no marks.
    """
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"the page has no {' … '.join(MARKS)}")
    head, rest = text.split(MARKS[0])
    inside, tail = rest.split(MARKS[1])
    facts = "".join(f"- {name}: {value}\n" for name, value in machine.items())
    sections = dict(_SECTION.findall(inside)) if facts in inside else {}
    for title, rows in found.items():
        if rows and not (stamp.startswith(QUICK) and sections.get(title, "").strip().startswith(FULL)):
            sections[title] = f"\n{stamp}.\n\n{table(rows)}\n"
    body = "".join(f"### {title}\n{sections[title].rstrip()}\n\n" for title in order if title in sections)
    missed = body.count("**not met**")
    bounds = missed + len(re.findall(r"\| met \|", body))
    absent = [title for title in order if title not in sections]
    said = f"{bounds - missed} of {bounds} bounds are met."
    if absent:
        said += f" Not measured on this machine: {', '.join(absent)}."
    return f"{head}{MARKS[0]}\n\n{said}\n\n{facts}\n{body}{MARKS[1]}{tail}"
