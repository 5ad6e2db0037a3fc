"""Watches the champion on images that came after its training.

The names below are loaded when they are first used: reading brings torch along, the settings do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.monitoring.curve import log_reading
    from ratchet.monitoring.reading import take_reading
    from ratchet.monitoring.values import MonitorSettings, Reading

__all__ = ["MonitorSettings", "Reading", "log_reading", "take_reading"]

_HOMES = {"MonitorSettings": "values", "Reading": "values", "log_reading": "curve", "take_reading": "reading"}


def __getattr__(name: str) -> Any:
    """Import the module that owns `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
