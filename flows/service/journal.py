"""The one log of `ratchet up`: a line for what a person wants to know, each with its service; all of it when asked for."""

from __future__ import annotations

import ast
import re
import threading
from contextlib import suppress
from datetime import datetime

from rich.console import Console
from rich.text import Text

from ratchet.registry.rendering import plain

_STYLES = {"postgres": "blue", "mlflow": "cyan", "prefect": "magenta", "worker": "green", "ratchet": "bold"}
_LEVEL = re.compile(r"\b(DEBUG|INFO|LOG|WARNING|WARN|ERROR|CRITICAL|FATAL)\b")
_LOUD = {"ERROR": "red", "CRITICAL": "red", "FATAL": "red", "WARNING": "yellow", "WARN": "yellow"}
_RUN = re.compile(r"Flow run '(?P<run>.*?)' - (?P<what>Beginning flow run|Finished in state) ?(?P<rest>.*)")
# Lines that say WARNING and mean nothing to whoever reads this log.
_IDLE = re.compile(r"FutureWarning|DeprecationWarning|UserWarning|running the production server|security middleware")


class Journal:
    """Prints lines from many threads; quiet unless `verbose`: then every line of every service is there."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        """Print to `console`."""
        self._console, self._verbose = console, verbose
        self._lock = threading.Lock()
        self._inside: set[str] = set()  # services that are in the middle of an error's trace

    def say(self, text: str, style: str = "") -> None:
        """Print a line of our own."""
        self._print("ratchet", text, style)

    def line(self, service: str, line: str) -> None:
        """Take a line of a service's output, and print it if it matters."""
        if not line.strip():
            return
        found = _LEVEL.search(line[:120])
        style = _LOUD.get(found.group(1), "") if found else ""
        if self._verbose:
            self._print(service, line, style)
        elif run := _RUN.search(line):
            begins = run["what"].startswith("Beginning")
            self._print(service, f"{run['run']}  {'begins' if begins else _plain_state(run['rest'])}")
        elif style and not _IDLE.search(line):
            self._print(service, line, style)
        elif not found and service in self._inside and not line.startswith((" ", "Traceback", "\t")):
            self._print(service, line, "red")  # of a trace that follows an error, only what was raised
        if found:
            (self._inside.add if style == "red" else self._inside.discard)(service)

    def _print(self, service: str, text: str, style: str = "") -> None:
        stamp = f"{datetime.now().astimezone():%H:%M:%S}"
        with self._lock:
            head = Text.assemble((stamp, "dim"), "  ", (f"{service:<8}", _STYLES.get(service, "")), "  ")
            self._console.print(head.append(text, style), soft_wrap=True, highlight=False)


_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")  # as Python writes a text


def _plain_state(state: str) -> str:
    """`Completed('…')` without Prefect's marks, as `Completed: …`."""
    found = re.fullmatch(r"(?P<name>.+?)\((?P<rest>.*)\)", state)
    if not found:
        return state
    quoted = _QUOTED.match(found["rest"])
    message = ""
    with suppress(ValueError, SyntaxError):  # a line of somebody else's that looks alike
        message = plain(str(ast.literal_eval(quoted[0]))) if quoted else ""
    return message if message.startswith(found["name"]) else ": ".join(filter(None, [found["name"], message]))
