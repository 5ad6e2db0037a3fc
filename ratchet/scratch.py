"""Folders for what is needed for a while: a model that is scored, say. Those of the killed go with the next one."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ratchet.home import home

_LOCK = "lock"


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A new folder in RATCHET_HOME, which is gone after the block; its file `lock` is ours."""
    root = home() / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    _remove_those_of_the_dead(root)
    with (
        tempfile.TemporaryDirectory(prefix=f"{prefix}-", dir=root, ignore_cleanup_errors=True) as name,
        Path(name, _LOCK).open("wb", buffering=0) as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"held")
        yield Path(name)


def _remove_those_of_the_dead(root: Path) -> None:
    for file in root.glob(f"*/{_LOCK}"):
        with suppress(OSError), file.open("r+b") as lock:  # held, or gone meanwhile
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.read():  # else it is just being made
                shutil.rmtree(file.parent, ignore_errors=True)
