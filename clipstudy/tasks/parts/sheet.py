"""A contact sheet: many small images on one, each with its caption."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import Any

#: An image is drawn at least this wide, by whole multiples of its pixels, so that its caption has room.
NARROWEST = 96
GAP, SIZE = 6, 11
PAPER, INK = (255, 255, 255), (40, 40, 40)


def contact_sheet(images: Any, captions: Sequence[str], title: str, columns: int = 8) -> bytes:
    """A PNG of ``images``, row by row. Title and captions are texts of the file, too: the dashboard shows them.

    Args:
        images: ``[N, H, W, 3]``, in [0, 1].
        captions: one an image, below it; what is too long for its width is cut.
        title: a line above all.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont
    from PIL.PngImagePlugin import PngInfo

    font = ImageFont.load_default(SIZE)
    height, width = images[0].shape[:2]
    times = max(1, math.ceil(NARROWEST / width))
    columns = min(columns, len(images))
    across, down = width * times + GAP, height * times + GAP + SIZE + 4
    rows = math.ceil(len(images) / columns)
    top = 2 * GAP + SIZE
    extent = max(columns * across, math.ceil(font.getlength(title)) + GAP) + GAP
    sheet = Image.new("RGB", (extent, top + rows * down + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill=INK, font=font)
    for at, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP + at % columns * across, top + at // columns * down
        tile = Image.fromarray(np.rint(np.asarray(image) * 255).astype(np.uint8))
        sheet.paste(tile.resize((width * times, height * times), Image.Resampling.NEAREST), (x, y))
        while font.getlength(caption) > width * times:
            caption = caption[:-1]
        draw.text((x, y + height * times + 1), caption, fill=INK, font=font)
    held = io.BytesIO()
    said = PngInfo()
    said.add_itxt("Title", title)
    said.add_itxt("Description", _counted(captions))
    sheet.save(held, format="png", pnginfo=said)
    return held.getvalue()


def _counted(captions: Sequence[str]) -> str:
    """Captions in the order of the images; one that comes several times running, once with their number."""
    runs = [(text, len(list(same))) for text, same in itertools.groupby(captions)]
    return " · ".join(text + f" ({number} images)" * (number > 1) for text, number in runs if text)
