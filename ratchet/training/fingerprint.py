"""The fingerprint of a trial: its configuration without names and paths, its data by content, and the code's versions."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ratchet.data.cache import FORM
from ratchet.data.reading import READING
from ratchet.errors import ConfigError
from ratchet.settings import TrialConfig
from ratchet.targets import HUB_WEIGHTS

# What changes a result when it changes version.
CODE = ("ratchet", "torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "torchvision", "pillow")

# Keys of the datamodule that say where or how fast, not what: the content has its own fingerprint, the splits included.
_PLACE = ("data_path", "num_workers", "_file", "name", "group_by")
_SPEED = ("download", "cache")

# Parts whose objects read the files that they name; those named in the others are written to.
_READING = ("backbone", "model", "loss", "transforms", "datamodule")

# Keys of a schedule that say how long it is; those of Ratchet's own tree are the number of epochs.
_LENGTHS = ("T_max", "total_iters", "total_steps", "epochs")


def trial_fingerprint(config: TrialConfig, data_fingerprint: str) -> str:
    """Return the sha256 (hex) of all that decides what the trial's weights will be."""
    return _digest(_parts(config, data_fingerprint))


def schedule_fingerprint(config: TrialConfig, data_fingerprint: str) -> str:
    """Return the same without the number of epochs and the length of the schedule, which `schedule_lengths` has.

    It is equal for trainings of which one may be the longer.
    """
    parts = _parts(config, data_fingerprint)
    parts["trainer"] = {key: value for key, value in parts["trainer"].items() if key != "max_epochs"}
    if parts["scheduler"]:
        parts["scheduler"] = {key: value for key, value in parts["scheduler"].items() if key not in _LENGTHS}
    return _digest(parts)


def schedule_lengths(config: TrialConfig) -> dict[str, Any]:
    """The keys of the schedule that say how long it is."""
    return {key: value for key, value in (config.scheduler or {}).items() if key in _LENGTHS}


def fixed_length(config: TrialConfig) -> str | None:
    """Say why a training of this configuration cannot go on for more epochs after its end, or return None."""
    for key in ("max_steps", "max_time"):
        if config.trainer.get(key) not in (None, -1):
            return f"trainer.{key} ends it too"
    if any("StochasticWeightAveraging" in str((node or {}).get("_target_")) for node in config.callbacks.values()):
        return "its callback StochasticWeightAveraging averages from a share of the epochs on"
    scheduler = config.scheduler or {}
    name = str(scheduler.get("_target_", "")).rpartition(".")[2]
    if name == "OneCycleLR" or lengths_that_follow(config):
        return f"the learning rates of {name} follow from the number of epochs, from the first one on"
    return None


def lengths_that_follow(config: TrialConfig) -> list[str]:
    """The keys of the schedule that are the number of epochs."""
    scheduler, epochs = config.scheduler or {}, config.trainer.get("max_epochs")
    return [key for key in _LENGTHS if scheduler.get(key) is not None and scheduler[key] == epochs]


def _parts(config: TrialConfig, data_fingerprint: str) -> dict[str, Any]:
    parts: dict[str, Any] = config.model_dump(
        mode="json",
        include={"backbone", "model", "loss", "optimizer", "scheduler", "transforms", "trainer", "callbacks", "export"},
    )
    parts["datamodule"] = {
        key: value
        for key, value in config.datamodule.items()
        if not key.startswith(_SPEED) and not key.endswith(_PLACE)
    }
    parts["core"] = {"seed": config.core.seed, "deterministic": config.core.deterministic}
    if isinstance(parts["trainer"].get("devices"), list):  # whichever GPU it is
        parts["trainer"]["devices"] = 1
    if parts["trainer"].get("log_every_n_steps") == "auto":  # which was 1 once: what was trained then is found
        parts["trainer"]["log_every_n_steps"] = 1
    for key in ("encoder_weights", "checkpoint_path"):  # a file, however it is called; the latter is timm's
        name = config.backbone.model.get(key)
        if name and name != HUB_WEIGHTS and os.path.isfile(str(name)):  # noqa: PTH113 - what else is wrong, `_by_content` tells
            parts["backbone"]["model"][key] = str(Path(name).absolute())
    parts |= {key: _by_content(parts[key]) for key in _READING}
    # The content that the training starts from, by whatever name it was given.
    parts["backbone"]["init"] = parts["backbone"].pop("init_digest") or parts["backbone"]["init_from"]
    del parts["backbone"]["init_from"]
    parts["data"] = data_fingerprint
    parts["pixels"] = [READING, FORM]
    parts["code"] = {package: version(package) for package in CODE}
    own = {_own_package(target) for target in _targets(parts)} - {""}
    parts["code"] |= {package: _content(package) for package in own}
    return parts


def _by_content(node: Any) -> Any:
    """The same with each file that it names, of weights for the most part, as the sha256 of what is in it."""
    if isinstance(node, Mapping):
        return {key: _by_content(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_by_content(value) for value in node]
    if not isinstance(node, str) or not {os.sep, "."} & set(node):
        return node  # a plain word is a name, whatever lies in this folder
    try:
        found = Path(node).stat()
        return _hash_of(node, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else node
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return node
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return node
        raise ConfigError(f"{node}: a trial is known by this file's content, which cannot be read: {error}") from error


@lru_cache
def _hash_of(path: str, size: int, modified: int) -> str:
    """The sha256 of a file, which is read once for many trials; its size and time of modification (ns) tell a new content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    for value in node if isinstance(node, list | tuple) else ():
        yield from _targets(value)


def _own_package(target: str) -> str:
    """The package or module at the top of a `_target_` of the user's own; empty for one of the libraries in `CODE`."""
    package = target.partition(".")[0]
    return "" if package.replace("_", "-") in CODE else package


def _content(package: str) -> str:
    """The sha256 of the code of a package or module, whatever version it says it is."""
    spec = find_spec(package)
    if spec is None:
        raise ConfigError(
            f"_target_: there is no package {package} to import: install it (pip install -e .), or name its folder in "
            "PYTHONPATH, for every worker too."
        )
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in sorted(place.rglob("*.py"))] or [Path(spec.origin or "")]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
