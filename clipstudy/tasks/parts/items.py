"""The items of a labelled data set, sentences or images, as several kinds measure them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from clipstudy.spec import DatasetSpec

if TYPE_CHECKING:
    from clipstudy.data.images import Picture
    from clipstudy.data.labelled import Labelled
    from clipstudy.features.extract import Text

#: What a text is, or an image.
T = TypeVar("T")


@dataclass(frozen=True)
class _Items(Generic[T]):
    labelled: Labelled[T]

    @property
    def fingerprint(self) -> str:
        return self.labelled.fingerprint

    @property
    def source(self) -> str:
        return self.labelled.source


@dataclass(frozen=True)
class Sentences(_Items[tuple[str, ...]]):
    """A labelled data set of sentences, and its texts in the order train, dev, test."""

    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Images(_Items["Picture"]):
    """A labelled data set of images, and its images in the order train, dev, test."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """What is to be encoded."""
        return tuple(picture for part in self.labelled.parts for picture in part.items)


def read_sentences(dataset: DatasetSpec) -> Sentences:
    """Read the three splits of sentences. Raises DataError as the reader does."""
    from clipstudy.data import senteval, table
    from clipstudy.features.extract import Text

    labelled = (senteval if dataset.reader == "senteval" else table).read(dataset)
    return Sentences(labelled, tuple(Text(words) for part in labelled.parts for words in part.items))


def read_images(dataset: DatasetSpec) -> Images:
    """Read the three splits of images. Raises DataError as the reader does."""
    from clipstudy.data import images

    return Images(images.read(dataset))
