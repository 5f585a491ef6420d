"""Constituency trees in the Penn Treebank's labels, and the CoNLL-2000 chunks that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from clipstudy.pocket.text.inflect import Noun, Verb


class Node(NamedTuple):
    """A phrase (``children``) or a word (``word``, whose label is its part of speech)."""

    label: str
    children: tuple[Node, ...] = ()
    word: str = ""
    entry: Noun | Verb | None = None  #: the sense that a content word was drawn in


@dataclass(frozen=True)
class Sentence:
    """What the language says: a tree, and how surprising its derivation was."""

    tree: Node
    nats: float = 0.0  #: minus the log-probability of all choices that led to the tree

    @cached_property
    def leaves(self) -> tuple[Node, ...]:
        return tuple(leaves(self.tree))

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple([leaf.word for leaf in self.leaves])

    @property
    def pos(self) -> tuple[str, ...]:
        return tuple([leaf.label for leaf in self.leaves])

    @property
    def tags(self) -> tuple[str, ...]:
        return chunk_tags(self.tree)

    def __str__(self) -> str:
        return " ".join(self.words)


def leaves(node: Node) -> list[Node]:
    """The words under ``node``, from left to right."""
    # A loop with a stack: this is asked of every sentence, and recursion was a third of the cost of making one.
    found, waiting = [], [node]
    while waiting:
        _, children, word, _ = top = waiting.pop()
        if word:
            found.append(top)
        elif children:
            waiting.extend(children[::-1])
    return found


def depth(node: Node) -> int:
    """Nodes on the longest way from ``node`` down to a part of speech, both counted."""
    return 1 + max((depth(child) for child in node.children), default=0)


def bracketed(node: Node) -> str:
    """``(S (NP (DT the) (NN dog)) …)``."""
    inside = node.word or " ".join(bracketed(child) for child in node.children)
    return f"({node.label} {inside})"


#: The chunk that the words directly under a phrase make up; words under any other phrase are outside.
_CHUNK = {
    "NP": "NP", "WHNP": "NP", "VP": "VP", "PP": "PP", "ADJP": "ADJP", "ADVP": "ADVP", "WHADVP": "ADVP", "SBAR": "SBAR",
    "PRT": "PRT", "CONJP": "CONJP",
}  # fmt: skip
_OUTSIDE = frozenset({"CC", ".", ",", ":"})


def chunk_tags(tree: Node) -> tuple[str, ...]:
    """The B-, I- and O tags of a sentence by the rules of the shared task (Tjong Kim Sang & Buchholz 2000, §3).

    A noun phrase's chunk ends with its head, so what follows the head makes chunks of its own; a possessive ``'s``
    opens the second of two; a verb chunk runs from the first auxiliary to the main verb, infinitives and the adverbs
    between them included; a prepositional chunk is the preposition, a clausal one the complementiser.
    """
    owners: list[Node | None] = []
    _own(tree, tree, owners)
    tags, before = [], None
    for owner in owners:
        tags.append("O" if owner is None else f"{'I' if owner is before else 'B'}-{_CHUNK[owner.label]}")
        before = owner
    return tuple(tags)


def _own(node: Node, owner: Node, owners: list[Node | None]) -> None:
    """Append, for each word under ``node``, the phrase whose chunk it is in: ``owner`` for the next ones down."""
    last = len(node.children) - 1
    for at, child in enumerate(node.children):
        if child.word:
            inside = child.label not in _OUTSIDE and owner.label in _CHUNK
            owners.append(owner if inside else None)
        else:
            _own(child, owner if _melts(child, node, at, last) else child, owners)
            if owner.label == "NP" and child.children[-1].label == "POS":
                owners[-1] = owner


def _melts(child: Node, parent: Node, at: int, last: int) -> bool:
    """Whether the words directly under ``child`` go on with its parent's chunk: *a very big dog*, *has often eaten*."""
    if parent.label == "NP":
        return child.label == "ADJP" and at < last
    if parent.label == "VP":
        between = child.label == "ADVP" and 0 < at < last and parent.children[at + 1].label == "VP"
        return child.label == "VP" or between or _infinitive(child)
    return _infinitive(parent)


def _infinitive(node: Node) -> bool:
    return node.label == "S" and len(node.children) == 1 and node.children[0].children[0].label == "TO"
