"""Pairs of texts: yes/no questions over a passage (BoolQ's part), one word in two sentences (WiC's part).

Both are built so that neither side answers by itself and no word does: what counts is how the two go together.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from clipstudy.pocket.dice import Table
from clipstudy.pocket.text import vocabulary as voc
from clipstudy.pocket.text.inflect import Noun, Verb
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.lexicon import FRAMES
from clipstudy.pocket.text.tree import Node, leaves

#: Why a question is answered with no, by how often: its object is not in the passage; its parts are, but not together;
#: the passage denies it.
REFUSALS = {"foreign": 0.4, "mixed": 0.35, "denied": 0.25}


class Fact(NamedTuple):
    """Who did what to whom, or did not."""

    subject: Noun
    verb: Verb
    object: Noun
    many: tuple[bool, bool]  #: subject and object in the plural
    denied: bool = False


class Question(NamedTuple):
    question: str
    passage: str
    answer: bool
    because: str  #: ``told``, or a key of ``REFUSALS``


class SensePair(NamedTuple):
    """One lemma in two sentences; ``places`` are its positions, in tokens."""

    lemma: str
    pos: str  #: N or V
    places: tuple[int, int]
    sentences: tuple[str, str]
    senses: tuple[str, str]  #: the nouns' kinds or the verbs' frames

    @property
    def same(self) -> bool:
        return self.senses[0] == self.senses[1]


def questions(seed: int) -> Iterator[Question]:
    """Yes and no by turns. A passage tells three facts, two of them about the same kinds, and something beside them."""
    language, draw = Language(f"questions/{seed}"), random.Random(f"questions/{seed}")
    frames = [name for name, frame in FRAMES.items() if frame.object]
    seen: set[str] = set()
    answer = True
    while True:
        name = frames[int(draw.random() * len(frames))]
        facts = _facts(language, draw, name, frames[int(draw.random() * len(frames))])
        because = "told" if answer else _choose(draw, REFUSALS)
        if because == "denied" and not any(fact.denied for fact in facts):
            because = "mixed"
        asked = _asked(language, draw, facts, because)
        aside = language.sentence("statement")
        used = {noun.lemma for fact in (*facts, asked) for noun in (fact.subject, fact.object)}
        if len(aside.words) > 12 or any(isinstance(n.entry, Noun) and n.entry.lemma in used for n in aside.leaves):
            continue
        told = [_tell(language, draw, fact) for fact in facts]
        told.insert(int(draw.random() * (len(told) + 1)), str(aside))
        passage = " ".join(told)
        if passage in seen:
            continue
        seen.add(passage)
        yield Question(_ask(draw, asked), passage, answer, because)
        answer = not answer


def _facts(language: Language, draw: random.Random, name: str, third: str) -> list[Fact]:
    """Two facts of one frame and one of another; no noun and no verb twice; at most one of them denied."""
    while True:
        facts = []
        for frame in (name, name, third):
            subject, thing = (language.dice.pick(voc.NOUNS[k]) for k in FRAMES[frame][:2])
            many = draw.random() < 0.4, draw.random() < 0.4
            facts.append(Fact(subject, language.dice.pick(voc.VERBS[frame]), thing, many))
        lemmas = {noun.lemma for fact in facts for noun in (fact.subject, fact.object)}
        if len(lemmas) == 6 and len({fact.verb.lemma for fact in facts}) == 3:
            break
    if draw.random() < 0.7:
        at = int(draw.random() * 3)
        facts[at] = facts[at]._replace(denied=True)
    return facts


def _asked(language: Language, draw: random.Random, facts: list[Fact], because: str) -> Fact:
    def any_of(choice: list[Fact]) -> Fact:
        return choice[int(draw.random() * len(choice))]

    if because == "told":
        return any_of([fact for fact in facts if not fact.denied])
    if because == "denied":
        return any_of([fact for fact in facts if fact.denied])
    one, other = (facts[0], facts[1]) if draw.random() < 0.5 else (facts[1], facts[0])
    if because == "mixed":
        return one._replace(object=other.object, many=(one.many[0], other.many[1]))
    one = any_of(facts)
    known = {noun.lemma for fact in facts for noun in (fact.subject, fact.object)}
    while (thing := language.dice.pick(voc.NOUNS[FRAMES[one.verb.frame].object])).lemma in known:
        pass
    return one._replace(object=thing)


def _tell(language: Language, draw: random.Random, fact: Fact) -> str:
    subject, thing = (
        _named(language, noun, many, 0.4) for noun, many in zip((fact.subject, fact.object), fact.many, strict=True)
    )
    particle = f" {fact.verb.particle}" if fact.verb.particle else ""
    tail = " ".join(leaf.word for part in language.tails(0, 0.3, past=True) for leaf in leaves(part))
    negation = " not" if fact.denied else ""
    if draw.random() < 0.25:
        be = "were" if fact.many[1] else "was"
        words = f"{thing} {be}{negation} {fact.verb.participle}{particle} by {subject} {tail} ."
    elif fact.denied:
        words = f"{subject} did not {fact.verb.base}{particle} {thing} {tail} ."
    else:
        words = f"{subject} {fact.verb.past}{particle} {thing} {tail} ."
    return " ".join(words.split())


def _ask(draw: random.Random, fact: Fact) -> str:
    subject, thing = (
        f"the {noun.plural if many else noun.singular}"
        for noun, many in zip((fact.subject, fact.object), fact.many, strict=True)
    )
    particle = f" {fact.verb.particle}" if fact.verb.particle else ""
    if draw.random() < 0.25:
        return f"{'were' if fact.many[1] else 'was'} {thing} {fact.verb.participle}{particle} by {subject}"
    return f"did {subject} {fact.verb.base}{particle} {thing}"


def _named(language: Language, noun: Noun, many: bool, chance: float) -> str:
    adjective = language.dice.pick(voc.ADJECTIVES[noun.kind]).word + " " if language.dice.chance(chance) else ""
    return f"the {adjective}{noun.plural if many else noun.singular}"


def sense_pairs(seed: int) -> Iterator[SensePair]:
    """Same and different by turns; every sense of a word is as likely in either. No sentence comes twice."""
    language, draw = Language(f"senses/{seed}"), random.Random(f"senses/{seed}")
    choice = [("N", *item) for item in homographs(voc.NOUNS).items()]
    choice += [("V", *item) for item in homographs(voc.VERBS).items()]
    seen: set[str] = set()
    same = True
    while True:
        pos, lemma, senses = choice[int(draw.random() * len(choice))]
        first = int(draw.random() * len(senses))
        second = first if same else (first + 1 + int(draw.random() * (len(senses) - 1))) % len(senses)
        contexts = [_context(language, senses[at]) for at in (first, second)]
        texts = [" ".join(words) for words, _ in contexts]
        if texts[0] == texts[1] or not seen.isdisjoint(texts) or max(len(words) for words, _ in contexts) > 20:
            continue
        seen.update(texts)
        found = [s.kind if isinstance(s, Noun) else s.frame for s in (senses[first], senses[second])]
        yield SensePair(lemma, pos, (contexts[0][1], contexts[1][1]), (texts[0], texts[1]), (found[0], found[1]))
        same = not same


def homographs(tables: Mapping[str, Table[Any]]) -> dict[str, list[Noun | Verb]]:
    """Lemma → its senses, of those with two and more that verbs can tell apart; phrasal verbs left out."""
    senses: dict[str, list[Noun | Verb]] = {}
    for kind, table in tables.items():
        if tables is voc.NOUNS and kind not in voc.TAKING:
            continue
        for entry in table.items:
            if "_" not in entry.lemma:
                senses.setdefault(entry.lemma, []).append(entry)
    return {lemma: found for lemma, found in senses.items() if len(found) > 1}


def _context(language: Language, sense: Noun | Verb) -> tuple[list[str], int]:
    """A sentence with the word in this sense, and where the word is."""
    dice = language.dice
    past = dice.chance(0.5)
    if isinstance(sense, Noun):
        name = dice.pick(voc.TAKING[sense.kind])
        verb = dice.pick(voc.VERBS[name])
        subject, who = language.noun_phrase(FRAMES[name].subject, 1)
        thing, _ = language.base(sense.kind, dice.chance(0.42), sense)
    else:
        frame, verb = FRAMES[sense.frame], sense
        subject, who = language.noun_phrase(frame.subject, 1)
        thing = language.noun_phrase(frame.object, 1, objective=True)[0] if frame.object else _NOTHING
    rest = ((thing,) if thing is not _NOTHING else ()) + language.tails(0, 0.4, past)
    clause = Node("S", (subject, language.voiced(verb, who, past, rest)))
    words = leaves(clause)
    # The subject comes first and might hold the same word in the same sense: the target is the last but for the tail.
    target = leaves(thing)[-1] if isinstance(sense, Noun) else None
    places = [at for at, leaf in enumerate(words) if (leaf is target if target else leaf.entry is sense)]
    return [leaf.word for leaf in words] + ["."], places[-1]


_NOTHING = Node("NP")


def _choose(draw: random.Random, weights: dict[str, float]) -> str:
    return draw.choices(list(weights), list(weights.values()))[0]


# On disk


def question_lines(found: list[Question]) -> list[str]:
    """BoolQ's released layout: one JSON object a line with ``question``, ``title``, ``answer`` and ``passage``."""
    return [
        json.dumps({"question": q.question, "title": q.question.split()[-1], "answer": q.answer, "passage": q.passage})
        for q in found
    ]


def sense_lines(found: list[SensePair]) -> tuple[list[str], list[str]]:
    """WiC's released layout: ``<split>.data.txt`` with lemma, N or V, ``i-j``, two sentences; ``<split>.gold.txt``."""
    data = [f"{p.lemma}\t{p.pos}\t{p.places[0]}-{p.places[1]}\t{p.sentences[0]}\t{p.sentences[1]}" for p in found]
    return data, ["T" if p.same else "F" for p in found]
