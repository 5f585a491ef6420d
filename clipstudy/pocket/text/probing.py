"""The ten probing data sets of SentEval (Conneau et al. 2018), from the pocket language.

Each is a rule that turns a sentence into a labelled row, or into none. Labels come from the tree, never from the way
the sentence was made.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from clipstudy.pocket.baskets import SPLITS, Basket, Row, Sizes
from clipstudy.pocket.text import labels, vocabulary
from clipstudy.pocket.text.inflect import Noun, Verb
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.lexicon import FRAMES
from clipstudy.pocket.text.phrases import Mood
from clipstudy.pocket.text.tree import Node, Sentence, depth, leaves

Rule = Callable[[Sentence], Iterator[Row]]

#: How many words the word-content task tells apart. (SentEval: 1,000 of a vocabulary 20 times as large.)
CONTENTS = 100
#: Tree depth, the root above the sentence counted as SentEval's parser does → its shares of 12 to 16 words. Where the
#: grammar allows, a depth is as frequent at one length as at the next; 5 in 16 words or 12 in 12 it hardly allows.
DEPTHS = {
    5: (8, 6, 4, 0, 0), 6: (4, 4, 4, 4, 0), 7: (3, 3, 3, 3, 3), 8: (3, 3, 3, 3, 3), 9: (3, 3, 3, 3, 3),
    10: (3, 3, 3, 3, 3), 11: (0, 4, 4, 4, 4), 12: (0, 6, 8, 9, 9),
}  # fmt: skip
#: Moods that between them reach every depth at every such length, as often as each is needed.
FLAT, STEEP = Mood(0.0, 0.9, 1), Mood(0.9, -0.25, 2)
STEEP_AND_FLAT = (FLAT, STEEP, FLAT, Mood(0.9, -0.25, 3), FLAT, STEEP, FLAT, Mood(0.3, 0.2, 2))
_MARKS = frozenset({".", ",", ":", "RB", "CC"})


@dataclass(frozen=True)
class Property:
    """One data set: its file, what it is balanced over, its rule."""

    file: str
    shares: Mapping[Hashable, float]
    rule: Rule
    stream: str = "any"  #: which sentences it is shown: any, pairs (of clauses), steep and flat ones


def write(seed: int, sizes: Sizes) -> dict[str, list[str]]:
    """File name → lines of all ten data sets."""
    found: dict[str, list[str]] = {}
    waiting = [(p, Basket(p.shares, sizes.all, f"{seed}/{p.file}")) for p in properties(seed)]
    for stream in ("any", "pairs", "steep and flat"):
        group = [(p, basket) for p, basket in waiting if p.stream == stream]
        for sentence in sentences(stream, seed):
            group = [(p, basket) for p, basket in group if basket.missing]
            if not group:
                break
            for p, basket in group:
                for row in p.rule(sentence):
                    basket.offer(row)
    for p, basket in waiting:
        found[p.file] = basket.lines()
    return found


def sentences(stream: str, seed: int) -> Iterator[Sentence]:
    language = Language(f"{stream}/{seed}")
    at = 0
    while True:
        if stream == "pairs":
            yield language.sentence("pair")
        elif stream == "any":
            yield language.sentence()
        else:
            yield language.sentence(mood=STEEP_AND_FLAT[at % len(STEEP_AND_FLAT)])
        at += 1


def properties(seed: int) -> list[Property]:
    """The ten, in SentEval's order of surface, syntactic and semantic ones."""
    sample = [sentence for sentence, _ in zip(sentences("any", seed), range(6000), strict=False)]
    contents = _mid_frequency(sample)
    shapes = [shape for shape, _ in Counter(labels.top_constituents(s.tree) for s in sample).most_common(19)]
    split_of = lexical_splits(seed)
    draw = {name: random.Random(f"{name}/{seed}") for name in ("shift", "odd", "invert")}
    cells: dict[Hashable, float] = {
        (d, n): share / sum(shares) for d, shares in DEPTHS.items() for n, share in enumerate(shares, start=12)
    }
    return [
        Property("sentence_length", _even(str(k) for k in range(len(labels.LENGTHS))), sentence_length),
        Property("word_content", _even(contents), lambda s: word_content(s, frozenset(contents))),
        Property("tree_depth", cells, tree_depth, "steep and flat"),
        Property("top_constituents", _even([*shapes, "OTHER"]), lambda s: top_constituents(s, frozenset(shapes))),
        Property("bigram_shift", _even("IO"), lambda s: bigram_shift(s, draw["shift"])),
        Property("past_present", _even(["PAST", "PRES"]), lambda s: past_present(s, split_of)),
        Property("subj_number", _even(["NN", "NNS"]), lambda s: subj_number(s, split_of)),
        Property("obj_number", _even(["NN", "NNS"]), lambda s: obj_number(s, split_of)),
        Property("odd_man_out", _even("CO"), OddManOut(draw["odd"])),
        Property("coordination_inversion", _even("IO"), CoordinationInversion(draw["invert"]), "pairs"),
    ]


def sentence_length(sentence: Sentence) -> Iterator[Row]:
    words = sentence.words
    yield Row(words, labels.length_bin(len(words)))


def word_content(sentence: Sentence, contents: frozenset[str]) -> Iterator[Row]:
    """Which of the words is in the sentence: sentences that hold exactly one, once."""
    words = sentence.words
    there = [word for word in words if word in contents]
    if len(there) == 1:
        yield Row(words, there[0])


def tree_depth(sentence: Sentence) -> Iterator[Row]:
    words = sentence.words
    if 12 <= len(words) <= 16:
        deep = depth(sentence.tree) + 1
        yield Row(words, str(deep), (deep, len(words)))


def top_constituents(sentence: Sentence, shapes: frozenset[str]) -> Iterator[Row]:
    shape = labels.top_constituents(sentence.tree)
    yield Row(sentence.words, shape if shape in shapes else "OTHER")


def bigram_shift(sentence: Sentence, draw: random.Random) -> Iterator[Row]:
    """I: two neighbours swapped. Of one part of speech they might as well be the other way round, and adverbs and
    conjunctions are at home in many places: those are left alone."""
    words, pos = list(sentence.words), sentence.pos
    places = [i for i in range(len(words) - 1) if pos[i] != pos[i + 1] and _MARKS.isdisjoint(pos[i : i + 2])]
    if not places:
        return
    at = places[int(draw.random() * len(places))]
    inverted = draw.random() < 0.5
    if inverted:
        words[at], words[at + 1] = words[at + 1], words[at]
    yield Row(tuple(words), "I" if inverted else "O")


def past_present(sentence: Sentence, split_of: Mapping[str, str]) -> Iterator[Row]:
    verb = labels.main_clause(sentence.tree).verb
    if verb is not None and isinstance(verb.entry, Verb) and verb.entry.past != verb.entry.base:
        yield Row(sentence.words, labels.tense(verb), split=split_of[verb.entry.base])


def subj_number(sentence: Sentence, split_of: Mapping[str, str]) -> Iterator[Row]:
    subject = labels.main_clause(sentence.tree).subject
    if subject is not None and subject.entry is not None:
        yield Row(sentence.words, subject.label, split=split_of[subject.entry.lemma])


def obj_number(sentence: Sentence, split_of: Mapping[str, str]) -> Iterator[Row]:
    thing = labels.main_clause(sentence.tree).object
    if thing is not None and thing.entry is not None:
        yield Row(sentence.words, thing.label, split=split_of[thing.entry.lemma])


@dataclass
class OddManOut:
    """C: one noun or verb replaced by another of the same form that its clause does not select.

    What comes in was taken from an earlier sentence, so odd words are neither rarer nor commoner than natural ones.
    """

    draw: random.Random
    earlier: dict[str, list[Node]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, sentence: Sentence) -> Iterator[Row]:
        said = labels.main_clause(sentence.tree)
        if said.verb is None or said.object is None:
            return
        verb, thing = said.verb.entry, said.object.entry
        if not isinstance(verb, Verb) or not isinstance(thing, Noun) or not selects(verb.lemma, thing.lemma):
            return
        words = list(sentence.words)
        target = said.object if self.draw.random() < 0.5 else said.verb
        kept = self.earlier[target.label]
        kept.append(target)
        del kept[:-200]
        odd = self.draw.random() < 0.5
        if odd:
            at = next(i for i, leaf in enumerate(sentence.leaves) if leaf is target)
            article = words[at - 1] if words[at - 1] in ("a", "an") else ""
            others = [
                leaf.word
                for leaf in kept
                if leaf.entry is not None
                and not (
                    selects(verb.lemma, leaf.entry.lemma)
                    if target is said.object
                    else selects(leaf.entry.lemma, thing.lemma)
                )
                and (not article or (leaf.word[0] in "aeiou") == (article == "an"))
            ]
            if not others:
                return
            words[at] = others[int(self.draw.random() * len(others))]
        yield Row(tuple(words), "C" if odd else "O")


def selects(verb: str, noun: str) -> bool:
    """Whether any sense of the verb takes any sense of the noun as its object; both are lemmas."""
    return bool(_TAKES[verb] & _KINDS[noun])


_TAKES: dict[str, set[str]] = defaultdict(set)
for _name, _verbs in vocabulary.VERBS.items():
    for _verb in _verbs.items:
        _TAKES[_verb.lemma].add(FRAMES[_name].object)
_KINDS: dict[str, set[str]] = defaultdict(set)
for _kind, _nouns in vocabulary.NOUNS.items():
    for _noun in _nouns.items:
        _KINDS[_noun.lemma].add(_kind)


@dataclass
class CoordinationInversion:
    """I: two joined clauses in the other order.

    Both clauses begin with a pronoun, and a sentence is kept only along with a twin whose clauses have the same
    pronouns and kinds of verbs the other way round. So nothing that either place holds by itself gives the order away:
    what does is whom the pronoun means.
    """

    draw: random.Random
    alone: dict[Hashable, list[tuple[Node, ...]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, sentence: Sentence) -> Iterator[Row]:
        first, *middle, second, stop = sentence.tree.children
        marks = _mark(first), _mark(second)
        if any(leaves(part)[0].word not in ("he", "she", "it", "they") for part in (first, second)):
            return
        parts = (first, *middle, second, stop)
        if marks[0] == marks[1]:
            twins = [parts]
        elif self.alone[marks[1], marks[0]]:
            twins = [self.alone[marks[1], marks[0]].pop(), parts]
        else:
            self.alone[marks].append(parts)
            return
        inverted = self.draw.random() < 0.5
        for one in twins:
            ordered = (one[-2], *one[1:-2], one[0], one[-1]) if inverted else one
            words = tuple(leaf.word for part in ordered for leaf in leaves(part))
            yield Row(words, "I" if inverted else "O")


def _mark(clause: Node) -> tuple[str, tuple[str, ...], int]:
    """What must not tell the places apart: the verb's frame, the pronouns, roughly the length."""
    words = list(leaves(clause))
    verb = next((leaf.entry.frame for leaf in words if isinstance(leaf.entry, Verb)), "")
    return verb, tuple(leaf.word for leaf in words if leaf.label in ("PRP", "PRP$")), len(words) // 3


def lexical_splits(seed: int) -> dict[str, str]:
    """Noun lemma or verb base → the only split in which it is the word that a label is about: 3/5, 1/5, 1/5."""
    lemmas = sorted(
        {n.lemma for table in vocabulary.NOUNS.values() for n in table.items}
        | {v.base for table in (*vocabulary.VERBS.values(), vocabulary.SAYING, vocabulary.WANTING, vocabulary.GIVING,
                                vocabulary.SEEMING) for v in table.items}
    )  # fmt: skip
    random.Random(f"lexical/{seed}").shuffle(lemmas)
    train, dev, test = SPLITS
    fifths = (train, train, train, dev, test)
    return {lemma: fifths[at % 5] for at, lemma in enumerate(lemmas)}


def _mid_frequency(sample: list[Sentence]) -> list[str]:
    """Words of four letters and more in the middle of the frequency list; sorted."""
    counts = Counter(leaf.word for s in sample for leaf in s.leaves if leaf.entry is not None and len(leaf.word) >= 4)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return sorted(ranked[CONTENTS : 2 * CONTENTS])


def _even(names: Iterator[str] | list[str] | str) -> dict[Hashable, float]:
    return dict.fromkeys(names, 1.0)
