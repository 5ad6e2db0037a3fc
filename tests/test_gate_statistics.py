"""The paired bootstrap: exact on every machine, of the right level, and honest about few or lopsided images."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ratchet.evaluation.counts import ImageCounts, Summands, summands
from ratchet.gate.bootstrap import Pair, effective_units, expanded_rank, resample, t_quantile
from ratchet.gate.planning import images_needed, reuse_note, risk_of_luck, smallest_detectable

PINNED = """
import sys
sys.path[:0] = [{root!r}]
import numpy as np
from ratchet.evaluation.counts import Summands
from ratchet.gate.bootstrap import Pair, resample
i = np.arange(700, dtype=np.float64)[:, None] + np.array([[0.0, 350.0, 977.0]])
def side(a, b, c):
    return Summands(5000 + (i * a) % 4001, (i * b) % 997, (i * c) % 1009)
pair = Pair(side(7919, 31, 17), side(7907, 37, 19))
result = resample([pair], metric="iou", resamples=3000, seed=7)[0]
print(result.estimate.hex(), result.low(0.05).hex(), result.high(0.05).hex(), result.standard_error.hex())
"""
EXPECTED = " ".join(
    (
        "0x1.6ca835fc56800p-12",
        "-0x1.10b36c752d100p-9",
        "0x1.62df8f4f07300p-9",
        "0x1.7ef6b52208c8bp-10",
    )
)


def pair_of(challenger: np.ndarray, champion: np.ndarray, size: np.ndarray | float = 10_000) -> Pair:
    """Two models with these scores (N,) on images with this many pixels in the union."""

    def side(scores: np.ndarray) -> Summands:
        tp = np.round(np.clip(scores, 0, 1) * size)[:, None]
        return Summands(tp, np.zeros_like(tp), np.broadcast_to(size, scores.shape)[:, None] - tp)

    return Pair(side(challenger), side(champion))


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_interval_is_the_same_to_the_last_bit_on_every_machine_and_thread_count(threads: str) -> None:
    code = PINNED.format(root=os.getcwd())  # noqa: PTH109
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == EXPECTED


def test_the_draws_are_those_of_drawing_images_one_by_one() -> None:
    challenger, champion = 0.5 + 0.01 * np.arange(30), 0.4 + 0.02 * np.arange(30)
    result = resample([pair_of(challenger, champion)], metric="iou", resamples=1_000, seed=3)[0]
    raw = np.random.PCG64(3).random_raw(30_000).reshape(1_000, 30)
    drawn = ((raw >> np.uint64(32)) * np.uint64(30)) >> np.uint64(32)
    slow = np.sort([np.mean(challenger[row]) - np.mean(champion[row]) for row in drawn.astype(int)])
    assert np.allclose(result.for_low, slow, atol=1e-12)


def test_every_image_is_drawn_equally_often() -> None:
    raw = np.random.PCG64(0).random_raw(700_000)
    drawn = ((raw >> np.uint64(32)) * np.uint64(7)) >> np.uint64(32)
    assert np.bincount(drawn.astype(int)) / 100_000 == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("images", [50, 200])
def test_an_equal_model_is_called_better_no_more_often_than_the_level(images: int) -> None:
    random = np.random.default_rng(images)
    trials = 1_200
    hard = random.normal(size=(trials, images))
    mine, theirs = (
        0.7 + 0.15 * (np.sqrt(0.85) * hard + np.sqrt(0.15) * random.normal(size=(trials, images))) for _ in "ab"
    )
    pairs = [pair_of(mine[t], theirs[t]) for t in range(trials)]
    better = sum(r.low(0.05) > 0 for r in resample(pairs, metric="iou", resamples=2_000, seed=1))
    assert better / trials < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_one_image_counts_once_however_large_it_is() -> None:
    size = np.ones(100)
    assert effective_units(pair_of(np.full(100, 0.5), np.full(100, 0.5), size * 1_000), "iou") == pytest.approx(100)
    size[0] = 10_000
    assert effective_units(pair_of(np.full(100, 0.5), np.full(100, 0.5), size * 1_000), "iou") == pytest.approx(
        1.02, abs=0.01
    )


def test_each_metric_has_the_effective_images_of_what_it_divides_by() -> None:
    truth = np.where(np.arange(60) < 2, 6_000.0, 60.0)[:, None]
    for false in (0.0, 400.0):
        side = Summands(truth / 2, np.full_like(truth, false), truth / 2)
        found = {m: effective_units(Pair(side, side), m) for m in ("iou", "recall", "precision")}
        assert found["recall"] == pytest.approx(3.32, abs=0.01)
        assert (found["iou"] > 4) == (found["precision"] > 4) == bool(false)
        (result,) = resample([Pair(side, side)], metric="recall", resamples=500, seed=0)
        assert result.low(0.05) == -np.inf


def test_precision_is_bounded_though_a_class_is_never_predicted() -> None:
    tp = np.column_stack([np.full(100, 50.0), np.zeros(100)])
    side, better = (Summands(tp, share * tp, np.full_like(tp, 30.0)) for share in (1, 0))
    (result,) = resample([Pair(better, side)], metric="precision", resamples=500, seed=0)
    assert 0.2 < result.low(0.05) <= result.estimate


def test_fewer_effective_images_give_a_wider_interval_and_four_none_at_all() -> None:
    ranks = [expanded_rank(0.05, effective, 10_000) for effective in (1_000.0, 50.0, 10.0, 3.9, float("nan"))]
    assert ranks[0] <= 0.05 * 10_001
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-2:] == [0, 0]


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [(0.95, 3, 2.3534), (0.95, 10, 1.8125), (0.99, 10, 2.7638), (0.95, 49, 1.6766), (0.999, 30, 3.3852)],
)
def test_the_t_quantile_is_that_of_the_tables(probability: float, degrees: float, value: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(value, rel=2e-3)


def test_a_class_missing_from_a_resample_widens_the_interval_on_both_sides() -> None:
    tp = np.zeros((40, 2))
    tp[:, 0], tp[0, 1] = 100, 100
    none = np.zeros((40, 2))
    side = Summands(tp, none, none)
    result = resample([Pair(side, side)], metric="iou", resamples=1_000, seed=0)[0]
    assert result.for_low[0] == -np.inf
    assert result.for_high[-1] == np.inf


def test_grouped_images_are_resampled_together() -> None:
    random = np.random.default_rng(5)
    shift = np.repeat(random.normal(0, 0.05, 20), 10)
    pair = pair_of(0.7 + shift, np.full(200, 0.7))
    groups = np.repeat(np.arange(20), 10)
    alone, together = (resample([pair], metric="iou", resamples=2_000, seed=1, groups=g)[0] for g in (None, groups))
    assert together.units == 20
    assert together.standard_error is not None
    assert alone.standard_error is not None
    assert together.standard_error > 2.5 * alone.standard_error


def test_the_p_value_is_the_level_at_which_the_lower_end_reaches_the_line() -> None:
    random = np.random.default_rng(5)
    result = resample(
        [pair_of(random.normal(0.72, 0.1, 60), random.normal(0.7, 0.1, 60))], metric="iou", resamples=2_000, seed=1
    )[0]
    p = result.p_value(-0.02)
    assert 0 < p < 0.5
    assert result.low(p * 1.01) > -0.02 >= result.low(p * 0.99)
    assert result.p_value(0.9) == 1.0


def test_the_smallest_detectable_difference_is_found_with_the_power_that_was_asked_for() -> None:
    random = np.random.default_rng(2)
    gain = smallest_detectable(line=0, standard_error=0.08 / np.sqrt(200), alpha=0.05, power=0.8)
    pairs = [pair_of(np.full(200, 0.5) + random.normal(gain, 0.08, 200), np.full(200, 0.5)) for _ in range(500)]
    found = np.mean([r.low(0.05) > 0 for r in resample(pairs, metric="iou", resamples=1_000, seed=1)])
    assert found == pytest.approx(0.8, abs=0.06)


def test_four_times_the_images_are_needed_for_half_the_distance() -> None:
    far, near = (
        images_needed(images=200, estimate=e, line=0.0, standard_error=0.01, alpha=0.05, power=0.8)
        for e in (0.02, 0.01)
    )
    assert far == pytest.approx(310, abs=1)
    assert near == 1_300  # 1,237, rounded up to two digits
    assert images_needed(images=200, estimate=0.0, line=0.0, standard_error=0.01, alpha=0.05, power=0.8) is None


def test_luck_adds_up_over_the_challengers_tried() -> None:
    assert risk_of_luck(alpha=0.05, uses=1) == pytest.approx(0.05)
    assert risk_of_luck(alpha=0.05, uses=14) == pytest.approx(0.512, abs=0.001)
    assert reuse_note(alpha=0.05, uses=13, risk=0.5) is None
    worn = {line: str(reuse_note(alpha=0.05, uses=14, risk=0.5, line=line)) for line in (0.0, 0.005, -0.01)}
    assert all("as high as 51% (1 - 0.95^14)" in note for note in worn.values())
    assert "that was no better may" in worn[0.0]
    assert "that was not better by 0.005 may" in worn[0.005]
    assert "that was worse by 0.01 or more may" in worn[-0.01]


def test_the_resampled_difference_is_the_difference_of_the_scores() -> None:
    names, classes = tuple(map(str, range(50))), ("a", "b")
    random = np.random.default_rng(4)
    one, other = (ImageCounts(names, classes, *random.integers(1, 500, (3, 50, 2))) for _ in "ab")
    for metric in ("iou", "dice", "precision", "recall"):
        pair = Pair(summands(metric, one), summands(metric, other))
        result = resample([pair], metric=metric, resamples=1_000, seed=0)[0]
        assert result.low(0.05) < result.estimate < result.high(0.05)
