"""When a sweep is to stop before its end: its time is up, or a trial is as good as was asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

from ratchet.duration import shown_duration
from ratchet.page_parts import figure
from ratchet.settings import Mode, SweepSettings


class SweepBudget:
    """Counts from the moment when it is made, on from the seconds that were `spent` before."""

    def __init__(self, settings: SweepSettings, *, metric: str, mode: Mode, spent: float = 0.0) -> None:
        self._max_time, self._target = settings.max_time, settings.target
        self._metric, self._mode = metric, mode
        self._started = time.monotonic() - spent

    def wait(self, seconds: float) -> None:
        """Do not count seconds in which the machine was another sweep's."""
        self._started += seconds

    def used_up(self, finished: Iterable[Mapping[str, float]]) -> str | None:
        """Say why no further trial is to start, given the metrics of the finished ones; None: it may."""
        if self._target is not None:
            sign = 1 if self._mode == "max" else -1
            values = [metrics[self._metric] for metrics in finished if self._metric in metrics]
            best = max(values, key=lambda value: sign * value if math.isfinite(value) else -math.inf, default=math.nan)
            if sign * (best - self._target) >= 0:
                return f"target {self._metric} {self._target:g} reached with {figure(best)}"
        if self._max_time is not None and time.monotonic() - self._started >= self._max_time:
            return f"max_time {shown_duration(self._max_time)} reached"
        return None
