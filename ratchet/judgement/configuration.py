"""What a registered version was trained with: the configuration in its run, from which its data and policy follow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ratchet.config import instantiate
from ratchet.errors import DatasetNotFoundError, ModelFilesError
from ratchet.home import home
from ratchet.paths import check_data_paths
from ratchet.registry.tracking import answering, client, tracking_uri
from ratchet.run_names import CONFIG_FILE
from ratchet.targets import check_data_module

if TYPE_CHECKING:
    from ratchet.registry import ModelVersion


def configuration(versions: Iterable[ModelVersion]) -> Mapping[str, Any]:
    """The configuration of the first of these versions whose run still has it: `datamodule`, `gate` and all the rest.

    As plain values, since an older Ratchet may have written it. Raises `ModelFilesError` if none has it.
    """
    asked = []
    for version in versions:
        asked.append(f"v{version.version}")
        found = None if version.run_id is None else _logged(version.run_id)
        if isinstance(found, Mapping) and isinstance(found.get("datamodule"), dict):
            return found
    raise ModelFilesError(
        f"no run of {', '.join(asked)} holds a {CONFIG_FILE}, so nobody knows what data set to judge on: "
        "the runs of `ratchet train` and `ratchet retrain` keep it"
    )


def gate_data(config: Mapping[str, Any], data_path: Path | None = None) -> Any:
    """The data module of a configuration; `data_path` puts a folder, as it is now, in the place of the one that it names.

    Raises `ConfigError`, `ForbiddenTargetError`, `ForbiddenPathError`, `DatasetNotFoundError`.
    """
    node = dict(config["datamodule"])
    if "train_transform" in node:
        node["train_transform"] = None  # no judgement augments
    check_data_module(node)
    if data_path is not None:
        data_path = data_path.expanduser()
        if not data_path.is_dir():
            raise DatasetNotFoundError(f"{data_path} is not a folder: give the one that holds the data set")
        node["data_path"] = str(data_path.absolute())
    if node.get("cache_path") is not None:
        node["cache_path"] = str(home() / "cache")  # of who judges; the other is of who trained
    check_data_paths(node)
    return instantiate(node)


def _logged(run_id: str) -> object:
    """None where the run or the file is gone, or the file is none. Raises `ServerUnreachableError`."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (two seconds)

    store = client()
    with tempfile.TemporaryDirectory(prefix="config-") as folder, answering(tracking_uri()):
        try:
            if CONFIG_FILE not in {entry.path for entry in store.list_artifacts(run_id)}:
                return None
            return yaml.safe_load(Path(store.download_artifacts(run_id, CONFIG_FILE, folder)).read_text("utf-8"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        except (ValueError, yaml.YAMLError):
            return None
