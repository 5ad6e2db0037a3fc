"""What every model manager can do: the six operations that users write, whatever keeps the models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ratchet.registry.values import ModelVersion


class AbstractModelManager(ABC):
    """The six operations on a model registry. Every one raises a leaf of `RegistryError`; none ever asks on stdin."""

    @abstractmethod
    def register_model(
        self,
        model_location: str,
        model_name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Make a new version of `model_name` from a model directory, or from a file inside of one.

        Registering the same location again returns the version that is there, with `description` and `tags` updated.
        Raises `ModelFilesError` where the location holds no model; no empty registered model is left behind.
        """

    @abstractmethod
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
        """Register the model of the finished run with the best last value of `metric`, among those with `run_tags`.

        Raises `ExperimentNotFoundError`, `NoFinishedRunError` or `MetricNotLoggedError`, each listing what there is.
        """

    @abstractmethod
    def get_latest_version(self, model_name: str) -> ModelVersion:
        """The version with the highest number. Raises `ModelNotFoundError`, `VersionNotFoundError`."""

    @abstractmethod
    def transition_model(
        self, model_name: str, version: int | str, stage: str, description: str | None = None
    ) -> ModelVersion:
        """Move a version to none, staging, production or archived (any case), whoever is there now.

        The version that it replaces in staging or production becomes archived. Moving a version to where it is changes
        nothing. The champion leaves production only when another takes its place: `ProtectedVersionError`.
        """

    @abstractmethod
    def delete_model(
        self, model_name: str, version: int | str, description: str | None = None, *, force: bool = False
    ) -> None:
        """Delete a version. The champion and the rollback target need `force`: `ProtectedVersionError`."""

    @abstractmethod
    def download_model(self, model_name: str, version: int | str, output_path: str | Path) -> Path:
        """Copy the files of a version (or alias) into `output_path`, checked against their recorded sha256.

        Raises `ModelFilesError` if a file is absent or changed, or `output_path` already holds something.
        """
