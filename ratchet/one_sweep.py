"""What the trials of one sweep must have in common, so that one of them can be the best."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.consistency import losses_of
from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig
from ratchet.space import Choice, Dimension, Space

_LOSSES = ("val_loss_", "test_loss_")
# Means over pixels, whatever batch these are in; a sum is as its parts are.
_OF_PIXELS = ("CrossEntropyLoss", "FocalLoss", "SoftBCEWithLogitsLoss", ".SumLoss")


def require_one_sweep(space: Space, configs: Sequence[TrialConfig]) -> None:
    """Raise `ConfigError` at several settings for the sweep, and at losses that cannot be compared where they select."""
    varied = any(key.lstrip("+").split(".")[0] == "sweep" for key in space.dimensions)
    if varied or any(config.sweep != configs[0].sweep for config in configs):
        raise ConfigError("the overrides give several values for sweep: the trials of one sweep share its settings.")
    metric = configs[0].retrain.metric
    losses = any(key.lstrip("+~").split(".")[0] == "loss" and _varies(found) for key, found in space.dimensions.items())
    if metric.startswith(_LOSSES) and (losses or any(config.loss != configs[0].loss for config in configs)):
        raise ConfigError(
            f"retrain.metric={metric} while the loss varies: the values of different losses cannot be compared. Select by "
            "val_iou or val_dice."
        )
    sizes = {str(config.datamodule.get("batch_size")) for config in configs}
    sized = len(sizes) > 1 or (sizes == {"auto"} and (len(configs) > 1 or space.endless))
    sized |= any(
        key.lstrip("+~") == "datamodule.batch_size" and _varies(found) for key, found in space.dimensions.items()
    )
    parts = [part for config in configs for part in losses_of(config.loss)]
    by_batch = any(not str(part.get("_target_")).endswith(_OF_PIXELS) for part in parts)
    if sized and by_batch and metric.startswith(_LOSSES):
        how = "may be another for each trial (auto)" if sizes == {"auto"} else "varies"
        raise ConfigError(
            f"retrain.metric={metric} while datamodule.batch_size {how}: this loss is one of a whole batch, and smaller in "
            "small ones. Select by val_iou or val_dice."
        )


def _varies(dimension: Dimension) -> bool:
    return not (isinstance(dimension, Choice) and len(dimension.values) == 1)
