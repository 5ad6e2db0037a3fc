"""Which deployments a model has, as the `deployments` of a prefect.yaml: plain data, made from its model file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.service.models import ModelFile

POOL = "ratchet"
LONG, SHORT = "long", "default"
"""The queues of the pool: of what trains, scores or looks through data; of what a person waits for, which Prefect makes."""

TAG = "ratchet"
RESTARTS = "restarts"
"""Tag of deployments whose runs may be taken up again after a crash: every step of theirs is safe to repeat."""

MODELS = "deployments/models"
"""The folder of the model files, unless another one is named."""

HEARTBEAT_SECONDS = 30
"""How often a run says that it lives: the least that Prefect takes."""

ZOMBIE_SECONDS = 3 * HEARTBEAT_SECONDS
"""How long a run may be silent until it counts as dead: three heartbeats, since one can be late on a busy machine."""

RUNS = 4
"""Long runs at a time, unless `ratchet up --runs` says otherwise.

More than memory speaks for a limit: where many runs are late at once, a worker without one proposes all of them together, and
Prefect's server on SQLite, which has 15 connections, then waits for itself for minutes (seen with ten).
"""

BESIDE = 4
"""Further runs that the pool takes: a promotion or a rollback waits for none of the long ones, however many are due."""

Deployment = dict[str, Any]


def model_deployments(model: ModelFile) -> list[Deployment]:
    """Every deployment of one model. What is switched off is there all the same, without its schedule or trigger."""
    asking = {"approval": model.approval, "approval_hours": model.approval_hours}
    retraining = {**model.form.model_dump(mode="json", exclude_defaults=True), **asking}
    data = {} if model.data is None else {"data": model.data}
    monitoring = {"model": model.name, "settings": model.monitor.model_dump(mode="json"), **data}
    watching = {"model": model.name, "overrides": list(model.all_overrides), **model.watch.model_dump(mode="json")}
    pruning = {"model": model.name, **model.prune.model_dump(mode="json")}
    when, triggers = model.schedules, model.triggers
    return [
        _deployment(model, "retrain", "scheduled", "Retrains, if anything changed.", retraining, cron=when.retrain),
        _deployment(model, "retrain", "on-demand", "Retrains when somebody presses Run.", retraining),
        _deployment(
            model,
            "retrain",
            "on-new-data",
            "Retrains when the data changed.",
            retraining,
            trigger=_trigger(model, "on new data", "ratchet.data.changed", triggers.new_data),
        ),
        _deployment(
            model,
            "retrain",
            "on-degradation",
            "Retrains when production got worse.",
            retraining,
            trigger=_trigger(model, "on degradation", "ratchet.model.degraded", triggers.degradation),
        ),
        _deployment(
            model,
            "monitor",
            "scheduled",
            "Scores the champion on the newest labelled data.",
            monitoring,
            cron=when.monitor,
        ),
        _deployment(model, "watch", "scheduled", "Looks whether the data changed.", watching, cron=when.watch),
        _deployment(model, "promote", "on-demand", "Moves a version to staging or production.", {"model": model.name}),
        _deployment(
            model,
            "rollback",
            "on-demand",
            "Returns production to the version before.",
            {"model": model.name},
            restarts=False,  # a second rollback would go further back
        ),
        _deployment(model, "gate", "on-demand", "Judges a version against the champion.", {"model": model.name}),
        _deployment(model, "prune", "weekly", "Deletes old versions.", pruning, cron=when.prune),
    ]


def limit_name(model: str) -> str:
    """The concurrency limit that all retrainings of a model share."""
    return f"retrain {model}"


def tags_of(model: str) -> list[str]:
    """The tags by which a model's deployments and runs are found."""
    return [TAG, f"model:{model}"]


def all_deployments(models: Iterable[ModelFile]) -> list[Deployment]:
    """The deployments of all models."""
    return [deployment for model in models for deployment in model_deployments(model)]


def full_name(deployment: Deployment) -> str:
    """`flow/deployment`, as Prefect writes it."""
    return f"{deployment['entrypoint'].split(':')[1]}/{deployment['name']}"


def _deployment(
    model: ModelFile,
    flow: str,
    when: str,
    description: str,
    parameters: dict[str, Any],
    *,
    cron: str | None = None,
    trigger: dict[str, Any] | None = None,
    restarts: bool = True,
) -> Deployment:
    # New data are announced once: a run that were cancelled would never be made up for.
    queues = model.collision == "queue" or when == "on-new-data" if flow == "retrain" else flow == "gate"
    limit: dict[str, Any] = {"limit": 1, "collision_strategy": "ENQUEUE" if queues else "CANCEL_NEW"}
    made: Deployment = {
        "name": f"{when}-{model.name}",
        "entrypoint": f"flows.{flow}:{flow}",
        "description": " ".join([f"{model.name}: {description}", model.description]).strip(),
        "tags": [*tags_of(model.name), *([RESTARTS] if restarts else [])],
        "parameters": parameters,
        "work_pool": {
            "name": POOL,
            "work_queue_name": SHORT if flow in ("promote", "rollback") else LONG,
            "job_variables": {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}},
        },
        # After downtime all the runs that were missed are late together: the limit lets one of them start.
        "concurrency_limit": limit | ({"shared": limit_name(model.name)} if flow == "retrain" else {}),
    }
    if cron is not None:
        # By its slug, what the file switched off differs from what somebody switched off on the page.
        made["schedules"] = [
            {
                "cron": cron,
                "timezone": model.timezone,
                "slug": when if model.enabled else f"{when}-off",
                "active": model.enabled,
            }
        ]
    if trigger is not None:
        made["triggers"] = [trigger]
    return made


def _trigger(model: ModelFile, when: str, event: str, enabled: bool) -> dict[str, Any]:
    return {
        "name": f"retrain {model.name} {when}",
        "description": f"Runs the deployment at the event {event}.",
        "enabled": enabled and model.enabled,
        "type": "event",
        "posture": "Reactive",
        "expect": [event],
        "match": {"prefect.resource.id": f"ratchet.model.{model.name}"},
        "threshold": 1,
        "within": 0,
    }
