"""One trial's MLflow run: opened, filled in batches, and closed as what it was."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.git_utils import get_git_commit

from ratchet.errors import RatchetError, TrialTakenError
from ratchet.registry.mlflow_files import MlflowFiles
from ratchet.registry.ranking import as_logged
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import answering, client, tracking_uri
from ratchet.run_names import DATA_FINGERPRINT_TAG, FAILURE_TAG, PRUNED_TAG, STOPPED_TAG
from ratchet.settings import TrialConfig, flatten
from ratchet.training.folder import link
from ratchet.training.metric_names import logged_name
from ratchet.training.ownership import OWNER_TAG, Ownership

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_PARAM_LENGTH = 6000  # MLflow's limits
_DIGEST_LENGTH = 36


class TrialRun:
    """A run that ends as FINISHED, as FAILED with its reason when an error leaves the block, or as KILLED.

    After `pause` it ends as SCHEDULED: it is to go on later. `client` is of its store; `rows` are the metric values that
    are there already, `tags` those that this process knows of.
    """

    def __init__(self, store: MlflowClient, run: Run, ownership: Ownership, rows: Sequence[Metric] = ()) -> None:
        """Work on a run that this process owns."""
        self.client = store
        self._ownership = ownership
        self._paused = False
        self.tags: dict[str, str] = dict(run.data.tags)
        self._logged = {(row.key, row.step) for row in rows}
        self.rows = sorted(rows, key=lambda row: row.step)
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        place = urlsplit(run.info.artifact_uri)
        self._local_artifacts = Path(unquote(place.path)) if place.scheme in ("", "file") else None

    @classmethod
    def create(
        cls, store: MlflowClient, config: TrialConfig, ownership: Ownership, *, name: str, tags: Mapping[str, str]
    ) -> TrialRun:
        """Open a new run in the experiment `core.name`, with the configuration as its parameters."""
        user_tags = {"tag": config.core.tag} if config.core.tag else {}
        commit = get_git_commit(str(Path.cwd()))
        git_tags = {"mlflow.source.git.commit": commit} if commit else {}
        run = store.create_run(
            ensure_experiment(config.core.name),
            run_name=name,
            tags={**git_tags, **user_tags, **tags, **ownership.tags()},
        )
        log_params(store, run.info.run_id, dict(flatten(config.model_dump(mode="json"))))
        return cls(store, run, ownership)

    @classmethod
    def reopen(cls, store: MlflowClient, run: Run, ownership: Ownership, *, tags: Mapping[str, str]) -> TrialRun:
        """Open an interrupted run again, which this process has claimed."""
        for tag in {FAILURE_TAG, PRUNED_TAG, STOPPED_TAG} & run.data.tags.keys():
            store.delete_tag(run.info.run_id, tag)
        opened = cls(store, run, ownership, metric_history(store, run))
        opened.tag(tags)
        return opened

    def __enter__(self) -> TrialRun:
        """Start the heartbeat."""
        self._ownership.start(self.run_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run, if it is still this process's."""
        self._ownership.stop()
        if error is None:
            self.client.set_terminated(self.run_id, "SCHEDULED" if self._paused else "FINISHED")
            return
        try:
            if isinstance(error, TrialTakenError) or self._is_taken():
                return
            self.tag({FAILURE_TAG: f"{type(error).__name__}: {error}"[:_PARAM_LENGTH]})
            self.client.set_terminated(self.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        except (RatchetError, MlflowException) as away:  # not to hide why the trial ended
            logger.warning("run %s still looks as if it ran: %s", self.run_id, away)

    def _is_taken(self) -> bool:
        """Whether another machine took the run over while this one slept, and was not told of it by a beat yet."""
        try:
            self._ownership.confirm()
        except TrialTakenError:
            return True
        return False

    def pause(self) -> None:
        """End the block as SCHEDULED."""
        self._paused = True

    def require_owner(self) -> None:
        """Raise `TrialTakenError` if another machine took the run over."""
        self._ownership.require()

    def confirm_owner(self) -> None:
        """Ask the server, and raise `TrialTakenError` if another machine took the run over."""
        self._ownership.confirm()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self.tags |= tags

    def delete_tag(self, key: str) -> None:
        """Delete a tag; one that somebody else has deleted is fine."""
        try:
            self.client.delete_tag(self.run_id, key)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        self.tags.pop(key, None)

    def log_dataset(self, name: str, fingerprint: str, source: str) -> None:
        """Name the data set and its content fingerprint as the run's input (the digest is cut to MLflow's length)."""
        dataset = Dataset(name=name, digest=fingerprint[:_DIGEST_LENGTH], source_type="local", source=source)
        log_datasets(self.client, self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        self.tag({DATA_FINGERPRINT_TAG: fingerprint})

    def log_metrics(self, rows: Sequence[Metric]) -> None:
        """Log metric values, but none twice for its step: a resumed training repeats the steps after its snapshot."""
        new = [row for row in rows if (row.key, row.step) not in self._logged]
        if not new:
            return
        with answering(tracking_uri()):
            self.client.log_batch(self.run_id, metrics=new)
        self._logged |= {(row.key, row.step) for row in new}
        self.rows += new

    def log_artifacts(self, directory: Path, path: str | None = None) -> None:
        """Upload a folder's files; where they stay on this disk they are linked, since a trial leaves 300 MB."""
        if self._local_artifacts is None:
            self.client.log_artifacts(self.run_id, str(directory), path)
        else:
            target = self._local_artifacts / (path or "")
            shutil.copytree(directory, target, copy_function=link, dirs_exist_ok=True)

    def log_artifact(self, file: Path, path: str) -> None:
        """Upload a file into a folder."""
        self.client.log_artifact(self.run_id, str(file), path)

    def fetch(self, path: str, into: Path) -> Path | None:
        """Download a folder; None where there is none."""
        if not self.client.list_artifacts(self.run_id, path):
            return None
        return Path(self.client.download_artifacts(self.run_id, path, str(into)))

    def names(self, path: str) -> list[str]:
        """The files and folders in a folder of its artifacts, by their paths."""
        return [entry.path for entry in self.client.list_artifacts(self.run_id, path)]

    def delete_artifacts(self, path: str) -> None:
        """Delete a folder's files; one that is not there is fine, and a server that does not let us keeps them."""
        try:
            MlflowFiles(self.client, tracking_uri()).lighten(self.run_id, [path])
        except (RatchetError, MlflowException, OSError, NotImplementedError) as error:
            logger.warning("%s of run %s stays with its artifacts: %s", path, self.run_id, error)


def log_datasets(store: MlflowClient, run_id: str, datasets: Sequence[DatasetInput]) -> None:
    """Log a run's inputs.

    Of two runs that begin at once on data that are new to an experiment, MLflow refuses one: both insert the data set.
    The second time it is there.
    """
    try:
        store.log_inputs(run_id, datasets=list(datasets))
    except MlflowException:
        store.log_inputs(run_id, datasets=list(datasets))


def log_params(store: MlflowClient, run_id: str, values: Mapping[str, object]) -> None:
    """Log parameters; a long value is cut."""
    store.log_batch(run_id, params=[Param(key, str(value)[:_PARAM_LENGTH]) for key, value in values.items()])


def metric_history(store: MlflowClient, run: Run) -> list[Metric]:
    """All values that a run has logged: a request for each name."""
    return [row for key in sorted(run.data.metrics) for row in logged_rows(store, run.info.run_id, key)]


def logged_rows(store: MlflowClient, run_id: str, metric: str) -> list[Metric]:
    """The values of a metric in the order of their steps; of a finished run, the last is that of the exported weights."""
    rows = sorted(store.get_metric_history(run_id, metric), key=lambda row: (row.step, row.timestamp))
    return [Metric(row.key, as_logged(row.value), row.timestamp, row.step) for row in rows]


def last_values(run: Run) -> dict[str, float]:
    """The last value of each metric of a run."""
    return {key: as_logged(value) for key, value in run.data.metrics.items()}


def metric_rows(values: Mapping[str, float], step: int) -> list[Metric]:
    """Stamp metric values; characters that MLflow takes in no name become `_`."""
    now = int(time.time() * 1000)
    return [Metric(logged_name(name), float(value), now, step) for name, value in values.items()]


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on a run."""
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def validations(run_id: str, metric: str) -> list[float]:
    """The values of a metric, in the order of `logged_rows`."""
    return [row.value for row in logged_rows(client(), run_id, metric)]


def end_run(run_id: str | None, status: str, tags: Mapping[str, str], *, owner: str | None = None) -> None:
    """End a run that nobody works on, and say why in its tags; one that has finished, or was deleted, stays so.

    So does one that is RUNNING, unless `owner` is its process, which was ended: another sweep is at work on it.
    """
    run = None if run_id is None else client().get_run(run_id)
    if run is None or run.info.status == "FINISHED" or run.info.lifecycle_stage != "active":
        return
    if run.info.status == "RUNNING" and not owned_by(run, owner):
        return
    tag_run(run.info.run_id, tags)
    client().set_terminated(run.info.run_id, status)


def owned_by(run: Run, owner: str | None) -> bool:
    """Whether it is this process, as `TrialProcess.owner` names it, that works on a run, or did so last."""
    return owner is not None and run.data.tags.get(OWNER_TAG, "").startswith(f"{owner}/")


def unsent_line(row: Metric, run_id: str) -> str:
    """A metric value as a line of the file that keeps what was not sent yet."""
    return json.dumps({**dict(row), "run_id": run_id})


def unsent_rows(file: Path, run_id: str) -> list[Metric]:
    """The metric values of a run in such a file, up to a line that is torn, as where the disk was full."""
    rows = []
    with suppress(ValueError):
        for line in file.read_text().splitlines() if file.is_file() else ():
            found = json.loads(line)
            if found["run_id"] == run_id:
                rows.append(Metric(found["key"], found["value"], found["timestamp"], found["step"]))
    return rows


def close_dead_run(
    run_id: str | None, status: str, reason: str, *, unsent: Path | None = None, owner: str | None = None
) -> None:
    """Close the run of a process that died before it could, with the metric values that it had not sent.

    With `owner`, what was read of its tag, only if nobody has taken it over since.
    """
    if run_id is None:
        return
    if owner is not None and client().get_run(run_id).data.tags.get(OWNER_TAG) != owner:
        return
    if unsent is not None:
        # What it had sent just then comes a second time, and MLflow keeps it once.
        client().log_batch(run_id, metrics=unsent_rows(unsent, run_id))
    if client().get_run(run_id).info.status == "RUNNING":
        tag_run(run_id, {FAILURE_TAG: reason[:_PARAM_LENGTH]})
        client().set_terminated(run_id, status)
