"""Can a probe read off a layer's states how two texts go together? BoolQ and WiC, on frozen features.

Each text is encoded by itself, by every model, and a pair is [u; v; |u − v|; u ∘ v] (InferSent, Conneau et al. 2017
(EMNLP)). Where the pair is about a word (WiC), u and v are each the sentence's vector with the marked word's behind it
(Wang et al. 2019, SuperGLUE). Probes, arms and intervals are `classify`'s. `docs/design/finetune.md` says why.

Profiles
    ``default``    features standardised per dimension on train; MLP and linear probes; control task.
    ``senteval``   SentEval's classifier as released, as `classify` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.outcome import Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks import classify
from clipstudy.tasks.parts.items import Sentences
from clipstudy.tasks.parts.pairs import ALONE, PAIR_READERS, Long, OfPairs, pairs_of, windows
from clipstudy.tasks.task import Bench, Needs, at_least, each_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.data.pairs import Pair
    from clipstudy.features.extract import Features, Text

METHOD = classify.METHOD  #: the probes are classify's: what changes them changes this
NEEDS = Needs.VECTORS
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("default", "senteval")}
LAYERS: LayerChoice = "all"
METRICS = classify.METRICS
METRIC = "accuracy"
SEEDS = (0, 1, 2, 3, 4)
READERS = PAIR_READERS
PROFILES: Mapping[str, Mapping[str, Any]] = {"default": {}, "senteval": classify.PROFILES["senteval"]}


@dataclass(frozen=True)
class Options(classify.Options):
    """Keys of ``[tasks.NAME.options]``: those of ``classify``, and these."""

    profile: Literal["default", "senteval"] = "default"
    #: What is done with a text longer than a model reads, an arm each, the first the headline. Windows' vectors are
    #: averaged.
    long: tuple[Long, ...] = ("truncate", "windows", "budget")
    window: int = 40  #: words a window: few enough for the 77 tokens of CLIP
    marked: bool = True  #: put the marked word's vector beside its sentence's, where pairs have one
    question_only: bool = True  #: an arm that is shown the question (the first text) alone

    def __post_init__(self) -> None:
        super().__post_init__()
        each_once(self, "long")
        at_least(self, window=1)


@dataclass(frozen=True)
class Side:
    """One side of all pairs as an arm shows it: a pair's vector is the mean over its windows."""

    rows: NDArray[Any]  #: which text each window is, pair after pair
    starts: NDArray[Any]  #: where each pair's windows begin among ``rows``
    marks: NDArray[Any]  #: which span is the pair's marked word; −1: the arm does not show it


@dataclass(frozen=True)
class PairTexts(OfPairs):
    """The data set, its texts as every arm shows them, and who is who among them."""

    texts: tuple[Text, ...]
    sides: Mapping[Long, tuple[Side, Side]]
    #: What ``classify`` measures: the pairs' labels, and what its control task goes by (the word, or the first one).
    sentences: Sentences

    @property
    def everything(self) -> tuple[Pair, ...]:
        """The pairs in the order in which all else is."""
        return (*self.pairs.train, *self.pairs.development, *self.pairs.reported)

    @property
    def marked(self) -> bool:
        """Do arms show a marked word?"""
        return any((side.marks >= 0).any() for sides in self.sides.values() for side in sides)


def views(options: Options) -> tuple[str, ...]:
    """Those that are asked for, and the ends of marked words."""
    return (*options.views, "span") if options.marked else options.views


def metrics(options: Options) -> tuple[str, ...]:
    return classify.metrics(options)


def read(dataset: DatasetSpec, options: Options) -> PairTexts:
    """Read train, its development part and the reported split. Raises DataError as the reader does."""
    from clipstudy.data.labelled import Labelled, Rows
    from clipstudy.features.extract import Text

    pairs = pairs_of(dataset)
    parts = pairs.train, pairs.development, pairs.reported
    everything = [pair for part in parts for pair in part]
    train, dev, test = (
        Rows[tuple[str, ...]](tuple((p.word or p.first[0],) for p in part), tuple(p.label for p in part))
        for part in parts
    )
    labelled = Labelled(train, dev, test, pairs.fingerprint, pairs.source)
    texts, sides = _laid_out(everything, options)
    longer = tuple(Text(max(pair.first, pair.second, key=len)) for pair in everything)
    return PairTexts(pairs, texts, sides, Sentences(labelled, longer))


def measure(
    features: Features, data: PairTexts, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Probe vectors of pairs as `classify` does those of sentences: each way of making one is a view of its own.

    Args:
        features: of ``data.texts``, one text a row, and of the marked words as their spans.

    Yields:
        What `classify` yields; and of each arm how many pairs were cut, and how many marked words were not seen.

    Raises:
        DataError, ModelError: as `classify`.
    """
    shown = PairFeatures(features, data, options)
    coverage = {name: Estimate(value) for name, value in _coverage(features, data, options).items()}
    opts = replace(options, views=tuple(shown.arms))  # type: ignore[arg-type]  # an arm is its view of a pair
    # PairFeatures answers as Vectors do; to be one it would import numpy with the room.
    for outcome in classify.measure(shown, data.sentences, layers, seeds, opts, bench):  # type: ignore[arg-type]
        yield replace(outcome, metrics={**outcome.metrics, **coverage})


class PairFeatures:
    """Vectors of pairs, made from their texts', in the way that each arm asks for: a view of the pair."""

    def __init__(self, features: Features, data: PairTexts, options: Options) -> None:
        import numpy as np

        self._features, self._marked = features, data.marked
        whole, first, second = options.long[0], *data.sides[options.long[0]]
        #: Arm → the texts' view that it reads, and which sides it is shown.
        self.arms: dict[str, tuple[str, tuple[Side, ...]]] = {
            **{view: (view, (first, second)) for view in options.views},
            **{long: (options.views[0], data.sides[long]) for long in options.long if long != whole},
            **({ALONE: (options.views[0], (first,))} if options.question_only else {}),
        }
        #: ``[N]``: was a text of the pair cut, as the headline shows it?
        self.truncated = np.logical_or(*(_cut(features.truncated, side) for side in (first, second)))

    def called(self, arm: str) -> str:
        """``arm`` itself, or the arm of the same vectors that the model's own summary (``native``) is."""
        return self._features.called(arm)

    def vectors(self, layer: int, arm: str) -> NDArray[Any]:
        """``[N, 4 × width]`` of two sides, ``[N, width]`` of one; twice that where marked words are beside."""
        import numpy as np

        view, shown = self.arms[arm]
        texts = self._features.vectors(layer, view)
        ends = self._features.span_ends(layer).mean(axis=1) if self._marked else None
        sides = []
        for side in shown:
            windows = np.diff(side.starts, append=len(side.rows))
            vector = np.add.reduceat(texts[side.rows], side.starts) / windows[:, None].astype(np.float32)
            if ends is not None:
                word = np.where((side.marks >= 0)[:, None], ends[side.marks], np.float32(0))
                vector = np.concatenate([vector, word], axis=1)
            sides.append(vector)
        if len(sides) == 1:
            return sides[0]
        u, v = sides
        return np.concatenate([u, v, np.abs(u - v), u * v], axis=1)


def _laid_out(pairs: Sequence[Pair], options: Options) -> tuple[tuple[Text, ...], dict[Long, tuple[Side, Side]]]:
    """Every text of every arm, and each arm's sides. ``budget`` is the first of ``windows``."""
    import numpy as np

    from clipstudy.features.extract import Text

    texts: list[Text] = []
    spans = 0

    def side(which: int, cut: Callable[[Sequence[str]], list[tuple[str, ...]]]) -> Side:
        nonlocal spans
        rows: list[int] = []
        starts: list[int] = []
        marks: list[int] = []
        for pair in pairs:
            mark = pair.marked[which] if pair.marked and options.marked else None
            starts.append(len(rows))
            marks.append(-1)
            begin = 0
            for words in cut((pair.first, pair.second)[which]):
                span: tuple[tuple[int, int], ...] = ()
                if mark is not None and begin <= mark < begin + len(words):
                    span = ((mark - begin, mark - begin + 1),)
                    marks[-1], spans = spans, spans + 1
                rows.append(len(texts))
                texts.append(Text(words, span))
                begin += len(words)
        return Side(*(np.array(values, dtype=np.int64) for values in (rows, starts, marks)))

    ways: dict[Long, Callable[[Sequence[str]], list[tuple[str, ...]]]] = {
        "truncate": lambda words: [tuple(words)],
        "windows": lambda words: windows(words, options.window),
        "budget": lambda words: [tuple(words[: options.window])],
    }
    sides: dict[Long, tuple[Side, Side]] = {long: (side(0, ways[long]), side(1, ways[long])) for long in options.long}
    return tuple(texts), sides


def _coverage(features: Features, data: PairTexts, options: Options) -> dict[str, float]:
    """What each arm leaves out: shares of pairs of which a text was cut, by the model's limit or by the budget (of the
    budget's arm by the model's limit, too); and of marked words that the model did not see."""
    import numpy as np

    shares: dict[str, float] = {}
    over_budget = np.array([max(len(pair.first), len(pair.second)) > options.window for pair in data.everything])
    for long, sides in data.sides.items():
        prefix = "" if long == options.long[0] else f"{long}/"
        cut = np.logical_or(*(_cut(features.truncated, side) for side in sides))
        shares[f"{prefix}truncated_share"] = float((cut | over_budget if long == "budget" else cut).mean())
        if long == "budget":
            shares[f"{prefix}limit_share"] = float(cut.mean())
        if data.marked:
            seen = [(side.marks >= 0) & features.span_seen[side.marks] for side in sides]
            shares[f"{prefix}words_unseen"] = float(1 - np.logical_and(*seen).mean())
    return shares | {"items/doubtful": float(data.pairs.doubtful)}


def _cut(truncated: NDArray[Any], side: Side) -> NDArray[Any]:
    """``[N]``: did the model's limit cut a window of the pair's side?"""
    import numpy as np

    cut: NDArray[Any] = np.logical_or.reduceat(truncated[side.rows], side.starts)
    return cut
