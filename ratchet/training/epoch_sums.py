"""What the means of an epoch are made of so far, which Lightning forgets where a training goes on within one."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

Sums = dict[str, tuple[torch.Tensor, torch.Tensor, dict[str, Any]]]
"""By what is logged: its sum, how many images that is of, and how it was logged."""


def epoch_sums(trainer: pl.Trainer) -> Sums:
    """What the epoch's means are made of so far; Lightning forgets it. Its results collection has no public name."""
    results = trainer.fit_loop.epoch_loop._results
    return {
        key: (
            result.value.clone(),
            result.cumulated_batch_size.clone(),
            {name: getattr(result.meta, name) for name in ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch")},
        )
        for key, result in results.items()
        if result.meta.on_epoch and result.meta.is_mean_reduction and not result.has_reset
    }


def add_sums(trainer: pl.Trainer, sums: Sums) -> None:
    """Add them to what has been logged since; what has not, as where the epoch began, is logged by its old words."""
    results, reduce = trainer.fit_loop.epoch_loop._results, trainer.strategy.reduce
    for key, (value, size, *said) in sums.items():
        place = trainer.strategy.root_device
        there = value.to(place), size.to(place)
        if key in results:
            result = results[key]
            result.value, result.cumulated_batch_size = result.value + there[0], result.cumulated_batch_size + there[1]
        elif said:  # an earlier Ratchet's snapshot has no words
            results.log(**said[0], value=there[0] / there[1], batch_size=int(size), sync_dist_fn=reduce)
            results[key].value, results[key].cumulated_batch_size = there
