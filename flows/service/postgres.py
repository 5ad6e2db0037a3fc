"""Postgres for `ratchet up`: two databases on a server that is there, or on one of our own below RATCHET_HOME."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.service.processes import Processes
from ratchet.errors import ConfigError, ServiceEndedError
from ratchet.home import postgres_folder

if TYPE_CHECKING:
    from sqlalchemy import URL

EMBEDDED = "embedded"
_MLFLOW, _PREFECT = "ratchet_mlflow", "ratchet_prefect"
_USER = "ratchet"
_SECONDS_TO_START = 60.0
_INSTALLED = Path("/usr/lib/postgresql")  # where Debian's packages put each version
_NO_ADDRESS = "--postgres or RATCHET_POSTGRES: write postgresql://user:password@host:5432, and @ as %40 in a password"


@contextmanager
def databases(where: str, processes: Processes) -> Iterator[tuple[str, str]]:
    """The addresses of MLflow's and of Prefect's database, made if they are not there.

    `where` is a server's address, or `embedded` for a server of our own, which lives as long as the block. Raises
    `ConfigError`, `ServiceEndedError`.
    """
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    if where == EMBEDDED:
        with _server(processes) as socket:
            yield _made(make_url(f"postgresql://{_USER}@/postgres?host={socket}"))
        return
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise ConfigError(_NO_ADDRESS) from None  # the error has the whole address, its password too
    if "@" in (url.host or ""):  # what follows it in a password would be told as the host
        raise ConfigError(_NO_ADDRESS)
    if not url.drivername.startswith("postgresql"):
        raise ConfigError(f"--postgres takes a PostgreSQL server's address, not {url.drivername}://")
    yield _made(url)


def _made(url: URL) -> tuple[str, str]:
    for name in (_MLFLOW, _PREFECT):
        _ensure(url, name)
    return addresses(url)


def addresses(url: URL) -> tuple[str, str]:
    """Those of MLflow's and of Prefect's database on a server, each as its driver reads them."""
    query = {"ssl" if key == "sslmode" else key: value for key, value in url.query.items()}  # as asyncpg calls it
    mlflow = url.set(drivername="postgresql+psycopg", database=_MLFLOW)
    prefect = url.set(drivername="postgresql+asyncpg", database=_PREFECT, query=query)
    return mlflow.render_as_string(hide_password=False), prefect.render_as_string(hide_password=False)


def _ensure(url: URL, database: str) -> None:
    """Make a database, unless it is there."""
    try:
        import psycopg  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("--postgres needs psycopg: pip install 'psycopg[binary]'") from error
    server = url.set(drivername="postgresql", database=url.database or "postgres")
    try:
        with psycopg.connect(
            server.render_as_string(hide_password=False), autocommit=True, connect_timeout=5
        ) as opened:
            if opened.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone() is None:
                opened.execute(f'CREATE DATABASE "{database}"')
    except psycopg.errors.DuplicateDatabase:
        return
    except psycopg.Error as error:
        raise ConfigError(
            f"{server.render_as_string()} does not give us the database {database}: {str(error).strip()}. Check the address, "
            f"or have its owner say: CREATE DATABASE {_MLFLOW}; CREATE DATABASE {_PREFECT};"
        ) from error


@contextmanager
def _server(processes: Processes) -> Iterator[Path]:
    """Run a server on the cluster in `RATCHET_HOME/postgres`; the folder of its socket, the only way in."""
    data = postgres_folder()
    binaries = find_binaries(data)
    user = "postgres" if os.getuid() == 0 else None  # Postgres refuses to run as root
    socket = Path(
        tempfile.mkdtemp(prefix="ratchet-pg-")
    )  # a socket's path may have 107 characters, home's may be longer
    try:
        if user is not None:
            _hand_over(user, data, socket)
        if not (data / "PG_VERSION").exists():
            _initialise(binaries, data, user)
        options = ["-c", "listen_addresses=", "-c", "log_min_messages=warning"]
        processes.start(
            "postgres", [str(binaries / "postgres"), "-D", str(data), "-k", str(socket), *options], user=user
        )
        ready = [str(binaries / "pg_isready"), "-q", "-h", str(socket), "-U", _USER, "-d", "postgres"]
        processes.wait_for(
            "postgres", lambda: subprocess.run(ready, check=False).returncode == 0, seconds=_SECONDS_TO_START
        )
        yield socket
    finally:
        processes.end("postgres", signal.SIGINT)  # its fast shutdown
        shutil.rmtree(socket, ignore_errors=True)


def find_binaries(data: Path, installed: Path = _INSTALLED) -> Path:
    """The folder of Postgres's programs: of the version that made the cluster in `data`, or, where there is none, the newest.

    No other version reads that cluster. Raises `ConfigError` where the programs are absent.
    """
    found = {path.parts[-3]: path.parent for path in installed.glob("*/bin/initdb")}
    if (on_path := shutil.which("initdb")) is not None:
        folder = Path(on_path).resolve().parent
        found.setdefault(_version(folder), folder)
    if not found:
        raise ConfigError(
            "--postgres embedded needs PostgreSQL's programs, and there are none: install them (apt-get install postgresql), or "
            "give a server's address"
        )
    newest = max(found, key=lambda version: int(version) if version.isdigit() else 0)
    made = data / "PG_VERSION"
    version = made.read_text(encoding="ascii").strip() if made.exists() else newest
    if version not in found:
        raise ConfigError(
            f"{data} is a cluster of PostgreSQL {version}, whose programs are gone, and {newest} does not read it: install them "
            f"beside it (apt-get install postgresql-{version}); with both, pg_upgrade makes it one of {newest}"
        )
    return found[version]


def _version(binaries: Path) -> str:
    """The major version of Postgres's programs, as a cluster of theirs names it."""
    told = subprocess.run([str(binaries / "initdb"), "--version"], check=False, capture_output=True, text=True).stdout
    number = re.search(r"\d+", told)
    return number.group() if number else ""


def _hand_over(user: str, *folders: Path) -> None:
    try:
        owner = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(
            f"as root, --postgres embedded needs the user {user}, as PostgreSQL's packages make it; or run as another user"
        ) from None
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        if subprocess.run(["test", "-w", str(folder)], check=False, user=user, group=user, cwd="/").returncode != 0:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise ConfigError(
                f"{folder} lies in a folder that is root's alone, and PostgreSQL runs as {user}: give a --home that others may "
                "enter, or run as another user"
            )


def _initialise(binaries: Path, data: Path, user: str | None) -> None:
    """Make the cluster in a folder aside: an initdb that is killed leaves half of one, which looks like a whole one."""
    aside = data.with_name(f"{data.name}.coming")
    if aside.exists():
        shutil.rmtree(aside)
    if user is not None:
        _hand_over(user, aside)
    # Nobody but this user, and root, reaches the socket, so its connections are trusted.
    command = [str(binaries / "initdb"), "-D", str(aside), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, user=user, group=user)
    if done.returncode != 0:
        raise ServiceEndedError(f"{data} could not be made a database: {done.stderr.strip()[-500:]}")
    try:
        aside.rename(data)
    except OSError as error:
        raise ServiceEndedError(
            f"{data} is no database, and holds something ({error.strerror}): move it away, or give another --home"
        ) from error
