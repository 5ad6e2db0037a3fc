"""Counts on the contours only, for boundary IoU: a large object's inside no longer hides a ragged edge."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

WIDTH = 0.02
"""Width of the band as a share of the image's diagonal, as in the paper."""


def boundary_counts(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], *, classes: int, width: float = WIDTH
) -> NDArray[np.int64]:
    """Tp, fp and fn of each foreground class on the inner bands of both contours: (3, C) from class indices (H, W).

    Boundary IoU is the IoU of `G_d and G` with `P_d and P`, where G_d and P_d are the pixels within d of the contours
    of truth G and prediction P (Cheng, Girshick, Dollár, Berg & Kirillov, CVPR 2021, eq. 2); d is `width`
    times the diagonal, at least one pixel. So the two bands are counted as two masks are for IoU.
    """
    distance = max(1, round(width * math.hypot(*truth.shape)))
    counts = np.zeros((3, classes), dtype=np.int64)
    for k in range(1, classes + 1):
        true, said = (inner_band(mask == k, distance) for mask in (truth, predicted))
        counts[:, k - 1] = (true & said).sum(), (~true & said).sum(), (true & ~said).sum()
    return counts


def inner_band(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels of a mask (H, W) within `distance` of its outside, in chessboard distance; the frame is outside."""
    if not mask.any():
        return mask
    kept = mask
    for axis in (0, 1):
        kept = _surrounded(kept, distance, axis)
    return mask & ~kept


def _surrounded(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    """Which pixels have only mask within `distance` to both sides along `axis`; running sums: any width costs alike."""
    lines = np.moveaxis(mask, axis, 0)
    length, window = len(lines), 2 * distance + 1
    kept = np.zeros_like(lines)
    if length >= window:
        sums = np.zeros((length + 1, *lines.shape[1:]), dtype=np.int32)
        np.cumsum(lines, axis=0, dtype=np.int32, out=sums[1:])
        kept[distance : length - distance] = sums[window:] - sums[:-window] == window
    return np.moveaxis(kept, 0, axis)
