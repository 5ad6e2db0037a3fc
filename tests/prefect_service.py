"""A real Prefect server with a real worker, for the tests of deployments: started once, on a home of its own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest
from registry_backends import POSTGRES, free_port, postgres_server

from flows.service import servers
from flows.service.processes import MARK, Processes

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

# Waits that are minutes on a server for people.
QUICK = {
    "PREFECT_DEPLOYMENT_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


@dataclass
class Service:
    """The server, its client, and the worker, which can be killed and started again."""

    home: Path
    api: str
    processes: Processes
    client: SyncPrefectClient
    workers: int = 0

    def start_worker(self) -> str:
        """Start a worker, and wait until the server knows that it lives."""
        from flows.service.work import online

        self.workers += 1
        name = f"worker-{self.workers}"
        servers.start_worker(self.processes, name)
        self.processes.wait_for("worker", lambda: name in online(self.client), seconds=servers.SECONDS_TO_START)
        return name

    def kill_worker(self) -> None:
        """Kill the worker and every run of its with SIGKILL, as a power cut would."""
        self.processes.end("worker")

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        """Press Run."""
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def wait(self, run: FlowRun, *, until: str | None = None, seconds: float = 300) -> FlowRun:
        """Wait until a run has ended, or is in a state of this name."""

        def state() -> FlowRun | None:
            found = self.client.read_flow_run(run.id)
            assert found.state is not None
            return found if (found.state.is_final() if until is None else found.state.name == until) else None

        return waited(state, f"the end of {run.name}" if until is None else f"{until} of {run.name}", seconds)

    def runs(self, deployment: str) -> list[FlowRun]:
        """Every run of a deployment, the oldest first."""
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

        name = DeploymentFilter(name=DeploymentFilterName(any_=[deployment.split("/")[1]]))
        found = self.client.read_flow_runs(deployment_filter=name)
        flow = self.client.read_deployment_by_name(deployment).flow_id
        return sorted((run for run in found if run.flow_id == flow), key=lambda run: run.created)

    def events(self, prefix: str, model: str) -> list[dict[str, Any]]:
        """The events about a model, the oldest first."""
        body = {
            "filter": {
                "occurred": {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
                "event": {"prefix": [prefix]},
                "resource": {"id": [f"ratchet.model.{model}"]},
                "order": "ASC",
            },
            "limit": 50,
        }
        found: list[dict[str, Any]] = self.client.request("POST", "/events/filter", json=body).json()["events"]
        return found

    def emit(self, event: str, model: str, **payload: Any) -> None:
        """Send an event as a task would."""
        import uuid
        from datetime import UTC, datetime

        body = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": {"prefect.resource.id": f"ratchet.model.{model}"},
            "payload": payload,
        }
        self.client.request("POST", "/events", json=[body]).raise_for_status()


def waited(look: Callable[[], T | None], what: str, seconds: float = 120) -> T:
    """Look until there is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.3)
    pytest.fail(f"{what} did not come within {seconds:.0f} s")


def living(mark: str) -> list[psutil.Process]:
    """Every process whose environment holds this word."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().values():
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def _database() -> Iterator[str | None]:
    """Postgres where it is installed. On SQLite, Prefect's server stands still for a minute now and then.

    A cursor that it collects as garbage waits there for a connection that waits for a lock, and who holds the lock waits
    for the server's loop, until SQLite gives up. What runs beside `ratchet up` in other tests is on SQLite.
    """
    if not POSTGRES.is_dir() or (os.getuid() == 0 and shutil.which("runuser") is None):  # it cannot run as root
        yield None
        return
    with postgres_server() as database:
        yield database().replace("+psycopg", "+asyncpg")


@pytest.fixture(scope="module")  # each that imports it has its own, which is not to idle to the end
def prefect_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The server with its worker; its logs are in `home/logs`."""
    from prefect.client.orchestration import get_client
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = tmp_path_factory.mktemp("service")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    (home / "prefect").mkdir()
    environment = {"PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": api, "RATCHET_HOME": str(home), **QUICK}
    with pytest.MonkeyPatch.context() as patch, _database() as database:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv(MARK, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        processes = Processes(home / "logs", lambda _, __: None)
        try:
            servers.start_prefect(processes, "127.0.0.1", port, database)
            processes.wait_for("prefect", partial(servers.answers, f"{api}/health"), seconds=servers.SECONDS_TO_START)
            changed = {PREFECT_API_URL: api, PREFECT_HOME: home / "prefect"}
            with temporary_settings(changed), get_client(sync_client=True) as client:
                yield Service(home, api, processes, client)
        finally:
            EventsWorker.drain_all(timeout=10)  # this process's, which would stay with this server
            processes.end_all()
            assert not list(processes.strays())


def own_environment(**settings: str) -> dict[str, str]:
    """The environment without what belongs to another server; what is downloaded stays where it is, whatever HOME is given."""
    foreign, pets = ("PREFECT_", "MLFLOW_", "RATCHET_"), "RATCHET_OXFORD_PET"
    own = {key: value for key, value in os.environ.items() if key == pets or not key.startswith(foreign)}
    return {"XDG_CACHE_HOME": str(Path.home() / ".cache"), **own, **settings}
