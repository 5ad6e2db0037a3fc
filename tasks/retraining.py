"""The steps of a retraining as Prefect tasks.

Each can be run again: what is done already is found and kept. So none needs Prefect's own cache, and a flow that is
started anew after a crash goes on where it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact

from ratchet import report as pages
from ratchet import retraining
from ratchet.gate import Verdict
from ratchet.registry import BestRun, EventKind, ModelVersion, Stage
from ratchet.retraining import Outcome, Plan
from ratchet.training.results import SweepOutcome
from tasks.events import announce_history
from tasks.progress import gate_progress, sweep_progress


@task(task_run_name="plan")
def plan_retraining(overrides: Sequence[str], **settings: str | None) -> Plan:
    """Compose the trials, check the data, and see whether anything is new."""
    return retraining.plan_retraining(overrides, settings)


@task(task_run_name="sweep")
def sweep(plan: Plan) -> SweepOutcome:
    """Train the trials, each in a process of its own."""
    with sweep_progress(plan.settings.metric, plan.sweep.size) as progress:
        outcome = retraining.train(plan, on_plan=progress.plan, on_progress=progress.trials)
        progress.end(outcome)
    return outcome


@task(task_run_name="select the best")
def select_best(plan: Plan) -> BestRun:
    """Choose the trial with the best metric."""
    return retraining.select(plan)


@task(task_run_name="register the challenger")
def register(plan: Plan, best: BestRun) -> ModelVersion:
    """Register the best trial's model as a new version."""
    version = retraining.register(plan, best)
    announce_history(plan.settings.model, EventKind.REGISTERED, version.version)
    return version


@task(task_run_name="gate v{version}")
def gate(plan: Plan, version: int) -> Verdict:
    """Score challenger and champion on the gate set, and judge."""
    with gate_progress() as on_image:
        verdict = retraining.gate(plan, version, on_image=on_image)
    announce_history(plan.settings.model, EventKind.GATED, version)
    return verdict


@task(task_run_name="move to {to}")  # no retries: a promotion that failed is looked at, not repeated on an old verdict
def move(plan: Plan, verdict: Verdict, to: Stage) -> ModelVersion:
    """Move the challenger to a stage, if production is still what it was judged against."""
    moved = retraining.move(plan, verdict, to)
    announce_history(moved.model, EventKind.PROMOTED if to is Stage.PRODUCTION else EventKind.STAGED, moved.version)
    return moved


@task(task_run_name="report")
def report(outcome: Outcome) -> Outcome:
    """Write the page with trials, verdict and pictures."""
    key = re.sub(r"[^a-z0-9]+", "-", f"retrain-{outcome.model}".lower()).strip("-")
    create_markdown_artifact(pages.markdown(outcome), key=key, description=pages.headline(outcome))
    return outcome
