"""Where the results of a sweep are kept while it runs, and summed up when it is over."""

from __future__ import annotations

from ratchet.training.plan import PlannedTrial, SweepPlan
from ratchet.training.results import OnProgress, SweepOutcome, TrialResult


class Board:
    """The results so far, in the order in which the trials were planned."""

    def __init__(self, plan: SweepPlan, on_progress: OnProgress) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._results: dict[str, TrialResult] = {}
        if plan.space is None:
            for trial in plan.trials:
                self.add(trial)

    def add(self, trial: PlannedTrial) -> TrialResult:
        """The result of a trial, which waits if it is new."""
        new = TrialResult(name=trial.name, fingerprint=trial.fingerprint, point=trial.point)
        return self._results.setdefault(trial.fingerprint, new)

    def update(self, trial: PlannedTrial, **changes: object) -> None:
        """Change a result, and tell."""
        self._results[trial.fingerprint] = self.add(trial).model_copy(update=changes)
        self._on_progress(self.results)

    def stop(self, reason: str) -> list[TrialResult]:
        """Let the trials that are paused stay so for good, and return them."""
        paused = [result for result in self.results if result.status == "paused"]
        for result in paused:
            note = _left(result, reason)
            self._results[result.fingerprint] = result.model_copy(update={"status": "stopped", "note": note})
        self._on_progress(self.results)
        return paused

    @property
    def results(self) -> list[TrialResult]:
        """All of them."""
        return list(self._results.values())

    def outcome(self, stopped: str | None, *, begun: int | None = None) -> SweepOutcome:
        """Sum up; `stopped` is the reason why the sweep did not come to its end.

        `begun` is the number of trials that all processes together have begun, where there may be others.
        """
        settings, why = self._plan.settings, stopped
        untouched = [result for result in self.results if result.status == "waiting"]
        size = self._plan.size or len(self._results)
        unstarted = size - len(self._results) + len(untouched)
        if begun is not None:
            mine = len(untouched) if self._plan.space is not None else 0  # handed out, but over before they had a run
            unstarted = max(0, size - begun + mine)
        left = [result for result in self.results if result.status == "stopped"]
        if why is None and unstarted and self._plan.space is not None:
            why = "what was drawn last had all been tried or refused"
        elif why is None and unstarted and settings.max_trials is not None:
            why = f"max_trials {settings.max_trials} reached"
        untold = "not started" if unstarted else "another process works on it"
        for result in untouched:
            self._results[result.fingerprint] = result.model_copy(update={"status": "stopped", "note": untold})
        sentence = None
        if why is not None:
            parts = [f"{unstarted} of {size} trials not started"] if unstarted else []
            parts += [f"{len(left)} left at a checkpoint"] if left else []
            sentence = f"stopped: {', '.join([*parts, why])}" if parts else None
        retrain = self._plan.config.retrain
        return SweepOutcome(trials=tuple(self.results), metric=retrain.metric, mode=retrain.mode, stopped=sentence)


def _left(result: TrialResult, reason: str) -> str:
    progress = result.progress
    where = (
        f"left in epoch {progress.epoch} of {progress.max_epochs}" if progress.epoch else "left before its next epoch"
    )
    return f"{where}: {reason}"
