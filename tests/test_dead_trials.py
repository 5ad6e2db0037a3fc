"""A trial that dies fails alone, its reason is told, and nothing is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from conftest import TINY

from ratchet.config import compose, compose_sweep
from ratchet.errors import SweepFailedError, TrialFailedError
from ratchet.registry.tracking import client
from ratchet.run_names import FAILURE_TAG
from ratchet.training.memory import lack_of_memory_told, out_of_memory, peak_of
from ratchet.training.plan import plan_trials
from ratchet.training.results import TrialResult
from ratchet.training.sweep import run_sweep

SMALL = (*TINY, "export.types=[pt2]", "datamodule.batch_size=8")


@pytest.fixture
def vmstat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel tells of its memory, for this test alone: it may kill something else on this machine just then."""
    path = tmp_path / "vmstat"
    path.write_text("nr_free_pages 9\noom_kill 7\n")
    monkeypatch.setattr("ratchet.training.memory._VMSTAT", path)
    return path


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home", "vmstat")
def test_trials_that_die_fail_alone_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "trial_faults")
    faults = ("Starve", "Die", "Crash")
    overrides = "+callbacks.fault=" + ",".join([*(f"{{_target_: trial_faults.{fault}}}" for fault in faults), "null"])
    results = run_sweep(plan_trials(compose_sweep([*SMALL, overrides])))
    assert [result.status for result in results] == ["failed", "failed", "failed", "finished"]
    starved, killed, crashed = (str(result.error) for result in results[:3])
    assert re.fullmatch(
        r"TrialFailedError: killed: out of memory, peak \d+\.\d GB; try datamodule\.batch_size=4", starved
    )
    assert re.match(r"killed by SIGKILL.*, peak \d+\.\d GB\. Its output: ", killed)
    assert re.match(r"killed by SIGSEGV.*, peak \d+\.\d GB\. Its output: ", crashed)
    logged = client().get_metric_history(str(results[1].run_id), "loss_step")
    assert [metric.step for metric in logged] == [0]  # of the second step, there is no value yet
    for result in results[:3]:
        run = client().get_run(str(result.run_id))
        assert run.info.status == "FAILED"
        assert run.data.tags[FAILURE_TAG] == result.error


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
@pytest.mark.parametrize(("size", "smaller"), [("8", 4), ("auto", 2)])  # the images that a trial finds are four
def test_a_trial_that_the_kernel_kills_for_its_memory_says_what_to_try(
    vmstat: Path, monkeypatch: pytest.MonkeyPatch, size: str, smaller: int
) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "trial_faults")
    fault = f"+callbacks.fault={{_target_: trial_faults.RunOut, vmstat: '{vmstat}'}}"
    told = rf"killed: out of memory, peak \d+\.\d GB; try datamodule\.batch_size={smaller}\."
    with pytest.raises(SweepFailedError, match=told):
        run_sweep(plan_trials(compose_sweep([*SMALL, fault, f"datamodule.batch_size={size}"])))


@pytest.mark.trains
def test_a_sweep_that_is_killed_leaves_no_trial_running(stored_home: Path) -> None:
    script = (
        "from ratchet.config import compose_sweep\n"
        "from ratchet.training.plan import plan_trials\nfrom ratchet.training.sweep import run_sweep\n"
        f"run_sweep(plan_trials(compose_sweep({[*SMALL, 'trainer.max_epochs=500', 'datamodule.num_workers=1']!r})),\n"
        "    on_progress=lambda found: print(found[0].progress.phase, flush=True))\n"
    )
    sweep = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert sweep.stdout is not None
    assert "training\n" in sweep.stdout
    family = psutil.Process(sweep.pid).children(recursive=True)
    assert len(family) >= 3  # the fork server, the trial, its loader
    sweep.kill()
    sweep.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


@pytest.mark.trains
@pytest.mark.usefixtures("stored_home")
def test_a_sweep_that_is_stopped_while_its_server_is_away_leaves_no_trial_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = "datamodule.batch_size=6,8,10"
    trials = plan_trials(compose_sweep([*SMALL, several, "sweep.parallel=3", "trainer.max_epochs=500"]))
    others = _grandchildren()  # of a server that tests before this one use
    running: set[psutil.Process] = set()

    def stop(results: Sequence[TrialResult]) -> None:
        if all(result.progress.phase == "training" for result in results):
            running.update(_grandchildren() - others)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(trials, on_progress=stop)
    assert len(running) == 3
    assert not running & _grandchildren()


def _grandchildren() -> set[psutil.Process]:
    """What this process's children started, as its fork server does the trials."""
    return {found for child in psutil.Process().children() for found in child.children()}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("HIP out of memory."),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_an_allocator_that_fails_is_told_as_lack_of_memory(error: Exception) -> None:
    told = r"^killed: out of memory, peak .* GB; try datamodule\.batch_size=8$"
    with pytest.raises(TrialFailedError, match=told), lack_of_memory_told(lambda: 16):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), lack_of_memory_told(lambda: 16):
        raise RuntimeError("shapes do not match")


def test_where_the_batch_cannot_be_halved_another_way_out_is_told() -> None:
    assert out_of_memory(0.0, 1) == "killed: out of memory; try a smaller network or input"
    assert out_of_memory(0.0, None) == "killed: out of memory; try a smaller network or input"  # none was found yet
    assert out_of_memory(10_681.2, 16) == "killed: out of memory, peak 11.2 GB; try datamodule.batch_size=8"


def test_the_peak_of_a_process_is_seen_from_outside() -> None:
    assert 10 < peak_of(os.getpid()) < 10_000


@pytest.mark.usefixtures("stored_home")
def test_a_network_of_ones_own_that_cannot_be_exported_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_ALLOWED_TARGETS", "trial_faults")
    own = "++backbone.model={_target_: trial_faults.CountsInPython}"
    with pytest.raises(SweepFailedError, match="ExportError"):
        run_sweep(plan_trials([compose([*TINY, own])]))
    experiment = client().get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client().search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert "loss_step" not in run.data.metrics
