"""The servers that a command starts: listened to, watched, and ended with everything that they started themselves."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from ratchet.errors import ServiceEndedError

MARK = "RATCHET_UP"
"""The variable by which a process is known as one of ours, however far down, and whatever session it opened."""

_SECONDS_TO_END = 10.0
_POLL = 0.2
_LONGEST_LOG = 50 * 10**6  # bytes

OnLine = Callable[[str, str], None]
"""Told a service's name and a line that it, or a child of its own, wrote."""


class Processes:
    """The services of one `ratchet up`."""

    def __init__(self, logs: Path, on_line: OnLine, mark: str | None = None) -> None:
        """Keep the output of each service, the last 50 to 100 MB, below `logs`, and pass it to `on_line`, line by line.

        `mark` is what they are known by, however far down (None: a new one).
        """
        self._mark = mark or new_mark()
        self._logs, self._on_line = logs, on_line
        self._running: dict[str, subprocess.Popen[str]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        user: str | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        """Start a service in a session of its own, so that a Ctrl-C reaches us alone and the end has an order.

        `inherited` are files of ours, by number, that stay open in it.
        """
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | (environment or {}) | {MARK: self._mark, "PYTHONUNBUFFERED": "1"},
            user=user,
            group=user,
            pass_fds=inherited,
            text=True,
            errors="replace",
        )
        self._running[name] = process
        threading.Thread(target=self._listen, args=(name, process), daemon=True).start()

    def wait_for(self, name: str, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready` answers true. Raises `ServiceEndedError` if the service, or another, ends before."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()  # first: what answers may be another's, on whose port ours did not come up
            if ready():
                return
            if time.monotonic() > deadline:
                raise ServiceEndedError(f"{name} was not ready within {seconds:.0f} s. {self._where(name)}")
            time.sleep(_POLL)

    def is_running(self, name: str) -> bool:
        """Whether a service was started, and has not ended."""
        return name in self._running and self._running[name].poll() is None

    def check(self) -> None:
        """Raise `ServiceEndedError` if a service is gone."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ServiceEndedError(f"{name} ended with status {process.returncode}. {self._where(name)}")

    def end(self, name: str, *signals: signal.Signals) -> None:
        """End a service: each signal, then SIGKILL for what is left of it; what it started in other sessions too.

        Nothing happens for one that was not started.
        """
        process = self._running.pop(name, None)
        if process is None:
            return
        family = _family(process.pid) if process.poll() is None else []  # else its number may be another's by now
        for sign in (*signals, signal.SIGKILL):
            _signal(family, sign)
            if _gone(family, _SECONDS_TO_END):
                break
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)

    def end_all(self) -> None:
        """End every process that carries our mark, also those whose parents died before them."""
        for name in list(self._running):
            self.end(name, signal.SIGTERM)
        strays = list(self.strays())
        _signal(strays, signal.SIGKILL)
        _gone(strays, _SECONDS_TO_END)

    def strays(self) -> Iterator[psutil.Process]:
        """Every living process with our mark."""
        return marked(self._mark)

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        """Read what it writes, to its end: who is not read any more stands still once the pipe is full."""
        with closing(_Log(self._logs / f"{name}.log")) as log:
            for line in process.stdout or ():
                with suppress(OSError):  # a full disk
                    log.write(line)
                # A terminal that is gone, or does not know a sign. Into a pipe that is closed, rich ends whoever prints.
                with suppress(OSError, UnicodeError, SystemExit):
                    self._on_line(name, line.rstrip())

    def _where(self, name: str) -> str:
        return f"Its log: {self._logs / f'{name}.log'}"


def new_mark() -> str:
    """What the processes of one `ratchet up` are known by."""
    return secrets.token_hex(8)


def marked(mark: str) -> Iterator[psutil.Process]:
    """Every living process that carries a mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def end_marked(mark: str) -> None:
    """End what a `ratchet up` that was killed has left behind: its servers gently, but no run may tell them that it crashed,
    since the next `ratchet up` takes up only those that have told nothing."""
    _signal([process for process in marked(mark) if _works(process)], signal.SIGKILL)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        left = list(marked(mark))
        _signal(left, sign)
        _gone(left, _SECONDS_TO_END)


def _works(process: psutil.Process) -> bool:
    """Whether it is the worker, or a run of its."""
    with suppress(psutil.Error):
        return "PREFECT__FLOW_RUN_ID" in process.environ() or "worker" in process.cmdline()
    return False


class _Log:
    """A file that is begun anew when it is long; the one before stays beside it."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        self._file.write(line.encode("utf-8", "replace"))
        if self._file.tell() > _LONGEST_LOG:
            if self._path.exists():  # unless it could not be begun anew the last time
                self._path.replace(self._path.with_suffix(".log.1"))
            before, self._file = self._file, self._path.open("ab", buffering=0)
            before.close()

    def close(self) -> None:
        self._file.close()


def _family(pid: int) -> list[psutil.Process]:
    """A process with all that it started and that still has its parents."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _signal(processes: Sequence[psutil.Process], sign: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sign)


def _gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait until none of them lives any more; one that only waits for its parent to notice counts as gone."""
    deadline = time.monotonic() + seconds
    while any(map(_lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
