"""Successive halving: at which epochs trials are compared, and by what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ratchet.errors import ConfigError
from ratchet.settings import SweepSettings, TrialConfig
from ratchet.training.metric_names import logged_name


def rungs(settings: SweepSettings, max_epochs: int) -> tuple[int, ...]:
    """The epochs after which trials are compared: `halving_min_epochs`, and each time `halving_eta` times as many."""
    found, epochs = list[int](), settings.halving_min_epochs
    while epochs < max_epochs:
        found.append(epochs)
        epochs *= settings.halving_eta
    return tuple(found)


def require_rungs(config: TrialConfig) -> None:
    """Raise `ConfigError` where trials cannot be compared before their end."""
    metric, epochs = config.retrain.metric, config.trainer["max_epochs"]
    if not metric.startswith("val_"):
        raise ConfigError(
            f"sweep.halving compares trials while they train, and {metric} is measured at their end only: set "
            "retrain.metric to one of the validation's, such as val_iou."
        )
    every = config.trainer.get("check_val_every_n_epoch", 1)
    if every is None or config.sweep.halving_min_epochs < every:
        raise ConfigError(
            f"sweep.halving compares trials first after epoch {config.sweep.halving_min_epochs}, which no validation precedes "
            f"for certain (trainer.check_val_every_n_epoch={every}): set trainer.check_val_every_n_epoch, or "
            f"sweep.halving_min_epochs to as much."
        )
    kept = (config.callbacks.get("model_checkpoint") or {}).get("every_n_epochs") or 1
    if config.export.checkpoint_selection == "best" and config.sweep.halving_min_epochs < math.lcm(every, kept):
        raise ConfigError(
            f"sweep.halving compares trials first after epoch {config.sweep.halving_min_epochs}, when no epoch was kept that "
            f"could be exported (callbacks.model_checkpoint.every_n_epochs={kept}): set sweep.halving_min_epochs to "
            f"{math.lcm(every, kept)} or more."
        )
    interval = config.trainer.get("val_check_interval", 1.0)
    if interval is not None and interval != 1.0:
        raise ConfigError(
            f"sweep.halving compares trials after whole epochs, by the one validation of each: leave trainer.val_check_interval="
            f"{interval} out."
        )
    if not rungs(config.sweep, epochs):
        raise ConfigError(
            f"sweep.halving has nothing to halve: sweep.halving_min_epochs={config.sweep.halving_min_epochs} is not less "
            f"than trainer.max_epochs={epochs}."
        )


def exported_value(config: TrialConfig, logged: Callable[[str], Sequence[float]], count: int) -> float:
    """What `retrain.metric` was in the epoch whose weights would be exported after the first `count` validations.

    `logged` gives the values of a metric, one for each validation. NaN where there is no such epoch.
    """
    values, keeps = logged(config.retrain.metric)[:count], config.callbacks.get("model_checkpoint") or {}
    monitor = keeps.get("monitor")
    if config.export.checkpoint_selection == "last" or monitor is None:
        return values[-1] if values else math.nan
    name = logged_name(monitor)  # of what is logged in steps, Lightning knows the epoch's mean by two names
    scores = (logged(name) or logged(f"{name}_epoch"))[: len(values)]
    every, kept = config.trainer.get("check_val_every_n_epoch") or 1, keeps.get("every_n_epochs") or 1
    finite = [n for n, score in enumerate(scores) if math.isfinite(score) and (n + 1) * every % kept == 0]
    wins = max if keeps.get("mode") == "max" else min
    best = wins(finite, key=scores.__getitem__, default=None)  # the first of equals
    return math.nan if best is None else values[best]
