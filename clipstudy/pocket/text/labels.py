"""What a probe asks of a sentence, read off its tree (Conneau et al. 2018): the gold labels of the SentEval tasks."""

from __future__ import annotations

from typing import NamedTuple

from clipstudy.pocket.text.inflect import Noun, Verb
from clipstudy.pocket.text.tree import Node

#: SentEval's sentence-length bins, in tokens, both ends included. They are not equally wide.
LENGTHS = ((5, 8), (9, 12), (13, 16), (17, 20), (21, 25), (26, 28))


class Clause(NamedTuple):
    """The parts of a clause that are nouns and a finite verb; what is something else is None."""

    subject: Node | None  #: head noun, NN or NNS
    verb: Node | None  #: finite verb with a meaning of its own, VBD, VBP or VBZ
    object: Node | None  #: head noun of its direct object


def length_bin(words: int) -> str:
    return str(next(number for number, (low, high) in enumerate(LENGTHS) if low <= words <= high))


def top_constituents(tree: Node) -> str:
    """The labels under the root without commas, as SentEval writes them: ``PP_NP_VP_.``."""
    return "_".join(child.label for child in tree.children if child.label != ",")


def head(phrase: Node) -> Node | None:
    """The head noun of a noun phrase; None of a pronoun, a name or a list."""
    if any(child.label == "CC" for child in phrase.children):
        return None
    nouns = [child for child in phrase.children if child.word and isinstance(child.entry, Noun)]
    if nouns:
        return nouns[-1]
    first = phrase.children[0]
    return head(first) if first.label == "NP" else None


def clause(node: Node) -> Clause:
    """The parts of a declarative clause ``node``: its own noun phrase, verb and object, not those of clauses inside.

    The subject is the last noun phrase before the verb phrase (*every day the man …*).
    """
    subject = verb = thing = None
    for child in node.children:
        if child.label == "NP":
            subject = child
        elif child.label == "VP" and not any(part.label == "CC" for part in child.children):
            inner = child
            if inner.children[0].word and inner.children[0].label in ("VBD", "VBP", "VBZ"):
                verb = inner.children[0] if isinstance(inner.children[0].entry, Verb) else None
            while auxiliary := [c for c in inner.children if c.label == "VP"]:
                inner = auxiliary[0]
            thing = _object(inner)
            break
    return Clause(head(subject) if subject else None, verb, thing)


def _object(phrase: Node) -> Node | None:
    """The noun that a verb phrase's own verb acts on: none of a passive, and not the first of two objects."""
    things = [child for child in phrase.children if child.label == "NP"]
    if len(things) != 1:
        return None
    return head(things[0]) if isinstance(phrase.children[0].entry, Verb) else None


def main_clause(tree: Node) -> Clause:
    """The clause that a statement makes; of a question, an order or a pair of clauses, nothing."""
    simple = tree.label == "S" and not any(child.label == "CC" for child in tree.children[1:])
    if not simple or sum(child.label == "VP" for child in tree.children) != 1:
        return Clause(None, None, None)
    return clause(tree)


def tense(verb: Node) -> str:
    return "PAST" if verb.label == "VBD" else "PRES"
