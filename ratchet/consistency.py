"""What the parts of a configuration must agree on, and what a trial can do: checked before anything is built from it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

from ratchet.data.classes import foreground
from ratchet.errors import ConfigError
from ratchet.settings import Node, TrialConfig
from ratchet.training.fingerprint import lengths_that_follow
from ratchet.training.metric_names import OF_TRAINING, better, logged_name, metric_names

_MODULE = "ratchet.training.SegmentationModule"
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

_TAKEN = {
    "callbacks": "use the group callbacks",
    "default_root_dir": "a trial has a folder of its own. Leave it out",
    "deterministic": "set core.deterministic",
    "enable_model_summary": "add the callback ModelSummary",
    "enable_progress_bar": "the sweep shows a table of its own. Leave it out",
    "logger": "use the group logger",
    "strategy": "a trial trains on one device. Leave it out",
}
_TABLE = "the sweep shows a table of its own. Leave it out"
_TAKEN_CALLBACKS = {
    "BatchSizeFinder": "set datamodule.batch_size=auto instead",
    "ModelPruning": "its masks are in no checkpoint, so that a training which goes on from one would be another. Leave it out",
    "RichProgressBar": _TABLE,
    "TQDMProgressBar": _TABLE,
}


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
    _require_nothing_taken(config)
    _require_an_epoch_to_export(config)
    _require_loss(config)


def require_exporter(config: TrialConfig) -> None:
    """Raise `ConfigError` where the packages of a form of export are not installed here: it would fail behind the training."""
    missing = [name for name in _ONNX if find_spec(name) is None] if "onnx" in config.export.types else []
    if missing:
        raise ConfigError(
            f"export.types names onnx, but {', '.join(missing)} is not installed, so every trial would fail behind its "
            f"training: pip install {' '.join(_ONNX)}, or leave onnx out."
        )


def _require_targets(config: TrialConfig) -> None:
    for key, base in _BASES.items():
        node = attrgetter(key)(config)
        if node is not None and "_target_" not in node:
            raise ConfigError(
                f"{key} names no _target_, so that nobody knows what it is: begin the file of your own with "
                f"`defaults: [{base}, _self_]`, or give its _target_ too."
            )


def _require_nothing_taken(config: TrialConfig) -> None:
    """Refuse what a trial sets itself: it would change nothing, or come in its way."""
    for key, instead in _TAKEN.items():
        if config.trainer.get(key) not in (None, False, "auto", []):
            raise ConfigError(f"trainer.{key}={config.trainer[key]} has no place here: {instead}.")
    for key, callback in config.callbacks.items():
        name = str((callback or {}).get("_target_")).removeprefix("pytorch_lightning.callbacks.")
        if name in _TAKEN_CALLBACKS:
            raise ConfigError(f"callbacks.{key}: {_TAKEN_CALLBACKS[name]}.")
        if name == "StochasticWeightAveraging" and config.export.checkpoint_selection == "best":
            raise ConfigError(
                f"callbacks.{key}: its average is there only when the training is over, behind the last checkpoint: set "
                "export.checkpoint_selection=last, or choose EMAWeightAveraging, whose average is validated."
            )


def _require_an_epoch_to_export(config: TrialConfig) -> None:
    """Refuse a training that would keep no checkpoint, or fail where the plateau schedule first steps."""
    trainer, kept = config.trainer, config.callbacks.get("model_checkpoint") or {}
    epochs, every = trainer["max_epochs"], trainer.get("check_val_every_n_epoch", 1)
    kept_every = kept.get("every_n_epochs") or 1
    if not all(isinstance(count, int | None) for count in (every, kept_every)):
        return  # Lightning says so
    if trainer.get("fast_dev_run"):
        raise ConfigError(
            "trainer.fast_dev_run keeps no checkpoint to export: set trainer.max_epochs=1 +trainer.limit_train_batches=2."
        )
    unseen = trainer.get("limit_val_batches") == 0 or (every or 1) > epochs
    nothing_kept = kept.get("save_top_k", 1) == 0 or kept_every > epochs
    at_end, by_steps = kept.get("save_on_train_epoch_end"), bool(kept.get("every_n_train_steps"))
    after_validation = not by_steps and (at_end is False or (at_end is None and every != 1))
    never_both = after_validation and (unseen or math.lcm(every or 1, kept_every) > epochs)
    nothing_seen = never_both or (unseen and str(kept.get("monitor")).startswith("val_"))
    if config.export.checkpoint_selection == "best" and (nothing_kept or nothing_seen):
        raise ConfigError(
            "callbacks.model_checkpoint would keep no epoch to export: compare trainer.max_epochs with "
            "trainer.check_val_every_n_epoch, trainer.limit_val_batches and the callback's every_n_epochs and save_top_k."
        )
    without = every is None or trainer.get("limit_val_batches") == 0
    if without and str((config.scheduler or {}).get("_target_")).endswith("ReduceLROnPlateau"):
        raise ConfigError(
            "scheduler=plateau goes by a validation in each of its epochs: set trainer.check_val_every_n_epoch, leave "
            "trainer.limit_val_batches=0 out, or choose another schedule."
        )


def _require_loss(config: TrialConfig) -> None:
    """Refuse a loss of segmentation-models-pytorch that would read the logits as something else, most of them in silence."""
    classes = foreground(config.datamodule.get("idx_to_class", {}))
    wanted = "binary" if len(classes) == 1 else "multiclass"
    for node in losses_of(config.loss):
        module, _, name = str(node.get("_target_")).rpartition(".")
        if module != "segmentation_models_pytorch.losses":
            continue
        if name == "MCCLoss" or not node.get("from_logits", True):
            advice = "choose another" if name == "MCCLoss" else "leave its from_logits=false out"
            raise ConfigError(f"loss: {name} would take logits for probabilities: {advice}.")
        if classes and node.get("mode", wanted) != wanted:
            raise ConfigError(f"loss: mode={node['mode']} of {name}: for {len(classes)} class(es) it is {wanted}.")


def losses_of(node: Any) -> Iterator[Node]:
    """A loss, and those that SumLoss adds up; what one of one's own gives its parts, only that one knows."""
    if isinstance(node, dict):
        yield node
        parts = node.get("losses") if str(node.get("_target_")).endswith(".SumLoss") else None
        for part in parts if isinstance(parts, list) else ():
            yield from losses_of(part)


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
    if metric in OF_TRAINING:
        raise ConfigError(
            f"retrain.metric={metric} is of the training, not of the weights that are exported: set "
            "retrain.metric=val_loss_epoch retrain.mode=min."
        )
    if better(metric) not in (None, config.retrain.mode):
        raise ConfigError(
            f"retrain.metric={metric} with retrain.mode={config.retrain.mode} selects the worst trial: set "
            f"retrain.mode={better(metric)}."
        )
    scheduler = config.scheduler or {}
    plateau = str(scheduler.get("_target_")).endswith("ReduceLROnPlateau") and config.model.get("_target_") == _MODULE
    if plateau and scheduler.get("mode", "min") != "min":
        raise ConfigError(
            f"scheduler.mode={scheduler['mode']}: a plateau is one of val_loss_epoch, so that the rate would fall while the loss "
            "does: set scheduler.mode=min."
        )
    if config.model.get("scheduler_interval") == "step" and "T_max" in lengths_that_follow(config):
        raise ConfigError(
            f"scheduler.T_max={scheduler['T_max']} is the number of epochs, but with model.scheduler_interval=step the schedule "
            "counts steps: set scheduler.T_max to a number of these."
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
