"""What has been trained before, on any experiment of the tracking store: found by fingerprint, and taken over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from ratchet.errors import RatchetError
from ratchet.registry.searches import all_experiments, all_runs, ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import (
    CHECKPOINTS_PATH,
    FINGERPRINT_TAG,
    HEARTBEAT_TAG,
    MODEL_PATH,
    SCHEDULE_TAG,
    SWEEP_PREFIX,
)
from ratchet.settings import TrialConfig
from ratchet.training.ownership import OWNER_TAG
from ratchet.training.run import log_datasets, log_params, metric_history

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REUSED_TAG = "ratchet.reused_from"

_REQUESTS_AT_ONCE = 8  # MLflow's filters know no IN for tags, so that each fingerprint is a request of its own
_OF_THE_SOURCE = (
    "gate",
    CHECKPOINTS_PATH,
)  # artifacts that a copy does without: its verdicts, and what is to go on from


class TrainedBefore:
    """The runs of all experiments, by what they trained."""

    def __init__(self, store: MlflowClient | None = None) -> None:
        """Ask which experiments there are."""
        self._store = store or client()
        self._experiments: dict[str, str] = {found.experiment_id: found.name for found in all_experiments(self._store)}

    def runs(self, fingerprint: str, *, condition: str = "") -> list[Run]:
        """Every run of this very trial, the newest first."""
        return self._search(f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'{condition}")

    def finished(self, fingerprint: str, experiment: str) -> Run | None:
        """A FINISHED run of this trial whose model is there, rather one of this experiment; the newest."""
        found = self.runs(fingerprint, condition=" and attributes.status = 'FINISHED'")
        found.sort(key=lambda run: self.experiment_of(run) != experiment)
        return next((run for run in found if self._holds(run, MODEL_PATH)), None)

    def paused(self) -> set[str]:
        """The fingerprints of trials that wait for their next turn, in whatever sweep; one that was killed has left some, too."""
        return {run.data.tags.get(FINGERPRINT_TAG, "") for run in self._search("attributes.status = 'SCHEDULED'")}

    def all_finished(self, trials: Mapping[str, str]) -> dict[str, Run]:
        """What `finished` finds of many trials, given as fingerprint and experiment; asked side by side."""
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = pool.map(self.finished, trials.keys(), trials.values())
        return {fingerprint: run for fingerprint, run in zip(trials, found, strict=True) if run is not None}

    def shorter(
        self, schedule: str, epochs: int, *, holding: str | None, fits: Callable[[Run], bool] = lambda _: True
    ) -> tuple[Run, int] | None:
        """The FINISHED run of the same trial that has the most epochs, fewer than these, with the number of them.

        Its artifacts must have `holding`, and it must be one that `fits`.
        """
        found = self._search(f"tags.`{SCHEDULE_TAG}` = '{schedule}' and attributes.status = 'FINISHED'")
        trained = [(run, int(run.data.params.get("trainer.max_epochs", 0))) for run in found]
        fewer = sorted((pair for pair in trained if 0 < pair[1] < epochs and fits(pair[0])), key=lambda pair: -pair[1])
        return next((pair for pair in fewer if holding is None or self._holds(pair[0], holding)), None)

    def experiment_of(self, run: Run) -> str:
        """The name of a run's experiment."""
        return self._experiments.get(run.info.experiment_id, "")

    def note(self, run: Run, config: TrialConfig) -> str | None:
        """What to tell of a run that `into_experiment` is to take over."""
        experiment = self.experiment_of(run)
        return (
            None if experiment == config.core.name else f"copied from run {run.info.run_id} of experiment {experiment}"
        )

    def into_experiment(self, run: Run, config: TrialConfig, tags: Mapping[str, str]) -> Run:
        """The run itself if it is of the experiment `core.name`, else a copy there, which can be used like any run.

        The copy has parameters, metrics, data set, and all artifacts but the verdicts and what a training could go on
        from. It gets its fingerprint last, so that one that was cut short is never found.
        """
        if self.experiment_of(run) == config.core.name:
            # It stays in the sweep that trained it, where one did, and keeps what it says already.
            new = {key: value for key, value in tags.items() if key not in run.data.tags}
            if new:
                self._store.log_batch(run.info.run_id, tags=_as_tags(new))
            return run
        copy = self._store.create_run(ensure_experiment(config.core.name), run_name=run.info.run_name)
        try:
            return self._fill(copy.info.run_id, run, config, tags)
        except BaseException:
            with suppress(RatchetError, MlflowException):  # not to hide the error
                self._store.set_terminated(copy.info.run_id, "FAILED")
                self._store.delete_run(copy.info.run_id)
            raise

    def _fill(self, run_id: str, run: Run, config: TrialConfig, tags: Mapping[str, str]) -> Run:
        """Give a new run what another one has."""
        log_params(self._store, run_id, run.data.params)
        self._store.log_batch(run_id, metrics=metric_history(self._store, run))
        if run.inputs is not None:
            log_datasets(self._store, run_id, run.inputs.dataset_inputs)
        with tempfile.TemporaryDirectory(prefix="reused-") as folder:
            for entry in self._store.list_artifacts(run.info.run_id):
                if entry.path not in _OF_THE_SOURCE:
                    self._store.download_artifacts(run.info.run_id, entry.path, folder)
            if any(Path(folder).iterdir()):
                self._store.log_artifacts(run_id, folder)
        own = {OWNER_TAG, HEARTBEAT_TAG, SCHEDULE_TAG, "tag"}
        kept = {
            key: value
            for key, value in run.data.tags.items()
            if key not in own and not key.startswith(("mlflow.", SWEEP_PREFIX))
        }
        user_tag = {"tag": config.core.tag} if config.core.tag else {}
        self._store.log_batch(run_id, tags=_as_tags({**kept, **user_tag, **tags, REUSED_TAG: run.info.run_id}))
        self._store.set_terminated(run_id, "FINISHED")
        return self._store.get_run(run_id)

    def _search(self, condition: str) -> list[Run]:
        return all_runs(self._store, [*self._experiments], condition)

    def _holds(self, run: Run, path: str) -> bool:
        return bool(self._store.list_artifacts(run.info.run_id, path))


def _as_tags(tags: Mapping[str, str]) -> Sequence[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]
