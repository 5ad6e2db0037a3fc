"""The folders that a configuration may read from and write to: those that the operator of a deployment allows."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ratchet.errors import ForbiddenPathError
from ratchet.home import home
from ratchet.settings import Node, TrialConfig, leaves
from ratchet.targets import HUB_WEIGHTS, NETWORK

_READ_FROM = {"checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"}  # timm's
_WRITTEN_TO = {"dirpath", "exclude_batches_path", "_args_"}  # Lightning's; what has no name cannot be looked at

_relative: ContextVar[dict[str, str] | None] = ContextVar("relative", default=None)


@contextmanager
def relative_paths() -> Iterator[dict[str, str]]:
    """Collect the relative paths of what is composed inside the block, by key: in another folder they name something else.

    Those in `core.home` are left out: it is where the environment says.
    """
    found: dict[str, str] = {}
    token = _relative.set(found)
    try:
        yield found
    finally:
        _relative.reset(token)


def check_paths(config: TrialConfig) -> None:
    """Raise `ForbiddenPathError` where a path leaves the roots of RATCHET_DATA_ROOTS (separated as PATH is; unset: any).

    Callbacks may then name no folder at all: they remove files as well.
    """
    check_data_paths(config.datamodule)
    _check_roots({"core.home": str(config.core.home)})
    _check_roots({"backbone.model.encoder_weights": config.backbone.model.get("encoder_weights")}, *_installed())
    if not _roots():
        return
    for key, value in leaves(config.backbone.model):
        if (key.partition(".")[0] in _READ_FROM and value) or (key == "encoder_name" and ":" in str(value)):
            raise ForbiddenPathError(
                f"backbone.model.{key}={value}: weights are named by encoder_weights in this deployment. Leave it out."
            )
    for key, value in leaves(config.model_dump(exclude={"gate"})):
        place = "backbone.model._target_" if value == NETWORK else "datamodule._target_"
        if key.endswith("._target_") and _reads(value) and key != place:
            raise ForbiddenPathError(
                f"{key}={value}: it reads files, and has no place there in this deployment. Leave it out."
            )
    for key, value in leaves(config.callbacks):
        parts = set(key.split("."))
        if value and (parts & _WRITTEN_TO or ("filename" in parts and "/" in str(value))):
            raise ForbiddenPathError(
                f"callbacks.{key}={value}: checkpoints lie in the trial's own folder in this deployment. Leave it out."
            )


def with_whole_paths(config: TrialConfig) -> TrialConfig:
    """The same with its folders as they are seen from everywhere: a run's configuration is read again elsewhere."""
    paths = {
        key: _expanded(key, value)
        for key, value in config.datamodule.items()
        if key.endswith("_path") and isinstance(value, str) and "://" not in value
    }
    if (relative := _relative.get()) is not None:
        relative.update(_relative_among(paths, config))
    whole = {key: str(path.absolute()) for key, path in paths.items()}
    core = config.core.model_copy(update={"home": config.core.home.absolute()})
    return config.model_copy(update={"core": core, "datamodule": config.datamodule | whole})


def _relative_among(data: Mapping[str, Path], config: TrialConfig) -> dict[str, str]:
    paths = {f"datamodule.{key}": path for key, path in data.items()}
    model = config.backbone.model
    weights = model.get("encoder_weights")
    if model.get("_target_") == NETWORK and weights not in (None, HUB_WEIGHTS):
        paths["backbone.model.encoder_weights"] = Path(str(weights))
    home = config.core.home
    return {key: str(path) for key, path in paths.items() if not path.is_absolute() and not path.is_relative_to(home)}


def check_data_paths(datamodule: Node) -> None:
    """Raise `ForbiddenPathError` where a path of the data module leaves the roots of RATCHET_DATA_ROOTS."""
    given = {key: value for key, value in datamodule.items() if value}
    # As the data module reads them: ~ is expanded, and lists lie below its folder, unless they are absolute.
    paths = {key: _expanded(key, value) for key, value in given.items() if key.endswith("_path")}
    lists = {key: _expanded(key, value) for key, value in given.items() if key.endswith("_file")}
    paths |= {key: paths["data_path"] / file for key, file in lists.items()}
    _check_roots({f"datamodule.{key}": value for key, value in paths.items()})


def _reads(target: Any) -> bool:
    return str(target) == NETWORK or str(target).startswith("ratchet.data.")


def _expanded(key: str, value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ForbiddenPathError(
            f"datamodule.{key}={value}: there is no such user's folder. Write the whole path."
        ) from error


def _roots() -> list[Path]:
    named = os.environ.get("RATCHET_DATA_ROOTS", "").split(os.pathsep)
    return [Path(root).expanduser().resolve() for root in named if root]


def _installed() -> list[Path]:
    """Where packages are, some of which bring weights."""
    return [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]


def _check_roots(paths: Mapping[str, Any], *others: Path) -> None:
    roots = _roots()
    for key, value in paths.items():
        if not roots or not value or value == HUB_WEIGHTS:
            continue
        if not any(Path(value).resolve().is_relative_to(root) for root in (*roots, home().resolve(), *others)):
            allowed = ", ".join(map(str, roots))
            raise ForbiddenPathError(f"{key}={value} is outside the folders that this deployment allows: {allowed}.")
