"""The model manager on MLflow: the registry of any tracking store, and the selection among its runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from ratchet.registry import tracking
from ratchet.registry.manager import LedgerModelManager
from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.mlflow_store import MlflowStore
from ratchet.registry.selection import MlflowSelection
from ratchet.registry.values import BestRun, ModelVersion


class MlflowModelManager(LedgerModelManager):
    """A model manager on MLflow: SQLite, a server over HTTP, or a database.

    Stages are written beside the aliases for as long as MLflow has them; `stages=False` does without.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        who: str | None = None,
        stages: bool = True,
    ) -> None:
        """Open the tracking store (None: `ratchet.registry.tracking.tracking_uri()`).

        Raises `ServerUnreachableError` within seconds if nothing answers there.
        """
        uri = tracking_uri or tracking.tracking_uri()
        opened = tracking.client(uri)
        super().__init__(MlflowStore(opened, uri, stages=stages), who)
        self._selection = MlflowSelection(opened, uri, MlflowFiles(opened, uri))

    def best_run(
        self,
        experiment_name: str,
        metric: str,
        mode: Literal["min", "max"] = "max",
        *,
        tags: Mapping[str, str] | None = None,
        model_path: str = "deployment_model",
        among: Collection[str] | None = None,
    ) -> BestRun:
        """The finished run, among those with `tags`, whose last value of `metric` is best and whose model is there.

        With `among`, only runs of these ids are looked at.
        Ties go to fewer parameters, then to the earlier start. Raises `ExperimentNotFoundError`, `NoFinishedRunError`
        or `MetricNotLoggedError`, each listing what there is.
        """
        return next(self._selection.candidates(experiment_name, metric, mode, tags, model_path, among))

    def register_best_model(
        self,
        experiment_name: str,
        metric: str,
        model_name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        mode: Literal["min", "max"] = "max",
        model_path: str = "deployment_model",
        *,
        run_tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Register the model of the best run; one whose files cannot be read gives way to the next best."""
        ranked = self._selection.candidates(experiment_name, metric, mode, run_tags, model_path)
        return self._register_first(ranked, model_name, description, tags)
