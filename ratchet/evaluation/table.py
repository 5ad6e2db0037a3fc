"""The counts of one model, filled in image by image: a few whole numbers each, so memory does not follow the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.boundary import count_bands, inner_bands
from ratchet.evaluation.counts import ImageCounts


@dataclass(frozen=True)
class Truth:
    """An image's mask, class indices (H, W), and its classes' bands (C, H, W) where contours are counted."""

    mask: NDArray[np.uint8]
    bands: NDArray[np.bool_] | None

    @classmethod
    def of(cls, mask: NDArray[np.uint8], *, classes: int, contours: bool) -> Truth:
        """Prepare a mask for any number of models; bands are drawn once."""
        return cls(mask, inner_bands(mask, classes=classes) if contours else None)


class CountsTable:
    """Rows for a number of images; each is written once, in any order."""

    def __init__(self, images: int, classes: Sequence[str], *, contours: bool) -> None:
        """Start with zeros."""
        self._classes = tuple(classes)
        self._confusion = np.zeros((images, len(classes), 3), dtype=np.int64)
        self._totals = np.zeros((3, images), dtype=np.int64)
        self._boundary = np.zeros((3, images, len(classes)), dtype=np.int64) if contours else None

    def count(self, row: int, truth: Truth, predicted: NDArray[np.uint8], nonfinite: int) -> None:
        """Compare class indices (H, W) with the truth; `nonfinite` of the model's values were NaN or infinite."""
        for index in range(len(self._classes)):
            said, true = predicted == index + 1, truth.mask == index + 1
            tp = np.count_nonzero(said & true)  # a tenth of the time of torch's sum of booleans
            self._confusion[row, index] = tp, np.count_nonzero(said) - tp, np.count_nonzero(true) - tp
        self._totals[:, row] = predicted.size, np.count_nonzero(predicted == truth.mask), nonfinite
        if self._boundary is not None and truth.bands is not None:
            said = inner_bands(predicted, classes=len(self._classes))
            self._boundary[:, row] = count_bands(truth.bands[: len(said)], said)

    def counts(self, names: Sequence[str]) -> ImageCounts:
        """The table with the images' names."""
        tp, fp, fn = np.moveaxis(self._confusion, -1, 0)
        pixels, correct, nonfinite = self._totals
        return ImageCounts(
            tuple(names), self._classes, tp, fp, fn, pixels, correct, nonfinite=nonfinite, boundary=self._boundary
        )
