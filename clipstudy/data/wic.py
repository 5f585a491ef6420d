"""WiC (Pilehvar & Camacho-Collados 2019): a word in two sentences, and whether it means the same in both.

Reads the released ``<split>/<split>.data.txt`` with its ``.gold.txt`` (or both in one folder), SuperGLUE's
``<split>.jsonl``, or a Hub table of SuperGLUE's columns. The release marks words, SuperGLUE characters; here a marked
word is always one word, so what SuperGLUE writes up against it (``place?``) is split off, as it is in the release.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipstudy.data import COLUMNS, fingerprint, table, text_lines
from clipstudy.data.pairs import Pair, Pairs, Row, Split, json_rows, split_file, split_of, table_rows, together
from clipstudy.errors import DataError
from clipstudy.spec import DatasetSpec

log = logging.getLogger(__name__)

DATA, GOLD = ".data.txt", ".gold.txt"

#: English forms that do not begin with their lemma's first letter; all others do.
_UNLIKE = {
    "be": {"am", "is", "are", "was", "were", "'m", "'s", "'re"},
    "go": {"went"},
    "eat": {"ate"},
    "have": {"'ve", "'d", "'s"},
}


def read(spec: DatasetSpec) -> Pairs:
    """Train, its development part and the released dev split. All pairs of a word are on one side of the cut.

    Raises:
        DataError: as :func:`released`, and all that ``pairs.together`` refuses.
    """
    return together(spec, released(spec, "train"), released(spec, "dev"), lambda pair: pair.word)


def released(spec: DatasetSpec, split: str) -> Split:
    """One split, as released. A marked word that cannot be a form of its lemma is kept, marked doubtful and told.

    Raises:
        DataError: no such file or split, a malformed row (named by file and line), no gold or gold of another length,
            a mark past its sentence or on no single word.
    """
    if spec.hub:
        loaded = table.load(spec, split, COLUMNS["wic"])
        pairs = [_by_characters(split, row) for row in table_rows(spec, split, loaded)]
        source, print_ = loaded.source, loaded.fingerprint
    else:
        path = split_file(spec, split, (f"{{0}}/{{0}}{DATA}", f"{{0}}{DATA}", "{0}.jsonl"))
        if path.suffix == ".jsonl":
            pairs, read_from = [_by_characters(split, row) for row in json_rows(path)], [path]
        else:
            gold = _gold(path)
            pairs, read_from = list(_by_words(split, path, gold)), [path, gold]
        source, print_ = str(path), fingerprint(file.read_bytes() for file in read_from)
    _tell_doubtful(spec, source, pairs)
    return split_of(spec, split, source, pairs, print_)


def can_be(form: str, lemma: str) -> bool:
    """Can ``form`` be an inflected form of ``lemma``? Told by the first letter, so a no is sure and a yes is not."""
    form, lemma = form.lower(), lemma.lower()
    return form[:1] == lemma[:1] or form in _UNLIKE.get(lemma, ())


def _tell_doubtful(spec: DatasetSpec, source: str, pairs: Sequence[Pair]) -> None:
    doubtful = [pair for pair in pairs if pair.doubtful]
    if doubtful:
        log.warning(
            '[datasets.%s] %s: of %d pairs %d mark a word that cannot be a form of theirs ("%s" in %s). They are kept.',
            spec.name, source, len(pairs), len(doubtful), doubtful[0].word, doubtful[0].id,
        )  # fmt: skip


def _gold(path: Path) -> Path:
    if not path.name.endswith(DATA):
        raise DataError(f"{path}: expected NAME{DATA} with NAME{GOLD} beside it, or NAME.jsonl. Name one in `splits`.")
    gold = path.with_name(path.name.removesuffix(DATA) + GOLD)
    if not gold.is_file():
        raise DataError(
            f"{path} has no gold: {gold.name} is not beside it. Fetch it, or name a split that has one in `splits` "
            "(the released test split has none)."
        )
    return gold


def _by_words(split: str, path: Path, gold: Path) -> Iterator[Pair]:
    """``lemma<TAB>N|V<TAB>i-j<TAB>sentence<TAB>sentence``; i and j count from 0 after a split on one space."""
    rows, labels = (_lines(file) for file in (path, gold))
    if len(rows) != len(labels):
        raise DataError(
            f"{path} has {len(rows)} rows, but {gold} has {len(labels)} labels: which belongs to which is not known. "
            "Fetch both again."
        )
    for number, (line, label) in enumerate(zip(rows, labels, strict=True), start=1):
        fields = line.split("\t")
        if len(fields) != 5:
            raise DataError(
                f"{path}:{number}: found {len(fields)} columns, expected 5: word, N or V, i-j and two sentences. "
                "Fix the line."
            )
        if label not in ("T", "F"):
            raise DataError(f'{gold}:{number}: found "{label}", expected T or F. Fix the line.')
        word, pos, at, *sentences = fields
        row = Row(number - 1, f"{path}:{number}", {"word": word, "sentence1": sentences[0], "sentence2": sentences[1]})
        places = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", at)
        if pos not in ("N", "V") or places is None:
            raise row.refused(f'found "{pos}" and "{at}", expected N or V and the two words\' numbers, i-j')
        sides = [_side_of_word(row, f"sentence{side}", int(places[side])) for side in (1, 2)]
        yield _pair(split, row, sides, "True" if label == "T" else "False")


def _lines(path: Path) -> list[str]:
    lines = text_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _side_of_word(row: Row, key: str, place: int) -> tuple[tuple[str, ...], int]:
    sentence = row.text(key)
    words = sentence.split(" ")
    if place >= len(words):
        raise row.refused(f'word {place} (from 0) of "{sentence}" does not exist: it has {len(words)}')
    return _side(row, sentence, " ".join(words[:place]), words[place], " ".join(words[place + 1 :]))


def _by_characters(split: str, row: Row) -> Pair:
    sides = []
    for side in "12":
        sentence, start, end = row.text(f"sentence{side}"), row.whole(f"start{side}"), row.whole(f"end{side}")
        if not start < end <= len(sentence):
            raise row.refused(f'characters {start} to {end} of "{sentence}" do not exist: it has {len(sentence)}')
        sides.append(_side(row, sentence, sentence[:start], sentence[start:end], sentence[end:]))
    return _pair(split, row, sides, row.label("label"))


def _side(row: Row, sentence: str, before: str, marked: str, after: str) -> tuple[tuple[str, ...], int]:
    """A sentence's words, the marked one of them by itself, and which that is."""
    words = marked.split()
    if len(words) != 1:
        raise row.refused(f'"{marked}" is marked in "{sentence}", expected one word')
    return (*before.split(), *words, *after.split()), len(before.split())


def _pair(split: str, row: Row, sides: list[tuple[tuple[str, ...], int]], label: str) -> Pair:
    (first, mark), (second, other_mark) = sides
    word = row.text("word")
    doubtful = not (can_be(first[mark], word) and can_be(second[other_mark], word))
    return Pair(f"{split}/{row.number}", first, second, label, word, (mark, other_mark), doubtful)
