"""Trials side by side: the share of the machine that each has, and a sweep that runs two at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from uuid import uuid4

import optuna
import pytest
import torch
from conftest import TINY

from ratchet.config import compose, compose_space, compose_sweep
from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig
from ratchet.training.board import Board
from ratchet.training.engine import Engine, _Work
from ratchet.training.plan import PlannedTrial, plan_sweep, plan_trials
from ratchet.training.process import TrialOrder, TrialProcess, _see_only, teller
from ratchet.training.progress import EXPORTING, FOR_A_GPU, TRAINING, Progress, TrialEnd
from ratchet.training.queue import TrialList, Turn
from ratchet.training.results import SweepOutcome, TrialResult
from ratchet.training.slots import (
    GpuLocks,
    gpu_folder,
    gpus,
    gpus_are_shared,
    gpus_to_take,
    order,
    trials_at_once,
)
from ratchet.training.study_storage import address
from ratchet.training.sweep import run, run_sweep


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: int, **visible: str) -> None:
    """Be on a machine with so many of them, by CUDA's count."""
    monkeypatch.setattr(sys, "platform", "of a machine whose drivers are elsewhere")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in visible.items():
        monkeypatch.setenv(name, value)


def turn_of(config: TrialConfig) -> Turn:
    return Turn(PlannedTrial(name="a", config=config, fingerprint="f", asked="f", images=1))


def test_each_slot_has_its_own_gpu_by_the_name_that_cuda_knows(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*TINY, "trainer.accelerator=gpu"])
    see_gpus(monkeypatch, 2)
    assert [order(turn_of(config), {}, slot, 3).gpus for slot in range(3)] == ["0", "1", "0"]
    see_gpus(monkeypatch, 2, CUDA_VISIBLE_DEVICES="5, GPU-7f")
    assert [order(turn_of(config), {}, slot, 2).gpus for slot in range(2)] == ["5", "GPU-7f"]


def test_amds_gpus_are_named_and_hidden_by_the_variable_that_wins_there(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*TINY, "trainer.accelerator=gpu"])
    see_gpus(monkeypatch, 2, CUDA_VISIBLE_DEVICES="0", HIP_VISIBLE_DEVICES="2,3")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert gpus(config) == ["2", "3"]
    for gpu, hidden in (("3", "3"), ("", "-1")):
        _see_only(gpu)
        assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["HIP_VISIBLE_DEVICES"]) == (gpu, hidden)


@pytest.mark.usefixtures("stored_home")
def test_a_form_whose_packages_are_not_there_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_sweep(compose_space([*TINY, "export=onnx"]))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed.*pip install onnx onnxscript onnxruntime"):
        run(plan)


def test_on_cpus_one_trial_has_all_cores_and_sees_no_gpu(ratchet_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.training.slots.cores", lambda: 6)
    config = compose(list(TINY))
    turn = turn_of(config)
    alone, half = order(turn, {}, 0, trials_at_once(config)), order(turn, {}, 0, 2)
    assert trials_at_once(config) == 1
    assert (alone.gpus, alone.threads, half.threads) == ("", 6, 3)


def test_a_gpu_that_is_named_is_the_only_one_that_a_trial_sees(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, named, missing = (
        compose([*TINY, "trainer.accelerator=gpu", f"trainer.devices={devices}"]) for devices in ("1", "[1]", "[2]")
    )
    see_gpus(monkeypatch, 2)
    assert (trials_at_once(every), trials_at_once(named)) == (2, 1)
    assert order(turn_of(named), {}, 0, 1).gpus == "1"
    assert order(turn_of(named), {}, 1, 2).gpus == "1"  # two on it
    with pytest.raises(ConfigError, match=r"trainer\.devices=\[2\]: no such GPU is among the 2"):
        trials_at_once(missing)


def test_the_slices_of_a_gpu_are_counted_by_their_names(ratchet_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([*TINY, "trainer.accelerator=gpu"])
    see_gpus(monkeypatch, 1, CUDA_VISIBLE_DEVICES="MIG-a,MIG-b")  # one, as CUDA counts them
    assert trials_at_once(config) == 2
    assert [order(turn_of(config), {}, slot, 2).gpus for slot in (0, 1)] == ["MIG-a", "MIG-b"]


def test_gpus_are_taken_where_each_trial_has_one_and_no_scheduler_gave_them_out(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, on_cpu = (compose([*TINY, f"trainer.accelerator={accelerator}"]) for accelerator in ("gpu", "cpu"))
    see_gpus(monkeypatch, 2)
    assert [gpus_to_take(config, slots) for slots in (1, 2, 3)] == [["0", "1"], ["0", "1"], []]
    assert gpus_to_take(on_cpu, 1) == []
    see_gpus(monkeypatch, 2, SLURM_JOB_ID="7")
    assert gpus_to_take(config, 1) == []


HOLDER = """
import sys
from pathlib import Path
from ratchet.training.folder import lock_folder
held = lock_folder(Path(sys.argv[1]), wait=False)
print(held is not None, flush=True)
sys.stdin.read()
"""


@contextmanager
def training_elsewhere(gpu: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock of a GPU until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(gpu_folder(gpu))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()
            shutil.rmtree(gpu_folder(gpu))


def test_a_gpu_is_one_sweeps_until_that_leaves_it_or_dies() -> None:
    taken, free = f"GPU-{uuid4()}", f"GPU-{uuid4()}"
    locks = GpuLocks()
    with training_elsewhere(taken) as other:
        assert locks.take([taken, free]) == free
        assert locks.take([taken, free]) is None
        locks.leave(free)
        assert locks.take([taken, free]) == free
        other.kill()
        other.wait()
        assert locks.take([taken, free]) == taken
        locks.leave(taken)
        locks.leave(free)
    shutil.rmtree(gpu_folder(free))


def test_a_lock_is_as_young_as_who_holds_it_and_one_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locks = GpuLocks()
    locks.take(["0"])
    locks.leave("0")
    os.utime(gpu_folder("0") / "lock", (0, 0))
    assert locks.take(["0"]) == "0"
    assert time.time() - (gpu_folder("0") / "lock").stat().st_mtime < 60
    gpu_folder("1").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot be locked"):
        locks.take(["1"])


@pytest.mark.trains
def test_a_sweep_that_finds_all_gpus_taken_says_so_once_and_trains_when_one_is_left(
    stored_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = f"GPU-{uuid4()}"
    see_gpus(monkeypatch, 1, CUDA_VISIBLE_DEVICES=gpu)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ratchet.training.slots._DRIVERS", (str(tmp_path),))
    plan = plan_sweep(compose_space([*TINY, "trainer.accelerator=auto", "export.types=[pt2]"]))
    told, phases = list[str](), list[str]()

    with training_elsewhere(gpu) as other:

        def watch(results: Sequence[TrialResult]) -> None:
            phases.append(results[0].progress.phase)
            if results[0].progress.phase == FOR_A_GPU and results[0].run_id is None:
                told.append(results[0].status)
                other.kill()

        outcome = run(plan, on_progress=watch)
    assert told == ["running"]
    assert phases[len(phases) - phases[::-1].index(FOR_A_GPU)] == "starting"  # what follows is no waiting any more
    assert [trial.status for trial in outcome.trials] == ["finished"]


def test_gpus_that_take_one_process_at_a_time_are_known_by_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_are_shared()
    script = tmp_path / "nvidia-smi"
    for mode, shared in (("Default", True), ("Exclusive_Process", False)):
        script.write_text(f"#!/bin/sh\necho Default\necho {mode}\n")
        script.chmod(0o755)
        assert gpus_are_shared() is shared


@pytest.mark.usefixtures("stored_home")
def test_the_next_trial_waits_for_an_export_where_a_gpu_takes_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sweep(compose_space([*TINY, "trainer.accelerator=auto"]))
    see_gpus(monkeypatch, 1, CUDA_VISIBLE_DEVICES="0")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ratchet.training.slots._DRIVERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    script = tmp_path / "nvidia-smi"
    for mode, overlaps in (("Default", True), ("Exclusive_Process", False)):
        script.write_text(f"#!/bin/sh\necho {mode}\n")
        script.chmod(0o755)
        assert Engine(plan, Board(plan, lambda _: None), TrialList(plan, {}), 1, {})._overlaps is overlaps


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_where_a_gpu_survives_no_fork_each_trial_has_an_interpreter_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.training.process._SPAWNS", True)  # as on macOS
    made, begin = list[TrialProcess](), TrialProcess.start

    def start(given: TrialOrder) -> TrialProcess:
        made.append(begin(given))
        return made[-1]

    monkeypatch.setattr(TrialProcess, "start", start)
    ended = run_sweep(plan_trials(compose_sweep([*TINY, "export.types=[pt2]", "optimizer.lr=0.01,0.001"])))
    assert [trial.status for trial in ended] == ["finished", "finished"]
    assert [type(each.process).__name__ for each in made] == ["SpawnProcess"] * 2


@pytest.mark.trains
@pytest.mark.parametrize("halving", ["false", "true"])
def test_two_trials_run_at_once_and_all_come_to_their_end(stored_home: Path, halving: str) -> None:
    seen: list[list[str]] = []

    def watch(results: Sequence[TrialResult]) -> None:
        seen.append([result.name for result in results if result.status == "running"])

    halved = ["trainer.max_epochs=2", "sweep.halving_eta=2", "sweep.halving_min_epochs=1"] if halving == "true" else []
    rates = f"optimizer.lr=0.05,0.002,0.0005{',0.0001' if halved else ''}"
    halved.append(f"sweep.halving={halving}")
    space = compose_space([*TINY, *halved, "sweep.parallel=2", "export.types=[pt2]", rates])
    plan = plan_sweep(space)
    outcome: SweepOutcome = run(plan, on_progress=watch)
    assert max(map(len, seen)) >= 2
    ended = sorted(trial.status for trial in outcome.trials)
    assert set(ended) <= ({"finished", "pruned"} if halving == "true" else {"finished"})
    assert len(ended) == len(rates.split(","))
    assert all(trial.metrics["val_iou"] >= 0 for trial in outcome.trials if trial.trained)
    if halving == "true":
        study = optuna.load_study(study_name=None, storage=address(plan.config.core.home))
        assert [set(trial.intermediate_values) for trial in study.get_trials()] == [{1}] * 4


class Kept(TrialList):
    """A queue that keeps what it is told."""

    reused: str | None = None

    def ended(self, turn: Turn, value: float | None, *, reused: str | None = None) -> None:
        self.reused = reused


@pytest.mark.usefixtures("ratchet_home")
def test_the_queue_is_told_the_run_of_a_trial_that_another_process_has_trained_meanwhile(tmp_path: Path) -> None:
    plan = plan_sweep(compose_space(TINY))
    queue, (ours, theirs) = Kept(plan, {}), multiprocessing.Pipe()
    theirs.send(("ended", TrialEnd(status="reused", run_id="abc", metrics={})))
    process = SimpleNamespace(connection=ours, order=SimpleNamespace(log=tmp_path / "log"))
    work = _Work(Turn(plan.trials[0]), 0.0, 0.0)
    assert Engine(plan, Board(plan, lambda _: None), queue, 1, {})._receive(process, work)  # type: ignore[arg-type]
    assert queue.reused == "abc"


def test_a_training_does_not_stand_still_while_nobody_listens_and_what_follows_it_is_told() -> None:
    ours, theirs = Pipe()
    tell = teller(theirs)
    steps = partial(list, (tell(Progress(phase=TRAINING, step=step)) for step in range(10_000)))
    training = Thread(target=steps, daemon=True)
    training.start()
    training.join(60)
    assert not training.is_alive()  # a pipe is full after a few hundred
    tell(Progress(phase=EXPORTING))
    told = []
    while ours.poll():
        told.append(ours.recv()[1])
    assert [progress.step for progress in told[:3]] == [0, 1, 2]
    assert len(told) < 10_000
    assert told[-1].phase == EXPORTING
