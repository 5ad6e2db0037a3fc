"""A trial's folder on this machine: held by one process at a time, with snapshots that are whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, field_validator

from ratchet.boot import boot_id
from ratchet.errors import TrainingError

RESUME_FILE = "resume.ckpt"
FACTS_FILE = "snapshot.json"
_NEWEST_FILE = "newest"
_BOOT_FILE = "boot"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Note(_Value):
    """Which run the trial is logged to. `forced`: it was begun by `sweep.force`."""

    run_id: str
    forced: bool


class Facts(_Value):
    """How far a snapshot is: the training is over where it is `trained`, and it ended before its time where it `stopped`.

    `best` is the kept checkpoint to export, below `checkpoints/`; `seconds` is the time spent, `peak_memory` in MiB.
    """

    epoch: int
    step: int
    trained: bool
    stopped: bool
    seconds: float
    peak_memory: float
    best: str | None

    @field_validator("best")
    @classmethod
    def _is_below(cls, best: str | None) -> str | None:
        if best is not None and (best.startswith("/") or ".." in Path(best).parts):
            raise TrainingError(
                f"a snapshot names {best}, outside of it, which Ratchet has not written: delete the run it is from"
            )
        return best


class Snapshot(_Value):
    """One state of a training: a folder with `resume.ckpt` and the checkpoints that were kept until then."""

    path: Path
    facts: Facts

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Read it from its folder."""
        return cls(path=path, facts=Facts.model_validate_json((path / FACTS_FILE).read_bytes()))

    @property
    def resume(self) -> Path:
        """Everything but the kept checkpoints, as Lightning's checkpoint; the weights alone where nothing goes on from it."""
        return self.path / RESUME_FILE

    @property
    def checkpoints(self) -> Path:
        """The kept checkpoints."""
        return self.path / "checkpoints"


class TrialFolder:
    """`<home>/trials/<fingerprint>`: a lock, the run's id, the newest snapshot, and files that are being worked on.

    A snapshot is put on the disk in the background; `settle` waits for that. Until then the machine's memory holds it, which
    outlives the process but not the machine: it counts while the machine that wrote it runs. From then on the file `newest`
    names it.
    """

    def __init__(self, home: Path, fingerprint: str) -> None:
        """Name it; nothing is made before it is locked."""
        self.path = home.resolve() / "trials" / fingerprint
        self.checkpoints = self.path / "checkpoints"
        self.work = self.path / "work"
        self.unsent = self.path / "unsent-metrics.jsonl"
        self._disk = ThreadPoolExecutor(max_workers=1)
        self._on_its_way: tuple[Snapshot, Future[None]] | None = None

    @contextmanager
    def locked(self, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the folder; another process that does is waited for, after `on_wait` was told. The dead hold nothing."""
        held = lock_folder(self.path, wait=False)
        if held is None:
            on_wait()
            held = lock_folder(self.path, wait=True)
        assert held is not None
        with held:
            try:
                yield
            finally:
                self.settle()

    def note(self) -> Note | None:
        """What the process before wrote down, if any did."""
        file = self.path / "trial.json"
        return Note.model_validate_json(file.read_bytes()) if file.is_file() else None

    def write_note(self, note: Note) -> None:
        """Write down which run this is."""
        _write(self.path / "trial.json", note.model_dump_json())

    def newest(self) -> Snapshot | None:
        """The newest snapshot."""
        if self._on_its_way is not None:
            return self._on_its_way[0]
        named = self.path / _NEWEST_FILE
        on_disk = named.read_text() if named.is_file() else None
        whole = [path for path in self._snapshots() if path.name == on_disk or _written_since_boot(path)]
        return Snapshot.read(whole[-1]) if whole else None

    def settle(self) -> None:
        """Wait until the newest snapshot is on the disk. Raises `OSError` if it does not get there."""
        if self._on_its_way is not None:
            snapshot, written = self._on_its_way
            self._on_its_way = None
            try:
                written.result()
            except OSError:
                shutil.rmtree(snapshot.path)
                raise

    def begin(self) -> None:
        """Put `checkpoints/` back as the newest snapshot has them, and empty `work/`."""
        for folder in (self.checkpoints, self.work):
            shutil.rmtree(folder, ignore_errors=True)
        snapshot = self.newest()
        if snapshot is None or not snapshot.checkpoints.is_dir():  # none was kept yet, and stores keep no empty folders
            self.checkpoints.mkdir()
        else:
            shutil.copytree(snapshot.checkpoints, self.checkpoints, copy_function=link)
        self.work.mkdir()

    def publish(self, facts: Facts, write: Callable[[Path], None]) -> Snapshot:
        """Make a snapshot: `write` writes `resume.ckpt` at the path it is given; `checkpoints/` is taken as it is.

        The one before stays until this one is on the disk: what is published next waits for that.
        """
        self.settle()
        draft = self.path / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        write(draft / RESUME_FILE)
        shutil.copytree(self.checkpoints, draft / "checkpoints", copy_function=link)
        return self._take(draft, facts)

    def adopt(self, fetched: Path, facts: Facts | None = None) -> Snapshot:
        """Make the snapshot in a folder on the same disk the newest one."""
        self.settle()
        return self._take(fetched, facts or Snapshot.read(fetched).facts)

    def _take(self, draft: Path, facts: Facts) -> Snapshot:
        (draft / FACTS_FILE).write_text(facts.model_dump_json())
        (draft / _BOOT_FILE).write_text(boot_id())
        others = self._snapshots()  # the one before, and one that was on its way when its process died
        number = int(others[-1].name.split("-")[1]) + 1 if others else 0
        snapshot = Snapshot(path=draft.rename(self.path / f"snapshot-{number:06d}"), facts=facts)
        self._on_its_way = snapshot, self._disk.submit(self._put_on_disk, snapshot.path, others)
        return snapshot

    def _snapshots(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.path.glob("snapshot-*"))

    def _put_on_disk(self, snapshot: Path, others: list[Path]) -> None:
        try:
            for path in [*snapshot.rglob("*"), snapshot]:
                _sync(path)
            _write(self.path / _NEWEST_FILE, snapshot.name)
        except OSError:
            (snapshot / _BOOT_FILE).unlink()  # nobody knows what of it is there: it counts for no other process
            raise
        for other in others:
            shutil.rmtree(other, ignore_errors=True)  # what stays, on a network file system, goes with the next one

    def clear(self) -> None:
        """Forget everything but the lock."""
        self.settle()
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder; who waits for the lock makes a new one."""
        self.settle()
        remove_folder(self.path)


def remove_folder(path: Path) -> None:
    """Remove a trial's folder. On a network file system it stays, empty, while this process has its lock open."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            raise


def lock_folder(folder: Path, *, wait: bool) -> IO[bytes] | None:
    """The open lock of a folder, which is made if it is not there; None where another process holds it and `wait` is off.

    A POSIX record lock: unlike flock's, it dies with the process even where forked loader workers live on.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = (folder / "lock").open("ab")
        except FileNotFoundError:
            continue  # the folder was removed just now
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            held.close()
            return None
        # The folder may have been removed while this process waited: then the lock is of a file that is no more.
        try:
            if os.fstat(held.fileno()).st_ino == (folder / "lock").stat().st_ino:
                return held
        except FileNotFoundError:
            pass
        held.close()


def link(source: str, target: str) -> str:
    """Link a file, or copy it where the disk has no links; what was there goes. Linked files are never written into."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _written_since_boot(snapshot: Path) -> bool:
    file = snapshot / _BOOT_FILE
    return file.is_file() and file.read_text().strip() == boot_id() != ""


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text)
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Put a file or folder on the disk, so that a machine that loses its power finds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
