"""What every command does on a terminal: tables as wide as they need, errors in a sentence, other people's logs quiet."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ratchet.errors import RatchetError

if TYPE_CHECKING:
    from rich.console import Console


_BY_CTRL_C = 130  # as shells say it


def quieten() -> None:
    """Leave the terminal to the progress display, unless somebody asked for logs."""
    # The console only: the server keeps every line for the run's page.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def spell_out_signs() -> None:
    """Let standard output name a sign that its encoding lacks, as 8-bit locales lack ✓ and ≥: an error would hide a verdict.

    A `?` in its place would say *undecided*. Python spells out what standard error lacks by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="namereplace")


def open_console(*, stderr: bool = False) -> Console:
    """Open standard output, or standard error, for tables and colours."""
    from rich.console import Console  # noqa: PLC0415

    # Not a terminal: as wide as the tables want to be, so that a log or a pipe keeps every figure. FORCE_COLOR, common where
    # tests run, asks for colours there and makes rich call it a terminal; a "dumb" one takes no width without a height.
    # What is shown are names, paths and other programs' errors: brackets and colons in them are no markup.
    console = Console(stderr=stderr, markup=False, emoji=False)
    return console if console.file.isatty() else Console(stderr=stderr, markup=False, emoji=False, width=200, height=25)


@contextmanager
def errors_told(*, goes_on: bool = False) -> Iterator[None]:
    """Print our own errors in a sentence; others are defects, and show their trace. `goes_on`: what Ctrl-C ends is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if not goes_on:
            raise
        click.echo("stopped: the same command goes on from the last checkpoint", err=True)
        sys.exit(_BY_CTRL_C)
    except RatchetError as error:
        click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(1)
