"""English inflection of the lexicon's stems."""

from __future__ import annotations

import re
from typing import NamedTuple

from clipstudy.pocket.text.lexicon import HE, IRREGULAR_PLURALS, IRREGULAR_VERBS, SHE

_DOUBLES = re.compile(r"(?:[^aeiou]+|[^aeiou]*qu)[aeiou][^aeiouwxy]$|^(?:forget|unpack)$")


class Noun(NamedTuple):
    """One sense of a noun."""

    lemma: str
    kind: str
    singular: str
    plural: str
    gender: str  #: the pronoun it asks for: ``he``, ``she``, ``it``, or ``any`` of the first two


class Verb(NamedTuple):
    """One sense of a verb."""

    lemma: str
    frame: str
    base: str
    third: str
    past: str
    participle: str
    ing: str
    particle: str  #: ``up`` of *pick up*, or empty


def noun(lemma: str, kind: str) -> Noun:
    gender = "it" if kind != "person" else "he" if lemma in HE else "she" if lemma in SHE else "any"
    return Noun(lemma, kind, lemma, IRREGULAR_PLURALS.get(lemma) or _with_s(lemma), gender)


def verb(lemma: str, frame: str) -> Verb:
    base, _, particle = lemma.partition("_")
    stem = base + base[-1] if _DOUBLES.fullmatch(base) else base
    if stem != base:
        past, ing = stem + "ed", stem + "ing"
    elif base.endswith("e"):
        past, ing = base + "d", (base if base.endswith(("ee", "ye")) else base[:-1]) + "ing"
    elif base.endswith("y") and base[-2] not in "aeiou":
        past, ing = base[:-1] + "ied", base + "ing"
    else:
        past, ing = base + "ed", base + "ing"
    participle = past
    if base in IRREGULAR_VERBS:
        past, participle = IRREGULAR_VERBS[base].split()
    return Verb(lemma, frame, base, _with_s(base), past, participle, ing, particle)


def _with_s(stem: str) -> str:
    if stem.endswith(("s", "x", "z", "ch", "sh")):
        return stem + "es"
    if stem.endswith("y") and stem[-2] not in "aeiou":
        return stem[:-1] + "ies"
    return stem + "s"
