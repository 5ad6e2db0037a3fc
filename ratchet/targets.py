"""The allow-list of what a configuration may build. When Hydra 1.4 brings its own whitelist, this is the one place to change."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from typing import Any

from ratchet.errors import ConfigError, ForbiddenTargetError
from ratchet.settings import Node, leaves

HUB_WEIGHTS = "imagenet"  # of a network: what the hub has for its encoder
NETWORK = "ratchet.training.create_network"
"""What builds a network of segmentation-models-pytorch; all else is code of one's own."""

_DATA, _AUGMENTATIONS = "ratchet.data", "torchvision.transforms.v2"
# Where a `_target_` may live: the module, and the class that it must derive from. A prefix would be too wide:
# `torch.nn.functional.torch.load` starts like a layer.
ALLOWED_MODULES: Mapping[str, str] = {
    "pytorch_lightning.callbacks": "pytorch_lightning.Callback",
    _DATA: "ratchet.data.datamodule.SegmentationDataModule",
    "ratchet.training.losses": "torch.nn.Module",
    "segmentation_models_pytorch.losses": "torch.nn.Module",
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torch.optim.lr_scheduler": "torch.optim.lr_scheduler.LRScheduler",
    _AUGMENTATIONS: "torchvision.transforms.v2.Transform",
}
ALLOWED_NAMES = frozenset(
    {
        "pytorch_lightning.Trainer",
        "ratchet.training.RunLogger",
        "ratchet.training.SegmentationModule",
        NETWORK,
    }
)


def check_targets(node: Any, *, load: bool = True) -> None:
    """Raise `ForbiddenTargetError` at the first `_target_` under `node` that is not on the allow-list, or that could hide.

    Hydra resolves what it builds once more, so that an interpolation that is left, in a text, could become a node.
    With `load=False` only the names are looked at: nothing is imported, and what a name stands for is not known.
    """
    if isinstance(node, str) and "${" in node:
        raise ForbiddenTargetError(f"{node}: interpolations are not taken in values. Write the value out.")
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_name(node["_target_"])
            if load:
                _check_class(node["_target_"])
        for key, value in node.items():
            check_targets(key, load=load)
            check_targets(value, load=load)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(value, load=load)


def check_data_module(node: Node) -> None:
    """Raise `ForbiddenTargetError` unless a node builds a data module, and nothing within it that could read files.

    Who may write to MLflow has written it: a network in its place would read and download them.
    """
    for key, target in [("_target_", node.get("_target_")), *leaves(node)]:
        module = str(target).rpartition(".")[0]
        allowed = {_DATA if key == "_target_" else _AUGMENTATIONS, *_allowed_besides() - {""}}
        if key.rpartition(".")[2] == "_target_" and module not in allowed:
            raise ForbiddenTargetError(
                f"datamodule.{key}={target}: the run's configuration may name a data module there only. The operator allows "
                "others with RATCHET_ALLOWED_TARGETS."
            )


def _check_name(target: Any) -> None:
    module, _, name = str(target).rpartition(".")
    if target in ALLOWED_NAMES:
        return
    if name.startswith("_") or not module or module not in {*ALLOWED_MODULES, *_allowed_besides()}:
        allowed = sorted({*ALLOWED_MODULES, *_allowed_besides()} - {""})
        raise ForbiddenTargetError(
            f"_target_: {target} is not allowed. Allowed are the public classes of {', '.join(allowed)}. "
            "The operator of a deployment adds modules, each by its whole name, with RATCHET_ALLOWED_TARGETS='package.module;…'"
        )


def _allowed_besides() -> set[str]:
    return {entry.strip() for entry in os.environ.get("RATCHET_ALLOWED_TARGETS", "").split(";")}


def _check_class(target: str) -> None:
    module, _, name = target.rpartition(".")
    if target in ALLOWED_NAMES:
        return
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_: {target} does not exist: {error}") from error
    base_module, _, base_name = ALLOWED_MODULES.get(module, "builtins.object").rpartition(".")
    base = getattr(importlib.import_module(base_module), base_name)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ForbiddenTargetError(
            f"_target_: {target} is not allowed: {module} may give classes of {base_module}.{base_name} only."
        )
