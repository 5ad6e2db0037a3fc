"""Lightning's logger onto a trial's run: values are kept back and sent in batches, and none is lost when training ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from mlflow import MlflowClient
from mlflow.entities import Metric
from pytorch_lightning.loggers.logger import Logger

from ratchet.training.run import TrialRun, metric_rows, unsent_line, unsent_rows


class RunLogger(Logger):
    """Sends metrics when `batch` values wait, every `seconds`, when an epoch's come and when training ends.

    What waits is in the file `unsent` too, for `close_dead_run` or for the process that goes on with the run, which sends it
    first: one that is killed sends nothing, and its last snapshot may be of the step whose values wait. It does not end the
    run: that is done when the model is exported.
    """

    def __init__(self, *, run: TrialRun, unsent: Path, batch: int = 200, seconds: float = 5.0) -> None:
        super().__init__()
        self._run = run
        self._batch, self._seconds = batch, seconds
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()
        run.log_metrics(unsent_rows(unsent, run.run_id))
        self._file = unsent.open("w")

    @property
    def name(self) -> str:
        """The logger's name."""
        return "mlflow"

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.run_id

    @property
    def experiment(self) -> MlflowClient:
        """MLflow's client, as callbacks know it from Lightning's own logger."""
        return self._run.client

    @property
    def run_id(self) -> str:
        """The run's id, for that client."""
        return self._run.run_id

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Do nothing: the run has the whole configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep values back, or send what waits."""
        rows = metric_rows({name: value for name, value in metrics.items() if name != "epoch"}, step or 0)
        self._waiting += rows
        self._file.writelines(f"{unsent_line(row, self._run.run_id)}\n" for row in rows)
        self._file.flush()
        late = time.monotonic() - self._sent >= self._seconds
        if late or len(self._waiting) >= self._batch or any(row.key.endswith("_epoch") for row in rows):
            self.send()

    def save(self) -> None:
        """Do nothing: Lightning calls this after each of its calls of `log_metrics`."""

    @rank_zero_only
    def send(self) -> None:
        """Send what waits; what cannot be sent stays in the file."""
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        self._run.log_metrics(rows)
        self._sent = time.monotonic()
        self._file.seek(0)
        self._file.truncate()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what waits, whatever the status."""
        self.send()
