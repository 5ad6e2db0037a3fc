"""Composes the Hydra tree into settings, refuses what it does not know, and builds the objects that it names.

The only module that knows Hydra. A configuration may come from a form in a browser, so it is untrusted: `instantiate`
builds nothing whose `_target_` is not on the allow-list, and `compose` takes no override that reaches outside the tree.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ratchet.errors import ConfigError, ForbiddenPathError, ForbiddenTargetError, UnknownKeyError
from ratchet.home import home
from ratchet.settings import Node, TrialConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

# Where a `_target_` may live: the module, and the class that it must derive from. A prefix would be too wide:
# `torch.nn.functional.torch.load` starts like a layer. When Hydra 1.4 brings its own whitelist, this is the one place to
# change.
ALLOWED_MODULES: Mapping[str, str] = {
    "pytorch_lightning.callbacks": "pytorch_lightning.Callback",
    "ratchet.data": "ratchet.data.datamodule.SegmentationDataModule",
    "ratchet.training.losses": "torch.nn.Module",
    "segmentation_models_pytorch.losses": "torch.nn.Module",
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torch.optim.lr_scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "torchvision.transforms.v2": "torchvision.transforms.v2.Transform",
}
ALLOWED_NAMES = frozenset(
    {
        "pytorch_lightning.Trainer",
        "ratchet.training.RunLogger",
        "ratchet.training.SegmentationModule",
        "ratchet.training.create_network",
    }
)


class UserSearchPath(SearchPathPlugin):
    """Puts the trees of RATCHET_SEARCH_PATH (`file://…;pkg://…`, or plain folders) before Ratchet's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Let the first entry win over the second, and both over Ratchet's tree."""
        for path in reversed(_user_trees()):
            if path.startswith("file://") and not Path(path.removeprefix("file://")).is_dir():
                raise ConfigError(f"RATCHET_SEARCH_PATH names {path}, which is not a folder: correct or unset it.")
            search_path.prepend(provider="RATCHET_SEARCH_PATH", path=path)


def application(arguments: Sequence[str]) -> list[TrialConfig]:
    """Run Hydra's command line, and return what it composed: one configuration, or one per job of `--multirun`.

    Empty where Hydra only printed something (`--help`, `--cfg job`, `--info`). Raises `ConfigError`.
    """
    _prepare_hydra()
    composed: list[DictConfig] = []

    def train(tree: DictConfig) -> None:
        composed.append(tree)

    run = hydra_main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(train)
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["ratchet train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a composition error itself and exits
    try:
        with _translated(arguments):
            run()
            return [_settings(tree) for tree in composed]
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def compose(overrides: Sequence[str]) -> TrialConfig:
    """Compose one configuration from overrides in Hydra's grammar. Raises `ConfigError`."""
    return compose_sweep(overrides, sweep=False)[0]


def compose_sweep(overrides: Sequence[str], *, sweep: bool = True) -> list[TrialConfig]:
    """Compose a configuration for each combination of the overrides' lists (`arch=unet,fpn`). Raises `ConfigError`.

    Unlike the command line, which its own user types, this refuses overrides of Hydra itself and values that read the
    environment: they may come from a form.
    """
    _prepare_hydra()
    with _hydra_lock, _translated(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        for override in parsed:
            if override.key_or_group.split("/")[0].split(".")[0] == "hydra":
                raise ConfigError(f"{override.input_line}: Hydra itself is not configured here. Leave this out.")
            if "${" in (override.input_line or ""):
                raise ConfigError(f"{override.input_line}: interpolations are not taken here. Write the value out.")
            if os.environ.get("RATCHET_DATA_ROOTS") and (override.key_or_group or "").startswith(_OPERATORS):
                raise ConfigError(
                    f"{override.input_line}: where data are downloaded from is the operator's to say, in a tree of "
                    "RATCHET_SEARCH_PATH. Leave this out."
                )
        jobs = BasicSweeper.split_arguments(parsed, None)[0] if sweep else [list(overrides)]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            configs = [_settings(hydra_compose("config", overrides=job)) for job in jobs]
    for config in configs:
        check_paths(config)
    return configs


def entries(group: str) -> list[str]:
    """Name the entries of a configuration group, the user's folders included; what is only a base of others is not."""
    folders = [Path(tree.removeprefix("file://")) for tree in _user_trees() if tree.startswith("file://")]
    paths = [
        path.relative_to(folder / group) for folder in (*folders, CONFIGS) for path in (folder / group).rglob("*.yaml")
    ]
    return sorted({path.with_suffix("").as_posix() for path in paths if path.parts[0] != "base"})


def instantiate(node: Node, **keywords: Any) -> Any:
    """Build the object that a node names, its inner nodes first. Raises `ConfigError`, `ForbiddenTargetError`."""
    check_targets(node)
    try:
        return hydra_instantiate(node, _convert_="all", **keywords)
    except HydraException as error:
        cause = error.__cause__ or error
        if isinstance(cause, TypeError | ValueError | ImportError | AttributeError):
            raise ConfigError(
                f"{node['_target_']} could not be built: {cause}. Compare its keys: ratchet train --cfg job"
            ) from error
        raise cause from error


def check_targets(node: Any, *, load: bool = True) -> None:
    """Raise `ForbiddenTargetError` at the first `_target_` under `node` that is not on the allow-list.

    With `load=False` only the names are looked at: nothing is imported, and what a name stands for is not known.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_name(node["_target_"])
            if load:
                _check_class(node["_target_"])
        for value in node.values():
            check_targets(value, load=load)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(value, load=load)


def check_paths(config: TrialConfig) -> None:
    """Raise `ForbiddenPathError` where a path leaves the roots of RATCHET_DATA_ROOTS (separated as PATH is; unset: any)."""
    check_data_paths(config.datamodule)
    weights = config.backbone.model.get("encoder_weights")
    _check_roots({"backbone.model.encoder_weights": weights, "core.home": str(config.core.home)})


def check_data_paths(datamodule: Node) -> None:
    """Raise `ForbiddenPathError` where a path of the data module leaves the roots of RATCHET_DATA_ROOTS."""
    paths = {key: value for key, value in datamodule.items() if key.endswith("_path")}
    # As the data module reads its lists: below its folder, unless they are absolute.
    lists = {key: value for key, value in datamodule.items() if key.endswith("_file") and value}
    paths |= {key: str(Path(datamodule["data_path"]) / file) for key, file in lists.items()}
    _check_roots({f"datamodule.{key}": value for key, value in paths.items()})


def _check_roots(paths: Mapping[str, Any]) -> None:
    roots = [Path(root).resolve() for root in os.environ.get("RATCHET_DATA_ROOTS", "").split(os.pathsep) if root]
    for key, value in paths.items():
        if not roots or not value or value == "imagenet":
            continue
        if not any(Path(value).resolve().is_relative_to(root) for root in (*roots, home().resolve())):
            allowed = ", ".join(map(str, roots))
            raise ForbiddenPathError(f"{key}={value} is outside the folders that this deployment allows: {allowed}.")


_OPERATORS = ("datamodule.download_url", "datamodule.checksums")

_hydra_lock = threading.RLock()  # Hydra keeps one global state for a process


def _user_trees() -> list[str]:
    """The addresses of RATCHET_SEARCH_PATH, the first of which wins."""
    named = [entry.strip() for entry in os.environ.get("RATCHET_SEARCH_PATH", "").split(";") if entry.strip()]
    return [entry if "://" in entry else f"file://{Path(entry).expanduser().absolute()}" for entry in named]


def _prepare_hydra() -> None:
    if UserSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserSearchPath)
    OmegaConf.register_new_resolver("num_outputs", _num_outputs, replace=True)
    OmegaConf.register_new_resolver("package_file", _package_file, replace=True)


def _num_outputs(idx_to_class: Mapping[int, str]) -> int:
    """One output (a sigmoid) for one foreground class; else a softmax over the background and every class."""
    return 1 if len(idx_to_class) == 1 else len(idx_to_class) + 1


def _package_file(package: str, file: str) -> str:
    """Path of a file inside an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {package} is not installed: pip install {package.replace('_', '-')}")
    return str(Path(next(iter(spec.submodule_search_locations))) / file)


def _settings(tree: DictConfig) -> TrialConfig:
    container = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    check_targets(container, load=False)
    try:
        return TrialConfig.model_validate(container)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}={problem['input']!r}: {problem['msg']}"
            if problem["type"] != "extra_forbidden"
            else f"{'.'.join(map(str, problem['loc']))}: there is no such key"
            for problem in error.errors()
        )
        raise ConfigError(f"the configuration cannot be used: {problems}") from error


@contextmanager
def _translated(overrides: Sequence[str]) -> Iterator[None]:
    """Turn Hydra's errors into ours, with the nearest known key."""
    try:
        yield
    except HydraException as error:
        message = " ".join(str(error).split())
        if "not in struct" in message or "Could not override" in message:
            raise UnknownKeyError(f"{message}{_nearest(message, overrides)}") from error
        raise ConfigError(f"{message.split(' Config search path')[0]}{_nearest_entry(message)}") from error
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{key}: {message}" if key else message) from error


def _nearest(message: str, overrides: Sequence[str]) -> str:
    """Name the known keys that look most like the unknown one in Hydra's message."""
    wanted = next((o.split("=")[0].lstrip("+~") for o in overrides if f"'{o.split('=')[0]}'" in message), None)
    if wanted is None:
        return ""
    GlobalHydra.instance().clear()
    groups = [o for o in overrides if "=" in o and not o.startswith(("-", "hydra")) and _is_group(o.split("=")[0])]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(groups), None)[0]
        known = list(_keys(OmegaConf.to_container(hydra_compose("config", overrides=jobs[0]), resolve=False)))
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    close += [key for key in known if key.split(".")[-1] == wanted.split(".")[-1] and key not in close]
    return f" Nearest known: {', '.join(close)}." if close else ""


def _nearest_entry(message: str) -> str:
    """Name the entries of the tree that look most like the one that Hydra could not find."""
    found = re.search(r"Could not find '([^']+)'", message)
    entries = [str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")]
    close = difflib.get_close_matches(found.group(1), entries, n=3) if found else []
    return f" Nearest: {', '.join(entry.replace('/', '=', 1) for entry in close)}." if close else ""


def _is_group(key: str) -> bool:
    return (CONFIGS / key.lstrip("+~").split("@")[0]).is_dir()


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _check_name(target: Any) -> None:
    module, _, name = str(target).rpartition(".")
    extra = {entry.strip() for entry in os.environ.get("RATCHET_ALLOWED_TARGETS", "").split(";")}
    if target in ALLOWED_NAMES:
        return
    if name.startswith("_") or module not in {*ALLOWED_MODULES, *extra}:
        raise ForbiddenTargetError(
            f"_target_: {target} is not allowed. Allowed are the public classes of {', '.join(sorted(ALLOWED_MODULES))}. "
            "The operator of a deployment adds modules with RATCHET_ALLOWED_TARGETS=package.module;…"
        )


def _check_class(target: str) -> None:
    module, _, name = target.rpartition(".")
    if target in ALLOWED_NAMES:
        return
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_: {target} does not exist: {error}") from error
    base_module, _, base_name = ALLOWED_MODULES.get(module, "builtins.object").rpartition(".")
    base = getattr(importlib.import_module(base_module), base_name)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ForbiddenTargetError(
            f"_target_: {target} is not allowed: {module} may give classes of {base_module}.{base_name} only."
        )
