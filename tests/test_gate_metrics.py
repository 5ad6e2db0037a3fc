"""The metrics that per-image counts give, against their definitions on the pixels themselves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidCountsError, MissingMetricError
from ratchet.evaluation.counts import METRICS, ImageCounts, class_scores, score


def count(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ImageCounts:
    """Counts of class-index images (N, H, W), 0 the background."""
    labels = range(1, classes + 1)

    def sums(of: np.ndarray) -> np.ndarray:
        return of.sum(axis=(1, 2))

    tp, fp, fn = (
        np.stack([sums(chosen(truth == k, predicted == k)) for k in labels], axis=1)
        for chosen in (lambda t, p: t & p, lambda t, p: ~t & p, lambda t, p: t & ~p)
    )
    names = tuple(map(str, range(len(truth))))
    return ImageCounts(
        names,
        tuple("abc"[:classes]),
        tp,
        fp,
        fn,
        pixels=np.full(len(truth), truth[0].size),
        correct=sums(truth == predicted),
        boundary=np.stack([tp, fp, fn]),
    )


IMAGES = st.integers(0, 2**32 - 1).map(
    lambda seed: tuple(np.random.default_rng(seed).integers(0, 3, (2, 4, 6, 6), dtype=np.uint8))
)


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_every_metric_is_its_definition_on_all_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    counts = count(truth, predicted, 2)
    for k, name in ((1, "a"), (2, "b")):
        t, p = truth == k, predicted == k
        both = (t & p).sum()
        assert class_scores("iou", counts)[name] == pytest.approx(both / (t | p).sum())
        assert class_scores("dice", counts)[name] == pytest.approx(2 * both / (t.sum() + p.sum()))
        assert class_scores("precision", counts)[name] == pytest.approx(both / p.sum())
        assert class_scores("recall", counts)[name] == pytest.approx(both / t.sum())
    assert score("pixel_accuracy", counts) == pytest.approx((truth == predicted).mean())
    assert score("iou", counts) == pytest.approx(np.mean(list(class_scores("iou", counts).values())))


def test_micro_counts_all_classes_as_one() -> None:
    truth, predicted = np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int)
    truth[0, :2], predicted[0, :1] = 1, 1
    truth[0, 3, 0] = predicted[0, 3, 0] = 2
    counts = count(truth, predicted, 2)
    assert score("iou", counts) == pytest.approx((4 / 8 + 1) / 2)
    assert score("iou", counts, average="micro") == pytest.approx(5 / 9)


def test_an_image_without_the_class_adds_its_false_positives_only() -> None:
    truth, predicted = np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int)
    truth[0], predicted[0] = 1, 1
    assert score("iou", count(truth, predicted, 1)) == 1
    predicted[1, 0] = 1
    assert score("iou", count(truth, predicted, 1)) == pytest.approx(16 / 20)


@pytest.mark.parametrize("metric", ["iou", "dice", "precision", "recall"])
def test_a_class_that_is_nowhere_has_no_score(metric: str) -> None:
    nothing = np.zeros((2, 4, 4), int)
    assert math.isnan(score(metric, count(nothing, nothing, 1)))


def test_a_class_that_is_never_predicted_has_no_precision_to_be_proud_of() -> None:
    truth = np.ones((2, 4, 4), int)
    assert score("precision", count(truth, truth * 0, 1)) == 0


def test_a_class_that_is_nowhere_in_the_truth_has_no_recall() -> None:
    truth = np.zeros((2, 4, 4), int)
    assert math.isnan(score("recall", count(truth, truth + 1, 1)))


@pytest.mark.parametrize("metric", METRICS)
def test_no_images_have_no_score(metric: str) -> None:
    empty = ImageCounts((), ("a",), *np.zeros((3, 0, 1), int))
    assert math.isnan(score(metric, empty))


@pytest.mark.parametrize("metric", ["pixel_accuracy", "boundary_iou", "hausdorff"])
def test_a_metric_that_was_not_counted_raises_and_says_what_is_missing(metric: str) -> None:
    counts = count(np.ones((1, 2, 2), int), np.ones((1, 2, 2), int), 1)
    with pytest.raises(MissingMetricError):
        score(metric, replace(counts, pixels=None, boundary=None))


def test_counts_of_another_shape_are_refused_by_name() -> None:
    counts = count(np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), 1)
    with pytest.raises(InvalidCountsError, match="pixels has shape"):
        replace(counts, pixels=np.ones(3, int))


def test_an_image_named_twice_is_refused() -> None:
    counts = count(np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), 1)
    with pytest.raises(InvalidCountsError, match="twice"):
        replace(counts, names=("a", "a"))
