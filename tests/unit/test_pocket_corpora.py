"""The pocket data sets: the ordinary readers read them, splits are apart, labels hold, nothing is given away."""

import json
from collections import Counter
from pathlib import Path

import pytest

from clipstudy.data import conll2000, images, senteval
from clipstudy.errors import DataError
from clipstudy.pocket import baselines, corpora
from clipstudy.pocket.baskets import Basket, Row, Sizes
from clipstudy.pocket.text import labels, pairs, probing, vocabulary
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.lexicon import FRAMES
from clipstudy.pocket.text.tree import depth
from clipstudy.spec import DatasetSpec

SIZES = Sizes(train=400, dev=100, test=200)
CLASSES = {
    "sentence_length": 6, "word_content": 100, "tree_depth": 8, "top_constituents": 20, "bigram_shift": 2,
    "past_present": 2, "subj_number": 2, "obj_number": 2, "odd_man_out": 2, "coordination_inversion": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pocket")
    corpora.write(folder, seed=5, sizes=SIZES)
    return folder


def read(folder: Path, task: str):
    path = str(folder / "senteval" / f"{task}.txt")
    return senteval.read(DatasetSpec(name=task, reader="senteval", path=path))


@pytest.mark.parametrize("task", CLASSES)
def test_probing_files_are_read_balanced_and_apart(folder, task):
    found = read(folder, task)
    assert len(found.classes) == CLASSES[task]
    assert [len(rows) for rows in (found.train, found.dev, found.test)] == [400, 100, 200]
    texts = [text for rows in (found.train, found.dev, found.test) for text in rows.items]
    assert len(set(texts)) == len(texts)
    assert all(5 <= len(text) <= 28 for text in texts)
    for rows in (found.train, found.test):
        counts = Counter(rows.labels)
        assert max(counts.values()) - min(counts.values()) <= (3 if task == "tree_depth" else 1)


def test_chunk_files_are_read_and_apart(folder):
    spec = DatasetSpec(name="conll2000", reader="conll2000", path=str(folder / "conll2000"))
    train, test = conll2000.read(spec, "train"), conll2000.read(spec, "test")
    assert (len(train.sentences), len(test.sentences)) == (400, 200)
    assert not {s.words for s in train.sentences} & {s.words for s in test.sentences}
    found = Counter(c.label for s in train.sentences for c in conll2000.chunks(s.tags))
    assert {"NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "O"} <= set(found)


def test_pictures_are_read_and_apart(folder):
    columns = {"image": "img", "label": "coarse_label"}
    found = images.read(DatasetSpec("shapes", "images", str(folder / "pictures"), columns=columns))
    assert [len(rows) for rows in (found.train, found.dev, found.test)] == [450, 50, 200] and len(found.classes) == 20
    seen = [picture.read() for rows in (found.train, found.dev, found.test) for picture in rows.items]
    assert len(set(seen)) == len(seen)


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    corpora.write(tmp_path / "again", seed=5, sizes=SIZES)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 2 + 10 + 3 + 6 + 3
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_another_seed_gives_other_rows(folder):
    first = corpora.chunking(5, Sizes(20, 0, 5))
    assert "\n".join(first["train"]) in (folder / "conll2000" / "train.txt").read_text()
    assert corpora.chunking(6, Sizes(20, 0, 5)) != first


@pytest.mark.parametrize(
    ("rule", "part"),
    [(probing.past_present, "verb"), (probing.subj_number, "subject"), (probing.obj_number, "object")],
)
def test_forms_that_carry_the_label_are_disjoint_over_splits(rule, part):
    split_of = probing.lexical_splits(5)
    forms: dict[str, set[str]] = {"tr": set(), "va": set(), "te": set()}
    seen = Counter()
    language = Language(11)
    for _ in range(3000):
        sentence = language.sentence()
        for row in rule(sentence, split_of):
            forms[row.split].add(getattr(labels.main_clause(sentence.tree), part).word)
            seen[row.split, row.label] += 1
    assert not forms["tr"] & forms["va"] and not forms["tr"] & forms["te"] and not forms["va"] & forms["te"]
    assert min(seen.values()) > 50 and len(seen) == 6


def test_labels_are_what_the_tree_says():
    language = Language(12)
    split_of = probing.lexical_splits(0)
    tags = {"VBD": "PAST", "VBP": "PRES", "VBZ": "PRES"}
    rows = Counter()
    for _ in range(600):
        sentence = language.sentence()
        main = labels.main_clause(sentence.tree)
        for kind, rule, said in (
            ("tense", probing.past_present, tags.get(main.verb and main.verb.label)),
            ("number", probing.subj_number, main.subject and main.subject.label),
        ):
            found = [row.label for row in rule(sentence, split_of)]
            assert found in ([], [said])
            rows[kind] += len(found)
        for row in probing.tree_depth(sentence):
            assert row.label == str(depth(sentence.tree) + 1) and 12 <= len(row.text) <= 16
        for row in probing.sentence_length(sentence):
            low, high = labels.LENGTHS[int(row.label)]
            assert low <= len(row.text) <= high
        for row in probing.top_constituents(sentence, frozenset({"NP_VP_."})):
            assert (row.label == "NP_VP_.") == (labels.top_constituents(sentence.tree) == "NP_VP_.")
    assert min(rows["tense"], rows["number"]) > 50


def test_word_content_holds_its_word_once_and_no_other(folder):
    found = read(folder, "word_content")
    contents = set(found.classes)
    for text, label in zip(found.train.items, found.train.labels, strict=True):
        assert text.count(label) == 1 and len(contents & set(text)) == 1


def test_a_shifted_sentence_is_two_neighbours_away_from_a_natural_one():
    import random

    language, draw = Language(13), random.Random(0)
    labels_ = Counter()
    for _ in range(400):
        sentence = language.sentence()
        for row in probing.bigram_shift(sentence, draw):
            labels_[row.label] += 1
            wrong = [i for i, (a, b) in enumerate(zip(row.text, sentence.words, strict=True)) if a != b]
            if row.label == "O":
                assert not wrong
            else:
                assert len(wrong) == 2 and wrong[1] == wrong[0] + 1 and sorted(row.text) == sorted(sentence.words)
                assert sentence.pos[wrong[0]] != sentence.pos[wrong[1]]
    assert min(labels_.values()) > 100


def test_an_odd_word_is_one_that_its_clause_does_not_select():
    import random

    language, rule = Language(14), probing.OddManOut(random.Random(0))
    odd = Counter()
    for _ in range(3000):
        sentence = language.sentence()
        main = labels.main_clause(sentence.tree)
        for row in rule(sentence):
            wrong = [i for i, (a, b) in enumerate(zip(row.text, sentence.words, strict=True)) if a != b]
            if row.label == "O":
                assert not wrong and probing.selects(main.verb.entry.lemma, main.object.entry.lemma)
                continue
            (at,) = wrong
            leaf = sentence.leaves[at]
            assert leaf is main.verb or leaf is main.object
            odd[leaf.label] += 1
            lemmas = _lemmas(leaf.label)[row.text[at]]  # the form may belong to several lemmas: some must be odd
            assert any(
                not probing.selects(
                    *((lemma, main.object.entry.lemma) if leaf is main.verb else (main.verb.entry.lemma, lemma))
                )
                for lemma in lemmas
            ), row
    assert set(odd) == {"NN", "NNS", "VBD", "VBP", "VBZ"}


def _lemmas(label: str) -> dict[str, set[str]]:
    at = {"NN": "singular", "NNS": "plural", "VBD": "past", "VBP": "base", "VBZ": "third"}[label]
    found: dict[str, set[str]] = {}
    for table in (vocabulary.NOUNS if label.startswith("NN") else vocabulary.VERBS).values():
        for entry in table.items:
            found.setdefault(getattr(entry, at), set()).add(entry.lemma)
    return found


def test_inverted_clauses_can_be_told_by_whom_the_pronoun_means_and_by_nothing_nearer(folder):
    """A reader who resolves pronouns by number and gender does well; one who looks at each half by itself does not."""
    found = read(folder, "coordination_inversion")
    right = 0
    for text, label in zip(found.train.items, found.train.labels, strict=True):
        joins = [i for i, word in enumerate(text) if word in ("and", "but", "or") and text[i + 1] in THIRD]
        at = joins[0]
        means = any(text[at + 1] in PRONOUNS.get(word, ()) for word in text[1:at])
        right += ("O" if means else "I") == label
    assert right / len(found.train) > 0.75
    firsts = Counter((text[0], label) for text, label in zip(found.train.items, found.train.labels, strict=True))
    for word in THIRD:
        assert abs(firsts[word, "I"] - firsts[word, "O"]) < 0.25 * (firsts[word, "I"] + firsts[word, "O"]) + 10


THIRD = ("he", "she", "it", "they")
PRONOUNS: dict[str, set[str]] = {}
for _table in vocabulary.NOUNS.values():
    for _entry in _table.items:
        PRONOUNS.setdefault(_entry.plural, set()).add("they")
        PRONOUNS.setdefault(_entry.singular, set()).update(
            ("he", "she") if _entry.gender == "any" else (_entry.gender,)
        )


def test_questions_follow_from_their_passage():
    """Answered again from the words alone, by a reader that knows what a passive is and what *not* means."""
    why = Counter()
    for question, _ in zip(pairs.questions(3), range(600), strict=False):
        told = [_propose(sentence.split()) for sentence in question.passage.split(" .") if sentence]
        asked = _propose(question.question.split())
        assert asked is not None
        truths = {(p, o, s) for said in told if said is not None for p, o, s, denied in [said] if not denied}
        assert (asked[:3] in truths) == question.answer, question
        why[question.because] += 1
    assert why["told"] == 300 and min(why.values()) > 40 and set(why) == {"told", *pairs.REFUSALS}


NOUN_OF = {form: e.lemma for t in vocabulary.NOUNS.values() for e in t.items for form in (e.singular, e.plural)}
FORMS_OF: dict[str, set[str]] = {}
for _name, _verbs in vocabulary.VERBS.items():
    if FRAMES[_name].object:
        for _entry in _verbs.items:
            for _form in (_entry.base, _entry.past, _entry.participle):
                FORMS_OF.setdefault(_form, set()).add(_entry.base)


def _propose(words: list[str]):
    """(verb, subject, object, denied) of a plain clause or question in the past; None of anything else."""
    verbs = [i for i, w in enumerate(words) if w in FORMS_OF and i and words[i - 1] not in ("the",)]
    the = [i for i, w in enumerate(words) if w == "the"]
    if not verbs or len(the) < 2:
        return None
    nouns = []
    for i in the[:2]:
        named = [w for w in words[i + 1 : i + 3] if w in NOUN_OF]
        if not named:
            return None
        nouns.append(named[-1] if len(named) == 2 and words[i + 2] not in FORMS_OF else named[0])
    passive = "by" in words and any(w in ("was", "were") for w in words)
    subject, thing = reversed(nouns) if passive else nouns
    at = [i for i in verbs if words[i] not in nouns]
    return (min(FORMS_OF[words[(at or verbs)[0]]]), subject, thing, "not" in words)


def test_question_files_have_boolqs_layout(folder):
    for split, size in (("train", 400), ("dev", 100), ("test", 200)):
        rows = [json.loads(line) for line in (folder / "boolq" / f"{split}.jsonl").read_text().splitlines()]
        assert len(rows) == size and all(set(r) == {"question", "title", "answer", "passage"} for r in rows)
        assert sum(r["answer"] for r in rows) == size / 2


def test_sense_files_have_wics_layout_and_point_at_the_word(folder):
    forms: dict[str, set[str]] = {}
    for table in (*vocabulary.NOUNS.values(), *vocabulary.VERBS.values()):
        for entry in table.items:
            forms.setdefault(entry.lemma, set()).update(entry[2:7])
    sentences: list[str] = []
    for split, size in (("train", 400), ("dev", 100), ("test", 200)):
        data = (folder / "wic" / split / f"{split}.data.txt").read_text().splitlines()
        gold = (folder / "wic" / split / f"{split}.gold.txt").read_text().splitlines()
        assert len(data) == len(gold) == size and Counter(gold) == {"T": size // 2, "F": size // 2}
        for line in data:
            lemma, pos, places, *texts = line.split("\t")
            assert pos in ("N", "V") and len(texts) == 2
            for place, text in zip(places.split("-"), texts, strict=True):
                assert text.split()[int(place)] in forms[lemma], line
            sentences += texts
    assert len(set(sentences)) == len(sentences)


def test_a_noun_is_the_object_of_a_verb_that_takes_its_sense():
    """So the sense can be told: nothing but the verb says which *crane* it is."""
    takes: dict[str, set[str]] = {}
    for name, table in vocabulary.VERBS.items():
        for entry in table.items:
            for form in entry[2:7]:
                takes.setdefault(form, set()).add(FRAMES[name].object)
    same = Counter()
    for pair, _ in zip(pairs.sense_pairs(4), range(600), strict=False):
        same[pair.same] += 1
        for sense, place, text in zip(pair.senses, pair.places, pair.sentences, strict=True):
            if pair.pos == "N":
                before = text.split()[:place]
                assert any(sense in takes.get(word, ()) for word in before), pair
            else:
                assert pair.lemma in {e.lemma for e in vocabulary.VERBS[sense].items}
    assert same == {True: 300, False: 300}


def test_a_basket_fills_each_split_and_takes_no_text_twice():
    basket = Basket({"a": 1.0, "b": 1.0}, (4, 2, 2), "x")
    assert basket.offer(Row(("w",), "a")) and not basket.offer(Row(("w",), "a"))
    assert not basket.offer(Row(("v",), "c"))
    for n in range(20):
        basket.offer(Row((f"w{n}",), "ab"[n % 2]))
    assert basket.missing == 0 and [len(rows) for rows in basket.rows.values()] == [4, 2, 2]
    assert not basket.offer(Row(("late",), "b"))


def test_floors_tell_what_gives_itself_away():
    train = ["a a", "b b b", "a c a a", "b c"] * 10
    found = baselines.floor("x", train, ["p", "q"] * 20, ["a", "b c", "a a c", "c b"], ["p", "q", "p", "q"])
    assert (found.majority, found.bag, found.classes) == (0.5, 1.0, 2)


def test_words_alone_do_not_solve_what_needs_structure(folder):
    """Small samples: the bounds leave room for chance (200 test rows: 3.5 points a standard error)."""
    floors = {f.name: f for f in baselines.report(folder)}
    for name in ("bigram_shift", "odd_man_out", "coordination_inversion", "boolq", "wic"):
        assert floors[name].bag < 0.62, floors[name]
    for name in ("coordination_inversion", "bigram_shift"):
        assert floors[name].rough < 0.62
    assert floors["subj_number"].bag < 0.85 and floors["past_present"].bag < 0.65
    assert floors["tree_depth"].length < 0.35 and floors["tree_depth"].bag < 0.5
    assert floors["sentence_length"].length == 1.0
    assert floors["conll2000 chunks"].majority < 0.5


def test_corpora_are_prepared_once_and_anew_where_anything_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def write(folder: Path, seed: int, sizes: Sizes) -> None:
        made.append(folder)
        (folder / "conll2000").mkdir(parents=True)
        (folder / "conll2000" / "train.txt").write_text(str(seed))

    monkeypatch.setattr(corpora, "write", write)
    folder = tmp_path / "pocket"
    assert corpora.prepare(folder) and not corpora.prepare(folder)
    assert corpora.prepare(folder, seed=1) and (folder / "conll2000" / "train.txt").read_text() == "1"
    assert corpora.prepare(folder, seed=1, sizes=Sizes(10, 10, 10))
    monkeypatch.setattr(corpora, "_code", lambda: "another grammar")
    assert corpora.prepare(folder, seed=1, sizes=Sizes(10, 10, 10))
    assert len(made) == 4 and sorted(p.name for p in tmp_path.iterdir()) == ["pocket", "pocket.lock"]
    monkeypatch.chdir(folder)
    assert not corpora.prepare(Path(), seed=1, sizes=Sizes(10, 10, 10))


def test_what_an_interrupted_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, seed: int, sizes: Sizes) -> None:
        folder.mkdir()

    monkeypatch.setattr(corpora, "write", write)
    for name in ("pocket.new-1", "pocket.old-1", "pocket.new", "other.new-1"):
        (tmp_path / name / "senteval").mkdir(parents=True)
    assert corpora.prepare(tmp_path / "pocket")
    there = sorted(p.name for p in tmp_path.iterdir())
    assert there == ["other.new-1", "pocket", "pocket.lock", "pocket.new"]


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chapter1.txt").write_text("Once")
    with pytest.raises(DataError, match=r"has no made_by\.json, .* left alone"):
        corpora.prepare(tmp_path)
    assert (tmp_path / "chapter1.txt").read_text() == "Once"
