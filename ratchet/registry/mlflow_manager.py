"""The model manager on MLflow: the registry of any tracking store, and the selection among its runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ratchet.registry import tracking
from ratchet.registry.manager import LedgerModelManager
from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.mlflow_store import MlflowStore
from ratchet.registry.selection import MlflowSelection
from ratchet.registry.values import BestRun


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

    def _candidates(
        self,
        experiment_name: str,
        metric: str,
        mode: str,
        tags: Mapping[str, str] | None,
        model_path: str,
        among: Collection[str] | None = None,
    ) -> Iterator[BestRun]:
        return self._selection.candidates(experiment_name, metric, mode, tags, model_path, among)
