"""Scores models image by image in one streamed pass: only counts are kept, never predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ratchet.data.reading import read_image, read_mask
from ratchet.evaluation.confusion import confusion, predict_classes
from ratchet.evaluation.counts import ImageCounts

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.evaluation.served import ServedModel

BATCH = 16  # images that the gate decodes and predicts together


@torch.inference_mode()
def score_batches(
    module: Callable[[Tensor], Tensor],
    loss: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    names: Sequence[str],
    classes: Sequence[str],
    device: torch.device,
) -> tuple[ImageCounts, float]:
    """Return the counts of every image at the network's input size, and the loss averaged over images.

    `batches` hold `image` (B, 3, H, W), `mask` (B, H, W) and `index` (B,), the position in `names`.
    """
    counts = np.zeros((len(names), len(classes), 3), dtype=np.int64)
    total = 0.0
    for batch in batches:
        image, mask = batch["image"].to(device, non_blocking=True), batch["mask"].to(device, non_blocking=True)
        logits = module(image)
        total += float(loss(logits, mask)) * len(image)
        counts[batch["index"].numpy()] = confusion(predict_classes(logits), mask, len(classes)).cpu().numpy()
    return image_counts(names, classes, counts), total / max(len(names), 1)


def score_models(
    models: Mapping[str, ServedModel],
    samples: Sequence[Sample],
    mask_values: Mapping[int, int],
    *,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, ImageCounts]:
    """Score exported models on the same images at the masks' own size; each image is decoded once.

    `mask_values` maps what is in the mask files to class indices. `on_image` is told how many are done, of how many.
    Memory holds one batch of images. Raises the errors of reading (`DataError`).
    """
    names = [sample.name for sample in samples]
    counts = {key: np.zeros((len(samples), len(model.classes), 3), dtype=np.int64) for key, model in models.items()}
    totals = {key: np.zeros((len(samples), 3), dtype=np.int64) for key in models}
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        images = [read_image(sample.image) for sample in batch]
        masks = [torch.from_numpy(read_mask(sample.mask, mask_values)) for sample in batch]
        for key, model in models.items():
            for offset, logits in enumerate(model.logits(images)):
                mask, index = masks[offset], start + offset
                predicted = model.decide(logits, mask.shape).cpu()
                counts[key][index] = confusion(predicted[None], mask[None], len(model.classes))[0].numpy()
                totals[key][index] = mask.numel(), int((predicted == mask).sum()), int((~logits.isfinite()).sum())
        if on_image is not None:
            on_image(start + len(batch), len(samples))
    return {key: image_counts(names, models[key].classes, counts[key], *totals[key].T.copy()) for key in models}


def image_counts(
    names: Sequence[str],
    classes: Sequence[str],
    counts: np.ndarray,
    pixels: np.ndarray | None = None,
    correct: np.ndarray | None = None,
    nonfinite: np.ndarray | None = None,
) -> ImageCounts:
    """Name an array of counts (N, C, 3) and, where they were taken, the totals of each image (N,)."""
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    return ImageCounts(tuple(names), tuple(classes), tp, fp, fn, pixels=pixels, correct=correct, nonfinite=nonfinite)
