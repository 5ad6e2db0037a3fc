"""What became of one thing that `ratchet deploy` looks after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SWITCHED_OFF = ("somebody switched it off on Prefect's page; it stays off",)


@dataclass(frozen=True)
class Change:
    """What became of one thing: created, updated (in these `keys`), unchanged, removed, left though nobody wants it, or off."""

    kind: str
    name: str
    action: str
    keys: tuple[str, ...] = ()


def compared(kind: str, name: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> Change:
    """Compare what is wanted with what the server shows; None: it shows nothing."""
    if found is None:
        return Change(kind, name, "created")
    keys = tuple(key for key in wanted if wanted[key] != found.get(key))
    return Change(kind, name, "updated" if keys else "unchanged", keys)
