"""What becomes of a sweep: one result for each trial, and the outcome of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.settings import Mode
from ratchet.space import Point
from ratchet.training.progress import CACHING, Progress

Status = Literal["waiting", "running", "paused", "finished", "reused", "pruned", "stopped", "failed"]

_REASONS, _MOST_OF_A_REASON = 3, 300  # of failed trials, in one line

ENDED: tuple[Status, ...] = ("finished", "reused", "pruned", "stopped", "failed")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class TrialResult(_Value):
    """What became of one trial. `metrics` are the last ones logged, of validation and test those of the exported weights;
    `seconds` is zero where it was reused.

    `note` says where it began, if not at the start of a new run, or why it did not come to its end.
    """

    name: str
    fingerprint: str
    status: Status = "waiting"
    run_id: str | None = None
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None
    point: Point = {}
    progress: Progress = Progress()

    @property
    def trained(self) -> bool:
        """Whether it has a model."""
        return self.status in ("finished", "reused")

    @property
    def caching(self) -> bool:
        """Whether its images are being decoded."""
        return self.status not in ENDED and self.progress.phase == CACHING


OnProgress = Callable[[Sequence[TrialResult]], None]


class SweepOutcome(_Value):
    """The trials as they ended; `stopped` says what the budget left undone.

    `run_id` (in the experiment `experiment_id`) and `page` are the sweep's own; a single trial has neither.
    `metric` and `mode` are what it was to be good at.
    """

    trials: tuple[TrialResult, ...]
    metric: str
    mode: Mode
    stopped: str | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    page: Path | None = None

    @property
    def remark(self) -> str:
        """What was not trained as planned, and why; empty where all was."""
        failed = [trial for trial in self.trials if trial.status == "failed"]
        first = f"{len(failed)} of {len(self.trials)} trials failed: " if failed else ""
        told = [f"{trial.name}: {(trial.error or '')[:_MOST_OF_A_REASON]}" for trial in failed[:_REASONS]]
        more = f"; and {len(failed) - _REASONS} more" if len(failed) > _REASONS else ""
        return "; ".join(filter(None, [self.stopped, f"{first}{'; '.join(told)}{more}"]))


def best_of(trials: Sequence[TrialResult], metric: str, mode: Mode) -> TrialResult | None:
    """The trained one with the best finite value, the first of equals; None if there is none."""
    sign = 1.0 if mode == "max" else -1.0
    scored = [
        trial for trial in trials if trial.trained and abs(trial.metrics.get(metric, float("inf"))) < float("inf")
    ]
    return max(scored, key=lambda trial: sign * trial.metrics[metric], default=None)
