"""What the tree's own interpolations come to, as `${num_outputs:…}`: the functions behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ratchet.data.classes import foreground
from ratchet.duration import parse_duration
from ratchet.errors import ConfigError


def env_or(name: str, other: str) -> str:
    """A variable of the environment; one that is empty counts as not set, as it does everywhere in Ratchet."""
    return os.environ.get(name) or other


def num_outputs(idx_to_class: Mapping[int, str]) -> int:
    """One output (a sigmoid) for one foreground class; else a softmax over the background and every class."""
    try:
        classes = len(foreground(idx_to_class))
    except ConfigError:
        return 1  # told when the settings are checked
    return 1 if classes == 1 else classes + 1


def lightning_time(text: str | float | None) -> dict[str, float] | None:
    """A length of time as Lightning's Timer takes it; what is none is told when the settings are checked."""
    try:
        return None if text is None else {"seconds": parse_duration(text)}
    except ValueError:
        return None


def package_file(package: str, file: str) -> str:
    """Path of a file inside an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {package} is not installed: pip install {package.replace('_', '-')}")
    return str(Path(next(iter(spec.submodule_search_locations))) / file)
