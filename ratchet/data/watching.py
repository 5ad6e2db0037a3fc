"""Has a data set changed? Names, sizes and times tell cheaply when to look closer; the content decides. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from ratchet.data.samples import unlisted_note
from ratchet.errors import DatasetNotFoundError


class DataLook(BaseModel):
    """What one look at a folder found, and the next one is told.

    `signature` is of the names, sizes and times of all files, empty where there is no folder, and `since` when it was first
    seen. `fingerprint` is the content once the files had settled, and until then the one before. `previous` is set by the one
    look that found the content changed: to what it was. `unlisted` images of that content are in no split list.
    """

    model_config = ConfigDict(frozen=True)

    signature: str
    since: AwareDatetime
    settled: bool = False
    fingerprint: str | None = None
    previous: str | None = None
    unlisted: int = 0

    @property
    def note(self) -> str | None:
        """What whoever brought the images should know."""
        return unlisted_note(self.unlisted) or None


def look(
    folder: Path,
    before: DataLook | None,
    *,
    now: datetime,
    settle: timedelta,
    read: Callable[[], tuple[str, int]],
    known: Callable[[], str | None],
    lists: Sequence[Path] = (),
) -> DataLook:
    """Look at a folder again. The content is read only when the files changed and then stayed as they are for `settle`.

    `lists` are files of the data set that may lie elsewhere. `read` gives its fingerprint, and how many images are in no split
    list. `known` gives the content to compare with where
    there was no look before; None: whatever is there is not new. Raises what `read` and `known` raise; the next look then
    begins where this one did.
    """
    signature = sign(folder, lists)
    remembered = known() if before is None else before.fingerprint
    since = before.since if before is not None and before.signature == signature else now
    since = min(since, now)  # a clock may have been ahead
    if signature is None or now - since < settle:
        return DataLook(signature=signature or "", since=since, fingerprint=remembered)
    if before is not None and before.settled and before.signature == signature:
        return before.model_copy(update={"previous": None})
    found, unlisted = read()
    changed = remembered is not None and found != remembered
    return DataLook(
        signature=signature,
        since=since,
        settled=True,
        fingerprint=found,
        previous=remembered if changed else None,
        unlisted=unlisted,
    )


def sign(folder: Path, lists: Sequence[Path] = ()) -> str | None:
    """SHA-256, in hexadecimal, of the names, sizes and times of all files below a folder, but hidden ones, and of the lists.

    None where there is no folder: a data set that is yet to come is not looked for, or downloaded, by looking. Raises
    `DatasetNotFoundError` for what cannot be looked at.
    """
    try:
        if not folder.is_dir():
            return None
        rows = sorted(_rows(str(folder), ""))
        rows += [_row(str(file), file.stat()) for file in lists if file.is_file()]
    except OSError as error:
        raise DatasetNotFoundError(
            f"{error.filename or folder} cannot be looked at ({error.strerror}): mend it, or let this user read it"
        ) from error
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def _rows(folder: str, prefix: str) -> Iterator[str]:
    """A line for each file. What vanishes during the walk is left out, and so is a link to nothing."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                if entry.is_dir():
                    yield from _rows(entry.path, f"{prefix}{entry.name}/")
                else:
                    yield _row(f"{prefix}{entry.name}", entry.stat())


def _row(name: str, known: os.stat_result) -> str:
    return f"{name}\t{known.st_size}\t{known.st_mtime_ns}"
