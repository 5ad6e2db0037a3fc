"""How an image becomes the input of a network: one definition for training, evaluation, the gate and serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from ratchet.data.reading import read_image, read_mask
from ratchet.errors import ConfigError


def read_pixels(
    image: Path, mask: Path, mask_values: Mapping[int, int], *, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read and resize a pair of files: image, uint8 (3, height, width), and class indices, uint8 (height, width).

    Raises:
        UnreadableImageError: a file does not decode.
        MaskValueError: the mask holds values that `mask_values` does not name.
    """
    return (
        resize_image(read_image(image), height=height, width=width),
        resize_mask(read_mask(mask, mask_values), height=height, width=width),
    )


def prepare_image(
    image: NDArray[np.uint8], *, height: int, width: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Resize and normalise one RGB image, uint8 of shape (H, W, 3), to float32 of shape (3, height, width)."""
    return normalise(resize_image(image, height=height, width=width), mean=mean, std=std)


def resize_image(image: NDArray[np.uint8], *, height: int, width: int) -> torch.Tensor:
    """Resize by antialiased bilinear interpolation, uint8 (H, W, 3) to uint8 (3, height, width).

    The aspect ratio is not kept: every pixel of the image is seen, and a prediction maps back by its own resize.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if pixels.shape[1:] == (height, width):
        return pixels.contiguous()
    resized = interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].contiguous()


def resize_mask(mask: NDArray[np.uint8], *, height: int, width: int) -> torch.Tensor:
    """Resize class indices to the nearest pixel, uint8 (H, W) to uint8 (height, width), aligned with `resize_image`."""
    pixels = torch.from_numpy(np.array(mask))
    if pixels.shape == (height, width):
        return pixels
    return interpolate(pixels[None, None], size=(height, width), mode="nearest-exact")[0, 0]


def normalise(image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale uint8 (3, H, W) to [0, 1], subtract `mean` and divide by `std` per channel: float32 (3, H, W).

    Raises:
        ConfigError: the image is not uint8, so that its range is unknown.
    """
    if image.dtype != torch.uint8:
        raise ConfigError(
            f"the image to normalise is {image.dtype}, not uint8: leave scaling and normalising out of "
            "transforms.train_transform, they follow it"
        )
    scale = torch.tensor(std, dtype=torch.float32)[:, None, None]
    return (image.to(torch.float32) / 255 - torch.tensor(mean, dtype=torch.float32)[:, None, None]) / scale
