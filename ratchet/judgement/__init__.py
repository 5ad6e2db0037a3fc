"""Judging registered versions: what the gate's pure rules need is measured here, and the record of it kept.

The names below are loaded when they are first used: judging brings torch along, reading the records does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.judgement.judging import OnImage, judge_version
    from ratchet.judgement.records import judgement_path

__all__ = ["OnImage", "judge_version", "judgement_path"]

_HOMES = {"OnImage": "judging", "judge_version": "judging", "judgement_path": "records"}


def __getattr__(name: str) -> Any:
    """Import the module that owns `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
