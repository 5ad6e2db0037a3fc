"""Exported models whose answers are known without training, and images on which they are right or wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ratchet.data import FolderDataModule
from ratchet.data.seen import SeenImages
from ratchet.evaluation.probe import REFERENCE_FILE
from ratchet.evaluation.served import ModelCard

SIZE = 32
BEST = 0.52
"""The threshold that tells discs from background best."""


class Brightness(nn.Module):
    """Finds what is brighter than a threshold; `work` makes it slow and `ballast` large, without another answer."""

    def __init__(self, threshold: float, work: int = 0, ballast: int = 1) -> None:
        super().__init__()
        self.threshold, self.work = threshold, work
        self.register_buffer("ballast", torch.zeros(ballast))

    def forward(self, images: Tensor) -> Tensor:
        spent = images
        for _ in range(self.work):
            spent = spent.sin()
        return 20 * (images.mean(1, keepdim=True) - self.threshold) + 0 * spent.sum()


class Hanging(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        turns = 0
        while turns > -1:
            turns = (turns + 1) % 7
        return images


class NotANumber(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True) / 0 * 0


class FiveChannels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, images[:, :2]], 1)


def export(
    directory: Path,
    module: nn.Module,
    *,
    seen: SeenImages | None = None,
    reference: nn.Module | None = None,
    older: bool = False,
) -> Path:
    """Write a model's directory; `reference` is the trained model, if that is another. `older` leaves out what is new."""
    directory.mkdir(parents=True)
    card = ModelCard(input_height=SIZE, input_width=SIZE, mean=(0, 0, 0), std=(1, 1, 1), classes=("background", "disc"))
    (directory / "model.json").write_text(card.model_dump_json())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(module), str(directory / "model.pt"))
    if not older:
        given = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        answer = (reference or Brightness(BEST))(given)
        np.savez(directory / REFERENCE_FILE, input=given.numpy(), output=answer.detach().numpy())
        (seen or SeenImages(train=frozenset(), val=frozenset())).write(directory)
    return directory


def discs(root: Path, numbers: Iterable[int], *, prefix: str = "disc") -> None:
    """Add images of a bright disc on dark ground, so noisy that the threshold matters; a number is always one image."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        random = np.random.default_rng(number)
        y, x = np.mgrid[:SIZE, :SIZE]
        mask = ((y - random.uniform(10, 22)) ** 2 + (x - random.uniform(10, 22)) ** 2 < random.uniform(5, 9) ** 2) + 0
        image = np.clip(255 * (0.35 + 0.3 * mask[..., None] + random.normal(0, 0.12, (SIZE, SIZE, 3))), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{prefix}{number:03}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{prefix}{number:03}.png")


def data_module(root: Path) -> FolderDataModule:
    """The images below `root`: those that `test.txt` names are the gate set."""
    return FolderDataModule(
        data_path=root,
        idx_to_class={1: "disc"},
        input_height=SIZE,
        input_width=SIZE,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
