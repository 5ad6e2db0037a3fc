"""Prefect's server for one command, where no other is configured. That command runs this with `python -m`."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from flows.service.processes import Processes
from flows.service.servers import SECONDS_TO_START, answers
from ratchet.errors import ServiceEndedError
from ratchet.home import home

_NAME = "prefect"
_HOST = "127.0.0.1"
_STARTS = 3  # another process that makes the tables of a new database at the same time gets in the way
_SECONDS_BETWEEN_LOOKS = 1.0


def start_embedded_prefect() -> Callable[[], None]:
    """Start a server without pages and schedules, for what this process imports of Prefect from now on; it ends with it.

    Returns what waits until it answers, and raises `ServiceEndedError` if it does not. Prefect would start one that the
    signals end which end this process, before it is told how the flow run ended, and that stays where this one is killed.
    """
    listening = socket.create_server((_HOST, 0))  # ours from now on: a port alone could be another's by the time
    address = f"http://{_HOST}:{listening.getsockname()[1]}/api"
    processes = Processes(home() / "logs", lambda *_: None)
    atexit.register(processes.end, _NAME, signal.SIGUSR1)  # behind Prefect's threads, which still send logs
    command = [sys.executable, "-P", "-m", __name__, str(listening.fileno()), str(os.getpid())]
    start = partial(processes.start, _NAME, command, inherited=[listening.fileno()])
    is_ready = partial(answers, f"{address}/health")
    start()
    os.environ |= {"PREFECT_API_URL": address, "PREFECT_UI_URL": ""}  # it has no pages to name

    def wait() -> None:
        with listening:
            for _ in range(1, _STARTS):
                try:
                    return processes.wait_for(_NAME, is_ready, seconds=SECONDS_TO_START)
                except ServiceEndedError:
                    if processes.is_running(_NAME):
                        raise
                    processes.end(_NAME)
                    start()
            return processes.wait_for(_NAME, is_ready, seconds=SECONDS_TO_START)

    return wait


def _serve(listening: int, parent: int) -> None:
    # They reach every process of a job, and the parent has yet to tell how its run ended.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    import uvicorn  # noqa: PLC0415 - Prefect's own
    from prefect.server.api.server import create_app  # noqa: PLC0415 (seconds)

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error"))

    def end(*_: object) -> None:
        server.should_exit = True

    signal.signal(signal.SIGUSR1, end)
    threading.Thread(target=_end_with, args=(parent, end), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=listening)])
    sys.exit(0 if server.started else 1)


def _end_with(parent: int, end: Callable[[], None]) -> None:
    """End this process when its parent has, however that ended."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    end()


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
