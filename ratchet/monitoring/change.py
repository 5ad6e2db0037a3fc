"""How sure we are that one model's score differs between two sets of images: a bootstrap of two samples.

The gate compares two models on the same images; here one model is compared on two sets, so nothing pairs. The images
of both are drawn together from their union, each with the counts of its own set and zeros for the other. How many of a
set a resample holds then varies a little, which widens the interval: never the wrong way. With groups of images, groups
are drawn; one that has images in both sets is drawn with all of them. The interval is the gate's
(`ratchet.gate.bootstrap`), with the smaller of the two sets' effective numbers of images, or of groups.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.counts import ImageCounts, Summands, summands
from ratchet.gate import Policy
from ratchet.gate.bootstrap import Pair, Resampled, effective_units, resample


def compare_sets(
    policy: Policy, counts: ImageCounts, fresh: NDArray[np.bool_], groups: NDArray[np.intp] | None
) -> Resampled:
    """The score on the `fresh` images (N,) minus the one on the others, and its bootstrap; `counts` hold both sets.

    `groups` (N,) number the groups that images are dependent in; None: each stands for itself.
    """
    every = summands(policy.metric, counts, average=policy.average)
    new, old = (_only(every, keep) for keep in (fresh, ~fresh))
    pair = Pair(new, old) if groups is None else Pair(new, old).grouped(groups)
    (found,) = resample([pair], metric=policy.metric, resamples=policy.resamples, seed=policy.seed)
    effective = min(effective_units(Pair(part, part), policy.metric) for part in (pair.challenger, pair.champion))
    return replace(found, effective=effective)


def _only(every: Summands, keep: NDArray[np.bool_]) -> Summands:
    return Summands(*(np.where(keep[:, None], array, 0.0) for array in every))
