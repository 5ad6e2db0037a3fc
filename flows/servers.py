"""The pages of MLflow and Prefect on the embedded stores: started together, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from rich.console import Console

from ratchet.errors import ConfigError, ServerUnreachableError
from ratchet.home import home
from ratchet.registry.tracking import client, tracking_uri

HOST = "127.0.0.1"
_SECONDS_TO_START = 120.0
_SECONDS_TO_END = 10.0


def serve(*, mlflow_port: int, prefect_port: int, console: Console) -> None:
    """Start both servers, say where they are, and wait for Ctrl-C or SIGTERM; then end them.

    Raises `ConfigError` where a port is taken, `ServerUnreachableError` where a server does not come up or dies.
    """
    _require_free(mlflow_port, "--mlflow-port")
    _require_free(prefect_port, "--prefect-port")
    signal.signal(signal.SIGTERM, _interrupt)
    store = tracking_uri()
    try:
        with ExitStack() as stack:
            if store.startswith("http"):
                addresses = {"MLflow": store}
                servers = {}
            else:
                client()  # makes the tables, so that the server does not have to
                addresses = {"MLflow": f"http://{HOST}:{mlflow_port}"}
                servers = {"MLflow": stack.enter_context(_server("mlflow", _mlflow(store, mlflow_port), {}))}
            prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
            # The page asks port 4200 unless it is told; a page on another port would find nothing there.
            ui = {"PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{prefect_port}/api"}
            servers["Prefect"] = stack.enter_context(_server("prefect", prefect, ui))
            addresses["Prefect"] = f"http://{HOST}:{prefect_port}"
            health = {"MLflow": f"{addresses['MLflow']}/health", "Prefect": f"{addresses['Prefect']}/api/health"}
            with console.status("starting MLflow and Prefect"):
                for name, server in servers.items():
                    _wait_until_healthy(name, server, health[name])
            for name, address in addresses.items():
                console.print(f"{name:8} {address}", highlight=False)
            console.print("Ctrl-C ends them.")
            _watch(servers)
    except KeyboardInterrupt:
        console.print("ended.")


def _mlflow(store: str, port: int) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    return [*command, "--workers", "1", "--default-artifact-root", str(home() / "mlartifacts")]


@contextmanager
def _server(name: str, command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own, and end the whole group."""
    logs = home() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # MLflow's job runners are three more processes that nothing here uses.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
        )
        try:
            yield process
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue


def _wait_until_healthy(name: str, server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerUnreachableError(f"{name} ended with status {server.returncode}. {_where(name)}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise ServerUnreachableError(f"{name} did not answer at {address} within {_SECONDS_TO_START:.0f} s. {_where(name)}")


def _watch(servers: dict[str, subprocess.Popen[bytes]]) -> None:
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                raise ServerUnreachableError(
                    f"{name} ended with status {server.returncode}, so all is ended. {_where(name)}"
                )
        time.sleep(0.5)


def _where(name: str) -> str:
    return f"Its log: {home() / 'logs' / f'{name.lower()}.log'}"


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} on {HOST} is taken ({error.strerror}): give another with {option}."
            ) from error


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
