"""What a page shows as its address, so that a link reopens the same view; and back, whatever an address says. Pure.

A place is one frozen value a page. Its fields are of four types: a text, a choice (a ``Literal``, its first word the
default), several texts, or a number; what is at its default is left out of the address. Everything that comes from a
browser, an address or the value of a control, goes through :func:`read`: what is of another type, too long or not one
of the choices becomes the default, and is said.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qs, urlencode

from clipstudy.errors import did_you_mean

#: Characters of a text, texts of a list, and digits of a number that an address may have.
LONGEST, MOST, DIGITS = 300, 100, 12


@dataclass(frozen=True)
class Place:
    """One page and what it shows. An empty text or list means: whatever is there."""

    PATH: ClassVar[str]
    #: Settings that are about what another one chooses, and go back to their defaults when that changes.
    RESETS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    study: str = ""


@dataclass(frozen=True)
class Layers(Place):
    PATH = "/"
    RESETS = {"panel": ("task", "metric")}
    panel: str = ""  #: a panel's title; empty: the dashboard's first that has results
    task: tuple[str, ...] = ()  #: names; empty: the panel's
    model: tuple[str, ...] = ()  #: families; empty: all
    metric: str = ""  #: empty: what the panel says
    x: Literal["panel", "layer", "stage", "depth"] = "panel"
    draw: Literal["tasks", "average"] = "tasks"  #: small multiples, or the mean of the tasks alone
    seeds: Literal["panel", "hidden", "points"] = "panel"  #: each seed's own value


@dataclass(frozen=True)
class Tables(Place):
    PATH = "/tables"
    table: Literal["best", "layers", "differences", "published"] = "best"
    task: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    metric: str = ""
    first: str = ""  #: differences: this family …
    second: str = ""  #: … minus this one
    source: tuple[str, ...] = ()  #: published: papers; empty: all


@dataclass(frozen=True)
class Claims(Place):
    PATH = "/claims"
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gallery(Place):
    PATH = "/gallery"
    RESETS = {"task": ("layer", "picture")}
    task: str = ""
    model: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()
    picture: str = ""  #: an artifact's path


@dataclass(frozen=True)
class Runs(Place):
    PATH = "/runs"
    first: str = ""
    second: str = ""
    sort: tuple[str, ...] = ()  #: columns, the weightiest first; ``-value``: downwards


@dataclass(frozen=True)
class Queue(Place):
    PATH = "/queue"
    status: tuple[str, ...] = ()
    job: int | None = None  #: whose log is shown


P = TypeVar("P", bound=Place)


def href(place: Place) -> str:
    """The address of ``place``: a path, and a query of what is not at its default."""
    pairs = [(field.name, text) for field in fields(place) for text in _texts(place, field.name)]
    return place.PATH + (f"?{urlencode(pairs)}" if pairs else "")


def parse(kind: type[P], query: object) -> tuple[P, tuple[str, ...]]:
    """The place that a query (``?task=a&task=b``) means, and what of it was not understood."""
    text = query.removeprefix("?") if isinstance(query, str) else ""
    try:
        given = parse_qs(text, keep_blank_values=True, max_num_fields=10 * MOST, errors="replace")
    except ValueError:
        return kind(), ("The address has too many parts; none was read.",)
    return read(kind, given)


def read(kind: type[P], given: Mapping[str, object]) -> tuple[P, tuple[str, ...]]:
    """The place that values mean: lists of texts of an address, or whatever a control sent."""
    types = _types(kind)
    said = [f'no setting "{_short(key)}". {did_you_mean(key, types)}' for key in given if key not in types]
    values: dict[str, Any] = {}
    for key, wanted in types.items():
        texts = _given(given.get(key))
        if not texts:
            continue
        last = texts[-1]
        if wanted is str:
            values[key] = last
        elif wanted == tuple[str, ...]:
            values[key] = tuple(dict.fromkeys(texts))[:MOST]
        elif get_origin(wanted) is Literal:
            if last in get_args(wanted):
                values[key] = last
            else:
                said.append(f'{key} = "{_short(last)}". {did_you_mean(last, get_args(wanted))}')
        elif last.isascii() and last.isdecimal() and len(last) <= DIGITS:
            values[key] = int(last)
        else:
            said.append(f'{key} = "{_short(last)}" is not a number')
    return kind(**values), tuple(said)


def changed(place: P, given: Mapping[str, object]) -> P:
    """``place`` after a person set some of its settings. Another study is another place of the same page."""
    kind = type(place)
    now, _ = read(kind, {"study": place.study, **given})
    if now.study != place.study:
        return kind(study=now.study)
    undone = {key for name in given for key in kind.RESETS.get(name, ()) if key not in given}
    fresh = {key: getattr(kind, key) for key in undone} | {
        key: getattr(now, key) for key in given if key in _types(kind)
    }
    return replace(place, **fresh)


def _given(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    numbers = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    return [v for v in numbers if isinstance(v, str) and 0 < len(v) <= LONGEST and _plain(v)]


def _plain(text: str) -> bool:
    """No control character, no half of a surrogate pair: neither is part of a name, and not all of them can be sent."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _texts(place: Place, key: str) -> Iterator[str]:
    value = getattr(place, key)
    if value == getattr(type(place), key):
        return
    yield from value if isinstance(value, tuple) else [str(value)]


def _types(kind: type[Place]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
