"""`ratchet up`: both servers, a worker, and all that they need, started in order, watched, and ended together."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flows import servers
from flows.deployments import ZOMBIE_SECONDS
from flows.journal import Journal
from flows.processes import Processes
from flows.running import Running, find, noted
from ratchet.errors import PortTakenError
from ratchet.home import home
from ratchet.registry.tracking import require_listening, shown, tracking_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.models import ModelFile

_LOCAL = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Options:
    """What `ratchet up` was asked for: addresses, the folder of model files, and how many runs at a time."""

    host: str = "127.0.0.1"
    mlflow_port: int = 5000
    prefect_port: int = 4200
    models: Path | None = None
    postgres: str | None = None
    runs: int | None = None
    silence: float = ZOMBIE_SECONDS


def up(options: Options, journal: Journal) -> None:
    """Bring everything up, say where it is, and stay until Ctrl-C or SIGTERM; then end every process that was started.

    A server that `MLFLOW_TRACKING_URI` or `PREFECT_API_URL` names is used instead of one of our own. Raises
    `PortTakenError`, `ServiceEndedError` if something does not come up or dies later, `ConfigError`: then too nothing is
    left running.
    """
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, _interrupt)
    os.environ["RATCHET_HOME"] = str(home())
    processes = Processes(home() / "logs", journal.line)
    try:
        # At the end the worker goes first, then the servers, then their database.
        with ExitStack() as stack:
            stack.enter_context(noted(_start(options, processes, journal, stack)))
            while True:
                processes.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        journal.say("ended")
    finally:
        processes.end_all()


def _start(options: Options, processes: Processes, journal: Journal, stack: ExitStack) -> Running:
    started, store, api = time.monotonic(), tracking_uri(), os.environ.get("PREFECT_API_URL")
    own_mlflow, own_prefect = not store.startswith("http"), api is None
    _require_room(options, own_mlflow=own_mlflow, own_prefect=own_prefect)
    mlflow = servers.address(options.host, options.mlflow_port) if own_mlflow else store
    api = api or f"{servers.address(options.host, options.prefect_port)}/api"
    os.environ |= {"MLFLOW_TRACKING_URI": mlflow, "PREFECT_API_URL": api}  # before Prefect is imported, which reads it once
    models = _load(options.models)
    journal.say("starting")
    database = None
    if options.postgres is not None:
        from flows.postgres import databases  # noqa: PLC0415

        store, database = stack.enter_context(databases(options.postgres, processes))
    stack.callback(lambda: [processes.end(name, signal.SIGTERM) for name in ("mlflow", "prefect")])
    if own_mlflow:
        servers.start_mlflow(processes, store, options.host, options.mlflow_port)
    if own_prefect:
        servers.start_prefect(processes, options.host, options.prefect_port, database)
    from flows.work import bring_to_work  # noqa: PLC0415 (ten seconds of imports, while the servers start)

    for name, own, page in (("mlflow", own_mlflow, f"{mlflow}/health"), ("prefect", own_prefect, f"{api}/health")):
        if own:
            processes.wait_for(name, lambda page=page: servers.answers(page), seconds=servers.SECONDS_TO_START)
        else:
            require_listening(page)
    stack.callback(lambda: processes.end("worker"))  # by SIGKILL: the next `ratchet up` takes its runs up again
    bring_to_work(options, models, processes, journal, alone=own_prefect and options.host in _LOCAL)
    journal.say(f"MLflow   {shown(mlflow)}", "bold")
    journal.say(f"Prefect  {api.removesuffix('/api')}", "bold")
    journal.say(f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends it all; full logs in {home() / 'logs'}")
    return Running(os.getpid(), mlflow, api.removesuffix("/api"), (database or "sqlite").split(":")[0].split("+")[0])


def _load(folder: Path | None) -> Sequence[ModelFile]:
    from flows.models import load_models  # noqa: PLC0415

    return () if folder is None else load_models(folder)


def _require_room(options: Options, *, own_mlflow: bool, own_prefect: bool) -> None:
    if (other := find()) is not None:
        raise PortTakenError(
            f"a `ratchet up` serves {home()} already (process {other.pid}): its pages are at {other.mlflow} and {other.prefect}"
        )
    if own_mlflow:
        servers.require_free(options.host, options.mlflow_port, "--mlflow-port")
    if own_prefect:
        servers.require_free(options.host, options.prefect_port, "--prefect-port")


def _interrupt(_: int, __: FrameType | None) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)  # what follows ends everything, and must not be ended itself
    raise KeyboardInterrupt
