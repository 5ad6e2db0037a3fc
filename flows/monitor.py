"""The monitoring flow: is the champion still as good on new data as on the images it was promoted on?"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ratchet.monitoring.values import MonitorSettings
from tasks.judgement import log_reading, read_champion
from tasks.runs import begin_run


@flow(name="monitor", flow_run_name="{model}: monitor")
def monitor(model: str, settings: MonitorSettings = MonitorSettings(), data: str = "") -> State[Any]:  # noqa: B008 - frozen
    """Score the champion on the labelled images that came since its training, and add the reading to its curve in MLflow.

    Args:
        model: The registered model's name.
        settings: What counts as worse.
        data: Folder of the data set, on the worker's machine. Empty: where the champion was trained on it.
    """
    begin_run()
    reading = read_champion(model, settings, data)
    if reading is None:
        return Completed(name="no champion", message=f"{model} has no version in production yet")
    log_reading(reading)
    return Completed(name=reading.state, message=reading.sentence, data=reading)
