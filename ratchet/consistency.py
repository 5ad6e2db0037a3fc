"""What the parts of a configuration must agree on, and what a trial can do: checked before anything is built from it."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

from ratchet.data.classes import foreground
from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig
from ratchet.training.metric_names import better, logged_name, metric_names

_ONNX = ("onnx", "onnxscript", "onnxruntime")  # the extra `onnx`
_INPUT = ("input_height", "input_width", "mean", "std")
_BASES = {
    "datamodule": "/datamodule/base/segmentation@_here_",
    "transforms.train_transform": "default",
    "backbone.model": "smp",
    "model": "smp",
    "loss": "dice",
    "optimizer": "adam",
    "scheduler": "plateau",
    "trainer": "default",
    "logger": "mlflow",
}
"""Of each node, the entry that a file of one's own begins with, unless it says all that the node is."""


def require_consistent(config: TrialConfig) -> None:
    """Raise `ConfigError` where a model would be trained on another input than it is served, chosen by what no trial logs or
    by its worst value, or where a trial cannot train."""
    _require_targets(config)
    for key in _INPUT:
        served = getattr(config.transforms, key)
        trained = config.datamodule.get(key, served)
        if (tuple(trained) if isinstance(trained, list) else trained) != served:
            raise ConfigError(
                f"datamodule.{key}={trained}, but the model is exported for transforms.{key}={_plain(served)}, and would be "
                f"served other images than it was trained on: set transforms.{key}."
            )
    _require_metrics(config)
    if config.export.checkpoint_selection == "best" and not config.callbacks.get("model_checkpoint"):
        raise ConfigError(
            "callbacks.model_checkpoint is absent, whose epoch is the one that is exported: begin your file of callbacks with "
            "`defaults: [default, _self_]`, or set export.checkpoint_selection=last."
        )
    epochs = config.trainer.get("max_epochs")
    if type(epochs) is not int or epochs < 1:
        raise ConfigError(
            f"trainer.max_epochs={epochs}: it takes a whole number from 1 on. To stop by time, give a large one and "
            "sweep.trial_max_time."
        )
    if config.core.deterministic and config.datamodule.get("batch_size") == "auto":
        raise ConfigError(
            "core.deterministic=true with datamodule.batch_size=auto: what fits follows from the memory that is free just then, "
            "and the weights from that. Set datamodule.batch_size to a number."
        )
    devices, nodes = config.trainer.get("devices", 1), config.trainer.get("num_nodes", 1)
    if (devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1)) or nodes != 1:
        raise ConfigError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: a trial trains on one device. Several trials train "
            "side by side, one on each GPU (sweep.parallel); leave trainer.num_nodes out, and set trainer.devices=1."
        )


def require_exporter(config: TrialConfig) -> None:
    """Raise `ConfigError` where the packages of a form of export are not installed here: it would fail behind the training."""
    missing = [name for name in _ONNX if find_spec(name) is None] if "onnx" in config.export.types else []
    if missing:
        raise ConfigError(
            f"export.types names onnx, but {', '.join(missing)} is not installed, so every trial would fail behind its "
            "training: pip install 'ratchet[onnx]', or leave onnx out."
        )


def _require_targets(config: TrialConfig) -> None:
    for key, base in _BASES.items():
        node = attrgetter(key)(config)
        if node is not None and "_target_" not in node:
            raise ConfigError(
                f"{key} names no _target_, so that nobody knows what it is: begin the file of your own with "
                f"`defaults: [{base}, _self_]`, or give its _target_ too."
            )


def _require_metrics(config: TrialConfig) -> None:
    """Refuse a metric that no trial will log, two of one name, and a direction in which the worst is best."""
    classes = list(foreground(config.datamodule.get("idx_to_class", {})).values())
    logged: dict[str, str] = {}
    for name in classes:
        other = logged.setdefault(logged_name(name), name)
        if other != name:
            raise ConfigError(
                f"datamodule.idx_to_class: {other!r} and {name!r} would be one name of a metric, {logged_name(name)!r}, since "
                "MLflow takes few signs in it: rename one of them."
            )
    metric, names = config.retrain.metric, metric_names(classes)
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.4) or names[:3]
        raise ConfigError(
            f"retrain.metric={metric}: no trial logs that. Nearest: {', '.join(near)}. A metric of your own is none of the "
            "exported weights: it may choose the epoch (callbacks.model_checkpoint.monitor, with its mode), not the trial."
        )
    if metric == "val_loss_step" and config.trainer.get("log_every_n_steps") != 1:
        raise ConfigError(
            "retrain.metric=val_loss_step: it is logged only where every step is. Select by val_loss_epoch, or set "
            "trainer.log_every_n_steps=1."
        )
    if better(metric) not in (None, config.retrain.mode):
        raise ConfigError(
            f"retrain.metric={metric} with retrain.mode={config.retrain.mode} selects the worst trial: set "
            f"retrain.mode={better(metric)}."
        )
    for key, callback in config.callbacks.items():
        if callback is not None and "_target_" not in callback:
            raise ConfigError(
                f"callbacks.{key} names no _target_, so that nobody knows what it is: choose an entry of the group first, as in "
                "callbacks=early_stopping, or give its _target_ too."
            )
        monitor, mode = (callback or {}).get("monitor"), (callback or {}).get("mode")
        if mode is None and str((callback or {}).get("_target_")).endswith(("ModelCheckpoint", "EarlyStopping")):
            mode = "min"  # Lightning's own
        if monitor in names and mode is not None and better(monitor) not in (None, mode):
            raise ConfigError(
                f"callbacks.{key}.monitor={monitor} with mode={mode} takes the worst epoch for the best: set "
                f"callbacks.{key}.mode={better(monitor)}."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
