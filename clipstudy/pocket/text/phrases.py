"""Clauses and the phrases in them: the rules of the pocket language below the sentence."""

from __future__ import annotations

from typing import NamedTuple

from clipstudy.pocket.dice import Dice, Table
from clipstudy.pocket.text import vocabulary as voc
from clipstudy.pocket.text.inflect import Noun, Verb
from clipstudy.pocket.text.lexicon import FRAMES, GIFTS
from clipstudy.pocket.text.tree import Node, leaves


class Mood(NamedTuple):
    """How a sentence unfolds: chances of embedding and of widening at each opportunity, levels of embedding."""

    embed: float
    widen: float
    room: int


class Referent(NamedTuple):
    """What a noun phrase speaks of: all that a pronoun or a verb has to agree with."""

    kind: str
    pronoun: str  #: he, she, it, they, we, you

    @property
    def plural(self) -> bool:
        """Whether finite verbs take their plural form; *you* does."""
        return self.pronoun in ("they", "we", "you")


def leaf(label: str, word: str) -> Node:
    return Node(label, (), word)


NOT, TO, COMMA, STOP, ASKS = leaf("RB", "not"), leaf("TO", "to"), leaf(",", ","), leaf(".", "."), leaf(".", "?")
THERE, BY, THAN, OF = Node("NP", (leaf("EX", "there"),)), leaf("IN", "by"), leaf("IN", "than"), leaf("IN", "of")
AND, OR, BUT, THAT = leaf("CC", "and"), leaf("CC", "or"), leaf("CC", "but"), leaf("IN", "that")
JOINS = Table({AND: 6.0, BUT: 3.0, OR: 1.0})
FORMS = Table({"noun": 85.0, "pronoun": 10.0, "name": 5.0})
COUNTS = {False: Table({0: 60.0, 1: 32.0, 2: 8.0}), True: Table({0: 25.0, 1: 40.0, 2: 25.0, 3: 10.0})}
AFTER = Table({"attribute": 4.0, "subject relative": 3.0, "object relative": 2.0, "reduced": 1.5})
TAILS = Table({"where": 4.0, "how": 3.0, "when": 2.0, "why": 1.5, "today": 0.4})
VOICES = Table({"simple": 66.0, "progressive": 9.0, "perfect": 8.0, "modal": 9.0, "negated": 8.0})
_PRONOUNS = Table({"he": 4.0, "she": 4.0, "they": 4.0, "we": 2.0, "you": 2.0})
THINGS = Table({"it": 5.0, "they": 4.0})
_RELATIVE = Table({"that": 3.0, "which": 1.0})
_TIME_WORDS = Table({("DT", "the"): 6.0, ("DT", "that"): 1.0, ("DT", "every"): 1.0})
_GIFTS = Table({kind: 1.0 for kind in GIFTS})
#: Begin with a vowel in writing only: *a useful rope*.
_CONSONANTAL = frozenset({"useful"})


class Phrases:
    """Draws phrases from its dice in its mood. Methods take ``room``, the levels that may still be embedded."""

    def __init__(self, dice: Dice, mood: Mood) -> None:
        self.dice = dice
        self.mood = mood

    def clause(self, room: int, kind: str = "", form: str = "", said: list[Referent] | None = None) -> Node:
        """Subject and finite verb phrase. ``said`` collects who was mentioned."""
        dice = self.dice
        subject, who = self.subject(room, kind, form)
        middle = (Node("ADVP", (dice.pick(voc.FREQUENCY),)),) if dice.chance(0.06) else ()
        verbs = self.verb_phrase(who, room, said=said)
        if said is not None:
            said.append(who)
        return Node("S", (subject, *middle, verbs))

    def subject(self, room: int, kind: str = "", form: str = "") -> tuple[Node, Referent]:
        return self.noun_phrase(kind or self.dice.pick(voc.ACTORS), room, form=form)

    # Noun phrases

    def noun_phrase(
        self, kind: str, room: int, plural: bool | None = None, form: str = "", objective: bool = False
    ) -> tuple[Node, Referent]:
        """A noun phrase about ``kind``, and what must agree with it."""
        dice, mood = self.dice, self.mood
        form = form or dice.pick(FORMS)
        if form == "pronoun" or (form == "name" and kind == "person"):
            if form == "name":
                he = "he" if dice.chance(0.5) else "she"
                return Node("NP", (dice.pick(voc.NAMES[he]),)), Referent(kind, he)
            it = dice.pick(_PRONOUNS if kind == "person" else THINGS)
            return (voc.OBJECT_PRONOUNS if objective else voc.SUBJECT_PRONOUNS)[it], Referent(kind, it)
        node, who = self.base(kind, dice.chance(0.42) if plural is None else plural)
        if room > 0 and dice.chance(mood.embed):
            return Node("NP", (node, self._after(who, room))), who
        if room > 0 and plural is None and dice.chance(mood.widen * 0.3):
            return self._list(node, kind)
        return node, who

    def base(self, kind: str, plural: bool, entry: Noun | None = None) -> tuple[Node, Referent]:
        """Determiner, adjectives, noun (``entry`` where one is asked for); perhaps an owner or a group."""
        dice = self.dice
        if plural and entry is None and dice.chance(0.04):
            row = dice.pick(voc.NOUNS["group"])
            group = Node("NN", (), row.singular, row)
            many = Node("NP", (self.noun(dice.pick(voc.NOUNS[kind]), True),))
            return Node("NP", (Node("NP", (leaf("DT", "a"), group)), Node("PP", (OF, many)))), Referent(kind, "it")
        entry = entry or dice.pick(voc.NOUNS[kind])
        who = Referent(kind, "they" if plural else self._pronoun(entry))
        noun = self.noun(entry, plural)
        drawn = [self._adjective(kind) for _ in range(dice.pick(COUNTS[self.mood.widen > 0.3]))]
        adjectives = list(dict.fromkeys(drawn))
        inner: list[Node] = [*adjectives, noun]
        if len(adjectives) == 1 and adjectives[0].word in voc.GRADED and dice.chance(0.15):
            inner[0] = Node("ADJP", (dice.pick(voc.DEGREE), adjectives[0]))
        if dice.chance(0.04):
            owner = dice.pick(voc.NOUNS["person"])
            return Node(
                "NP", (Node("NP", (leaf("DT", "the"), self.noun(owner, False), leaf("POS", "'s"))), *inner)
            ), who
        label, word = dice.pick(voc.PLURAL if plural else voc.SINGULAR)
        if word == "a":
            first = leaves(inner[0])[0].word
            determiner = leaf("DT", "an" if first[0] in "aeiou" and first not in _CONSONANTAL else "a")
        elif word:
            determiner = leaf(label, word)
        elif not label:
            return Node("NP", tuple(inner)), who
        else:
            determiner = dice.pick(voc.NUMBERS) if label == "CD" else voc.POSSESSIVES[dice.pick(voc.OWNERS)]
        return Node("NP", (determiner, *inner)), who

    def _pronoun(self, entry: Noun) -> str:
        if entry.gender == "any":
            return "he" if self.dice.chance(0.5) else "she"
        return entry.gender

    @staticmethod
    def noun(entry: Noun, plural: bool) -> Node:
        return Node("NNS", (), entry.plural, entry) if plural else Node("NN", (), entry.singular, entry)

    def _adjective(self, kind: str) -> Node:
        return self.dice.pick(voc.ADJECTIVES[kind] if self.dice.chance(0.5) else voc.GENERAL[kind])

    def _list(self, first: Node, kind: str) -> tuple[Node, Referent]:
        dice = self.dice
        more = [self.base(kind, dice.chance(0.42))[0] for _ in range(2 if dice.chance(0.3) else 1)]
        if len(more) == 2:
            return Node("NP", (first, COMMA, more[0], AND, more[1])), Referent(kind, "they")
        return Node("NP", (first, AND, more[0])), Referent(kind, "they")

    def _after(self, who: Referent, room: int) -> Node:
        """What follows a noun: a prepositional phrase or a relative clause whose verb agrees with it."""
        dice = self.dice
        way = dice.pick(AFTER)
        if way == "subject relative":
            relative = (
                leaf("WP", "who") if who.kind == "person" and dice.chance(0.6) else leaf("WDT", dice.pick(_RELATIVE))
            )
            return Node("SBAR", (Node("WHNP", (relative,)), Node("S", (self.verb_phrase(who, room - 1),))))
        if way != "attribute" and who.kind in voc.TAKING:
            frame = FRAMES[name := dice.pick(voc.TAKING[who.kind])]
            verb = dice.pick(voc.VERBS[name])
            if way == "reduced":
                agent, _ = self.noun_phrase(frame.subject, room - 1, form="noun")
                return self.verb("VBN", verb, (Node("PP", (BY, agent)),))
            subject, other = self.noun_phrase(frame.subject, room - 1)
            verbs = self.verb(*self.finite(verb, other, dice.chance(0.5)), ())
            clause = Node("S", (subject, verbs))
            if dice.chance(0.3):
                return Node("SBAR", (clause,))
            return Node("SBAR", (Node("WHNP", (leaf("WDT", dice.pick(_RELATIVE)),)), clause))
        if who.kind not in voc.ATTRIBUTES:
            return self.where(room - 1)
        preposition, kind = dice.pick(voc.ATTRIBUTES[who.kind])
        return Node("PP", (preposition, self.noun_phrase(kind, room - 1, form="noun")[0]))

    # Verb phrases

    def verb_phrase(self, who: Referent, room: int, said: list[Referent] | None = None) -> Node:
        """A finite verb phrase that agrees with ``who``. ``said`` collects objects that a pronoun could take up."""
        dice = self.dice
        past = dice.chance(0.5)
        if room > 0 and dice.chance(self.mood.widen * 0.12):
            both = (self._predicate(who, 0, dice.chance(0.5), said), self._predicate(who, 0, dice.chance(0.5), said))
            return Node("VP", (both[0], dice.pick(JOINS), both[1]))
        return self._predicate(who, room, past, said)

    def _predicate(self, who: Referent, room: int, past: bool, said: list[Referent] | None = None) -> Node:
        dice = self.dice
        if who.kind not in voc.IDLE or dice.chance(0.14):
            return self._copula(who, room, past)
        if who.kind in voc.TAKING and dice.chance(0.12 if who.kind in voc.ACTIVE else 0.4):
            return self._passive(who, room, past)
        verb, rest = self._complement(who.kind, room, said)
        rest += self.tails(room, 0.25 + self.mood.widen, past)
        return self.voiced(verb, who, past, rest)

    def voiced(self, verb: Verb, who: Referent, past: bool, rest: tuple[Node, ...]) -> Node:
        dice = self.dice
        match dice.pick(VOICES):
            case "progressive":
                return Node("VP", (leaf(*be(past, who.plural)), *self._between(), self.verb("VBG", verb, rest)))
            case "perfect":
                have = leaf("VBD", "had") if past else leaf("VBP", "have") if who.plural else leaf("VBZ", "has")
                return Node("VP", (have, *self._between(), self.verb("VBN", verb, rest)))
            case "modal":
                negation = (NOT,) if dice.chance(0.2) else self._between()
                return Node("VP", (dice.pick(voc.MODALS), *negation, self.verb("VB", verb, rest)))
            case "negated":
                do = leaf("VBD", "did") if past else leaf("VBP", "do") if who.plural else leaf("VBZ", "does")
                return Node("VP", (do, NOT, self.verb("VB", verb, rest)))
        return self.verb(*self.finite(verb, who, past), rest)

    def _between(self) -> tuple[Node, ...]:
        return (Node("ADVP", (self.dice.pick(voc.FREQUENCY),)),) if self.dice.chance(0.1) else ()

    def _complement(self, kind: str, room: int, said: list[Referent] | None = None) -> tuple[Verb, tuple[Node, ...]]:
        """A verb that such a subject takes, and what it needs after it."""
        dice = self.dice
        if kind == "person" and room > 0:
            if dice.chance(self.mood.embed * 0.5):
                complementiser = (THAT,) if dice.chance(0.6) else ()
                return dice.pick(voc.SAYING), (Node("SBAR", (*complementiser, self.clause(room - 1))),)
            if dice.chance(self.mood.embed * 0.35):
                wish = Node("VP", (TO, self.bare(Referent("person", "you"), room - 1)))
                return dice.pick(voc.WANTING), (Node("S", (wish,)),)
        if kind == "person" and dice.chance(0.06):
            thing, _ = self.noun_phrase(dice.pick(_GIFTS), 0, form="noun")
            other, _ = self.noun_phrase("person", 0, objective=True)
            if dice.chance(0.5):
                return dice.pick(voc.GIVING), (other, thing)
            return dice.pick(voc.GIVING), (thing, Node("PP", (TO._replace(label="IN"), other)))
        if kind in voc.ACTIVE and dice.chance(0.72):
            name = dice.pick(voc.ACTIVE[kind])
            thing, who = self.noun_phrase(FRAMES[name].object, room, objective=True)
            if said is not None:
                said.append(who)
            return dice.pick(voc.VERBS[name]), (thing,)
        return dice.pick(voc.VERBS[voc.IDLE[kind]]), ()

    def bare(self, who: Referent, room: int) -> Node:
        verb, rest = self._complement(who.kind, room)
        return self.verb("VB", verb, rest + self.tails(room, self.mood.widen))

    def asked(self, who: Referent, room: int) -> tuple[Node, Node]:
        """The auxiliary that goes before the subject of a question, and the verb phrase after it."""
        dice = self.dice
        if dice.chance(0.3):
            return dice.pick(voc.MODALS), self.bare(who, room)
        if dice.chance(0.5):
            return leaf("VBD", "did"), self.bare(who, room)
        return leaf("VBP", "do") if who.plural else leaf("VBZ", "does"), self.bare(who, room)

    def _passive(self, who: Referent, room: int, past: bool) -> Node:
        dice = self.dice
        frame = FRAMES[name := dice.pick(voc.TAKING[who.kind])]
        rest: tuple[Node, ...] = ()
        if dice.chance(0.6):
            rest = (Node("PP", (BY, self.noun_phrase(frame.subject, room - 1, form="noun")[0])),)
        rest += self.tails(room, self.mood.widen, past)
        participle = self.verb("VBN", dice.pick(voc.VERBS[name]), rest)
        return Node("VP", (leaf(*be(past, who.plural)), *self._between(), participle))

    def _copula(self, who: Referent, room: int, past: bool) -> Node:
        dice = self.dice
        verb: Node
        if seems := dice.chance(0.3):
            verb = self.verb(*self.finite(dice.pick(voc.SEEMING), who, past), ()).children[0]
        else:
            verb = leaf(*be(past, who.plural))
        adjective = self._adjective(who.kind)
        if not seems and dice.chance(0.25):
            return Node("VP", (verb, self.where(room)))
        tails = self.tails(room, self.mood.widen * 0.6, past)
        if adjective.word in voc.COMPARATIVES and dice.chance(0.4):
            other, _ = self.noun_phrase(who.kind, room - 1, form="noun")
            than = Node("PP", (THAN, other))
            return Node("VP", (verb, Node("ADJP", (voc.COMPARATIVES[adjective.word], than)), *tails))
        degree = (dice.pick(voc.DEGREE),) if adjective.word in voc.GRADED and dice.chance(0.3) else ()
        if not degree and dice.chance(0.15 + self.mood.widen * 0.2):
            second = self._adjective(who.kind)
            if second is not adjective:
                return Node("VP", (verb, Node("ADJP", (adjective, AND, second)), *tails))
        return Node("VP", (verb, Node("ADJP", (*degree, adjective)), *tails))

    @staticmethod
    def verb(label: str, entry: Verb, rest: tuple[Node, ...]) -> Node:
        """A verb phrase headed by ``entry`` in the form that ``label`` asks for, its particle and the rest after it."""
        head = Node(label, (), _form(entry, label), entry)
        if not entry.particle:
            return Node("VP", (head, *rest))
        return Node("VP", (head, Node("PRT", (leaf("RP", entry.particle),)), *rest))

    @staticmethod
    def finite(verb: Verb, who: Referent, past: bool) -> tuple[str, Verb]:
        return ("VBD" if past else "VBP" if who.plural else "VBZ"), verb

    # What may follow a verb or open a sentence

    def tails(self, room: int, chance: float, past: bool = False) -> tuple[Node, ...]:
        dice = self.dice
        found: list[Node] = []
        while len(found) < 3 and dice.chance(chance):
            chance *= 0.6
            match dice.pick(TAILS):
                case "where":
                    found.append(self.where(room - 1))
                case "how":
                    found.append(Node("ADVP", (dice.pick(voc.MANNER if dice.chance(0.75) else voc.PLACEWARD),)))
                case "when":
                    found.append(self.when())
                case "why":
                    if room > 0:
                        found.append(self.why(room - 1))
                        break
                case _:
                    found.append(Node("ADVP", (dice.pick(voc.PAST_TIMES if past else voc.PRESENT_TIMES),)))
        return tuple(found)

    def where(self, room: int) -> Node:
        dice = self.dice
        scene, _ = self.noun_phrase(dice.pick(voc.SCENERY), room, form="noun")
        return Node("PP", (dice.pick(voc.LOCATIVE), scene))

    def when(self) -> Node:
        dice = self.dice
        time = dice.pick(voc.NOUNS["time"])
        label, word = dice.pick(_TIME_WORDS)
        return Node(
            "PP", (dice.pick(voc.TEMPORAL), Node("NP", (leaf(label, word), Node("NN", (), time.singular, time))))
        )

    def why(self, room: int) -> Node:
        return Node("SBAR", (self.dice.pick(voc.BECAUSE), self.clause(max(room, 0))))


def be(past: bool, plural: bool) -> tuple[str, str]:
    if past:
        return "VBD", "were" if plural else "was"
    return ("VBP", "are") if plural else ("VBZ", "is")


def _form(verb: Verb, label: str) -> str:
    match label:
        case "VBZ":
            return verb.third
        case "VBD":
            return verb.past
        case "VBN":
            return verb.participle
        case "VBG":
            return verb.ing
    return verb.base
