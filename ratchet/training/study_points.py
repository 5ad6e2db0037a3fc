"""The points of a sweep as Optuna's parameters, and back; and who draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from ratchet.space import Choice, Dimension, Point
from ratchet.training.plan import SweepPlan

GRID_KEY = "trial"
"""Of a grid, only which of its trials is a parameter."""


def sampler(plan: SweepPlan, number: int) -> BaseSampler:
    """Who draws the point of a trial, seeded anew for each, so that a study that goes on draws what it would have drawn."""
    seed = (plan.config.core.seed + 1_000_003 * number) % 2**32
    if plan.settings.sampler == "random" or plan.space is None:
        return RandomSampler(seed=seed)
    # The trials before may still be exported, and others train elsewhere.
    return TPESampler(seed=seed, constant_liar=True)


def distributions(plan: SweepPlan) -> dict[str, BaseDistribution]:
    """What is drawn for a trial, by parameter."""
    if plan.space is None:
        return {GRID_KEY: CategoricalDistribution(sorted(trial.fingerprint for trial in plan.trials))}
    return {key: _distribution(dimension) for key, dimension in plan.space.dimensions.items()}


def point(plan: SweepPlan, params: Mapping[str, Any]) -> Point | str:
    """The point that was drawn, or of a grid the fingerprint of its trial."""
    if plan.space is None:
        return str(params[GRID_KEY])
    return {key: _text(dimension, params[key]) for key, dimension in plan.space.dimensions.items()}


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
