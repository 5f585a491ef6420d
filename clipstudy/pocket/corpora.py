"""Every data set of the pocket world, on disk, in the layouts of the real ones."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from clipstudy.errors import DataError, writing
from clipstudy.lock import locked
from clipstudy.pocket.baskets import Sizes
from clipstudy.pocket.images import pictures
from clipstudy.pocket.text import pairs, probing
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.tree import Sentence

#: Says what made the files beside it.
MADE_BY = "made_by.json"


def prepare(folder: Path, seed: int = 0, sizes: Sizes = Sizes()) -> bool:  # noqa: B008 - a frozen value
    """Have all data sets under ``folder``: whole, and of this very code. False: they were there.

    They are made beside it and moved into place, so whoever reads meanwhile finds the old ones or the new ones.

    Raises:
        DataError: something else is in ``folder``, or it cannot be written.
    """
    made_by = {"seed": seed, "sizes": asdict(sizes), "code": _code()}
    folder = folder.resolve()
    marker = folder / MADE_BY
    if not marker.is_file() and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(
            f"{folder} is there and has no {MADE_BY}, so it holds no pocket corpora and is left alone. Name an empty "
            "or a new folder: clipstudy pocket data --out FOLDER"
        )
    if _holds(marker, made_by):
        return False
    remedy = "Choose another folder: clipstudy pocket data --out FOLDER, or export CLIPSTUDY_CACHE=FOLDER"
    with writing(folder, remedy, DataError):
        return _made(folder, made_by, seed, sizes)


def _made(folder: Path, made_by: Mapping[str, object], seed: int, sizes: Sizes) -> bool:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if _holds(folder / MADE_BY, made_by):  # made while this process waited
            return False
        new, old = (folder.with_name(f"{folder.name}.{what}-{os.getpid()}") for what in ("new", "old"))
        for left in folder.parent.iterdir():  # by a process that was interrupted: none that lives is in here
            if left.name.startswith((f"{folder.name}.new-", f"{folder.name}.old-")):
                shutil.rmtree(left, ignore_errors=True)
        write(new, seed, sizes)
        (new / MADE_BY).write_text(_told(made_by), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return True


def _holds(marker: Path, made_by: Mapping[str, object]) -> bool:
    return marker.is_file() and marker.read_text(encoding="utf-8") == _told(made_by)


def _told(made_by: Mapping[str, object]) -> str:
    return json.dumps(made_by, sort_keys=True) + "\n"


def _code() -> str:
    """A hash of this room's code: a sentence may come out otherwise after any change of it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write(folder: Path, seed: int = 0, sizes: Sizes = Sizes()) -> None:  # noqa: B008 - a frozen value
    """Write all data sets under ``folder``. The same seed and sizes give the same bytes.

    ::

        conll2000/train.txt, test.txt            word POS chunk
        senteval/<task>.txt                      tr|va|te TAB label TAB sentence; ten files
        boolq/train.jsonl, dev.jsonl, test.jsonl question, title, answer, passage
        wic/<split>/<split>.data.txt, .gold.txt  lemma, N|V, i-j, two sentences; T|F
        pictures/train-….parquet, test-….parquet img, fine_label, coarse_label, mask

    The probing data sets and the others are made side by side, each in a process of its own: a quarter of a minute of
    two cores at the default sizes.
    """
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for part in [pool.submit(write_part, folder, seed, sizes) for write_part in (_probing, _others)]:
            part.result()


def _probing(folder: Path, seed: int, sizes: Sizes) -> None:
    for task, lines in probing.write(seed, sizes).items():
        _save(folder / "senteval" / f"{task}.txt", lines)


def _others(folder: Path, seed: int, sizes: Sizes) -> None:
    for split, lines in chunking(seed, sizes).items():
        _save(folder / "conll2000" / f"{split}.txt", lines)
    asked, told = pairs.questions(seed), pairs.sense_pairs(seed)
    for split, size in zip(("train", "dev", "test"), sizes.all, strict=True):
        shuffle = random.Random(f"{split}/{seed}").shuffle  # they come yes and no by turns
        shuffle(questions := list(islice(asked, size)))
        shuffle(senses := list(islice(told, size)))
        _save(folder / "boolq" / f"{split}.jsonl", pairs.question_lines(questions))
        data, gold = pairs.sense_lines(senses)
        _save(folder / "wic" / split / f"{split}.data.txt", data)
        _save(folder / "wic" / split / f"{split}.gold.txt", gold)
    # As CIFAR-100 they have no dev split; whoever reads them cuts one.
    pictures.write(folder / "pictures", seed, {"train": sizes.train + sizes.dev, "test": sizes.test})


def chunking(seed: int, sizes: Sizes) -> dict[str, list[str]]:
    """Split → lines of a CoNLL-2000 file; no sentence twice."""
    language = Language(f"chunking/{seed}")
    seen: set[tuple[str, ...]] = set()
    found = {}
    for split, size in (("train", sizes.train), ("test", sizes.test)):
        lines: list[str] = []
        for _ in range(size):
            while (sentence := language.sentence()).words in seen:
                pass
            seen.add(sentence.words)
            lines += conll_lines(sentence)
        found[split] = lines
    return found


def conll_lines(sentence: Sentence) -> list[str]:
    """``word POS chunk`` a token, and the blank line that ends a sentence."""
    tokens = zip(sentence.words, sentence.pos, sentence.tags, strict=True)
    return [*(f"{word} {pos} {tag}" for word, pos, tag in tokens), ""]


def _save(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode())
