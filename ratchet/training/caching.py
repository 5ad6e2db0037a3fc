"""The images of a sweep, decoded once before its first trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ratchet.training.progress import Progress

if TYPE_CHECKING:
    from ratchet.training.sweep import PlannedTrial

# Keys of the datamodule that change what is made of the cached pixels, not the pixels.
_AFTER = ("batch_size", "num_workers", "train_transform", "mean", "std")


def fill_caches(trials: Sequence[PlannedTrial], update: Callable[..., None]) -> list[Any]:
    """Decode what the caches of the trials' data lack; it is shown as progress of the first trial that needs it.

    The data modules returned keep their caches in place as long as they are held. Raises `DataError`.
    """
    from ratchet.config import instantiate  # noqa: PLC0415 - imports Hydra

    nodes = {
        repr([item for item in sorted(trial.config.datamodule.items()) if item[0] not in _AFTER]): trial
        for trial in reversed(trials)
    }
    held = []
    for trial in reversed(nodes.values()):
        data = instantiate(trial.config.datamodule | {"train_transform": None})  # which would import torchvision
        data.fill_cache(_Percents(trial.fingerprint, update))
        update(trial.fingerprint, progress=Progress())
        held.append(data)
    return held


class _Percents:
    """Passes on what changes a percentage: each report draws a table."""

    def __init__(self, fingerprint: str, update: Callable[..., None]) -> None:
        self._fingerprint, self._update, self._told = fingerprint, update, -1

    def __call__(self, done: int, total: int) -> None:
        if self._told != 100 * done // total:
            self._told = 100 * done // total
            self._update(self._fingerprint, progress=Progress(phase="caching images", step=done, steps_per_epoch=total))
