"""Counts of earlier scorings on this machine, of the very same model on the very same images; never a challenger's."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ratchet.data.reading import READING
from ratchet.errors import VerdictChangedError
from ratchet.evaluation.counts import METRIC_VERSION, ImageCounts, join_images, select_images
from ratchet.gate.artifact import read_counts, write_counts
from ratchet.gate.digests import canonical, counts_digest

LIMIT = 10**9  # bytes; 1,000 images with 5 classes take about 200 kB

_logger = logging.getLogger(__name__)


class CountsCache:
    """Per-image counts as Parquet files, one for each model, named by what they are of and sealed by what they hold.

    The images in it go by what image and mask are by content, so that a set which grew is scored where it is new. A file is
    reused where model, the meaning of mask values, metric version, and the versions of what decodes and computes are the
    same; counts with contours have one of their own. The seal, in the file's name, is a digest over all of that and the counts:
    a file that was cut off, changed, or moved to another name is not believed. Writers do not disturb each other: a file
    appears in one step, and nobody removes what they have not read.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the files in `folder`, which is made when the first is written."""
        self._folder = folder

    def find(self, *, model: str, mask_values: Mapping[int, int], contours: bool) -> ImageCounts | None:
        """The counts of the model with this digest, on all images that it was scored on; None: on none."""
        counts, used = self._read(_key(model, mask_values, contours=contours))
        for path in used:
            with suppress(OSError):  # another process has just replaced it, or it is not ours
                os.utime(path)  # the oldest in use goes first
        return counts

    def _read(self, key: str) -> tuple[ImageCounts | None, list[Path]]:
        """The counts of all files that can be believed, mostly one, and these."""
        found: ImageCounts | None = None
        read = list[Path]()
        for path in self._folder.glob(f"{key}-*.parquet"):
            try:
                counts = read_counts(path)
            except VerdictChangedError:
                continue
            if path.stem == _sealed(key, counts) and counts.metric_version == METRIC_VERSION:
                found = counts if found is None else _joined(found, counts)
                read.append(path)
        return found, read

    def keep(self, counts: ImageCounts, *, model: str, mask_values: Mapping[int, int], contours: bool) -> None:
        """Write counts down, beside those that are there of other images; a disk that takes none is a warning, no error."""
        key = _key(model, mask_values, contours=contours)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            before = set(self._folder.glob(f"{key}-*.parquet"))
            there, _ = self._read(key)
            counts = counts if there is None else _joined(counts, there)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".tmp", delete=False) as file:
                write_counts(counts, Path(file.name))
            kept = Path(file.name).rename(self._folder / f"{_sealed(key, counts)}.parquet")
            self._evict(before - {kept})
        except OSError as error:
            _logger.warning("The counts of a model were not kept in %s, so it is scored again: %s", self._folder, error)

    def _evict(self, replaced: set[Path]) -> None:
        files = sorted(((*_used(path), path) for path in self._folder.iterdir()), reverse=True)
        total = 0
        for _, size, path in files:
            total += size
            if path in replaced or total > LIMIT:
                path.unlink(missing_ok=True)


def _used(path: Path) -> tuple[float, int]:
    """When a file was last used, and its bytes; zero for one that another process has just removed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0.0, 0
    return found.st_mtime, found.st_size


def _joined(counts: ImageCounts, others: ImageCounts) -> ImageCounts:
    """The counts, and those of other images that they lack."""
    known = set(counts.names)
    lacking = np.array([name not in known for name in others.names], dtype=bool)
    return join_images(counts, select_images(others, lacking))


def _key(model: str, mask_values: Mapping[int, int], *, contours: bool) -> str:
    code = {package: version(package) for package in ("ratchet", "numpy", "pillow", "torch")}
    parts = [model, sorted(mask_values.items()), contours, METRIC_VERSION, READING, code, platform.machine()]
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]


def _sealed(key: str, counts: ImageCounts) -> str:
    seal = hashlib.sha256(f"{key} {counts_digest(counts)}".encode()).hexdigest()
    return f"{key}-{seal}"
