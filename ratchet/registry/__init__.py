"""The model registry: versions, their stages, and a history that decides. Names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
