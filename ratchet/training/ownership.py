"""Who works on a run: its owner and heartbeat, as tags, so that machines that share only the tracking server agree."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from mlflow.entities import RunTag

from ratchet.errors import TrialTakenError
from ratchet.run_names import HEARTBEAT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

OWNER_TAG = "ratchet.owner"

BEAT_SECONDS = 30.0
STALE_SECONDS = 180.0
_CERTAINLY_DEAD_SECONDS = 3600.0  # no two clocks differ by so much
_SETTLE_SECONDS = 5.0


def machine(home: Path) -> str:
    """The name of this machine and home, under which the folder's lock tells who is alive."""
    file = home.absolute() / "trials" / "home-id"
    if not _is_written(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # the first one stays
            if not _is_written(file):  # a power cut may have left it empty
                draft = file.with_suffix(".draft")
                draft.write_text(uuid.uuid4().hex[:12])
                draft.replace(file)
    return f"{socket.gethostname()}/{file.read_text()}"


def _is_written(file: Path) -> bool:
    return file.is_file() and bool(file.read_text())


def pid_namespace() -> str:
    """Among which processes this one has its number: containers may have all else in common."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


class Ownership:
    """This process's hold on a run, renewed by a thread between `start` and `stop`."""

    def __init__(self, store: MlflowClient, machine: str, *, beat: float = BEAT_SECONDS) -> None:
        """`machine` is where a lock on the trial's folder proves who is alive."""
        self._store = store
        self.run_id = ""
        self._machine = machine
        self.owner = f"{machine}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._beat = beat
        self._over = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._renew, daemon=True, name="heartbeat")

    def tags(self) -> dict[str, str]:
        """The tags that say so."""
        return {OWNER_TAG: self.owner, HEARTBEAT_TAG: datetime.now(UTC).isoformat(timespec="milliseconds")}

    def claim(self, run: Run, *, settle: float = _SETTLE_SECONDS) -> bool:
        """Take over a run whose owner is dead; False where another machine did in the same moment.

        Two machines may see the same dead owner. Both write their name, wait, and the one that was overwritten yields. The
        run is RUNNING from here on, and the heart beats, so that whoever comes now, or yielded, waits for the end.
        """
        self.run_id = run.info.run_id
        self._write()
        self._store.update_run(self.run_id, status="RUNNING")
        if not run.data.tags.get(OWNER_TAG, "").startswith(f"{self._machine}/"):
            time.sleep(settle)
        held = self._holder() == self.owner
        if held:
            self.start(self.run_id)
        return held

    def start(self, run_id: str) -> None:
        """Start the heartbeat of a run that this process owns; one that beats goes on."""
        self.run_id = run_id
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop it."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def require(self) -> None:
        """Raise `TrialTakenError` if the last beat found another owner, who took this one for dead."""
        if self._lost is not None:
            raise TrialTakenError(
                f"{self._lost} took over run {self.run_id} while this process was out of touch with the tracking server: "
                "it goes on there"
            )

    def confirm(self) -> None:
        """Ask the server now, and raise `TrialTakenError` if this process is not the owner any more."""
        self._look()
        self.require()

    def _renew(self) -> None:
        while not self._over.wait(self._beat):
            try:
                self._look()
                if self._lost is None:
                    self._write()
            except Exception:  # a heart that stops would give a live training away: the next beat may get through
                logger.warning("no heartbeat of run %s reached the tracking server", self.run_id, exc_info=True)

    def _look(self) -> None:
        holder = self._holder()
        self._lost = None if holder == self.owner else holder

    def _holder(self) -> str:
        return str(self._store.get_run(self.run_id).data.tags.get(OWNER_TAG, "somebody"))

    def _write(self) -> None:
        self._store.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in self.tags().items()])


def await_owner(
    store: MlflowClient,
    run_id: str,
    machine: str,
    *,
    on_wait: Callable[[str], None],
    stale: float = STALE_SECONDS,
    poll: float = BEAT_SECONDS / 3,
) -> Run:
    """Return a run once nobody works on it: it has ended, or its owner is on this machine (then the caller holds the
    folder's lock, which proves that the owner is dead), or its heartbeat has not changed for `stale` seconds, or is so old
    that nobody has to wait.

    The clocks of the machines may differ by less than that hour. `on_wait` is told the owner, once.
    """
    seen, since, told = None, time.monotonic(), False
    while True:
        run = store.get_run(run_id)
        owner, beat = run.data.tags.get(OWNER_TAG, "somebody"), run.data.tags.get(HEARTBEAT_TAG)
        if run.info.status != "RUNNING" or owner.startswith(f"{machine}/") or _long_ago(beat):
            return run
        if (owner, beat) != seen:
            seen, since = (owner, beat), time.monotonic()
        elif time.monotonic() - since > stale:
            return run
        if not told:
            on_wait(owner)
            told = True
        time.sleep(poll)


def _long_ago(beat: str | None) -> bool:
    try:
        return (
            beat is not None
            and (datetime.now(UTC) - datetime.fromisoformat(beat)).total_seconds() > _CERTAINLY_DEAD_SECONDS
        )
    except ValueError:
        return False
