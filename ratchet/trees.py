"""The trees of configuration, those of RATCHET_SEARCH_PATH before Ratchet's own: where they are, and what they hold."""

from __future__ import annotations

import os
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def user_trees() -> list[str]:
    """The addresses of RATCHET_SEARCH_PATH (`file://…;pkg://…`, or plain folders), the first of which wins."""
    named = [entry.strip() for entry in os.environ.get("RATCHET_SEARCH_PATH", "").split(";") if entry.strip()]
    return [entry if "://" in entry else f"file://{Path(entry).expanduser().absolute()}" for entry in named]


def entries(group: str) -> dict[str, Path]:
    """The entries of a configuration group by name, the user's folders included, each with the file that Hydra would take.

    What is only a base of others is left out.
    """
    folders = [Path(tree.removeprefix("file://")) for tree in user_trees() if tree.startswith("file://")]
    found: dict[str, Path] = {}
    for folder in (tree / group for tree in (*folders, CONFIGS)):
        for path in folder.rglob("*.yaml"):
            name = path.relative_to(folder).with_suffix("")
            if name.parts[0] != "base":
                found.setdefault(name.as_posix(), path)
    return dict(sorted(found.items()))
