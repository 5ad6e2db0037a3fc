"""Judging registered versions: what the gate's pure rules need is measured here, and the record of it kept."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratchet.judgement.location import PICTURE_FILE, judgement_path

if TYPE_CHECKING:
    from ratchet.judgement.judging import OnImage, judge_version

__all__ = ["PICTURE_FILE", "OnImage", "judge_version", "judgement_path"]


def __getattr__(name: str) -> Any:
    """Import torch only when something is to be judged: reading a record needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ratchet.judgement.judging"), name)
