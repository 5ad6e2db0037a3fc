"""The points of a sweep as Optuna's parameters, and back; and who draws them."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from ratchet.space import Choice, Dimension, Point
from ratchet.training.plan import SweepPlan

GRID_KEY = "trial"
"""What a trial of a grid is queued with: which one it is."""
FIXED = "fixed_params"
"""By Optuna, of a trial that was queued: what with."""


def sampler(plan: SweepPlan, number: int) -> BaseSampler:
    """Who draws the point of a trial, seeded anew for each, so that a study that goes on draws what it would have drawn."""
    seed = (plan.config.core.seed + 1_000_003 * number) % 2**32
    if plan.settings.sampler == "random" or plan.space is None:
        return RandomSampler(seed=seed)
    # The trials before may still be exported, and others train elsewhere.
    return TPESampler(seed=seed, constant_liar=True)


def distributions(plan: SweepPlan) -> dict[str, BaseDistribution]:
    """What is drawn for a trial, by parameter; of a grid nothing is: it was queued with its fingerprint."""
    if plan.space is None:
        return {}
    return {key: _distribution(dimension) for key, dimension in plan.space.dimensions.items()}


def asked_for(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial was queued with, or else has drawn."""
    return dict(trial.system_attrs.get(FIXED, trial.params))


def point(plan: SweepPlan, trial: FrozenTrial) -> Point | str:
    """The point that was drawn, or of a grid the fingerprint of its trial."""
    if plan.space is None:
        return str(asked_for(trial)[GRID_KEY])
    return {key: _text(dimension, trial.params[key]) for key, dimension in plan.space.dimensions.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        last = len(dimension.values) - 1
        return IntDistribution(0, last) if dimension.ordered else CategoricalDistribution(dimension.values)
    if dimension.integer:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _text(dimension: Dimension, value: Any) -> str:
    if isinstance(dimension, Choice):
        return dimension.values[value] if dimension.ordered else str(value)
    return dimension.text(value)
