"""What is seen of colours as light, and how it changes from place to place. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

#: Shares of red, green and blue in what is seen as brightness (ITU-R BT.601).
SHARES = (0.299, 0.587, 0.114)


def brightness(pictures: Floats) -> Floats:
    """``[…, h, w, 3]`` → ``[…, h, w]``."""
    grey: Floats = np.asarray(pictures, dtype=np.float64) @ np.array(SHARES)
    return grey


def gradient(grey: Floats) -> tuple[Floats, Floats]:
    """Down and right by Sobel's two kernels, of ``[…, h, w]``; 8 times the change a pixel. What lies beyond a border is
    as what lies on it."""
    from scipy.ndimage import correlate1d

    # Not by scipy's own sobel(), which would smooth along the batch too.
    down, right = (
        correlate1d(correlate1d(grey, [-1, 0, 1], axis, mode="nearest"), [1, 2, 1], other, mode="nearest")
        for axis, other in ((-2, -1), (-1, -2))
    )
    return down, right
