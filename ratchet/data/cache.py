"""Decoded, resized pixels: one memory-mapped file for each content and input size, shared by all who train on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ratchet.cores import cores
from ratchet.data.content import PairContent, read_pair
from ratchet.data.reading import READING
from ratchet.data.resizing import read_pixels
from ratchet.errors import UnreadableImageError

_log = logging.getLogger(__name__)

OnImage = Callable[[int, int], None]
"""Told how many images are decoded, of how many."""

FORM = 3  # of the file; goes up when resizing gives other pixels for the same bytes
_BLOCK = 256  # images decoded ahead of what is written
_BLOCK_BYTES = 2**28  # and what they may take, so that memory stays small
_MOST_THREADS = 8  # each holds a decoded image, and the disk gives no more
_DIGESTS = 64  # bytes: the SHA-256 of an image and of its mask
_SPARE = 2**28  # bytes that are left free on the disk, for checkpoints and models
_GIGABYTE = 10**9


@dataclass(frozen=True)
class PixelSource:
    """What a cache is made from: the files of each content, the meaning of mask values, the input's size in pixels."""

    files: Mapping[PairContent, tuple[Path, Path]]
    mask_values: Mapping[int, int]
    height: int
    width: int

    @property
    def rows(self) -> dict[PairContent, int]:
        """The row of each content: by digest, so that neither names nor splits count."""
        return {content: row for row, content in enumerate(sorted(self.files, key=lambda c: (c.image, c.mask)))}

    @property
    def dtype(self) -> np.dtype[Any]:
        """One row: the channels red, green, blue and class index, and a checksum."""
        return np.dtype([("pixels", "u1", (4, self.height, self.width)), ("checksum", "<u4")])

    @property
    def byte_count(self) -> int:
        """Size of the rows and of what follows them."""
        return len(self.files) * (self.dtype.itemsize + _DIGESTS) + _DIGESTS

    @property
    def key(self) -> str:
        """SHA-256, in hexadecimal, of all that decides on the pixels."""
        rows = [(content.image, content.mask) for content in self.rows]
        return hashlib.sha256(json.dumps({**self._meaning, "rows": rows}).encode()).hexdigest()

    @property
    def footer(self) -> list[bytes]:
        """What follows the rows: of each, and at the end of what all of them mean, `_DIGESTS` bytes."""
        meaning = hashlib.sha512(json.dumps(self._meaning).encode()).digest()
        return [*(bytes.fromhex(content.image + content.mask) for content in self.rows), meaning]

    @property
    def _meaning(self) -> dict[str, object]:
        """What decides on the pixels of a content."""
        return {
            "form": FORM,
            "reading": READING,
            "size": (self.height, self.width),
            "mask_values": sorted(self.mask_values.items()),
            "code": version("pillow"),
        }


class PixelCache:
    """The pixels in a cache's file. While it is open, `open_cache` evicts the file for nobody."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises OSError or ValueError where it is absent or not whole."""
        self._path = path
        self._held = path.open("rb")
        fcntl.flock(self._held, fcntl.LOCK_SH)
        self.records: np.memmap[Any, Any] = np.load(path, mmap_mode="r")

    def read(self, row: int) -> NDArray[np.uint8] | None:
        """Red, green, blue and class index, uint8 (4, H, W); None where the row is damaged: the file is then given up."""
        record = self.records[row]
        pixels: NDArray[np.uint8] = np.array(record["pixels"])
        if zlib.crc32(pixels.data) != record["checksum"]:
            _log.warning("%s is damaged (row %d): it is removed, and made anew by the next training", self._path, row)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._held.fileno()), self._path.stat()):  # not one that was made since
                    self._path.unlink()
            return None
        return pixels

    def rows(self, source: PixelSource) -> dict[PairContent, int]:
        """The rows that another source has too; none where its pixels are made otherwise, or the file does not tell."""
        self._held.seek(self.records.offset + self.records.nbytes)
        footer = list(iter(lambda: self._held.read(_DIGESTS), b""))
        if len(footer) != len(self.records) + 1 or footer[-1] != source.footer[-1]:
            return {}
        contents = [PairContent(digests[:32].hex(), digests[32:].hex()) for digests in footer[:-1]]
        return {content: row for row, content in enumerate(contents) if content in source.files}

    def __reduce__(self) -> tuple[type[PixelCache], tuple[Path]]:
        """Travel to a worker as the file's name, not as its pixels."""
        return PixelCache, (self._path,)


def open_cache(
    folder: Path, source: PixelSource, *, limit_gb: float, on_image: OnImage | None = None
) -> PixelCache | None:
    """Open the cache of `source` in `folder`, made first where it is absent or not whole; None where there is no room.

    What another cache in the folder holds already is copied: of images that grew in number, only the new ones are decoded.
    A process that asks for what another is making waits for it. All caches of the folder together take at most
    `limit_gb` (10^9 bytes); the least recently opened goes first, and one that is open in any process never.

    Raises:
        DataError: an image or mask cannot be read.
    """
    path = folder / f"{source.key}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (cache := _open_whole(path, source)) is None:
                unfinished = path.with_suffix(".partial")
                try:
                    with FileLock(folder / "room.lock"):  # two that are made at once must fit together
                        donor = _make_room_beside_donor(folder, path, source, round(limit_gb * _GIGABYTE))
                        with unfinished.open("wb") as file:
                            file.truncate(source.byte_count)
                    _write(unfinished, source, donor, on_image)
                    unfinished.replace(path)
                finally:
                    unfinished.unlink(missing_ok=True)
                cache = _open_whole(path, source)
            os.utime(path)
            return cache
    except OSError as error:
        _log.warning("images are decoded again in every epoch, without a cache: %s", error)
        return None


def _open_whole(path: Path, source: PixelSource) -> PixelCache | None:
    """What is wrong inside a file that is not cut short, the rows' checksums tell."""
    with suppress(OSError, ValueError, EOFError):
        cache = PixelCache(path)
        if cache.records.dtype == source.dtype and path.stat().st_size == cache.records.offset + source.byte_count:
            return cache
    return None


class _Donor(NamedTuple):
    """A cache, held open, and its rows that are copied."""

    cache: PixelCache
    rows: Mapping[PairContent, int]


def _find_donor(folder: Path, source: PixelSource, most_bytes: int) -> _Donor | None:
    """The cache of at most so many bytes that has the most of the rows, and was used last; None where none has any."""
    donors: list[tuple[int, int, _Donor]] = []
    for path in _own(folder, ".npy"):
        with suppress(OSError, ValueError, EOFError):  # it has gone, or is none
            if path.stat().st_size <= most_bytes:
                cache = PixelCache(path)
                donors.append((len(rows := cache.rows(source)), path.stat().st_mtime_ns, _Donor(cache, rows)))
    most, _, best = max(donors, key=lambda found: found[:2], default=(0, 0, None))
    return best if most else None


def _make_room_beside_donor(folder: Path, path: Path, source: PixelSource, limit: int) -> _Donor | None:
    """Make room, and return what is copied from; a donor that is in the way is let go. Raises OSError as `_make_room`."""
    donor = _find_donor(folder, source, limit - source.byte_count)
    try:
        _make_room(folder, path, source.byte_count, limit)
    except OSError:
        if donor is None:
            raise
        donor = None  # nobody else may have it open: then it can be evicted now
        _make_room(folder, path, source.byte_count, limit)
    return donor


def _write(path: Path, source: PixelSource, donor: _Donor | None, on_image: OnImage | None) -> None:
    """Write over the room that is taken; plain writes, because a full disk kills who writes through a map."""
    header = {
        "descr": np.lib.format.dtype_to_descr(source.dtype),
        "fortran_order": False,
        "shape": (len(source.files),),
    }
    with path.open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for done, record in enumerate(_records(source, donor), start=1):
            file.write(record)
            if on_image is not None:
                on_image(done, len(source.files))
        file.writelines(source.footer)


def _records(source: PixelSource, donor: _Donor | None) -> Iterator[bytes]:
    contents = list(source.rows)

    def pixels(content: PairContent) -> bytes:
        row = None if donor is None else donor.rows.get(content)
        if donor is not None and row is not None and (copied := donor.cache.read(row)) is not None:
            return copied.tobytes()
        image, mask = read_pixels(*source.files[content], source.mask_values, height=source.height, width=source.width)
        if read_pair(source.files[content]) != content:
            raise UnreadableImageError(f"{source.files[content][0]} or its mask changed while it was read: start again")
        return image.tobytes() + mask.tobytes()

    def record(content: PairContent) -> bytes:
        data = pixels(content)
        return data + zlib.crc32(data).to_bytes(4, "little")

    threads = min(cores(), _MOST_THREADS)
    block = max(2 * threads, min(_BLOCK, _BLOCK_BYTES // source.dtype.itemsize))
    with ThreadPoolExecutor(threads) as pool:  # decoding and resizing release the interpreter lock
        for start in range(0, len(contents), block):
            yield from pool.map(record, contents[start : start + block])


def _make_room(folder: Path, path: Path, needed: int, limit: int) -> None:
    """Evict what was opened longest ago until `needed` bytes fit. Raises OSError where they do not.

    What is being made has its full size from the start, and takes the disk's blocks as it is written.
    """
    pixels = f"the pixels take {needed / _GIGABYTE:.3g} GB"
    bound = f"more than datamodule.cache_gb={limit / _GIGABYTE:g}"
    if needed > limit:
        raise OSError(f"{pixels}, {bound}: with {math.ceil(needed / _GIGABYTE)} they are cached")
    _remove_abandoned(folder, path)
    kept = []
    for file in _own(folder, ".npy"):
        with suppress(FileNotFoundError):  # another process evicts too
            kept.append((file.stat().st_mtime, file.stat().st_size, file))
    made = []
    for file in _own(folder, ".partial"):
        with suppress(FileNotFoundError):  # it has taken its place
            made.append(file.stat())
    unwritten = sum(max(0, stat.st_size - 512 * stat.st_blocks) for stat in made)

    def free() -> int:
        return shutil.disk_usage(folder).free - unwritten

    others = sum(size for _, size, _ in kept)
    total = needed + others + sum(stat.st_size for stat in made)
    if needed + _SPARE > free() + others:  # not even if all of them went
        raise OSError(f"{pixels}, and the disk of {folder} has {free() / _GIGABYTE:.3g} GB left")
    for _, size, file in sorted(kept):
        full = needed + _SPARE > free()
        if (total > limit or full) and _evict(file):
            total -= size
    if total > limit:
        raise OSError(f"{pixels} beside {(total - needed) / _GIGABYTE:.3g} GB of caches in use, {bound}")
    if needed + _SPARE > free():
        raise OSError(f"{pixels}, and the disk of {folder} has {free() / _GIGABYTE:.3g} GB left")


def _own(folder: Path, suffix: str) -> list[Path]:
    """The files that are named by a key; what else lies in the folder is somebody else's."""
    return [path for path in folder.glob(f"*{suffix}") if re.fullmatch("[0-9a-f]{64}", path.stem)]


def _evict(file: Path) -> bool:
    """Remove a cache that nobody has open; return whether. What cannot be locked or removed stays."""
    with suppress(OSError), file.open("r+b") as held:  # to write: a network file system locks no other for one alone
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
    return not file.exists()


def _remove_abandoned(folder: Path, path: Path) -> None:
    """Remove what processes that were killed left half-written: nobody holds its lock."""
    for partial in _own(folder, ".partial"):
        if partial.stem == path.stem:
            partial.unlink(missing_ok=True)  # the lock is ours
            continue
        with suppress(Timeout), FileLock(partial.with_suffix(".lock"), timeout=0):
            partial.unlink(missing_ok=True)
