"""Trials that are killed and go on: real processes, real kills, compared with trials that nobody disturbed."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from ratchet.config import compose
from ratchet.registry.tracking import client
from ratchet.training.process import TrialOrder, TrialProcess
from ratchet.training.progress import Progress, TrialEnd
from ratchet.training.sweep import PlannedTrial, plan_trials

pytestmark = pytest.mark.trains

# Dropout, augmentation, a schedule that looks at the validation, early stopping: all that has a state of its own.
EVERYTHING = (
    *TINY,
    "core.deterministic=true",
    "backbone.model.arch=deeplabv3plus",
    "transforms=flips",
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=2",
    "scheduler.patience=0",
    "datamodule.batch_size=8",
    "export.types=[pt2]",
)


def plan(home: Path, *overrides: str) -> PlannedTrial:
    (planned,) = plan_trials([compose([*EVERYTHING, f"core.home={home}", *overrides])])
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
    trial: PlannedTrial, *, kill: Callable[[Progress], bool] = lambda _: False, until_epoch: int | None = None
) -> TrialEnd | None:
    """Run a trial in its process; None where it was killed."""
    process = start(trial, until_epoch=until_epoch)
    try:
        while True:
            kind, value = process.connection.recv()
            if kind == "progress" and kill(value):
                os.kill(int(process.process.pid or 0), signal.SIGKILL)
                return None
            if kind == "failed":
                raise AssertionError(value)
            if kind == "ended":
                assert isinstance(value, TrialEnd)
                return value
    finally:
        process.end()


def weights(run_id: str, folder: Path, file: str = "checkpoints/best.ckpt") -> dict[str, torch.Tensor]:
    path = client().download_artifacts(run_id, file, str(folder))
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_same(ours: str, theirs: str, folder: Path) -> None:
    """Compare the weights of two runs bit for bit, and every value that they logged."""
    for file in ("checkpoints/best.ckpt", "checkpoints/resume/resume.ckpt"):
        (folder / "a").mkdir(exist_ok=True)
        (folder / "b").mkdir(exist_ok=True)
        one, other = weights(ours, folder / "a", file), weights(theirs, folder / "b", file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    one_curve, other_curve = curves(ours), curves(theirs)
    assert one_curve.keys() == other_curve.keys()
    for key in one_curve:
        assert one_curve[key] == other_curve[key], key


def curves(run_id: str) -> dict[str, list[tuple[int, Any]]]:
    keys = client().get_run(run_id).data.metrics.keys() - {"duration", "peak_memory"}
    return {
        key: [
            (row.step, "nan" if math.isnan(row.value) else row.value)
            for row in sorted(client().get_metric_history(run_id, key), key=lambda row: row.step)
        ]
        for key in keys
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run of a trial that nobody disturbed, in a store that all of this file's tests share."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(store))
        end = train(plan(store / "undisturbed"))
    assert end is not None
    return end.run_id
