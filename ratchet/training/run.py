"""One trial's MLflow run: opened, filled in batches, and closed as what it was."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.utils.git_utils import get_git_commit

from ratchet.registry.tracking import client, ensure_experiment
from ratchet.settings import TrialConfig

FINGERPRINT_TAG = "ratchet.fingerprint"
DATA_FINGERPRINT_TAG = "ratchet.data_fingerprint"
PARAMETERS_TAG = "ratchet.parameters"
FAILURE_TAG = "ratchet.failure"

MODEL_PATH = "deployment_model"

_PARAMS_PER_CALL = 100  # MLflow's limits
_METRICS_PER_CALL = 1000
_PARAM_LENGTH = 6000
_DIGEST_LENGTH = 36


class TrialRun:
    """A run that ends as FINISHED, as FAILED with its reason when an error leaves the block, or as KILLED."""

    def __init__(self, config: TrialConfig, *, name: str, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Open the run in the experiment `core.name`, with the configuration as its parameters."""
        self._client = client()
        user_tags = {"tag": config.core.tag} if config.core.tag else {}
        commit = get_git_commit(str(Path.cwd()))
        run = self._client.create_run(
            ensure_experiment(config.core.name),
            run_name=name,
            tags={
                FINGERPRINT_TAG: fingerprint,
                **({"mlflow.source.git.commit": commit} if commit else {}),
                **user_tags,
                **tags,
            },
        )
        self.run_id: str = run.info.run_id
        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in flatten(config.model_dump(mode="json"))]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_PER_CALL])

    def __enter__(self) -> TrialRun:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run."""
        if error is None:
            self._client.set_terminated(self.run_id, "FINISHED")
            return
        self.tag({FAILURE_TAG: f"{type(error).__name__}: {error}"[:_PARAM_LENGTH]})
        self._client.set_terminated(self.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        tag_run(self.run_id, tags)

    def log_dataset(self, name: str, fingerprint: str, source: str) -> None:
        """Name the data set and its content fingerprint as the run's input (the digest is cut to MLflow's length)."""
        dataset = Dataset(name=name, digest=fingerprint[:_DIGEST_LENGTH], source_type="local", source=source)
        self._client.log_inputs(
            self.run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )
        self.tag({DATA_FINGERPRINT_TAG: fingerprint})

    def log_metrics(self, rows: list[Metric]) -> None:
        """Log metric values in as few calls as MLflow takes."""
        for start in range(0, len(rows), _METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=rows[start : start + _METRICS_PER_CALL])

    def log_artifacts(self, directory: Path, path: str | None = None) -> None:
        """Upload a folder's files."""
        self._client.log_artifacts(self.run_id, str(directory), path)


def metric_rows(values: Mapping[str, float], step: int) -> list[Metric]:
    """Stamp metric values; characters that MLflow takes in no name become `_`."""
    now = int(time.time() * 1000)
    return [Metric(re.sub(r"[^\w/ .:-]", "_", name), float(value), now, step) for name, value in values.items()]


def flatten(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """List the leaves of a tree as dotted keys and values."""
    if isinstance(tree, Mapping) and tree:
        return [
            leaf for key, value in tree.items() for leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, tree)]


def find_finished(experiment: str, fingerprint: str) -> Run | None:
    """Return the newest FINISHED run of the experiment with this fingerprint whose deployment model is there, or None."""
    store = client()
    found = store.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = store.search_runs(
        [found.experiment_id],
        f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return next((run for run in runs if store.list_artifacts(run.info.run_id, MODEL_PATH)), None)


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on a run."""
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def close_dead_run(run_id: str | None, status: str, reason: str) -> None:
    """Close the run of a process that died before it could."""
    if run_id is None:
        return
    if client().get_run(run_id).info.status == "RUNNING":
        tag_run(run_id, {FAILURE_TAG: reason[:_PARAM_LENGTH]})
        client().set_terminated(run_id, status)
