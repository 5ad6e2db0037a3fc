"""What was read of files before: one that nobody has touched since is not read again to be digested."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ratchet.data.reading import READING

_log = logging.getLogger(__name__)

_AT_REST = 60 * 10**9  # ns: longer than any file system's tick, and than the clock of its server may be off
_FORGOTTEN_DAYS, _NOTED_AGAIN_DAYS = 90, 30
_AT_ONCE = 500  # paths in a question: an old SQLite takes 999 parameters
_SECONDS_TO_WAIT = 30.0  # for another process that writes
_TABLE = (
    "CREATE TABLE IF NOT EXISTS files "
    "(path BLOB PRIMARY KEY, stamp TEXT, digest TEXT, width INTEGER, height INTEGER, asked INTEGER) WITHOUT ROWID"
)


@dataclass(frozen=True)
class FileContent:
    """SHA-256 of a file's bytes, in hexadecimal, and the width and height in pixels that its header gives."""

    digest: str
    width: int
    height: int


class Stamp(NamedTuple):
    """What the file system says of a file, times in ns. Whoever writes to it changes `changed`, which nobody can set
    where the file system keeps it."""

    bytes: int
    inode: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """The stamp of a file now; None where it is gone, or cannot be read."""
        try:
            with path.open(
                "rb", buffering=0
            ) as file:  # NFS asks its server where one opens; to `stat` it repeats itself
                found = os.fstat(file.fileno())
        except OSError:
            return None
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    def at_rest(self, moment: int) -> bool:
        """Whether the file had been left alone for a minute at a moment (ns since 1970)."""
        return moment - max(self.modified, self.changed) > _AT_REST


class DigestIndex:
    """A SQLite file, which several processes may use at once.

    What a file was read as is believed while its stamp is what it was then, and only if it had been at rest: of two changes
    within a tick of the file system's clock, the second leaves the stamp as it is. What nobody has asked for in 90 days is
    forgotten. An index that cannot be used is a warning: files are read then.
    """

    def __init__(self, path: Path) -> None:
        """Use the file at `path`, which is made when something is first kept."""
        self._path = path
        self._broken = self._has_forgotten = False

    def find(self, stamps: Mapping[Path, Stamp]) -> dict[Path, FileContent]:
        """What those files were read as that are as they were then."""
        found: dict[Path, FileContent] = {}
        paths = {_key(path): path for path in stamps}
        keys, today, unnoted = list(paths), _today(), []
        try:
            if self._broken or not self._path.exists():
                return found
            with closing(sqlite3.connect(self._path, timeout=_SECONDS_TO_WAIT)) as index, index:
                index.execute(_TABLE)
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    rows = index.execute(f"SELECT * FROM files WHERE path IN ({','.join('?' * len(some))})", some)
                    for key, stamp, digest, width, height, asked in rows:
                        if stamp == _text(stamps[paths[key]]):
                            found[paths[key]] = FileContent(digest, width, height)
                            unnoted += [(today, key)] if asked < today - _NOTED_AGAIN_DAYS else []
                index.executemany("UPDATE files SET asked = ? WHERE path = ?", unnoted)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return found

    def keep(self, read: Mapping[Path, FileContent], stamps: Mapping[Path, Stamp], *, asked: int) -> None:
        """Keep what files were read as whose stamps were `asked` for before, at a moment in ns since 1970."""
        today = _today()
        rows = [
            (_key(path), _text(stamps[path]), content.digest, content.width, content.height, today)
            for path, content in read.items()
            if path in stamps and stamps[path].at_rest(asked)
        ]
        if self._broken or not rows:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_SECONDS_TO_WAIT)) as index, index:
                index.execute(_TABLE)
                index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
                if not self._has_forgotten:  # it looks at every row
                    index.execute("DELETE FROM files WHERE asked < ?", [today - _FORGOTTEN_DAYS])
                self._has_forgotten = True
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        _log.warning(
            "%s cannot be used (%s), so all files are read again; where it is damaged, delete it", self._path, error
        )


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _text(stamp: Stamp) -> str:
    return " ".join(map(str, (READING, *stamp)))  # other rules of reading may give other sizes


def _today() -> int:
    return int(time.time() // 86_400)
