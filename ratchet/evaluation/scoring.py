"""Scores models image by image in one streamed pass: only counts are kept, never predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ratchet.data.content import PairContent, read_pair
from ratchet.data.reading import read_image, read_mask
from ratchet.errors import UnreadableImageError
from ratchet.evaluation.confusion import confusion, predict_classes
from ratchet.evaluation.counts import ImageCounts
from ratchet.evaluation.table import CountsTable, Truth

if TYPE_CHECKING:
    from ratchet.data import Sample
    from ratchet.evaluation.packed import PackedMasks
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
    keep: PackedMasks | None = None,
) -> tuple[ImageCounts, float]:
    """Return the counts of every image at the network's input size, and the loss averaged over images.

    `batches` hold `image` (B, 3, H, W), `mask` (B, H, W) and `index` (B,), the position in `names`. `keep` is given the
    predicted masks.
    """
    counts = np.zeros((len(names), len(classes), 3), dtype=np.int64)
    total = 0.0
    for batch in batches:
        image, mask = batch["image"].to(device, non_blocking=True), batch["mask"].to(device, non_blocking=True)
        logits = module(image)
        total += float(loss(logits, mask)) * len(image)
        predicted = predict_classes(logits)
        counts[batch["index"].numpy()] = confusion(predicted, mask, len(classes)).cpu().numpy()
        if keep is not None:
            keep.add(batch["index"], predicted)
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    return ImageCounts(tuple(names), tuple(classes), tp, fp, fn), total / max(len(names), 1)


def score_models(
    models: Mapping[str, ServedModel],
    samples: Sequence[Sample],
    mask_values: Mapping[int, int],
    *,
    metric: str = "iou",
    contents: Mapping[str, PairContent] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, ImageCounts]:
    """Score exported models on the same images at the masks' own size; each image is decoded once.

    `mask_values` maps what is in the mask files to class indices. Contours are counted only where the `metric` is
    boundary_iou, all else always. `on_image` is told how many are done, of how many. Memory holds one batch of images.
    What is read must be of the `contents` by name, if they are given. Raises the errors of reading (`DataError`).
    """
    contours = metric == "boundary_iou"
    tables = {key: CountsTable(len(samples), model.classes, contours=contours) for key, model in models.items()}
    most = max((len(model.classes) for model in models.values()), default=0)

    def count(start: int, batch: Sequence[Sample]) -> None:
        images = [read_image(sample.image) for sample in batch]
        answers = {key: model.logits(images) for key, model in models.items()}
        for row, sample in enumerate(batch, start=start):
            # One image's bands at a time: they are as many booleans a pixel as there are classes.
            truth = Truth.of(read_mask(sample.mask, mask_values), classes=most, contours=contours)
            for key, model in models.items():
                logits = answers[key][row - start]
                predicted = model.decide(logits, truth.mask.shape).cpu().numpy()
                tables[key].count(row, truth, predicted, int((~logits.isfinite()).sum()))
            if contents is not None and read_pair((sample.image, sample.mask)) != contents[sample.name]:
                raise UnreadableImageError(f"{sample.image} or its mask changed since it was listed: start again")

    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        count(start, batch)  # what it held is gone before the next ones are there
        if on_image is not None:
            on_image(start + len(batch), len(samples))
    return {key: table.counts([sample.name for sample in samples]) for key, table in tables.items()}
