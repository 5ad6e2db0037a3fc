"""The rollback flow: production returns to the version before, and the one that it left is quarantined."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.registry import roll_back
from tasks.run_page import tell_errors_in_sentences


@flow(name="rollback", flow_run_name="{model}: rollback")
def rollback(model: str, reason: str = "") -> State[Any]:
    """Put the version back that was in production before.

    Args:
        model: The registered model's name.
        reason: Why. It goes into the history. The version left is not promoted again until it is released.
    """
    tell_errors_in_sentences()
    now = roll_back(model, reason)
    return Completed(message=f"v{now.version} of {model} is in production again", data=now)
