"""Where the servers of `ratchet up` are, for the other commands: a note in RATCHET_HOME that lives as long as they do."""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import psutil
from dotenv import dotenv_values

from flows.service.processes import end_marked
from ratchet.boot import boot_id
from ratchet.errors import ConfigError, PortTakenError, ServerUnreachableError
from ratchet.home import home
from ratchet.registry.tracking import hides_password, require_listening, shown

_CLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """The addresses of a `ratchet up` that is running, and the process that it is.

    It `began` so many seconds after the machine's start `boot`, or after 1970 where that is not known. `api` is Prefect's.
    `own` are the addresses of the servers that are its own.
    """

    pid: int
    boot: str
    began: float
    mlflow: str
    api: str
    database: str
    own: tuple[str, ...] = ()

    @classmethod
    def here(cls, *, mlflow: str, api: str, database: str, own: Sequence[str] = ()) -> Running:
        """This process."""
        return cls(os.getpid(), boot_id(), _began(psutil.Process()), mlflow, api, database, tuple(own))

    @property
    def pages(self) -> str:
        """Where its pages are, in words."""
        return f"its pages are at {shown(self.mlflow)} and {shown(self.prefect)}"

    @property
    def prefect(self) -> str:
        """The address of Prefect's pages, where it is that of its API without the end."""
        return self.api.removesuffix("/api")


@contextmanager
def alone_here(mark: str) -> Iterator[None]:
    """Let no other `ratchet up` begin on this home while the block runs; what one that was killed has left is ended first.

    Raises `PortTakenError` where there is another.
    """
    path = home() / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = find()
            told = "is starting or ending" if other is None else f"is at work (process {other.pid}): {other.pages}"
            raise PortTakenError(f"another `ratchet up` of {home()} {told}") from None
        lock.seek(0)
        if before := lock.read():
            end_marked(before)
        lock.truncate(0)
        lock.write(mark)
        lock.flush()
        yield


@contextmanager
def noted(running: Running) -> Iterator[None]:
    """Leave the note while the block runs, without passwords. It stays where an error ends the block: a service that died."""
    _file().parent.mkdir(parents=True, exist_ok=True)
    told = replace(running, mlflow=shown(running.mlflow), api=shown(running.api))
    _file().write_text(json.dumps(asdict(told)))
    ended = True
    try:
        yield
    except Exception:
        ended = False
        raise
    finally:
        if ended:
            _file().unlink(missing_ok=True)


def died() -> bool:
    """Whether the `ratchet up` before was not ended by anybody: it was killed, or one of its services was."""
    return _file().exists() and find() is None


def find() -> Running | None:
    """The `ratchet up` that runs on this home; None where there is none, or its note outlived it.

    Raises `ConfigError` at the note of an earlier Ratchet whose process lives.
    """
    try:
        told = dict(json.loads(_file().read_text()))
    except (OSError, ValueError, TypeError):
        return None
    try:
        found = Running(**{field.name: told[field.name] for field in fields(Running) if field.name in told})
    except TypeError:
        if psutil.pid_exists(told.get("pid", -1)):
            raise ConfigError(
                f"the `ratchet up` that serves {home()} (process {told['pid']}) is of another version of Ratchet: end it, and "
                "start it anew"
            ) from None
        return None
    try:
        # Another may have its number by now. That one is younger by the time that servers take to start.
        same = found.boot == boot_id() and abs(_began(psutil.Process(found.pid)) - found.began) < _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return None
    return found if same else None


def _began(process: psutil.Process) -> float:
    """When it began, in seconds since the machine's start where that is known: the clock may be set at any time."""
    return float(process.create_time() - (psutil.boot_time() if boot_id() else 0.0))


def use_running() -> None:
    """Let this process use the servers of `ratchet up`, where its environment names none.

    Raises `ConfigError` for one with a password, which only the environment of `ratchet up` knows.
    """
    if (running := find()) is None:
        return
    for variable, address in (("PREFECT_API_URL", running.api), ("MLFLOW_TRACKING_URI", running.mlflow)):
        if variable == "PREFECT_API_URL" and (named := configured_api()) is not None and shown(named) == address:
            address = named  # noqa: PLW2901 - with its password, which a file here holds
        if variable not in os.environ and hides_password(address):
            raise ConfigError(
                f"the `ratchet up` of {home()} uses {address}, whose password is written nowhere: set {variable} as there"
            )
        os.environ.setdefault(variable, address)
    reach_this_machine(*(str(urlsplit(address).hostname) for address in running.own))


def configured_api() -> str | None:
    """The address of Prefect's API that the environment, a file here or the active profile names; None where none does.

    Prefect is not asked: what is imported of it keeps the settings of that moment.
    """
    configured = _configured()
    if (named := configured.get("PREFECT_API_URL")) is not None:
        return named or None
    folder = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")  # which in a file moves no profiles
    profiles = _read_toml(Path(configured.get("PREFECT_PROFILES_PATH") or folder / "profiles.toml").expanduser())
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    return profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL") or None


def _configured() -> dict[str, str]:
    """What Prefect reads before a profile: `pyproject.toml`, `prefect.toml`, `.env` here and, above all, the environment."""
    found: dict[str, str | None] = {}
    for table in (
        _read_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {}),
        _read_toml(Path("prefect.toml")),
    ):
        named = {
            "PREFECT_API_URL": table.get("api", {}).get("url"),
            "PREFECT_HOME": table.get("home"),
            "PREFECT_PROFILES_PATH": table.get("profiles_path"),
        }
        found |= {name: value for name, value in named.items() if value is not None}
    return {name: value for name, value in (found | dotenv_values(".env") | os.environ).items() if value is not None}


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Prefect tells of a file that it cannot read
        return {}


def require_prefect(api: str, advice: str = "start `ratchet up`, or correct PREFECT_API_URL") -> None:
    """Raise `ServerUnreachableError`, with advice, where nothing listens at the address of Prefect's API."""
    if not listens(api):
        raise ServerUnreachableError(f"nothing answers at {shown(api)}: {advice}")


def listens(address: str) -> bool:
    """Whether anything accepts a connection there."""
    try:
        require_listening(address)
    except ServerUnreachableError:
        return False
    return True


def use_own_prefect() -> None:
    """Keep Prefect's files under RATCHET_HOME, unless something of Prefect is configured otherwise."""
    configured = {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"} & _configured().keys()
    if not configured and not (Path.home() / ".prefect" / "profiles.toml").exists():
        folder = home() / "prefect"
        folder.mkdir(parents=True, exist_ok=True)  # Prefect's server cannot make more than the last folder itself
        os.environ["PREFECT_HOME"] = str(folder)
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        os.environ.setdefault("DO_NOT_TRACK", "1")  # the same of its clients, which else say on a terminal that they do


def reach_this_machine(*hosts: str) -> None:
    """Let no proxy of the environment stand between this process, or its children, and the servers of this machine.

    `hosts` are further names of it. Nothing is set where there is no proxy: macOS has settings of its own then.
    """
    proxies, excepted = getproxies_environment(), os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not proxies.keys() - {"no"} or excepted.strip() == "*":
        return
    names = dict.fromkeys([*filter(None, excepted.split(",")), "127.0.0.1", "localhost", "::1", *hosts])
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(names))


def _file() -> Path:
    return home() / "up.json"
