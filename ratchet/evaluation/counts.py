"""Per-image confusion counts, and the metrics that follow from them: plain numpy, so that a verdict needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidCountsError, MissingMetricError

METRIC_VERSION = 2
"""Goes up whenever the same images and weights would give other counts or another score than before."""

Metric = Literal["iou", "dice", "precision", "recall", "pixel_accuracy", "boundary_iou"]
Average = Literal["macro", "micro"]
METRICS: tuple[str, ...] = get_args(Metric)
TITLES = {"iou": "IoU", "dice": "Dice", "boundary_iou": "boundary IoU", "pixel_accuracy": "pixel accuracy"}
"""How people write a metric whose name they would not write like that."""


class Summands(NamedTuple):
    """What a metric is summed from: true positives, false positives, false negatives, each of shape (..., K)."""

    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    fn: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """How many pixels of each image one model got right and wrong, per foreground class.

    `names` are the N images (unique, in scoring order), `classes` the C foreground classes; `tp`, `fp` and `fn` are
    int64 of shape (N, C). The background is not a class here: it would lift every average without saying anything.

    The rest is optional, and only some metrics need it: `pixels` (N,) the pixels of each image and `correct` (N,) how
    many of them, background included, got their own class; `boundary` (3, N, C) the tp, fp and fn on the two contours'
    inner bands (`ratchet.evaluation.boundary`); `nonfinite` (N,) how many values of the model's output were NaN or
    infinite, where an arg-max would quietly have made a class of them.

    Raises InvalidCountsError for arrays that do not fit the names, or that are not whole numbers ≥ 0.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    pixels: NDArray[np.int64] | None = None
    correct: NDArray[np.int64] | None = None
    boundary: NDArray[np.int64] | None = None
    nonfinite: NDArray[np.int64] | None = None
    metric_version: int = METRIC_VERSION

    def __post_init__(self) -> None:
        """Refuse what cannot be counts."""
        images, classes = len(self.names), len(self.classes)
        if len(set(self.names)) != images or len(set(self.classes)) != classes:
            raise InvalidCountsError("An image or a class is named twice in the counts: give each one its own name.")
        shapes = {"boundary": (3, images, classes), **dict.fromkeys(("tp", "fp", "fn"), (images, classes))}
        for field in fields(self):
            array = getattr(self, field.name)
            if isinstance(array, np.ndarray):
                _check_array(field.name, array, shapes.get(field.name, (images,)))


def select_images(counts: ImageCounts, chosen: NDArray[Any]) -> ImageCounts:
    """The counts of some images: `chosen` are their positions (M,), or says of each whether it is (N,)."""
    positions = np.arange(len(counts.names))[chosen]
    return ImageCounts(
        names=tuple(np.array(counts.names, dtype=object)[positions]),
        classes=counts.classes,
        metric_version=counts.metric_version,
        **{name: np.take(array, positions, axis=_axis(name)) for name, array in _arrays(counts).items()},
    )


def join_images(first: ImageCounts, second: ImageCounts) -> ImageCounts:
    """The counts of the images of both, by the same metric version and of the same classes; of what both were counted."""
    arrays, others = _arrays(first), _arrays(second)
    return ImageCounts(
        names=first.names + second.names,
        classes=first.classes,
        metric_version=first.metric_version,
        **{name: np.concatenate([arrays[name], others[name]], axis=_axis(name)) for name in arrays if name in others},
    )


def _arrays(counts: ImageCounts) -> dict[str, NDArray[np.int64]]:
    values = ((field.name, getattr(counts, field.name)) for field in fields(counts))
    return {name: value for name, value in values if isinstance(value, np.ndarray)}


def _axis(name: str) -> int:
    return 1 if name == "boundary" else 0


def _check_array(name: str, array: NDArray[np.int64], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InvalidCountsError(f"{name} has shape {array.shape}, but the names and classes call for {shape}.")
    if not np.issubdtype(array.dtype, np.integer):
        raise InvalidCountsError(f"{name} is {array.dtype}: counts are whole numbers of pixels, so use int64.")
    if array.size and array.min() < 0:
        where = np.unravel_index(int(np.argmin(array)), array.shape)
        raise InvalidCountsError(f"{name} is negative at index {tuple(map(int, where))}: counts are ≥ 0.")


def unmeasured(metric: str, counts: ImageCounts) -> str | None:
    """Why this metric cannot be had from these counts; None when it can."""
    if metric not in METRICS:
        return f"there is no metric {metric!r}; choose one of {', '.join(METRICS)}"
    if metric == "pixel_accuracy" and (counts.pixels is None or counts.correct is None):
        return "pixel accuracy needs the counts `pixels` and `correct`, which were not taken"
    if metric == "boundary_iou" and counts.boundary is None:
        return "boundary IoU needs the counts `boundary`, which were not taken"
    return None


def summands(metric: str, counts: ImageCounts, *, average: str = "macro") -> Summands:
    """The arrays (N, K) whose sums over images give the metric: K is C for macro, 1 for micro and pixel accuracy.

    Raises MissingMetricError when the counts do not hold what the metric needs.
    """
    if reason := unmeasured(metric, counts):
        raise MissingMetricError(f"The counts cannot give this score: {reason}.")
    if metric == "pixel_accuracy" and counts.pixels is not None and counts.correct is not None:
        correct, pixels = counts.correct[:, None].astype(np.float64), counts.pixels[:, None].astype(np.float64)
        return Summands(correct, pixels - correct, np.zeros_like(correct))
    boundary = counts.boundary if metric == "boundary_iou" else None
    triple = (counts.tp, counts.fp, counts.fn) if boundary is None else boundary
    arrays = (np.asarray(array, dtype=np.float64) for array in triple)
    return Summands(*(array.sum(axis=-1, keepdims=True) if average == "micro" else array for array in arrays))


def denominators(
    metric: str, tp: NDArray[np.float64], fp: NDArray[np.float64], fn: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each metric divides by, of counts of any shape."""
    if metric == "dice":
        return 2 * tp + fp + fn
    if metric == "recall":
        return tp + fn
    if metric in {"precision", "pixel_accuracy"}:
        return tp + fp
    return tp + fp + fn


def metric_of(
    metric: str, tp: NDArray[np.float64], fp: NDArray[np.float64], fn: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One metric from summed counts of any shape (..., K), per class.

    IoU (Jaccard index) is tp / (tp + fp + fn), and boundary IoU the same on the contours' bands (Cheng et al., CVPR
    2021, eq. 2); Dice (F1) is 2 tp / (2 tp + fp + fn); recall is tp / (tp + fn); precision is tp / (tp + fp), and 0
    for a class that the model never predicts though it is there; pixel accuracy is Σᵢ nᵢᵢ / Σᵢ tᵢ (Long et al., CVPR
    2015, section 5). A class that gives nothing to divide by has no value: NaN.
    """
    hits = 2 * tp if metric == "dice" else tp
    total = denominators(metric, tp, fp, fn)
    if metric == "precision":
        total = np.where(total > 0, total, fn)
    values: NDArray[np.float64] = np.divide(hits, total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return values


def mean_over_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis, added up in class order, so that it is the same to the last bit everywhere."""
    total = np.array(values[..., 0])
    for k in range(1, values.shape[-1]):
        total += values[..., k]
    return np.asarray(total / values.shape[-1], dtype=np.float64)


def shown_classes(counts: ImageCounts) -> NDArray[np.bool_]:
    """Of which classes (C,) the images show a pixel."""
    return np.asarray((counts.tp + counts.fn).sum(axis=0) > 0)


def mean_over_shown(values: NDArray[np.float64], tp: NDArray[np.float64], fn: NDArray[np.float64]) -> float:
    """The mean over the classes of which the images show a pixel; NaN where they show none.

    A class that the truth has nowhere would decide by the predictions alone whether there is a value: one false positive
    gives it 0, none gives it none. Left out, it counts the same for every model.
    """
    shown = tp + fn > 0
    return float(mean_over_classes(values[shown])) if shown.any() else float("nan")


def shown_score(metric: str, counts: ImageCounts) -> float:
    """`mean_over_shown` over the data set, to compare trials by; the gate asks for every class (`score`)."""
    sums = Summands(*(array.sum(axis=0) for array in summands(metric, counts)))
    return mean_over_shown(metric_of(metric, *sums), sums.tp, sums.fn)


def class_scores(metric: str, counts: ImageCounts) -> dict[str, float]:
    """The metric of each class over all images together, pixels summed first.

    This is the data-set-level score of PASCAL VOC (Everingham et al., IJCV 2010, section 4.2.3): an image without the
    class adds its false positives and nothing else, so no value has to be invented for it.
    """
    sums = Summands(*(array.sum(axis=0) for array in summands(metric, counts)))
    values = metric_of(metric, *sums).tolist()
    names = counts.classes if len(values) == len(counts.classes) else ("all pixels",)
    return dict(zip(names, values, strict=True))


def score(metric: str, counts: ImageCounts, *, average: str = "macro") -> float:
    """The metric over the data set: the mean over classes (macro), or of all pixels together (micro).

    NaN as soon as one class has no value, or when there is no class or no image.
    """
    if not counts.names or not counts.classes:
        return float("nan")
    sums = Summands(*(array.sum(axis=0) for array in summands(metric, counts, average=average)))
    return float(mean_over_classes(metric_of(metric, *sums)))
