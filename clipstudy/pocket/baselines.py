"""What each pocket data set gives away to someone who understands nothing: the floors under every probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from clipstudy import metrics
from clipstudy.data import boolq, conll2000, senteval, wic
from clipstudy.data.pairs import Split
from clipstudy.spec import DatasetSpec

Features = Callable[[str], dict[str, float]]


class Floor(NamedTuple):
    """Test accuracies of one data set."""

    name: str
    classes: int
    majority: float
    length: float  #: logistic regression on the number of tokens, one-hot
    bag: float  #: logistic regression on word counts
    rough: float  #: on the word counts of the first half and of the second; of a pair, on how much they overlap


def report(folder: Path) -> list[Floor]:
    """The floors of every data set that ``corpora.write`` put under ``folder``. A minute or two for full sizes."""
    found = []
    for path in sorted((folder / "senteval").glob("*.txt")):
        read = senteval.read(DatasetSpec(name=path.stem, reader="senteval", path=str(path)))
        found.append(
            floor(
                path.stem,
                [" ".join(text) for text in read.train.items],
                read.train.labels,
                [" ".join(text) for text in read.test.items],
                read.test.labels,
            )
        )
    spans = {}
    for split in ("train", "test"):
        spec = DatasetSpec(name="conll2000", reader="conll2000", path=str(folder / "conll2000"))
        sentences = conll2000.read(spec, split).sentences[:1500]
        spans[split] = [
            (" ".join(s.words[c.start : c.end]), c.label) for s in sentences for c in conll2000.chunks(s.tags)
        ]
    (train, train_labels), (test, test_labels) = (list(zip(*spans[split], strict=True)) for split in ("train", "test"))
    found.append(floor("conll2000 chunks", train, train_labels, test, test_labels))
    for name, reader in (("boolq", boolq), ("wic", wic)):
        spec = DatasetSpec(name=name, reader=name, path=str(folder / name))
        found.append(floor(name, *_sides(reader.released(spec, "train")), *_sides(reader.released(spec, "test"))))
    return found


def _sides(split: Split) -> tuple[list[str], list[str]]:
    """Pairs as texts, a tab between the sides, and their labels."""
    texts = ["\t".join((" ".join(pair.first), " ".join(pair.second))) for pair in split.pairs]
    return texts, [pair.label for pair in split.pairs]


def floor(
    name: str, train: Sequence[str], train_labels: Sequence[str], test: Sequence[str], test_labels: Sequence[str]
) -> Floor:
    """Accuracies on ``test`` of what was fitted on ``train``."""
    scores = [
        _accuracy([f(t) for t in train], train_labels, [f(t) for t in test], test_labels) for f in (length, bag, rough)
    ]
    return Floor(name, len(set(train_labels)), metrics.majority(train_labels, test_labels), *scores)


def length(text: str) -> dict[str, float]:
    return {str(len(text.split())): 1.0}


def bag(text: str) -> dict[str, float]:
    """Word counts; the two sides of a pair (either side of a tab) are counted apart."""
    sides = enumerate(text.split("\t"))
    return {f"{side} {word}": float(n) for side, part in sides for word, n in Counter(part.split()).items()}


def rough(text: str) -> dict[str, float]:
    """What a rough sense of place adds: word counts of either half. Of a pair, how many words the second side lacks."""
    if "\t" in text:
        first, second = (frozenset(side.split()) for side in text.split("\t"))
        return {str(len(first - second)): 1.0}
    words = text.split()
    middle = len(words) // 2
    return bag(" ".join(words[:middle]) + "\t" + " ".join(words[middle:]))


def _accuracy(
    train: list[dict[str, float]], train_labels: Sequence[str], test: list[dict[str, float]], test_labels: Sequence[str]
) -> float:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    table = DictVectorizer()
    probe = LogisticRegression(C=0.3, max_iter=300, tol=1e-3)
    probe.fit(table.fit_transform(train), list(train_labels))
    return float(probe.score(table.transform(test), list(test_labels)))
