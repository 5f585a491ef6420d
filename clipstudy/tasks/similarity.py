"""How alike are a layer and each layer of a reference model? Linear CKA on the same texts: a row of a heat map.

Kornblith et al. 2019 (ICML), from the unbiased HSIC over minibatches (Nguyen, Raghu & Kornblith 2021, ICLR), so that a
wide layer is not alike to everything by its width alone. `docs/design/similarity.md` says why each choice is made.

Profiles
    ``default``    the published measure: vectors as they are, five cuts of the texts into minibatches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import DataError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.task import Bench, Metric, Needs, WithReference, at_least, each_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.features.extract import Features, Text
    from clipstudy.metrics import Interval
    from clipstudy.probes.similarity import Hsic

METHOD = 1
NEEDS = Needs.REFERENCE
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("default",)}
LAYERS: LayerChoice = "all"
#: To be like another model is no merit.
METRICS = {"cka": Metric("CKA with the nearest layer", better=0)}
METRIC = "cka"
SEEDS = (0, 1, 2, 3, 4)  #: each another cut of the texts into minibatches
READERS = ("senteval", "table", "conll2000")
PROFILES: Mapping[str, Mapping[str, Any]] = {"default": {}}

#: Minibatches that an interval asks for: resampling fewer understates it.
MINIBATCHES = 8
#: The unbiased HSIC divides by the texts of a minibatch minus 3.
SMALLEST = 4

#: Of what is kept beside the metrics: each reference layer's similarity.
COLUMNS = ("view", "layer", "reference_layer", "cka", "low", "high", "permuted")


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default"] = "default"
    views: tuple[Literal["mean", "native", "cls", "last", "eot"], ...] = (
        "mean",
        "native",
    )  #: the first is the headline
    split: Literal["train", "dev", "test"] = "test"
    standardise: bool = False  #: per dimension, so that no few dimensions decide
    batch_size: int = 64  #: texts a minibatch
    draws: int = 1000  #: bootstrap draws of the interval

    def __post_init__(self) -> None:
        each_once(self, "views")
        at_least(self, batch_size=SMALLEST, draws=1)


@dataclass(frozen=True)
class Texts:
    """The different texts of one split."""

    texts: tuple[Text, ...]
    repeated: int  #: texts left out, since one before them says the same
    fingerprint: str
    source: str


def views(options: Options) -> tuple[str, ...]:
    """Those that are asked for, of both models."""
    return options.views


def metrics(options: Options) -> tuple[str, ...]:
    return ("cka",)


def read(dataset: DatasetSpec, options: Options) -> Texts:
    """The texts of ``options.split``, each once: a text is alike to itself, as no two texts are.

    Raises:
        DataError: too few texts to make minibatches of, and all that the reader refuses.
    """
    from clipstudy.features.extract import Text

    words, fingerprint, source = _sentences(dataset, options.split)
    texts = tuple(Text(distinct) for distinct in dict.fromkeys(words))
    wanted = MINIBATCHES * options.batch_size
    if len(texts) < wanted:
        raise DataError(
            f'[datasets.{dataset.name}] split "{options.split}" of {source} has {len(texts)} different texts; '
            f"{MINIBATCHES} minibatches of batch_size = {options.batch_size} want {wanted}. Lower batch_size in the "
            "task's options, or name a larger split."
        )
    return Texts(texts, len(words) - len(texts), fingerprint, source)


def measure(
    features: WithReference, data: Texts, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Linear CKA of each of ``layers`` with every layer of the reference, HSIC averaged over minibatches (Kornblith et
    al. 2019; Nguyen, Raghu & Kornblith 2021).

    Args:
        features: vectors of ``data.texts`` at the batch's layers and at all of the reference, ``[N, width]`` each.
        seeds: each another cut of the texts into minibatches.

    Yields:
        For each layer CKA with the most similar layer of the reference and with each, with their intervals over
        minibatches, and what unpaired texts would have; all of it as a file.

    Raises:
        ModelError: either model gave values that are not finite.
    """
    from clipstudy.probes.similarity import chance, intervals, minibatches

    cuts = [minibatches(len(data.texts), options.batch_size, seed) for seed in seeds]
    hsics: dict[tuple[str, int], list[Hsic]] = {(view, layer): [] for view in options.views for layer in layers}
    done, total = 0, len(cuts) * len(hsics)
    for cut in cuts:
        for view in options.views:
            for layer, hsic in zip(layers, _compared(features, view, layers, cut, options), strict=True):
                bench.progress("similarity", done, total)
                hsics[view, layer].append(hsic)
                done += 1
    bench.progress("similarity", total, total)

    for layer in layers:
        metrics = {
            "items/test": Estimate(cuts[0].size),
            "items/repeated": Estimate(data.repeated),
            "truncated": Estimate(int(features.own.truncated.sum())),
            "reference/truncated": Estimate(int(features.reference.truncated.sum())),
        }
        rows: list[tuple[Any, ...]] = []
        for view in options.views:
            alike, unpaired = intervals(hsics[view, layer], draws=options.draws), chance(hsics[view, layer])
            metrics |= _metrics("" if view == options.views[0] else f"{view}/", alike, unpaired)
            pairs = zip(alike, unpaired.mean(axis=0).tolist(), strict=True)
            rows += [(view, layer, j, *interval, by_chance) for j, (interval, by_chance) in enumerate(pairs)]
        yield Outcome(
            layer=layer,
            metrics=metrics,
            params={"reference": features.model.name},
            artifacts=(Artifact("cka.csv", files.text(COLUMNS, rows)),),
        )


def _metrics(prefix: str, alike: Sequence[Interval], unpaired: NDArray[Any]) -> dict[str, Estimate]:
    """A layer beside each layer of the reference: the nearest one, what chance makes of the largest, and all."""
    nearest = max(range(len(alike)), key=lambda j: alike[j].value)
    return {
        f"{prefix}cka": Estimate(*alike[nearest]),
        f"{prefix}nearest": Estimate(nearest),
        f"{prefix}baseline/permuted": Estimate(float(unpaired.max(axis=1).mean())),
        **{f"{prefix}cka/{j}": Estimate(*interval) for j, interval in enumerate(alike)},
    }


def _compared(
    features: WithReference, view: str, layers: Sequence[int], cut: NDArray[Any], options: Options
) -> Iterator[Hsic]:
    """Each of ``layers`` in turn with all layers of the reference, on one cut."""
    import numpy as np

    from clipstudy.probes.similarity import centred, grams, hsic

    def matrices(of: Features, layer: int) -> NDArray[Any]:
        return grams(centred(of.vectors(layer, view), scaled=options.standardise), cut)

    others = np.stack([matrices(features.reference, j) for j in range(features.model.layers + 1)])
    for layer in layers:
        yield hsic(matrices(features.own, layer), others)


def _sentences(dataset: DatasetSpec, split: str) -> tuple[list[tuple[str, ...]], str, str]:
    """The words of each text of a split that models may be shown, the data's fingerprint, and where it lies."""
    from clipstudy.data import conll2000

    if dataset.reader == "conll2000":
        corpus = conll2000.read(dataset, split)
        shown = [s.words for row, s in enumerate(corpus.sentences) if row not in corpus.excluded]
        return shown, corpus.fingerprint, corpus.source
    labelled = items.read_sentences(dataset).labelled
    return list(getattr(labelled, split).items), labelled.fingerprint, labelled.source
