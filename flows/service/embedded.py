"""Prefect's server for one command, where no other is configured. That command runs this with `python -m`."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from flows.service.processes import Processes
from flows.service.servers import SECONDS_TO_START, answers
from ratchet.home import home

_HOST = "127.0.0.1"
_SECONDS_BETWEEN_LOOKS = 1.0


def start_embedded_prefect() -> Callable[[], None]:
    """Start a server without pages and schedules, for what this process imports of Prefect from now on; it ends with it.

    Returns what waits until it answers, and raises `ServiceEndedError` if it does not. Prefect would start one that ends at
    Ctrl-C too, before it is told how the flow run ended, and that stays where this process is killed.
    """
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    address = f"http://{_HOST}:{port}/api"
    processes = Processes(home() / "logs", lambda *_: None)
    atexit.register(processes.end_all)  # behind Prefect's threads, which still send logs
    processes.start("prefect", [sys.executable, "-P", "-m", __name__, str(port), str(os.getpid())])
    os.environ |= {"PREFECT_API_URL": address, "PREFECT_UI_URL": ""}  # it has no pages to name
    return partial(processes.wait_for, "prefect", partial(answers, f"{address}/health"), seconds=SECONDS_TO_START)


def _serve(port: int, parent: int) -> None:
    import uvicorn  # noqa: PLC0415 - Prefect's own
    from prefect.server.api.server import create_app  # noqa: PLC0415 (seconds)

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    uvicorn.run(create_app(ephemeral=True, final=True), host=_HOST, port=port, log_level="error")


def _end_with(parent: int) -> None:
    """End this process when its parent has, however that ended."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
