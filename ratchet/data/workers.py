"""Processes that load images: who ends a job signals all of them, and the training wants its data to the last."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

_log = logging.getLogger(__name__)

# Who sent a signal can be asked on Linux; elsewhere, workers end at anybody's.
_TELLS_SENDER = hasattr(signal, "sigwaitinfo")


_MOST_WORKERS = 8
_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share
_BYTES = 3 * 4 + 8  # of a pixel: three channels in float32, and its class in int64
_BATCHES = 2 * 3  # of a worker: two in advance and one at work, for training and for validation


def processes(wanted: int | None, *, batch_pixels: int) -> dict[str, Any]:
    """A loader's options on its processes; None: on a GPU as many as have cores and room, on a CPU none."""
    on_gpu = torch.cuda.is_available()
    if wanted is None:
        wanted = workers_that_fit(min(torch.get_num_threads(), _MOST_WORKERS), batch_pixels) if on_gpu else 0
    return {
        "num_workers": wanted,
        "persistent_workers": wanted > 0,
        # Not the default, which in a trial is its fork server: workers of that would outlive a trial that is killed.
        "multiprocessing_context": ("fork" if sys.platform == "linux" else "spawn") if wanted else None,
        "pin_memory": on_gpu,
    }


def workers_that_fit(wanted: int, pixels: int) -> int:
    """How many of the processes that are wanted have room for their batches of `pixels` pixels in the shared memory.

    Containers have 64 MB of it unless they are told otherwise, and a batch that finds no room ends the training.
    """
    if not wanted or not sys.platform.startswith("linux"):
        return wanted
    if not _SHARED.is_dir():
        _log.warning("there is no %s, through which processes hand over what they load: none are started", _SHARED)
        return 0
    free = shutil.disk_usage(_SHARED).free
    fitting = min(wanted, free // (_BATCHES * _BYTES * pixels))
    if fitting < wanted:
        _log.warning(
            "%s has %.0f MB left: %d processes load images instead of %d. A container has more with --shm-size, a pod with "
            "a volume (emptyDir: medium Memory) at /dev/shm",
            _SHARED,
            free / 1e6,
            fitting,
            wanted,
        )
    return fitting


class PatientLoader(DataLoader[Any]):
    """A `DataLoader` whose workers end at their parent's SIGTERM, and at nobody else's."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """`num_workers` decides whether there are any."""
        if options.get("num_workers") and _TELLS_SENDER:
            options["worker_init_fn"] = _end_with_parent
        super().__init__(*given, **options)

    def __iter__(self) -> Any:
        """Start the workers with the signal blocked: they inherit that, and are never without protection."""
        if self.worker_init_fn is None:
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(_: int) -> None:
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
