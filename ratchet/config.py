"""Composes the Hydra tree into settings, refuses what it does not know, and builds the objects that it names.

With `grammar`, which reads what a sweep varies, and `overrides`, the only module that knows Hydra. A configuration may come
from a form in a browser, so it is untrusted: `instantiate` builds nothing whose `_target_` is not on the allow-list, and
`compose` takes no override that reaches outside the tree.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from ratchet import resolvers
from ratchet.consistency import require_consistent
from ratchet.errors import ConfigError
from ratchet.grammar import as_overrides, read_space, requested, require_own_sweeper
from ratchet.one_sweep import require_one_sweep
from ratchet.overrides import CLASS_TABLES, require_harmless, require_replaced, translated, with_every_rule
from ratchet.paths import check_paths, with_whole_paths
from ratchet.settings import Node, TrialConfig
from ratchet.space import Composed, Origin, Point, Space
from ratchet.spelling import keys_at, nearest
from ratchet.targets import check_targets
from ratchet.trees import CONFIGS, user_trees

if TYPE_CHECKING:
    from ratchet.data.datamodule import SegmentationDataModule

COMMON = Origin()


class UserSearchPath(SearchPathPlugin):
    """Puts the trees of RATCHET_SEARCH_PATH (`file://…;pkg://…`, or plain folders) before Ratchet's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Let the first entry win over the second, and both over Ratchet's tree."""
        for path in reversed(user_trees()):
            if path.startswith("file://") and not Path(path.removeprefix("file://")).is_dir():
                raise ConfigError(f"RATCHET_SEARCH_PATH names {path}, which is not a folder: correct or unset it.")
            search_path.prepend(provider="RATCHET_SEARCH_PATH", path=path)


def application(arguments: Sequence[str]) -> Composed | None:
    """Run Hydra's command line, and return what it composed: one configuration, or with `--multirun` a sweep.

    None where Hydra only printed something (`--help`, `--cfg job`, `--info`). Raises `ConfigError`.
    """
    if {"-sc", "--shell-completion"} & set(arguments):
        raise ConfigError(
            "Hydra completes the words of commands that have no subcommands, so there is nothing to install: ratchet train "
            "--help lists the groups and keys."
        )
    _prepare_hydra()
    composed: list[tuple[DictConfig, Any]] = []

    def train(tree: DictConfig) -> None:
        composed.append((tree, HydraConfig.instance().cfg))

    run = hydra_main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(train)
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["ratchet train", *with_every_rule(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a composition error itself and exits
    requests: list[tuple[list[str], Origin]] = []
    token = requested.set(requests)
    try:
        with translated(arguments):
            run()
            if composed:  # without --multirun, or by a launcher of the user's choice
                for tree, known in composed:
                    require_replaced(arguments, tree)
                    os.environ.update(known.hydra.job.env_set)  # Hydra's own were there while it called `train` alone
                configs = tuple(_settings(tree, known) for tree, known in composed)
                return Composed(configs=configs, points=tuple({} for _ in configs), size=len(configs))
    finally:
        requested.reset(token)
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return compose_space(*requests[0], trusted=True) if requests else None


def compose(overrides: Sequence[str]) -> TrialConfig:
    """Compose one configuration from overrides in Hydra's grammar. Raises `ConfigError`."""
    composed = compose_space(overrides)
    if len(composed.configs) > 1 or composed.space is not None:
        raise ConfigError("one configuration is wanted here: give each key one value.")
    return composed.configs[0]


def compose_sweep(overrides: Sequence[str]) -> list[TrialConfig]:
    """Compose a configuration for each combination of the overrides' lists (`arch=unet,fpn`). Raises `ConfigError`."""
    composed = compose_space(overrides)
    if composed.space is not None:
        raise ConfigError(
            "a list of trials is wanted here, not a space to search: leave intervals and sweep.sampler out."
        )
    return list(composed.configs)


def compose_space(overrides: Sequence[str], origin: Origin = COMMON, *, trusted: bool = False) -> Composed:
    """Compose every combination of the overrides' lists; or, to search in, their space and a point for each of its values.

    It is a search where a value is an `interval(…)`, or where `sweep.sampler` says so. Unless `trusted` (the command
    line's own user is), this refuses overrides of Hydra itself and values that read the environment: they may come
    from a form. Raises `ConfigError`.
    """
    overrides = with_every_rule(overrides)
    with _hydra(overrides, origin):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(overrides)
        if not trusted:
            require_harmless(parsed)
        space = read_space(parsed, origin)
        start = next(space.grid())
        whole = _tree_at(space, start)
        require_own_sweeper(whole.hydra.sweeper)
        params = whole.hydra.sweeper.get("params")
        if "experiment" in space.dimensions:
            _require_same_params(space, params)
        if params:  # of an experiment: what is typed comes later, and holds
            space = read_space([*parser.parse_overrides(with_every_rule(as_overrides(params))), *parsed], origin)
            start = next(space.grid())
            whole = _tree_at(space, start)
        first = _read(whole, space.at(start))
        settings = first.sweep
        if settings.sampler == "grid" and space.endless:
            raise ConfigError("sweep.sampler=grid cannot try all of an interval: give range(…) or values instead.")
        search = space.endless or settings.sampler == "tpe"
        if search:
            size, points = settings.trials(space.size), list(space.samples())
        elif settings.sampler == "random":
            size = min(space.combinations, settings.max_trials or space.combinations)
            numbers = random.Random(first.core.seed).sample(range(space.combinations), size)
            points = [space.point(number) for number in numbers]
        else:
            size, points = space.combinations, list(itertools.islice(space.grid(), settings.max_trials))
        configs = [first if point == start else _compose_at(space, point) for point in points]
    if not trusted:
        for config in configs:
            check_paths(config)
    require_one_sweep(space, configs)
    return Composed(configs=tuple(configs), points=tuple(points), size=size, space=space if search else None)


def compose_point(space: Space, point: Point) -> TrialConfig:
    """Compose one point of a space that `compose_space` returned. Raises `ConfigError`."""
    with _hydra(space.at(point), space.origin):
        return _compose_at(space, point)


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


def data_module(node: Node, *, only: Collection[str] | None = None) -> SegmentationDataModule:
    """Build the data module of a configuration, to read and not to train: without the augmentation, which imports torchvision.

    Images that `only` does not name are left out. Raises what `instantiate` raises.
    """
    data: SegmentationDataModule = instantiate(node | {"train_transform": None})
    data.only = only
    return data


_hydra_lock = threading.RLock()  # Hydra keeps one global state for a process


@contextmanager
def _hydra(overrides: Sequence[str], origin: Origin) -> Iterator[None]:
    """Let Hydra compose from the tree inside the block; its errors become ours."""
    _prepare_hydra()
    with _hydra_lock, translated(overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(origin.config_path or str(CONFIGS), version_base="1.3"):
            yield


def _require_same_params(space: Space, params: Any) -> None:
    """Refuse experiments of one sweep of which each sweeps something else."""
    start = next(space.grid())
    others = [point for point in space.samples() if point["experiment"] != start["experiment"]]
    if any(_tree_at(space, point).hydra.sweeper.get("params") != params for point in others):
        raise ConfigError(
            "these experiments sweep different things (hydra.sweeper.params): give one of them at a time."
        )


def _tree_at(space: Space, point: Point) -> DictConfig:
    """The tree at a point, with Hydra's own node."""
    listed = ",".join(f"'{path}'" for path in space.origin.search_path)
    added = [f"hydra.searchpath=[{listed}]"] if listed else []
    return hydra_compose(space.origin.config_name, overrides=[*added, *space.at(point)], return_hydra_config=True)


def _compose_at(space: Space, point: Point) -> TrialConfig:
    return _read(_tree_at(space, point), space.at(point))


def _read(whole: DictConfig, overrides: Sequence[str]) -> TrialConfig:
    tree = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    require_replaced(overrides, tree)
    return _settings(tree, whole)


def _prepare_hydra() -> None:
    if UserSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserSearchPath)
    OmegaConf.register_new_resolver("env_or", resolvers.env_or, replace=True)
    OmegaConf.register_new_resolver("num_outputs", resolvers.num_outputs, replace=True)
    OmegaConf.register_new_resolver("package_file", resolvers.package_file, replace=True)
    OmegaConf.register_new_resolver("lightning_time", resolvers.lightning_time, replace=True)


def _settings(tree: DictConfig, known: Any) -> TrialConfig:
    """The settings that a tree amounts to; `known` has the node that `${hydra:…}` reads."""
    read = HydraConfig.instance()
    before, read.cfg = read.cfg, known
    try:
        container = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    finally:
        read.cfg = before
    _number_classes(container)
    check_targets(container, load=False)
    try:
        config = TrialConfig.model_validate(container)
    except ValidationError as error:
        problems = "; ".join(
            _fault(fault["type"], fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()
        )
        raise ConfigError(f"the configuration cannot be used: {problems}") from error
    require_consistent(config)
    return with_whole_paths(config)


def _number_classes(container: Any) -> None:
    """Make numbers of the keys of tables of classes: one that an override names is a text, and comes later."""
    data = container.get("datamodule")
    for name in CLASS_TABLES if isinstance(data, dict) else ():
        if isinstance(table := data.get(name), dict):
            data[name] = {int(key) if str(key).isdecimal() else key: value for key, value in table.items()}


def _fault(kind: str, loc: tuple[int | str, ...], message: str, value: object) -> str:
    key = ".".join(map(str, loc))
    if kind == "extra_forbidden":
        return f"{key}: there is no such key{nearest(str(loc[-1]), keys_at(TrialConfig, loc[:-1]))}"
    if kind == "missing":  # its value is all that the key lies in
        return f"{key}: this key is missing"
    return f"{key}={value!r}: {message}"
