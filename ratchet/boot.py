"""Which start of the machine this is."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux: another one each time that the machine starts


def boot_id() -> str:
    """Which start of which machine this is; empty where it does not say."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.is_file() else ""
