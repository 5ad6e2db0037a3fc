"""Sweeps that are searched, halved and bounded: real tiny trainings, in a real store."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psutil
import pytest
from conftest import TINY
from filelock import FileLock
from mlflow.entities import Run

from ratchet import MlflowModelManager
from ratchet.config import compose_space
from ratchet.errors import MetricNotLoggedError, NoFinishedRunError, SweepFailedError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client
from ratchet.run_names import FAILURE_TAG, IMAGES_TAG, NESTED_TAG, PRUNED_TAG, STOPPED_TAG, SWEEP_RUN_TAG
from ratchet.training.caching import fill_cache
from ratchet.training.folder import Facts, TrialFolder
from ratchet.training.halving import rungs
from ratchet.training.ownership import OWNER_TAG
from ratchet.training.parent import BEST_TAG, OUTCOME_TAG, PLAN_TAG, SweepRun
from ratchet.training.plan import plan_sweep
from ratchet.training.preview import Preview, preview, rows
from ratchet.training.results import SweepOutcome, TrialResult
from ratchet.training.run import close_dead_run, end_run, log_params, metric_rows, unsent_line
from ratchet.training.study import SweepStudy
from ratchet.training.sweep import run

pytestmark = pytest.mark.trains

SMALL = (*TINY, "export.types=[pt2]")
RATES = "optimizer.lr=0.05,0.002,0.0005,0.0001"


def sweep(*overrides: str) -> tuple[SweepOutcome, list[Preview]]:
    told: list[Preview] = []
    outcome = run(plan_sweep(compose_space([*SMALL, *overrides])), on_plan=told.append)
    return outcome, told


def runs() -> dict[str, Run]:
    experiment = client().get_experiment_by_name("tiny")
    assert experiment is not None
    return {run.info.run_id: run for run in client().search_runs([experiment.experiment_id])}


RUNGS = ("sweep.halving=true", "sweep.halving_eta=2", "sweep.halving_min_epochs=1")
HALVED = ("trainer.max_epochs=4", "scheduler=cosine", RATES, *RUNGS)


@pytest.fixture(scope="module")
def halved(home: Path) -> SweepOutcome:
    """Four trials: all to epoch 1, two to epoch 2, one to epoch 4."""
    assert rungs(compose_space([*SMALL, *HALVED]).configs[0].sweep, 4) == (1, 2)
    return sweep(*HALVED)[0]


def test_halving_stops_the_worse_trials_early_and_the_best_one_keeps_its_schedule(halved: SweepOutcome) -> None:
    assert sorted(trial.status for trial in halved.trials) == ["finished", "pruned", "pruned", "pruned"]
    epochs = {
        trial.fingerprint: len(client().get_metric_history(str(trial.run_id), "loss_epoch")) for trial in halved.trials
    }
    assert sorted(epochs.values()) == [1, 1, 2, 4]
    (winner,) = (trial for trial in halved.trials if trial.status == "finished")
    rates = [row.value for row in client().get_metric_history(str(winner.run_id), "lr")]
    whole = [0.5 * rates[0] * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert sorted({round(rate, 9) for rate in rates}, reverse=True) == pytest.approx(whole, abs=1e-8)
    for trial in halved.trials:
        if trial.status == "pruned":
            run = client().get_run(str(trial.run_id))
            assert run.info.status == "KILLED"
            assert "not among the best 1 in 2" in run.data.tags[PRUNED_TAG]


def test_the_trials_are_nested_in_the_sweeps_run_which_says_how_it_ended(halved: SweepOutcome, tmp_path: Path) -> None:
    parent = client().get_run(str(halved.run_id))
    assert parent.info.status == "FINISHED"
    assert parent.data.tags[OUTCOME_TAG] == "finished"
    assert "4 trials" in parent.data.tags[PLAN_TAG]
    assert parent.data.params["optimizer.lr"] == "0.05, 0.002, 0.0005, 0.0001"
    best = max(trial.metrics["val_iou"] for trial in halved.trials if trial.trained)
    assert parent.data.metrics["best/val_iou"] == best
    children = {run_id for run_id, run in runs().items() if run.data.tags.get(NESTED_TAG) == halved.run_id}
    assert children >= {trial.run_id for trial in halved.trials}
    assert halved.page is not None
    client().download_artifacts(str(halved.run_id), "comparison.html", str(tmp_path))
    assert (tmp_path / "comparison.html").read_text() == halved.page.read_text()
    assert "What the best ones see" in halved.page.read_text()
    assert len(halved.page.read_bytes()) < 2_000_000
    for trial in halved.trials:
        assert trial.name in halved.page.read_text()


def test_neither_a_pruned_trial_nor_the_sweeps_own_run_is_ever_selected(halved: SweepOutcome) -> None:
    (winner,) = (trial for trial in halved.trials if trial.status == "finished")
    for metric in ("val_iou", "val_loss_epoch", "loss_epoch"):
        for mode in ("max", "min"):
            assert MlflowModelManager().best_run("tiny", metric, mode).run_id == winner.run_id
    client().log_metric(str(halved.run_id), "own", 1.0)
    with pytest.raises((MetricNotLoggedError, NoFinishedRunError)) as told:
        MlflowModelManager().best_run("tiny", "own", "max")
    assert str(halved.run_id) not in str(told.value)


def test_the_same_halved_sweep_again_trains_nothing_and_stays_one_run(halved: SweepOutcome) -> None:
    again, (told,) = sweep(*HALVED)
    assert told.sentence == "4 trials, 1 reused, 3 pruned before, halved, nothing to train"
    assert sorted(str(row["state"]) for row in rows(told)) == ["pruned", "pruned", "pruned", "reused"]
    assert {trial.fingerprint: trial.run_id for trial in again.trials} == {
        trial.fingerprint: trial.run_id for trial in halved.trials
    }
    assert sorted(trial.status for trial in again.trials) == ["pruned", "pruned", "pruned", "reused"]
    assert again.run_id == halved.run_id


def test_a_sweep_ends_with_its_time_and_what_finished_is_used(halved: SweepOutcome) -> None:
    """One of three trials is there already, the second is being trained when the time is up, the third has not begun."""
    (winner,) = (trial for trial in halved.trials if trial.status == "finished")
    rate = winner.point["optimizer.lr"]
    outcome, (told,) = sweep(
        "trainer.max_epochs=4", "scheduler=cosine", f"optimizer.lr={rate},0.003,0.004", "sweep.max_time=1s"
    )
    assert [trial.status for trial in outcome.trials] == ["reused", "stopped", "stopped"]
    begun = outcome.trials[1].run_id is not None
    left = "1 of 3 trials not started, 1 left at a checkpoint" if begun else "2 of 3 trials not started"
    assert outcome.stopped == f"stopped: {left}, max_time 1s reached"
    assert client().get_run(str(outcome.run_id)).data.tags[OUTCOME_TAG] == outcome.stopped
    assert [trial.reused for trial in told.trials] == [winner.run_id, None, None]
    assert told.seconds is not None  # the winner's time tells
    assert "1 reused, about" in told.sentence
    if begun:
        second = client().get_run(str(outcome.trials[1].run_id))
        assert (second.info.status, second.data.tags[STOPPED_TAG]) == ("KILLED", "max_time 1s reached")
    # The winner stays in the sweep that trained it.
    assert client().get_run(str(winner.run_id)).data.tags[NESTED_TAG] == halved.run_id


def test_a_target_that_is_reached_already_starts_nothing(halved: SweepOutcome) -> None:
    (winner,) = (trial for trial in halved.trials if trial.status == "finished")
    rates = f"optimizer.lr=0.03,{winner.point['optimizer.lr']}"
    outcome, _ = sweep("trainer.max_epochs=4", "scheduler=cosine", rates, "sweep.target=0.0")
    assert [trial.status for trial in outcome.trials] == ["stopped", "reused"]
    assert "1 of 2 trials not started, target val_iou 0 reached" in str(outcome.stopped)


@pytest.mark.usefixtures("home")
def test_a_target_that_a_trial_reaches_starts_no_other() -> None:
    outcome, _ = sweep("optimizer.lr=0.07,0.08", "sweep.target=0.0", "sweep.overlap=false")
    assert [trial.status for trial in outcome.trials] == ["finished", "stopped"]
    assert "1 of 2 trials not started, target val_iou 0 reached with " in str(outcome.stopped)


def test_a_trial_that_was_pruned_and_trained_to_its_end_since_is_reused(halved: SweepOutcome) -> None:
    pruned = next(trial for trial in halved.trials if trial.status == "pruned")
    whole = ("trainer.max_epochs=4", "scheduler=cosine", f"optimizer.lr={pruned.point['optimizer.lr']}")
    (trained,) = sweep(*whole)[0].trials
    assert (trained.status, trained.run_id) == ("finished", pruned.run_id)
    again, (told,) = sweep(*HALVED)
    assert told.sentence == "4 trials, 2 reused, 2 pruned before, halved, nothing to train"
    (found,) = (trial for trial in again.trials if trial.fingerprint == pruned.fingerprint)
    assert (found.status, found.run_id) == ("reused", pruned.run_id)


@pytest.mark.usefixtures("home")
def test_a_trial_ends_with_its_time_and_exports_what_it_has_and_a_sweep_that_uses_it_later_has_it_nested() -> None:
    many = ("trainer.max_epochs=1000", "sweep.trial_max_time=6s")
    (trial,) = sweep(*many, "optimizer.lr=0.002")[0].trials
    assert trial.status == "finished"
    assert "of 1000" in str(trial.note)
    assert MlflowModelManager().best_run("tiny", "val_iou", "max")
    assert NESTED_TAG not in client().get_run(str(trial.run_id)).data.tags
    outcome, _ = sweep(*many, "optimizer.lr=0.002,0.02", "sweep.max_time=0.001s")
    assert [found.status for found in outcome.trials] == ["reused", "stopped"]
    assert client().get_run(str(trial.run_id)).data.tags[NESTED_TAG] == outcome.run_id


@pytest.mark.usefixtures("stored_home")
def test_a_sweep_whose_time_ends_before_any_trial_does_says_so() -> None:
    rates = RATES.rpartition(",0.0005")[0]
    with pytest.raises(SweepFailedError, match="2 of 2 trials not started, max_time 0s"):
        sweep(rates, "sweep.max_time=0.000001s")
    (failed,) = runs().values()
    assert "not started" in failed.data.tags[FAILURE_TAG]
    with SweepRun.of(plan_sweep(compose_space([*SMALL, rates])), {}):
        pass
    (again,) = runs().values()
    assert again.info.status == "FINISHED"
    assert FAILURE_TAG not in again.data.tags


@pytest.mark.usefixtures("stored_home")
def test_a_sweep_whose_runs_somebody_deletes_comes_to_its_end() -> None:
    plan, deleted = plan_sweep(compose_space([*SMALL, "optimizer.lr=0.01,0.001", "core.name=deleted"])), list[str]()

    def delete_the_sweeps_run(results: Sequence[TrialResult]) -> None:
        experiment = client().get_experiment_by_name("deleted")
        for found in client().search_runs([experiment.experiment_id]) if experiment else ():
            if SWEEP_RUN_TAG in found.data.tags:
                client().delete_run(found.info.run_id)
                deleted.append(found.info.run_id)

    outcome = run(plan, on_progress=delete_the_sweeps_run)
    assert len(deleted) == 1
    assert [trial.status for trial in outcome.trials] == ["finished", "finished"]
    experiment = client().get_experiment_by_name("deleted")
    assert experiment is not None
    paused = client().create_run(experiment.experiment_id)
    client().delete_run(paused.info.run_id)
    end_run(paused.info.run_id, "KILLED", {PRUNED_TAG: "not among the best"})  # of one that was deleted: nothing


@pytest.mark.usefixtures("stored_home")
def test_a_run_that_another_sweep_trains_is_not_ended_and_what_a_process_left_behind_is() -> None:
    run_id = client().create_run(ensure_experiment("shared"), tags={OWNER_TAG: "there/home/77/abc"}).info.run_id
    for owner in (None, "there/home/7", "elsewhere/home/77"):  # pids of containers are often equal
        end_run(run_id, "KILLED", {PRUNED_TAG: "not among the best"}, owner=owner)
        found = client().get_run(run_id)
        assert (found.info.status, PRUNED_TAG in found.data.tags) == ("RUNNING", False)
    end_run(run_id, "KILLED", {STOPPED_TAG: "the sweep was stopped"}, owner="there/home/77")
    assert client().get_run(run_id).info.status == "KILLED"


@pytest.mark.usefixtures("stored_home")
def test_values_that_a_full_disk_tore_close_the_run_all_the_same(tmp_path: Path) -> None:
    run_id = client().create_run(ensure_experiment("torn")).info.run_id
    (row,) = metric_rows({"loss": 0.5}, 3)
    whole = unsent_line(row, run_id)
    (tmp_path / "unsent").write_text(f"{whole}\n{whole[:20]}")
    close_dead_run(run_id, "FAILED", "No space left on device", unsent=tmp_path / "unsent")
    found = client().get_run(run_id)
    assert (found.info.status, found.data.metrics["loss"]) == ("FAILED", 0.5)
    assert "No space" in found.data.tags[FAILURE_TAG]


@pytest.mark.usefixtures("stored_home")
def test_a_process_that_leaves_a_shared_sweep_does_not_mark_it_for_good() -> None:
    plan = plan_sweep(compose_space([*SMALL, "optimizer.lr=0.1,0.2", "core.name=left"]))
    with SweepRun.of(plan, {}):
        with SweepRun.of(plan, {}) as idle:
            idle.leave_open()
        assert [found.info.status for found in runs_of("left")] == ["RUNNING"]
        with pytest.raises(KeyboardInterrupt), SweepRun.of(plan, {}):
            raise KeyboardInterrupt
        assert [FAILURE_TAG in found.data.tags for found in runs_of("left")] == [True]
    (found,) = runs_of("left")
    assert (found.info.status, FAILURE_TAG in found.data.tags) == ("FINISHED", False)


@pytest.mark.usefixtures("stored_home")
def test_who_finds_all_trials_at_work_elsewhere_waits_a_beat_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.training.study_storage.BEAT_SECONDS", 4)
    search = ("optimizer.lr=interval(0.1,0.2)", "sweep.max_trials=1", "core.name=busy")
    plan = plan_sweep(compose_space([*SMALL, *search]))
    other = SweepStudy(plan, synchronous=True)
    other._worker = "there/x/1"
    assert other.ask()
    began = time.monotonic()
    with pytest.raises(SweepFailedError, match="other processes work on all of them"):
        run(plan)
    other.close()
    assert time.monotonic() - began >= 4
    assert [found.info.status for found in runs_of("busy")] == ["RUNNING"]


def runs_of(experiment: str) -> list[Run]:
    return list(client().search_runs([ensure_experiment(experiment)]))


def test_of_a_grid_that_is_cut_the_plan_speaks_of_what_is_done(ratchet_home: Path) -> None:
    plan = plan_sweep(compose_space([*SMALL, "optimizer.lr=0.1,0.2,0.3,0.4", "sweep.max_trials=2"]))
    assert (plan.due, plan.size) == (2, 4)
    assert preview(plan, {}, at_once=1).sentence.startswith("2 of 4 trials")


@pytest.mark.usefixtures("stored_home")
def test_the_expected_time_follows_from_past_runs_and_from_what_there_is_to_do() -> None:
    def told(*overrides: str, at_once: int = 1) -> Preview:
        return preview(plan_sweep(compose_space([*SMALL, *overrides])), {}, at_once=at_once)

    assert told().seconds is None
    (trial,) = plan_sweep(compose_space([*SMALL, "trainer.max_epochs=4"])).trials
    past = client().create_run(ensure_experiment("past"), tags={IMAGES_TAG: str(2 * trial.images)}).info.run_id
    params = {"trainer.max_epochs": 5, "transforms.input_height": 64, "transforms.input_width": 32}
    params |= {f"backbone.model.{key}": trial.config.backbone.model[key] for key in ("arch", "encoder_name")}
    log_params(client(), past, params)
    client().log_batch(past, metrics=metric_rows({"duration": 200.0}, 0))
    client().set_terminated(past)
    for overrides, seconds in (  # ten seconds for an epoch of all images at 32 x 32
        (["trainer.max_epochs=1"], 10),
        (["trainer.max_epochs=4"], 40),
        (["trainer.max_epochs=4", "transforms.input_width=64"], 80),
        (["trainer.max_epochs=4", "optimizer.lr=0.1,0.2,0.3"], 120),
        (["trainer.max_epochs=4", RATES, *RUNGS], 80),  # four to the first epoch, two to the second, one to the last
    ):
        assert told(*overrides).seconds == pytest.approx(seconds)
    assert told("trainer.max_epochs=4", "optimizer.lr=0.1,0.2", at_once=2).seconds == pytest.approx(40)
    folder = TrialFolder(trial.config.core.home, trial.fingerprint)
    facts = Facts(epoch=3, step=9, trained=False, stopped=False, seconds=1.0, peak_memory=1.0, best=None)
    with folder.locked():
        folder.begin()
        folder.publish(facts, Path.touch)
    interrupted = told("trainer.max_epochs=4")
    assert interrupted.seconds == pytest.approx(10)
    assert [row["state"] for row in rows(interrupted)] == ["goes on after epoch 3"]
    assert told("trainer.max_epochs=4", "sweep.force=true").seconds == pytest.approx(40)


def test_a_trial_that_comes_to_its_end_while_images_are_decoded_for_the_next_stays_finished(stored_home: Path) -> None:
    """When the time is up, the sweep has heard nothing of it since the decoding began."""
    ensure_experiment("tiny")
    plan = plan_sweep(compose_space([*SMALL, "transforms.input_width=32,64", "sweep.parallel=2", "sweep.max_time=1s"]))
    fill_cache(plan.config, None, lambda _: None)
    held = Event()

    def hold_until_trained() -> None:
        with FileLock(stored_home / "cache" / "room.lock"):  # whoever decodes waits for it
            held.set()
            while not any(
                run.info.status == "FINISHED" and SWEEP_RUN_TAG not in run.data.tags for run in runs().values()
            ):
                time.sleep(0.2)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold_until_trained)
        assert held.wait(10)
        outcome = run(plan)
        holding.result()
    assert [trial.status for trial in outcome.trials] == ["finished", "stopped"]


# One after the other, so that the second is at its beginning when the first has finished.
SEARCH = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", "sweep.max_trials=2", "sweep.overlap=false", "core.name=search")

SCRIPT = """
from test_sweeps import *
def show(trials):
    print(json.dumps([[trial.status, trial.name] for trial in trials]), flush=True)
run(plan_sweep(compose_space([*SMALL, *SEARCH])), on_progress=show)
"""


@pytest.mark.usefixtures("home")
def test_a_class_of_any_name_can_be_selected_by_and_one_that_no_image_shows_hides_no_trial() -> None:
    classes = "+datamodule.idx_to_class={1:'disc (big)',2:polygon,3:star}"
    outcome, _ = sweep(classes, "optimizer.lr=0.01,0.001", "retrain.metric='val_iou_disc _big_'", "core.name=classes")
    assert outcome.page is not None
    assert "No trial finished" not in outcome.page.read_text()
    for trial in outcome.trials:
        run = client().get_run(str(trial.run_id))
        shown = [trial.metrics[f"val_iou_{name}"] for name in ("disc _big_", "polygon")]
        assert trial.metrics["val_iou"] == pytest.approx(sum(shown) / 2)
        assert {key: run.data.metrics[key] for key in ("val_iou", "val_iou_disc _big_")} == {
            key: trial.metrics[key] for key in ("val_iou", "val_iou_disc _big_")
        }
        assert "no image of val shows star: val_iou and val_dice leave it out" in str(trial.note)


@pytest.mark.slow
def test_two_processes_at_one_search_share_its_trials_and_the_last_one_tells_of_all(ratchet_home: Path) -> None:
    search = ("core.name=shared", "optimizer.lr=interval(0.001,0.01)", "sweep.max_trials=6")
    command = [str(Path(sys.executable).parent / "ratchet"), "train", *SMALL, *search, "--multirun"]
    # As srun starts the second of two; the trials are no such thing.
    environment = {**os.environ, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "RANK": "1", "WORLD_SIZE": "2"}
    processes = []
    for wanted in ("studies.db", "trials"):
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        processes.append(subprocess.Popen(command, env=environment, text=True, **output))
        while not (ratchet_home / wanted).exists():
            assert processes[0].poll() is None
            time.sleep(0.1)
    told = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert not any("not started" in text for text in told), told
    experiment = client().get_experiment_by_name("shared")
    assert experiment is not None
    found = client().search_runs([experiment.experiment_id])
    (parent,) = (run for run in found if SWEEP_RUN_TAG in run.data.tags)
    trials = [run for run in found if run is not parent]
    assert [run.info.status for run in trials] == ["FINISHED"] * 6
    assert all(": finished" in text for text in told)  # both have worked
    best = max(trials, key=lambda run: run.data.metrics["val_iou"])
    assert parent.data.tags[BEST_TAG] == best.info.run_id
    page = Path(client().download_artifacts(parent.info.run_id, "comparison.html")).read_text()
    assert "6 trials of lr" in page
    assert all(client().get_metric_history(run.info.run_id, "loss_step") for run in trials)


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_with_the_point_that_it_was_at(stored_home: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    trials: list[list[str]] = []
    for line in process.stdout:
        trials = json.loads(line)
        if [trial[0] for trial in trials] == ["finished", "running"]:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)
    outcome = run(plan_sweep(compose_space([*SMALL, *SEARCH])))
    assert [(trial.name, trial.status) for trial in outcome.trials] == [
        (trials[0][1], "reused"),
        (trials[1][1], "finished"),
    ]
    experiment = client().get_experiment_by_name("search")
    assert experiment is not None
    found = client().search_runs([experiment.experiment_id])
    assert sum(SWEEP_RUN_TAG in run.data.tags for run in found) == 1
    assert sorted(run.info.status for run in found) == ["FINISHED", "FINISHED", "FINISHED"]
