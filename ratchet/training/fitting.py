"""Trains one trial, from its start or from its snapshot, until it is over or is to pause."""

from __future__ import annotations

import time

from ratchet.training.folder import Snapshot


class Spending:
    """What a trial has cost: its time in seconds and its largest memory in MiB, over all processes that worked on it."""

    def __init__(self) -> None:
        """Begin to count."""
        self._started = time.monotonic()
        self._before = (0.0, 0.0)

    def add(self, snapshot: Snapshot | None) -> None:
        """Add what was spent until a snapshot."""
        if snapshot is not None:
            self._before = (snapshot.facts.seconds, snapshot.facts.peak_memory)

    def seconds(self) -> float:
        """The time."""
        return self._before[0] + time.monotonic() - self._started
