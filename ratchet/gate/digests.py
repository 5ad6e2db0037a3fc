"""What names counts and metadata: digests of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.counts import ImageCounts

Metadata = Mapping[str, Mapping[str, str]]
"""Column → image name → value, as `metadata.csv` gives it."""

PER_CLASS = ("tp", "fp", "fn")
PER_IMAGE = ("pixels", "correct", "nonfinite")
BOUNDARY = ("boundary tp", "boundary fp", "boundary fn")


def counts_digest(counts: ImageCounts) -> str:
    """Sha-256 over names, classes, metric version and every array (little-endian int64, row by row)."""
    arrays = dict(named_arrays(counts))
    header = [counts.names, counts.classes, counts.metric_version, sorted(arrays)]
    digest = hashlib.sha256(canonical(header))
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name], dtype="<i8").tobytes())
    return digest.hexdigest()


def metadata_digest(metadata: Metadata) -> str:
    """Sha-256 over all columns, images and values, in sorted order."""
    return hashlib.sha256(canonical({column: dict(values) for column, values in metadata.items()})).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, as UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def named_arrays(counts: ImageCounts) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Every array that is there, as (N, C) or (N,), by the name that it has in the file."""
    for name in (*PER_CLASS, *PER_IMAGE):
        if (array := getattr(counts, name)) is not None:
            yield name, array
    if counts.boundary is not None:
        yield from zip(BOUNDARY, counts.boundary, strict=True)
