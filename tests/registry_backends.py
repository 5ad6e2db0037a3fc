"""The back ends that the registry's tests run on: a directory, SQLite, Postgres, and servers on both."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ratchet.registry import DirectoryModelManager, LedgerModelManager, MlflowModelManager
from ratchet.registry.searches import experiment_on
from ratchet.registry.tracking import client

POSTGRES = Path("/usr/lib/postgresql/15/bin")
KINDS = ("directory", "sqlite", "http", "postgres", "http_postgres")
_names = itertools.count(1)


def kinds(*wanted: str) -> list[Any]:
    """Parameters for `backend`, each marked with what it needs."""
    marks = {
        "http": [pytest.mark.server],
        "postgres": [pytest.mark.postgres],
        "http_postgres": [pytest.mark.server, pytest.mark.postgres],
    }
    return [pytest.param(kind, marks=marks.get(kind, [])) for kind in wanted or KINDS]


def open_manager(kind: str, address: str, who: str | None = None) -> LedgerModelManager:
    """A new manager on a back end; plain values, so that a child process can do the same."""
    if kind == "directory":
        return DirectoryModelManager(address, who=who)
    return MlflowModelManager(address, who=who)


@dataclass(frozen=True)
class Backend:
    """One place for models. `run` logs a finished run with a model and gives back its id."""

    kind: str
    address: str

    def open(self, who: str | None = None) -> LedgerModelManager:
        return open_manager(self.kind, self.address, who)

    def run(
        self,
        experiment: str,
        model: Path | None,
        *,
        metrics: dict[str, float] | None = None,
        status: str = "FINISHED",
        parameters: int | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        if self.kind == "directory":
            manager = DirectoryModelManager(self.address)
            return manager.log_run(
                experiment, metrics=metrics or {}, model=model, status=status, parameters=parameters, tags=tags
            )
        opened = client(self.address)
        run = opened.create_run(experiment_on(opened, experiment, self.address), tags=tags)
        for name, value in (metrics or {}).items():
            opened.log_metric(run.info.run_id, name, value)
        if parameters is not None:
            opened.log_param(run.info.run_id, "ratchet.parameters", parameters)
        if model is not None:
            opened.log_artifacts(run.info.run_id, str(model), "deployment_model")
        opened.update_run(run.info.run_id, status)
        return run.info.run_id


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)


def mlflow_server(folder: Path, store: str) -> Iterator[str]:
    """A real `mlflow server` on a free port, until the generator is closed."""
    port = free_port()
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        _end_group(process)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"the server at {url} did not start: {log.read_text()[-2000:]}")


def require_postgres() -> None:
    """Skip the test where Postgres cannot be run, unless RATCHET_POSTGRES_TESTS=required: then it fails."""
    if not POSTGRES.is_dir():
        _without_postgres(f"no Postgres binaries at {POSTGRES}")
    if find_spec("psycopg") is None:
        _without_postgres("psycopg is not installed")
    if os.getuid() == 0 and shutil.which("runuser") is None:
        _without_postgres("Postgres cannot run as root, and there is no runuser")


def _without_postgres(reason: str) -> NoReturn:
    if os.environ.get("RATCHET_POSTGRES_TESTS") == "required":
        pytest.fail(f"{reason}, and RATCHET_POSTGRES_TESTS=required")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[Callable[[], str]]:
    """A Postgres server of its own; each call makes a new database and gives its address for MLflow."""
    require_postgres()
    with postgres_server() as database:
        yield database


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """The same for as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:  # Postgres refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()

    def call(program: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, str(POSTGRES / program), *arguments], cwd=folder, check=True, capture_output=True, timeout=120
        )

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "ratchet", "-A", "trust", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    numbers = itertools.count(1)

    def database() -> str:
        name = f"ratchet{next(numbers)}"
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "ratchet", name)
        return f"postgresql+psycopg://ratchet@127.0.0.1:{port}/{name}"

    try:
        yield database
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def http_address(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder)
    yield from mlflow_server(folder, f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture(scope="session")
def http_postgres_address(
    tmp_path_factory: pytest.TempPathFactory, postgres_database: Callable[[], str]
) -> Iterator[str]:
    yield from mlflow_server(tmp_path_factory.mktemp("server"), postgres_database())


@pytest.fixture(scope="session")
def postgres_address(postgres_database: Callable[[], str]) -> str:
    return postgres_database()


@pytest.fixture(scope="session")
def sqlite_address(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('sqlite'))}"


@pytest.fixture(scope="session")
def directory_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The back end of this kind; a database opened directly keeps its artifacts in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Backend(request.param, request.getfixturevalue(f"{request.param}_address"))


@pytest.fixture
def name() -> str:
    """A model name that no other test uses."""
    return f"model {next(_names)}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that MLflow's own loaders and torch alone can serve."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 1, 3, padding=1).eval()
    images = np.zeros((2, 3, 8, 8), dtype=np.float32)
    folder = tmp_path_factory.mktemp("tiny") / "deployment_model"
    signature = infer_signature(images, net(torch.from_numpy(images)).detach().numpy())
    mlflow.pytorch.save_model(net, str(folder), signature=signature, input_example=images, pip_requirements=["torch"])
    torch.jit.trace(net, torch.from_numpy(images)).save(str(folder / "model.pt"))
    (folder / "model.json").write_text('{"size": [8, 8]}')
    return folder


@pytest.fixture
def make_model(tiny_model: Path, tmp_path: Path) -> Callable[[], Path]:
    """Each call gives another model directory with content of its own.

    It lacks what no loader needs: over HTTP each file is a request.
    """
    spare = shutil.ignore_patterns("*.yaml", "requirements.txt", "*_example.json")

    def make() -> Path:
        number = next(_names)
        folder = tmp_path / f"export-{number}"
        shutil.copytree(tiny_model, folder, ignore=spare)
        (folder / "model.json").write_text(f'{{"size": [8, 8], "number": {number}}}')
        return folder

    return make
