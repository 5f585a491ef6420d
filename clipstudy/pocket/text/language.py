"""The pocket language: a seeded probabilistic grammar of English function words, agreement and selection.

Every verb takes one kind of subject and one kind of object (``lexicon.FRAMES``), finite verbs agree with their subject,
pronouns agree with what they refer to, and clauses choose their tense independently of one another, so that the tense
of one verb says nothing about the next. Nouns, verbs and adjectives follow Zipf's law within their kind.

Sentences differ on purpose in shape as well as in length: *wide* moods list and modify on one level, *deep* ones embed.
Without that a long sentence would be a deep one, and depth could be read off length.
"""

from __future__ import annotations

from collections.abc import Iterator

from clipstudy.pocket.dice import Dice, Table
from clipstudy.pocket.text import vocabulary as voc
from clipstudy.pocket.text.lexicon import FRAMES
from clipstudy.pocket.text.phrases import ASKS, COMMA, JOINS, STOP, THERE, THINGS, Mood, Phrases, Referent, be, leaf
from clipstudy.pocket.text.tree import Node, Sentence

#: SentEval's sentences have 5 to 28 tokens; whatever falls outside is drawn again.
SHORTEST, LONGEST = 5, 28
MOODS = Table({Mood(0.2, 0.2, 2): 4.0, Mood(0.05, 0.5, 1): 3.0, Mood(0.55, 0.12, 5): 3.0})
FRONTS = Table({"": 54.0, "where": 8.0, "when": 5.0, "adverb": 10.0, "clause": 7.0, "joined": 6.0, "participle": 3.0,
                "day": 4.0, "joined adverb": 2.0, "adverb where": 2.0})  # fmt: skip
KINDS_OF_SENTENCE = Table({"statement": 72.0, "pair": 10.0, "yes-no": 5.0, "who": 3.0, "why": 3.0, "order": 3.0,
                           "there": 2.0, "quoted": 2.0, "inverted": 1.5})  # fmt: skip
_KNOWN = Table({"he": 1.0, "she": 1.0, "they": 2.0})
_WHY = Table({"why": 3.0, "when": 2.0, "where": 2.0, "how": 2.0})
_WHICH = Table({"that": 3.0, "this": 2.0, "every": 2.0, "one": 1.0})


class Language(Phrases):
    """Sentences without end from one seed; the same seed says the same on any machine."""

    def __init__(self, seed: int | str) -> None:
        super().__init__(Dice(f"language/{seed}"), MOODS.items[0])

    def __iter__(self) -> Iterator[Sentence]:
        while True:
            yield self.sentence()

    def sentence(self, kind: str = "", mood: Mood | None = None) -> Sentence:
        """The next sentence; of a kind in ``KINDS_OF_SENTENCE``, or in a mood, where one is asked for."""
        while True:
            before = self.dice.nats
            self.mood = mood or self.dice.pick(MOODS)
            tree = self._sentence(kind or self.dice.pick(KINDS_OF_SENTENCE))
            sentence = Sentence(tree, self.dice.nats - before)
            if SHORTEST <= len(sentence.leaves) <= LONGEST:
                return sentence

    def _sentence(self, kind: str) -> Node:
        dice, room = self.dice, self.mood.room
        match kind:
            case "pair":
                return self.pair()
            case "yes-no":
                subject, who = self.subject(room)
                aux, rest = self.asked(who, room)
                return Node("SQ", (aux, subject, rest, ASKS))
            case "who":
                who = Referent("person", "it")
                if dice.chance(0.5):
                    asked = Node("SQ", (self.verb_phrase(who, room),))
                    return Node("SBARQ", (Node("WHNP", (leaf("WP", "who"),)), asked, ASKS))
                frame = FRAMES[name := dice.pick(voc.ACTIVE["person"])]
                subject, who = self.noun_phrase(frame.subject, room)
                aux = (
                    leaf("VBD", "did") if dice.chance(0.5) else leaf("VBP", "do") if who.plural else leaf("VBZ", "does")
                )
                rest = self.verb("VB", dice.pick(voc.VERBS[name]), ())
                what = leaf("WP", "who" if frame.object == "person" else "what")
                return Node("SBARQ", (Node("WHNP", (what,)), Node("SQ", (aux, subject, rest)), ASKS))
            case "why":
                word = leaf("WRB", dice.pick(_WHY))
                subject, who = self.subject(room)
                aux, rest = self.asked(who, room)
                return Node("SBARQ", (Node("WHADVP", (word,)), Node("SQ", (aux, subject, rest)), ASKS))
            case "order":
                opening = (Node("ADVP", (dice.pick(voc.OPENERS),)),) if dice.chance(0.3) else ()
                return Node("S", (*opening, self.bare(Referent("person", "you"), room), STOP))
            case "there":
                plural = dice.chance(0.5)
                kind = dice.pick(voc.ACTORS)
                node, who = self.noun_phrase(kind, room, plural, "noun")
                is_ = leaf(*be(dice.chance(0.5), who.plural))
                return Node("S", (THERE, Node("VP", (is_, node, *self.tails(room, 0.8))), STOP))
            case "quoted":
                speaker, who = self.noun_phrase("person", 0)
                said = self.verb(*self.finite(dice.pick(voc.SAYING), who, dice.chance(0.5)), ())
                return Node("S", (self.clause(room), COMMA, speaker, said, STOP))
            case "inverted":
                subject, who = self.noun_phrase(dice.pick(voc.ACTORS), room, form="noun")
                is_ = leaf(*be(dice.chance(0.5), who.plural))
                return Node("SINV", (self.where(room), Node("VP", (is_,)), subject, STOP))
        return self.statement()

    def statement(self) -> Node:
        room = self.mood.room
        return Node("S", (*self._front(room), *self.clause(room).children, STOP))

    def pair(self) -> Node:
        """Two clauses, of which the second often speaks of someone in the first."""
        dice, room = self.dice, min(self.mood.room, 2)
        if dice.chance(0.5):
            first, second = self._exchange()
        else:
            said: list[Referent] = []
            first = self.clause(room, said=said)
            if said and dice.chance(0.5):
                who = said[dice.below(len(said))]
                second = Node("S", (voc.SUBJECT_PRONOUNS[who.pronoun], self.verb_phrase(who, room)))
            else:
                second = self.clause(room)
        middle = (COMMA,) if dice.chance(0.6) else ()
        return Node("S", (first, *middle, dice.pick(JOINS), second, STOP))

    def _exchange(self) -> tuple[Node, Node]:
        """*She feeds the dogs, and they obey the king.* Both clauses begin with a pronoun and both kinds of verbs come
        in both places, so neither a pronoun nor a verb tells which clause came first; who *they* are does."""
        dice = self.dice
        clauses: list[Node] = []
        names = dice.pick(voc.EXCHANGES)
        kind = FRAMES[names[0]].subject
        who = Referent(kind, dice.pick(_KNOWN if kind == "person" else THINGS))
        alone = who.pronoun
        for name in names:
            frame = FRAMES[name]
            # The second object seldom fits the first pronoun, so the clauses make sense in one order only. Half of all
            # objects in either place are plural: number as such tells nothing.
            often = 0.5 if not clauses else 0.15 if alone == "they" else 0.85
            thing, other = self.base(frame.object, dice.chance(often))
            rest = (thing, *self.tails(0, self.mood.widen))
            verbs = self.voiced(dice.pick(voc.VERBS[name]), who, dice.chance(0.5), rest)
            clauses.append(Node("S", (voc.SUBJECT_PRONOUNS[who.pronoun], verbs)))
            who = other
        return clauses[0], clauses[1]

    def _front(self, room: int) -> tuple[Node, ...]:
        dice = self.dice
        comma = (COMMA,) if dice.chance(0.6) else ()
        match dice.pick(FRONTS):
            case "where":
                return (self.where(room - 1), *comma)
            case "when":
                return (self.when(), *comma)
            case "adverb":
                return (Node("ADVP", (dice.pick(voc.OPENERS),)), *comma)
            case "clause":
                return (self.why(room - 1), COMMA)
            case "joined":
                return (dice.pick(JOINS),)
            case "joined adverb":
                return (dice.pick(JOINS), Node("ADVP", (dice.pick(voc.OPENERS),)))
            case "adverb where":
                return (Node("ADVP", (dice.pick(voc.OPENERS),)), self.where(room - 1), *comma)
            case "participle":
                frame = dice.pick(voc.ACTIVE["person"])
                verb = dice.pick(voc.VERBS[frame])
                thing, _ = self.noun_phrase(FRAMES[frame].object, 0)
                return (Node("S", (self.verb("VBG", verb, (thing,)),)), COMMA)
            case "day":
                time = dice.pick(voc.NOUNS["time"])
                which = leaf("DT", dice.pick(_WHICH))
                return (Node("NP", (which, Node("NN", (), time.singular, time))), *comma)
        return ()
