"""Processes that load images: who ends a job signals all of them, and the training wants its data to the last."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from torch.utils.data import DataLoader

# Who sent a signal can be asked on Linux; elsewhere, workers end at anybody's.
_TELLS_SENDER = hasattr(signal, "sigwaitinfo")


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
