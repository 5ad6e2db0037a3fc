"""Where Ratchet keeps its own files on this machine: `RATCHET_HOME`, or `.ratchet/` in the working directory."""

from __future__ import annotations

import os
from pathlib import Path


def postgres_folder() -> Path:
    """Where `ratchet up --postgres embedded` keeps its databases."""
    return home() / "postgres"


def home() -> Path:
    """The absolute path of Ratchet's folder, as the environment says now; created only by who writes to it."""
    return Path(os.environ.get("RATCHET_HOME") or ".ratchet").absolute()
