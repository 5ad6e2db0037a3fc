"""Which process works on a trial of a study, and whether that is dead."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

import psutil
from optuna.trial import FrozenTrial

WORKER = "worker"
"""A trial's attribute: the process that works on it."""

_UNSIGNED = timedelta(days=1)


def signed_here(trial: FrozenTrial, worker: str) -> int | None:
    """The id of the process that works on a trial, if it is of the machine of this `worker`, and numbered like it."""
    place, _, pid = str(trial.user_attrs.get(WORKER, "")).rpartition("/")
    return int(pid) if pid and place == worker.rpartition("/")[0] else None


def is_dead(trial: FrozenTrial, worker: str) -> bool:
    """Whether a trial's process was of this machine, and is no more; or died before it could sign, wherever that was."""
    if WORKER not in trial.user_attrs:  # Optuna's times are local ones
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _UNSIGNED
    pid = signed_here(trial, worker)
    return pid is not None and not (pid != os.getpid() and psutil.pid_exists(pid))
