"""Which token stands for a text, and which two for a span."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.backbones.backbone import Pieces
from clipstudy.backbones.wordpieces import WordPieces, lead_of
from clipstudy.features.views import ends, one_piece


def pieces(*words: int | None, cut: int | None = None) -> Pieces:
    return Pieces(tuple(range(100, 100 + len(words))), words, cut)


def test_summaries():
    text = pieces(None, 0, 0, 1, 2, None)
    assert [text.summary(view) for view in ("cls", "last", "eot")] == [0, 4, 5]
    assert text.own == (1, 2, 3, 4)
    bare = pieces(0, 1)  # nothing added in front or behind
    assert [bare.summary(view) for view in ("cls", "last", "eot")] == [0, 1, 1]


def test_a_text_without_pieces_is_read_by_its_special_tokens():
    empty = pieces(None, None)
    assert empty.own == (0, 1) and empty.summary("last") == 1


def test_an_unknown_summary_is_refused():
    with pytest.raises(KeyError):
        pieces(None, 0).summary("mean")


def test_span_ends_are_first_piece_of_first_word_and_last_piece_of_last():
    text = pieces(None, 0, 0, 1, 2, 2, 2, None)
    assert ends(text, (0, 1)) == (1, 2)
    assert ends(text, (0, 3)) == (1, 6)
    assert ends(text, (1, 2)) == (3, 3)
    assert one_piece((3, 3)) and not one_piece((1, 2))


def test_spans_past_the_limit_are_unseen():
    text = pieces(None, 0, 1, 2, 2, None, cut=2)  # word 2 is there in part: its last piece is not its own last
    assert ends(text, (0, 2)) == (1, 2)
    assert ends(text, (1, 3)) is None
    assert ends(text, (3, 4)) is None


def test_spans_bounded_by_words_without_pieces_are_unseen():
    text = pieces(None, 0, 2, None)
    assert ends(text, (1, 3)) is None and ends(text, (0, 2)) is None
    assert ends(text, (0, 3)) == (1, 2)  # one in the middle hides nothing


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    room=st.integers(1, 20),
    frame=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    data=st.data(),
)
def test_cutting_never_invents_or_moves_a_piece(counts, room, frame, data):
    """Against the plain definition, by piece lists: cut and uncut agree wherever both are seen."""
    words = [str(i) for i in range(len(counts))]
    spelled = {word: [10 * i + j for j in range(n)] for i, (word, n) in enumerate(zip(words, counts, strict=True))}
    front, back = (-1,) * frame[0], (-2,) * frame[1]

    def tokenizer(limit: int) -> WordPieces:
        return WordPieces(lambda new: [spelled[w] for w in new], front, back, limit, empty=-3)

    (whole,) = tokenizer(1000).pieces([words])
    (cut,) = tokenizer(room + sum(frame)).pieces([words])
    assert whole.cut is None and cut.truncated == (sum(counts) > room)
    body = [i for w in words for i in spelled[w]]
    assert list(whole.ids) == ([*front, *body, *back] or [-3])
    assert list(cut.ids) == ([*front, *body[:room], *back] or [-3])
    assert len(cut.ids) == len(cut.words)
    start = data.draw(st.integers(0, len(words) - 1))
    stop = data.draw(st.integers(start + 1, len(words)))
    seen, all_seen = ends(cut, (start, stop)), ends(whole, (start, stop))
    needed = sum(counts[:stop])
    assert seen == (all_seen if needed <= room else None)
    if all_seen:
        assert whole.ids[all_seen[0]] == spelled[words[start]][0]
        assert whole.ids[all_seen[1]] == spelled[words[stop - 1]][-1]


def test_each_distinct_word_is_encoded_once():
    asked: list[str] = []

    def encode(new):
        asked.extend(new)
        return [[len(word)] for word in new]

    words = WordPieces(encode, (), (), 10, empty=0, lead=" ")
    words.pieces([["a", "b", "a"], ["b"]])
    words.pieces([["a", "b"]])
    assert sorted(asked) == [" a", " b", "a", "b"]  # a first word has no lead


@pytest.mark.parametrize(("strange", "warned"), [(1, False), (9, True)])
def test_words_that_the_vocabulary_lacks_are_warned_of_once(caplog, strange, warned):
    known = [f"known{i}" for i in range(30)]
    words = WordPieces(
        lambda new: [[0 if w.startswith("?") else 7] for w in new], (), (), 99, empty=0, unknown=0, name="mine"
    )
    for _ in range(2):
        words.pieces([[*known, *(f"?{i}" for i in range(strange))]])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned
    assert not warned or ("mine has no pieces for 23%" in said[0] and '"?0"' in said[0])


def test_the_lead_is_what_makes_words_encode_as_inside_a_text():
    def by_space(texts):  # byte-level: a space belongs to the piece after it
        return [[ord(c) for c in text] for text in texts]

    def by_word(texts):  # whitespace is dropped
        return [[ord(c) for c in text.replace(" ", "")] for text in texts]

    def marked(texts):  # a mark is put before every word, a space given or not
        return [[7 if c == "_" else ord(c) for c in "".join(f"_{w}" for w in text.split())] for text in texts]

    assert [lead_of(e) for e in (by_space, by_word, marked)] == [" ", "", ""]


def test_importing_the_sources_imports_no_model_library():
    code = (
        "import clipstudy.backbones, clipstudy.features.views, sys; assert clipstudy.backbones.SOURCES; "
        "heavy = {'torch', 'transformers', 'open_clip', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parts_are_below_the_kinds_that_are_made_of_them():
    """What several kinds share imports none of them, and no kind another but the one that it extends."""
    code = (
        "import importlib, pkgutil, sys, clipstudy.tasks.parts as parts\n"
        "from clipstudy import tasks\n"
        "for part in pkgutil.iter_modules(parts.__path__):\n"
        "    importlib.import_module(f'{parts.__name__}.{part.name}')\n"
        "loaded = {kind for kind in tasks.kinds() if f'clipstudy.tasks.{kind}' in sys.modules}\n"
        "assert not loaded, loaded\n"
        "tasks.load('finetune')\n"
        "loaded = {kind for kind in tasks.kinds() if f'clipstudy.tasks.{kind}' in sys.modules}\n"
        "assert loaded == {'finetune'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
