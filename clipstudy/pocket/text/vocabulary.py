"""The lexicon made ready to draw from: senses with their forms, in Zipf-weighted tables."""

from __future__ import annotations

from clipstudy.pocket.dice import Table, zipf
from clipstudy.pocket.text import lexicon as lex
from clipstudy.pocket.text.inflect import Noun, Verb, noun, verb
from clipstudy.pocket.text.tree import Node


def words(label: str, text: str | list[str]) -> Table[Node]:
    """A Zipf-weighted table of ready-made leaves."""
    return zipf([Node(label, (), word) for word in (text.split() if isinstance(text, str) else text)])


NOUNS: dict[str, Table[Noun]] = {kind: zipf([noun(w, kind) for w in text.split()]) for kind, text in lex.NOUNS.items()}
VERBS: dict[str, Table[Verb]] = {
    name: zipf([verb(w, name) for w in frame.verbs.split()]) for name, frame in lex.FRAMES.items()
}
SAYING, WANTING, GIVING, SEEMING = (
    zipf([verb(w, name) for w in text.split()])
    for name, text in (
        ("saying", lex.SAYING), ("wanting", lex.WANTING), ("giving", lex.GIVING), ("seeming", lex.SEEMING),
    )
)  # fmt: skip

#: Kinds that act in sentences of their own, by how often.
ACTORS = Table({"person": 36, "animal": 18, "vehicle": 9, "shape": 9, "force": 7, "plant": 5, "building": 5, "idea": 4,
                "food": 4, "tool": 4, "cargo": 4, "text": 3, "cloth": 3})  # fmt: skip
#: Kinds that something is done to: those with a frame that takes them.
PATIENTS = Table({frame.object: 1.0 for frame in lex.FRAMES.values() if frame.object})

#: kind of the subject → its frames; transitive ones have an object.
ACTIVE = {
    kind: Table(
        [(n, 2.0 if f.object == kind else 1.0) for n, f in lex.FRAMES.items() if f.subject == kind and f.object]
    )
    for kind in ("person", "animal", "vehicle", "force", "shape", "text", "idea")
}
#: Frames that answer one another: the object's kind of each is the subject's kind of the other.
EXCHANGES = Table(
    ((a, b), 1.0)
    for a, one in lex.FRAMES.items()
    for b, other in lex.FRAMES.items()
    if one.object and one.object == other.subject and other.object == one.subject
)
IDLE = {f.subject: n for n, f in lex.FRAMES.items() if not f.object}
#: kind of the object → the frames that take it.
TAKING = {kind: Table([(n, 1.0) for n, f in lex.FRAMES.items() if f.object == kind]) for kind in PATIENTS.items}

ADJECTIVES = {kind: words("JJ", text) for kind, text in lex.ADJECTIVES.items()}
GENERAL = {
    kind: Table(
        (leaf, weight * share)
        for weight, part in zip(weights, (lex.COLOURS, lex.SIZES, lex.TEXTURES, lex.AGES), strict=True)
        for leaf, share in zip(words("JJ", part).items, words("JJ", part).shares, strict=True)
        if weight
    )
    for kind, weights in lex.LOOKS.items()
}
#: Adjectives that take a degree: nothing is *very striped*.
GRADED = frozenset(lex.SIZES + lex.AGES + " ".join(lex.ADJECTIVES.values()).split())
COMPARATIVES = {adjective: Node("JJR", (), word) for adjective, word in lex.COMPARATIVES.items()}

MANNER, FREQUENCY, DEGREE = words("RB", lex.MANNER), words("RB", lex.FREQUENCY), words("RB", lex.DEGREE)
PLACEWARD, OPENERS = words("RB", lex.PLACEWARD), words("RB", lex.OPENERS)
PAST_TIMES, PRESENT_TIMES = words("RB", lex.PAST_TIMES), words("RB", lex.PRESENT_TIMES)
LOCATIVE, TEMPORAL, BECAUSE = words("IN", lex.LOCATIVE), words("IN", lex.TEMPORAL), words("IN", lex.BECAUSE)
ATTRIBUTES = {
    kind: zipf([(Node("IN", (), preposition), other) for preposition, other in pairs], shift=4)
    for kind, pairs in lex.ATTRIBUTES.items()
}
SCENERY = Table({"place": 5, "building": 4, "plant": 2, "cargo": 2, "vehicle": 1})
MODALS = words("MD", lex.MODALS)
NAMES = {gender: words("NNP", names) for gender, names in lex.NAMES.items()}

#: Determiners by number; "a" becomes "an" where a vowel follows, "" is none.
SINGULAR = Table({("DT", "the"): 50, ("DT", "a"): 26, ("DT", "this"): 3, ("DT", "that"): 3, ("DT", "every"): 3,
                  ("DT", "each"): 2, ("DT", "another"): 2, ("DT", "some"): 2, ("DT", "no"): 2,
                  ("PRP$", ""): 7})  # fmt: skip
PLURAL = Table({("DT", "the"): 50, ("DT", "some"): 8, ("DT", "these"): 3, ("DT", "those"): 3, ("DT", "all"): 2,
                ("JJ", "many"): 3, ("JJ", "several"): 2, ("JJ", "few"): 1, ("DT", "no"): 2, ("CD", ""): 7,
                ("", ""): 12, ("PRP$", ""): 7})  # fmt: skip
NUMBERS = words("CD", lex.NUMBERS)
POSSESSIVES = {w: Node("PRP$", (), w) for w in ["his", "her", "its", "their", "our", "your", "my"]}
OWNERS = Table({"his": 4.0, "her": 4.0, "their": 4.0, "its": 2.0, "my": 1.0, "our": 1.0, "your": 1.0})
SUBJECT_PRONOUNS = {w: Node("NP", (Node("PRP", (), w),)) for w in ["he", "she", "it", "they", "we", "you"]}
OBJECT_PRONOUNS = {
    w: Node("NP", (Node("PRP", (), form),))
    for w, form in zip(["he", "she", "it", "they", "we", "you"], ["him", "her", "it", "them", "us", "you"], strict=True)
}


def all_words() -> set[str]:
    """Every word that the language or a caption can say."""
    said = set(lex.FUNCTION_WORDS.split())
    for nouns in NOUNS.values():
        said.update(form for entry in nouns.items for form in (entry.singular, entry.plural))
    for verbs in (*VERBS.values(), SAYING, WANTING, GIVING, SEEMING):
        for entry in verbs.items:
            said.update((*entry[2:7], *entry.particle.split()))
    tables = (MANNER, FREQUENCY, DEGREE, PLACEWARD, OPENERS, PAST_TIMES, PRESENT_TIMES, LOCATIVE, TEMPORAL, BECAUSE,
              MODALS, NUMBERS, *NAMES.values(), *ADJECTIVES.values(), *GENERAL.values())  # fmt: skip
    said.update(leaf.word for table in tables for leaf in table.items)
    said.update(preposition.word for table in ATTRIBUTES.values() for preposition, _ in table.items)
    said.update(lex.COMPARATIVES.values())
    return said.union(*(text.split() for text in lex.PLAIN_WORDS.values()))
