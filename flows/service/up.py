"""`ratchet up`: both servers, a worker, and all that they need, started in order, watched, and ended together."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from flows.service import servers
from flows.service.deployments import RUNS
from flows.service.journal import Journal
from flows.service.postgres import EMBEDDED, databases
from flows.service.processes import Processes, new_mark
from flows.service.running import (
    Running,
    alone_here,
    configured_api,
    died,
    listens,
    noted,
    reach_this_machine,
    require_prefect,
)
from ratchet.errors import ConfigError
from ratchet.home import home
from ratchet.registry.tracking import embedded_uri, require_listening, shown, tracking_uri
from ratchet.trees import user_trees

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Options:
    """What `ratchet up` was asked for; `runs` are long ones at a time, and `upgrade` is of MLflow's database."""

    host: str = "127.0.0.1"
    mlflow_port: int = 5000
    prefect_port: int = 4200
    models: Path | None = None
    postgres: str | None = None
    runs: int = RUNS
    upgrade: bool = False


@dataclass(frozen=True)
class _Addresses:
    """Where both servers are, or will be. `store` is MLflow's database, and None for a server that runs elsewhere."""

    mlflow: str
    api: str
    store: str | None
    own_prefect: bool


def up(options: Options, journal: Journal) -> None:
    """Bring everything up, say where it is, and stay until Ctrl-C, SIGTERM or the terminal's end; then end what was started.

    A server that `MLFLOW_TRACKING_URI` or `PREFECT_API_URL` names is used instead of one of our own. Raises
    `PortTakenError`, `ServiceEndedError` if something does not come up or dies later, `ConfigError`: then too nothing is
    left running.
    """
    for sign in _ENDINGS:
        if sign != signal.SIGHUP or signal.getsignal(sign) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(sign, _interrupt)
    _write_whole_paths()
    reach_this_machine(options.host, str(urlsplit(servers.address(options.host, options.mlflow_port)).hostname))
    mark = new_mark()
    with alone_here(mark):
        _serve(options, journal, mark)


def _serve(options: Options, journal: Journal, mark: str) -> None:
    started, addresses = time.monotonic(), _find_room(options)
    os.environ |= {"RATCHET_HOME": str(home()), "MLFLOW_TRACKING_URI": addresses.mlflow}
    os.environ["PREFECT_API_URL"] = addresses.api  # Prefect reads it once, when it is first imported
    processes = Processes(home() / "logs", journal.line, mark)
    try:
        # At the end the worker goes first, then the servers, then their database.
        with ExitStack() as stack:
            stack.enter_context(noted(_start(options, addresses, processes, journal, stack)))
            journal.say(f"MLflow   {shown(addresses.mlflow)}", "bold")
            journal.say(f"Prefect  {shown(addresses.api.removesuffix('/api'))}", "bold")
            if addresses.own_prefect:
                journal.say(f"for Prefect's own commands: export PREFECT_API_URL={shown(addresses.api)}")
            journal.say(
                f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends it all; logs in {home() / 'logs'}"
            )
            while True:
                processes.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        journal.say("ended")
    finally:
        processes.end_all()


def _write_whole_paths() -> None:
    """Let what is relative to this folder mean the same in the runs' processes: a worker starts each in a folder of its own."""
    if trees := user_trees():
        os.environ["RATCHET_SEARCH_PATH"] = ";".join(trees)
    if roots := os.environ.get("RATCHET_DATA_ROOTS"):
        os.environ["RATCHET_DATA_ROOTS"] = os.pathsep.join(map(_whole, filter(None, roots.split(os.pathsep))))
    if pets := os.environ.get("RATCHET_OXFORD_PET"):
        os.environ["RATCHET_OXFORD_PET"] = _whole(pets)


def _whole(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def _find_room(options: Options) -> _Addresses:
    """Decide which servers are ours. Raises `PortTakenError` where there is no room for them."""
    store, api = tracking_uri(), configured_api()
    # A variable, or a profile, may name what this is to be.
    if store.rstrip("/") in _own(options.host, options.mlflow_port) and not listens(store):
        store = embedded_uri()
    if api is not None and _is_own_api(api, options) and not listens(api):
        api = None
    if api is not None:
        require_prefect(
            api,
            "start that server, or correct what names it: PREFECT_API_URL, .env, prefect.toml or Prefect's active profile",
        )
    own_mlflow = not store.startswith("http")
    if own_mlflow:
        servers.require_free(options.host, options.mlflow_port, "--mlflow-port")
    if api is None:
        servers.require_free(options.host, options.prefect_port, "--prefect-port")
    return _Addresses(
        mlflow=servers.address(options.host, options.mlflow_port) if own_mlflow else store,
        api=api or f"{servers.address(options.host, options.prefect_port)}/api",
        store=store if own_mlflow else None,
        own_prefect=api is None,
    )


def _own(host: str, port: int) -> set[str]:
    return {servers.address(name, port) for name in (host, *servers.LOCAL)}


def _is_own_api(api: str, options: Options) -> bool:
    return api.rstrip("/").removesuffix("/api") in _own(options.host, options.prefect_port)


def _start(
    options: Options, addresses: _Addresses, processes: Processes, journal: Journal, stack: ExitStack
) -> Running:
    from flows.service.deploying import load_declaration  # noqa: PLC0415 (two seconds)

    declared = load_declaration(options.models)  # a mistake in it is told before anything starts
    if options.upgrade and addresses.store is None:
        raise ConfigError(
            f"--upgrade is of a database of our own, and MLFLOW_TRACKING_URI names {shown(addresses.mlflow)}: upgrade that "
            "server's where it runs (mlflow db upgrade)"
        )
    store, database = addresses.store, None
    if options.postgres is not None:
        store, database = stack.enter_context(databases(options.postgres, processes))
    pages: dict[str, str] = {}
    if addresses.store is not None and store is not None:
        if options.upgrade:
            servers.upgrade_mlflow(store)
        servers.start_mlflow(processes, store, options.host, options.mlflow_port)
        pages["mlflow"] = f"{addresses.mlflow}/health"
    if addresses.own_prefect:
        servers.start_prefect(processes, options.host, options.prefect_port, database)
        pages["prefect"] = f"{addresses.api}/health"
    for name in pages:
        stack.callback(processes.end, name, signal.SIGTERM)
    journal.say("starting " + ", ".join([*pages, "worker"]))
    from flows.service.work import bring_to_work  # noqa: PLC0415 (ten seconds of imports, while the servers start)

    for name, page in pages.items():
        processes.wait_for(name, partial(servers.answers, page), seconds=servers.SECONDS_TO_START)
    for address in (addresses.mlflow, addresses.api):
        require_listening(address)
    stack.callback(processes.end, "worker")  # by SIGKILL: the next `ratchet up` takes its runs up again
    # Another `ratchet up` may be at work on a Postgres that is not ours.
    alone = addresses.own_prefect and options.host in servers.LOCAL and options.postgres in (None, EMBEDDED)
    bring_to_work(options, declared, processes, journal, alone=alone, died=died())
    kind = "sqlite" if database is None else "postgresql"
    return Running.here(mlflow=addresses.mlflow, api=addresses.api, database=kind, own=list(pages.values()))


def _interrupt(_: int, __: FrameType | None) -> None:
    for sign in _ENDINGS:
        signal.signal(sign, signal.SIG_IGN)  # what follows ends everything, and must not be ended itself
    raise KeyboardInterrupt
