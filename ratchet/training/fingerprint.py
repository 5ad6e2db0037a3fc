"""The fingerprint of a trial: its configuration without names and paths, its data by content, and the code's versions."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ratchet.settings import TrialConfig

# What changes a result when it changes version.
CODE = ("ratchet", "torch", "pytorch-lightning", "segmentation-models-pytorch", "torchvision")

# Keys of the datamodule that say where or how fast, not what: the content has its own fingerprint.
_PLACE = ("data_path", "download", "num_workers", "_file", "cache", "cache_path", "cache_gb")


def trial_fingerprint(config: TrialConfig, data_fingerprint: str) -> str:
    """Return the sha256 (hex) of all that decides what the trial's weights will be."""
    parts: dict[str, Any] = config.model_dump(
        mode="json",
        include={"backbone", "model", "loss", "optimizer", "scheduler", "transforms", "trainer", "callbacks", "export"},
    )
    parts["datamodule"] = {
        k: v for k, v in config.datamodule.items() if not k.startswith("download") and not k.endswith(_PLACE)
    }
    parts["core"] = {"seed": config.core.seed, "deterministic": config.core.deterministic}
    weights = config.backbone.model.get("encoder_weights")
    if weights and Path(weights).is_file():
        parts["backbone"]["model"]["encoder_weights"] = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    parts["data"] = data_fingerprint
    parts["code"] = {package: version(package) for package in CODE}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
