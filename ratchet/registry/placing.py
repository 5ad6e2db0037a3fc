"""Puts a model's files into a folder that stays, as a volume does, or is new, so that a killed download can be repeated."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ratchet.errors import ModelFilesError

UNFINISHED = ".ratchet-filling-"
"""What the names begin with of all that is in the folder for the time of the download alone."""

_LOCK = f"{UNFINISHED}lock"
_MOVING = f"{UNFINISHED}names"  # of what is taking its place, as JSON
_RANDOM = 8  # characters that mkdtemp adds


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Let one process after the other fill a folder; what one that was killed left is removed first.

    Raises `ModelFilesError` where it holds anything else.
    """
    if not folder.is_dir():
        raise ModelFilesError(f"{folder} is a file: give a new or an empty directory")
    lock = folder / _LOCK
    held = _locked(lock)
    try:
        if held.locked:  # else another process may be at it
            _remove_unfinished(folder)
        if any(entry != lock for entry in folder.iterdir()):
            raise ModelFilesError(f"{folder} already holds something: give a new or an empty directory")
        yield
        (folder / _MOVING).unlink()  # last, when the copy is gone too
    finally:
        lock.unlink(missing_ok=True)
        os.close(held.file)


@contextmanager
def making(folder: Path) -> Iterator[str]:
    """Let one process after the other make a folder that is not there yet; yields how the names of its copies beside begin.

    What one that was killed left of these is removed first. Raises `ModelFilesError` where the folder came meanwhile.
    """
    prefix = f"{UNFINISHED}{folder.name}-"
    lock = folder.with_name(f"{prefix}lock")
    held = _locked(lock)
    try:
        if held.locked:  # else another process may be at it
            for copy in folder.parent.glob(f"{glob.escape(prefix)}{'[!-]' * _RANDOM}"):
                shutil.rmtree(copy)
        if folder.exists():
            raise ModelFilesError(f"{folder} is there by now: give a new or an empty directory")
        yield prefix
    finally:
        lock.unlink(missing_ok=True)
        os.close(held.file)


class _Held(NamedTuple):
    file: int
    locked: bool


def _locked(lock: Path) -> _Held:
    """Open and lock a file, which dies with the process; who waited for one that is no more begins again."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT)  # to write: a network file system locks no other for one alone
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return _Held(file, locked=False)
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == lock.stat().st_ino:
                return _Held(file, locked=True)
        os.close(file)


def move_into(folder: Path, files: Path) -> None:
    """Move what the directory `files` holds, which lies in a copy of its own in the folder."""
    names = [entry.name for entry in files.iterdir()]
    listed = files.with_name("names")
    with listed.open("w", encoding="utf-8") as file:
        json.dump(names, file)
        file.flush()
        os.fsync(file.fileno())
    listed.rename(folder / _MOVING)
    for name in names:
        (files / name).rename(folder / name)


def _remove_unfinished(folder: Path) -> None:
    moving = folder / _MOVING
    try:
        placed = json.loads(moving.read_text(encoding="utf-8")) if moving.exists() else []
    except ValueError as error:
        raise ModelFilesError(
            f"{moving}, of a download that was killed, cannot be read ({error}): empty the directory"
        ) from error
    copies = [entry for entry in folder.glob(f"{UNFINISHED}*") if entry.name not in (_MOVING, _LOCK)]
    for entry in (*(folder / name for name in placed), *copies, moving):  # in this order: it may be killed here too
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
