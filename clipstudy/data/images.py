"""Labelled images: a Hub or local table that holds them (CIFAR-100's layout), or a folder of class folders; where a
table has them, the masks of what is to be seen in them too.

What has no dev split gets one: ``development`` of train, the same share of every class. The test split is never cut.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipstudy.data import files, fingerprint, formats, table, within
from clipstudy.data.labelled import Labelled, checked, stratified, tell_repeated
from clipstudy.errors import DataError, did_you_mean, said
from clipstudy.spec import DatasetSpec
from clipstudy.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

#: What is taken for an image in a folder, by ending.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
#: What of that its bytes may be, as the library calls it. It knows more, and hands some of them to other programs (EPS
#: to Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@dataclass(frozen=True)
class Picture:
    """One image, decoded when it is opened."""

    content: Any  #: its file's bytes, or a path to it
    where: str  #: file and row, for messages
    split: str  #: ``train``, ``dev`` or ``test``
    mask: Any = None  #: the bytes of an image of the same size: a number a pixel, 0 the background; None: none is known
    digest: bytes | None = None  #: of its bytes, where these were read already

    def read(self) -> bytes:
        """The encoded image."""
        return self.content.read_bytes() if isinstance(self.content, Path) else bytes(self.content)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as its header says; nothing is decoded.

        Raises:
            DataError: it is no image, or of so many pixels that it may be meant to fill the memory.
        """
        with _readable(self.where):
            return _opened(self.read()).size

    def open(self) -> Image:
        """The decoded image, of at most 8 bits a channel.

        Raises:
            DataError: it is none, broken, of so many pixels that it may be meant to fill the memory, or of 32 bits a
                channel.
        """
        return _decoded(self.read(), self.where)


@dataclass(frozen=True)
class Foreground:
    """Where a picture's objects are, as a picture itself: white on black, so that it can go the same way to a model."""

    picture: Picture  #: has a mask
    numbers: Collection[int] = ()  #: of its mask, that count; none: all but 0

    def open(self) -> Image:
        """White where the objects are.

        Raises:
            DataError: the mask is no image, is broken, has not one number a pixel, or another size than its picture.
        """
        import numpy as np
        import PIL.Image

        mask = _decoded(bytes(self.picture.mask), f"{self.picture.where}, mask", numbers=True)
        if len(mask.getbands()) > 1:
            raise DataError(
                f"{self.picture.where}, mask: found {mask.mode} of {len(mask.getbands())} channels, expected one "
                "number a pixel (0: background). Fix the mask."
            )
        if mask.size != self.picture.size:
            found, want = (f"{width} × {height}" for width, height in (mask.size, self.picture.size))
            raise DataError(f"{self.picture.where}, mask: {found} pixels, but its picture has {want}. Fix the mask.")
        numbers = np.asarray(mask)
        inside = np.isin(numbers, list(self.numbers)) if self.numbers else numbers != 0
        return PIL.Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def _decoded(content: bytes, where: str, numbers: bool = False) -> Image:
    """The image, in 8 bits a channel; with ``numbers`` as it is: a mask's numbers are names, not shades."""
    with _readable(where):
        image = _opened(content)
        image.load()
        return image if numbers else _eight_bits(image)


def _opened(content: bytes) -> Image:
    """The image as its header describes it, decoded when it is first looked at. Raises whatever its format does."""
    import PIL.Image

    image: Image = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
    # Asked here, since the library only warns, and a filter of warnings is not one thread's own.
    most = PIL.Image.MAX_IMAGE_PIXELS
    if most and image.width * image.height > most:
        raise ValueError(f"{image.width} × {image.height} pixels, more than the {most} that are safe to decode")
    return image


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raises DataError where what is done within cannot be done with the bytes at ``where``."""
    import PIL

    try:
        yield
    except PIL.UnidentifiedImageError:  # its message is where in memory the bytes lay
        raise DataError(
            f"{where}: no image that can be read (none of {', '.join(FORMATS)}). Fix or remove it."
        ) from None
    except Exception as error:  # each format has its own ways to be broken
        raise DataError(f"{where}: no image that can be read ({said(error)}). Fix or remove it.") from None


def _eight_bits(image: Image) -> Image:
    """A grey image of 12 or 16 bits in 8, which its library would cut at 255: nearly all of it white."""
    import numpy as np
    import PIL.Image

    # A PPM's are stretched to 16 bits when they are read, whatever the file says is white.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ValueError("it has 32 bits a channel or signs, of which nothing says what is white: save it with 8 or 16")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    white = 4095 if tags.get(BITS_PER_SAMPLE) == (12,) else 65535
    shades = np.asarray(image, dtype=np.float32) / (white / 255)
    if tags.get(PHOTOMETRIC) == 0:
        shades = 255 - shades
    return PIL.Image.fromarray((shades + 0.5).astype(np.uint8))


#: Tags of a TIFF: how many bits a number has, and whether 0 is black (1) or white (0).
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262

Row = tuple[Picture, str]


def read(spec: DatasetSpec) -> Labelled[Picture]:
    """Read the three splits: ``columns`` names a table's ``image`` and ``label``, and its ``mask`` where it has one.

    Raises:
        DataError: no such split, a row with no image or label, more images that cannot be read than ``unreadable``
            allows, and all that ``table.load`` and ``labelled.checked`` refuse. Where it allows none, what an image
            holds is looked at when it is opened.
    """
    train, *prints, source = _split(spec, "train")
    train, broken = _whole(spec, "train", train)
    try:
        dev, print_, _ = _split(spec, "dev")
        prints.append(print_)
    except table.NoSplit as missing:
        if "dev" in spec.splits:
            raise
        _tell_other_dev(spec, missing.there)
        train, dev = _cut(spec, train)
    else:
        dev, more = _whole(spec, "dev", dev)
        broken += more
    test, print_, _ = _split(spec, "test")
    test, more = _whole(spec, "test", test)
    found = checked(spec, train, dev, test, fingerprint(p.encode() for p in (*prints, print_)), source)
    held = {name: rows.items for name, rows in zip(("train", "dev", "test"), found.parts, strict=True)}
    contents = {name: list(map(_content, pictures)) for name, pictures in held.items()}
    tell_repeated(spec, source, "images", contents, lambda name, number: held[name][number].where)
    return replace(found, unreadable=broken + more)


def _content(picture: Picture) -> bytes:
    """What is the same where two images are the same."""
    return picture.digest or _digest(picture.read())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _whole(spec: DatasetSpec, split: str, rows: list[Row]) -> tuple[list[Row], int]:
    """The rows whose image can be read, and how many others there are; not looked for where none is allowed."""
    if not spec.unreadable:
        return rows, 0

    def broken(row: Row) -> str | None:
        try:
            row[0].open()
        except DataError as error:
            return error.message
        return None

    with ThreadPoolExecutor() as pool:
        messages = list(pool.map(broken, rows))
    bad = [message for message in messages if message]
    if len(bad) > spec.unreadable * len(rows):
        raise DataError(
            f"[datasets.{spec.name}] {len(bad)} of {len(rows)} images of {split} cannot be read, more than the share "
            f"that unreadable = {spec.unreadable:g} allows. The first: {bad[0]}"
        )
    if bad:
        log.warning("[datasets.%s] %d of %d images of %s left out: %s", spec.name, len(bad), len(rows), split, bad[0])
    return [row for row, message in zip(rows, messages, strict=True) if not message], len(bad)


def doubt(spec: DatasetSpec) -> str | None:
    """What :func:`read` would refuse of a local table of train, as far as the names of its columns show."""
    if not table.holds(spec, spec.splits.get("train", "train")):
        return None
    return table.doubt(spec, ("train",), (*_of_images(spec), "label"))


def _of_images(spec: DatasetSpec) -> tuple[str, ...]:
    """Columns of encoded images. Masks are read where the table says that there are some: a column that happens to be
    called so may hold others."""
    return ("image", "mask") if "mask" in spec.columns else ("image",)


def _tell_other_dev(spec: DatasetSpec, tables: Sequence[str]) -> None:
    """Warn of a folder, or of one of the ``tables``, that looks like a dev split of another name, while dev is cut from
    train."""
    folder = None if spec.hub else files(spec)
    other = next((name for name in table.DEV if folder and (folder / name).is_dir()), table.likely_dev(tables))
    if other:
        log.warning(
            '[datasets.%s] no split "dev": %g of train becomes it, and "%s" of %s is not read. If that is meant: '
            'splits = { dev = "%s" }',
            spec.name, spec.development, other, folder or spec.hub, other,
        )  # fmt: skip


def _cut(spec: DatasetSpec, train: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Train as ``limit`` leaves it, and the part of it that is dev."""
    kept = stratified([label for _, label in train], spec.limit, spec.limit_seed)
    rows = [train[i] for i in kept]
    taken = set(stratified([label for _, label in rows], round(spec.development * len(rows)), spec.development_seed))
    # A label of few images is left to train whole: what is in dev alone nothing could learn.
    left = {label for i, (_, label) in enumerate(rows) if i not in taken}
    taken = {i for i in taken if rows[i][1] in left}
    rest = [row for i, row in enumerate(rows) if i not in taken]
    dev = [(replace(picture, split="dev"), label) for i, (picture, label) in enumerate(rows) if i in taken]
    if not dev:
        raise DataError(
            f"[datasets.{spec.name}] development = {spec.development} of {len(rows)} rows of train leaves no dev "
            "split. Raise it, raise `limit`, or name a dev split in `splits`."
        )
    return rest, dev


def _split(spec: DatasetSpec, split: str) -> tuple[list[Row], str, str]:
    """The rows of one split, what they were read from as a fingerprint, and where that is."""
    name = spec.splits.get(split, split)
    folder = None if spec.hub else within(spec, files(spec), name)
    if folder is not None and _classes(folder):
        return _from_folder(spec, split, folder)
    # Where train is a table, the others are: what else lies there (assets/, docs/figures/) is nobody's class.
    train = spec.splits.get("train", "train")
    if folder is not None and not _classes(within(spec, files(spec), train)) and table.holds(spec, train):
        folder = None
    if folder is not None and not folder.exists() and any(map(_classes, _classes(files(spec)))):
        there = [home.name for home in _classes(files(spec))]
        raise table.NoSplit(
            f'[datasets.{spec.name}] splits: {files(spec)} has no folder "{folder.name}". '
            f"{did_you_mean(folder.name, there)} A split is a folder with a folder of images for each class: "
            f'{folder.name}/CLASS/. Where it has another name, write that: splits = {{ {split} = "…" }}'
        )
    if folder is not None and any(map(_images, [folder, *_classes(files(spec))])):
        raise DataError(
            f"[datasets.{spec.name}] {folder}: expected a folder of images for each class in it "
            f"({folder.name}/CLASS/), which gives them their labels. Put the images there, or into a table."
        )
    of_images = _of_images(spec)
    loaded = table.load(spec, split, (*of_images, "label"))
    rows = []
    for row, label in enumerate(loaded.columns["label"]):
        where = loaded.where(row)
        images = {column: loaded.columns[column][row] for column in of_images}
        for column, held in images.items():
            if not formats.is_encoded(held):
                raise DataError(
                    f'[datasets.{spec.name}.columns] {column}: {where} holds "{str(held)[:40]}", expected an encoded '
                    "image. Name the column that holds images."
                )
        if not table.is_label(label):
            raise DataError(
                f"[datasets.{spec.name}] {where}: label is {table.shown(label)}, expected one label. Fix the row."
            )
        rows.append((Picture(images["image"], where, split, images.get("mask")), str(label)))
    return rows, loaded.fingerprint, loaded.source


def _classes(folder: Path) -> list[Path]:
    """The folders in ``folder``, without those that a system or a program hides there."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    """The image files right in ``folder``, hidden ones left out."""
    there = folder.iterdir() if folder.is_dir() else ()
    return [p for p in there if p.suffix.lower() in ENDINGS and not p.name.startswith(".") and p.is_file()]


def _name(path: Path, folder: Path, spec: DatasetSpec) -> bytes:
    try:
        return path.relative_to(folder).as_posix().encode()
    except UnicodeEncodeError:  # no database and no JSON takes what Python makes of it
        raise DataError(f"[datasets.{spec.name}] {path}: its name is not UTF-8. Rename it.") from None


def _from_folder(spec: DatasetSpec, split: str, folder: Path) -> tuple[list[Row], str, str]:
    rows: list[tuple[Path, str]] = []
    others: list[Path] = []
    for home in _classes(folder):
        below = {path: path.relative_to(home).parts for path in home.rglob("*")}
        there = sorted(p for p, parts in below.items() if not any(s.startswith(".") for s in parts) and p.is_file())
        images = [path for path in there if path.suffix.lower() in ENDINGS]
        others += [path for path in there if path.suffix.lower() not in ENDINGS]
        if not images:
            raise DataError(
                f"[datasets.{spec.name}] {home}: no image in this class folder (no name ends with one of "
                f"{', '.join(ENDINGS)}). Remove it, or fill it."
            )
        rows += [(path, home.name) for path in images]
    if others:
        log.warning(
            "[datasets.%s] %s: %s in class folders taken for no image, by the ending: %s",
            spec.name, folder, counted(len(others), "file"), others[0].relative_to(folder),
        )  # fmt: skip
    found: list[Row] = []

    def contents() -> Iterator[bytes]:
        for path, label in rows:
            content = path.read_bytes()
            found.append((Picture(path, str(path), split, digest=_digest(content)), label))
            yield _name(path, folder, spec)
            yield content

    print_ = fingerprint(contents())
    return found, print_, str(files(spec))
