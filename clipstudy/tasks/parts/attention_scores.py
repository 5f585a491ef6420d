"""One pass over pictures, in which a model's attention is looked at block by block and scored picture by picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from clipstudy.tasks.parts.overlays import Maps, Shown
from clipstudy.tasks.task import Bench, Frozen

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clipstudy.features.attention import Attended
    from clipstudy.tasks.attend import Images, Options


@dataclass
class LayerScores:
    """What the attention of one layer came to, by picture."""

    scores: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: defaultdict(list))
    masks: list[NDArray[Any]] = field(default_factory=list)  #: of the mean map, ``[B, P]``
    maps: list[Maps] = field(default_factory=list)  #: of the pictures to be shown

    def score(self, name: str) -> NDArray[Any]:
        """``[N]``, or ``[N, H]`` where every head has its own."""
        import numpy as np

        return np.concatenate(self.scores[name])


@dataclass(frozen=True)
class AttentionScores:
    """What one pass over the chosen pictures gave."""

    by_layer: Mapping[int, LayerScores]
    shown: Sequence[Shown]  #: the pictures of the sheet of overlays
    foreground: NDArray[Any] | None  #: share of each patch that is foreground, ``[N, P]``; None: no masks are wanted


def score_attention(
    given: Frozen, data: Images, layers: Sequence[int], options: Options, bench: Bench
) -> AttentionScores:
    """Every picture once through the model: the scores of each layer, and what is to be drawn."""
    import numpy as np

    from clipstudy.backbones.pixels import restored
    from clipstudy.features.attention import attended
    from clipstudy.features.pictures import spread
    from clipstudy.probes.attention import by_patch, sobel

    backbone = given.backbone
    by_layer = {layer: LayerScores() for layer in layers}
    shown: list[Shown] = []
    on_sheet = {*spread(options.shown, len(data.chosen)).tolist()}
    shares: list[NDArray[Any]] = []
    for rows, pixels, objects in _batches(given, data, options):
        batch = attended(backbone, pixels, layers, options.rollout)
        tokens = backbone.tokens
        assert tokens is not None  # or it could not have been attended to
        pictures = restored(backbone, pixels).numpy()
        edges = by_patch(sobel(pictures), tokens.grid)
        share = None if objects is None else by_patch(objects, tokens.grid)
        if share is not None:
            shares.append(share)
        drawn = [i for i, row in enumerate(rows) if row in on_sheet]
        shown += [Shown(pictures[i].transpose(1, 2, 0), None if objects is None else objects[i]) for i in drawn]
        for layer, attention in batch.items():
            _add(by_layer[layer], attention, edges, share, options)
            rolled = None if attention.rollout is None else attention.rollout.numpy()
            heads = attention.heads.numpy()
            by_layer[layer].maps += [Maps(heads[i], None if rolled is None else rolled[i]) for i in drawn]
        bench.progress("attention", int(rows[-1]) + 1, len(data.chosen))
    return AttentionScores(by_layer, shown, np.concatenate(shares) if shares else None)


def _batches(
    given: Frozen, data: Images, options: Options
) -> Iterator[tuple[NDArray[Any], torch.Tensor, NDArray[Any] | None]]:
    """Row numbers ``[B]``, pixels as the model is given them ``[B, 3, H, W]``, and 1 where one is foreground, else 0,
    ``[B, H, W]`` (None: no masks are wanted)."""
    from clipstudy.backbones.pixels import restored
    from clipstudy.data.images import Foreground
    from clipstudy.features.pictures import batches

    size, prepare = given.spec.batch_size, partial(given.backbone.preprocess, whole=options.crop == "square")
    objects: Iterable[NDArray[Any] | None] = repeat(None)  # without end: the pictures say where to stop
    if options.masks:
        masks = [Foreground(picture, options.foreground) for picture in data.chosen]
        # A mask goes the way of its picture: resized and cropped alike.
        objects = (
            (restored(given.backbone, pixels).mean(dim=1) >= 0.5).float().numpy()
            for _, pixels in batches(prepare, masks, size)
        )
    for (rows, pixels), inside in zip(batches(prepare, data.chosen, size), objects, strict=False):
        yield rows, pixels, inside


def _add(
    found: LayerScores, attention: Attended, edges: NDArray[Any], foreground: NDArray[Any] | None, options: Options
) -> None:
    """Add one batch's numbers. The mean map's have no prefix, the heads' ``heads/``, rollout's ``rollout/``."""
    from clipstudy.probes.attention import correlation, divergence, entropy, jaccard, kept

    def beside(maps: NDArray[Any], of_pictures: NDArray[Any]) -> NDArray[Any]:
        """``[B, P]``, or ``[B, 1, P]`` where every head has a map."""
        return of_pictures[:, None] if maps.ndim == 3 else of_pictures

    heads = attention.heads.numpy()
    by_prefix = {"": heads.mean(axis=1), "heads/": heads}
    if attention.rollout is not None:
        by_prefix["rollout/"] = attention.rollout.numpy()
    scores = {"diversity": divergence(heads), "distance": attention.distance.numpy(), "patch_mass": heads.sum(axis=-1)}
    for prefix, maps in by_prefix.items():
        scores[f"{prefix}entropy"] = entropy(maps)
        scores[f"{prefix}edges"] = correlation(maps, beside(maps, edges))
        if foreground is None:
            continue
        masks = kept(maps, options.mass)
        scores[f"{prefix}jaccard"] = jaccard(masks, beside(maps, foreground))
        scores[f"{prefix}area"] = masks.sum(axis=-1)
        if not prefix:
            found.masks.append(masks)
            scores["pointing"] = foreground[range(len(maps)), maps.argmax(axis=-1)] >= 0.5
    for name, values in scores.items():
        found.scores[name].append(values)
