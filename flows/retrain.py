"""The retraining flow: sweep, select, register, judge, stage, ask, promote, report."""

# No `from __future__ import annotations` here: `retrain.serve()` sends the flow to its process by value, with the names
# that its code uses, but without those that only annotations use.

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ratchet.form import (
    Architecture,
    Destination,
    Direction,
    Encoder,
    Epochs,
    Experiment,
    Hours,
    PolicyPreset,
    RetrainForm,
)
from ratchet.outcome import Outcome, conclude, skip, stand
from ratchet.registry import Stage
from ratchet.retraining import standing
from tasks.approval import ask_for_approval, earlier_answer, require_deployment, turn_down
from tasks.retraining import gate, move, plan_retraining, register, report, select_best, sweep
from tasks.run_page import first_name
from tasks.runs import begin_run


@flow(name="retrain", flow_run_name=first_name)
def retrain(
    model: str = "",
    experiment: Experiment = "as configured",
    data: str = "",
    architectures: list[Architecture] = [],  # noqa: B006 - never changed
    encoders: list[Encoder] = [],  # noqa: B006
    epochs: Epochs = 0,
    metric: str = "",
    mode: Direction = "as configured",
    policy: PolicyPreset = "as configured",
    to: Destination = "as configured",
    approval: bool = False,
    approval_hours: Hours = 72,
    overrides: list[str] = [],  # noqa: B006
) -> State[Any]:
    """Train, and put into production only what is proven better.

    Args:
        model: Name of the registered model. Empty: the experiment's name.
        experiment: Which settings are trained on which data: an entry of configs/experiment, or of a tree of your own.
        data: Folder of images and masks, on the worker's machine. Empty: the experiment's.
        architectures: Networks to try, each with every encoder. None: the experiment's.
        encoders: Encoders to try. None: the experiment's. Others: backbone.model.encoder_name=... below.
        epochs: How often a trial sees the training images, 1 to 1000. 0: as the experiment says.
        metric: Metric that selects the best trial, as MLflow names it: val_iou, val_dice, val_loss_epoch, ... Empty: val_iou.
        mode: Whether the largest (max) or the smallest (min) value of the metric is best. As configured: max.
        policy: What the gate asks of the best trial before it may replace the champion.
        to: How far a model goes that is proven better. As configured: production.
        approval: Ask a person before production. Nothing runs meanwhile; the question stands on this run's page.
        approval_hours: How long the question stands. After that the answer is no.
        overrides: For experts: Hydra overrides such as optimizer.lr=0.01. They win over all above. A list of values, as in
            datamodule.batch_size=8,16, makes a trial of each; optimizer.lr=tag(log,interval(1e-4,1e-2)) is searched.
    """
    begin_run()
    if approval:
        require_deployment()
    form = RetrainForm(
        model=model, experiment=experiment, data=data, architectures=tuple(architectures), encoders=tuple(encoders),
        epochs=epochs, metric=metric, mode=mode, policy=policy, to=to, overrides=tuple(overrides),
    )  # fmt: skip
    plan = plan_retraining(form)
    if plan.unchanged_since is not None:
        return _completed(report(skip(plan)))
    trials = sweep(plan)
    best = select_best(plan, trials)
    if (there := standing(plan, best)) is not None:
        return _completed(report(stand(plan, best, trials, there)))
    version = register(plan, best, trials).version
    verdict, answer = gate(plan, version), None
    if verdict.passed:
        move(plan, verdict, Stage.STAGING)
    if verdict.passed and approval and plan.settings.to == "production":
        answer = ask_for_approval(plan, best, verdict, conclude(plan, best, trials, verdict), approval_hours)
        if answer.approved:
            verdict = gate(plan, version)  # the same, unless production changed while the run waited
    elif approval:  # production may have changed, and the run have been interrupted, after it was answered
        answer = earlier_answer(plan, version)
    if verdict.passed and plan.settings.to == "production" and (answer is None or answer.approved):
        move(plan, verdict, Stage.PRODUCTION)
    elif answer is not None:
        turn_down(plan, version, verdict.sentence if answer.approved else answer.sentence)
    return _completed(report(conclude(plan, best, trials, verdict, answer)))


def _completed(outcome: Outcome) -> State[Outcome]:
    """Say in the flow run's state what became of the challenger; only a broken run is Failed."""
    name = outcome.summary if outcome.status == "skipped" else outcome.status
    return Completed(name=name, message=outcome.message, data=outcome)
