"""The steps of a retraining as Prefect tasks.

Each can be run again: what is done already is found and kept. So none needs Prefect's own cache, and a flow that is
started anew after a crash or a suspension goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect import get_run_logger

from ratchet import planning, retraining
from ratchet.form import RetrainForm, overrides_of
from ratchet.gate import Verdict
from ratchet.outcome import Outcome
from ratchet.page_parts import figure
from ratchet.planning import Plan
from ratchet.registry import BestRun, EventKind, ModelVersion, Stage
from ratchet.training.progress import FOR_A_GPU
from ratchet.training.results import SweepOutcome, TrialResult
from tasks.events import announce_history
from tasks.kept import keep_images, keep_spent, kept_choice, kept_images, kept_plan, kept_spent
from tasks.progress import Seldom, gate_progress, sweep_progress
from tasks.run_page import describe_run, this_flow_run, write_page
from tasks.runs import is_waiting, require_wanted
from tasks.step import step, warned_of

_SECONDS_BETWEEN = 60.0  # of notes on the time that was spent


@step("plan")
def plan_retraining(form: RetrainForm) -> Plan:
    """Compose the trials, check the data, and see whether anything is new.

    A run that was interrupted keeps its images, whatever has come since, and one that has asked a person its plan.
    """
    only = kept_images()
    if (kept := kept_plan()) is not None:
        return kept.among(only)
    plan = planning.plan_retraining(overrides_of(form), flow_run=this_flow_run(), is_waiting=is_waiting, only=only)
    if only is None and plan.unchanged_since is None:
        keep_images(plan.trials[0].samples)
    describe_run(plan.title, model=plan.settings.model)
    return plan


@step("sweep")
def sweep(plan: Plan) -> SweepOutcome:
    """Train the trials, each in a process of its own. A run that has asked a person trains nothing more.

    One that is taken up again has what was left of `sweep.max_time`.
    """
    if (kept := kept_choice()) is not None:
        return kept.sweep
    bounded, due = plan.sweep.settings.max_time is not None, Seldom(_SECONDS_BETWEEN)
    spent, began = kept_spent() if bounded else 0.0, time.monotonic()
    plan = plan.model_copy(update={"sweep": plan.sweep.model_copy(update={"spent": spent})})
    waited, waits_since = 0.0, None  # for a GPU that another sweep has, which does not count
    with sweep_progress(plan) as progress:

        def tell(trials: Sequence[TrialResult]) -> None:
            nonlocal waited, waits_since
            now = time.monotonic()
            waited += 0.0 if waits_since is None else now - waits_since
            begun = [trial for trial in trials if trial.status == "running"]
            waits_since = now if begun and all(trial.progress.phase == FOR_A_GPU for trial in begun) else None
            progress.trials(trials)
            if bounded and due():
                with warned_of("how long this sweep has been at work is not kept"):
                    keep_spent(spent + now - began - waited)

        outcome = retraining.train(plan, on_plan=progress.plan, on_progress=tell)
    for trial in outcome.trials:
        get_run_logger().info("%s: %s%s", trial.name, trial.status, f", {trial.error}" if trial.error else "")
    if outcome.stopped is not None:
        get_run_logger().info(outcome.stopped)
    return outcome


@step("select the best")
def select_best(plan: Plan, trials: SweepOutcome) -> BestRun:
    """Choose the trial with the best metric; a run that has asked a person has chosen."""
    if (kept := kept_choice()) is not None:
        return kept.best
    best = retraining.select(plan, trials)
    get_run_logger().info("best: run %s with %s=%s", best.run_id, best.metric, figure(best.value))
    return best


@step("register the challenger")
def register(plan: Plan, best: BestRun, trials: SweepOutcome) -> ModelVersion:
    """Register the best trial's model as a new version."""
    version = retraining.register(plan, best, trials)
    announce_history(plan.settings.model, EventKind.REGISTERED, version.version)
    return version


@step("gate v{version}")
def gate(plan: Plan, version: int) -> Verdict:
    """Score challenger and champion on the gate set, and judge."""
    with gate_progress(plan.settings.model) as on_image:
        verdict = retraining.gate(plan, version, on_image=on_image)
    announce_history(plan.settings.model, EventKind.GATED, version)
    get_run_logger().info(verdict.sentence)
    return verdict


@step("move to {to}")
def move(plan: Plan, verdict: Verdict, to: Stage) -> ModelVersion:
    """Move the challenger to a stage, if production is still what it was judged against, and the run is still wanted."""
    require_wanted()
    moved = retraining.move(plan, verdict, to)
    kind = EventKind.PROMOTED if to is Stage.PRODUCTION else EventKind.STAGED
    with warned_of(f"v{moved.version} was moved, but nobody is told of it"):
        announce_history(moved.model, kind, moved.version)
    return moved


@step("report")
def report(outcome: Outcome) -> Outcome:
    """Write the page with trials, verdict and pictures, and say on the flow run how it ended."""
    with warned_of("the run has no report"):  # what became of the model is done, whatever its pictures cost
        write_page(outcome)
    with warned_of("the run is not named by its outcome"):
        describe_run(
            outcome.title, model=outcome.model, **({"verdict": outcome.verdict.outcome} if outcome.verdict else {})
        )
    return outcome
