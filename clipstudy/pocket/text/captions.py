"""What a scene looks like, said in the pocket language, and the same said wrongly.

A caption is planned first (which objects, which of their properties, in which words) and then built as a tree of the
same phrases that sentences are made of. So a **twin** is the same plan with two objects or their colours exchanged:
it has the very same words, and only who is where tells it apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clipstudy.pocket.dice import Dice, Table
from clipstudy.pocket.images.scenes import SIZES, Scene, SceneObject, relation
from clipstudy.pocket.text.inflect import noun
from clipstudy.pocket.text.language import LONGEST
from clipstudy.pocket.text.lexicon import DEGREE, PLAIN_WORDS
from clipstudy.pocket.text.phrases import AND, COMMA, STOP, THAN, THERE, be, leaf
from clipstudy.pocket.text.tree import Node, Sentence, leaves

#: Scene's word → words for it, commonest first. Those left out are said as they are.
SYNONYMS = {
    name: Table([(word, 1 / (rank + 1)) for rank, word in enumerate(text.split())])
    for name, text in PLAIN_WORDS.items()
}
#: How much of an object is said: its colour, texture, size.
SAID = {"colour": 0.75, "texture": 0.75, "size": 0.4}
FORMS = Table({"relation": 5.0, "there": 3.0, "inverted": 2.0, "which": 3.0, "where": 2.0, "compared": 2.0, "pair": 2.0,
               "both": 1.0, "looks": 2.0, "shows": 2.0, "count": 2.0})  # fmt: skip
#: Forms that speak of the main object alone.
ALONE = Table({"there": 3.0, "where": 4.0, "looks": 3.0, "shows": 3.0, "count": 1.0})
PICTURES = Table({"picture": 3.0, "image": 2.0, "drawing": 1.0})
THE, A, IN, ON, OF, AT, TO = (leaf(*x) for x in (("DT", "the"), ("DT", "a"), ("IN", "in"), ("IN", "on"), ("IN", "of"),
                                                 ("IN", "at"), ("IN", "to")))  # fmt: skip


@dataclass(frozen=True)
class Mention:
    """An object as a caption speaks of it."""

    noun: str
    colour: str  #: empty where it is not said, like the two below
    texture: str
    size: str
    place: Node

    @property
    def adjectives(self) -> tuple[str, ...]:
        return tuple(word for word in (self.size, self.colour, self.texture) if word)


@dataclass(frozen=True)
class Plan:
    """All that is decided before a word is said."""

    form: str
    mentions: tuple[Mention, ...]
    between: Node  #: where the first is, seen from the second: a preposition, or what stands for one
    word: str = ""  #: what else the form asks for: a comparative, a degree, a kind of picture
    third: bool = False


@dataclass(frozen=True)
class Caption:
    """A caption that is true, and a twin of the same words (but for *a* and *an*) that is not, where there is one.

    ``sentence.nats`` is the surprise of the wording alone, the scene being given.
    """

    sentence: Sentence
    twin: Sentence | None

    def __str__(self) -> str:
        return str(self.sentence)


def captions(scenes: list[Scene], seed: int | str) -> list[Caption]:
    """One caption a scene. The same scenes and seed give the same."""
    dice = Dice(f"captions/{seed}")
    return [caption(scene, dice) for scene in scenes]


def caption(scene: Scene, dice: Dice) -> Caption:
    """A caption of the main object, by itself or beside others.

    Raises:
        ValueError: the scene is empty.
    """
    if not scene.objects:
        raise ValueError("an empty scene has no caption")
    before = dice.nats
    plan = _plan(scene, dice)
    if len(leaves(say(plan))) > LONGEST:
        plan = replace(plan, third=False)
    sentence = Sentence(say(plan), dice.nats - before)
    wrong = twin(plan)
    return Caption(sentence, None if wrong is None else Sentence(say(wrong)))


def twin(plan: Plan) -> Plan | None:
    """The plan with its first two objects exchanged (or their names, places or colours, whichever makes it false),
    or None."""
    if len(plan.mentions) < 2 or plan.form in ("looks", "where"):
        return None
    first, second, *rest = plan.mentions
    if plan.form in ("relation", "inverted", "compared", "there"):
        # A relation and a comparison hold one way only.
        return replace(plan, mentions=(second, first, *rest))
    if plan.form == "which":
        first, second = replace(first, noun=second.noun), replace(second, noun=first.noun)
    elif plan.form == "pair" and leaves(first.place) != leaves(second.place):
        first, second = replace(first, place=second.place), replace(second, place=first.place)
    elif plan.form == "shows" and first.colour and second.colour and first.colour != second.colour:
        first, second = replace(first, colour=second.colour), replace(second, colour=first.colour)
    else:
        return None
    return replace(plan, mentions=(first, second, *rest))


def _plan(scene: Scene, dice: Dice) -> Plan:
    form = dice.pick(FORMS if len(scene.objects) > 1 else ALONE)
    objects = list(scene.objects)
    if form == "both" and objects[0].colour != objects[1].colour:
        form = "pair"
    if form in ("relation", "inverted", "which", "pair") and dice.chance(0.5):
        objects[:2] = objects[1], objects[0]
    mentions = [_mention(thing, dice) for thing in objects]
    between, word = leaf("IN", "near"), ""
    if len(objects) > 1:
        between = _between(relation(objects[0], objects[1]), dice)
    if form == "compared":  # the main object is the larger one
        word = "bigger" if dice.chance(0.5) else "larger"
        if dice.chance(0.5):
            mentions[:2] = mentions[1], mentions[0]
            word = "smaller" if dice.chance(0.6) else "tinier"
        mentions = [replace(m, size="") for m in mentions]
    elif form == "looks":
        word = dice.pick(_DEGREES)
    elif form == "shows":
        word = dice.pick(PICTURES)
    elif form == "count":
        word = dice.pick(_THINGS)
    elif form == "both":
        word = objects[0].colour
        mentions = [replace(m, colour="") for m in mentions]
    elif form == "which" and not any(mentions[0].adjectives):
        mentions[0] = replace(mentions[0], colour=objects[0].colour)
    third = len(objects) > 2 and form in ("relation", "there", "inverted") and dice.chance(0.5)
    return Plan(form, tuple(mentions), between, word, third)


_THINGS = Table({"shape": 3.0, "object": 2.0, "thing": 1.0})
_COUNTS = ("no", "one", "two", "three")
_DEGREES = Table([(word, 1.0) for word in (*DEGREE.split()[:3], "")])


def _mention(thing: SceneObject, dice: Dice) -> Mention:
    said = {name: _word(getattr(thing, name), dice) if dice.chance(chance) else "" for name, chance in SAID.items()}
    return Mention(_word(thing.shape, dice), **said, place=_place(thing, dice))


def _word(name: str, dice: Dice) -> str:
    return dice.pick(SYNONYMS[name]) if name in SYNONYMS else name


def _place(thing: SceneObject, dice: Dice) -> Node:
    down, across = thing.place
    if down == "middle" and across == "centre":
        return _pp(IN, _np(THE, leaf("NN", "middle" if dice.chance(0.6) else "centre")))
    if down == "middle":
        return _pp(ON, _np(THE, leaf("NN", across)))
    if across == "centre":
        return _pp(AT, _np(THE, leaf("NN", down)))
    return _pp(IN, _np(THE, leaf("JJ", down), leaf("JJ", across), leaf("NN", "corner")))


def _between(relation: str, dice: Dice) -> Node:
    """A preposition; or ``PP`` without its last word, for *to the left of*."""
    side, _, of = relation.partition(" ")
    if not of:
        return leaf("IN", _word(relation, dice))
    if dice.chance(0.4):
        return Node("ADVP", (leaf("RB", side),))
    return _pp(TO if dice.chance(0.5) else ON, _np(THE, leaf("NN", side)))


# Saying it


def say(plan: Plan) -> Node:
    """The tree of a planned caption."""
    first, *others = plan.mentions
    is_ = leaf(*be(False, False))
    match plan.form:
        case "relation":
            verbs = Node("VP", (is_, _seen_from(plan.between, _the(others[0]))))
            return _end(Node("S", (_the(first) if plan.third else _a(first), verbs)), plan)
        case "inverted":
            return _end(Node("SINV", (_seen_from(plan.between, _the(others[0])), Node("VP", (is_,)), _a(first))), plan)
        case "which":
            where = Node("S", (Node("VP", (is_, _seen_from(plan.between, _a(others[0])))),))
            thing = Node("NP", (_np(THE, _noun(first)), Node("SBAR", (Node("WHNP", (leaf("WDT", "that"),)), where))))
            return Node("S", (thing, Node("VP", (is_, _looks(first.adjectives))), STOP))
        case "compared":
            than = Node("ADJP", (leaf("JJR", plan.word), _pp(THAN, _the(others[0]))))
            return Node("S", (_the(first), Node("VP", (is_, than)), STOP))
        case "both":
            alike = Node("VP", (leaf(*be(False, True)), Node("ADJP", (leaf("JJ", plan.word),))))
            return Node("S", (_list(_the(first), _the(others[0])), alike, STOP))
        case "pair":
            one, other = (Node("S", (_a(m), Node("VP", (is_, m.place)))) for m in (first, others[0]))
            return Node("S", (one, COMMA, AND, other, STOP))
        case "count":
            many = len(plan.mentions)
            things = leaf("NNS", plan.word + "s") if many > 1 else leaf("NN", plan.word)
            there = Node("VP", (leaf(*be(False, many > 1)), _np(leaf("CD", _COUNTS[many]), things)))
            one = _np(THE, leaf("JJS", "biggest"), leaf("NN", "one")) if many > 1 else _np(leaf("PRP", "it"))
            more = Node("S", (one, Node("VP", (is_, _a(first)))))
            return Node("S", (Node("S", (THERE, there)), COMMA, AND, more, STOP))
        case "looks":
            adjectives = first.adjectives
            seems = leaf("VBZ", "looks")
            look = _looks(adjectives, plan.word) if adjectives else first.place
            return Node("S", (_np(THE, _noun(first)), Node("VP", (seems if adjectives else is_, look)), STOP))
        case "shows":
            shown = _list(_a(first), _a(others[0])) if others else _a(first)
            return Node("S", (_np(THE, leaf("NN", plan.word)), Node("VP", (leaf("VBZ", "shows"), shown)), STOP))
        case "where":
            return Node("S", (_a(first), Node("VP", (is_, first.place)), STOP))
    where = _seen_from(plan.between, _a(others[0])) if others else first.place
    return _end(Node("S", (THERE, Node("VP", (is_, Node("NP", (_a(first), where)))))), plan)


def _end(clause: Node, plan: Plan) -> Node:
    """The clause as a sentence, with a second one about a third object where the plan has it."""
    if not plan.third:
        return clause._replace(children=(*clause.children, STOP))
    third = plan.mentions[2]
    more = Node("S", (_a(third), Node("VP", (leaf(*be(False, False)), third.place))))
    return Node("S", (clause, COMMA, AND, more, STOP))


def _seen_from(between: Node, thing: Node) -> Node:
    if between.word:
        return _pp(between, thing)
    if between.label == "ADVP":
        return between._replace(children=(*between.children, _pp(OF, thing)))
    preposition, side = between.children
    return _pp(preposition, Node("NP", (side, _pp(OF, thing))))


def _looks(adjectives: tuple[str, ...], degree: str = "") -> Node:
    """*red*, *very large*, *large and red*, *large, red and striped*. Only sizes come in degrees."""
    words: list[Node] = [leaf("JJ", word) for word in adjectives]
    if len(words) > 1:
        words[-1:] = [AND, words[-1]]
    if len(words) > 3:
        words[1:1] = [COMMA]
    if degree and len(words) == 1 and adjectives[0] in _SIZE_WORDS:
        words.insert(0, leaf("RB", degree))
    return Node("ADJP", tuple(words))


_SIZE_WORDS = frozenset(word for size in SIZES for word in (size, *(SYNONYMS[size].items if size in SYNONYMS else ())))


def _noun(mention: Mention) -> Node:
    return Node("NN", (), mention.noun, noun(mention.noun, "shape"))


def _described(mention: Mention) -> list[Node]:
    return [*(leaf("JJ", word) for word in mention.adjectives), _noun(mention)]


def _the(mention: Mention) -> Node:
    return _np(THE, *_described(mention))


def _a(mention: Mention) -> Node:
    words = _described(mention)
    return _np(leaf("DT", "an") if words[0].word[0] in "aeiou" else A, *words)


def _list(first: Node, second: Node) -> Node:
    return Node("NP", (first, AND, second))


def _np(*words: Node) -> Node:
    return Node("NP", words)


def _pp(preposition: Node, thing: Node) -> Node:
    return Node("PP", (preposition, thing))
