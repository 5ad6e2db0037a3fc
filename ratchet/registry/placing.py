"""Fills a folder that stays, as a volume does, with a model's files, so that a download that is killed can be repeated."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ratchet.errors import ModelFilesError

UNFINISHED = ".ratchet-filling-"
"""What the names begin with of all that is in the folder for the time of the download alone."""

_MOVING = f"{UNFINISHED}names"  # of what is taking its place, as JSON


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Let one process after the other fill a folder; what one that was killed left is removed first.

    Raises `ModelFilesError` where it holds anything else.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network file system locks a folder; a lock of the dead is released
            fcntl.flock(held, fcntl.LOCK_EX)
        if folder.is_dir():
            _remove_unfinished(folder)
        if not folder.is_dir() or any(folder.iterdir()):
            raise ModelFilesError(f"{folder} already holds something: give a new or an empty directory")
        yield
        (folder / _MOVING).unlink()  # last, when the copy is gone too
    finally:
        os.close(held)


def move_into(folder: Path, files: Path) -> None:
    """Move what the directory `files` holds, which lies in a copy of its own in the folder."""
    names = [entry.name for entry in files.iterdir()]
    listed = files.with_name("names")
    listed.write_text(json.dumps(names), encoding="utf-8")
    listed.rename(folder / _MOVING)
    for name in names:
        (files / name).rename(folder / name)


def _remove_unfinished(folder: Path) -> None:
    moving = folder / _MOVING
    placed = json.loads(moving.read_text(encoding="utf-8")) if moving.exists() else []
    copies = [entry for entry in folder.glob(f"{UNFINISHED}*") if entry != moving]
    for entry in (*(folder / name for name in placed), *copies, moving):  # in this order: it may be killed here too
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
