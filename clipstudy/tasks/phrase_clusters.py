"""Do a layer's span vectors cluster by phrase type? K-means on CoNLL-2000 chunks against the gold chunk labels.

Jawahar, Sagot & Seddah 2019 (ACL), §3 and their released code: a span is [h_s ; h_e ; h_s∘h_e ; h_s − h_e] with h_s the
first piece of its first word and h_e the last piece of its last; k-means with as many clusters as labels; normalised
mutual information with the labels on held-out spans.

Profiles
    ``robust`` (default)   five span samples × ten k-means seeds, standardised features, the data set's exclusion list,
                           and two more arms: multi-word spans only, and span vectors without the difference block.
    ``jawahar``            the released protocol: one sample, raw features rounded to 6 decimals, geometric NMI.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import DataError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import ANY_SEED, DatasetSpec, LayerChoice, Modality, Seed
from clipstudy.tasks.parts import files
from clipstudy.tasks.task import BadOption, Bench, Metric, Needs, at_least

if TYPE_CHECKING:
    import numpy as np

    from clipstudy.features.extract import Features, Text

METHOD = 1
NEEDS = Needs.VECTORS
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("robust", "jawahar")}
LAYERS: LayerChoice = "all"
METRICS = {"nmi": Metric("NMI"), "nmi_arithmetic": Metric("NMI, arithmetic mean"), "ami": Metric("AMI")}
METRIC = "nmi"
SEEDS = tuple(range(10))
READERS = ("conll2000",)

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "robust": {
        "samples": 5,
        "standardise": True,
        "decimals": None,
        "restarts": 3,
        "exclusions": True,
        "arms": ["multi_word", "no_difference"],
    },
    "jawahar": {
        "samples": 1,
        "standardise": False,
        "decimals": 6,
        "restarts": 10,
        "exclusions": False,
        "arms": [],
    },
}

#: Spans of this many words or more share one bin of the span-length baseline.
LONGEST = 6


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["robust", "jawahar"] = "robust"
    split: str = "train"
    labelled: int = 3000  #: chunks sampled
    outside: int = 500  #: runs of O sampled
    fit: int = 3000  #: spans that k-means is fitted on; it is scored on the others
    samples: int = 5  #: span samples; the first is the released one where nothing is excluded before
    sample_seed: Seed = 123  #: of the first sample; the others count on from it
    standardise: bool = True  #: per dimension, on the spans that k-means is fitted on
    decimals: int | None = None  #: round the span vectors, as the released code does when it writes them
    restarts: int = 3  #: k-means++ initialisations a seed, the best inertia kept
    average: Literal["geometric", "arithmetic"] = "geometric"
    exclusions: bool = True  #: leave out the data set's excluded sentences before sampling
    arms: tuple[Literal["multi_word", "no_difference"], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.fit < self.labelled + self.outside:
            raise BadOption(
                "fit", f"found {self.fit}, expected less than labelled + outside = {self.labelled + self.outside}"
            )
        at_least(self, samples=1, restarts=1, labelled=1, outside=0)
        if self.sample_seed + self.samples - 1 not in ANY_SEED:
            raise BadOption("sample_seed", f"found {self.sample_seed}, too high for {self.samples} samples")


@dataclass(frozen=True)
class Span:
    """One sampled chunk: where it is and what it is."""

    sentence: int
    start: int
    end: int
    label: str
    pos: tuple[str, str] = ("", "")  #: part-of-speech tags of its first and its last word


@dataclass(frozen=True)
class Sample:
    """Span numbers (into ``Spans.spans``) that k-means is fitted on and scored on, in the protocol's order."""

    fit: tuple[int, ...]
    score: tuple[int, ...]


@dataclass(frozen=True)
class Spans:
    """All sampled spans, each once, and the samples that they belong to."""

    texts: tuple[Text, ...]
    spans: tuple[Span, ...]  #: in the order in which ``texts`` asks for them
    samples: tuple[Sample, ...]
    excluded: int  #: sentences left out by the data set's exclusion list
    fingerprint: str
    source: str


def views(options: Options) -> tuple[str, ...]:
    """The two ends of each span."""
    return ("span",)


def metrics(options: Options) -> tuple[str, ...]:
    return "nmi", "ami", "nmi_arithmetic"


def read(dataset: DatasetSpec, options: Options) -> Spans:
    """Sample the spans as the released code does; the first sample is the released one, where nothing is excluded.

    Raises:
        DataError: fewer chunks than asked for, and all that the reader refuses.
    """
    from clipstudy.data import conll2000
    from clipstudy.features.extract import Text

    corpus = conll2000.read(dataset, options.split)
    left_out = corpus.excluded if options.exclusions else frozenset()
    inside: list[Span] = []
    outside: list[Span] = []
    for row, sentence in enumerate(corpus.sentences):
        if row in left_out:
            continue
        for chunk in conll2000.chunks(sentence.tags):
            pos = sentence.pos[chunk.start], sentence.pos[chunk.end - 1]
            span = Span(row, chunk.start, chunk.end, chunk.label, pos)
            (outside if chunk.label == conll2000.OUTSIDE else inside).append(span)
    if len(inside) < options.labelled or len(outside) < options.outside:
        raise DataError(
            f"[datasets.{dataset.name}] {corpus.source} has {len(inside)} chunks and {len(outside)} runs of O; "
            f"labelled = {options.labelled} and outside = {options.outside} were asked for. Lower them in the options."
        )
    drawn = [draw(inside, outside, options, options.sample_seed + i) for i in range(options.samples)]
    spans = sorted({s for fit, score in drawn for s in (*fit, *score)}, key=lambda s: (s.sentence, s.start))
    number = {span: i for i, span in enumerate(spans)}
    ranges: dict[int, list[tuple[int, int]]] = {}
    for span in spans:
        ranges.setdefault(span.sentence, []).append((span.start, span.end))
    return Spans(
        texts=tuple(Text(corpus.sentences[row].words, tuple(where)) for row, where in ranges.items()),
        spans=tuple(spans),
        samples=tuple(Sample(tuple(number[s] for s in fit), tuple(number[s] for s in score)) for fit, score in drawn),
        excluded=len(left_out),
        fingerprint=corpus.fingerprint,
        source=corpus.source,
    )


def draw(inside: Sequence[Span], outside: Sequence[Span], options: Options, seed: int) -> tuple[list[Span], list[Span]]:
    """One sample, as the released code draws it: shuffle the chunks, then the runs of O, keep the first of each,
    permute all by numpy's legacy generator, fit on the first ``options.fit``. Returns (fitted on, scored on)."""
    import numpy as np

    shuffle = random.Random(seed).shuffle
    labelled, unlabelled = list(inside), list(outside)
    shuffle(labelled)
    shuffle(unlabelled)
    kept = labelled[: options.labelled] + unlabelled[: options.outside]
    order = np.random.RandomState(seed).permutation(len(kept))
    return [kept[i] for i in order[: options.fit]], [kept[i] for i in order[options.fit :]]


def measure(
    features: Features, data: Spans, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Cluster each sample's spans by their vectors and hold the clusters against the chunk labels (Jawahar et al. 2019,
    §3).

    Args:
        features: ends of the spans ``[spans, 2, width]`` a layer, and which spans the model saw.
        seeds: of k-means.

    Yields:
        For each layer NMI and AMI of every arm between the 2.5% and 97.5% quantiles of their values on all samples and
        seeds, with baselines that need no model; the clusters of the spans that are scored as a file.

    Raises:
        DataError: too few spans that the model sees.
        ModelError: the model gave values that are not finite.
    """
    import numpy as np

    known = _Known.of(data.spans, features.span_seen)
    arms = ("", *options.arms)
    done, total = 0, len(layers) * len(arms) * len(data.samples)
    for layer in layers:
        ends = features.span_ends(layer)
        metrics: dict[str, Estimate] = {}
        rows: list[dict[str, Any]] = []
        for arm in arms:
            replicates: dict[int, _Replicate] = {}  # by the sample's number, which is the same for every model
            for number, sample in enumerate(data.samples):
                bench.progress("clusters", done, total)
                if replicate := _replicate(ends, known, sample, seeds, options, arm):
                    replicates[number] = replicate
                done += 1
            if not replicates:
                if arm:
                    continue  # too few multi-word spans to say anything
                raise DataError(f"{data.source}: too few spans that this model can see. Raise max_tokens or labelled.")
            found = list(replicates.values())
            metrics |= _summary(f"{arm}/" if arm else "", found)
            if not arm:
                rows = [row for number, r in replicates.items() for row in _rows(number, r, data, seeds)]
                metrics["clusters"] = Estimate(float(np.mean([r.k for r in found])))
                metrics["samples"] = Estimate(float(len(found)))
                metrics["items/test"] = Estimate(float(np.mean([len(r.scored) for r in found])))
        metrics |= _coverage(features, data, known)
        yield Outcome(layer=layer, metrics=metrics, artifacts=(Artifact("predictions.parquet", files.parquet(rows)),))
    bench.progress("clusters", total, total)


@dataclass(frozen=True)
class _Known:
    """What is known of the spans without a layer's vectors, ``[spans]`` each."""

    labels: np.ndarray
    several: np.ndarray  #: of more than one word
    seen: np.ndarray  #: by the model
    partitions: Mapping[str, np.ndarray]  #: which need no model; each a baseline

    @classmethod
    def of(cls, spans: Sequence[Span], seen: Any) -> _Known:
        """Partitions are by length, and by the part of speech of the first word, of the last one, and of that its first
        two characters (every kind of verb is VB, every noun NN). Data without tags lack the last three."""
        import numpy as np

        words = np.array([span.end - span.start for span in spans])
        partitions = {"span_length": np.minimum(words, LONGEST)}
        if len({tag for span in spans for tag in span.pos}) > 1:
            first, last = np.array([span.pos for span in spans]).T
            partitions |= {"pos_first": first, "pos_last": last, "pos_coarse": last.astype("U2")}
        return cls(np.array([span.label for span in spans]), words > 1, np.asarray(seen), partitions)


@dataclass(frozen=True)
class _Replicate:
    """One sample's spans, clustered once a k-means seed."""

    scores: Mapping[str, list[float]]  #: one value a k-means seed
    baselines: Mapping[str, list[float]]  #: one value a draw
    clusters: np.ndarray  #: ``[seeds, scored]``
    scored: np.ndarray  #: span numbers
    k: int


def _replicate(
    ends: np.ndarray, known: _Known, sample: Sample, seeds: Sequence[int], options: Options, arm: str
) -> _Replicate | None:
    """Fit k-means on the first part of one sample and score its clusters on the other, for all seeds. None: the model
    sees fewer than two labels in one of the two parts, so there is nothing to tell apart.

    Args:
        ends: ``[spans, 2, width]``.
    """
    import numpy as np

    from clipstudy.metrics import ami, nmi
    from clipstudy.probes.clusters import kmeans
    from clipstudy.probes.inputs import standardise

    fit, score = (np.array(part, dtype=int) for part in (sample.fit, sample.score))
    if arm == "multi_word":
        fit, score = fit[known.several[fit]], score[known.several[score]]
    # As many clusters as the sample has labels, whatever this model can see of it: the same for all models.
    k = len(np.unique(known.labels[np.concatenate([fit, score])]))
    # A span that this model cannot see is dropped after sampling, so that the sample stays the same for all models.
    fit, score = fit[known.seen[fit]], score[known.seen[score]]
    if min(len(np.unique(known.labels[part])) for part in (fit, score)) < 2:
        return None
    vectors = [
        span_vectors(ends[part], difference=arm != "no_difference", decimals=options.decimals) for part in (fit, score)
    ]
    if options.standardise:
        vectors = standardise(*vectors)
    assigned = kmeans(np.concatenate(vectors), k, seeds, n_init=options.restarts, fit_rows=len(fit))[:, len(fit) :]
    truth = known.labels[score]
    chance = np.random.default_rng(options.sample_seed)
    by_chance = [nmi(truth, chance.integers(k, size=len(truth)), average=options.average) for _ in range(20)]
    groups = {name: partition[score] for name, partition in known.partitions.items()}
    return _Replicate(
        scores={
            "nmi": [nmi(truth, row, average=options.average) for row in assigned],
            "nmi_arithmetic": [nmi(truth, row, average="arithmetic") for row in assigned],
            "ami": [ami(truth, row) for row in assigned],
        },
        baselines={
            "random": by_chance,
            **{name: [nmi(truth, group, average=options.average)] for name, group in groups.items()},
        },
        clusters=assigned,
        scored=score,
        k=k,
    )


def _summary(prefix: str, replicates: Sequence[_Replicate]) -> dict[str, Estimate]:
    """An arm's scores and baselines, over all samples and k-means seeds."""
    import numpy as np

    from clipstudy.metrics import quantile_interval

    def estimate(drawn: Sequence[Any]) -> Estimate:
        # One clustering says nothing of how much another would differ.
        return Estimate(float(np.ravel(drawn)[0])) if np.size(drawn) == 1 else Estimate(*quantile_interval(drawn))

    values = {name: [r.scores[name] for r in replicates] for name in replicates[0].scores}
    values |= {f"baseline/{name}": [r.baselines[name] for r in replicates] for name in replicates[0].baselines}
    return {f"{prefix}{name}": estimate(drawn) for name, drawn in values.items()}


def span_vectors(ends: np.ndarray, *, difference: bool = True, decimals: int | None = None) -> np.ndarray:
    """[h_s ; h_e ; h_s∘h_e ; h_s − h_e], ``[spans, 2, d]`` → ``[spans, 4d]`` (3d without the difference block)."""
    import numpy as np

    start, end = ends[:, 0], ends[:, 1]
    blocks = [start, end, start * end]
    if difference:
        blocks.append(start - end)
    vectors = np.concatenate(blocks, axis=1)
    return vectors if decimals is None else np.round(vectors, decimals)


def _coverage(features: Features, data: Spans, known: _Known) -> dict[str, Estimate]:
    """What the model saw of the spans."""
    coverage = features.coverage
    spans = len(data.spans)
    return {
        "spans": Estimate(spans),
        "spans/unseen": Estimate(coverage.spans_unseen),
        "spans/single_piece_share": Estimate(coverage.spans_single_piece / max(spans - coverage.spans_unseen, 1)),
        "spans/single_word_share": Estimate(float((~known.several).mean())),
        "sentences/excluded": Estimate(data.excluded),
        "sentences/truncated": Estimate(coverage.truncated),
    }


def _rows(sample: int, replicate: _Replicate, data: Spans, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row a span that is scored: where it is, its label, and its cluster for each k-means seed."""
    for at, number in enumerate(replicate.scored):
        span = data.spans[number]
        row = {"sample": sample, "sentence": span.sentence, "start": span.start, "end": span.end, "label": span.label}
        yield row | {f"cluster_{seed}": int(replicate.clusters[s, at]) for s, seed in enumerate(seeds)}
