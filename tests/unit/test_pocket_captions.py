"""Captions are true of their scene, twins are not; both are sentences of the language."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from clipstudy.pocket.dice import Dice
from clipstudy.pocket.images.scenes import COLOURS, SIZES, Scene, SceneObject, relation, sample
from clipstudy.pocket.images.silhouettes import SHAPES, TEXTURES
from clipstudy.pocket.text import vocabulary
from clipstudy.pocket.text.captions import caption, captions
from clipstudy.pocket.text.language import LONGEST, SHORTEST, Language
from clipstudy.pocket.text.lexicon import PLAIN_WORDS
from clipstudy.pocket.text.mixture import mixture
from clipstudy.pocket.text.mixture import vocabulary as ranked_words
from clipstudy.pocket.text.tree import chunk_tags, leaves

MEANS = {word: name for name, text in PLAIN_WORDS.items() for word in text.split()}
ACROSS, DOWN = {"left", "right"}, {"top", "bottom"}


@pytest.fixture(scope="module")
def scenes():
    return sample(np.random.default_rng(9), 1500)


@pytest.fixture(scope="module")
def described(scenes):
    return captions(scenes, seed=2)


def is_true(scene: Scene, words: tuple[str, ...]) -> bool:
    """Whether the words hold of the scene: an independent reading of the caption, clause by clause."""
    text = " ".join(words).removesuffix(" .")
    clauses = (
        [text]
        if " that " in text or text.startswith(("the picture", "the image", "the drawing"))
        else text.split(" , and ")
    )
    if "looks" in words:
        clauses = [text]
    return all(_holds(scene, clause.split()) for clause in clauses)


def _holds(scene: Scene, words: list[str]) -> bool:
    by_shape = {thing.shape: thing for thing in scene.objects}
    found: list[tuple[int, int, SceneObject]] = []  # first and last word of a noun phrase, and what it names
    said: list[str] = []
    start = 0
    for at, word in enumerate(words):
        name = MEANS.get(word, word)
        if word in ("the", "a", "an"):
            said, start = [], at
        elif name in COLOURS or name in SIZES or name in TEXTURES:
            said.append(name)
        elif name in SHAPES:
            thing = by_shape.get(name)
            if thing is None or not _has(thing, said):
                return False
            found.append((start, at, thing))
            said = []
        elif word == "and" and words[at - 1] not in MEANS and words[at - 1] not in (*COLOURS, *TEXTURES):
            said = []
    if "there" in words and words[2] in ("one", "two", "three"):
        return ("one", "two", "three")[len(scene.objects) - 1] == words[2] and (words[1] == "is") == (words[2] == "one")
    if words[:2] in (["it", "is"], ["the", "biggest"]):
        return found[0][2] is scene.main
    first = found[0][2]
    if ("looks" in words or "that" in words or "are" in words) and not all(
        _has(thing, said) for _, _, thing in (found if "are" in words else found[:1])
    ):
        return False
    if "than" in words:
        larger = any(word in words for word in ("bigger", "larger"))
        return (first.radius > found[1][2].radius) == larger
    if "shows" in words or "are" in words or "looks" in words:
        return True
    if found[0][0] > 0 and words[0] != "there":  # above the star is a cup
        return _canonical(words[: found[0][0]]) == relation(found[1][2], first)
    tail = words[found[0][1] + 1 : found[1][0] if len(found) > 1 else len(words)]
    if len(found) > 1:
        return _canonical(tail) == relation(first, found[1][2])
    return _is_there(first, tail)


def _has(thing: SceneObject, adjectives: list[str]) -> bool:
    return all(word in (thing.colour, thing.size, thing.texture) for word in adjectives)


def _canonical(words: list[str]) -> str:
    for word in words:
        if word in ACROSS:
            return f"{word} of"
        if MEANS.get(word) in ("above", "below"):
            return MEANS[word]
    return ""


def _is_there(thing: SceneObject, words: list[str]) -> bool:
    down, across = thing.place
    return (down if down in DOWN else "") == "".join(w for w in words if w in DOWN) and (
        across if across in ACROSS else ""
    ) == "".join(w for w in words if w in ACROSS)


def test_captions_are_true_of_their_scene(scenes, described):
    for scene, one in zip(scenes, described, strict=True):
        assert is_true(scene, one.sentence.words), (str(one), scene)


def test_captions_are_not_true_of_other_scenes(scenes, described):
    others = scenes[7:] + scenes[:7]
    assert sum(is_true(o, c.sentence.words) for o, c in zip(others, described, strict=True)) < 0.05 * len(scenes)


def test_twins_have_the_same_words_and_are_false(scenes, described):
    twins = 0
    for scene, one in zip(scenes, described, strict=True):
        if one.twin is None:
            continue
        twins += 1
        plain = [["a" if w == "an" else w for w in s.words] for s in (one.sentence, one.twin)]
        assert sorted(plain[0]) == sorted(plain[1]) and plain[0] != plain[1], str(one)
        assert not is_true(scene, one.twin.words), (str(one), str(one.twin), scene)
    assert twins > 0.4 * len(scenes)


def test_captions_name_the_class_in_more_than_one_word(scenes, described):
    named = Counter()
    for scene, one in zip(scenes, described, strict=True):
        nouns = [leaf.word for leaf in one.sentence.leaves if leaf.entry is not None]
        assert scene.main.shape in {MEANS.get(word, word) for word in nouns}, str(one)
        named.update(nouns)
    assert named["circle"] > named["disc"] > 0 and named["moon"] > named["crescent"] > 0


def test_captions_are_sentences_of_the_language(described):
    labels_ = {leaf.label for one in described for leaf in one.sentence.leaves}
    assert labels_ <= set(
        ["DT", "JJ", "JJR", "JJS", "NN", "NNS", "IN", "VBZ", "VBP", "RB", "CC", ",", ".", "WDT", "EX", "CD", "PRP"]
    )
    for one in described:
        assert SHORTEST <= len(one.sentence.words) <= LONGEST
        assert len(chunk_tags(one.sentence.tree)) == len(one.sentence.words)
        for article, word in zip(one.sentence.words, one.sentence.words[1:], strict=False):
            assert article not in ("a", "an") or (article == "an") == (word[0] in "aeiou")
    verbs = Counter(leaf.word for one in described for leaf in one.sentence.leaves if leaf.label in ("VBZ", "VBP"))
    assert verbs["is"] > verbs["are"] > 20


def test_the_same_scenes_and_seed_give_the_same_captions(scenes):
    assert [str(c) for c in captions(scenes[:50], 2)] == [str(c) for c in captions(scenes[:50], 2)]
    assert [str(c) for c in captions(scenes[:50], 2)] != [str(c) for c in captions(scenes[:50], 3)]


def test_a_blank_scene_has_no_caption():
    with pytest.raises(ValueError, match="empty scene"):
        caption(Scene((), 0), Dice(0))


def test_the_mixture_is_deterministic_and_holds_both():
    lines = list(islice(mixture(4), 400))
    assert lines == list(islice(mixture(4), 400))
    persons = {entry.singular for entry in vocabulary.NOUNS["person"].items}
    assert sum(bool(persons & set(words)) for words in lines) > 50
    shapes = sum(bool({"disc", "hourglass", "bolt", "cross", "ring", "circle", "cup"} & set(words)) for words in lines)
    assert shapes > 50
    assert all("man" not in words for words in islice(mixture(4, share=1.0), 100))


def test_no_word_is_outside_the_vocabulary(described):
    known = vocabulary.all_words()
    language = Language(21)
    said = {word for one in described for word in one.sentence.words}
    said |= {word for _ in range(3000) for word in language.sentence().words}
    assert said <= known
    ranked = ranked_words()
    assert len(ranked) == len(set(ranked)) == len(known) and ranked == ranked_words() and "the" in ranked[:3]


def test_leaves_of_a_tree_are_its_words(described):
    assert all(tuple(leaf.word for leaf in leaves(c.sentence.tree)) == c.sentence.words for c in described)
