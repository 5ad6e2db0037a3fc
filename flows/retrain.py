"""The retraining flow: sweep, select, register, judge, stage, promote, report."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ratchet.registry import Stage
from ratchet.retraining import Outcome, conclude, skip
from tasks.retraining import gate, move, plan_retraining, register, report, select_best, sweep
from tasks.runs import begin_run


@flow(name="retrain")
def retrain(
    overrides: list[str],
    model: str | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    to: Literal["staging", "production"] | None = None,
) -> State[Any]:
    """Train, and put into production only what is proven better.

    Args:
        overrides: Hydra overrides, such as `experiment=generic/shapes/segmentation/smp` or `trainer.max_epochs=5`. A list
            of values (`backbone.model.arch=unet,fpn`) makes a trial of each; several lists, of each combination.
        model: The registered model's name. Empty: the experiment's name, `core.name`.
        metric: The metric that selects the best trial, as it is named in MLflow. Empty: `val_iou`.
        mode: Whether the largest (max) or the smallest (min) value is the best. Empty: max.
        to: How far a challenger that is proven better goes. Empty: production.
    """
    begin_run()
    plan = plan_retraining(overrides, model=model, metric=metric, mode=mode, to=to)
    if plan.unchanged_since is not None:
        return _completed(skip(plan))
    trials = sweep(plan)
    best = select_best(plan)
    version = register(plan, best).version
    verdict = gate(plan, version)
    if verdict.passed:
        move(plan, verdict, Stage.STAGING)
    if verdict.passed and plan.settings.to == "production":
        move(plan, verdict, Stage.PRODUCTION)
    return _completed(report(conclude(plan, best, trials, verdict)))


def _completed(outcome: Outcome) -> State[Outcome]:
    """Say in the flow run's state what became of the challenger; only a broken run is Failed."""
    name = outcome.summary if outcome.status == "skipped" else outcome.status
    return Completed(name=name, message=outcome.summary, data=outcome)
