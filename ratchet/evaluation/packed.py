"""Predicted masks kept small: which of thousands are worth a picture is known only when all have been scored."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FASTEST = 1  # of zlib's levels: 0.6 ms and 4 kB for a pet at 512 x 512, where level 6 takes 3.5 ms and 2.5 kB


class PackedMasks:
    """Class indices of images by their position, compressed."""

    def __init__(self) -> None:
        """Hold none."""
        self._packed: dict[int, bytes] = {}
        self._shape: tuple[int, ...] = (0, 0)

    def add(self, positions: Tensor, masks: Tensor) -> None:
        """Keep masks, uint8 (B, H, W) on any device, each at its position (B,); all have the same size."""
        pixels = masks.cpu().numpy()
        self._shape = pixels.shape[1:]
        for position, mask in zip(positions.tolist(), pixels, strict=True):
            self._packed[position] = zlib.compress(mask.tobytes(), _FASTEST)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """The mask (H, W) at a position. Raises `KeyError`."""
        return np.frombuffer(zlib.decompress(self._packed[position]), dtype=np.uint8).reshape(self._shape)
