"""One trial in a process of its own: started from a warm fork server, watched, and never left behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.environment import variable
from ratchet.errors import RatchetError, ServerUnreachableError
from ratchet.settings import TrialConfig
from ratchet.training.memory import (
    batch_size_of,
    keep_freed_memory,
    out_of_memory,
    out_of_memory_kills,
    peak_of,
    told_peak,
)
from ratchet.training.progress import EXPORTING, TRAINING, Progress, Report

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess, SpawnProcess

_SECONDS_TO_END = 10.0
# What the launcher of a cluster says of `ratchet train`'s own process, as one of many; a trial is none of them.
_ONE_OF_MANY = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "TORCHELASTIC_RUN_ID",
    "JSM_NAMESPACE_RANK",
)
_LEAST = 19  # of priorities: the next trial's steps wait for their slowest thread, and are to lose no core to an export

# Apple's GPU library does not survive a fork: there, each trial pays the imports.
_SPAWNS = sys.platform == "darwin"

# Imported once by the fork server: a trial then starts in milliseconds, where a fresh interpreter takes ten seconds.
_PRELOAD = ["ratchet.training.fork_server", "ratchet.training.preload"]


def start_server() -> None:
    """Let the fork server import what trials need, while the caller does something else."""
    if not _SPAWNS:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        # Else it would import what lies in the folder of the command, a mlflow.py say, in the place of a library.
        with variable("PYTHONSAFEPATH", "1"):
            forkserver.ensure_running()


@dataclass(frozen=True)
class TrialOrder:
    """What the process is to do, in which of the sweep's slots.

    `gpus` are those that it may see, as in CUDA_VISIBLE_DEVICES: "" none, None those that the parent sees.
    """

    name: str
    config: TrialConfig
    fingerprint: str
    tags: Mapping[str, str]
    log: Path
    threads: int
    slot: int = 0
    gpus: str | None = None
    until_epoch: int | None = None
    samples: frozenset[str] | None = None


@dataclass(eq=False)
class TrialProcess:
    """A running trial, as its parent sees it. Messages on `connection` are pairs of a kind and a value."""

    order: TrialOrder
    process: ForkServerProcess | SpawnProcess
    connection: Connection
    lifeline: Connection
    kills_before: int | None
    run_id: str | None = None
    peak: float = 0.0
    exporting: bool = False
    slot: int | None = None

    @classmethod
    def start(cls, order: TrialOrder) -> TrialProcess:
        """Start it."""
        start_server()
        context = multiprocessing.get_context("spawn") if _SPAWNS else multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        end, lifeline = context.Pipe(duplex=False)
        # No daemon: those may have no processes of their own, and so no workers that load. The lifeline ends it.
        arguments = (order, theirs, end, dict(os.environ), str(Path.cwd()))
        process = context.Process(target=_main, args=arguments, name=order.name)
        process.start()
        theirs.close()
        end.close()
        return cls(order, process, ours, lifeline, out_of_memory_kills(), slot=order.slot)

    @property
    def owner(self) -> str:
        """How the owner of its run begins."""
        from ratchet.training.ownership import machine  # noqa: PLC0415 - imports MLflow, before the fork server has begun

        return f"{machine(self.order.config.core.home)}/{self.process.pid}"

    def look(self) -> None:
        """See how much memory it takes: once it is dead, nobody can."""
        self.peak = max(self.peak, peak_of(self.process.pid or 0))

    def death(self) -> str:
        """Say how a process that sent no last word died."""
        self.process.join(_SECONDS_TO_END)
        code, kills = self.process.exitcode, out_of_memory_kills()
        if code == -signal.SIGKILL and (kills is None or kills != self.kills_before):
            return f"{out_of_memory(self.peak, self._batch_size())}."
        how = (
            f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with status {code}"
        )
        return f"{how} without a result{told_peak(self.peak)}. Its output: {self.order.log}"

    def _batch_size(self) -> int | None:
        """The images of a batch, as far as its run tells of those that it found."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - not before the fork server has begun

        from ratchet.registry.tracking import client  # noqa: PLC0415

        tags: Mapping[str, str] = {}
        if self.run_id is not None:
            with suppress(RatchetError, MlflowException):  # without the server, less is advised
                tags = client().get_run(self.run_id).data.tags
        return batch_size_of(self.order.config.datamodule, tags)

    def tell_to_end(self) -> None:
        """Let it end at its next snapshot, without waiting for that. A signal from here is lost on one that begins just now."""
        if not self.lifeline.closed:
            with suppress(BrokenPipeError):  # it has ended
                self.lifeline.send("end")

    def end(self) -> None:
        """End the process if it still runs, gently first; its run is known then, however young it was."""
        self.tell_to_end()
        self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        if self.connection.closed:
            return
        with suppress(EOFError, ConnectionResetError):
            while self.connection.poll():
                kind, value = self.connection.recv()
                if kind == "started":
                    self.run_id = value
        self.connection.close()
        self.lifeline.close()
        if self.order.log.is_file() and not self.order.log.stat().st_size:
            self.order.log.unlink()


def _main(
    order: TrialOrder, connection: Connection, lifeline: Connection, environment: dict[str, str], folder: str
) -> None:
    """Run the trial; its last message is `ended` with a `TrialEnd`, or `failed` with the reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it ends its trials
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the fork server outlives
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    os.environ.clear()  # the fork server's is that of its first user
    os.environ.update({name: value for name, value in environment.items() if name not in _ONE_OF_MANY})
    os.chdir(folder)
    with order.log.open("w", buffering=1) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)

    import torch  # noqa: PLC0415 - already in the fork server, but not in who only watches
    from lightning_utilities.core.rank_zero import rank_zero_only  # noqa: PLC0415

    from ratchet.registry.tracking import rely_on, tracking_uri  # noqa: PLC0415
    from ratchet.training.trial import run_trial  # noqa: PLC0415

    tell = teller(connection)

    def report(progress: Progress) -> None:
        if progress.phase == EXPORTING:
            torch.set_num_threads(1)
            os.nice(_LEAST)
        tell(progress)

    if order.gpus is not None:
        _see_only(order.gpus)
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # the fork server's is one of many
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    rely_on(tracking_uri())  # the sweep has had answers
    try:
        end = run_trial(
            order.config,
            name=order.name,
            fingerprint=order.fingerprint,
            tags=order.tags,
            on_start=lambda run_id: connection.send(("started", run_id)),
            report=report,
            until_epoch=order.until_epoch,
            samples=order.samples,
        )
    except ServerUnreachableError as error:
        again = "Once it does, run the sweep again: the trial goes on from its last checkpoint"
        connection.send(("failed", f"{type(error).__name__}: {error}. {again}"))
    except RatchetError as error:
        connection.send(("failed", f"{type(error).__name__}: {error}"))
    except Exception as error:
        logging.getLogger(__name__).exception("the trial %s failed", order.name)
        connection.send(("failed", f"{type(error).__name__}: {error}. Its output: {order.log}"))
    else:
        connection.send(("ended", end))
    connection.close()


def teller(connection: Connection) -> Report:
    """Tell the sweep how far a trial is. While nobody listens, as where images are decoded, a training's word is left out: it
    would stand still once the pipe is full, and the next one says more."""
    room = select.poll()
    room.register(connection, select.POLLOUT)

    def tell(progress: Progress) -> None:
        if progress.phase != TRAINING or room.poll(0):
            connection.send(("progress", progress))

    return tell


def _see_only(gpus: str) -> None:
    """Let this process see these GPUs. On AMD's, the second name is the one that counts, and hides none where it is empty."""
    import torch  # noqa: PLC0415 - see above

    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if torch.version.hip:
        os.environ["HIP_VISIBLE_DEVICES"] = gpus or "-1"


def _end_with_parent(lifeline: Connection) -> None:
    """End this process gently when the parent says so, and at once when its end of the pipe closes, however it died."""
    try:
        while lifeline.recv():
            os.kill(os.getpid(), signal.SIGTERM)
    except EOFError:
        os.kill(os.getpid(), signal.SIGKILL)
