"""How many trials run side by side, and which share of the machine each of them has."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ratchet.cores import cores
from ratchet.settings import TrialConfig
from ratchet.training.process import TrialOrder
from ratchet.training.queue import Turn


def trials_at_once(config: TrialConfig) -> int:
    """How many trials to run side by side: `sweep.parallel`, or one per GPU, or one, also on a GPU that is named.

    On CPUs one trial with all threads is faster than several with few: 0.9 times as long on two cores.
    """
    if config.sweep.parallel is not None:
        return config.sweep.parallel
    return 1 if isinstance(config.trainer.get("devices"), list) else max(1, gpus(config))


def gpus(config: TrialConfig) -> int:
    """How many GPUs its trials may train on; where no driver is, torch's three seconds are not spent on asking."""
    if config.trainer.get("accelerator") == "cpu":
        return 0
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and NVIDIA's under WSL
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in drivers):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible.startswith("MIG-"):  # of the slices of a GPU a process sees the first alone, and CUDA counts one
        return len(visible.split(","))
    import torch  # noqa: PLC0415 - slow

    return torch.cuda.device_count()


def order(turn: Turn, tags: Mapping[str, str], slot: int, slots: int) -> TrialOrder:
    """What the process of a turn is to do, in its share of the machine."""
    trial = turn.trial
    logs = (trial.config.core.home / "logs").absolute()
    logs.mkdir(parents=True, exist_ok=True)
    return TrialOrder(
        name=trial.name,
        config=trial.config,
        fingerprint=trial.fingerprint,
        samples=trial.samples,
        tags=tags,
        log=Path(logs / f"{trial.fingerprint[:12]}-{os.getpid()}.log"),
        slot=slot,
        threads=max(1, cores() // slots),
        gpus=_visible_gpus(trial.config, slot, slots),
        until_epoch=turn.until_epoch,
    )


def _visible_gpus(config: TrialConfig, slot: int, slots: int) -> str | None:
    count = gpus(config)
    if count == 0:
        return ""
    if isinstance(config.trainer.get("devices"), list):  # named among those that are seen
        return None
    return own_gpu(slot, count, os.environ.get("CUDA_VISIBLE_DEVICES")) if slots > 1 else None


def own_gpu(slot: int, count: int, visible: str | None) -> str:
    """Which of the GPUs that this process sees (`visible`; None: all of the machine) is a slot's, as CUDA names it."""
    return (visible.split(",") if visible else [str(index) for index in range(count)])[slot % count]
