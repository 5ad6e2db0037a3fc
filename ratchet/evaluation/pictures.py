"""Pictures of predictions: classes coloured over an image, and two models side by side where they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ratchet.data.reading import read_image, read_mask
from ratchet.evaluation.counts import ImageCounts, metric_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ratchet.data import Sample
    from ratchet.evaluation.served import ServedModel

# Colours that the colour-blind can tell apart (Okabe and Ito 2008), the first class first.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OPACITY = 0.55


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour the classes of a mask (H, W) over an image (H, W, 3)."""
    shown = image.astype(np.float32)
    for index in np.unique(mask[mask > 0]):
        where = mask == index
        colour = np.array(PALETTE[(int(index) - 1) % len(PALETTE)], dtype=np.float32)
        shown[where] = (1 - _OPACITY) * shown[where] + _OPACITY * colour
    return shown.astype(np.uint8)


def image_scores(counts: ImageCounts) -> NDArray[np.float64]:
    """IoU of each image (N,), averaged over the classes it has or was given; 1 where there was nothing and none was found."""
    per_class = metric_of("iou", *(array.astype(np.float64) for array in (counts.tp, counts.fp, counts.fn)))
    present = ~np.isnan(per_class)
    total = np.where(present, per_class, 0.0).sum(axis=1)
    return np.where(present.any(axis=1), total / np.maximum(present.sum(axis=1), 1), 1.0)


def comparison(
    models: Mapping[str, ServedModel],
    samples: Sequence[Sample],
    mask_values: Mapping[int, int],
    counts: Mapping[str, ImageCounts],
    *,
    rows: int = 3,
) -> Figure:
    """Show image, truth and each model's prediction, for the `rows` most worsened and the `rows` most improved images.

    Without a champion: the challenger's `rows` worst and `rows` best. Only the images that are shown are predicted.
    """
    scores = {role: image_scores(table) for role, table in counts.items()}
    change = scores["challenger"] - scores.get("champion", np.zeros(len(samples)))
    order = np.argsort(change, kind="stable")
    chosen = order if len(order) <= 2 * rows else np.concatenate([order[:rows], order[-rows:]])
    roles = [role for role in ("champion", "challenger") if role in models]
    figure = Figure(figsize=(2.4 * (2 + len(roles)), 2.3 * len(chosen)), layout="constrained")
    for axes, index in zip(figure.subplots(len(chosen), 2 + len(roles), squeeze=False), chosen, strict=True):
        sample = samples[int(index)]
        image = read_image(sample.image)
        panels = {sample.name: image, "truth": overlay(image, read_mask(sample.mask, mask_values))}
        for role in roles:
            title = f"{role}, IoU {scores[role][index]:.2f}"
            panels[title] = overlay(image, models[role].predict(image).cpu().numpy())
        for axis, (title, picture) in zip(axes, panels.items(), strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    what = (
        "Most worsened to most improved by the challenger"
        if "champion" in models
        else "Worst to best of the first model"
    )
    figure.suptitle(f"{what} ({len(samples)} gate images)", fontsize=11)
    return figure
