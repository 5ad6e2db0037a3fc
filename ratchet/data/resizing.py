"""How an image gets the size of a network's input: Pillow and numpy, so that the cache can be filled without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ratchet.data.reading import read_image, read_mask


def read_pixels(
    image: Path, mask: Path, mask_values: Mapping[int, int], *, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read and resize a pair of files: image, uint8 (3, height, width), and class indices, uint8 (height, width).

    Raises:
        UnreadableImageError: a file does not decode.
        MaskValueError: the mask holds values that `mask_values` does not name.
    """
    return (
        resize_image(read_image(image), height=height, width=width),
        resize_mask(read_mask(mask, mask_values), height=height, width=width),
    )


def resize_image(image: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.uint8]:
    """Resize by antialiased bilinear interpolation, uint8 (H, W, 3) to uint8 (3, height, width).

    The aspect ratio is not kept: every pixel of the image is seen, and a prediction maps back by its own resize.
    """
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def resize_mask(mask: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.uint8]:
    """Resize class indices to the nearest pixel, uint8 (H, W) to uint8 (height, width), aligned with `resize_image`."""
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
