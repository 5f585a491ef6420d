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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    from clipstudy.probes.inputs import Inputs, Principal
    from clipstudy.probes.mlp import ProbeFit, Recipe

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
        return (*self.labelled.train.items, *self.labelled.dev.items, *self.labelled.test.items)


@dataclass(frozen=True)
class Arm:
    """One way of asking: which view of the sentence or image, which probe."""

    view: str
    probe: str
    prefix: str  #: of its metric names; the headline arm has none


def views(options: Options) -> tuple[str, ...]:
    return options.views


def metrics(options: Options) -> tuple[str, ...]:
    return "accuracy", "macro_f1", *(["selectivity"] if options.control else [])


def read(dataset: DatasetSpec, options: Options) -> Sentences | Images:
    """Read the three splits. Raises DataError as the reader does."""
    from clipstudy.data import images, senteval, table
    from clipstudy.features.extract import Text

    if dataset.reader == "images":
        return Images(images.read(dataset))
    labelled = (senteval if dataset.reader == "senteval" else table).read(dataset)
    texts = tuple(Text(words) for part in (labelled.train, labelled.dev, labelled.test) for words in part.items)
    return Sentences(labelled, texts)


def arms(options: Options) -> list[Arm]:
    """Every (view, probe), the headline first; a prefix names only what differs from the headline."""
    return [
        Arm(
            v,
            p,
            "".join(f"{name}/" for name, first in ((v, options.views[0]), (p, options.probes[0])) if name != first),
        )
        for v in options.views
        for p in options.probes
    ]


def recipe(options: Options, probe: str) -> Recipe:
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
    import numpy as np

    from clipstudy.metrics import bootstrap_accuracy, macro_f1, majority
    from clipstudy.probes.mlp import Labels, fit

    unread = _unread(features, data, options) if isinstance(data, Sentences) else {}
    parts = (data.labelled.train, data.labelled.dev, data.labelled.test)
    number = {label: i for i, label in enumerate(data.labelled.classes)}
    truth = Labels(*(np.array([number[label] for label in part.labels]) for part in parts))
    control = _control(data, truth, len(number)) if options.control and isinstance(data, Sentences) else None

    # By what a view is called: the model's own summary is a view that may be asked for by name too.
    shown: dict[str, _Shown] = {}
    for view in options.views:
        shown.setdefault(features.called(view), _Shown(features, view, parts, options))
    fits: dict[Arm, list[list[ProbeFit]]] = {}
    asked = arms(options)
    # Each probe has its own capacity to learn by heart, so each has its own control; the headline view stands for all.
    wanted = {arm: [truth, control.labels] if control and arm.view == options.views[0] else [truth] for arm in asked}
    members = len(layers) * len(seeds) * len(options.l2)
    in_all, done = members * sum(map(len, wanted.values())), 0
    for arm in asked:
        same = [a for a in fits if a.probe == arm.probe and features.called(a.view) == features.called(arm.view)]
        if same:
            fits[arm] = [found[:1] for found in fits[same[0]]]
            done += members * len(wanted[arm])
            continue
        fits[arm] = fit(
            [partial(shown[features.called(arm.view)].inputs, layer) for layer in layers],
            wanted[arm],
            len(number),
            recipe(options, arm.probe),
            seeds,
            device=bench.device,
            on_progress=_after(bench, done, in_all),
        )
        done += members * len(wanted[arm])

    intervals = {
        # The same draws for every arm and layer, so that what is compared was drawn alike.
        arm: bootstrap_accuracy(
            np.stack([f[0].predictions == truth.test for f in found]),
            draws=options.draws,
            rng=0,
        )
        for arm, found in fits.items()
    }
    for at, layer in enumerate(layers):
        metrics: dict[str, Estimate] = {
            "baseline/majority": Estimate(majority(truth.train, truth.test)),
            "items/train": Estimate(len(truth.train)),
            "items/dev": Estimate(len(truth.dev)),
            "items/test": Estimate(len(truth.test)),
            "items/dropped": Estimate(data.labelled.dropped),
            "classes": Estimate(len(number)),
            **unread,
            **({"items/unreadable": Estimate(data.labelled.unreadable)} if isinstance(data, Images) else {}),
        }
        params: dict[str, str] = {}
        for arm, found in fits.items():
            task = found[at][0]
            metrics[f"{arm.prefix}accuracy"] = Estimate(*intervals[arm][at])
            metrics[f"{arm.prefix}macro_f1"] = Estimate(
                float(np.mean([macro_f1(truth.test, p) for p in task.predictions]))
            )
            metrics[f"{arm.prefix}dev_accuracy"] = Estimate(float(np.mean(task.dev_accuracy)))
            metrics[f"{arm.prefix}one_class"] = Estimate(float(task.one_class.mean()))
            if options.width is not None and arm.probe == options.probes[0]:
                explained = shown[features.called(arm.view)].explained(layer)
                metrics[f"{arm.prefix}explained_variance"] = Estimate(explained)
            metrics[f"{arm.prefix}epochs"] = Estimate(float(np.mean(task.epochs)))
            if len(options.l2) > 1:
                params[f"{arm.prefix}l2_chosen"] = ", ".join(f"{v:g}" for v in task.l2)
            if len(found[at]) > 1 and control:
                metrics.update(_selectivity(arm, task, found[at][1], truth, control, options))
        yield Outcome(
            layer=layer,
            metrics=metrics,
            params=params,
            artifacts=(
                Artifact("predictions.parquet", _predictions(data, {a: f[at][0] for a, f in fits.items()}, seeds)),
                Artifact("confusion.csv", _confusion(data, fits[asked[0]][at][0])),
            ),
        )


def _unread(features: Any, data: Sentences, options: Options) -> dict[str, Estimate]:
    """How many sentences the model's limit cut. Raises DataError where the options allow none."""
    truncated = features.truncated
    if options.overlong == "error" and truncated.any():
        raise DataError(
            f"{data.source}: {int(truncated.sum())} sentences are longer than the model can read (the first begins "
            f'"{" ".join(data.texts[int(truncated.argmax())].words)[:50]}"). Set overlong = "truncate" or shorten them.'
        )
    return {"truncated": Estimate(int(truncated.sum()))}


def _after(bench: Bench, done: int, of: int) -> Callable[[float, int], None]:
    """Progress of one arm's fits after ``done`` of other arms, ``of`` in all."""
    return lambda fits, _: bench.progress("probes", done + fits, of)


@dataclass(frozen=True)
class _Control:
    labels: Any
    seen: float  #: share of test sentences whose first word is seen in train


def _control(data: Sentences, truth: Any, classes: int) -> _Control:
    """The control task of a sentence property: a label for each type of first word (a hash of the whole sentence would
    never repeat between train and test, and selectivity would only be accuracy minus majority)."""
    from clipstudy.probes.control import control_labels, share_seen
    from clipstudy.probes.mlp import Labels

    parts = (data.labelled.train, data.labelled.dev, data.labelled.test)
    types = [[words[0].lower() for words in part.items] for part in parts]
    drawn = [control_labels(t, truth.train, classes) for t in types]
    return _Control(Labels(*drawn), share_seen(types[0], types[2]))


def _selectivity(
    arm: Arm, task: ProbeFit, other: ProbeFit, truth: Any, control: _Control, options: Options
) -> dict[str, Estimate]:

    from clipstudy.metrics import bootstrap_accuracy

    gain = (task.predictions == truth.test).astype(float) - (other.predictions == control.labels.test)
    return {
        f"{arm.prefix}selectivity": Estimate(*bootstrap_accuracy(gain[None], draws=options.draws, rng=0)[0]),
        f"{arm.prefix}control/accuracy": Estimate(float((other.predictions == control.labels.test).mean())),
        f"{arm.prefix}control/types_seen": Estimate(control.seen),
    }


class _Shown:
    """What probes are shown of one view, layer by layer."""

    def __init__(self, features: Vectors, view: str, parts: Sequence[Any], options: Options) -> None:
        self._features, self.view, self._options = features, view, options
        self._ends = list(itertools.accumulate(len(part) for part in parts))[:-1]
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
    """A row a test item: its label and what each arm's probe of each seed said."""
    import numpy as np
    import pyarrow as pa

    names = pa.array(data.labelled.classes)
    columns: dict[str, Any] = {"label": pa.array(data.labelled.test.labels).dictionary_encode()}
    for arm, found in fits.items():
        for seed, row in zip(seeds, found.predictions, strict=True):
            codes = pa.array(np.asarray(row, dtype=np.int32))
            columns[f"{arm.view}/{arm.probe}/seed_{seed}"] = pa.DictionaryArray.from_arrays(codes, names)
    return files.parquet(columns)


def _confusion(data: Sentences | Images, found: ProbeFit) -> bytes:
    """The headline arm's confusion matrix, counted over seeds; rows are gold labels."""
    classes = data.labelled.classes
    counts = Counter(
        (gold, classes[p]) for row in found.predictions for gold, p in zip(data.labelled.test.labels, row, strict=True)
    )
    if len(classes) > WIDEST:
        return files.text(("label", "prediction", "count"), ((*pair, n) for pair, n in sorted(counts.items())))
    rows = ((gold, *(counts[gold, said] for said in classes)) for gold in classes)
    return files.text(("label", *classes), rows)
