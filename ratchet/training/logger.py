"""Lightning's logger onto a trial's run: values are kept back and sent in batches, and none is lost when training ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from mlflow.entities import Metric
from pytorch_lightning.loggers.logger import Logger

from ratchet.training.run import TrialRun, metric_rows


class RunLogger(Logger):
    """Sends metrics when `batch` values wait, when an epoch's come and when training ends.

    It does not end the run: that is done when the model is exported.
    """

    def __init__(self, *, run: TrialRun, batch: int = 200) -> None:
        super().__init__()
        self._run = run
        self._batch = batch
        self._waiting: list[Metric] = []

    @property
    def name(self) -> str:
        """The logger's name."""
        return "mlflow"

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.run_id

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Do nothing: the run has the whole configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep values back, or send what waits."""
        rows = metric_rows({name: value for name, value in metrics.items() if name != "epoch"}, step or 0)
        self._waiting += rows
        if len(self._waiting) >= self._batch or any(row.key.endswith("_epoch") for row in rows):
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Send what waits."""
        rows, self._waiting = self._waiting, []
        self._run.log_metrics(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what waits, whatever the status."""
        self.save()
