"""What does a model reach on pairs of texts when all of it is trained for them? BoolQ and WiC, by fine-tuning.

One cell a model, not a layer. Each seed starts from the model as it was loaded; after every epoch the development part
is scored, and what was best there is reported, on a split that training never looks at. `docs/design/finetune.md` says
why.

Profiles
    ``superglue``  the pair as one text, a linear layer on the summary token and on the marked words (Wang et al. 2019,
                   SuperGLUE): Adam at 1e-5, batches of 4, ten epochs, passage first, 256 tokens as jiant released it.
    ``pair``       each text by itself, [u; v; |u − v|; u ∘ v], as CLIP was trained to read texts: batches of 32 at
                   2e-5, 128 tokens, at most twelve epochs (Chen et al. 2023); warm-up, linear decay and weight decay
                   as BERT's (Devlin et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import ModelError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, readings
from clipstudy.tasks.parts.pairs import ALONE, PAIR_READERS, Long, OfPairs, pairs_of
from clipstudy.tasks.task import LABELLED, BadOption, Bench, Live, Needs, at_least

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.data.pairs import Pairs
    from clipstudy.probes.tuning import Recipe, Tuned

METHOD = 2
NEEDS = Needs.MODEL
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"text": ("superglue", "pair")}
LAYERS: LayerChoice = "whole"
METRICS = LABELLED
METRIC = "accuracy"
SEEDS = (0, 1, 2)
READERS = PAIR_READERS
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "superglue": {},
    "pair": {
        "sides": "apart",
        "max_tokens": 128,
        "learning_rate": 2e-5,
        "batch_size": 32,
        "epochs": 12,
        "patience": 3,
        "warmup": 0.1,
        "schedule": "linear",
        "weight_decay": 0.01,
    },
}

#: The arm that is shown both texts.
BOTH = "both"


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["superglue", "pair"] = "superglue"
    sides: Literal["joined", "apart"] = "joined"  #: both texts as one, or each by itself
    order: Literal["passage_first", "question_first"] = "passage_first"  #: joined; of a pair about a word: as they are
    long: Long = "truncate"  #: a passage longer than the model reads
    window: int = 40  #: words a window
    max_tokens: int = 256  #: tokens that a model may read at once, where it could read more
    marked: bool = True  #: put the marked words' states beside the summary token's, where pairs have them
    question_only: bool = True  #: train on the question (the first text) alone as well
    learning_rate: float = 1e-5
    batch_size: int = 4
    epochs: int = 10
    patience: int = 10  #: epochs without a better score on the development part that end it
    warmup: float = 0.0  #: share of the steps
    schedule: Literal["constant", "linear"] = "constant"  #: of the learning rate, after the warm-up
    weight_decay: float = 0.0
    dropout: float = 0.1  #: before the head
    draws: int = 1000  #: bootstrap draws of the interval

    def __post_init__(self) -> None:
        at_least(self, window=1, batch_size=1, epochs=1, patience=1, draws=1, max_tokens=8)
        if self.sides == "apart" and self.order != "passage_first":
            raise BadOption("order", f'found "{self.order}", which says nothing with sides = "apart". Remove it')
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise BadOption("learning_rate or weight_decay", "is negative or 0")
        for key in ("warmup", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise BadOption(key, f"found {getattr(self, key)}, expected 0 or more and less than 1")


def views(options: Options) -> tuple[str, ...]:
    """None: the model itself is trained."""
    return ()


def metrics(options: Options) -> tuple[str, ...]:
    return "accuracy", "macro_f1"


def read(dataset: DatasetSpec, options: Options) -> OfPairs:
    """Read train, its development part and the reported split; nothing of them is encoded beforehand. Raises DataError
    as the reader does."""
    return OfPairs(pairs_of(dataset))


def recipe(options: Options) -> Recipe:
    """How each model is trained."""
    from clipstudy.probes.tuning import Recipe

    return Recipe(
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        epochs=options.epochs,
        patience=options.patience,
        warmup=options.warmup,
        linear=options.schedule == "linear",
        weight_decay=options.weight_decay,
        dropout=options.dropout,
    )


def measure(
    live: Live, data: OfPairs, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Train the whole model for each arm and seed, and score it on the reported split (Wang et al. 2019, SuperGLUE).

    Args:
        live: how to load the model: each training gets one of its own.
        layers: the one that stands for the whole model.

    Yields:
        Accuracy with its interval over seeds and pairs, of the pair and of the question alone; each pair's predictions
        and each epoch's loss and scores as files.

    Raises:
        ModelError: the model is not in single precision, or its loss is not finite.
        DeviceError: not even one pair fits in the device's memory.
    """
    from clipstudy.probes.tuning import steps

    if live.spec.dtype != "float32":
        raise ModelError(
            f'[models.{live.spec.name}] dtype = "{live.spec.dtype}": steps as small as fine-tuning\'s are lost in it. '
            'Write dtype = "float32", or a table of its own for this model.'
        )
    most = min(options.max_tokens, live.spec.max_tokens or options.max_tokens)
    live = replace(live, spec=replace(live.spec, max_tokens=most))
    arms = (BOTH, ALONE) if options.question_only else (BOTH,)
    fits: dict[str, list[Fit]] = {arm: [] for arm in arms}
    steps_each = steps(recipe(options), len(data.pairs.train))
    for arm in arms:
        for seed in seeds:
            before = sum(map(len, fits.values())) * steps_each
            tick = bench.part("fine-tune", before, len(arms) * len(seeds) * steps_each)
            fits[arm].append(_trained(live, data.pairs, arm == ALONE, seed, options, tick))
    [layer] = layers
    yield _outcome(layer, data.pairs, fits, seeds, options)


@dataclass(frozen=True)
class Fit:
    """One seed's training, and what the model was shown."""

    tuned: Tuned
    limit: int  #: tokens that the model reads at once
    truncated: float  #: share of pairs of which a text was cut
    by_limit: float  #: share of pairs of which the model's limit cut a text
    words_unseen: float | None  #: share of pairs of which a marked word was past the end; None: none is marked


def _trained(
    live: Live, pairs: Pairs, question_only: bool, seed: int, options: Options, tick: Callable[[int], None]
) -> Fit:
    """One training, of a model that is loaded for it and let go with it."""
    import numpy as np

    from clipstudy.probes.tuning import Parts, tune

    backbone = live.load(live.spec)
    rows = pairs.train, pairs.development, pairs.reported
    train, development, reported = (readings.items(backbone, part, options, question_only) for part in rows)
    number = pairs.class_number
    train_labels, development_labels = (np.array([number[pair.label] for pair in part]) for part in rows[:2])
    parts = Parts(train, train_labels, development, development_labels, reported, len(number))
    everything = [*train, *development, *reported]
    longest = [readings.longest(pair, question_only) for part in rows for pair in part]
    over_budget = [options.long == "budget" and length > options.window for length in longest]
    by_limit = [readings.cut(item) for item in everything]
    unseen = [readings.unseen(item) for item in everything] if everything[0].sides[0][0].marks else None
    return Fit(
        tune(backbone, parts, recipe(options), seed, tick),
        backbone.limit,
        float(np.mean(np.logical_or(over_budget, by_limit))),
        float(np.mean(by_limit)),
        None if unseen is None else float(np.mean(unseen)),
    )


def _outcome(
    layer: int, pairs: Pairs, fits: Mapping[str, Sequence[Fit]], seeds: Sequence[int], options: Options
) -> Outcome:
    import numpy as np

    from clipstudy.metrics import majority

    number = pairs.class_number
    train, truth = (np.array([number[pair.label] for pair in part]) for part in (pairs.train, pairs.reported))
    metrics: dict[str, Estimate] = {
        "baseline/majority": Estimate(majority(train, truth)),
        "items/train": Estimate(len(train)),
        "items/dev": Estimate(len(pairs.development)),
        "items/test": Estimate(len(truth)),
        "items/doubtful": Estimate(pairs.doubtful),
        "classes": Estimate(len(number)),
    }
    params = {"limit": str(fits[BOTH][0].limit)}
    for arm, of_arm in fits.items():
        prefix = "" if arm == BOTH else f"{arm}/"
        metrics |= {f"{prefix}{name}": estimate for name, estimate in _scores(of_arm, truth, options).items()}
        params[f"{prefix}epochs_chosen"] = ", ".join(str(fit.tuned.chosen + 1) for fit in of_arm)
        params[f"{prefix}portion"] = ", ".join(str(fit.tuned.portion) for fit in of_arm)
    return Outcome(
        layer=layer,
        metrics=metrics,
        params=params,
        artifacts=(
            Artifact("predictions.parquet", _predictions(pairs, fits, seeds)),
            Artifact("epochs.csv", _epochs(fits, seeds)),
        ),
    )


def _scores(fits: Sequence[Fit], truth: NDArray[Any], options: Options) -> dict[str, Estimate]:
    """What an arm's models reached, one a seed, on the reported split."""
    import numpy as np

    from clipstudy.metrics import bootstrap_mean, macro_f1

    tuned = [fit.tuned for fit in fits]
    predictions = np.stack([one.predictions for one in tuned])
    means = {
        "macro_f1": np.mean([macro_f1(truth, row) for row in predictions]),
        "dev_accuracy": np.mean([one.best.dev_accuracy for one in tuned]),
        "train_accuracy": np.mean([one.best.train_accuracy for one in tuned]),
        "epochs": np.mean([one.chosen + 1 for one in tuned]),
        "one_class": np.mean([(row == row[0]).all() for row in predictions]),
        "truncated_share": fits[0].truncated,
    }
    if options.long == "budget":
        means["limit_share"] = fits[0].by_limit
    if fits[0].words_unseen is not None:
        means["words_unseen"] = fits[0].words_unseen
    # The same draws for every arm, so that what is compared was drawn alike.
    [accuracy] = bootstrap_mean((predictions == truth)[None], draws=options.draws, rng=0)
    return {"accuracy": Estimate(*accuracy), **{name: Estimate(float(value)) for name, value in means.items()}}


def _predictions(pairs: Pairs, fits: Mapping[str, Sequence[Fit]], seeds: Sequence[int]) -> bytes:
    """A row a reported pair: its id, its label, and the prediction of each arm and seed."""
    import pyarrow as pa

    names = pa.array(pairs.classes)
    columns: dict[str, Any] = {
        "id": pa.array([pair.id for pair in pairs.reported]),
        "label": pa.array([pair.label for pair in pairs.reported]).dictionary_encode(),
    }
    for arm, of_arm in fits.items():
        for seed, fit in zip(seeds, of_arm, strict=True):
            codes = pa.array(fit.tuned.predictions)
            columns[f"{arm}/seed_{seed}"] = pa.DictionaryArray.from_arrays(codes, names)
    return files.parquet(columns)


def _epochs(fits: Mapping[str, Sequence[Fit]], seeds: Sequence[int]) -> bytes:
    """How each training went, epoch by epoch."""
    rows = (
        (arm, seed, at + 1, epoch.loss, epoch.train_accuracy, epoch.dev_accuracy, at == fit.tuned.chosen)
        for arm, of_arm in fits.items()
        for seed, fit in zip(seeds, of_arm, strict=True)
        for at, epoch in enumerate(fit.tuned.epochs)
    )
    return files.text(("arm", "seed", "epoch", "loss", "train_accuracy", "dev_accuracy", "chosen"), rows)
