"""How an image becomes the input of a network: one definition for training, evaluation, the gate and serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ratchet.data.resizing import resize_image
from ratchet.errors import ConfigError


def prepare_image(
    image: NDArray[np.uint8], *, height: int, width: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Resize and normalise one RGB image, uint8 of shape (H, W, 3), to float32 of shape (3, height, width)."""
    return normalise(torch.from_numpy(resize_image(image, height=height, width=width)), mean=mean, std=std)


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
