"""The model registry: versions, their stages, and a history that decides. Names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.registry.abstract import AbstractModelManager
    from ratchet.registry.directory import DirectoryModelManager
    from ratchet.registry.events import Event, EventKind
    from ratchet.registry.manager import LedgerModelManager
    from ratchet.registry.mlflow_manager import MlflowModelManager
    from ratchet.registry.retention import PrunePlan
    from ratchet.registry.values import BestRun, ModelVersion, Stage

_HOMES = {
    "AbstractModelManager": "abstract",
    "BestRun": "values",
    "DirectoryModelManager": "directory",
    "Event": "events",
    "EventKind": "events",
    "LedgerModelManager": "manager",
    "MlflowModelManager": "mlflow_manager",
    "ModelVersion": "values",
    "PrunePlan": "retention",
    "Stage": "values",
}

__all__ = [
    "AbstractModelManager",
    "BestRun",
    "DirectoryModelManager",
    "Event",
    "EventKind",
    "LedgerModelManager",
    "MlflowModelManager",
    "ModelVersion",
    "PrunePlan",
    "Stage",
]


def __getattr__(name: str) -> Any:
    """Load the module that owns `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
