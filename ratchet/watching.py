"""Watches the data that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ratchet.config import compose_space, data_module
from ratchet.data.datamodule import SegmentationDataModule
from ratchet.data.watching import DataLook, look
from ratchet.errors import DatasetNotFoundError, ModelNotFoundError, VersionNotFoundError
from ratchet.settings import Node


def look_at_data(
    model: str, overrides: Sequence[str], before: DataLook | None, *, settle: timedelta
) -> tuple[DataLook, Path]:
    """Look at the data set that the overrides name, after the look `before`; the look, and the folder.

    The first look compares with the data that the model's newest version was trained on. Raises `ConfigError`,
    `DataError`, `RegistryError`.
    """
    node = compose_space(overrides).configs[0].datamodule
    folder = Path(node["data_path"]).expanduser()

    def read() -> tuple[str, int]:
        data = data_module(node)
        return data.fingerprint, data.unlisted

    lists = [folder / Path(file).expanduser() for key, file in node.items() if key.endswith("_split_file") and file]
    known = partial(trained_on, model)
    found = look(folder, before, now=datetime.now(UTC), settle=settle, read=read, known=known, lists=lists)
    if not found.signature and not makes_its_data(node):
        raise DatasetNotFoundError(
            f"there is no folder {folder}: bring it back, let this machine see it, or correct `data` in the model file"
        )
    return found, folder


def makes_its_data(datamodule: Node) -> bool:
    """Whether the data are generated or downloaded where they are missing: then their folder comes with the first training."""
    return type(data_module(datamodule)).fetch is not SegmentationDataModule.fetch


def trained_on(model: str) -> str | None:
    """The fingerprint of the data that the newest version was trained on; None where nobody knows. Raises `RegistryError`."""
    from ratchet.registry import MlflowModelManager  # noqa: PLC0415 (MLflow: two seconds, at the first look only)
    from ratchet.registry.searches import find_run  # noqa: PLC0415
    from ratchet.run_names import DATA_FINGERPRINT_TAG  # noqa: PLC0415

    try:
        newest = MlflowModelManager().get_latest_version(model)
    except (ModelNotFoundError, VersionNotFoundError):
        return None
    run = None if newest.run_id is None else find_run(newest.run_id)  # it may be cleaned up: the version outlives it
    return None if run is None else run.data.tags.get(DATA_FINGERPRINT_TAG)
