"""How many cores this process may use: those that it is bound to, or what its control group is given of their time."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ratchet.control_groups import own_groups

_QUOTA_FILES = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))  # quota and period


def cores(groups: Sequence[Path] | None = None) -> int:
    """The cores to run threads on, at least 1. Who has a quota, as containers and systemd units do, sees all of the machine.

    `groups` are the folders of the control groups to look at (None: those of this process).
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(_quota(folder) or bound for folder in (own_groups("cpu") if groups is None else groups))])


def _quota(folder: Path) -> int | None:
    """The cores that a control group's quota comes to, rounded up; None where there is no quota."""
    for files in _QUOTA_FILES:
        try:
            quota, period = map(int, " ".join((folder / file).read_text() for file in files).split())
        except (OSError, ValueError):  # no such controller, or its quota is `max`
            continue
        if quota > 0:  # version 1 says -1 where there is none
            return math.ceil(quota / period)
    return None
