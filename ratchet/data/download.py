"""Fetching an archive from the web: checked against its checksum, unpacked aside, and moved in place when whole."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ratchet.errors import DownloadError

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20  # bytes
_STAGING = ".download-"


@dataclass(frozen=True)
class Archive:
    """A tar archive on the web with its MD5 (hexadecimal) and the one folder that it unpacks to."""

    url: str
    md5: str
    folder: str


def fetch_archives(archives: tuple[Archive, ...], destination: Path, *, timeout: float, advice: str) -> None:
    """Put the folders of `archives` that are missing below `destination`, whole or not at all.

    A second process waits for the first and then finds the work done. `advice` ends every error message; `timeout` is
    in seconds, for the connection and for each silence.

    Raises:
        DownloadError: no connection, an answer other than 200, another checksum, a broken archive, or no room on disk.
    """
    if all((destination / archive.folder).is_dir() for archive in archives):
        return
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with FileLock(destination / ".download.lock"):
            for leftover in destination.glob(f"{_STAGING}*"):  # of a process that was killed: we hold the lock
                shutil.rmtree(leftover)
            for archive in archives:
                if not (destination / archive.folder).is_dir():
                    _fetch(archive, destination, timeout)
    except DownloadError as error:
        raise DownloadError(f"{error}. {advice}") from error
    except (OSError, HTTPException, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        sources = " and ".join(archive.url for archive in archives)
        raise DownloadError(f"cannot download {sources} to {destination}: {error!r}. {advice}") from error


def _fetch(archive: Archive, destination: Path, timeout: float) -> None:
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=destination) as staging:
        packed, unpacked = Path(staging) / "archive", Path(staging) / "unpacked"
        _log.info("downloading %s", archive.url)
        found = _save(archive.url, packed, timeout)
        if found != archive.md5:
            raise DownloadError(
                f"{archive.url} has MD5 {found}, expected {archive.md5}: incomplete, or another archive"
            )
        with tarfile.open(packed) as tar:
            tar.extractall(unpacked, filter="data")
        if not (unpacked / archive.folder).is_dir():
            raise DownloadError(f"{archive.url} does not hold the folder {archive.folder!r}")
        (unpacked / archive.folder).rename(destination / archive.folder)


def _save(url: str, path: Path, timeout: float) -> str:
    """Stream `url` to `path`; its MD5, which is what the authors publish."""
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise DownloadError(f"{url} is not an http or https address")
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=timeout) as response, path.open("wb") as file:
        for chunk in _chunks(response, url.rsplit("/", 1)[-1]):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _chunks(response: HTTPResponse, label: str) -> Iterator[bytes]:
    with _progress(label, int(response.headers.get("Content-Length") or 0) or None) as advance:
        while chunk := response.read(_CHUNK):
            advance(len(chunk))
            yield chunk


@contextmanager
def _progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; call what it gives with the bytes that arrived."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)
