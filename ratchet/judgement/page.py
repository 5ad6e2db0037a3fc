"""The report of a judgement with its gate images: those that the challenger worsened most, and those that it improved."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ratchet.data.reading import read_image, read_mask
from ratchet.evaluation.counts import unmeasured
from ratchet.evaluation.pictures import image_scores, overlay, palette
from ratchet.gate.report import Example, html_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ratchet.data import Sample
    from ratchet.evaluation.counts import ImageCounts
    from ratchet.evaluation.served import ServedModel
    from ratchet.gate import Verdict

SHOWN = 10  # images on either side
_LARGEST = 2_000_000  # bytes of all pictures: in base64, and with the rest of the page, under 3 MB
_QUALITIES = ((360, 82), (288, 78), (224, 70), (160, 60), (96, 45))  # longest side in pixels, and JPEG's quality
_SMALLEST = 180  # pixels; smaller images are enlarged, each pixel a square

Strip = dict[str, Image.Image]
"""One gate image's pictures by their caption."""


def write_page(
    path: Path,
    verdict: Verdict,
    models: Mapping[str, ServedModel],
    samples: Sequence[Sample],
    mask_values: Mapping[int, int],
    counts: Mapping[str, ImageCounts],
) -> None:
    """Write the report as one HTML file under 3 MB. Only the images that are shown are predicted again.

    Without a champion, it shows the worst and the best images of the first model.
    """
    metric = verdict.policy.metric
    metric = "iou" if any(unmeasured(metric, table) for table in counts.values()) else metric
    scores = {role: image_scores(table, metric) for role, table in counts.items() if role in ("challenger", "champion")}
    worsened, improved = extremes(scores["challenger"], scores.get("champion"))
    strips = [_strip(samples[i], models, mask_values) for i in (*worsened, *improved)]
    examples = [
        Example(
            name=samples[i].name,
            challenger_score=float(scores["challenger"][i]),
            champion_score=float(scores["champion"][i]) if "champion" in scores else None,
            pictures=pictures,
        )
        for i, pictures in zip((*worsened, *improved), _encoded(strips), strict=True)
    ]
    page = html_report(
        verdict,
        worsened=examples[: len(worsened)],
        improved=examples[len(worsened) :],
        colours=dict(zip(counts["challenger"].classes, palette(len(counts["challenger"].classes)), strict=True)),
    )
    path.write_text(page, encoding="utf-8")


def extremes(challenger: NDArray[np.float64], champion: NDArray[np.float64] | None) -> tuple[list[int], list[int]]:
    """The images that got worse and better, the most first, at most `SHOWN` each; of a first model its worst and best."""
    if champion is None:
        order = np.argsort(challenger, kind="stable").tolist()
        half = min(SHOWN, (len(order) + 1) // 2)
        return order[:half], order[half:][::-1][:SHOWN]
    change = challenger - champion
    order = np.argsort(change, kind="stable").tolist()
    return [i for i in order if change[i] < 0][:SHOWN], [i for i in reversed(order) if change[i] > 0][:SHOWN]


def _strip(sample: Sample, models: Mapping[str, ServedModel], mask_values: Mapping[int, int]) -> Strip:
    """Each picture is reduced at once to the largest size that is shown: of photographs, 80 whole ones take gigabytes."""
    image = read_image(sample.image)
    masks = {"truth": read_mask(sample.mask, mask_values)}
    for role in ("champion", "challenger"):
        if role in models:
            masks[role] = models[role].predict(image).cpu().numpy()
    return {"image": _reduced(image)} | {caption: _reduced(overlay(image, mask)) for caption, mask in masks.items()}


def _reduced(pixels: NDArray[np.uint8]) -> Image.Image:
    picture, (largest, _) = Image.fromarray(pixels), _QUALITIES[0]
    picture.thumbnail((largest, largest))
    return picture


def _encoded(strips: Sequence[Strip]) -> Iterator[tuple[tuple[str, bytes], ...]]:
    """The strips as JPEGs, all of them smaller if together they would be too much for one page."""
    for side, quality in _QUALITIES:
        coded = [
            tuple((caption, _jpeg(picture, side, quality)) for caption, picture in strip.items()) for strip in strips
        ]
        if sum(len(data) for strip in coded for _, data in strip) <= _LARGEST:
            break
    yield from coded


def _jpeg(picture: Image.Image, side: int, quality: int) -> bytes:
    image = picture.copy()
    image.thumbnail((side, side))
    times = min(_SMALLEST, side) // max(image.size)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
