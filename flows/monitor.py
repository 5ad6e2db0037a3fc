"""The monitoring flow."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ratchet.monitoring import MonitorSettings


@flow(name="monitor", flow_run_name="{model}: monitor")
def monitor(model: str, settings: MonitorSettings = MonitorSettings()) -> State[Any]:  # noqa: B008 - frozen
    """Score the champion on the newest labelled data."""
    return Completed(message="todo")
