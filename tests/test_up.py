"""`ratchet up` as its users type it: everything comes up, one command finds it, and nothing is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import TINY
from prefect.client.orchestration import SyncPrefectClient
from prefect_service import QUICK, living, own_environment, waited
from registry_backends import free_port, require_postgres

pytestmark = [pytest.mark.server, pytest.mark.flow, pytest.mark.slow]

RATCHET = str(Path(sys.executable).parent / "ratchet")


class Up:
    """One `ratchet up`, whose every process carries a word by which the test finds it."""

    def __init__(self, folder: Path, *options: str, home: Path | None = None) -> None:
        self.word = uuid.uuid4().hex
        self.folder = folder
        self.home = home or folder / "home"
        self.ports = {"--mlflow-port": free_port(), "--prefect-port": free_port()}
        # A HOME of its own: in that of whoever runs the tests, Prefect's profile may name a server.
        self.environment = own_environment(HOME=str(folder), RATCHET_HOME=str(self.home), **QUICK)
        ports = [str(part) for pair in self.ports.items() for part in pair]
        self.process = subprocess.Popen(
            [RATCHET, "up", *ports, "--models", str(folder / "models"), *options],
            env=self.environment | {"WORD_OF_THE_TEST": self.word},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - tests may run under nohup
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def said(self, text: str, seconds: float = 240) -> str:
        """Wait for a line with this text."""

        def look() -> str | None:
            assert self.process.poll() is None or any(text in line for line in self.lines), "\n".join(self.lines)
            return next((line for line in self.lines if text in line), None)

        return waited(look, repr(text), seconds)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `ratchet` command on the same home."""
        return subprocess.run(
            [RATCHET, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def family(self) -> list[psutil.Process]:
        return living(self.word)

    def end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        return self.process.wait(60)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    model = {
        "name": "m",
        "enabled": False,
        "experiment": "generic/shapes/segmentation/smp",
        "overrides": [*TINY[1:], "trainer.max_epochs=30"],
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(model))
    return tmp_path


@pytest.fixture
def start(models: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def begin(*options: str, home: Path | None = None) -> Up:
        started.append(Up(models, *options, home=home))
        return started[-1]

    yield begin
    for each in started:
        for process in each.family():
            process.kill()


@pytest.mark.trains
def test_everything_comes_up_and_ends_and_an_interrupted_run_goes_on_the_next_time(
    start: Callable[..., Up], models: Path
) -> None:
    first = start("--data-root", str(models))
    first.said("ready after")
    assert "deployments: 10 created" in first.said("deployments:")
    found = first.call("deploy", "--models", "models")
    assert found.returncode == 0, found.stderr
    assert "nothing to do" in found.stdout
    healthy = first.call("doctor", "--models", "models")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    _the_doctor_names_the_folder_that_it_was_given(first)
    again = first.call("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    assert again.returncode == 1
    assert f"another `ratchet up` of {first.home} is at work (process {first.process.pid})" in again.stderr

    _press_run(first, data="/elsewhere")
    assert "ForbiddenPathError" in first.said("datamodule.data_path=/elsewhere is outside")
    first.lines.clear()
    _press_run(first)
    first.said("begins")
    family = {process.pid for process in first.family()}
    assert len(family) >= 5  # itself, both servers, the worker, the run
    assert first.end(signal.SIGTERM) == 0
    assert first.family() == []
    assert "ended" in first.lines[-1]

    second = start()
    second.said("was interrupted, and goes on")
    second.said("begins")
    server = next(process for process in second.family() if "mlflow" in process.cmdline())
    server.kill()
    assert second.process.wait(60) == 1
    assert second.family() == []
    assert any("ServiceEndedError: mlflow ended" in line for line in second.lines)


def _press_run(up: Up, **parameters: str) -> None:
    with SyncPrefectClient(
        f"http://127.0.0.1:{up.ports['--prefect-port']}/api"
    ) as client:  # tries again where SQLite is busy
        found = client.read_deployment_by_name("retrain/on-demand-m")
        client.create_flow_run_from_deployment(found.id, parameters=parameters)


def _the_doctor_names_the_folder_that_it_was_given(up: Up) -> None:
    here = up.call("doctor")
    assert "without a model file" not in here.stdout
    model = up.folder / "models" / "m.yaml"
    text = model.read_text()
    model.unlink()
    try:
        told = " ".join(up.call("doctor", "--models", "models").stdout.split())
    finally:
        model.write_text(text)
    assert "ratchet deploy --models models --prune" in told


def test_a_port_that_is_taken_is_told_before_anything_starts(start: Callable[..., Up], models: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        up = start("--prefect-port", port)
        assert up.process.wait(60) == 1
    waited(lambda: up.lines or None, "a message")
    assert f"PortTakenError: port {port} on 127.0.0.1 is taken" in "\n".join(up.lines)
    assert "--prefect-port" in up.lines[-1]
    assert up.family() == []


def test_a_mistake_in_a_model_file_is_told_before_anything_starts(start: Callable[..., Up], models: Path) -> None:
    (models / "models" / "m.yaml").write_text("name: m\nexperiment: x\nmetrik: y\n")
    up = start()
    assert up.process.wait(60) == 1
    waited(lambda: up.lines or None, "a message")
    assert "metrik: there is no such key" in "\n".join(up.lines)
    assert up.family() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux listens on all of 127.0.0.0/8")
def test_without_a_model_file_and_under_another_name_it_comes_up_and_closing_the_terminal_ends_it(
    start: Callable[..., Up], models: Path
) -> None:
    (models / "models" / "m.yaml").unlink()
    notice = {"name": "n", "enabled": True, "block": "webhook/none", "events": ["ratchet.model.promoted"], "body": "b"}
    (models / "notices.yaml").write_text(yaml.safe_dump([notice]))
    up = start("--host", "127.0.0.2")
    up.said("the notice 'n' is off: there is no block webhook/none")
    up.said("no deployments")
    up.said("ready after")
    note = json.loads((up.home / "up.json").read_text())
    assert up.call("history", "nothing").stderr.startswith("ModelNotFoundError")
    up.end(signal.SIGHUP)
    assert up.family() == []
    # The note of one that was killed, whose number another process has now.
    (up.home / "up.json").write_text(json.dumps(note | {"pid": os.getpid()}))
    assert up.call("history", "nothing").stderr.startswith("ModelNotFoundError")


@pytest.mark.postgres
def test_both_databases_may_be_a_postgres_of_our_own(start: Callable[..., Up]) -> None:
    require_postgres()
    with tempfile.TemporaryDirectory(prefix="ratchet-up-") as folder:
        Path(folder).chmod(
            0o755
        )  # as root the server is another user's, who must reach it; pytest's folders are root's alone
        _serve_from_postgres(start("--postgres", "embedded", home=Path(folder) / "home"))


def _serve_from_postgres(up: Up) -> None:
    up.said("ready after")
    history = up.call("history", "m")  # over MLflow's server, and so out of Postgres
    assert "ModelNotFoundError" in history.stderr
    assert (up.home / "postgres" / "PG_VERSION").is_file()
    assert not (up.home / "mlflow.db").exists()
    assert not (up.home / "prefect" / "prefect.db").exists()
    assert up.end(signal.SIGINT) == 0
    assert up.family() == []


@pytest.mark.postgres
@pytest.mark.skipif(os.getuid() != 0, reason="only root gives the database to another user")
def test_a_home_that_the_database_server_cannot_reach_is_told(start: Callable[..., Up], models: Path) -> None:
    require_postgres()
    closed = models / "closed"
    closed.mkdir(mode=0o700)
    up = start("--postgres", "embedded", home=closed / "home")
    assert up.process.wait(60) == 1
    waited(lambda: any("ConfigError" in line for line in up.lines) or None, "a message")
    told = "\n".join(up.lines)
    assert f"{closed / 'home' / 'postgres'}" in told
    assert "--home" in told
    assert up.family() == []
