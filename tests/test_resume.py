"""Trials that are killed and go on: real processes, real kills, compared with trials that nobody disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import torch
from conftest import TINY
from mlflow import MlflowClient
from mlflow.entities import Run
from pytorch_lightning.callbacks import Timer

from ratchet.config import compose
from ratchet.registry import MlflowModelManager
from ratchet.registry.tracking import client
from ratchet.run_names import CHECKPOINT_TAG, ENDED_TAG, FAILURE_TAG, HEARTBEAT_TAG, PRECISION_TAG, THREADS_TAG
from ratchet.training.folder import RESUME_FILE, TrialFolder
from ratchet.training.opening import CONTINUED_TAG, RESUMED_TAG
from ratchet.training.plan import PlannedTrial, plan_trials
from ratchet.training.process import TrialOrder, TrialProcess
from ratchet.training.progress import Progress, TrialEnd
from ratchet.training.reuse import REUSED_TAG, TrainedBefore
from ratchet.training.sweep import run_sweep
from ratchet.training.trial import run_trial

pytest_plugins = ["registry_backends"]
pytestmark = pytest.mark.trains

# Dropout, augmentation, a schedule that looks at the validation, early stopping: all that has a state of its own.
EVERYTHING = (
    *TINY,
    "core.deterministic=true",
    "trainer.max_epochs=4",
    "backbone.model.arch=fpn",
    "transforms=flips",
    "callbacks=early_stopping",
    "datamodule.batch_size=4",  # nine steps an epoch
    "export.types=[pt2]",
)


PLATEAU, ONE_CYCLE = "scheduler.patience=0", "scheduler=one_cycle"


def plan(*overrides: str, scheduler: str = PLATEAU) -> PlannedTrial:
    (planned,) = plan_trials([compose([*EVERYTHING, scheduler, *overrides])])
    return planned


def start(trial: PlannedTrial, *, until_epoch: int | None = None) -> TrialProcess:
    trial.config.core.home.mkdir(parents=True, exist_ok=True)
    return TrialProcess.start(
        TrialOrder(
            name=trial.name,
            config=trial.config,
            fingerprint=trial.fingerprint,
            tags={},
            log=trial.config.core.home / "trial.log",
            threads=1,
            until_epoch=until_epoch,
        )
    )


def train(
    trial: PlannedTrial,
    *,
    kill: Callable[[Progress], bool] = lambda _: False,
    by: signal.Signals = signal.SIGKILL,
    until_epoch: int | None = None,
) -> TrialEnd | None:
    """Run a trial in its process; None where it was killed."""
    process = start(trial, until_epoch=until_epoch)
    return wait_for_end(process, kill=kill, by=by)


def wait_for_end(
    process: TrialProcess, *, kill: Callable[[Progress], bool] = lambda _: False, by: signal.Signals = signal.SIGKILL
) -> TrialEnd | None:
    try:
        while True:
            kind, value = process.connection.recv()
            if kind == "progress" and kill(value):
                os.kill(int(process.process.pid or 0), by)
                process.process.join(60)
                return None
            if kind == "failed":
                raise AssertionError(value)
            if kind == "ended":
                assert isinstance(value, TrialEnd)
                return value
    finally:
        process.end()


@dataclass(frozen=True)
class Record:
    """What a run has come to: the exported weights, those that training ended with and the optimizer's state with them,
    and every value that it logged."""

    weights: dict[str, torch.Tensor]
    curves: dict[str, list[tuple[int, str]]]

    @classmethod
    def of(cls, run_id: str, folder: Path) -> Record:
        kept = Path(client().download_artifacts(run_id, "checkpoints", str(folder)))
        best = torch.load(kept / "best.ckpt", weights_only=True)
        last = torch.load(kept / "resume" / RESUME_FILE, weights_only=True)
        adam = last["optimizer_states"][0]["state"]
        states = {
            "best": best["state_dict"],
            "last": last["state_dict"],
            **{f"adam {number}": state for number, state in adam.items()},
        }
        names = client().get_run(run_id).data.metrics.keys() - {"duration", "peak_memory"}
        curves = {name: client().get_metric_history(run_id, name) for name in names}
        return cls(
            weights={f"{file}.{key}": value for file, state in states.items() for key, value in state.items()},
            curves={name: sorted((row.step, repr(row.value)) for row in rows) for name, rows in curves.items()},
        )


def assert_same(one: Record, other: Record) -> None:
    """Compare bit for bit, and value for value."""
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[key], other.weights[key]) for key in one.weights)
    assert one.curves == other.curves


def only_run() -> Run:
    (experiment,) = [found for found in client().search_experiments() if found.name == "tiny"]
    (run,) = client().search_runs([experiment.experiment_id])
    return run


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> Record:
    """A trial of four epochs that nobody disturbed."""
    end = train(plan())
    assert end is not None
    record = home / "record"
    record.mkdir()
    return Record.of(end.run_id, record)


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    undisturbed: Record, tmp_path: Path
) -> None:
    trial = plan("sweep.checkpoint_minutes=0")
    folder = TrialFolder(trial.config.core.home, trial.fingerprint)
    for step in (3, 16, 26):  # within an epoch of nine steps; 26 is after the next to last one
        assert train(trial, kill=lambda progress, step=step: progress.step >= step) is None
        snapshot = folder.newest()
        assert snapshot is not None
        assert snapshot.facts.step in (step - 1, step)
    assert only_run().info.status == "RUNNING"
    end = train(trial)
    assert end is not None
    assert end.note == f"resumed at epoch {snapshot.facts.epoch}, step {snapshot.facts.step}"
    run = only_run()
    assert (run.info.run_id, run.info.status) == (end.run_id, "FINISHED")
    assert run.data.tags[RESUMED_TAG].count("step") == 3
    assert_same(Record.of(end.run_id, tmp_path), undisturbed)
    assert not folder.path.exists()


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_is_left_after_an_epoch_or_terminated_goes_on_to_the_same_end(
    undisturbed: Record, tmp_path: Path
) -> None:
    trial = plan()
    for epoch in (1, 1, 3):  # asked for twice, the pause is where it was
        end = train(trial, until_epoch=epoch)
        assert end is not None
        assert (end.status, only_run().info.status) == ("paused", "SCHEDULED")
        assert 0 < end.metrics["val_loss_epoch"] < 10
        assert len(client().get_metric_history(end.run_id, "val_loss_epoch")) == epoch
    assert train(trial, kill=lambda progress: progress.step >= 28, by=signal.SIGTERM) is None
    assert only_run().info.status == "KILLED"
    end = train(trial, until_epoch=4)
    assert end is not None
    assert end.status == "finished"
    assert end.note in {f"resumed at epoch {step // 36 + 3}, step {step}" for step in range(28, 37)}  # never at 27
    assert_same(Record.of(end.run_id, tmp_path), undisturbed)


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_is_told_to_end_as_it_begins_ends_gently() -> None:
    start(plan()).end()  # the fork server is there
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        one_core = list(os.sched_getaffinity(0))[:1]  # where a new process waits for its turn, and is told meanwhile
        for child in psutil.Process().children():
            child.cpu_affinity(one_core)
        processes = []
        for number in range(1, 9):
            processes.append(start(plan(f"optimizer.lr=0.0{number}")))
            processes[-1].end()
    finally:
        for other in busy:
            other.kill()
            other.wait()
        for child in psutil.Process().children():
            child.cpu_affinity(list(os.sched_getaffinity(0)))
    assert [process.process.exitcode for process in processes] == [-signal.SIGTERM] * 8
    processes[0].end()  # twice is as once


@pytest.mark.usefixtures("stored_home")
def test_a_training_that_averages_weights_goes_on_from_its_own_after_a_pause(tmp_path: Path) -> None:
    average = "+callbacks.ema={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}"
    straight = train(plan(average, "trainer.max_epochs=2", scheduler="scheduler=constant"))
    assert straight is not None
    trial = plan(average, "trainer.max_epochs=2", "sweep.force=true", scheduler="scheduler=constant")
    assert train(trial, until_epoch=1) is not None
    paused = train(trial)
    assert paused is not None
    assert paused.run_id != straight.run_id
    assert_same(Record.of(paused.run_id, tmp_path / "paused"), Record.of(straight.run_id, tmp_path / "straight"))


@pytest.mark.usefixtures("stored_home")
def test_the_last_values_are_those_of_the_exported_weights_though_a_process_before_got_further() -> None:
    paused = train(plan(), until_epoch=1)
    assert paused is not None
    client().log_metric(paused.run_id, "val_iou", 0.99, step=10_000)  # of weights that no checkpoint has
    end = train(plan())
    assert end is not None
    assert end.run_id == paused.run_id
    assert end.metrics["val_iou"] < 0.99
    assert client().get_run(end.run_id).data.metrics["val_iou"] == end.metrics["val_iou"]


@pytest.mark.usefixtures("stored_home")
def test_a_trial_whose_time_was_up_in_a_validation_is_over_when_it_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    config = plan("sweep.trial_max_time=0.05s").config
    (trial,) = plan_trials([config])

    def run(until_epoch: int | None) -> TrialEnd:
        return run_trial(
            trial.config,
            name=trial.name,
            fingerprint=trial.fingerprint,
            tags={},
            on_start=lambda _: None,
            report=lambda _: None,
            until_epoch=until_epoch,
        )

    with monkeypatch.context() as patch:  # Lightning looks at the end of batches, and not at that of a validation
        patch.setattr(Timer, "_check_time_remaining", lambda *_: None)
        assert run(1).status == "paused"
    end = run(None)
    assert end.status == "finished"
    assert client().get_run(end.run_id).info.status == "FINISHED"


@pytest.mark.usefixtures("stored_home")
def test_the_last_values_are_those_of_the_exported_weights_also_behind_a_step_that_gathers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ("trainer.accumulate_grad_batches=2", "sweep.trial_max_time=1h", "trainer.log_every_n_steps=10")
    (trial,) = plan_trials([plan(*given, "callbacks=default").config])

    def twelfth_batch(_: object, trainer: Any) -> None:  # the third of the second epoch of nine, which makes no step
        trainer.should_stop = trainer.should_stop or trainer.fit_loop.total_batch_idx == 11

    monkeypatch.setattr(Timer, "_check_time_remaining", twelfth_batch)
    said = {"on_start": lambda _: None, "report": lambda _: None}
    end = run_trial(trial.config, name=trial.name, fingerprint=trial.fingerprint, tags={}, **said)
    history = client().get_metric_history(str(end.run_id), "val_iou")
    assert len(history) == 3  # of two validations, and of the exported weights
    assert client().get_run(str(end.run_id)).data.metrics["val_iou"] == end.metrics["val_iou"]


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_ended_before_its_run_was_closed_has_its_last_values_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, closed = plan("trainer.max_epochs=2", "callbacks=default"), MlflowClient.set_terminated
    said = {"on_start": lambda _: None, "report": lambda _: None}

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("the server is away")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(MlflowClient, "set_terminated", away)
        run_trial(trial.config, name=trial.name, fingerprint=trial.fingerprint, tags={}, **said)
    assert MlflowClient.set_terminated is closed
    end = run_trial(trial.config, name=trial.name, fingerprint=trial.fingerprint, tags={}, **said)
    assert only_run().info.status == "FINISHED"
    assert (
        len(client().get_metric_history(str(end.run_id), "val_iou")) == 3
    )  # of two epochs, and of the exported weights


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_was_killed_behind_its_epochs_last_validation_goes_on_to_the_same(tmp_path: Path) -> None:
    given = ("+trainer.val_check_interval=5", "trainer.max_epochs=2")  # of nine steps
    assert train(plan(*given, "sweep.checkpoint_minutes=0"), kill=lambda progress: progress.step >= 8) is None
    end = train(plan(*given, "sweep.checkpoint_minutes=0"))
    straight = train(plan(*given, "sweep.force=true"))
    assert end is not None
    assert straight is not None
    records = []
    for found in (end, straight):
        (tmp_path / str(found.run_id)).mkdir()
        records.append(Record.of(str(found.run_id), tmp_path / str(found.run_id)))
    assert_same(*records)


@pytest.mark.usefixtures("stored_home")
def test_what_is_kept_by_steps_goes_by_the_validation_before_a_pause(tmp_path: Path) -> None:
    given = ("+callbacks.model_checkpoint.every_n_train_steps=5", "trainer.max_epochs=2")  # nine steps an epoch
    assert train(plan(*given), until_epoch=1) is not None
    end, straight = train(plan(*given)), train(plan(*given, "sweep.force=true"))
    records = []
    for found in (end, straight):
        assert found is not None
        (tmp_path / str(found.run_id)).mkdir()
        records.append(Record.of(str(found.run_id), tmp_path / str(found.run_id)))
    assert_same(*records)


@pytest.mark.usefixtures("stored_home")
def test_a_training_that_ends_by_its_steps_leaves_out_no_epoch_behind_a_pause() -> None:
    steps = ("+trainer.max_steps=30", "callbacks=default")  # three epochs of nine, and three of the fourth
    straight = train(plan(*steps))
    paused = plan(*steps, "sweep.force=true")
    assert train(paused, until_epoch=1) is not None
    end = train(paused)
    assert straight is not None
    assert end is not None
    assert end.run_id != straight.run_id
    cost = {"duration", "peak_memory"}
    assert {key: value for key, value in end.metrics.items() if key not in cost} == {
        key: value for key, value in straight.metrics.items() if key not in cost
    }
    losses = [client().get_metric_history(run_id, "loss_step") for run_id in (straight.run_id, end.run_id)]
    one, other = (sorted((row.step, row.value) for row in rows) for rows in losses)
    assert one == other


@pytest.mark.usefixtures("stored_home")
def test_a_trial_that_has_made_its_last_step_is_over_and_does_not_pause() -> None:
    end = train(plan("+trainer.max_steps=18"), until_epoch=3)  # two epochs
    assert end is not None
    assert end.status == "finished"


@pytest.mark.usefixtures("stored_home")
def test_more_epochs_continue_a_finished_trial_as_if_trained_straight_through(
    undisturbed: Record, tmp_path: Path
) -> None:
    shorter = train(plan("trainer.max_epochs=2"))
    steps: list[int] = []
    longer = train(plan(), kill=lambda progress: steps.append(progress.step) or False)
    assert shorter is not None
    assert longer is not None
    assert longer.note == f"continues run {shorter.run_id} after epoch 2"
    assert min(step for step in steps if step) > 18  # two epochs of nine steps
    assert client().get_run(longer.run_id).data.tags[CONTINUED_TAG] == shorter.run_id
    assert_same(Record.of(longer.run_id, tmp_path), undisturbed)


@pytest.mark.usefixtures("stored_home")
def test_a_schedule_made_for_its_length_is_trained_from_the_start_and_says_why() -> None:
    trial = plan("trainer.max_epochs=1", scheduler=ONE_CYCLE)
    assert train(trial, kill=lambda progress: progress.phase == "exporting") is None
    last = TrialFolder(trial.config.core.home, trial.fingerprint).newest()
    assert last is not None
    assert "optimizer_states" not in torch.load(last.resume, weights_only=True)  # nothing goes on from there
    shorter = train(trial)
    longer = train(plan("trainer.max_epochs=2", scheduler=ONE_CYCLE), until_epoch=1)
    assert shorter is not None
    assert longer is not None
    assert str(longer.note).startswith(f"trained from the start, though run {shorter.run_id} trained 1 of its epochs")
    assert "OneCycleLR" in str(longer.note)
    assert len(client().get_metric_history(longer.run_id, "loss_epoch")) == 1


@pytest.mark.usefixtures("stored_home")
def test_a_shorter_training_that_cannot_be_continued_is_named_with_the_reason() -> None:
    def of(epochs: int, length: int) -> TrialEnd:
        trial = plan(f"trainer.max_epochs={epochs}", f"scheduler.T_max={length}", scheduler="scheduler=cosine")
        end = train(trial, until_epoch=1)
        assert end is not None
        return end

    made_for_it = of(1, 1)
    begun = "trained from the start, though run {} trained 1 of its epochs: {}"
    assert of(2, 1).note == begun.format(made_for_it.run_id, "it keeps no checkpoint to go on from")
    other = of(1, 3)
    assert str(of(3, 4).note).endswith(
        f"run {other.run_id} trained 1 of its epochs: scheduler.T_max was 3 there, and is 4"
    )
    shutil.rmtree(Path(urlsplit(client().get_run(other.run_id).info.artifact_uri).path) / "checkpoints")
    assert of(4, 3).note == begun.format(other.run_id, "it keeps no checkpoint to go on from")


@pytest.mark.usefixtures("stored_home")
def test_early_stopping_counts_on_and_what_it_ended_is_not_trained_further() -> None:
    impatient = ("callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=9")
    trial = plan(*impatient, "trainer.max_epochs=9")
    assert train(trial, kill=lambda progress: progress.validated == 2 and progress.step > 18) is None
    assert train(trial, kill=lambda progress: progress.phase == "exporting") is None
    phases: list[str] = []
    end = train(trial, kill=lambda progress: phases.append(progress.phase) or False)
    assert end is not None
    assert phases == ["scoring", "exporting"]
    assert client().get_run(end.run_id).data.tags[ENDED_TAG] == "training ended early, in epoch 3 of 9"
    assert len(client().get_metric_history(end.run_id, "loss_epoch")) == 3
    assert len(client().get_metric_history(end.run_id, "val_iou")) == 4  # the exported weights' is the last
    assert client().get_run(end.run_id).data.tags[THREADS_TAG] == "1"
    client().set_tag(end.run_id, THREADS_TAG, "2")
    longer = train(plan(*impatient, "trainer.max_epochs=12"))
    assert longer is not None
    assert client().get_run(longer.run_id).data.tags[THREADS_TAG] == "2"
    assert len(client().get_metric_history(longer.run_id, "loss_epoch")) == 3


@pytest.mark.usefixtures("stored_home")
def test_an_interrupted_trial_that_another_experiment_takes_up_is_in_that_one_too() -> None:
    assert train(plan("trainer.max_epochs=1"), kill=lambda progress: progress.step >= 4) is None
    begun_in = only_run().data.tags[PRECISION_TAG]
    another = "32-true" if begun_in == "bf16-mixed" else "bf16-mixed"
    client().set_tag(
        only_run().info.run_id, PRECISION_TAG, another
    )  # as a machine that computes in another one began it
    (ended,) = run_sweep([plan("trainer.max_epochs=1", "core.name=other")])
    assert ended.status == "finished"
    assert only_run().data.tags[PRECISION_TAG] == another
    assert str(ended.note).endswith(f"copied from run {only_run().info.run_id} of experiment tiny")
    assert only_run().info.status == "FINISHED"
    assert MlflowModelManager().best_run("other", "val_iou", "max").run_id == ended.run_id


@pytest.mark.usefixtures("stored_home")
def test_two_processes_never_train_one_trial_and_other_experiments_get_a_copy() -> None:
    trial = plan("trainer.max_epochs=1")
    first, second = start(trial), start(trial)
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(wait_for_end, (first, second)))
    assert sorted(end.status for end in ends) == ["finished", "reused"]
    assert {end.run_id for end in ends} == {only_run().info.run_id}
    (copied,) = run_sweep([plan("trainer.max_epochs=1", "core.name=other")])
    assert copied.status == "reused"
    copy = client().get_run(str(copied.run_id))
    assert client().get_experiment(copy.info.experiment_id).name == "other"
    assert copy.data.tags[REUSED_TAG] == ends[0].run_id
    assert copy.data.metrics == only_run().data.metrics
    version = MlflowModelManager().register_best_model("other", "val_iou", "copied")
    assert version.run_id == copied.run_id
    (again,) = run_sweep([plan("trainer.max_epochs=1", "core.name=other")])
    assert (again.status, again.run_id) == ("reused", copied.run_id)


@pytest.mark.server
def test_a_machine_without_the_others_disk_goes_on_from_what_was_uploaded(
    undisturbed: Record, http_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", http_address)
    here = plan(f"core.home={tmp_path / 'here'}", "core.name=moved", "sweep.upload_minutes=0")
    assert train(here, kill=lambda progress: progress.step >= 15) is None
    (run,) = TrainedBefore().runs(here.fingerprint)
    assert json.loads(run.data.tags[CHECKPOINT_TAG])["step"] == 9
    client().set_tag(run.info.run_id, HEARTBEAT_TAG, "2020-01-01T00:00:00+00:00")  # and nobody came back for years
    there = plan(f"core.home={tmp_path / 'there'}", "core.name=moved", "sweep.upload_minutes=0")
    uploaded = run.data.tags[CHECKPOINT_TAG]
    client().set_tag(run.info.run_id, CHECKPOINT_TAG, json.dumps({"step": 9, "path": "gone"}))
    with pytest.raises(AssertionError, match="gone"):
        train(there)
    closed = client().get_run(run.info.run_id)  # with the reason, and not as if somebody worked on it
    assert (closed.info.status, "gone" in closed.data.tags[FAILURE_TAG]) == ("FAILED", True)
    client().set_tag(run.info.run_id, CHECKPOINT_TAG, uploaded)
    end = train(there)
    assert end is not None
    assert (end.run_id, end.note) == (run.info.run_id, "resumed at epoch 1, step 9")
    assert_same(Record.of(end.run_id, tmp_path), undisturbed)
    assert {entry.path for entry in client().list_artifacts(end.run_id, "checkpoints")} == {
        "checkpoints/best.ckpt",
        "checkpoints/resume",
    }


@pytest.mark.usefixtures("stored_home")
def test_a_trial_goes_on_where_its_store_has_another_address_by_now(
    stored_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = plan("sweep.checkpoint_minutes=0", "trainer.max_epochs=1")
    assert train(trial, kill=lambda progress: progress.step >= 4) is None
    run = only_run()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stored_home}/../{stored_home.name}/mlflow.db")
    end = train(trial)
    assert end is not None
    assert (end.run_id, only_run().info.run_id) == (run.info.run_id, run.info.run_id)
    assert str(end.note).startswith("resumed at epoch 0, step")
    assert end.metrics.keys() == only_run().data.metrics.keys()


@pytest.mark.usefixtures("stored_home")
def test_a_stop_before_the_least_number_of_epochs_is_no_end_at_a_pause_and_not_forgotten() -> None:
    # Epoch 2 asks for it, epoch 3 is the least and has no validation that could ask again.
    stops = (
        "+callbacks.early_stopping.stopping_threshold=9",
        "trainer.check_val_every_n_epoch=2",
        "+trainer.min_epochs=3",
    )
    trial = plan(*stops, scheduler=ONE_CYCLE)
    paused = train(trial, until_epoch=2)
    assert paused is not None
    assert paused.status == "paused"
    end = train(trial)
    assert end is not None
    assert client().get_run(str(end.run_id)).data.tags[ENDED_TAG] == "training ended early, in epoch 3 of 4"


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_gradients_are_added_up_as_before_in_an_epoch_that_is_gone_on_with(tmp_path: Path) -> None:
    later = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {0: 1, 1: 3}}"
    added = (f"+callbacks.later={later}", "trainer.max_epochs=2")
    straight = train(plan(*added))
    again = plan(*added, "sweep.checkpoint_minutes=0", "sweep.force=true")
    assert train(again, kill=lambda progress: progress.step >= 11) is None  # of nine steps, and then three
    end = train(again)
    assert end is not None
    assert straight is not None
    assert RESUMED_TAG in client().get_run(str(end.run_id)).data.tags
    assert_same(Record.of(str(end.run_id), tmp_path / "a"), Record.of(str(straight.run_id), tmp_path / "b"))
