"""The probes of a classification task: which are asked for, what each is shown and fitted to, and their fits.

`classify` turns them into metrics; `classify_pairs` has the same of pairs of texts.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from clipstudy.tasks.parts.items import Images, Sentences
from clipstudy.tasks.task import Bench

if TYPE_CHECKING:
    from clipstudy.data.labelled import Labelled
    from clipstudy.features.collect import Vectors
    from clipstudy.probes.inputs import Inputs, Labels, Principal
    from clipstudy.probes.mlp import ProbeFit, Recipe
    from clipstudy.tasks.classify import Options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One way of asking a layer: a kind of probe (``mlp``, ``linear``) on a view, that is one of the vectors that can
    be made of a sentence or image (the mean, the class token, …). The first of both is the headline arm."""

    view: str
    probe: str
    prefix: str  #: of its metric names; the headline arm has none


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


@dataclass(frozen=True)
class LabelSets:
    """What probes are fitted to: the task's labels, and those of its control task."""

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


def label_sets(data: Sentences | Images, options: Options) -> LabelSets:
    """The task's labels as class numbers, and those of its control task (Hewitt & Liang 2019).

    The control draws a label for each type of first word: a hash of the whole sentence would never repeat between train
    and test, and selectivity would only be accuracy minus majority. There is none of images, and none where one label
    is all that train has of it: any probe knows it, so it measures no learning by heart.
    """
    import numpy as np

    from clipstudy.probes.control import control_labels, share_seen
    from clipstudy.probes.inputs import Labels

    number = data.labelled.class_number
    truth = Labels(*(np.array([number[label] for label in part.labels]) for part in data.labelled.parts))
    if not options.control or not isinstance(data, Sentences):
        return LabelSets(truth, None, 0.0, len(number))
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
        return LabelSets(truth, None, 0.0, len(number))
    return LabelSets(truth, drawn, share_seen(train, test), len(number))


class _Shown:
    """The features of one view as probes are shown them: split, standardised, reduced to ``width``."""

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


@dataclass(frozen=True)
class Fitted:
    """An arm's probes at one layer."""

    task: ProbeFit
    control: ProbeFit | None  #: the same probe on the control task; None: there is none
    explained: float  #: share of the training split's variance that the probes were shown


def fit_arms(
    features: Vectors,
    labelled: Labelled[Any],
    labels: LabelSets,
    layers: Sequence[int],
    seeds: Sequence[int],
    options: Options,
    bench: Bench,
) -> dict[Arm, list[Fitted]]:
    """The probes of every arm, layer by layer. Arms that are shown the same vectors share their fits."""
    from clipstudy.probes.mlp import fit

    # By their vectors: `native` may be the same as `cls`, `last` or `eot`, and is then read and fitted once.
    shown: dict[str, _Shown] = {}
    fits: dict[tuple[str, str], list[Fitted]] = {}
    by_arm: dict[Arm, list[Fitted]] = {}
    asked = arms(options)
    members = len(layers) * len(seeds) * len(options.l2)
    total, done = members * sum(len(labels.of(arm, options)) for arm in asked), 0
    for arm in asked:
        vectors, sets = features.called(arm.view), labels.of(arm, options)
        known = fits.get((vectors, arm.probe))
        if known is not None:
            by_arm[arm] = [replace(fitted, control=None) for fitted in known]
        else:
            view = shown.setdefault(vectors, _Shown(features, arm.view, labelled, options))
            by_layer = fit(
                [partial(view.inputs, layer) for layer in layers],
                sets,
                labels.classes,
                recipe(options, arm.probe),
                seeds,
                device=bench.device,
                on_progress=bench.part("probes", done, total),
            )
            by_arm[arm] = fits[vectors, arm.probe] = [
                Fitted(task, next(iter(control), None), view.explained(layer))
                for layer, (task, *control) in zip(layers, by_layer, strict=True)
            ]
        done += members * len(sets)
    return by_arm
