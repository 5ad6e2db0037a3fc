"""What the location of a model means: a path on this machine, a version of the registry, or what lies below another."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

VERSION = re.compile(r"models:/([^/]+)/(\d+)")


def is_version(location: str) -> bool:
    """Whether a location is that of another version: `models:/<name>/<number>`."""
    return VERSION.fullmatch(location) is not None


def local_path(location: str) -> Path | None:
    """The path that a location means on this machine, or None."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if parts.scheme == "" else None


def is_below(location: str, root: str) -> bool:
    """Whether a location is another, or lies below it; of folders on this machine, however either is spelled."""
    path, above = local_path(location), local_path(root)
    if path is not None and above is not None:
        return path.resolve().is_relative_to(above.resolve())
    return f"{location}/".startswith(f"{root.rstrip('/')}/")
