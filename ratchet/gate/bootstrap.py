"""The paired bootstrap over images: how sure we are of the difference between two models on one gate set.

**Resampling.** An image stays whole and both models are resampled together, so what they share (a hard image is hard
for both) cancels (Efron & Tibshirani 1993, chapters 8 and 16; Koehn, EMNLP 2004). With a group column the units are
groups of images, not images (Davison & Hinkley 1997, section 3.8).

**Why an expanded percentile interval.** The score is a ratio of sums, where a normal interval is a guess and BCa would
mend a skewness that the difference of two equal models does not have (swapping them flips its sign). What the plain
percentile interval lacks is width: it ignores that the spread is estimated from few images, and that large objects
outweigh small ones. Hesterberg (The American Statistician 69, 2015, section 4.2) widens it by reading the quantile at

    alpha' = Φ(-√(n / (n - 1)) · t(1 - alpha; n - 1))

and we put in Kish's effective number of images (Survey Sampling, 1965, section 8.2) for n: 1 / Σᵢ wᵢ², where wᵢ is
image i's share of the metric's denominator. `benchmarks/gate_quality.py` measures how often either interval calls one of
two equal models better; docs/gate.md has the figures.

**Bit for bit.** Draws come from PCG64's raw stream, which NumPy keeps fixed (its distributions it may change, NEP 19).
Resampled counts are integers below 2⁵³, exact in float64 in whatever order a matrix product adds them; what follows is
one division, an addition in class order and an order statistic. So machine and thread count do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidCountsError
from ratchet.evaluation.counts import Summands, denominators, mean_over_classes, metric_of

Floats = NDArray[np.float64]
_CELLS = 2_000_000  # weights and resampled sums held at once: 16 MB, whatever the number of images and slices
_LEAST_EFFECTIVE = 4.0  # below it the spread itself is unknown, and the expansion of t below is off


@dataclass(frozen=True)
class Pair:
    """Two models' summands over the same N images; each array is (N, K).

    Of a part of the images, the arrays hold the `rows` (R,) alone: those of the others would be zeros.
    """

    challenger: Summands
    champion: Summands
    rows: NDArray[np.intp] | None = None
    units: int = 0

    @property
    def size(self) -> int:
        """How many images, or groups of them, there are: N."""
        return len(self.challenger.tp) if self.rows is None else self.units

    def only(self, keep: NDArray[np.bool_]) -> Pair:
        """The counts of the images in `keep` (N,) alone."""
        rows = np.flatnonzero(keep)
        return replace(self._map(lambda array: array[rows]), rows=rows, units=len(keep))

    def classes(self, columns: slice | NDArray[np.bool_]) -> Pair:
        """The same images with these class columns only."""
        return self._map(lambda array: array[:, columns])

    def grouped(self, groups: NDArray[np.intp]) -> Pair:
        """Counts summed within each group; `groups` (N,) numbers them from 0 without gaps."""
        size = int(groups.max()) + 1
        rows, places = (None, groups) if self.rows is None else np.unique(groups[self.rows], return_inverse=True)

        def total(array: Floats) -> Floats:
            out = np.zeros((size if rows is None else len(rows), array.shape[1]))
            np.add.at(out, places, array)
            return out

        return replace(self._map(total), rows=rows, units=size)

    def _map(self, change: Callable[[Floats], Floats]) -> Pair:
        challenger, champion = (Summands(*map(change, side)) for side in (self.challenger, self.champion))
        return replace(self, challenger=challenger, champion=champion)


@dataclass(frozen=True)
class Resampled:
    """Challenger - champion: as measured, and in every resample, sorted, with NaN at the harmful end."""

    estimate: float
    for_low: Floats
    for_high: Floats
    effective: float
    units: int
    standard_error: float | None

    @property
    def resamples(self) -> int:
        """How many there are."""
        return len(self.for_low)

    def low(self, alpha: float) -> float:
        """The lower end at one-sided level `alpha`; -inf when these images do not bound it."""
        rank = expanded_rank(alpha, self.effective, len(self.for_low))
        return float(self.for_low[rank - 1]) if rank else -math.inf

    def high(self, alpha: float) -> float:
        """The upper end at one-sided level `alpha`; inf when these images do not bound it."""
        rank = expanded_rank(alpha, self.effective, len(self.for_high))
        return float(self.for_high[-rank]) if rank else math.inf

    def p_value(self, line: float) -> float:
        """The smallest level at which the lower end is above `line`, to 2⁻⁵⁰; 1 when no level up to one half does."""
        below, above = 0.0, 0.5
        if not self.low(above) > line:
            return 1.0
        for _ in range(50):
            middle = (below + above) / 2
            below, above = (below, middle) if self.low(middle) > line else (middle, above)
        return above


def resample(
    pairs: Sequence[Pair], *, metric: str, resamples: int, seed: int, groups: NDArray[np.intp] | None = None
) -> tuple[Resampled, ...]:
    """Bootstrap every pair over the same resamples of the images; time and memory per image do not grow.

    Raises InvalidCountsError when the counts are too large to be summed exactly.
    """
    pairs = pairs if groups is None else [pair.grouped(groups) for pair in pairs]
    units = pairs[0].size
    blocks = [np.hstack([*pair.challenger, *pair.champion]) for pair in pairs]
    largest = max(float(block.max(initial=0.0)) for block in blocks)
    if largest * units >= 2**53:
        raise InvalidCountsError(f"Counts up to {largest:.0f} over {units} images cannot be summed exactly.")
    differences = np.empty((resamples, len(pairs)))
    start = 0
    widest = max(block.shape[1] for block in blocks)
    for weights in _weights(units, resamples, seed, step=max(1, _CELLS // (units + widest))):
        for i, (pair, block) in enumerate(zip(pairs, blocks, strict=True)):
            drawn = weights if pair.rows is None else weights[:, pair.rows]
            differences[start : start + len(weights), i] = _difference(drawn @ block, pair, metric)
        start += len(weights)
    estimates = [
        float(_difference(block.sum(axis=0, keepdims=True), pair, metric)[0])
        for pair, block in zip(pairs, blocks, strict=True)
    ]
    return tuple(_summary(estimates[i], differences[:, i], pair, metric) for i, pair in enumerate(pairs))


def _weights(units: int, resamples: int, seed: int, *, step: int) -> Iterator[Floats]:
    """How often each unit is drawn, (step, units) at a time; the bias of the draw is under units / 2³²."""
    stream = np.random.PCG64(seed)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        raw = stream.random_raw(rows * units).reshape(rows, units) >> np.uint64(32)
        drawn = ((raw * np.uint64(units)) >> np.uint64(32)).astype(np.int64) + np.arange(rows)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _difference(sums: Floats, pair: Pair, metric: str) -> Floats:
    classes = pair.challenger.tp.shape[1]
    columns = [sums[:, j * classes : (j + 1) * classes] for j in range(6)]
    mine, theirs = Summands(*columns[:3]), Summands(*columns[3:])
    out = mean_over_classes(metric_of(metric, *mine)) - mean_over_classes(metric_of(metric, *theirs))
    for side in (mine, theirs):
        # Without a pixel of a class in the truth, both models score 0 by false positives: no difference, not none.
        out[~_truth(metric, side).all(axis=1)] = np.nan
    return out


def _truth(metric: str, side: Summands) -> NDArray[np.bool_]:
    """Where (..., K) there is something to find: a pixel of the class, or for pixel accuracy any pixel."""
    found = side.tp + side.fp if metric == "pixel_accuracy" else side.tp + side.fn
    return np.asarray(found > 0)


def _summary(estimate: float, differences: Floats, pair: Pair, metric: str) -> Resampled:
    missing = np.isnan(differences)
    known = differences[~missing].tolist()
    spread = None
    if len(known) > 1:
        mean = math.fsum(known) / len(known)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return Resampled(
        estimate=estimate,
        for_low=np.sort(np.where(missing, -np.inf, differences)),
        for_high=np.sort(np.where(missing, np.inf, differences)),
        effective=effective_units(pair, metric),
        units=int(np.hstack([_truth(metric, side) for side in (pair.challenger, pair.champion)]).any(axis=1).sum()),
        standard_error=spread,
    )


def effective_units(pair: Pair, metric: str) -> float:
    """Kish's effective number of units: 1 / Σᵢ wᵢ², wᵢ a unit's share of the denominator, averaged over classes."""
    sides = (pair.challenger, pair.champion)
    weights = np.sum([denominators(metric, *side) for side in sides], axis=0)
    if metric == "precision":  # of a class that nothing predicts it is 0, by what is missed
        weights = np.where(weights.sum(axis=0) > 0, weights, np.sum([side.fn for side in sides], axis=0))
    totals = np.sum(weights, axis=0)
    if not np.all(totals > 0):
        return 0.0
    shares = mean_over_classes(weights / totals)
    return 1.0 / math.fsum((shares**2).tolist())


def expanded_rank(alpha: float, effective: float, resamples: int) -> int:
    """Which order statistic (from 1) bounds at level `alpha`; 0: none. Rounded, so that no last bit decides."""
    return math.floor(round(_expanded_level(alpha, effective) * (resamples + 1), 6))


def least_resamples(alpha: float, effective: float) -> int | None:
    """The fewest resamples that bound anything at level `alpha`; None where so few units never do."""
    level = _expanded_level(alpha, effective)
    return math.ceil(round(1 / level, 6)) if level > 0 else None


def _expanded_level(alpha: float, effective: float) -> float:
    if not effective >= _LEAST_EFFECTIVE:
        return 0.0
    degrees = effective - 1
    return NormalDist().cdf(-math.sqrt(effective / degrees) * t_quantile(1 - alpha, degrees))


def t_quantile(probability: float, degrees: float) -> float:
    """Student's t quantile by Fisher and Cornish's expansion (Abramowitz & Stegun 1964, 26.7.5); 1e-2 at 3 degrees."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
