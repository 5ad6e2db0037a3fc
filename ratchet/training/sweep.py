"""A sweep: what is trained already is reused, the rest runs in processes, as many as the machine serves well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ratchet.consistency import require_exporter
from ratchet.errors import SweepFailedError
from ratchet.run_names import FINGERPRINT_TAG, PRUNED_TAG
from ratchet.training.board import Board
from ratchet.training.engine import Engine
from ratchet.training.halving import require_rungs
from ratchet.training.leftovers import interrupted, prune
from ratchet.training.parent import SweepRun
from ratchet.training.plan import PlannedTrial, SweepPlan
from ratchet.training.preview import Preview, preview, runs_of
from ratchet.training.process import start_server
from ratchet.training.queue import StudyQueue, TrialList, TrialQueue, trained_before
from ratchet.training.results import OnProgress, SweepOutcome, TrialResult
from ratchet.training.reuse import TrainedBefore
from ratchet.training.slots import trials_at_once

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

OnPlan = Callable[[Preview], None]


def run_sweep(trials: Sequence[PlannedTrial], *, on_progress: OnProgress = lambda _: None) -> list[TrialResult]:
    """Run a list of trials as `run` does."""
    return list(run(SweepPlan(trials=tuple(trials), size=len(trials)), on_progress=on_progress).trials)


def run(
    plan: SweepPlan,
    *,
    tags: Mapping[str, str] | None = None,
    on_plan: OnPlan = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> SweepOutcome:
    """Tell the plan, and run the trials; one that fails does not stop the others. Nothing is left running, however this ends.

    `tags` go to the runs of new trials and of the sweep; one that is there keeps what it says.

    Raises `SweepFailedError` when none finished.
    """
    if plan.settings.halving:
        require_rungs(plan.config)
    board = Board(plan, on_progress)
    found = trained_before(plan.trials) if plan.space is None else {}
    for trial in plan.trials:
        if trial.fingerprint not in found:
            require_exporter(trial.config)
    if len(found) < len(plan.trials):
        start_server()  # it imports while this process plans
    home = plan.config.core.home
    for removed in prune(home, keep=_at_work(plan), paused=TrainedBefore().paused() if interrupted(home) else ()):
        logger.warning("%s", removed)
    at_once = trials_at_once(plan.config)
    with closing(_queue(plan, found, at_once)) as queue:
        told = preview(plan, found, at_once=at_once, pruned=queue.pruned())
        on_plan(told)
        with SweepRun.of(plan, tags or {}) as sweep_run:
            sweep_run.tell(told)
            engine = Engine(plan, board, queue, at_once, {**(tags or {}), **sweep_run.trial_tags})
            stopped, begun = engine.work()
            outcome = board.outcome(stopped, begun=begun)
            if not any(result.trained for result in outcome.trials):
                reasons = [f"{result.name}: {result.error}" for result in outcome.trials if result.error]
                nobody_else = engine.waits_for_a_gpu
                if begun and not nobody_else and not reasons and not any(result.run_id for result in outcome.trials):
                    reasons = ["other processes work on all of them: wait for those, or raise sweep.max_trials"]
                    sweep_run.leave_open()
                raise SweepFailedError(f"no trial finished. {'; '.join([*filter(None, [outcome.stopped]), *reasons])}")
            return sweep_run.conclude(outcome)


def _queue(plan: SweepPlan, found: Mapping[str, Run], at_once: int) -> TrialQueue:
    studied = plan.space is not None or plan.settings.halving
    return StudyQueue(plan, at_once=at_once) if studied else TrialList(plan, found)


def _at_work(plan: SweepPlan) -> set[str]:
    """The fingerprints of its trials; of those of a search, the ones that have begun and may go on."""
    unfinished = [] if plan.space is None else runs_of(plan, "attributes.status != 'FINISHED'")
    begun = {run.data.tags.get(FINGERPRINT_TAG, "") for run in unfinished if PRUNED_TAG not in run.data.tags}
    return {trial.fingerprint for trial in plan.trials} | begun
