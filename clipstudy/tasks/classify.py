"""Can a probe read a property of a sentence, or an image's class, off a layer's states? Accuracy by layer, on frozen
features.

The probing tasks of Conneau et al. 2018 (ACL), measured with a small classifier on one vector a sentence; images by the
same classifier on one vector an image.

Profiles
    ``default``    features standardised per dimension on the training split; MLP and linear probes; control task. Raw
                   features make SentEval's own classifier predict the majority class on some models, where the
                   optimisation and not the representation decides.
    ``senteval``   SentEval's classifier as released (Conneau & Kiela 2018): raw features, L2 grid chosen on dev, dev
                   scored every 4 passes, training stopped at the 6th evaluation that does not improve. For its word
                   content task SentEval takes logistic regression instead: say ``probes = ["linear"]`` there.
    ``jawahar``    the same, but one evaluation period of 4 passes: what the released code of Jawahar et al. 2019 does.
    ``images``     of images, and their default: the mean over places (headline, the same for maps and for tokens) and
                   the model's own summary; no control task, since an image has no word to draw a label for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import DataError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.parts.arms import Arm, Fitted, LabelSets, fit_arms, label_sets
from clipstudy.tasks.parts.items import Images, Sentences
from clipstudy.tasks.task import LABELLED, LATER, BadOption, Bench, Metric, Needs, at_least, each_once

if TYPE_CHECKING:
    from clipstudy.features.collect import Vectors
    from clipstudy.metrics import Interval
    from clipstudy.probes.mlp import ProbeFit

METHOD = 2
NEEDS = Needs.VECTORS
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("default", "senteval", "jawahar"), "image": ("images",)}
LAYERS: LayerChoice = "all"
METRICS: Mapping[str, Metric] = {**LABELLED, "selectivity": Metric("selectivity (points)", 100, 1)}
METRIC = "accuracy"
SEEDS = (0, 1, 2, 3, 4)
READERS = ("senteval", "table", "images")

_SENTEVAL = {
    "standardise": False,
    "probes": ["mlp"],
    "control": False,
    "l2": [1e-5, 1e-4, 1e-3, 1e-2],
    "batch_size": 64,
    "learning_rate": 1e-3,
}
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "senteval": _SENTEVAL,
    "jawahar": {**_SENTEVAL, "views": ["native"], "early_stop": False},
    "images": {"views": ["gap", "native"], "control": False},
}

#: A confusion matrix of more classes than this is written as (label, prediction, count) rows.
WIDEST = 50


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default", "senteval", "jawahar", "images"] = "default"
    views: tuple[Literal["mean", "native", "cls", "last", "eot", "gap", "2x2"], ...] = (
        "mean",
        "native",
    )  #: the first is the headline
    probes: tuple[Literal["mlp", "linear"], ...] = ("mlp", "linear")  #: the first is the headline
    standardise: bool = True  #: per dimension, on the training split
    #: Most dimensions that a probe is shown: features are turned to their principal components on the training split,
    #: so many at most, and standardised again, so that neither layer nor model has more of them. None: as they are.
    width: int | None = field(default=None, metadata=LATER)
    control: bool = True  #: measure selectivity with a control task (Hewitt & Liang 2019)
    hidden: int = 50  #: hidden units of the MLP
    dropout: float = 0.0
    l2: tuple[float, ...] = (1e-4,)  #: more than one: chosen on dev
    learning_rate: float = 2e-3
    batch_size: int = 128
    epoch_size: int = 4  #: passes over train between two scores on dev
    tenacity: int = 5  #: evaluations without improvement that are forgiven; never reset, as SentEval has it
    max_epoch: int = 200
    early_stop: bool = True  #: false: exactly one evaluation period
    draws: int = 1000  #: bootstrap draws of the interval
    overlong: Literal["truncate", "error"] = "truncate"  #: a sentence longer than the model can read

    def __post_init__(self) -> None:
        each_once(self, "views", "probes", "l2")
        at_least(self, hidden=1, batch_size=1, epoch_size=1, max_epoch=1, draws=1)
        if self.width is not None and (self.width < 1 or not self.standardise):
            want = "1 or more" if self.standardise else "none, or standardise = true"
            raise BadOption("width", f"found {self.width}, expected {want}")
        if self.control and self.profile == "images":
            raise BadOption("control", "found true, but an image has no word to draw a label for. Want false")
        if not 0 <= self.dropout < 1:
            raise BadOption("dropout", f"found {self.dropout}, expected 0 or more and less than 1")
        if self.learning_rate <= 0 or min(self.l2) < 0 or self.tenacity < 0:
            raise BadOption("learning_rate, l2 or tenacity", "is negative")


def views(options: Options) -> tuple[str, ...]:
    """Those that are asked for, the headline first."""
    return options.views


def metrics(options: Options) -> tuple[str, ...]:
    """Selectivity only where a control task measures it."""
    measured = "accuracy", "macro_f1"
    return (*measured, "selectivity") if options.control else measured


def read(dataset: DatasetSpec, options: Options) -> Sentences | Images:
    """Read the three splits. Raises DataError as the reader does."""
    return items.read_images(dataset) if dataset.reader == "images" else items.read_sentences(dataset)


def measure(
    features: Vectors,
    data: Sentences | Images,
    layers: Sequence[int],
    seeds: Sequence[int],
    options: Options,
    bench: Bench,
) -> Iterator[Outcome]:
    """Fit every arm's probes on train, stop them by dev, score them on test (Conneau et al. 2018).

    All of an arm's layers, seeds and weight decays are one stack of fits (``probes/mlp.py``). Selectivity is accuracy
    minus that of the same probe on a control task (Hewitt & Liang 2019), and is measured on the headline view. Where
    all training texts get one control label, there is none to measure, and the log says so.

    Args:
        features: of ``options.views``, ``[N, width]`` a layer; N rows in the order train, dev, test.
        data: what :func:`read` gave, of as many rows.

    Yields:
        For each layer the accuracy of every arm with its interval over seeds and test items, macro-F1, selectivity and
        what else the probes say of themselves; what they predicted, and the headline's confusion matrix, as files.

    Raises:
        DataError: a text is longer than the model reads and ``overlong`` is ``error``.
        ModelError: the model gave values that are not finite.
    """
    common = _common(features, data, options)
    labels = label_sets(data, options)
    fits = fit_arms(features, data.labelled, labels, layers, seeds, options, bench)
    accuracies = {arm: _accuracies(by_layer, labels, options) for arm, by_layer in fits.items()}
    for at, layer in enumerate(layers):
        here = {arm: by_layer[at] for arm, by_layer in fits.items()}
        metrics, params = dict(common), dict[str, str]()
        for arm, fitted in here.items():
            metrics |= _scores(arm, fitted, accuracies[arm][at], labels, options)
            metrics |= _selectivity(arm, fitted, labels, options)
            if len(options.l2) > 1:
                params[f"{arm.prefix}l2_chosen"] = ", ".join(f"{decay:g}" for decay in fitted.task.l2)
        headline, *_ = here.values()
        yield Outcome(
            layer=layer,
            metrics=metrics,
            params=params,
            artifacts=(
                Artifact("predictions.parquet", _predictions(data, here, seeds)),
                Artifact("confusion.csv", _confusion(data, headline.task)),
            ),
        )


def _common(features: Vectors, data: Sentences | Images, options: Options) -> dict[str, Estimate]:
    """What is the same at every layer. Raises DataError where texts were cut and the options allow none."""
    from clipstudy.metrics import majority

    labelled = data.labelled
    counts = {
        "items/train": len(labelled.train),
        "items/dev": len(labelled.dev),
        "items/test": len(labelled.test),
        "items/dropped": labelled.dropped,
        "classes": len(labelled.classes),
    }
    if isinstance(data, Sentences):
        counts["truncated"] = _truncated(features, data, options)
    else:
        counts["items/unreadable"] = labelled.unreadable
    baseline = majority(labelled.train.labels, labelled.test.labels)
    return {"baseline/majority": Estimate(baseline), **{name: Estimate(count) for name, count in counts.items()}}


def _truncated(features: Any, data: Sentences, options: Options) -> int:
    """How many sentences the model's limit cut."""
    truncated = features.truncated
    if options.overlong == "error" and truncated.any():
        raise DataError(
            f"{data.source}: {int(truncated.sum())} sentences are longer than the model can read (the first begins "
            f'"{" ".join(data.texts[int(truncated.argmax())].words)[:50]}"). Set overlong = "truncate" or shorten them.'
        )
    return int(truncated.sum())


def _accuracies(fits: Sequence[Fitted], labels: LabelSets, options: Options) -> list[Interval]:
    """Accuracy on test of an arm's probes at each layer, with its interval over seeds and test items. The draws are the
    same for every arm and layer, so that what is compared was drawn alike."""
    import numpy as np

    from clipstudy.metrics import bootstrap_mean

    right = np.stack([fitted.task.predictions == labels.truth.test for fitted in fits])
    return bootstrap_mean(right, draws=options.draws, rng=0)


def _scores(arm: Arm, fitted: Fitted, accuracy: Interval, labels: LabelSets, options: Options) -> dict[str, Estimate]:
    """What an arm's probes reached on test at one layer, and how their training went, the mean over seeds."""
    import numpy as np

    from clipstudy.metrics import macro_f1

    task = fitted.task
    by_seed: dict[str, Any] = {
        "macro_f1": [macro_f1(labels.truth.test, predictions) for predictions in task.predictions],
        "dev_accuracy": task.dev_accuracy,
        "one_class": task.one_class,
        "epochs": task.epochs,
    }
    means = {f"{arm.prefix}{name}": Estimate(float(np.mean(values))) for name, values in by_seed.items()}
    scores = {f"{arm.prefix}accuracy": Estimate(*accuracy), **means}
    if options.width is not None and arm.probe == options.probes[0]:
        scores[f"{arm.prefix}explained_variance"] = Estimate(fitted.explained)
    return scores


def _selectivity(arm: Arm, fitted: Fitted, labels: LabelSets, options: Options) -> dict[str, Estimate]:
    """What the arm's probes gain over the same probes on the control task; nothing where there is none."""
    from clipstudy.metrics import bootstrap_mean

    if fitted.control is None or labels.control is None:
        return {}
    remembered = fitted.control.predictions == labels.control.test
    gain = (fitted.task.predictions == labels.truth.test).astype(float) - remembered
    return {
        f"{arm.prefix}selectivity": Estimate(*bootstrap_mean(gain[None], draws=options.draws, rng=0)[0]),
        f"{arm.prefix}control/accuracy": Estimate(float(remembered.mean())),
        f"{arm.prefix}control/types_seen": Estimate(labels.types_seen),
    }


def _predictions(data: Sentences | Images, fits: Mapping[Arm, Fitted], seeds: Sequence[int]) -> bytes:
    """A row a test item: its label, and each arm's prediction for each seed."""
    import numpy as np
    import pyarrow as pa

    names = pa.array(data.labelled.classes)
    columns: dict[str, Any] = {"label": pa.array(data.labelled.test.labels).dictionary_encode()}
    for arm, fitted in fits.items():
        for seed, predictions in zip(seeds, fitted.task.predictions, strict=True):
            codes = pa.array(np.asarray(predictions, dtype=np.int32))
            columns[f"{arm.view}/{arm.probe}/seed_{seed}"] = pa.DictionaryArray.from_arrays(codes, names)
    return files.parquet(columns)


def _confusion(data: Sentences | Images, task: ProbeFit) -> bytes:
    """The headline arm's confusion matrix, counted over seeds; rows are gold labels."""
    classes = data.labelled.classes
    counts = Counter(
        (gold, classes[guess])
        for predictions in task.predictions
        for gold, guess in zip(data.labelled.test.labels, predictions, strict=True)
    )
    if len(classes) > WIDEST:
        return files.text(("label", "prediction", "count"), ((*pair, n) for pair, n in sorted(counts.items())))
    rows = ((gold, *(counts[gold, guess] for guess in classes)) for gold in classes)
    return files.text(("label", *classes), rows)
