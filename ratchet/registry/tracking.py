"""The one place that decides where experiments and models are tracked, and that turns MLflow's errors into ours."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ratchet.errors import ConfigError, NotAllowedError, RegistryError, ServerUnreachableError
from ratchet.home import home, postgres_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EMBEDDED = "mlflow.db"
_HIDDEN = "***"
_CONNECT_SECONDS = 3.0
_RESTART_SECONDS = 15.0  # what MLflow's own requests wait for a server, by the retries below
_PATIENT_SECONDS = 60.0  # the same for who would lose hours of work
_LEAST_MAJOR = 3  # of a server's version: before, there were no logged models
_answered: dict[str, float] = {}  # the addresses that this process had an answer from, and how long it waits for each
_DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_PATIENT_RETRIES = "5"  # after 0, 4, 8, 16 and 32 s
_SETTINGS = {
    _RETRIES: "3",  # MLflow's own default of 7 makes a dead server take four minutes to be noticed
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the addresses stand in our tables
}
_SERVERS_FAULT = 500  # of HTTP: from here on, trying again may help
_NOT_ALLOWED = (401, 403)  # of HTTP
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_TRANSIENT = {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` if it is set, else the embedded SQLite store under Ratchet's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri()


def embedded_uri() -> str:
    """The SQLite store under Ratchet's home, whether it exists or not."""
    if "?" in str(home()):
        raise ConfigError(f"RATCHET_HOME={home()}: a database's address ends at a ?. Choose a folder without one.")
    return f"sqlite:///{home() / _EMBEDDED}"


def is_new_store() -> bool:
    """Whether the tracking store is the embedded one, and nothing was ever tracked there."""
    return tracking_uri() == embedded_uri() and not (home() / _EMBEDDED).exists()


def client(uri: str | None = None) -> MlflowClient:
    """A client of the tracking store (None: `tracking_uri()`).

    Raises `ServerUnreachableError`, naming the address, within seconds if nothing listens there; a server that this
    process had an answer from before is given the time of a restart. Settings of MLflow that the environment leaves open
    are set for this process and its children: fewer retries, no progress bars, no addresses printed, no telemetry.
    """
    uri = uri or tracking_uri()
    require_listening(uri, seconds=_answered.get(uri, 0.0))
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri == embedded_uri():
        elsewhere = os.environ.get("RATCHET_POSTGRES") or postgres_folder().exists()
        if elsewhere and not (home() / _EMBEDDED).exists():
            raise ConfigError(
                f"the models of {home()} are kept in PostgreSQL: start `ratchet up` with --postgres as before, or set "
                f"MLFLOW_TRACKING_URI to that server. To begin anew, unset RATCHET_POSTGRES and move {postgres_folder()} away"
            )
        home().mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient  # noqa: PLC0415 (two seconds)

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with answering(uri), _one_at_a_time(uri):
        opened = MlflowClient(tracking_uri=uri)
        opened.search_experiments(max_results=1)  # creates the tables of a new database, or finds the server mute
        if uri.startswith("http") and uri not in _answered:
            _require_new_enough(uri)
    _answered.setdefault(uri, _RESTART_SECONDS)
    return opened


def _require_new_enough(uri: str) -> None:
    """Raise `RegistryError` at a server that lacks what is registered with; one that does not tell its version passes."""
    from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415
    from mlflow.utils.rest_utils import http_request  # noqa: PLC0415

    told = http_request(get_default_host_creds(uri), "/version", "GET").text.strip()  # type: ignore[no-untyped-call]
    major = re.match(r"(\d+)\.\d+", told)
    if major and int(major[1]) < _LEAST_MAJOR:
        raise RegistryError(
            f"{shown(uri)} is MLflow {told}: from {_LEAST_MAJOR}.0 on, a server keeps models. Upgrade it."
        )


def rely_on(uri: str) -> None:
    """Give a server that another process had an answer from a minute at each request: a restart of a large one takes as long.

    How often MLflow repeats a request is left as it is where somebody has chosen it.
    """
    _answered[uri] = _PATIENT_SECONDS
    if os.environ.get(_RETRIES, _SETTINGS[_RETRIES]) == _SETTINGS[_RETRIES]:
        os.environ[_RETRIES] = _PATIENT_RETRIES


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Keep other processes of this user and machine from opening the same database: MLflow creates the tables of a new
    one without care for who else is at it. A lock of the dead is released by the system."""
    if uri.startswith("http"):
        yield
        return
    mark = hashlib.sha256(shown(uri).encode()).hexdigest()[:16]  # without the password: others can read the name
    path = Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}-{mark}.lock"
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be locked ({error.strerror}): remove it if it is yours, or else set TMPDIR."
        ) from error
    with os.fdopen(number) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_listening(uri: str, *, seconds: float = 0.0) -> None:
    """Raise `ServerUnreachableError` unless the host and port of a network address accept a connection within `seconds`."""
    scheme, host, port = _place(uri)
    if scheme not in _DEFAULT_PORTS or not host or _by_proxy(uri, scheme):
        return
    address, deadline = (host, port or _DEFAULT_PORTS[scheme]), time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(address, _CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ServerUnreachableError(
                    f"nothing answers at {shown(uri)} ({error}): start the server, or correct MLFLOW_TRACKING_URI"
                ) from error
        time.sleep(0.5)


def _by_proxy(uri: str, scheme: str) -> bool:
    """Whether the environment names a proxy for the address: the host itself may be out of reach then."""
    from requests.utils import get_environ_proxies  # noqa: PLC0415 - MLflow's own

    return scheme in ("http", "https") and bool({scheme, "all"} & get_environ_proxies(uri, no_proxy=None).keys())


def _place(uri: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. In a database's address, a password may hold what ends the host in others."""
    if _is_database(uri):
        from sqlalchemy.engine import make_url  # noqa: PLC0415
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

        try:
            url = make_url(uri)
        except (ArgumentError, ValueError) as error:
            raise ConfigError(f"{shown(uri)} is no address: write @ in a password as %40, and : as %3A") from (
                None if shown(uri) != uri else error
            )
        return url.get_backend_name(), url.host, url.port
    try:
        parts = urlsplit(uri)
        return parts.scheme, parts.hostname, parts.port
    except ValueError as error:  # "port could not be cast", or half of an IPv6 address
        raise ConfigError(f"{uri.rpartition('@')[2]} is no address: {error}") from None


def _is_database(uri: str) -> bool:
    return uri.partition("://")[0].partition("+")[0] in ("postgresql", "mysql", "mssql")


def shown(uri: str) -> str:
    """The address without its password."""
    if _is_database(uri):
        place, _, query = uri.partition("?")
        # From the first colon to the last at: a password may hold either, though it should not.
        place = re.sub(r"(://[^:@]*):.*@", rf"\1:{_HIDDEN}@", place)
        return "?".join(filter(None, [place, re.sub(r"(password[^=]*=)[^&]*", rf"\1{_HIDDEN}", query)]))
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", f":{_HIDDEN}@")))


def hides_password(uri: str) -> bool:
    """Whether the address is one that `shown` left the password out of."""
    return _HIDDEN in uri


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises inside into `RegistryError`, or `ServerUnreachableError` if trying again may help."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415 - MLflow's own
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        yield
    except (MlflowException, SQLAlchemyError, ConnectionError, RequestException) as error:
        place = shown(uri)
        said = str(error).replace(uri.rstrip("/"), place.rstrip("/"))
        cause = error if place == uri else None  # with a password, its trace would tell it
        refused = isinstance(error, MlflowException) and error.error_code not in _TRANSIENT
        denied = isinstance(error, MlflowException) and error.error_code in _DENIED
        if isinstance(error, RequestException) and error.response is not None:  # of its artifacts
            refused = error.response.status_code < _SERVERS_FAULT
            denied = error.response.status_code in _NOT_ALLOWED
        if denied:
            raise NotAllowedError(f"{place} refused: {said}") from cause
        if refused and not said.startswith("API request to"):
            raise RegistryError(f"{place} refused: {said}") from cause
        raise ServerUnreachableError(f"{place} does not answer as it should: {said}") from cause
