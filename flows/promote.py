"""The promotion flow: a person moves a version to staging or production."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.registry import promote_version
from tasks.runs import begin_run


@flow(name="promote", flow_run_name="{model}: v{version} to {to}")
def promote(
    model: str, version: int, to: Literal["staging", "production"] = "production", reason: str = ""
) -> State[Any]:
    """Move a version of a model to staging or production, without asking the gate.

    Args:
        model: The registered model's name.
        version: Which version goes there.
        to: Where it goes. The version that is there now becomes archived.
        reason: Why. It goes into the history.
    """
    begin_run()
    moved = promote_version(model, version, to, reason)
    return Completed(message=f"v{moved.version} of {model} is in {moved.stage.value.lower()}", data=moved)
