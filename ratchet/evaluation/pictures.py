"""Pictures of predictions: the colour of each class, its name as it can be drawn, classes coloured over an image, and
the score of each image."""

from __future__ import annotations

import colorsys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ratchet.evaluation.counts import ImageCounts, metric_of, summands

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Colours that the colour-blind can tell apart (Okabe and Ito 2008), the first class first.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OPACITY = 0.55
_GOLDEN = 0.618034  # of the colour circle: each further hue falls into the widest gap that is left


def palette(classes: int) -> tuple[tuple[int, int, int], ...]:
    """A colour (RGB, 0 to 255) for each foreground class; beyond the seven, lighter and darker hues round the circle."""
    further = (colorsys.hls_to_rgb((k * _GOLDEN) % 1, (0.35, 0.72)[k % 2], 0.75) for k in range(classes - len(PALETTE)))
    return (*PALETTE, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in further))[:classes]


def font_file() -> Path:
    """The font that text is drawn in: matplotlib's own, so that it is the same on every machine."""
    import matplotlib  # noqa: PLC0415 - those who only colour do not wait for it

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - as above

    return frozenset(FT2Font(str(font_file())).get_charmap())


def drawable(text: str, most: int | None = 40) -> str:
    """Text as the font can draw it, in at most so many characters: one that it lacks is written as its code (`\\u5212`)."""
    known = _characters()
    told = "".join(letter if ord(letter) in known else f"\\u{ord(letter):04x}" for letter in text)
    return told if most is None or len(told) <= most else f"{told[: most - 1]}…"


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour the classes of a mask (H, W) over an image (H, W, 3)."""
    shown = image.astype(np.float32)
    colours = palette(int(mask.max(initial=0)))
    for index in np.unique(mask[mask > 0]):
        where = mask == index
        shown[where] = (1 - _OPACITY) * shown[where] + _OPACITY * np.array(colours[index - 1], dtype=np.float32)
    return shown.astype(np.uint8)


def image_scores(counts: ImageCounts, metric: str = "iou") -> NDArray[np.float64]:
    """The metric of each image (N,), averaged over the classes it has or was given; 1 where none was there nor found."""
    per_class = metric_of(metric, *summands(metric, counts))
    present = ~np.isnan(per_class)
    total = np.where(present, per_class, 0.0).sum(axis=1)
    return np.where(present.any(axis=1), total / np.maximum(present.sum(axis=1), 1), 1.0)
