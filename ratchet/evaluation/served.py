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
from ratchet.evaluation.confusion import predict_classes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TORCHSCRIPT_FILE = "model.pt"
CARD_FILE = "model.json"


class ModelCard(BaseModel):
    """What a program must know to serve the model: `model.json`.

    The input is float32 (B, 3, `input_height`, `input_width`): RGB in [0, 1], minus `mean`, over `std`. The output is
    logits (B, C, height, width); C is 1 (the foreground is where the logit is above 0) or the number of `classes`
    (the largest logit wins). `classes` are in index order, the background first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a card by a newer Ratchet may say more

    input_height: int
    input_width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]


class ServedModel:
    """A model loaded from an exported directory."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        """Load it. Raises `ModelFilesError`."""
        try:
            self.card = ModelCard.model_validate_json((directory / CARD_FILE).read_bytes())
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # TorchScript is on its way out; model.json's form follows
                self._network = torch.jit.load(str(directory / TORCHSCRIPT_FILE), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError, ValidationError) as error:
            raise ModelFilesError(
                f"{directory} does not hold a model that Ratchet can serve ({CARD_FILE} and {TORCHSCRIPT_FILE}): {error}"
            ) from error
        self._device = torch.device(device)

    @property
    def classes(self) -> tuple[str, ...]:
        """The foreground classes in index order."""
        return self.card.classes[1:]

    @torch.inference_mode()
    def logits(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return logits (B, C, input_height, input_width) of B RGB images (H, W, 3), each of its own size."""
        card = self.card
        size = {"height": card.input_height, "width": card.input_width}
        batch = torch.stack([prepare_image(image, **size, mean=card.mean, std=card.std) for image in images])
        logits: Tensor = self._network(batch.to(self._device))
        return logits

    def decide(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Turn one image's logits (C, h, w) into class indices of `size` (H, W), uint8: resized first, then decided."""
        resized = torch.nn.functional.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)
        return predict_classes(resized)[0]

    def predict(self, image: NDArray[np.uint8]) -> Tensor:
        """Return class indices (H, W), uint8, at the image's own size."""
        return self.decide(self.logits([image])[0], image.shape[:2])
