"""An exported model as it is served: TorchScript beside a card that says how to feed it. Nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ratchet.data.preparation import prepare_image
from ratchet.errors import ModelFilesError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TORCHSCRIPT_FILE = "model.pt"
CARD_FILE = "model.json"


class ModelCard(BaseModel):
    """What a program must know to serve the model: `model.json`, and `metadata.ratchet` in MLflow's `MLmodel`.

    The image is resized to `input_height` and `input_width` as `resize` says. The input is float32 (B, 3, `input_height`,
    `input_width`): RGB in [0, 1], minus `mean`, over `std`. The output is logits (B, C, height, width); C is 1 (the
    foreground is where the logit is above 0) or the number of `classes` (the largest logit wins). `classes` are in index
    order, the background first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a card by a newer Ratchet may say more

    input_height: int
    input_width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    resize: str = "Pillow BILINEAR (antialiased), aspect ratio not kept"

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of output channels C that these classes allow."""
        return (1, 2) if len(self.classes) == 2 else (len(self.classes),)  # noqa: PLR2004 - background and foreground

    @classmethod
    def read(cls, directory: Path) -> ModelCard:
        """Read the card of an exported directory. Raises `ModelFilesError`."""
        try:
            return cls.model_validate_json((directory / CARD_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelFilesError(
                f"{directory} does not hold a model that Ratchet can serve ({CARD_FILE}): {error}"
            ) from error

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Turn B RGB images (H, W, 3), each of its own size, into the network's input (B, 3, height, width)."""
        size = {"height": self.input_height, "width": self.input_width}
        return torch.stack([prepare_image(image, **size, mean=self.mean, std=self.std) for image in images])


class ServedModel:
    """A model loaded from an exported directory."""

    def __init__(self, directory: Path) -> None:
        """Load it. Raises `ModelFilesError`."""
        self.card = ModelCard.read(directory)
        self._name = directory
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # TorchScript is on its way out; model.json's form follows
                self._network = torch.jit.load(str(directory / TORCHSCRIPT_FILE), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelFilesError(
                f"{directory} does not hold a model that Ratchet can serve ({TORCHSCRIPT_FILE}): {error}"
            ) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """The foreground classes in index order."""
        return self.card.classes[1:]

    @torch.inference_mode()
    def logits(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return logits (B, C, height, width) of B RGB images (H, W, 3), each of its own size.

        Raises `ModelFilesError` for a model that fails, or whose answer has another form than its card says.
        """
        batch = self.card.prepare(images)
        try:
            logits: Tensor = self._network(batch)
        except RuntimeError as error:
            raise ModelFilesError(f"the model in {self._name} does not answer: {error}") from error
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if len(shape) != batch.ndim or shape[0] != len(batch) or shape[1] not in self.card.channels:
            raise ModelFilesError(
                f"the model in {self._name} answers {len(batch)} images with {shape}, but its card names "
                f"{len(self.card.classes)} classes: (B, C, height, width) with C in {self.card.channels} is needed."
            )
        return logits

    def decide(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Turn one image's logits (C, h, w) into class indices of `size` (H, W), uint8: resized first, then decided."""
        # One channel at a time, against the best before it: all of them at a photograph's size take gigabytes. Torch also
        # resizes three together, as of a picture, in more than twice the time on a CPU.
        best = self._resized(logits[0], size)
        if len(logits) == 1:
            return (best > 0).to(torch.uint8)
        classes, finite = torch.zeros_like(best, dtype=torch.uint8), bool(logits.isfinite().all())
        for index in range(1, len(logits)):
            plane = self._resized(logits[index], size)
            wins = plane > best  # of equal ones the first wins, and NaN over all
            if not finite:
                wins |= plane.isnan() & ~best.isnan()
            classes.masked_fill_(wins, index)
            torch.where(wins, plane, best, out=best)
        return classes

    def _resized(self, plane: Tensor, size: Sequence[int]) -> Tensor:
        planes = torch.nn.functional.interpolate(
            plane[None, None], size=tuple(size), mode="bilinear", align_corners=False
        )
        return planes[0, 0]

    def predict(self, image: NDArray[np.uint8]) -> Tensor:
        """Return class indices (H, W), uint8, at the image's own size."""
        return self.decide(self.logits([image])[0], image.shape[:2])


class SilentModel(ServedModel):
    """Stands in for a model that gave no usable answer when it was tried: it finds nothing on any image."""

    def __init__(self, card: ModelCard) -> None:
        """Take the place of the model with this card."""
        self.card = card
        self._name = Path("nowhere")
        # Of equal logits, the background's wins.
        self._network = lambda batch: batch.new_zeros(len(batch), card.channels[0], 1, 1)
