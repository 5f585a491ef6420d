"""CoNLL-2000 chunking (Tjong Kim Sang & Buchholz 2000): sentences with part-of-speech and chunk tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstudy.data import COLUMNS, files, fingerprint, table, text_lines, within
from clipstudy.errors import DataError, did_you_mean
from clipstudy.spec import DatasetSpec

#: The label of a maximal run of words outside every chunk.
OUTSIDE = "O"


@dataclass(frozen=True)
class Sentence:
    """One sentence; the three tuples are equally long."""

    words: tuple[str, ...]
    pos: tuple[str, ...]
    tags: tuple[str, ...]  #: ``B-NP``, ``I-NP``, ``O``


@dataclass(frozen=True)
class Chunk:
    """Words ``start`` (included) to ``end`` (not) of one sentence."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Corpus:
    """One split, as released: excluded sentences are marked, not removed, so a row number means the same to all."""

    sentences: tuple[Sentence, ...]
    excluded: frozenset[int]
    fingerprint: str
    source: str


def read(spec: DatasetSpec, split: str) -> Corpus:
    """Read one split from ``<path>/<split>.txt`` or from the Hub.

    Raises:
        DataError: no such file or split, a malformed line (named by file and number), an empty split.
    """
    if spec.hub:
        return _from_hub(spec, split)
    folder = files(spec)
    path = within(spec, folder, spec.splits.get(split, f"{split}.txt")) if folder.is_dir() else folder
    if not path.exists():
        known = [p.name for p in path.parent.glob("*") if p.is_file()]
        raise DataError(
            f'[datasets.{spec.name}] has no split "{split}": {path} is missing. {did_you_mean(path.name, known)} '
            f'Name a file: splits = {{ {split} = "…" }}'
        )
    sentences = tuple(parse(text_lines(path), path))
    return _corpus(spec, split, sentences, fingerprint([path.read_bytes()]), str(path))


def parse(lines: Sequence[str], path: Path) -> Iterator[Sentence]:
    """Sentences of a ``word POS chunk`` file; a blank line ends a sentence."""
    rows: list[tuple[str, str, str]] = []
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if rows:
                words, pos, tags = zip(*rows, strict=True)
                yield Sentence(words, pos, tags)
            rows = []
            continue
        fields = line.split(" ")
        if len(fields) != 3 or not all(fields):
            raise DataError(
                f'{path}:{number}: found "{line[:40]}", expected "word POS chunk" with single spaces. Fix the line.'
            )
        if fields[2] != OUTSIDE and (fields[2][:2] not in ("B-", "I-") or fields[2][2:] in ("", OUTSIDE)):
            raise DataError(
                f'{path}:{number}: chunk tag "{fields[2][:40]}" is not B-…, I-… or O, where … is the type of the chunk '
                f"and not {OUTSIDE}. Fix the line."
            )
        rows.append((fields[0], fields[1], fields[2]))


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """Chunks of one sentence, in order: consecutive B-/I- tags are one labelled chunk, a maximal run of O is one
    chunk labelled ``O`` (the released protocol of Jawahar et al. 2019). An I- that continues nothing begins a chunk."""
    found: list[Chunk] = []
    for at, tag in enumerate(tags):
        label = OUTSIDE if tag == OUTSIDE else tag[2:]
        if found and not tag.startswith("B-") and found[-1].label == label:
            found[-1] = Chunk(label, found[-1].start, at + 1)
        else:
            found.append(Chunk(label, at, at + 1))
    return found


def _from_hub(spec: DatasetSpec, split: str) -> Corpus:
    loaded = table.load(spec, split, COLUMNS["conll2000"])
    sentences = tuple(
        Sentence(tuple(words), tuple(pos), tuple(tags))
        for words, pos, tags in zip(*loaded.columns.values(), strict=True)
        if words  # the Hub's copy counts one empty sentence in each split
    )
    return _corpus(spec, split, sentences, loaded.fingerprint, loaded.source)


def _corpus(spec: DatasetSpec, split: str, sentences: tuple[Sentence, ...], print_: str, source: str) -> Corpus:
    if not sentences:
        raise DataError(f'[datasets.{spec.name}] split "{split}" of {source} is empty. Fix the file or `splits`.')
    excluded = frozenset(spec.exclude.get(split, ()))
    beyond = [row for row in excluded if not 0 <= row < len(sentences)]
    if beyond:
        raise DataError(
            f"[datasets.{spec.name}.exclude] {split}: sentence {beyond[0]} does not exist; "
            f"{source} has {len(sentences)} (numbered from 0). Fix the list."
        )
    return Corpus(sentences, excluded, print_, source)
