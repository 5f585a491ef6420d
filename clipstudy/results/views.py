"""One metric of one task over models and layers: what charts, maps and tables are drawn from. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clipstudy.outcome import Estimate, Result
from clipstudy.results.units import Z, better, standard_error

#: A baseline by which no model is judged: what the measuring itself reaches at most.
CEILING = "decoder on the pixels themselves"


@dataclass(frozen=True)
class Cell:
    """One bar."""

    layer: int
    label: str
    estimate: Estimate
    depth: float | None = None  #: fraction of the model's blocks; None for a task of the whole model
    n: int | None = None  #: test items
    inits: int = 1  #: initialisations pooled
    #: Each one's own estimate, by its model's name.
    by_init: Mapping[str, Estimate] = field(default_factory=dict, compare=False, repr=False)
    one_class: bool = False  #: with at least one seed, a single class is predicted: that says little about the layer
    #: What needs no model, name and value, where it differs from layer to layer; see ``View.baselines``.
    baselines: tuple[tuple[str, float], ...] = ()
    points: tuple[float, ...] = ()  #: one value a seed (and initialisation), where they were asked for
    runs: tuple[Result, ...] = field(default=(), compare=False, repr=False)  #: whose numbers these are


@dataclass(frozen=True)
class Curve:
    """One model (or the pooled initialisations of one untrained twin) on one task."""

    family: str
    title: str
    twin_of: str | None
    cells: tuple[Cell, ...]
    best: int | None  #: the best layer: on the development set where it was scored, else on the test set
    missing: tuple[int, ...] = ()  #: layers that belong to the task and have no result yet
    role: str = ""
    study: str = ""
    stands_in: bool = False  #: not the model that its role is named after: nothing published is a number of it
    #: Layer → its score on the development set, where there is one.
    dev: Mapping[int, float] = field(default_factory=dict, compare=False, repr=False)
    rank: tuple[int | str, ...] = field(default=(), compare=False, repr=False)  #: of models, the least is drawn first

    @property
    def chosen(self) -> Cell | None:
        """The best layer, or the only one; None where there is nothing to choose by."""
        if len(self.cells) == 1:
            return self.cells[0]
        return next((cell for cell in self.cells if cell.layer == self.best), None)


@dataclass(frozen=True)
class Mark:
    """A number that others published, beside a cell of the same role, task, metric and layer."""

    family: str  #: whose cell
    layer: int
    value: float
    source: str
    from_memory: bool = False  #: not read again since: no bar that a result must pass


@dataclass(frozen=True)
class Level:
    """A number of a model as a whole, beside its layers': a line across the chart in the model's colour."""

    family: str
    name: str  #: what it is, not whose: the colour says that
    estimate: Estimate
    study: str = ""


@dataclass(frozen=True)
class View:
    """One metric of one task (or the average of a category), over models and layers."""

    task: str
    title: str
    category: str
    metric: str
    modality: str
    curves: tuple[Curve, ...]
    baselines: tuple[tuple[str, float], ...] = ()  #: what needs no model, one value for all cells
    marks: tuple[Mark, ...] = ()
    levels: tuple[Level, ...] = ()
    caption: str = ""
    note: str = ""  #: what the results' studies say of themselves: what they are not to be taken for
    mixed: str = ""  #: in which settings its models were not measured alike: no difference between them is theirs
    reference: tuple[Curve, ...] = ()  #: of the model that the others are compared with: itself beside itself

    @property
    def families(self) -> frozenset[str]:
        return frozenset(curve.family for curve in (*self.curves, *self.reference))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({cell.layer for curve in self.curves for cell in curve.cells}))

    @property
    def floors(self) -> frozenset[str]:
        """Names of what needs no model where layers have their own."""
        return frozenset(name for curve in self.curves for cell in curve.cells for name, _ in cell.baselines)


def models_of(views: Iterable[View]) -> list[Curve]:
    """A curve of each model of several ``views``, in the order in which one view has them: an untrained twin behind its
    model, whichever of the two is the first to have a result of some task."""
    found = {(curve.study, curve.family): curve for view in views for curve in view.curves}
    return sorted(found.values(), key=lambda curve: curve.rank)


def floor_of(view: View, cell: Cell | None = None) -> tuple[str, float] | None:
    """The best of what needs no model, at ``cell`` where layers have their own."""
    known = [*view.baselines, *(cell.baselines if cell else ())]
    judged = [named for named in known if not named[0].endswith(CEILING)]  # a study's name may stand before it
    return max(judged, key=lambda named: better(view.metric) * named[1], default=None)


def is_near(best: Cell | None, cell: Cell, metric: str) -> bool:
    """Is ``cell`` the best, or do the two cells' own intervals not tell it from the best?

    As of two independent estimates, se² = se₁² + se₂²: rather too often, as what is measured on the same items errs
    alike.
    """
    if best is None or cell == best:
        return best is not None
    errors = standard_error(best.estimate), standard_error(cell.estimate)
    if errors[0] is None or errors[1] is None:
        return False
    return better(metric) * (best.estimate.value - cell.estimate.value) <= Z * math.hypot(errors[0], errors[1])


def best_layer(cells: Sequence[Cell], metric: str, dev: Mapping[int, float] | None = None) -> int | None:
    """The best of several layers; the first of equals. None where there is nothing to choose, or by."""
    sign = better(metric)
    if len(cells) < 2 or not sign:
        return None
    scores = {cell.layer: cell.estimate.value for cell in cells}
    if dev and all(math.isfinite(dev.get(layer, math.nan)) for layer in scores):
        scores = {layer: dev[layer] for layer in scores}
    return max(scores, key=lambda layer: (sign * scores[layer], -layer))
