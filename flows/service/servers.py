"""The services that `ratchet up` starts: their commands, and how one sees that each of them is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import psutil

from flows.service.deployments import POOL
from flows.service.processes import Processes
from ratchet.errors import ConfigError, PortTakenError, RegistryError, ServiceEndedError
from ratchet.home import home
from ratchet.registry.tracking import answering, client, embedded_uri, shown

SECONDS_TO_START = 180.0  # a new database on a busy machine; an idle one takes 15
LOCAL = {"127.0.0.1", "::1", "localhost"}
_ANY = {"0.0.0.0", "::"}  # noqa: S104 - asked for with --host, never the default
_STORE = "MLFLOW_BACKEND_STORE_URI"


def require_free(host: str, port: int, option: str) -> None:
    """Raise `PortTakenError` if something listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(
                f"port {port} on {host} is taken ({error.strerror}): end what listens there, or give another with {option}"
            ) from error


def address(host: str, port: int) -> str:
    """The address under which a server that listens on `host` is reached."""
    name = socket.gethostname() if host in _ANY else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _names(host: str) -> tuple[str, ...]:
    """What a server that is open to a network is called there; by its addresses, where it listens on all of them."""
    if host in LOCAL:
        return ()
    found = [own.address for cards in psutil.net_if_addrs().values() for own in cards if own.family is socket.AF_INET]
    return socket.gethostname(), socket.getfqdn(), *(found if host in _ANY else ())


def start_mlflow(processes: Processes, store: str, host: str, port: int) -> None:
    """Start MLflow's server on a store. Raises `ConfigError` where another MLflow made its tables."""
    _open(store)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", str(home() / "mlartifacts")]
    settings = {
        _STORE: store,  # not as an argument, which everybody on the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # three more processes that nothing here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if host not in LOCAL:  # MLflow answers 403 under any name but those that it is told
        from mlflow.server.security_utils import get_default_allowed_hosts  # noqa: PLC0415 (slow)

        named = dict.fromkeys((host, *_names(host)))
        allowed = [*get_default_allowed_hosts(), *(form for name in named for form in (name, f"{name}:*"))]
        settings["MLFLOW_SERVER_ALLOWED_HOSTS"] = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", ",".join(allowed))
    processes.start("mlflow", command, settings)


def upgrade_mlflow(store: str) -> None:
    """Bring the tables of a store to those of the MLflow that is installed. Raises `ServiceEndedError`."""
    if store != embedded_uri() and not _has_tables(store):
        return  # a new one: the server makes its tables
    # Not by `mlflow db upgrade`: it takes the address as an argument, which everybody on the machine can read.
    call = f"import os; from mlflow.db import upgrade; upgrade([os.environ['{_STORE}']])"
    done = subprocess.run(
        [sys.executable, "-c", call], env=os.environ | {_STORE: store}, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise ServiceEndedError(f"{shown(store)} could not be upgraded: {done.stderr.strip()[-500:]}")


def _open(store: str) -> None:
    """Make the tables of the embedded store, so that the server does not have to, and look at those that a Postgres has.

    Raises `ConfigError` where they are those of another MLflow.
    """
    if store != embedded_uri() and not _has_tables(store):
        return
    try:
        client(store)
    except RegistryError as error:
        if "mlflow db upgrade" not in str(error):
            raise
        raise ConfigError(
            f"the tables at {shown(store)} are not those of the MLflow that is installed: copy the database, then say "
            "`ratchet up --upgrade` once; or install the MLflow that made them"
        ) from error


def _has_tables(store: str) -> bool:
    """Whether the store is a database with tables; into a new one the server writes itself where its artifacts go."""
    from sqlalchemy import create_engine, inspect  # noqa: PLC0415

    if urlsplit(store).scheme.partition("+")[0] not in ("sqlite", "postgresql", "mysql", "mssql"):
        return False
    with answering(store):
        engine = create_engine(store)
        try:
            return inspect(engine).has_table("experiments")
        finally:
            engine.dispose()


def start_prefect(processes: Processes, host: str, port: int, database: str | None) -> None:
    """Start Prefect's server; without an address of a database on its own SQLite file."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    settings = {
        # The page asks port 4200 unless it is told; a page on another port would find nothing there.
        "PREFECT_SERVER_UI_API_URL": f"{address(host, port)}/api",
        # Else the page of any site that this machine's browser shows may read and start runs.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": os.environ.get("PREFECT_SERVER_CORS_ALLOWED_ORIGINS")
        or ",".join(dict.fromkeys(address(name, port) for name in (host, *sorted(LOCAL), *_names(host)))),
        # The slots that runs hold outlive a restart of the server.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Runs that ended 90 days ago go, with their logs and artifacts: a watch alone makes 50,000 a year. Prefect keeps them.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": os.environ.get("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED")
        or "events,flow_runs",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "WARNING"),
    }
    processes.start(
        "prefect",
        command,
        settings | ({} if database is None else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}),
    )


def start_worker(processes: Processes, name: str) -> None:
    """Start a process worker on the pool.

    The pool holds the limit on runs, not the worker: Prefect 3.8.8's worker dies of a RuntimeError when it has a limit of
    its own and a run that crashed comes back before it has put the first one away.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    settings = {"PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "5")}
    processes.start("worker", command, settings)


def answers(url: str) -> bool:
    """Whether a page is there."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
