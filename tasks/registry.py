"""Upkeep of the registry as Prefect tasks."""

from __future__ import annotations

from prefect import task

from ratchet import MlflowModelManager
from ratchet.registry import PrunePlan


@task(task_run_name="prune {model}")
def prune_versions(model: str, keep: int, dry_run: bool) -> PrunePlan:
    """Delete versions beyond the policy, and the heavy files of their runs."""
    return MlflowModelManager().prune(model, keep=keep, dry_run=dry_run)
