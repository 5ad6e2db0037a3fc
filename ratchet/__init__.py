"""Scheduled retraining of segmentation models: production gets only what is proven better."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.registry.abstract import AbstractModelManager
    from ratchet.registry.mlflow_manager import MlflowModelManager

__all__ = ["AbstractModelManager", "MlflowModelManager"]


def __getattr__(name: str) -> Any:
    """Import MLflow only when a manager is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ratchet import registry  # noqa: PLC0415

    return getattr(registry, name)
