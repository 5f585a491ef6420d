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
    if folder.is_file() and split not in (folder.stem, *(k for k, name in spec.splits.items() if name == folder.name)):
        raise DataError(
            f"[datasets.{spec.name}] path: {folder} is one file, but each split has its own. Name their folder, and a "
            f'file in it: splits = {{ {split} = "{folder.name}" }}'
        )
    path = folder if folder.is_file() else within(spec, folder, spec.splits.get(split, f"{split}.txt"))
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
        if not _is_tag(fields[2]):
            raise DataError(f"{path}:{number}: {_no_tag(fields[2])}. Fix the line.")
        rows.append((fields[0], fields[1], fields[2]))


def _is_tag(tag: object) -> bool:
    """Is it B-…, I-… or O? Other schemes (IOBES, types alone) mark the same chunks otherwise."""
    if not isinstance(tag, str):
        return False
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and tag[2:] not in ("", OUTSIDE))


def _no_tag(tag: object) -> str:
    return f'chunk tag "{str(tag)[:40]}" is not B-…, I-… or O, where … is the type of the chunk and not {OUTSIDE}'


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
    sentences = []
    for row, lists in enumerate(zip(*loaded.columns.values(), strict=True)):
        where = f"[datasets.{spec.name}] {loaded.where(row)}"
        lengths = [len(cells) if isinstance(cells, list) else -1 for cells in lists]
        if len(set(lengths)) > 1 or lengths[0] < 0:
            raise DataError(
                f"{where}: found {', '.join(f'{n} {name}' for n, name in zip(lengths, loaded.columns, strict=True))}, "
                "expected lists of one length. Name the columns of words, parts of speech and chunk tags in `columns`."
            )
        words, pos, tags = lists
        if wrong := [tag for tag in tags if not _is_tag(tag)]:
            raise DataError(f"{where}: {_no_tag(wrong[0])}. Name a column of such tags: columns = {{ chunk_tags = … }}")
        if words:  # the Hub's copy counts one empty sentence in each split
            sentences.append(Sentence(tuple(words), tuple(pos), tuple(tags)))
    return _corpus(spec, split, tuple(sentences), loaded.fingerprint, loaded.source)


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
