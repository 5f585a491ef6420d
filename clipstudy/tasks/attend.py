"""What does a vision transformer look at? The class token's attention to the patches, block by block and head by head,
drawn over the images and measured.

Three maps an image: each head's, their mean (what metrics without a prefix are of), and attention rollout (Abnar &
Zuidema 2020, ACL), which follows attention through all blocks from the first. A map becomes a mask of the fewest
patches that hold 60% of the map (Caron et al. 2021, DINO), and the mask is compared with the foreground that the data
set marks. The rest needs no marks: how much heads differ, how widely they spread and how far they reach (Dosovitskiy et
al. 2021, appendix D.7), whether they follow edges.

Profiles
    ``default``    the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import DataError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.parts.attention_scores import AttentionScores, LayerScores, score_attention
from clipstudy.tasks.parts.overlays import overlays
from clipstudy.tasks.task import BadOption, Bench, Frozen, Metric, Needs, at_least
from clipstudy.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipstudy.backbones.backbone import Tokens
    from clipstudy.data.images import Picture

METHOD = 2
NEEDS = Needs.ATTENTION
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"image": ("default",)}
LAYERS: LayerChoice = "blocks"
METRICS = {
    "jaccard": Metric("Jaccard index"),
    "diversity": Metric("divergence of heads (bits)", better=0),
    "entropy": Metric("entropy (bits)", decimals=2, better=0),
    "distance": Metric("attention distance (pixels)", decimals=1, better=0),
    "distance_patches": Metric("attention distance (patches)", decimals=2, better=0),
    "edges": Metric("correlation with edges", better=0),
    "area": Metric("share of the image", better=0),
}
METRIC = "jaccard"
SEEDS = (0, 1, 2, 3, 4)  #: each another draw of the random masks, and of whose masks are swapped
READERS = ("images",)
PROFILES: Mapping[str, Mapping[str, Any]] = {"default": {}}

#: Two halves to choose and to score the best head on.
FEWEST = 2


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default"] = "default"
    split: Literal["train", "dev", "test"] = "test"
    pictures: int = 500  #: of the split, drawn stratified by label
    sample_seed: int = 0  #: which these are
    masks: bool = True  #: compare with the data set's masks; false: it has none
    crop: Literal["square", "own"] = "square"  #: a picture's central square, the same for all models; or a model's own
    foreground: tuple[int, ...] = ()  #: the masks' numbers that are foreground; none: all but 0
    mass: float = 0.6  #: share of a map that its mask holds
    rollout: bool = True
    draws: int = 1000  #: bootstrap draws of the intervals
    shown: int = 6  #: pictures on the sheet of overlays

    def __post_init__(self) -> None:
        at_least(self, pictures=FEWEST, draws=1, shown=0, sample_seed=0)
        if not 0 < self.mass < 1:
            raise BadOption("mass", f"found {self.mass}, expected more than 0 and less than 1")
        if self.foreground and not self.masks:
            raise BadOption("foreground", "found numbers of masks beside masks = false. Remove one of the two")


@dataclass(frozen=True)
class Images(items.Images):
    """The data set, and the pictures of it that are looked at."""

    rows: tuple[int, ...]  #: of the split, those that are chosen
    chosen: tuple[Picture, ...]
    labels: tuple[str, ...]  #: of those that are chosen


def views(options: Options) -> tuple[str, ...]:
    """None: attention is looked at, not states."""
    return ()


def metrics(options: Options) -> tuple[str, ...]:
    # Floors are floors of the Jaccard index, and a figure draws them beside the headline.
    return ("jaccard",) if options.masks else ("diversity", "entropy", "distance", "edges")


def read(dataset: DatasetSpec, options: Options) -> Images:
    """The pictures to look at.

    Raises:
        DataError: too few pictures; no masks where they are wanted; and all that the reader refuses.
    """
    from clipstudy.data import images
    from clipstudy.data.labelled import stratified

    labelled = images.read(dataset)
    rows = getattr(labelled, options.split)
    kept = stratified(rows.labels, options.pictures, options.sample_seed)
    chosen = tuple(rows.items[i] for i in kept)
    if len(chosen) < FEWEST:
        raise DataError(
            f'[datasets.{dataset.name}] split "{options.split}" of {labelled.source} has '
            f"{counted(len(chosen), 'picture')}, expected {FEWEST} or more. Name another split in the task's options."
        )
    if options.masks and any(picture.mask is None for picture in chosen):
        raise DataError(
            f"[datasets.{dataset.name}.columns] mask: missing, so nothing says where the objects of {labelled.source} "
            "are. Name the table's column of masks, or write masks = false in the task's options (and another metric)."
        )
    return Images(labelled, tuple(kept), chosen, tuple(rows.labels[i] for i in kept))


def measure(
    given: Frozen, data: Images, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Look at the attention of ``layers`` in one pass over the chosen pictures, and hold it against their masks (Caron
    et al. 2021; Abnar & Zuidema 2020).

    Args:
        given: a frozen vision transformer.
        seeds: of the random masks, and of whose masks are swapped.

    Yields:
        For each block means over pictures with their intervals: the Jaccard index of the mean map, of heads and of
        rollout, with what chance would reach; diversity, entropy, distance and correlation with edges. Each picture's
        numbers, each head's means and a sheet of overlays as files.

    Raises:
        ModelError: the model has no attention, or none that can be seen.
        DataError: a mask cannot be read, or too few pictures have any foreground where the model looks.
    """
    scores = score_attention(given, data, layers, options, bench)
    foreground = scores.foreground
    if foreground is not None and (foreground.sum(axis=1) > 0).sum() < FEWEST:
        raise DataError(
            f"{data.source}: of {len(foreground)} pictures fewer than {FEWEST} have any foreground where the model "
            f"looks (mask numbers: {', '.join(map(str, options.foreground)) or 'all but 0'}). Fix `foreground` in the "
            "task's options, or the masks."
        )
    for layer in layers:
        yield _outcome(layer, scores, given, data, seeds, options)


def _outcome(
    layer: int, scores: AttentionScores, given: Frozen, data: Images, seeds: Sequence[int], options: Options
) -> Outcome:
    """What one block's attention came to, against masks where there are any."""
    own, foreground = scores.by_layer[layer], scores.foreground
    tokens = given.backbone.tokens
    assert tokens is not None
    patch = given.backbone.size[0] / tokens.grid[0]
    series = _everywhere(own, patch)
    metrics = {name: Estimate(*interval) for name, interval in _intervals(series, options).items()}
    metrics |= {
        "heads": Estimate(own.score("heads/entropy").shape[1]),
        "patches": Estimate(tokens.patches),
        "distance_uniform": Estimate(_uniform_distance(tokens) * patch),
        "items/test": Estimate(len(data.chosen)),
    }
    params = {"query": "class token" if tokens.cls else "mean over patch tokens"}
    if foreground is not None:
        marked = foreground.sum(axis=1) > 0
        against_masks = _against_masks(own, foreground, marked, tokens, seeds, options)
        metrics |= {name: Estimate(*interval) for name, interval in _intervals(against_masks, options).items()}
        metrics["items/unmarked"] = Estimate(int((~marked).sum()))
        params["best_head"] = str(int(own.score("heads/jaccard")[marked].mean(axis=0).argmax()))
        series |= {name: _spread(values, marked) for name, values in against_masks.items()}
    artifacts = [Artifact("scores.parquet", _scores(data, series)), Artifact("heads.csv", _heads(own, foreground))]
    if scores.shown:
        title = f"{given.spec.title}, block {layer}: attention of the {params['query']}"
        artifacts.append(Artifact("overlays.png", overlays(scores.shown, own.maps, tokens, title, options.mass)))
    return Outcome(layer, metrics, params, artifacts=tuple(artifacts))


def _everywhere(own: LayerScores, patch: float) -> dict[str, NDArray[Any]]:
    """What needs no masks, a number a picture; ``patch`` is the side of one in pixels."""
    import numpy as np

    from clipstudy.probes.attention import best_head

    series = {name: own.score(name) for name in ("diversity", "entropy", "edges")}
    series |= {f"heads/{name}": own.score(f"heads/{name}").mean(axis=1) for name in ("entropy", "edges")}
    edges = own.score("heads/edges")
    series["best/edges"] = edges[np.arange(len(edges)), best_head(edges)]
    series["distance"] = own.score("distance").mean(axis=1) * patch
    series["distance_patches"] = own.score("distance").mean(axis=1)
    series["patch_mass"] = own.score("patch_mass").mean(axis=1)
    if "rollout/entropy" in own.scores:
        series |= {name: own.score(name) for name in ("rollout/entropy", "rollout/edges")}
    return series


def _against_masks(
    own: LayerScores,
    foreground: NDArray[Any],
    marked: NDArray[Any],
    tokens: Tokens,
    seeds: Sequence[int],
    options: Options,
) -> dict[str, NDArray[Any]]:
    """What the masks say, a number for each ``marked`` picture, with what no attention would reach."""
    import numpy as np

    from clipstudy.probes.attention import best_head, centre, jaccard, kept, scattered, swapped

    foreground = foreground[marked]
    heads, masks = own.score("heads/jaccard")[marked], np.concatenate(own.masks)[marked]
    every, best = np.arange(len(heads)), best_head(heads)
    series = {
        "jaccard": own.score("jaccard")[marked],
        "heads/jaccard": heads.mean(axis=1),
        "best/jaccard": heads[every, best],
        "oracle/jaccard": heads.max(axis=1),  # the head is chosen for each picture by its mask
        "pointing": own.score("pointing")[marked].astype(float),
        "area": own.score("area")[marked] / tokens.patches,
    }
    if "rollout/jaccard" in own.scores:
        series["rollout/jaccard"] = own.score("rollout/jaccard")[marked]

    def by_chance(areas: NDArray[Any]) -> NDArray[Any]:
        """Random masks of the ``areas`` ``[N, H]``: ``[S, H, N]``."""
        draws = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            draws.append([jaccard(scattered(column, tokens.patches, rng), foreground) for column in areas.T])
        return np.array(draws)

    # Each has masks of its own area beside it: larger ones hit more by chance.
    of_heads = by_chance(own.score("heads/area")[marked])
    if "rollout/area" in own.scores:
        series["rollout/baseline/random_mask"] = by_chance(own.score("rollout/area")[marked][:, None]).mean((0, 1))
    # Every mask against another picture's foreground; the seed draws whose.
    others = [swapped(len(masks), np.random.default_rng(seed)) for seed in seeds]
    return series | {
        "baseline/random_mask": by_chance(own.score("area")[marked][:, None]).mean(axis=(0, 1)),
        "heads/baseline/random_mask": of_heads.mean(axis=(0, 1)),
        "best/baseline/random_mask": of_heads.mean(axis=0)[best, every],
        "baseline/swapped_masks": np.mean([jaccard(masks, foreground[order]) for order in others], axis=0),
        "baseline/centre": jaccard(kept(centre(tokens.grid), options.mass), foreground),
        "oracle/baseline/random_mask": of_heads.max(axis=1).mean(axis=0),
    }


def _uniform_distance(tokens: Tokens) -> float:
    """The distance, in patches, where every patch attends to all patches alike."""
    from clipstudy.features.attention import spacing

    return float(spacing(tokens.grid).mean())


def _intervals(series: Mapping[str, NDArray[Any]], options: Options) -> dict[str, Any]:
    """Means and their intervals over pictures, all from the same draws."""
    import numpy as np

    from clipstudy.metrics import bootstrap_mean

    stacked = np.stack([np.asarray(values, dtype=np.float64) for values in series.values()])[:, None]
    return dict(zip(series, bootstrap_mean(stacked, draws=options.draws, rng=0), strict=True))


def _spread(values: NDArray[Any], marked: NDArray[Any]) -> NDArray[Any]:
    """Numbers of the marked pictures in their places among all; the others have none (NaN)."""
    import numpy as np

    whole = np.full(len(marked), np.nan)
    whole[marked] = values
    return whole


def _scores(data: Images, series: Mapping[str, NDArray[Any]]) -> bytes:
    """A row a picture: its row of the split, its label and every number, null where it has no foreground to be compared
    with."""
    import pyarrow as pa

    columns: dict[str, Any] = {"row": pa.array(data.rows, pa.int64()), "label": pa.array(data.labels)}
    columns |= {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in series.items()}
    return files.parquet(columns)


def _heads(own: LayerScores, foreground: NDArray[Any] | None) -> bytes:
    """A row a head: the mean of each of its numbers over pictures."""
    columns = {
        "entropy": own.score("heads/entropy"),
        "distance_patches": own.score("distance"),
        "patch_mass": own.score("patch_mass"),
        "edges": own.score("heads/edges"),
    }
    if foreground is not None:
        columns["jaccard"] = own.score("heads/jaccard")[foreground.sum(axis=1) > 0]
    means = [values.mean(axis=0) for values in columns.values()]
    rows = ((head, *(f"{value:.6g}" for value in row)) for head, row in enumerate(zip(*means, strict=True)))
    return files.text(("head", *columns), rows)
