"""How many trials run side by side, and which share of the machine each of them has."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ratchet.cores import cores
from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig
from ratchet.training.folder import lock_folder
from ratchet.training.process import TrialOrder
from ratchet.training.queue import Turn

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and NVIDIA's under WSL
# Where one of these is set, a GPU's number is another GPU for each job: the cluster's scheduler has given them out.
_NUMBERED_ANEW = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "ROCR_VISIBLE_DEVICES")


def trials_at_once(config: TrialConfig) -> int:
    """How many trials to run side by side: `sweep.parallel`, or one per GPU, or one, also on a GPU that is named.

    On CPUs one trial with all threads is faster than several with few: 0.9 times as long on two cores.
    """
    return config.sweep.parallel or max(1, len(gpus(config)))


def gpus(config: TrialConfig) -> list[str]:
    """The GPUs that its trials may train on, as CUDA_VISIBLE_DEVICES names them: all that are seen, or the one that is named.

    Raises `ConfigError` for one that is not there.
    """
    if config.trainer.get("accelerator") == "cpu":
        return []
    names, named = _seen(), config.trainer.get("devices")
    if not isinstance(named, list):
        return names
    if named[0] not in range(max(1, len(names))):
        raise ConfigError(
            f"trainer.devices={named}: no such GPU is among the {len(names)} that are seen here, numbered from 0. Name one "
            "of those, or set trainer.devices=1 for any."
        )
    return names[named[0] :][:1]


def _seen() -> list[str]:
    """Where no driver is, torch's three seconds are not spent on asking."""
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible.startswith("MIG-"):  # of the slices of a GPU a process sees the first alone, and CUDA counts one
        return visible.split(",")
    import torch  # noqa: PLC0415 - slow

    if torch.version.hip:
        visible = os.environ.get("HIP_VISIBLE_DEVICES", visible)
    count = torch.cuda.device_count()
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return [name.strip() for name in names][:count]


def order(turn: Turn, tags: Mapping[str, str], slot: int, slots: int, gpu: str | None = None) -> TrialOrder:
    """What the process of a turn is to do, in its share of the machine: on the GPU that was taken for it, or else the slot's."""
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
        gpus=gpu or _gpu_of(slot, gpus(trial.config)),
        until_epoch=turn.until_epoch,
    )


def _gpu_of(slot: int, names: Sequence[str]) -> str:
    return names[slot % len(names)] if names else ""


def gpus_to_take(config: TrialConfig, slots: int) -> list[str]:
    """The GPUs of which a trial takes one; none where it needs none, shares one with other trials, or a cluster gave them out."""
    names = gpus(config)
    given_out = any(name in os.environ for name in _NUMBERED_ANEW)
    return [] if given_out or slots > len(names) else names


class GpuLocks:
    """The GPUs that the trials of a sweep have: no other sweep of this user and machine trains on one meanwhile.

    The locks are those of folders: they end with the process of the sweep, however that ends.
    """

    def __init__(self) -> None:
        """Hold none."""
        self._held: dict[str, IO[bytes]] = {}

    def take(self, names: Sequence[str]) -> str | None:
        """Take the first that nobody has; None where there is none. Raises `ConfigError` where no lock can be made."""
        for name in names:
            # A lock does not keep its own process out, which would lose it by closing the file again.
            lock = None if name in self._held else _lock(gpu_folder(name))
            if lock is not None:
                self._held[name] = lock
                return name
        return None

    def leave(self, name: str | None) -> None:
        """Leave one to others, if it was taken."""
        lock = self._held.pop(name or "", None)
        if lock is not None:
            lock.close()


def _lock(folder: Path) -> IO[bytes] | None:
    try:
        lock = lock_folder(folder, wait=False)
        if lock is not None:
            os.utime(folder / "lock")  # who cleans the temporary folder goes by the age of files
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be locked ({error.strerror}), so nobody knows who trains on this GPU: remove it if it is another "
            "user's, or set TMPDIR."
        ) from error
    return lock


def gpu_folder(name: str) -> Path:
    """Where the lock of a GPU is."""
    return Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}" / "gpus" / name


def gpus_are_shared() -> bool:
    """Whether several processes may use a GPU at once: not in NVIDIA's compute mode Exclusive_Process."""
    command = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        told: str = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):  # AMD's have no such mode
        return True
    return "Exclusive" not in told
