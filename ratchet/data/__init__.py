"""Data sets for training and judging: what they hold, how they are read, split and fingerprinted.

The names below are loaded when they are first used, because the data modules bring torch and Lightning along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.data.folder import FolderDataModule
    from ratchet.data.oxford_pet import OxfordPetDataModule
    from ratchet.data.samples import Sample
    from ratchet.data.shapes_datamodule import ShapesDataModule

__all__ = ["FolderDataModule", "OxfordPetDataModule", "Sample", "ShapesDataModule"]

_HOMES = {
    "FolderDataModule": "ratchet.data.folder",
    "OxfordPetDataModule": "ratchet.data.oxford_pet",
    "Sample": "ratchet.data.samples",
    "ShapesDataModule": "ratchet.data.shapes_datamodule",
}


def __getattr__(name: str) -> Any:
    """Import the module that owns `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
