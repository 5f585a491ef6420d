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

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from clipstudy.errors import DataError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks import files
from clipstudy.tasks.task import LATER, BadOption, Bench, Needs

if TYPE_CHECKING:
    from clipstudy.data.images import Picture
    from clipstudy.data.labelled import Labelled
    from clipstudy.features.collect import Vectors
    from clipstudy.features.extract import Text
    from clipstudy.metrics import Interval
    from clipstudy.probes.inputs import Inputs, Labels, Principal
    from clipstudy.probes.mlp import ProbeFit, Recipe

log = logging.getLogger(__name__)

METHOD = 2
NEEDS = Needs.VECTORS
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("default", "senteval", "jawahar"), "image": ("images",)}
LAYERS: LayerChoice = "all"
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
    #: Most dimensions that a probe is shown: wider features are reduced to their principal components on the training
    #: split and standardised again, so that neither layer nor model has more of them. None: all.
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
        for key in ("views", "probes", "l2"):
            if not getattr(self, key):
                raise BadOption(key, "found an empty list, expected one or more")
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise BadOption(key, "names something twice")
        for key in ("hidden", "batch_size", "epoch_size", "max_epoch", "draws"):
            if getattr(self, key) < 1:
                raise BadOption(key, f"found {getattr(self, key)}, expected 1 or more")
        if self.width is not None and (self.width < 1 or not self.standardise):
            want = "1 or more" if self.standardise else "none, or standardise = true"
            raise BadOption("width", f"found {self.width}, expected {want}")
        if self.control and self.profile == "images":
            raise BadOption("control", "found true, but an image has no word to draw a label for. Want false")
        if not 0 <= self.dropout < 1:
            raise BadOption("dropout", f"found {self.dropout}, expected 0 or more and less than 1")
        if self.learning_rate <= 0 or min(self.l2) < 0 or self.tenacity < 0:
            raise BadOption("learning_rate, l2 or tenacity", "is negative")


#: What a text is, or an image.
T = TypeVar("T")


@dataclass(frozen=True)
class _Read(Generic[T]):
    labelled: Labelled[T]

    @property
    def fingerprint(self) -> str:
        return self.labelled.fingerprint

    @property
    def source(self) -> str:
        return self.labelled.source


@dataclass(frozen=True)
class Sentences(_Read[tuple[str, ...]]):
    """The data set, and its texts in the order train, dev, test."""

    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Images(_Read["Picture"]):
    """The data set, and its images in the order train, dev, test."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(picture for part in self.labelled.parts for picture in part.items)


@dataclass(frozen=True)
class Arm:
    """One way of asking: which view of the sentence or image, which probe."""

    view: str
    probe: str
    prefix: str  #: of its metric names; the headline arm has none


def views(options: Options) -> tuple[str, ...]:
    """Those that are asked for, the headline first."""
    return options.views


def metrics(options: Options) -> tuple[str, ...]:
    measured = "accuracy", "macro_f1"
    return (*measured, "selectivity") if options.control else measured


def read(dataset: DatasetSpec, options: Options) -> Sentences | Images:
    """Read the three splits. Raises DataError as the reader does."""
    from clipstudy.data import images, senteval, table
    from clipstudy.features.extract import Text

    if dataset.reader == "images":
        return Images(images.read(dataset))
    labelled = (senteval if dataset.reader == "senteval" else table).read(dataset)
    texts = tuple(Text(words) for part in labelled.parts for words in part.items)
    return Sentences(labelled, texts)


def arms(options: Options) -> list[Arm]:
    """Every (view, probe), the headline first; a prefix names only what differs from the headline."""
    found = []
    for view, probe in itertools.product(options.views, options.probes):
        view_prefix = "" if view == options.views[0] else f"{view}/"
        probe_prefix = "" if probe == options.probes[0] else f"{probe}/"
        found.append(Arm(view, probe, view_prefix + probe_prefix))
    return found


def recipe(options: Options, probe: str) -> Recipe:
    """How ``mlp`` or ``linear`` is trained: a linear probe is the MLP without its hidden layer."""
    from clipstudy.probes.mlp import Recipe

    return Recipe(
        hidden=options.hidden if probe == "mlp" else 0,
        dropout=options.dropout if probe == "mlp" else 0.0,
        l2=options.l2,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        epoch_size=options.epoch_size,
        tenacity=options.tenacity,
        max_epoch=options.max_epoch,
        early_stop=options.early_stop,
    )


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
    import numpy as np

    from clipstudy.metrics import bootstrap_accuracy

    common = _common(features, data, options)
    labels = _labels(data, options)
    # One for each set of vectors: `native` may be the same as `cls`, `last` or `eot`, and is then read once.
    shown: dict[str, _Shown] = {}
    for view in options.views:
        shown.setdefault(features.called(view), _Shown(features, view, data.labelled, options))
    fits = _fitted(features, shown, labels, layers, seeds, options, bench)
    intervals = {
        # The same draws for every arm and layer, so that what is compared was drawn alike.
        arm: bootstrap_accuracy(
            np.stack([fitted.task.predictions == labels.truth.test for fitted in by_layer]),
            draws=options.draws,
            rng=0,
        )
        for arm, by_layer in fits.items()
    }
    for at, layer in enumerate(layers):
        metrics, params = dict(common), dict[str, str]()
        for arm, by_layer in fits.items():
            fitted = by_layer[at]
            metrics |= _scores(arm, fitted.task, intervals[arm][at], labels)
            if options.width is not None and arm.probe == options.probes[0]:
                explained = shown[features.called(arm.view)].explained(layer)
                metrics[f"{arm.prefix}explained_variance"] = Estimate(explained)
            if len(options.l2) > 1:
                params[f"{arm.prefix}l2_chosen"] = ", ".join(f"{decay:g}" for decay in fitted.task.l2)
            metrics |= _selectivity(arm, fitted, labels, options)
        tasks = {arm: by_layer[at].task for arm, by_layer in fits.items()}
        yield Outcome(
            layer=layer,
            metrics=metrics,
            params=params,
            artifacts=(
                Artifact("predictions.parquet", _predictions(data, tasks, seeds)),
                Artifact("confusion.csv", _confusion(data, tasks[arms(options)[0]])),
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


@dataclass(frozen=True)
class _LabelSets:
    """What probes are fitted to."""

    truth: Labels
    control: Labels | None  #: of the control task; None: there is none
    types_seen: float  #: share of test texts whose type of first word is seen in train
    classes: int

    def of(self, arm: Arm, options: Options) -> list[Labels]:
        """What the arm's probes are fitted to. Each probe has its own capacity to learn by heart, so each has its own
        control; the headline view stands for all."""
        if self.control is None or arm.view != options.views[0]:
            return [self.truth]
        return [self.truth, self.control]


def _labels(data: Sentences | Images, options: Options) -> _LabelSets:
    """The task's labels as class numbers, and those of its control task: one for each type of first word (a hash of the
    whole sentence would never repeat between train and test, and selectivity would only be accuracy minus majority).
    No control where one label is all that train has of it: any probe knows it, so it measures no learning by heart."""
    import numpy as np

    from clipstudy.probes.control import control_labels, share_seen
    from clipstudy.probes.mlp import Labels

    number = {label: i for i, label in enumerate(data.labelled.classes)}
    truth = Labels(*(np.array([number[label] for label in part.labels]) for part in data.labelled.parts))
    if not options.control or not isinstance(data, Sentences):
        return _LabelSets(truth, None, 0.0, len(number))
    train, dev, test = ([words[0].lower() for words in part.items] for part in data.labelled.parts)
    drawn = Labels(*(control_labels(types, truth.train, len(number)) for types in (train, dev, test)))
    if (drawn.train == drawn.train[0]).all():
        log.warning(
            "%s: no selectivity, since its control task has one label alone. It draws one for each type of first word "
            "(of pairs about a word: of that word); the training texts have %d (%s). No option names another control "
            "task: write control = false in the task's options to do without.",
            data.source,
            len(set(train)),
            ", ".join(f'"{word}"' for word in sorted(set(train))[:3]),
        )
        return _LabelSets(truth, None, 0.0, len(number))
    return _LabelSets(truth, drawn, share_seen(train, test), len(number))


@dataclass(frozen=True)
class _Fitted:
    """An arm's probes at one layer."""

    task: ProbeFit
    control: ProbeFit | None = None  #: the same probe on the control task; None: there is none


def _fitted(
    features: Vectors,
    shown: Mapping[str, _Shown],
    labels: _LabelSets,
    layers: Sequence[int],
    seeds: Sequence[int],
    options: Options,
    bench: Bench,
) -> dict[Arm, list[_Fitted]]:
    """The probes of every arm, layer by layer. Arms that are shown the same vectors share their fits."""
    from clipstudy.probes.mlp import fit

    fits: dict[Arm, list[_Fitted]] = {}
    of_vectors: dict[tuple[str, str], list[_Fitted]] = {}
    asked = arms(options)
    members = len(layers) * len(seeds) * len(options.l2)
    total, done = members * sum(len(labels.of(arm, options)) for arm in asked), 0
    for arm in asked:
        vectors, sets = features.called(arm.view), labels.of(arm, options)
        if (vectors, arm.probe) in of_vectors:
            fits[arm] = [replace(fitted, control=None) for fitted in of_vectors[vectors, arm.probe]]
        else:
            by_layer = fit(
                [partial(shown[vectors].inputs, layer) for layer in layers],
                sets,
                labels.classes,
                recipe(options, arm.probe),
                seeds,
                device=bench.device,
                on_progress=_after(bench, done, total),
            )
            fits[arm] = of_vectors[vectors, arm.probe] = [_Fitted(*of_sets) for of_sets in by_layer]
        done += members * len(sets)
    return fits


def _after(bench: Bench, done: int, of: int) -> Callable[[float, int], None]:
    """Progress of one arm's fits after ``done`` of other arms, ``of`` in all."""
    return lambda fits, _: bench.progress("probes", done + fits, of)


def _scores(arm: Arm, task: ProbeFit, accuracy: Interval, labels: _LabelSets) -> dict[str, Estimate]:
    """What an arm's probes reached on test at one layer, and how their training went, the mean over seeds."""
    import numpy as np

    from clipstudy.metrics import macro_f1

    by_seed: dict[str, Any] = {
        "macro_f1": [macro_f1(labels.truth.test, predictions) for predictions in task.predictions],
        "dev_accuracy": task.dev_accuracy,
        "one_class": task.one_class,
        "epochs": task.epochs,
    }
    means = {f"{arm.prefix}{name}": Estimate(float(np.mean(values))) for name, values in by_seed.items()}
    return {f"{arm.prefix}accuracy": Estimate(*accuracy), **means}


def _selectivity(arm: Arm, fitted: _Fitted, labels: _LabelSets, options: Options) -> dict[str, Estimate]:
    """What the arm's probes gain over the same probes on the control task; nothing where there is none."""
    from clipstudy.metrics import bootstrap_accuracy

    if fitted.control is None or labels.control is None:
        return {}
    remembered = fitted.control.predictions == labels.control.test
    gain = (fitted.task.predictions == labels.truth.test).astype(float) - remembered
    return {
        f"{arm.prefix}selectivity": Estimate(*bootstrap_accuracy(gain[None], draws=options.draws, rng=0)[0]),
        f"{arm.prefix}control/accuracy": Estimate(float(remembered.mean())),
        f"{arm.prefix}control/types_seen": Estimate(labels.types_seen),
    }


class _Shown:
    """What probes are shown of one view, layer by layer."""

    def __init__(self, features: Vectors, view: str, labelled: Labelled[Any], options: Options) -> None:
        self._features, self.view, self._options = features, view, options
        self._ends = list(itertools.accumulate(len(part) for part in labelled.parts))[:-1]
        self._principal: dict[int, Principal] = {}  #: layer → its components: each probe reads them again

    def inputs(self, layer: int) -> Inputs:
        """Features of ``layer`` in three splits. Each call reads them anew: they may not fit in memory together."""
        import numpy as np

        from clipstudy.probes.inputs import Inputs, principal, standardise

        split = np.split(self._features.vectors(layer, self.view), self._ends)
        if self._options.standardise:
            split = standardise(*split)
        width = self._options.width
        if width is not None:
            # Narrower layers too: turned to principal components all are alike, or some would be whitened and some not.
            if layer not in self._principal:
                self._principal[layer] = principal(split[0], width)
            split = standardise(*map(self._principal[layer].project, split))
        return Inputs(*split)

    def explained(self, layer: int) -> float:
        """Share of the training split's variance that probes were shown."""
        return self._principal[layer].explained if layer in self._principal else 1.0


def _predictions(data: Sentences | Images, fits: Mapping[Arm, ProbeFit], seeds: Sequence[int]) -> bytes:
    """A row a test item: its label, and each arm's prediction for each seed."""
    import numpy as np
    import pyarrow as pa

    names = pa.array(data.labelled.classes)
    columns: dict[str, Any] = {"label": pa.array(data.labelled.test.labels).dictionary_encode()}
    for arm, task in fits.items():
        for seed, predictions in zip(seeds, task.predictions, strict=True):
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
