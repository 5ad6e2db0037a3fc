"""From a configuration to an exported model: one trial, and the sweep that runs many."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.training.logger import RunLogger
    from ratchet.training.module import SegmentationModule
    from ratchet.training.network import create_network

__all__ = ["RunLogger", "SegmentationModule", "create_network"]

_HOMES = {"RunLogger": "logger", "SegmentationModule": "module", "create_network": "network"}


def __getattr__(name: str) -> Any:
    """Import torch and Lightning only when something of theirs is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
