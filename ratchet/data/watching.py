"""Has a data set changed? Names, sizes and times tell cheaply when to look closer; the content decides. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Look(BaseModel):
    """What one look at a folder found, and the next one is told.

    `signature` is of the names, sizes and times of all files, and `since` when it was first seen; `fingerprint` is the
    content that counts as known: what was last found to be there, once the files had settled.
    """

    model_config = ConfigDict(frozen=True)

    signature: str
    since: AwareDatetime
    fingerprint: str | None = None
    settled: bool = False


def look(
    folder: Path,
    before: Look | None,
    *,
    now: datetime,
    settle: timedelta,
    fingerprint: Callable[[], str],
    known: str | None = None,
) -> Look:
    """Look at a folder again. The content is read only when the files changed and then stayed as they are for `settle`.

    `known` is the fingerprint to compare with where there was no look before. The data changed if the look returned has
    another `fingerprint` than the one before, and that one had any. Raises what `fingerprint` raises.
    """
    signature = sign(folder)
    if before is None or before.signature != signature:
        since, remembered = now, known if before is None else before.fingerprint
    else:
        since, remembered = before.since, before.fingerprint
        if before.settled:
            return before
    if now - since < settle:
        return Look(signature=signature, since=since, fingerprint=remembered)
    return Look(signature=signature, since=since, fingerprint=fingerprint(), settled=True)


def sign(folder: Path) -> str:
    """SHA-256, in hexadecimal, of the names, sizes and times of all files below a folder; hidden ones are left out."""
    rows = sorted(_rows(str(folder), "")) if folder.is_dir() else []
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def _rows(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _rows(entry.path, f"{prefix}{entry.name}/")
            else:
                known = entry.stat()
                yield f"{prefix}{entry.name}\t{known.st_size}\t{known.st_mtime_ns}"
