"""Operations on the registry as Prefect tasks."""

from __future__ import annotations

from typing import Literal

from prefect import task

from ratchet import MlflowModelManager
from ratchet.registry import EventKind, ModelVersion, PrunePlan
from tasks.events import announce_history


@task(task_run_name="prune {model}")
def prune_versions(model: str, keep: int, dry_run: bool) -> PrunePlan:
    """Delete versions beyond the policy, and the heavy files of their runs; nothing of a model that is yet to come."""
    manager = MlflowModelManager()
    return manager.prune(model, keep=keep, dry_run=dry_run) if model in manager.models() else PrunePlan(model, ())


@task(task_run_name="promote v{version} to {to}")
def promote_version(model: str, version: int, to: Literal["staging", "production"], reason: str) -> ModelVersion:
    """Move a version on somebody's word."""
    moved = MlflowModelManager().promote(model, version, to, reason=reason)
    announce_history(model, EventKind.PROMOTED if to == "production" else EventKind.STAGED, version)
    return moved


@task(task_run_name="roll back {model}")
def roll_back(model: str, reason: str) -> ModelVersion:
    """Return production to the version before."""
    manager = MlflowModelManager()
    left = manager.champion(model)
    now = manager.rollback(model, reason)
    if left is not None:
        announce_history(model, EventKind.ROLLED_BACK, left.version)
    return now
