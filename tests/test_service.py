"""The parts of `ratchet up` and `ratchet doctor` that need no server: what they write, what they tell, what they leave."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner
from prefect.settings import Settings
from prefect_service import own_environment, waited
from pydantic import ValidationError
from registry_backends import free_port
from rich.console import Console
from sqlalchemy import make_url

from flows.cli import main
from flows.service.check import prefect_client
from flows.service.doctor import _database, _disk, _mlflow
from flows.service.journal import Journal
from flows.service.models import ModelFile
from flows.service.postgres import _initialise, addresses, databases, find_binaries
from flows.service.processes import MARK, Processes
from flows.service.running import (
    Running,
    alone_here,
    configured_api,
    died,
    find,
    noted,
    reach_this_machine,
    use_running,
)
from flows.service.servers import answers, start_mlflow, start_prefect, upgrade_mlflow
from flows.service.up import Options, _Addresses, _find_room, _start, _write_whole_paths
from ratchet.boot import boot_id
from ratchet.errors import ConfigError, PortTakenError, ServerUnreachableError, ServiceEndedError
from ratchet.registry.searches import ensure_experiment
from ratchet.registry.tracking import client, embedded_uri

INITDB = """#!/bin/sh
for word; do [ "$before" = -D ] && folder=$word; before=$word; done
mkdir -p "$folder" && echo 15 > "$folder/PG_VERSION"
"""


def initdb(folder: Path, end: str) -> Path:
    """Programs of Postgres among which `initdb` begins a cluster, and then ends so; their folder."""
    folder.mkdir(exist_ok=True)
    (folder / "initdb").write_text(INITDB + end)
    (folder / "initdb").chmod(0o755)
    return folder


def test_an_initdb_that_was_killed_leaves_nothing_that_looks_like_a_database(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    with pytest.raises(ServiceEndedError, match="could not be made a database"):
        _initialise(initdb(tmp_path / "bin", "kill -9 $$"), data, None)
    assert not data.exists()
    _initialise(initdb(tmp_path / "bin", "exit 0"), data, None)
    assert (data / "PG_VERSION").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "postgres"}


def test_a_folder_in_the_databases_place_is_left_as_it_is_and_told(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "notes").touch()
    with pytest.raises(ServiceEndedError, match="move it away"):
        _initialise(initdb(tmp_path / "bin", "exit 0"), data, None)
    assert (data / "notes").is_file()


def test_a_cluster_is_served_by_the_version_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for version in ("9", "15", "16"):
        (tmp_path / version).mkdir()
        initdb(tmp_path / version / "bin", "exit 0")
    data = tmp_path / "data"
    data.mkdir()
    assert find_binaries(data, tmp_path) == tmp_path / "16" / "bin"
    (data / "PG_VERSION").write_text("15\n")
    assert find_binaries(data, tmp_path) == tmp_path / "15" / "bin"
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(ConfigError, match=r"PostgreSQL 14, whose programs are gone, and 16 does not .*pg_upgrade"):
        find_binaries(data, tmp_path)
    own = initdb(tmp_path / "own", "echo 'initdb (PostgreSQL) 14.3'")
    monkeypatch.setenv("PATH", str(own))
    assert find_binaries(data, tmp_path) == own


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["embedded", "a file of one's own"])
def test_the_tables_of_another_mlflow_are_told_with_what_upgrades_them(
    stored_home: Path, tmp_path: Path, own: bool
) -> None:
    store, file = embedded_uri(), stored_home / "mlflow.db"
    if own:
        file = file.rename(tmp_path / "own.db")
        store = f"sqlite:///{file}"
    upgrade_mlflow(store)
    database = sqlite3.connect(file)
    database.execute("UPDATE alembic_version SET version_num = 'another'")
    database.commit()
    database.close()
    with pytest.raises(ConfigError, match="ratchet up --upgrade"):
        start_mlflow(Processes(stored_home, lambda _, __: None), store, "127.0.0.1", 1)
    with pytest.raises(ServiceEndedError, match=r"could not be upgraded(.|\n)*another"):
        upgrade_mlflow(store)


def test_an_upgrade_beside_a_server_elsewhere_says_where_that_is_done(ratchet_home: Path) -> None:
    elsewhere = _Addresses(mlflow="http://mlflow:5000", api="http://prefect/api", store=None, own_prefect=True)
    with ExitStack() as stack, pytest.raises(ConfigError, match=r"mlflow:5000.*mlflow db upgrade"):
        _start(
            Options(upgrade=True),
            elsewhere,
            Processes(ratchet_home, lambda _, __: None),
            Journal(Console(), verbose=False),
            stack,
        )


def test_files_that_stayed_behind_when_the_home_was_moved_are_told_with_what_mends_it(
    stored_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = client()
    run = store.create_run(ensure_experiment("trials")).info.run_id
    store.log_text(run, "kept", "notes.txt")
    store.set_terminated(run)
    assert len(list(_mlflow())) == 1
    moved = stored_home.rename(tmp_path / "moved")
    monkeypatch.setenv("RATCHET_HOME", str(moved))
    _, lost = _mlflow()
    assert (lost.bad, "trials" in lost.found) == (True, True)
    assert lost.advice.endswith(
        f"mkdir -p {stored_home} && ln -s {moved / 'mlartifacts'} {stored_home / 'mlartifacts'}"
    )
    stored_home.mkdir()
    (stored_home / "mlartifacts").symlink_to(moved / "mlartifacts")
    assert len(list(_mlflow())) == 1


@pytest.mark.usefixtures("ratchet_home")
@pytest.mark.parametrize(("gigabytes", "advised", "bad"), [(20, False, False), (9, True, False), (1, True, True)])
def test_a_disk_that_fills_up_is_told_before_it_is_full(
    gigabytes: int, advised: bool, bad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=gigabytes * 2**30)
    monkeypatch.setattr("flows.service.doctor.shutil.disk_usage", lambda _: free)
    (finding,) = _disk()
    assert finding.found.startswith(f"{gigabytes}.0 GB free")
    assert (bool(finding.advice), finding.bad) == (advised, bad)


@pytest.mark.slow
@pytest.mark.usefixtures("stored_home")
def test_the_doctor_fails_where_something_must_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.chdir(tmp_path)  # where no model files are
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert "http://127.0.0.1:9/api" in done.output
    assert "GPU" in done.output  # the checks that follow are made all the same


@pytest.mark.parametrize("name", ["a#b", "a?b"])
def test_a_name_that_would_end_an_address_of_prefects_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="which Prefect takes in no name"):
        ModelFile(name=name, experiment="generic/shapes/segmentation/smp")


@pytest.mark.usefixtures("ratchet_home")
def test_a_ratchet_up_that_nobody_ended_is_known_to_the_next() -> None:
    gone = replace(running("http://127.0.0.1:5000"), pid=2**22 + 1)  # no process has this number
    with noted(gone):
        assert died()  # as after a kill
    assert not died()
    with pytest.raises(ServiceEndedError), noted(gone):
        raise ServiceEndedError("mlflow ended with status 137")
    assert died()
    with pytest.raises(KeyboardInterrupt), noted(gone):
        raise KeyboardInterrupt
    assert not died()


@pytest.fixture
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `use_running` sets is gone after the test."""
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def running(mlflow: str, api: str = "http://127.0.0.1:4200/api") -> Running:
    return Running.here(mlflow=mlflow, api=api, database="sqlite")


@pytest.mark.usefixtures("_own_environment")
def test_a_password_is_neither_in_the_note_of_ratchet_up_nor_in_its_messages(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone_here("x"), noted(running("http://me:secret@mlflow.example:5000")):
        assert "secret" not in (ratchet_home / "up.json").read_text()
        assert find() is not None
        with pytest.raises(PortTakenError, match=r"http://me:\*\*\*@mlflow\.example:5000"):
            alone_here("y").__enter__()
        with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI as there"):
            use_running()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow.example:5000")
        use_running()
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://me:secret@mlflow.example:5000"


@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_without_a_password_other_commands_find_the_servers_by_the_note() -> None:
    with noted(running("http://127.0.0.1:5000")):
        use_running()
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize("api", ["http://h:4200/api/", "https://api.prefect.cloud/api/accounts/a/workspaces/w"])
@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_other_commands_use_the_very_address_of_prefect_that_ratchet_up_does(api: str) -> None:
    with noted(running("http://127.0.0.1:5000", api)):
        use_running()
    assert os.environ["PREFECT_API_URL"] == api


@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_a_password_that_a_file_here_holds_is_taken_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://me:secret@h:4200/api\n")
    with noted(running("http://127.0.0.1:5000", "http://me:secret@h:4200/api")):
        use_running()
    assert os.environ["PREFECT_API_URL"] == "http://me:secret@h:4200/api"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_an_address_of_mlflow_that_names_what_this_is_to_be_is_no_other_server(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(mlflow_port=free_port(), prefect_port=free_port())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:{options.mlflow_port}/")
    assert _find_room(options).store == embedded_uri()
    with serving(200, b"{}") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert _find_room(options).store is None


@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_a_proxy_does_not_stand_between_us_and_our_own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.setattr(urllib.request, "_opener", None)  # that of an earlier test does not know the proxy
    with serving(200, b"{}") as address:
        assert not answers(address)
        reach_this_machine()
        assert answers(address)
    assert {*os.environ["NO_PROXY"].split(",")} == {"corp.example", "127.0.0.1", "localhost", "::1"}
    monkeypatch.setenv("no_proxy", "*")  # what is set now is gone after the test
    reach_this_machine()
    assert os.environ["no_proxy"] == "*"
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "corp.example")
    with noted(replace(running("http://box:5000"), own=("http://box:5000/health",))):
        use_running()
    assert {"corp.example", "box"} <= {*os.environ["no_proxy"].split(",")}
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    reach_this_machine()
    assert "NO_PROXY" not in os.environ


def test_a_port_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(main, ["up", "--mlflow-port", "70000"]).exit_code == 2
    for wrong in ("http://h:500O", "http://h:70000", "http://[::1"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
        with pytest.raises(ConfigError, match="is no address"):
            client()


@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_the_prefect_of_the_active_profile_is_used_and_one_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles, options = tmp_path / "profiles.toml", Options(mlflow_port=free_port(), prefect_port=free_port())
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
    with serving(200, b"{}") as address:
        named = f'[profiles.team]\nPREFECT_API_URL = "{address}/api"\n\n[profiles.alone]\n'
        profiles.write_text(f'active = "team"\n\n{named}')
        room = _find_room(options)
        assert (room.api, room.own_prefect) == (f"{address}/api", False)
        monkeypatch.setenv("PREFECT_PROFILE", "alone")
        assert _find_room(options).own_prefect
        monkeypatch.delenv("PREFECT_PROFILE")
    with pytest.raises(ServerUnreachableError, match="Prefect's active profile"):
        _find_room(options)
    for host in ("127.0.0.1", "localhost"):  # the address that it is to serve itself
        profiles.write_text(
            f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://{host}:{options.prefect_port}/api"\n'
        )
        assert _find_room(options).own_prefect
    profiles.write_text("active = ")
    assert _find_room(options).own_prefect


@pytest.mark.usefixtures("_own_environment", "ratchet_home")
def test_the_prefect_that_a_file_here_names_is_used_in_the_order_of_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    assert configured_api() is None
    for file, text in (
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://{}/api"\n'),
        ("prefect.toml", '[api]\nurl = "http://{}/api"\n'),
        (".env", "PREFECT_API_URL=http://{}/api\n"),
    ):
        (tmp_path / file).write_text(text.format(file.strip(".")))
        assert configured_api() == Settings().api.url == f"http://{file.strip('.')}/api"
        (tmp_path / file).unlink() if file == ".env" else None
    (tmp_path / "prefect.toml").unlink()
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "profiles.toml").write_text(
        'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://profile/api"\n'
    )
    (tmp_path / ".env").write_text("PREFECT_HOME=elsewhere\n")  # where its files go, but for the profiles
    assert configured_api() == "http://profile/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://environment/api")
    assert configured_api() == "http://environment/api"


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything so; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (401, b"no"), (404, b"not here")])
def test_what_is_not_prefects_api_is_told_with_what_to_do(status: int, body: bytes) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        serving(status, body) as address,
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ServerUnreachableError, match=r"PREFECT_API_URL must end in /api.*PREFECT_API_AUTH_STRING"),
        prefect_client(),
    ):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "mlflow.example"])
def test_sqlite_is_enough_for_one_person_by_whatever_name_their_machine_goes(ratchet_home: Path, host: str) -> None:
    alone = running("http://127.0.0.1:5000", f"http://{host}:4200/api")
    with noted(alone):
        (finding,) = _database(1)
    assert bool(finding.advice) == (host == "mlflow.example")


def test_old_runs_leave_prefects_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    processes = Processes(tmp_path, lambda _, __: None)
    processes.start = lambda *given: started.append(given[2])  # type: ignore[method-assign]
    start_prefect(processes, "127.0.0.1", 1, None)
    name = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
    monkeypatch.setenv(name, started[0][name])
    assert "flow_runs" in (Settings().server.services.db_vacuum.enabled_vacuum_types or ())


def test_a_postgres_that_wants_tls_is_told_so_in_each_drivers_words() -> None:
    mlflow, prefect = addresses(make_url("postgresql://me:secret@db/postgres?sslmode=require"))
    assert mlflow == "postgresql+psycopg://me:secret@db/ratchet_mlflow?sslmode=require"
    assert prefect == "postgresql+asyncpg://me:secret@db/ratchet_prefect?ssl=require"


@pytest.mark.flow
def test_an_embedded_server_that_ends_as_it_starts_is_started_again(tmp_path: Path) -> None:
    script = "import os, psutil; from flows.service import embedded as e; wait = e.start_embedded_prefect(); "
    script += "[child.kill() for child in psutil.Process().children()]; wait(); "
    script += "print(e.answers(os.environ['PREFECT_API_URL'] + '/health'))"
    environment = own_environment(HOME=str(tmp_path), RATCHET_HOME=str(tmp_path / "home"))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() == "True", done.stderr
    assert done.returncode == 0


def test_a_service_goes_on_where_its_log_takes_no_more(tmp_path: Path) -> None:
    (tmp_path / "noisy.log").symlink_to("/dev/full")
    heard: list[str] = []
    processes = Processes(tmp_path, lambda _, line: heard.append(line))
    try:
        processes.start("noisy", [sys.executable, "-c", "print('word\\n' * 100_000)"])  # more than a pipe holds
        with pytest.raises(ServiceEndedError, match="noisy ended with status 0"):
            processes.wait_for("noisy", lambda: False, seconds=60)
    finally:
        processes.end_all()
    assert heard.count("word") > 10_000


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("skipped: unchanged since v7('skipped: unchanged since v7', type=COMPLETED)", "skipped: unchanged since v7"),
        (r"""Failed('it\'s "x"', type=FAILED)""", """Failed: it's "x\""""),
        (r"""Failed('a\nb', type=FAILED)""", "Failed: a b"),
        (r"""Failed('\x', type=FAILED)""", "Failed"),
        ("Completed()", "Completed"),
    ],
)
def test_a_state_is_told_once_and_whole(state: str, told: str) -> None:
    out = io.StringIO()
    journal = Journal(Console(file=out, width=200), verbose=False)
    journal.line("worker", f"12:00:00.000 | INFO    | Flow run 'm' - Finished in state {state}")
    assert out.getvalue().rstrip().endswith(f"m  {told}")


def test_a_service_goes_on_where_nobody_reads_what_is_told_of_it(tmp_path: Path) -> None:
    def print_into_a_closed_pipe(*_: str) -> None:
        raise SystemExit(1)  # as rich does

    processes = Processes(tmp_path, print_into_a_closed_pipe)
    try:
        processes.start("noisy", [sys.executable, "-c", "print('word\\n' * 100_000)"])
        with pytest.raises(ServiceEndedError, match="noisy ended with status 0"):
            processes.wait_for("noisy", lambda: False, seconds=60)
    finally:
        processes.end_all()


def test_what_is_relative_to_the_folder_means_the_same_in_a_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_SEARCH_PATH", "conf;pkg://acme.conf;file:///etc/conf")
    monkeypatch.setenv("RATCHET_DATA_ROOTS", f"data{os.pathsep}/data")
    monkeypatch.setenv("RATCHET_OXFORD_PET", "pets:v2")
    _write_whole_paths()
    assert os.environ["RATCHET_SEARCH_PATH"] == f"file://{tmp_path}/conf;pkg://acme.conf;file:///etc/conf"
    assert os.environ["RATCHET_DATA_ROOTS"] == f"{tmp_path}/data{os.pathsep}/data"
    assert os.environ["RATCHET_OXFORD_PET"] == f"{tmp_path}/pets:v2"


@pytest.mark.skipif(not boot_id(), reason="elsewhere the times of processes are absolute")
def test_a_ratchet_up_is_found_after_the_clock_was_set(ratchet_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with noted(running("http://127.0.0.1:5000")):
        moved = psutil.boot_time() + 3600
        monkeypatch.setattr("psutil.boot_time", lambda: moved)
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: moved)
        assert find() is not None


def test_one_of_another_version_is_found_as_far_as_its_note_tells(ratchet_home: Path) -> None:
    with noted(running("http://127.0.0.1:5000")):
        note = ratchet_home / "up.json"
        told = json.loads(note.read_text())
        note.write_text(json.dumps(told | {"later": 1}))
        found = find()
        assert found is not None
        assert found.pid == os.getpid()
        note.write_text(json.dumps({key: value for key, value in told.items() if key != "boot"}))
        with pytest.raises(ConfigError, match=rf"process {os.getpid()}\) is of another version"):
            find()
        note.write_text(json.dumps({"pid": 2**22 + 1}))
        assert find() is None


def test_a_home_has_one_ratchet_up_which_ends_what_one_that_was_killed_has_left(ratchet_home: Path) -> None:
    def left(mark: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark}, start_new_session=True)

    with alone_here("of the first"):
        with pytest.raises(PortTakenError, match=f"another `ratchet up` of {ratchet_home} is starting or ending"):
            alone_here("of the second").__enter__()
        with (
            noted(running("http://127.0.0.1:5000")),
            pytest.raises(PortTakenError, match=rf"is at work \(process {os.getpid()}\): its pages are at http"),
        ):
            alone_here("of the second").__enter__()
    stray, another = left("of the first"), left("of the fourth")
    try:
        with alone_here("of the third"):
            assert stray.wait(10) == -signal.SIGTERM
            assert another.poll() is None
    finally:
        for process in (stray, another):
            process.kill()
            process.wait()


def test_what_postgres_holds_is_not_looked_for_in_an_empty_database(
    ratchet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ratchet_home / "postgres").mkdir(parents=True)
    done = CliRunner().invoke(main, ["rollback", "m"])
    assert done.exit_code == 1
    assert f"the models of {ratchet_home} are kept in PostgreSQL" in done.stderr
    assert not (ratchet_home / "mlflow.db").exists()


def test_one_of_before_a_restart_is_not_taken_for_another_process_of_its_number(ratchet_home: Path) -> None:
    with noted(replace(running("http://127.0.0.1:5000"), boot="another")):
        assert find() is None


def test_a_log_does_not_grow_for_years(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.service.processes._LONGEST_LOG", 1_000)
    processes = Processes(tmp_path, lambda _, __: None)
    count = "for number in range(10_000): print('line', number)"
    processes.start("noisy", [sys.executable, "-c", count])
    with pytest.raises(ServiceEndedError):
        processes.wait_for("noisy", lambda: False, seconds=60)

    def last() -> bool | None:
        with suppress(FileNotFoundError):  # between two of them
            return "line 9999" in (tmp_path / "noisy.log").read_text() or None
        return None

    waited(last, "the last line", 60)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["noisy.log", "noisy.log.1"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2_100


@pytest.mark.parametrize(
    "where", ["me:secret@db:5432", "postgresql://me:secret@db:port", "postgresql://me:x@secret@db"]
)
def test_an_address_that_is_written_wrongly_is_told_without_its_password(tmp_path: Path, where: str) -> None:
    with (
        pytest.raises(ConfigError, match="write postgresql://user:password@host") as told,
        databases(where, Processes(tmp_path, lambda *_: None)),
    ):
        pass
    assert "secret" not in "".join(traceback.format_exception(told.value))
