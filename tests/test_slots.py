"""Trials side by side: the share of the machine that each has, and a sweep that runs two at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY

from ratchet.config import compose, compose_space
from ratchet.errors import ConfigError
from ratchet.training.plan import PlannedTrial, plan_sweep
from ratchet.training.queue import Turn
from ratchet.training.results import SweepOutcome, TrialResult
from ratchet.training.slots import order, own_gpu, trials_at_once
from ratchet.training.sweep import run


def test_each_slot_has_its_own_gpu_by_the_name_that_cuda_knows() -> None:
    assert [own_gpu(slot, 2, None) for slot in range(3)] == ["0", "1", "0"]
    assert [own_gpu(slot, 2, "5,GPU-7f") for slot in range(2)] == ["5", "GPU-7f"]


@pytest.mark.usefixtures("stored_home")
def test_a_form_whose_packages_are_not_there_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_sweep(compose_space([*TINY, "export=onnx"]))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed.*pip install 'ratchet\[onnx\]'"):
        run(plan)


def test_on_cpus_one_trial_has_all_cores_and_sees_no_gpu(ratchet_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.training.slots.cores", lambda: 6)
    config = compose(list(TINY))
    turn = Turn(PlannedTrial(name="a", config=config, fingerprint="f", asked="f", images=1))
    alone, half = order(turn, {}, 0, trials_at_once(config)), order(turn, {}, 0, 2)
    assert trials_at_once(config) == 1
    assert (alone.gpus, alone.threads, half.threads) == ("", 6, 3)


def test_a_gpu_that_is_named_is_the_only_one_and_has_its_name(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, named = (
        compose([*TINY, "trainer.accelerator=gpu", devices]) for devices in ("trainer.devices=1", "trainer.devices=[1]")
    )
    monkeypatch.setattr(sys, "platform", "of a machine whose drivers are elsewhere")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (trials_at_once(every), trials_at_once(named)) == (2, 1)
    turn = Turn(PlannedTrial(name="a", config=named, fingerprint="f", asked="f", images=1))
    assert order(turn, {}, 0, 1).gpus is None
    assert order(turn, {}, 1, 2).gpus is None  # two on it


def test_the_slices_of_a_gpu_are_counted_by_their_names(ratchet_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([*TINY, "trainer.accelerator=gpu"])
    monkeypatch.setattr(sys, "platform", "of a machine whose drivers are elsewhere")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # as CUDA counts them
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert trials_at_once(config) == 2
    turn = Turn(PlannedTrial(name="a", config=config, fingerprint="f", asked="f", images=1))
    assert [order(turn, {}, slot, 2).gpus for slot in (0, 1)] == ["MIG-a", "MIG-b"]


SCRIPT = """
import sys
from ratchet.config import compose_sweep
from ratchet.training import process
from ratchet.training.plan import plan_trials
from ratchet.training.sweep import run_sweep

process._SPAWNS = True  # as on macOS
if __name__ == "__main__":
    print(*(trial.status for trial in run_sweep(plan_trials(compose_sweep(sys.argv[1:])))))
"""


@pytest.mark.trains
@pytest.mark.slow
def test_where_a_gpu_survives_no_fork_each_trial_has_an_interpreter_of_its_own(
    stored_home: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), *TINY, "export.types=[pt2]", "optimizer.lr=0.01,0.001"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["finished", "finished"], ended.stderr


@pytest.mark.trains
@pytest.mark.parametrize("halving", ["false", "true"])
def test_two_trials_run_at_once_and_all_come_to_their_end(stored_home: Path, halving: str) -> None:
    seen: list[list[str]] = []

    def watch(results: Sequence[TrialResult]) -> None:
        seen.append([result.name for result in results if result.status == "running"])

    rates = "optimizer.lr=0.05,0.002,0.0005,0.0001"
    halved = ["trainer.max_epochs=2", f"sweep.halving={halving}", "sweep.halving_eta=2", "sweep.halving_min_epochs=1"]
    space = compose_space([*TINY, *halved, "sweep.parallel=2", "export.types=[pt2]", rates])
    outcome: SweepOutcome = run(plan_sweep(space), on_progress=watch)
    assert max(map(len, seen)) >= 2
    ended = sorted(trial.status for trial in outcome.trials)
    assert set(ended) <= ({"finished", "pruned"} if halving == "true" else {"finished"})
    assert len(ended) == 4
    assert all(trial.metrics["val_iou"] >= 0 for trial in outcome.trials if trial.trained)
