"""A trial's pictures: test predictions beside the truth, IoU per class, and the curves of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ratchet.evaluation.counts import ImageCounts, class_scores, shown_score
from ratchet.evaluation.pictures import drawable, font_file, image_scores, overlay, palette
from ratchet.training.examples import EXAMPLES_FILE, Example, picture_uri, write_examples

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from numpy.typing import NDArray

    from ratchet.data.dataset import SegmentationDataset
    from ratchet.evaluation.packed import PackedMasks

_ROWS = 8
_EXAMPLES = 4
_TILE, _GAP, _HEAD, _LINE = 240, 8, 44, 20  # pixels
_LETTER = 0.085  # inches
_FEW = 40  # points of a curve that are still drawn as dots


def write_report(
    directory: Path,
    *,
    dataset: SegmentationDataset,
    counts: ImageCounts,
    masks: PackedMasks,
    mean: Sequence[float],
    std: Sequence[float],
    history: Sequence[Metric],
) -> None:
    """Write `predictions.png`, `examples.json`, `per_class_iou.png` and `curves.png`.

    `masks` are what was predicted of the `dataset`, and `counts` are theirs; both are in its order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scores = image_scores(counts)
    worst_to_best = _evenly(np.argsort(scores, kind="stable").tolist(), _ROWS)
    same_everywhere = _evenly(sorted(range(len(scores)), key=lambda index: dataset.samples[index].name), _EXAMPLES)

    shown = sorted({*worst_to_best, *same_everywhere})
    seen = {index: _look(dataset, index, masks[index], float(scores[index]), mean, std) for index in shown}
    pictures = _predictions([seen[index] for index in worst_to_best], len(scores), counts.classes)
    pictures.save(directory / "predictions.png", compress_level=3)
    write_examples(directory / EXAMPLES_FILE, [_example(seen[index], counts.classes) for index in same_everywhere])
    _save(_per_class(counts), directory / "per_class_iou.png")
    _save(_curves(history), directory / "curves.png")


@dataclass(frozen=True)
class _Seen:
    """A test image, the truth and the prediction in colours over it, each (H, W, 3), and its IoU."""

    name: str
    iou: float
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


def _look(
    dataset: SegmentationDataset,
    index: int,
    predicted: NDArray[np.uint8],
    iou: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> _Seen:
    item = dataset[index]
    tensor = item["image"] * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    image = (tensor.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return _Seen(
        name=dataset.samples[index].name,
        iou=iou,
        image=image,
        truth=overlay(image, item["mask"].numpy()),
        prediction=overlay(image, predicted),
    )


def _predictions(seen: Sequence[_Seen], total: int, classes: Sequence[str]) -> Image.Image:
    """Rows of image, truth, prediction, below the colours of the classes.

    Pasted rather than plotted: as 24 matplotlib axes, this picture took longer than scoring the test images.
    """
    rows = [
        [(one.name, one.image), ("truth", one.truth), (f"prediction, IoU {one.iou:.2f}", one.prediction)]
        for one in seen
    ]
    return _sheet(f"Test images from the worst to the best of {total}", classes, rows)


def _example(seen: _Seen, classes: tuple[str, ...]) -> Example:
    image, truth, prediction = (picture_uri(pixels) for pixels in (seen.image, seen.truth, seen.prediction))
    return Example(name=seen.name, iou=seen.iou, image=image, truth=truth, prediction=prediction, classes=classes)


def _evenly(ordered: Sequence[int], count: int) -> list[int]:
    """The first, the last, and what is evenly between them."""
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [int(ordered[place]) for place in np.unique(places)]


def _sheet(title: str, classes: Sequence[str], rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]]) -> Image.Image:
    """Paste rows of titled pictures of one size below each other, and above them a legend of the classes."""
    large, small = (ImageFont.truetype(font_file(), size) for size in (17, 13))
    height, width = rows[0][0][1].shape[:2]
    size = (_TILE, round(_TILE * height / width))
    names = [drawable(name) for name in classes]
    places = _in_lines([34 + small.getlength(name) for name in names], 3 * (_TILE + _GAP))
    head = _HEAD + _LINE * (1 + max(line for _, line in places))
    sheet = Image.new("RGB", (3 * (_TILE + _GAP) + _GAP, head + len(rows) * (size[1] + 28)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((sheet.width / 2, 24), title, fill="black", font=large, anchor="mm")
    for name, colour, (x, line) in zip(names, palette(len(names)), places, strict=True):
        left, top = _GAP + round(x), _HEAD + line * _LINE
        draw.rectangle((left, top, left + 12, top + 12), fill=colour)
        draw.text((left + 18, top + 6), name, fill="black", font=small, anchor="lm")
    for number, row in enumerate(rows):
        top = head + number * (size[1] + 28)
        for column, (words, picture) in enumerate(row):
            left = _GAP + column * (_TILE + _GAP)
            caption = drawable(words, most=None)
            while draw.textlength(caption, font=small) > _TILE:
                caption = f"…{caption[2:]}"  # the end of a path tells more than its beginning
            draw.text((left + _TILE / 2, top + 11), caption, fill="black", font=small, anchor="mm")
            sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), (left, top + 21))
    return sheet


def _in_lines(widths: Sequence[float], room: float) -> list[tuple[float, int]]:
    """Where things of some widths go that follow each other in lines of a length: how far from the left, in which line."""
    places: list[tuple[float, int]] = []
    left, line = 0.0, 0
    for width in widths:
        if left and left + width > room:
            left, line = 0.0, line + 1
        places.append((left, line))
        left += width
    return places


def _per_class(counts: ImageCounts) -> Figure:
    values = class_scores("iou", counts)
    names = [drawable(name) for name in values]
    width = 5.4 + _LETTER * max(map(len, names))
    figure = Figure(figsize=(width, 1.2 + 0.45 * len(values)), layout="constrained")
    axis = figure.subplots()
    colours = [tuple(c / 255 for c in colour) for colour in palette(len(values))]
    bars = axis.barh(range(len(values)), np.nan_to_num(list(values.values())), color=colours)
    axis.set_yticks(range(len(values)), names, parse_math=False)  # a class may have any name
    axis.bar_label(bars, labels=[f"{value:.3f}" for value in values.values()], padding=3)
    axis.set(
        xlim=(0, 1.08), xlabel="IoU on the test images", title=f"IoU per class (mean {shown_score('iou', counts):.3f})"
    )
    axis.invert_yaxis()
    _plain(axis)
    return figure


def _curves(history: Sequence[Metric]) -> Figure:
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in history:
        series[row.key].append((row.step, row.value))
    figure = Figure(figsize=(10, 3.4))
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.15, top=0.91, wspace=0.32)
    panels: Mapping[str, Mapping[str, str]] = {
        "loss": {"loss_epoch": "training", "val_loss_epoch": "validation"},
        "validation": {"val_iou": "IoU", "val_dice": "Dice"},
        "learning rate": {"lr": "lr"},
    }
    for axis, (title, lines) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for key, label in lines.items():
            if series[key]:
                axis.plot(
                    *zip(*series[key], strict=True),
                    label=label,
                    marker="o" if len(series[key]) < _FEW else None,
                    markersize=3,
                )
        axis.set(title=title, xlabel="step")
        if len(lines) > 1:
            axis.legend(frameon=False)
        _plain(axis)
    return figure


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
