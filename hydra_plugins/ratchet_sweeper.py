"""Hydra's sweeper for `ratchet train … --multirun`: it only takes the overrides down, Ratchet's own engine runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ratchet.errors import ConfigError
from ratchet.grammar import as_overrides, requested, require_own_sweeper
from ratchet.space import Origin

_ELSEWHERE = ("hydra.searchpath", "hydra.mode")
_NO_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's default


class RatchetSweeper(Sweeper):
    """Hydra wants its plugins in this namespace. `hydra/sweeper: ratchet` in the tree chooses it."""

    def __init__(self, params: Mapping[str, Any] | None = None, **others: Any) -> None:
        """`params` are what an experiment sweeps. Raises `ConfigError` at keys of other sweepers."""
        require_own_sweeper(others)
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what to compose from."""
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Hand the overrides over, with what the command line said about where the tree is."""
        assert self.hydra_context is not None
        assert self.config is not None
        launcher = str(self.config.hydra.launcher.get("_target_"))
        if launcher != _NO_LAUNCHER:
            raise ConfigError(
                f"hydra/launcher: {launcher} would start nothing, Ratchet's own engine does. sweep.parallel says how many trials "
                "run at once here; on several machines, give the same command with one RATCHET_STUDY_STORAGE."
            )
        os.environ.update(self.config.hydra.job.env_set)
        # What was typed of Hydra's own; where it looks is in the origin.
        own = [text for text in self.config.hydra.overrides.hydra if not text.lstrip("+").startswith(_ELSEWHERE)]
        arguments = [*own, *as_overrides(self._params), *arguments]
        entries = self.hydra_context.config_loader.get_search_path().get_path()
        added = [entry.path for entry in entries if entry.provider == "command-line"]  # --config-dir
        named = [str(path) for path in self.config.hydra.searchpath]
        main = next(entry.path for entry in entries if entry.provider == "main")  # --config-path
        if main.startswith("pkg://"):
            raise ConfigError(f"--config-path={main}: a sweep is composed from a folder. Give its path.")
        name = self.config.hydra.job.config_name
        origin = Origin(config_name=name, config_path=main.removeprefix("file://"), search_path=(*named, *added))
        requested.get().append((arguments, origin))
