"""How a trial begins: it is there already, goes on in its interrupted run, continues a shorter training, or is new."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from ratchet.errors import RatchetError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import (
    BATCH_SIZE_TAG,
    CHECKPOINT_TAG,
    CHECKPOINTS_PATH,
    FAILURE_TAG,
    FINGERPRINT_TAG,
    NESTED_TAG,
    PRECISION_TAG,
    RESUME_PATH,
    SCHEDULE_TAG,
    THREADS_TAG,
)
from ratchet.settings import TrialConfig
from ratchet.training.fingerprint import fixed_length, schedule_fingerprint, schedule_lengths
from ratchet.training.folder import Note, Snapshot, TrialFolder
from ratchet.training.ownership import OWNER_TAG, Ownership, await_owner, machine
from ratchet.training.reuse import TrainedBefore
from ratchet.training.run import TrialRun, close_dead_run, metric_history
from ratchet.training.warm_start import copy_ancestry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RESUMED_TAG = "ratchet.resumed_at"
_KEPT = (BATCH_SIZE_TAG, PRECISION_TAG, THREADS_TAG)  # what the machine that began a training settled for all of it
CONTINUED_TAG = "ratchet.continued_from"

_MOST_SECONDS_TO_YIELD = 10.0


@dataclass(frozen=True)
class Beginning:
    """A finished run to reuse, or the run to train in; its folder holds the snapshot to go on from, if there is one."""

    finished: Run | None = None
    run: TrialRun | None = None
    note: str | None = None


def begin(
    config: TrialConfig,
    folder: TrialFolder,
    *,
    name: str,
    fingerprint: str,
    data_fingerprint: str,
    tags: Mapping[str, str],
    on_wait: Callable[[str], None],
    on_start: Callable[[str], None],
) -> Beginning:
    """Find out what is there of this trial, and open the run to work in. The caller holds the folder's lock.

    A trial that another machine works on is waited for; `on_start` is told a run that is taken up. Raises `RegistryError`.
    """
    store, before = client(), TrainedBefore()
    here = machine(config.core.home)
    while True:
        ownership = Ownership(store, here)
        finished = None if config.sweep.force else before.finished(fingerprint, config.core.name)
        if finished is not None:
            return Beginning(
                finished=before.into_experiment(finished, config, tags), note=before.note(finished, config)
            )
        open_runs = _open_runs(before, folder, fingerprint, config.sweep.force)
        ended = [await_owner(store, run.info.run_id, here, on_wait=on_wait) for run in open_runs]
        if any(run.info.status == "FINISHED" for run in ended):
            continue
        chosen, upload = _chosen(folder, ended)
        if chosen is not None and not ownership.claim(chosen):
            continue
        with _closed_at_an_error(store, chosen, ownership):
            if chosen is not None:
                on_start(chosen.info.run_id)
            for dead in ended:
                if chosen is None or dead.info.run_id != chosen.info.run_id:
                    why, owner = "its process died, and left nothing to go on from", dead.data.tags.get(OWNER_TAG)
                    close_dead_run(dead.info.run_id, "KILLED", why, owner=owner)
            if chosen is None:
                marks = {FINGERPRINT_TAG: fingerprint, SCHEDULE_TAG: schedule_fingerprint(config, data_fingerprint)}
                run, note = _new(store, before, config, folder, ownership, name, {**marks, **tags})
            else:
                # Before its snapshot is there: killed in between, this process would go on from it in another run.
                folder.write_note(Note(run_id=chosen.info.run_id, forced=config.sweep.force))
                if upload is not None:
                    folder.adopt(_fetch(store, chosen.info.run_id, upload, folder))
                run, note = _resumed(store, chosen, folder, ownership, config, tags)
            folder.write_note(Note(run_id=run.run_id, forced=config.sweep.force))
        on_start(run.run_id)
        if config.sweep.force or not _begun_by_others(store, fingerprint, run):
            return Beginning(run=run, note=note)
        # Who looks after it has opened its own run sees the other's; where both do, both yield, and not for equally long.
        ownership.stop()
        close_dead_run(run.run_id, "KILLED", "another process began this trial in the same moment")
        time.sleep(SystemRandom().uniform(0, _MOST_SECONDS_TO_YIELD))


def _begun_by_others(store: MlflowClient, fingerprint: str, run: TrialRun) -> bool:
    running = TrainedBefore(store).runs(fingerprint, condition=" and attributes.status = 'RUNNING'")
    return any(other.info.run_id != run.run_id for other in running)


@contextmanager
def _closed_at_an_error(store: MlflowClient, claimed: Run | None, ownership: Ownership) -> Iterator[None]:
    """Close a claimed run with the reason where an error leaves the block, unless another machine has it by now."""
    try:
        yield
    except BaseException as error:
        if claimed is not None:
            ownership.stop()
            with suppress(RatchetError, MlflowException):  # not to hide the error
                ownership.confirm()
                store.set_tag(claimed.info.run_id, FAILURE_TAG, f"{type(error).__name__}: {error}")
                store.set_terminated(claimed.info.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _open_runs(before: TrainedBefore, folder: TrialFolder, fingerprint: str, force: bool) -> list[Run]:
    """The runs of this trial that have not finished; with `force`, only the one that was begun by force here."""
    runs = [run for run in before.runs(fingerprint) if run.info.status != "FINISHED"]
    if not force:
        return runs
    note = folder.note()
    return [run for run in runs if note is not None and note.forced and run.info.run_id == note.run_id]


def _chosen(folder: TrialFolder, runs: list[Run]) -> tuple[Run | None, str | None]:
    """The run that got furthest, by its snapshot here or the one that it uploaded; with the latter's path."""
    note, snapshot = folder.note(), folder.newest()
    by_id = {run.info.run_id: run for run in runs}
    here = by_id.get(note.run_id) if note is not None else None  # by its id: a store may have another address by now
    step = snapshot.facts.step if here is not None and snapshot is not None else -1
    uploads = [(json.loads(run.data.tags[CHECKPOINT_TAG]), run) for run in runs if CHECKPOINT_TAG in run.data.tags]
    further = [(upload["step"], upload["path"], run) for upload, run in uploads if upload["step"] > step]
    if further:
        _, path, run = max(further, key=lambda found: found[0])
        return run, path
    return here, None


def _resumed(
    store: MlflowClient,
    run: Run,
    folder: TrialFolder,
    ownership: Ownership,
    config: TrialConfig,
    tags: Mapping[str, str],
) -> tuple[TrialRun, str]:
    if run.info.experiment_id != ensure_experiment(config.core.name):  # nor is the sweep's run of its experiment
        tags = {key: value for key, value in tags.items() if key != NESTED_TAG}
    snapshot = folder.newest()
    where = f"epoch {snapshot.facts.epoch}, step {snapshot.facts.step}" if snapshot is not None else "the start"
    times = [*filter(None, [run.data.tags.get(RESUMED_TAG)]), where]
    opened = TrialRun.reopen(store, run, ownership, tags={**tags, RESUMED_TAG: "; ".join(times)})
    return opened, f"resumed at {where}"


def _new(
    store: MlflowClient,
    before: TrainedBefore,
    config: TrialConfig,
    folder: TrialFolder,
    ownership: Ownership,
    name: str,
    tags: Mapping[str, str],
) -> tuple[TrialRun, str | None]:
    """A new run; where a shorter training of the same trial can be continued, from its end."""
    folder.clear()
    epochs, obstacle = int(config.trainer["max_epochs"] or 0), fixed_length(config)
    shorter = None
    if not config.sweep.force:
        shorter, obstacle = _shorter(before, config, tags[SCHEDULE_TAG], epochs, obstacle)
    if shorter is None:
        return TrialRun.create(store, config, ownership, name=name, tags=tags), None
    run, trained = shorter
    if obstacle is not None:
        why = f"trained from the start, though run {run.info.run_id} trained {trained} of its epochs: {obstacle}"
        return TrialRun.create(store, config, ownership, name=name, tags=tags), why
    fetched = _fetch(store, run.info.run_id, CHECKPOINTS_PATH, folder)
    snapshot = Snapshot.read(fetched / "resume")
    _put_back_best(fetched, snapshot)
    # What early stopping has ended stays so: a training of more epochs would have ended there too.
    facts = snapshot.facts.model_copy(update={"trained": snapshot.facts.stopped})
    folder.adopt(snapshot.path, facts)
    kept = {key: value for key, value in run.data.tags.items() if key in _KEPT}
    opened = TrialRun.create(store, config, ownership, name=name, tags={**tags, **kept, CONTINUED_TAG: run.info.run_id})
    copy_ancestry(store, run, opened, folder.path)
    rows = metric_history(store, run)
    end = max((row.step for row in rows if row.key == "duration"), default=facts.step)  # what was logged of the whole
    opened.log_metrics([row for row in rows if row.step < end])
    return opened, f"continues run {run.info.run_id} after epoch {facts.epoch}"


def _shorter(
    before: TrainedBefore, config: TrialConfig, schedule: str, epochs: int, obstacle: str | None
) -> tuple[tuple[Run, int] | None, str | None]:
    """The shorter training to go on from, or else the one that comes closest, with what is in the way."""
    found = None
    if obstacle is None:
        found = before.shorter(
            schedule, epochs, holding=RESUME_PATH, fits=lambda run: _other_schedule(run, config) is None
        )
    if found is not None:
        return found, None
    found = before.shorter(schedule, epochs, holding=None)
    if found is None or obstacle is not None:
        return found, obstacle
    return found, _other_schedule(found[0], config) or "it keeps no checkpoint to go on from"


def _other_schedule(run: Run, config: TrialConfig) -> str | None:
    """Say what of a schedule's length was another in a shorter training, or return None."""
    for key, value in schedule_lengths(config).items():
        before = run.data.params.get(f"scheduler.{key}", "")
        if before != str(value):
            return f"scheduler.{key} was {before} there, and is {value}"
    return None


def _fetch(store: MlflowClient, run_id: str, path: str, folder: TrialFolder) -> Path:
    """Download a folder of a run's artifacts to the trial's disk."""
    draft = folder.path / "fetched"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    return Path(store.download_artifacts(run_id, path, str(draft)))


def _put_back_best(fetched: Path, snapshot: Snapshot) -> None:
    """The exported checkpoint is among the artifacts under its own name only."""
    if snapshot.facts.best is not None:
        kept = snapshot.checkpoints / snapshot.facts.best
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fetched / "best.ckpt", kept)
