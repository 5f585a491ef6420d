"""Does a contrastive model know an image's class by its name? Accuracy with no probe, from the whole model.

Radford et al. 2021 (ICML), section 3.1: an image gets the class whose name, put into a sentence, is nearest in the
space that both towers share. Each class stands for the mean over its sentences (section 3.1.4). What probes of the
layers make of the same images is to be seen beside this.

Profiles
    ``default``    five plain sentences a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipstudy.errors import ModelError
from clipstudy.outcome import Artifact, Estimate, Outcome
from clipstudy.spec import DatasetSpec, LayerChoice, Modality
from clipstudy.tasks.parts import files, items
from clipstudy.tasks.parts.items import Images
from clipstudy.tasks.task import LABELLED, BadOption, Bench, Frozen, Needs, at_least

if TYPE_CHECKING:
    import torch

    from clipstudy.backbones.backbone import ImageBackbone

METHOD = 1
NEEDS = Needs.FROZEN
MODALITIES: Mapping[Modality, tuple[str, ...]] = {"image": ("default",)}
LAYERS: LayerChoice = "whole"
METRICS = LABELLED
METRIC = "accuracy"
SEEDS = (0,)  #: nothing here is drawn
READERS = ("images",)
PROFILES: Mapping[str, Mapping[str, Any]] = {"default": {}}

#: Where there are more classes than this, it is also counted how often an image's own is among so many nearest ones.
NEAREST = 5


@dataclass(frozen=True)
class Options:
    """Keys of ``[tasks.NAME.options]``."""

    profile: Literal["default"] = "default"
    #: Sentences about a class, its name in place of ``{}``.
    templates: tuple[str, ...] = (
        "a photo of a {}.",
        "a blurry photo of a {}.",
        "a small, low-resolution photo of a {}.",
        "a close-up photo of a {}.",
        "a photo of the {}.",
    )
    draws: int = 1000  #: bootstrap draws of the interval

    def __post_init__(self) -> None:
        bad = [template for template in self.templates if template.count("{}") != 1]
        if bad or not self.templates:
            raise BadOption("templates", f"found {bad or 'none'}, expected sentences with one {{}} for a class's name")
        at_least(self, draws=1)


def views(options: Options) -> tuple[str, ...]:
    """None: images are compared in the space that both towers share."""
    return ()


def metrics(options: Options) -> tuple[str, ...]:
    return "accuracy", "macro_f1"


def read(dataset: DatasetSpec, options: Options) -> Images:
    """Read the three splits: nothing is learnt from train, but its labels say which classes there are. Raises DataError
    as the reader does."""
    return items.read_images(dataset)


def prompts(label: str, templates: Sequence[str]) -> list[str]:
    """The sentences about a class. Data sets write its name as an identifier: ``aquarium_fish``."""
    name = label.replace("_", " ")
    return [template.replace("{}", name) for template in templates]


def measure(
    given: Frozen, data: Images, layers: Sequence[int], seeds: Sequence[int], options: Options, bench: Bench
) -> Iterator[Outcome]:
    """Give each test image the class whose name is nearest to it by the cosine (Radford et al. 2021, §3.1).

    Args:
        given: a model whose two towers share a space.
        layers: the one that stands for the whole model.

    Yields:
        Accuracy with its interval over images, macro-F1, accuracy among the five nearest; each image's class as a file.

    Raises:
        ModelError: the model has no text tower, or gives numbers that are not finite.
    """
    import numpy as np

    from clipstudy.features.pictures import batches
    from clipstudy.metrics import bootstrap_mean, macro_f1, majority

    classes, test = data.labelled.classes, data.labelled.test
    ranked = []
    names = _names(given.backbone, classes, options.templates)
    for rows, pixels in batches(given.backbone.preprocess, test.items, given.spec.batch_size):
        cosines = given.backbone.embed(pixels) @ names.T
        if not cosines.isfinite().all():
            raise ModelError(
                f"[models.{given.spec.name}] its towers give numbers that are not finite. Check its weights, or write "
                'dtype = "float32".'
            )
        ranked.append(cosines.argsort(dim=1, descending=True)[:, :NEAREST].cpu().numpy())
        bench.progress("zero-shot", int(rows[-1]) + 1, len(test))

    nearest = np.concatenate(ranked)
    number = data.labelled.class_number
    truth = np.array([number[label] for label in test.labels])
    predictions = nearest[:, 0]
    measured = {
        "accuracy": Estimate(*bootstrap_mean((predictions == truth)[None, None], draws=options.draws, rng=0)[0]),
        "macro_f1": Estimate(macro_f1(truth, predictions)),
        "one_class": Estimate(float((predictions == predictions[0]).all())),
        "baseline/majority": Estimate(majority([number[label] for label in data.labelled.train.labels], truth)),
        "baseline/chance": Estimate(1 / len(classes)),
        "items/test": Estimate(len(test)),
        "items/dropped": Estimate(data.labelled.dropped),
        "items/unreadable": Estimate(data.labelled.unreadable),
        "classes": Estimate(len(classes)),
    }
    if len(classes) > NEAREST:
        measured[f"top{NEAREST}_accuracy"] = Estimate(float((nearest == truth[:, None]).any(axis=1).mean()))
    table = Artifact("predictions.parquet", _predictions(classes, test.labels, predictions))
    yield Outcome(layer=layers[0], metrics=measured, artifacts=(table,))


def _names(backbone: ImageBackbone, classes: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """What each class's name is in the shared space: ``[C, E]``, of unit length."""
    from torch.nn.functional import normalize

    texts = [text for label in classes for text in prompts(label, templates)]
    return normalize(backbone.captions(texts).unflatten(0, (len(classes), len(templates))).mean(dim=1), dim=1)


def _predictions(classes: Sequence[str], labels: Sequence[str], predictions: Any) -> bytes:
    """A row a test image: its label and the class whose name was nearest."""
    import pyarrow as pa

    nearest = pa.DictionaryArray.from_arrays(pa.array(predictions, pa.int32()), pa.array(classes))
    return files.parquet({"label": pa.array(labels).dictionary_encode(), "zero_shot": nearest})
