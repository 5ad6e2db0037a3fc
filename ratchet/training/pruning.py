"""Which trials go on at a rung: the pruners of successive halving, as Optuna calls them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ratchet.settings import SweepSettings
from ratchet.training.study_storage import retry_history


def pruner(settings: SweepSettings, *, synchronous: bool) -> BasePruner:
    """Where all trials of a rung wait for each other, exactly the best go on; else each is judged when it comes.

    Waiting costs nothing where one trial is trained at a time. Asynchronous is Optuna's (Li et al., "A System for
    Massively Parallel Hyperparameter Tuning", 2020, arXiv:1810.05934).
    """
    if synchronous:
        return SynchronousHalving(settings.halving_eta)
    return AsynchronousHalving(
        min_resource=settings.halving_min_epochs, reduction_factor=settings.halving_eta, min_early_stopping_rate=0
    )


class AsynchronousHalving(SuccessiveHalvingPruner):
    """Optuna's, but that a trial which was begun again has one place at a rung: what failed of it has none."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is to stop at the step that it reported last."""
        living = copy.copy(study)
        living.get_trials = lambda **_: [  # type: ignore[method-assign]
            other for other in study.get_trials(deepcopy=False) if other.state != TrialState.FAIL
        ]
        return bool(super().prune(living, trial))


class SynchronousHalving(BasePruner):
    """Keeps one in `eta` of the trials that have come to the same rung, at least one (Jamieson and Talwalkar, "Non-stochastic
    Best Arm Identification and Hyperparameter Optimization", 2016, arXiv:1502.07943). A trial without a finite value goes."""

    def __init__(self, eta: int) -> None:
        self._eta = eta

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is to stop at the step that it reported last."""
        rung = trial.last_step
        return rung is not None and trial.number not in self.best(
            study.direction, study.get_trials(deepcopy=False), rung
        )

    def best(self, direction: StudyDirection, trials: Sequence[FrozenTrial], rung: int) -> set[int]:
        """The numbers of those that go on, of all that have come to a rung."""
        sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
        reached = [
            (sign * other.intermediate_values[rung], _first(other), other.number)
            for other in trials
            if other.state != TrialState.FAIL and math.isfinite(other.intermediate_values.get(rung, math.nan))
        ]
        return {number for *_, number in sorted(reached)[: max(1, len(reached) // self._eta)]}


def _first(trial: FrozenTrial) -> int:
    """The number of the trial that it repeats, or its own: of equals, the first go on, also when the rung is judged again."""
    return min([trial.number, *retry_history(trial)])
