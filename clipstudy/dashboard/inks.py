"""How a model is drawn, the same in every chart, table and legend. Pure.

A model has one colour everywhere, and from the ninth model on a pattern over it; an untrained twin has its trained
model's hue, lighter and hatched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from clipstudy.results.boards import Board

#: Each at least 3 : 1 against a light page and a dark one, and apart from the others to every kind of colour vision.
PALETTE = ("#0072B2", "#A08010", "#C01080", "#20A0C0", "#F06080", "#9000FF", "#806010", "#A070FF")
#: What is laid over the colours when they come round again: on bars, on lines and as the marks of lines.
PATTERNS = ("", ".", "x", "-", "|")
DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "triangle-up", "cross", "star")
#: Over bars, what needs no model where each layer has its own: Plotly's symbol, and its sign in a legend.
FLOORS = (("line-ew", "–"), ("x-thin", "×"), ("cross-thin", "+"), ("line-ne", "╱"), ("line-nw", "╲"), ("asterisk", "✳"))
#: Those that have the same of these in every chart, as they stand beside each other.
KNOWN_FLOORS = ("random mask", "swapped masks", "centre", "unpaired texts")


class Ink(NamedTuple):
    """How a model is drawn."""

    color: str
    twin: bool = False
    turn: int = 0  #: how often the colours had come round before it: which of ``PATTERNS``

    @property
    def classes(self) -> str:
        """Of its swatch, as the pages' style sheet draws it."""
        return "swatch" + " twin" * self.twin + f" turn-{self.turn}" * bool(self.turn)

    @property
    def style(self) -> dict[str, str]:
        return {"--hue": self.color, "--light": lighter(self.color)}


def inks_of(shown: Board) -> dict[str, Ink]:
    """One ink a family, the same in every chart made with it.

    The towers of one checkpoint are one model and have one ink. Of two families that read a checkpoint's same tower, in
    two ways say, each has its own: they stand beside each other.
    """
    twins = {r.family: r.tags["twin_of"] for r in shown.results if r.tags.get("twin_of")}
    towers = {r.family: (r.params.get("model.checkpoint"), r.tags.get("modality")) for r in shown.results}
    places: dict[str, int] = {}
    taken: dict[tuple[str, str | None], int] = {}
    for family in dict.fromkeys(twins.get(family, family) for family in shown.families):
        checkpoint, modality = towers.get(family, (None, None))
        others = [at for (known, other), at in taken.items() if known == checkpoint and other != modality]
        free = not checkpoint or (checkpoint, modality) in taken or not others
        places[family] = len(set(places.values())) if free else others[0]
        if checkpoint:
            taken.setdefault((checkpoint, modality), places[family])
    return {family: _ink(places[twins.get(family, family)], family in twins) for family in shown.families}


def floors_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Symbol and sign of each of the baselines that a chart draws layer by layer: a known one's own, and for the others
    what is left."""
    there = set(names)
    found = {name: floor for name, floor in zip(KNOWN_FLOORS, FLOORS, strict=False) if name in there}
    free = [floor for floor in FLOORS if floor not in found.values()]
    return found | {name: free[at % len(free)] for at, name in enumerate(sorted(there - found.keys()))}


def lighter(color: str, share: float = 0.55) -> str:
    """``color`` mixed with white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


def _ink(place: int, twin: bool) -> Ink:
    turn, at = divmod(place, len(PALETTE))
    return Ink(PALETTE[at], twin, turn % len(PATTERNS))
