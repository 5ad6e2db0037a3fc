"""Counts on the contours only, for boundary IoU: a large object's inside no longer hides a ragged edge.

Boundary IoU is the IoU of `G_d and G` with `P_d and P`, where G_d and P_d are the pixels within d of the contours of truth G
and prediction P (Cheng, Girshick, Dollár, Berg & Kirillov, CVPR 2021, eq. 2); d is 2 % of the diagonal, at least one
pixel. So the two bands are counted as two masks are for IoU.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_WIDTH = 0.02  # of the band, as a share of the image's diagonal, as in the paper


def inner_bands(mask: NDArray[np.integer], *, classes: int) -> NDArray[np.bool_]:
    """The inner band of each foreground class's contour: (C, H, W) from class indices (H, W)."""
    distance = max(1, round(_WIDTH * math.hypot(*mask.shape)))
    return np.stack([inner_band(mask == index, distance) for index in range(1, classes + 1)])


def count_bands(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Tp, fp and fn of each class, (3, C) from bands (C, H, W)."""
    pairs = [
        (np.count_nonzero(t & s), np.count_nonzero(s), np.count_nonzero(t)) for t, s in zip(true, said, strict=True)
    ]
    return np.array([(tp, saids - tp, trues - tp) for tp, saids, trues in pairs], dtype=np.int64).reshape(-1, 3).T


def inner_band(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels of a mask (H, W) within `distance` of its outside, in chessboard distance; the frame is outside."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    band = np.zeros_like(mask)
    if rows.size:
        # Beyond the object's box all is outside: there is nothing to look at.
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        kept = mask[box]
        for axis in (0, 1):
            kept = _surrounded(kept, distance, axis)
        band[box] = mask[box] & ~kept
    return band


def _surrounded(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    """Which pixels have only mask within `distance` to both sides along `axis`.

    Runs of doubled length are joined until they are as long as the window, so twice the width costs one step more.
    """
    lines = np.moveaxis(mask, axis, 0)
    length, window = len(lines), 2 * distance + 1
    kept = np.zeros_like(mask)
    if length >= window:
        runs, covered = lines, 1  # runs[i]: the `covered` pixels from i on are all mask
        while covered < window:
            step = min(covered, window - covered)
            runs = runs[: len(runs) - step] & runs[step:]
            covered += step
        np.moveaxis(kept, axis, 0)[distance : length - distance] = runs
    return kept
