"""The retention flow: old archived, rejected and inconclusive versions go, whatever production may need stays."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.registry import prune_versions
from tasks.runs import begin_run


@flow(name="prune", flow_run_name="{model}: prune")
def prune(model: str, keep: int = 10, dry_run: bool = False) -> State[Any]:
    """Delete old archived, rejected and inconclusive versions of a model, and the heavy files of their sweeps' runs.

    Args:
        model: The registered model's name.
        keep: How many archived, rejected and inconclusive versions stay.
        dry_run: Only say what would go.
    """
    begin_run()
    plan = prune_versions(model, keep, dry_run)
    gone = ", ".join(f"v{version}" for version in plan.goes) or "nothing"
    runs = f", with the models of {len(plan.runs)} runs" if plan.runs else ""
    return Completed(message=f"{'would go' if dry_run else 'gone'}: {gone}{runs}", data=plan)
