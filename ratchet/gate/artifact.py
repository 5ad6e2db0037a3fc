"""Per-image counts and metadata as Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ratchet.errors import InvalidCountsError, VerdictChangedError
from ratchet.evaluation.counts import ImageCounts
from ratchet.gate.digests import BOUNDARY, PER_CLASS, PER_IMAGE, Metadata, canonical, named_arrays

_HEADER = b"ratchet.counts"
_IMAGE = "image"
_COLUMN = "meta: "


def write_counts(counts: ImageCounts, path: Path) -> None:
    """One row an image; a column `tp: cat` for each count and class, `pixels` for each count of the whole image."""
    columns: dict[str, Any] = {_IMAGE: pa.array(counts.names, pa.string())}
    for name, array in named_arrays(counts):
        if array.ndim == 1:
            columns[name] = pa.array(array)
        else:
            columns |= {f"{name}: {label}": pa.array(array[:, k]) for k, label in enumerate(counts.classes)}
    header = {"classes": counts.classes, "metric_version": counts.metric_version}
    pq.write_table(pa.table(columns).replace_schema_metadata({_HEADER: canonical(header)}), path)


def read_counts(path: Path) -> ImageCounts:
    """Read counts back. Raises VerdictChangedError for a file that is absent, damaged or something else."""
    table = _read(path)
    try:
        header = json.loads((table.schema.metadata or {})[_HEADER])
        classes = tuple(header["classes"])

        def array(name: str) -> NDArray[np.int64] | None:
            labels = [name] if name in PER_IMAGE else [f"{name}: {label}" for label in classes]
            if name not in PER_CLASS and not set(labels) <= set(table.column_names):
                return None
            columns = [table[label].to_numpy() for label in labels]
            return columns[0] if name in PER_IMAGE else np.stack(columns, axis=1)

        edges = [array(name) for name in BOUNDARY]
        return ImageCounts(
            names=tuple(table[_IMAGE].to_pylist()),
            classes=classes,
            boundary=None if any(edge is None for edge in edges) else np.stack([e for e in edges if e is not None]),
            metric_version=header["metric_version"],
            **{name: array(name) for name in (*PER_CLASS, *PER_IMAGE)},  # type: ignore[arg-type]  # tp, fp, fn are there
        )
    except (KeyError, ValueError, TypeError, InvalidCountsError) as error:
        raise VerdictChangedError(f"{path} does not hold per-image counts: {error}.") from error


def write_metadata(metadata: Metadata, path: Path) -> None:
    """One row an image, one column of text for each column of the metadata; empty where an image has no value."""
    names = sorted({name for values in metadata.values() for name in values})
    columns = {
        _COLUMN + name: pa.array([values.get(n) for n in names], pa.string()) for name, values in metadata.items()
    }
    pq.write_table(pa.table({_IMAGE: pa.array(names, pa.string())} | columns), path)


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Read metadata back. Raises VerdictChangedError for a file that is absent, damaged or something else."""
    table = _read(path)
    if _IMAGE not in table.column_names:
        raise VerdictChangedError(f"{path} does not hold the metadata of images.")
    names = table[_IMAGE].to_pylist()
    return {
        column.removeprefix(_COLUMN): {
            name: value for name, value in zip(names, table[column].to_pylist(), strict=True) if value is not None
        }
        for column in table.column_names
        if column != _IMAGE
    }


def _read(path: Path) -> Any:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise VerdictChangedError(f"{path} cannot be read as Parquet: {error}.") from error
