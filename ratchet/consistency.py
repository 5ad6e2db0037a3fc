"""What the parts of a configuration must agree on, and what a trial can do: checked before anything is built from it."""

from __future__ import annotations

from typing import Any

from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig

_INPUT = ("input_height", "input_width", "mean", "std")


def require_consistent(config: TrialConfig) -> None:
    """Raise `ConfigError` where a model would be trained on another input than it is served, or a trial cannot train."""
    for key in _INPUT:
        served = getattr(config.transforms, key)
        trained = config.datamodule.get(key, served)
        if (tuple(trained) if isinstance(trained, list) else trained) != served:
            raise ConfigError(
                f"datamodule.{key}={trained}, but the model is exported for transforms.{key}={_plain(served)}, and would be "
                f"served other images than it was trained on: set transforms.{key}."
            )
    epochs = config.trainer.get("max_epochs")
    if type(epochs) is not int or epochs < 1:
        raise ConfigError(
            f"trainer.max_epochs={epochs}: it takes a whole number from 1 on. To stop by time, give a large one and "
            "sweep.trial_max_time."
        )
    devices, nodes = config.trainer.get("devices", 1), config.trainer.get("num_nodes", 1)
    if (devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1)) or nodes != 1:
        raise ConfigError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: a trial trains on one device. Several trials train "
            "side by side, one on each GPU (sweep.parallel); set trainer.devices=1 and trainer.num_nodes=1."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
