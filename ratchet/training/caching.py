"""The images of a sweep, decoded once before the first trial that needs them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ratchet.settings import TrialConfig
from ratchet.training.plan import content_key
from ratchet.training.progress import CACHING, Progress, Report

_PIXELS = ("input_height", "input_width", "cache", "cache_path", "cache_gb")


def cache_key(config: TrialConfig) -> str:
    """What is equal for configurations whose images are decoded and resized alike."""
    return repr([content_key(config), *(config.datamodule.get(key) for key in _PIXELS)])


def fill_cache(config: TrialConfig, samples: Collection[str] | None, report: Report) -> Any:
    """Decode what the cache of the data lacks, and report it; of `samples` only, if given.

    The data module returned keeps its cache in place as long as it is held. Raises `DataError`.
    """
    from ratchet.config import data_module  # noqa: PLC0415 - imports Hydra

    data = data_module(config.datamodule, only=samples)
    data.fill_cache(_Percents(report))
    report(Progress())
    return data


class _Percents:
    """Passes on what changes a percentage: each report draws a table."""

    def __init__(self, report: Report) -> None:
        self._report, self._told = report, -1

    def __call__(self, done: int, total: int) -> None:
        if self._told != 100 * done // total:
            self._told = 100 * done // total
            self._report(Progress(phase=CACHING, step=done, steps_per_epoch=total))
